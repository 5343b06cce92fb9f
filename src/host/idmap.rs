//! Which file systems can be mounted with shifted owners; mount_setattr(2), `MOUNT_ATTR_IDMAP`.
//!
//! The kernel is asked, by doing it to a mount that is attached nowhere. That takes a user namespace, and so a
//! process, which is dear beside the few milliseconds of a start: the answers are kept until the next boot. Who
//! may not ask, as `boxctl plan` of an ordinary user, hears what the manual page says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::filesystems::MountPoint;
use crate::sys::{self, Errno, Fork, MountAttributes};

/// Answers of the kernel, a line each: `MOUNT-ID MAJOR:MINOR TYPE yes|no`. No box has a name like that.
const ANSWERS: &str = "/run/boxd/.idmap";

/// A mount needs some tens of bytes.
const ANSWERS_MAX: u64 = 1 << 20;

/// File systems whose server may be away: to touch one may take for ever. None of them has idmapped mounts.
const REMOTE: [&str; 9] = [
    "9p", "afs", "autofs", "cifs", "coda", "ncpfs", "nfs", "nfs4", "smb3",
];

/// Whether a path can be mounted with its owners shifted into the box's range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idmap {
    /// It can.
    Yes,
    /// It cannot, because of this: a phrase such as "overlay".
    No(String),
}

impl Idmap {
    /// Whether it is [`Idmap::Yes`].
    pub fn is_possible(&self) -> bool {
        *self == Idmap::Yes
    }
}

/// Asks each mount once.
pub(super) struct Probe {
    kernel: (u32, u32),
    answers: BTreeMap<String, bool>,
    /// Made for the first question; none where the kernel makes none for us.
    namespace: Option<Option<UserNamespace>>,
    news: bool,
}

impl Probe {
    /// Knows what was answered since the host was booted.
    pub(super) fn new(kernel: (u32, u32)) -> Probe {
        Probe {
            kernel,
            answers: read(Path::new(ANSWERS)).unwrap_or_default(),
            namespace: None,
            news: false,
        }
    }

    /// Knows nothing and cannot ask: what the manual page says.
    #[cfg(test)]
    pub(super) fn documented(kernel: (u32, u32)) -> Probe {
        Probe {
            kernel,
            answers: BTreeMap::new(),
            namespace: Some(None),
            news: false,
        }
    }

    /// Whether this mount can be mounted once more, with shifted owners.
    pub(super) fn of(&mut self, mount: &MountPoint) -> Idmap {
        if mount.idmapped {
            return Idmap::No(format!("{}, idmapped already", mount.filesystem));
        }
        let key = key(mount);
        let possible = match self.answers.get(&key) {
            Some(answer) => *answer,
            None => match self.ask(mount) {
                Some(answer) => {
                    self.answers.insert(key, answer);
                    self.news = true;
                    answer
                }
                None => since(&mount.filesystem).is_some_and(|since| since <= self.kernel),
            },
        };
        if possible {
            Idmap::Yes
        } else {
            Idmap::No(mount.filesystem.clone())
        }
    }

    /// What the kernel says; none if it says nothing about this file system, but about us.
    fn ask(&mut self, mount: &MountPoint) -> Option<bool> {
        if REMOTE.contains(&mount.filesystem.as_str()) {
            return None;
        }
        let namespace = self.namespace.get_or_insert_with(UserNamespace::make);
        let namespace = namespace.as_ref()?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_NO_AUTOMOUNT;
        let detached = open_tree(CWD, &mount.at, flags).ok()?;
        let shifted = MountAttributes {
            idmap: Some(namespace.descriptor.as_fd()),
            ..MountAttributes::default()
        };
        match sys::mount_setattr(detached.as_fd(), &shifted) {
            Ok(()) => Some(true),
            Err(error) if error.errno() == Errno::EINVAL => Some(false),
            Err(_) => None,
        }
    }

