//! The mount table, and which file systems can be mounted with shifted owners.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Whether a path can be mounted with its owners shifted into the box's range; mount_setattr(2),
/// `MOUNT_ATTR_IDMAP`.
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

/// One line of `/proc/self/mountinfo`; proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct MountPoint {
    at: PathBuf,
    filesystem: String,
    idmapped: bool,
}

/// What is mounted where.
#[derive(Debug, Clone, Default)]
pub(super) struct MountTable {
    mounts: Vec<MountPoint>,
    kernel: (u32, u32),
}

impl MountTable {
    /// Empty if proc(5) cannot be read: then nothing is known to be idmappable.
    pub(super) fn read() -> MountTable {
        let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        MountTable {
            mounts: parse(&text),
            kernel: version(&release),
        }
    }

    /// Mount point of the first mount of this type.
    pub(super) fn first_of_type(&self, filesystem: &str) -> Option<PathBuf> {
        self.mounts
            .iter()
            .find(|mount| mount.filesystem == filesystem)
            .map(|mount| mount.at.clone())
    }

    /// What mounts lie below this canonical path.
    pub(super) fn below(&self, path: &Path) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self
            .mounts
            .iter()
            .filter(|mount| mount.at != path && mount.at.starts_with(path))
            .map(|mount| mount.at.clone())
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Whether this canonical path can be idmapped.
    pub(super) fn idmap(&self, path: &Path) -> Idmap {
        match self.holding(path) {
            Some(mount) => self.idmap_of(mount),
            None => Idmap::No("an unknown file system".to_owned()),
        }
    }

    /// Whether this canonical path can be idmapped together with all mounts below it.
    pub(super) fn idmap_recursive(&self, path: &Path) -> Idmap {
        let below = self.below(path);
        std::iter::once(path)
            .chain(below.iter().map(PathBuf::as_path))
            .map(|path| self.idmap(path))
            .find(|idmap| !idmap.is_possible())
            .unwrap_or(Idmap::Yes)
    }

    /// The mount a path lies in: of several at one place the last, which covers the others.
    fn holding(&self, path: &Path) -> Option<&MountPoint> {
        self.mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.at))
            .max_by_key(|mount| mount.at.components().count())
    }

    fn idmap_of(&self, mount: &MountPoint) -> Idmap {
        if mount.idmapped {
            return Idmap::No(format!("{}, idmapped already", mount.filesystem));
        }
        match since(&mount.filesystem) {
            Some(since) if since <= self.kernel => Idmap::Yes,
            _ => Idmap::No(mount.filesystem.clone()),
        }
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

fn parse(text: &[u8]) -> Vec<MountPoint> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let at = unescape(fields.nth(4)?);
            let options = fields.next()?;
            let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
            Some(MountPoint {
                at,
                filesystem: String::from_utf8_lossy(rest.next()?).into_owned(),
                idmapped: options
                    .split(|byte| *byte == b',')
                    .any(|option| option == b"idmapped"),
            })
        })
        .collect()
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(kernel: (u32, u32)) -> MountTable {
        MountTable {
            mounts: parse(
                b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                  30 27 0:5 / /srv/with\\040space rw - tmpfs tmpfs rw\n\
                  31 27 0:6 / /srv/live rw,relatime - overlay overlay rw\n\
                  32 31 0:7 / /srv/live/data rw,idmapped - ext4 /dev/vdb rw\n\
                  broken line\n",
            ),
            kernel,
        }
    }

    #[test]
    fn the_innermost_mount_decides() {
        let table = table((6, 12));
        assert_eq!(table.idmap(Path::new("/srv/web")), Idmap::Yes);
        assert_eq!(table.idmap(Path::new("/srv/with space/x")), Idmap::Yes);
        assert_eq!(
            table.idmap(Path::new("/srv/live/x")),
            Idmap::No("overlay".to_owned())
        );
        assert_eq!(
            table.idmap(Path::new("/srv/live/data")),
            Idmap::No("ext4, idmapped already".to_owned())
        );
    }

    #[test]
    fn a_tree_is_only_as_idmappable_as_what_is_mounted_in_it() {
        let table = table((6, 12));
        assert_eq!(table.idmap(Path::new("/srv")), Idmap::Yes);
        assert_eq!(
            table.idmap_recursive(Path::new("/srv")),
            Idmap::No("overlay".to_owned())
        );
        assert_eq!(
            table.below(Path::new("/srv/live")),
            [Path::new("/srv/live/data")]
        );
    }

    #[test]
    fn older_kernels_idmap_fewer_file_systems() {
        let table = table((6, 1));
        assert_eq!(
            table.idmap(Path::new("/srv/with space")),
            Idmap::No("tmpfs".to_owned())
        );
        assert_eq!(version("6.1.0-28-amd64\n"), (6, 1));
        assert_eq!(version("6.18.44-fc"), (6, 18));
    }

    #[test]
    fn an_unreadable_table_promises_nothing() {
        assert!(!MountTable::default().idmap(Path::new("/")).is_possible());
    }
}
