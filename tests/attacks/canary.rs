//! What lies outside the box and must stay as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::running::BOXCTL;

/// Content no box may ever read.
pub const SECRET: &str = "of the host, and of nobody else";

/// Settings an escape begins or ends with.
const SETTINGS: [&str; 8] = [
    "kernel/core_pattern",
    "kernel/modprobe",
    "kernel/hostname",
    "kernel/domainname",
    "kernel/sysrq",
    "kernel/msgmax",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
];

/// A tree of files of every kind, and the rest of the host that an attack would change.
pub struct Canary {
    tree: tempfile::TempDir,
    before: BTreeMap<String, String>,
}

impl Canary {
    /// A new one, and how all of it is now.
    pub fn new() -> Canary {
        let tree = tempfile::tempdir().expect("a directory");
        let at = |name: &str| tree.path().join(name);
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).expect("set");
        fs::create_dir_all(at("a/b/c")).expect("a directory");
        fs::create_dir(at("closed")).expect("a directory");
        fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o700)).expect("set");
        for file in ["file", "secret", "a/b/file", "passwd"] {
            fs::write(at(file), SECRET).expect("a file");
        }
        fs::write(at("setuid"), SECRET).expect("a file");
        fs::set_permissions(at("setuid"), fs::Permissions::from_mode(0o4755)).expect("set");
        symlink("file", at("link")).expect("a link");
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let null = makedev(1, 3);
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, at("device"), FileType::CharacterDevice, mode, null).expect("a device");
        let mut canary = Canary {
            tree,
            before: BTreeMap::new(),
        };
        canary.before = canary.look();
        canary
    }

    /// Where it is on the host.
    pub fn path(&self) -> &Path {
        self.tree.path()
    }

    /// Device and inode number of what is in it: a descriptor that has one of these has left its root.
    pub fn inodes(&self) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        visit(self.path(), &mut |path| {
            let metadata = fs::symlink_metadata(path).expect("it is there");
            found.push((metadata.dev(), metadata.ino()));
        });
        found
    }

    /// Nothing has changed.
    #[track_caller]
    pub fn assert_untouched(&self) {
        let now = self.look();
        for (what, before) in &self.before {
            assert_eq!(now.get(what), Some(before), "{what} has changed");
        }
        let new: Vec<_> = now
            .keys()
            .filter(|what| !self.before.contains_key(*what))
            .collect();
        assert!(new.is_empty(), "new on the host: {new:?}");
    }

    fn look(&self) -> BTreeMap<String, String> {
        let mut seen = BTreeMap::new();
        for top in [self.path(), Path::new("/dev")] {
            visit(top, &mut |path| {
                // Terminals come and go with those who use this machine.
                if !path.starts_with("/dev/pts") && !path.starts_with("/dev/shm") {
                    seen.insert(path.display().to_string(), account(path, top));
                }
            });
        }
        for setting in SETTINGS {
            let value = fs::read_to_string(Path::new("/proc/sys").join(setting));
            seen.insert(setting.to_owned(), value.unwrap_or_default());
        }
        let program = Path::new(BOXCTL);
        seen.insert(BOXCTL.to_owned(), account(program, program));
        for line in fs::read_to_string("/proc/self/mountinfo")
            .expect("readable")
            .lines()
        {
            seen.insert(format!("mount {line}"), String::new());
        }
        seen
    }
}

/// All that is known of a file, its content included if it lies below the canary's own top.
fn account(path: &Path, top: &Path) -> String {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return "gone".to_owned();
    };
    let kind = metadata.file_type();
    let mut account = format!(
        "{kind:?} {:o} {}:{} {}:{}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.rdev(),
        if top == Path::new("/dev") && metadata.is_dir() {
            0
        } else {
            metadata.nlink()
        },
    );
    if kind.is_symlink() {
        account += &format!(" {:?}", fs::read_link(path));
    }
    if top != Path::new("/dev") && !kind.is_fifo() && !kind.is_char_device() {
        account += &format!(
            " {} {}.{}",
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        // The program is executed all the time and large: its times and size must do.
        if metadata.is_file() && path != Path::new(BOXCTL) {
            let mut content = String::new();
            fs::File::open(path)
                .and_then(|mut file| file.read_to_string(&mut content))
                .expect("readable");
            account += &content;
            account += &format!(" {}.{}", metadata.ctime(), metadata.ctime_nsec());
        }
    }
    account
}

fn visit(path: &Path, look: &mut impl FnMut(&Path)) {
    look(path);
    if !path.is_symlink() && path.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        entries.sort();
        for entry in entries {
            visit(&entry, look);
        }
    }
}