    /// Keeps the answers for the next start, those of mounts that are gone left out. Without them the kernel is
    /// asked again, so that nobody needs to hear of a failure.
    pub(super) fn remember<'a>(self, mounts: impl Iterator<Item = &'a MountPoint>) {
        if !self.news {
            return;
        }
        let known: String = mounts
            .filter_map(|mount| {
                let key = key(mount);
                let word = if *self.answers.get(&key)? {
                    "yes"
                } else {
                    "no"
                };
                Some(format!("{key} {word}\n"))
            })
            .collect();
        let _ = write(Path::new(ANSWERS), &known);
    }
}

/// A mount is known by its number, and once that is another's by what it is a mount of.
fn key(mount: &MountPoint) -> String {
    format!("{} {} {}", mount.id, mount.device, mount.filesystem)
}

fn read(path: &Path) -> Option<BTreeMap<String, bool>> {
    let mut text = String::new();
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    file.take(ANSWERS_MAX).read_to_string(&mut text).ok()?;
    let answers = text.lines().filter_map(|line| {
        let (key, word) = line.rsplit_once(' ')?;
        let answer = match word {
            "yes" => true,
            "no" => false,
            _ => return None,
        };
        Some((key.to_owned(), answer))
    });
    Some(answers.collect())
}

/// Whoever reads meanwhile finds the whole file. Of two that write the last one counts.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension(std::process::id().to_string());
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// A user namespace in which one id is mapped, as an idmapped mount wants it.
struct UserNamespace {
    descriptor: OwnedFd,
}

impl UserNamespace {
    /// It is born with a process, which ends when it has been opened; user_namespaces(7).
    fn make() -> Option<UserNamespace> {
        let (wait, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).ok()?;
        let (pid, pidfd) = match sys::clone3(CloneFlags::CLONE_NEWUSER).ok()? {
            Fork::Child => {
                drop(hold);
                // Until the launcher lets go of the other end, in one way or another.
                let _ = rustix::io::retry_on_intr(|| rustix::io::read(&wait, &mut [0_u8]));
                sys::exit_now(0)
            }
            Fork::Parent { pid, pidfd } => (pid, pidfd),
        };
        let map = |file: &str| {
            File::options()
                .write(true)
                .open(format!("/proc/{pid}/{file}"))
                .and_then(|mut map| map.write_all(b"0 0 1"))
        };
        let descriptor = map("uid_map")
            .and_then(|()| map("gid_map"))
            .and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
        drop(hold);
        let ended = || waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        let _ = rustix::io::retry_on_intr(ended);
        Some(UserNamespace {
            descriptor: descriptor.ok()?.into(),
        })
    }
}

/// The first kernel whose driver of this file system sets `FS_ALLOW_IDMAP`; mount_setattr(2) has the list.
fn since(filesystem: &str) -> Option<(u32, u32)> {
    Some(match filesystem {
        "ext2" | "ext3" | "ext4" | "vfat" | "msdos" | "xfs" => (5, 12),
        "btrfs" | "ntfs3" => (5, 15),
        "f2fs" => (5, 18),
        "erofs" => (5, 19),
        "squashfs" => (6, 2),
        "tmpfs" => (6, 3),
        "ceph" | "bcachefs" => (6, 7),
        "hugetlbfs" => (6, 9),
        "virtiofs" => (6, 12),
        "zfs" => (5, 12),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_again_and_nonsense_is_none() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join(".idmap");
        assert!(read(&path).is_none());
        write(&path, "27 254:0 ext4 yes\n31 0:6 overlay no\n").expect("written");
        write(&path, "27 254:0 ext4 yes\n31 0:6 overlay no\nnonsense\n\n").expect("again");
        let answers = read(&path).expect("readable");
        assert_eq!(answers.len(), 2);
        assert!(answers["27 254:0 ext4"]);
        assert!(!answers["31 0:6 overlay"]);
        let left = fs::read_dir(directory.path()).expect("listed").count();
        assert_eq!(left, 1, "nothing but the file stays");
    }
}
