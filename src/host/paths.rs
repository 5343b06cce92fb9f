//! What stands at a path of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::filesystems::MountTable;
use super::idmap::{Idmap, Probe};

/// What is known of a path; symbolic links are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFacts {
    /// The path without links; that of the nearest directory above it that is there, if it is missing.
    pub real: PathBuf,
    /// What stands there.
    pub kind: Kind,
    /// Whose it is; none if it could not be looked at.
    pub access: Option<Access>,
    /// What limits of a disk would be about.
    pub disk: Disk,
    /// Whether the mount it lies in can be idmapped.
    pub idmap: Idmap,
    /// The same, all mounts below it included.
    pub idmap_recursive: Idmap,
    /// Mount points below it.
    pub mounts_below: Vec<PathBuf>,
}

/// Whose a file is, and who may change it; inode(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Missing,
    /// It could not be looked at, for this reason.
    Unreadable(String),
    /// A directory.
    Directory {
        /// A directory `usr` is in it: it may be a root file system.
        has_usr: bool,
    },
    /// A regular file.
    File,
    /// A socket or FIFO.
    Socket,
    /// A character or block device.
    Device,
}

/// The block device a path is, or lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// The one of this number, which may be a partition, or a volume that is made of others.
    Device(rustix::fs::Dev),
    /// There may be one: the file system has its own way with devices, or the path could not be looked at.
    Unknown,
    /// There is none, and systemd finds none: a tmpfs, an overlay, another machine.
    Absent,
}

impl Disk {
    /// Looks where this path lies. Links are followed.
    pub fn under(path: &Path) -> Disk {
        let Ok(metadata) = fs::metadata(path) else {
            return Disk::Unknown;
        };
        if metadata.file_type().is_block_device() {
            Disk::Device(metadata.rdev())
        } else if rustix::fs::major(metadata.dev()) != 0 {
            Disk::Device(metadata.dev())
        } else {
            match rustix::fs::statfs(path) {
                Ok(found) if !OF_SEVERAL_DISKS.contains(&(found.f_type as u64)) => Disk::Absent,
                _ => Disk::Unknown,
            }
        }
    }
}

/// `BTRFS_SUPER_MAGIC` and `BCACHEFS_STATFS_MAGIC` of statfs(2).
const OF_SEVERAL_DISKS: [u64; 2] = [0x9123_683e, 0xca45_1a4e];

/// Looks at all of these paths.
pub(super) fn read(
    paths: BTreeSet<PathBuf>,
    table: &MountTable,
    kernel: (u32, u32),
) -> BTreeMap<PathBuf, PathFacts> {
    let mut probe = Probe::new(kernel);
    let read = paths
        .into_iter()
        .map(|path| {
            let facts = facts(&path, table, &mut probe);
            (path, facts)
        })
        .collect();
    probe.remember(table.iter());
    read
}

fn facts(path: &Path, table: &MountTable, probe: &mut Probe) -> PathFacts {
    let real = canonical_or_ancestor(path);
    PathFacts {
        kind: kind(path),
        access: fs::metadata(path).ok().map(|metadata| Access {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
        }),
        disk: Disk::under(path),
        idmap: table.idmap(&real, probe),
        idmap_recursive: table.idmap_recursive(&real, probe),
        mounts_below: table.below(&real),
        real,
    }
}

fn kind(path: &Path) -> Kind {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => return Kind::Missing,
        Err(error) => return Kind::Unreadable(error.to_string()),
    };
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        // A link counts by what it is, not by where it leads on this host.
        let has_usr =
            fs::symlink_metadata(path.join("usr")).is_ok_and(|metadata| metadata.is_dir());
        Kind::Directory { has_usr }
    } else if file_type.is_file() {
        Kind::File
    } else if file_type.is_char_device() || file_type.is_block_device() {
        Kind::Device
    } else {
        Kind::Socket
    }
}

/// The path without links, or that of the nearest directory above it that is there: what will be made at a
/// missing path will lie in the same file system.
fn canonical_or_ancestor(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|ancestor| fs::canonicalize(ancestor).ok())
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// Where a socket at this path will be: no link in its folders, those that are missing as they are written.
pub fn real_path(path: &Path) -> PathBuf {
    for folder in path.ancestors().skip(1) {
        if let Ok(real) = fs::canonicalize(folder) {
            return real.join(path.strip_prefix(folder).unwrap_or(path));
        }
    }
    path.to_owned()
}

impl PathFacts {
    /// See [`super::Host::fixed`].
    pub(super) fn fixed(path: &Path) -> PathFacts {
        let last = path.file_name().and_then(|name| name.to_str());
        let idmap = match last {
            Some("overlay") => Idmap::No("overlay".to_owned()),
            _ => Idmap::Yes,
        };
        PathFacts {
            real: path.to_owned(),
            access: Some(Access {
                uid: 0,
                gid: 0,
                mode: 0o755,
            }),
            kind: match last {
                Some("missing") => Kind::Missing,
                Some("file") => Kind::File,
                Some(name) if name.ends_with(".cred") => Kind::File,
                Some("socket") => Kind::Socket,
                Some("device") => Kind::Device,
                Some("empty") => Kind::Directory { has_usr: false },
                _ => Kind::Directory { has_usr: true },
            },
            disk: match last {
                Some("overlay") => Disk::Absent,
                _ => Disk::Unknown,
            },
            idmap_recursive: idmap.clone(),
            idmap,
            mounts_below: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_stands_at_a_path_is_told_apart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("root/usr")).expect("directory");
        fs::create_dir(at("plain")).expect("directory");
        fs::create_dir(at("linked")).expect("directory");
        symlink("/usr", at("linked/usr")).expect("link");
        fs::write(at("file"), "").expect("file");
        symlink("nowhere", at("dangling")).expect("link");
        symlink("loop", at("loop")).expect("link");
        let _socket = UnixListener::bind(at("socket")).expect("socket");
        assert_eq!(kind(&at("root")), Kind::Directory { has_usr: true });
        assert_eq!(kind(&at("plain")), Kind::Directory { has_usr: false });
        assert_eq!(kind(&at("linked")), Kind::Directory { has_usr: false });
        assert_eq!(kind(&at("file")), Kind::File);
        assert_eq!(kind(&at("dangling")), Kind::Missing);
        assert_eq!(kind(&at("nothing")), Kind::Missing);
        assert_eq!(kind(&at("socket")), Kind::Socket);
        assert_eq!(kind(Path::new("/dev/null")), Kind::Device);
        assert!(matches!(kind(&at("loop")), Kind::Unreadable(_)));
    }

    #[test]
    fn what_lies_on_no_disk_is_told_from_what_is_not_known() {
        assert_eq!(Disk::under(Path::new("/proc")), Disk::Absent);
        assert_eq!(Disk::under(Path::new("/proc/nothing")), Disk::Unknown);
    }

    #[test]
    fn a_missing_path_lies_in_the_file_system_of_what_is_above_it() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let real = fs::canonicalize(directory.path()).expect("canonical");
        assert_eq!(canonical_or_ancestor(&real.join("a/b/c")), real);
    }
}
