//! The mount table.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::idmap::{Idmap, Probe};

/// One line of `/proc/self/mountinfo`; proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountPoint {
    /// Unique while the mount exists.
    pub(super) id: String,
    /// `MAJOR:MINOR` of what is mounted.
    pub(super) device: String,
    pub(super) at: PathBuf,
    pub(super) filesystem: String,
    pub(super) idmapped: bool,
}

/// What is mounted where.
#[derive(Debug, Clone, Default)]
pub(super) struct MountTable {
    mounts: Vec<MountPoint>,
}

impl MountTable {
    /// Empty if proc(5) cannot be read: then nothing is known to be idmappable.
    pub(super) fn read() -> MountTable {
        let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
        MountTable {
            mounts: parse(&text),
        }
    }

    /// All there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = &MountPoint> {
        self.mounts.iter()
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
    pub(super) fn idmap(&self, path: &Path, probe: &mut Probe) -> Idmap {
        match self.holding(path) {
            Some(mount) => probe.of(mount),
            None => Idmap::No("an unknown file system".to_owned()),
        }
    }

    /// Whether this canonical path can be idmapped together with all mounts below it.
    pub(super) fn idmap_recursive(&self, path: &Path, probe: &mut Probe) -> Idmap {
        let below = self.below(path);
        std::iter::once(path)
            .chain(below.iter().map(PathBuf::as_path))
            .map(|path| self.idmap(path, probe))
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
}

fn parse(text: &[u8]) -> Vec<MountPoint> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
            let mut fields = line.split(|byte| *byte == b' ');
            let id = text(fields.next()?);
            let device = text(fields.nth(1)?);
            let at = unescape(fields.nth(1)?);
            let options = fields.next()?;
            let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
            Some(MountPoint {
                id,
                device,
                at,
                filesystem: text(rest.next()?),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> MountTable {
        MountTable {
            mounts: parse(
                b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                  30 27 0:5 / /srv/with\\040space rw - tmpfs tmpfs rw\n\
                  31 27 0:6 / /srv/live rw,relatime - overlay overlay rw\n\
                  32 31 0:7 / /srv/live/data rw,idmapped - ext4 /dev/vdb rw\n\
                  broken line\n",
            ),
        }
    }

    #[test]
    fn the_innermost_mount_decides() {
        let table = table();
        let mut probe = Probe::documented((6, 12));
        assert_eq!(table.idmap(Path::new("/srv/web"), &mut probe), Idmap::Yes);
        assert_eq!(
            table.idmap(Path::new("/srv/with space/x"), &mut probe),
            Idmap::Yes
        );
        assert_eq!(
            table.idmap(Path::new("/srv/live/x"), &mut probe),
            Idmap::No("overlay".to_owned())
        );
        assert_eq!(
            table.idmap(Path::new("/srv/live/data"), &mut probe),
            Idmap::No("ext4, idmapped already".to_owned())
        );
    }

    #[test]
    fn a_tree_is_only_as_idmappable_as_what_is_mounted_in_it() {
        let table = table();
        let mut probe = Probe::documented((6, 12));
        assert_eq!(table.idmap(Path::new("/srv"), &mut probe), Idmap::Yes);
        assert_eq!(
            table.idmap_recursive(Path::new("/srv"), &mut probe),
            Idmap::No("overlay".to_owned())
        );
        assert_eq!(
            table.below(Path::new("/srv/live")),
            [Path::new("/srv/live/data")]
        );
    }

    #[test]
    fn older_kernels_idmap_fewer_file_systems() {
        let table = table();
        let mut probe = Probe::documented((6, 1));
        assert_eq!(
            table.idmap(Path::new("/srv/with space"), &mut probe),
            Idmap::No("tmpfs".to_owned())
        );
    }

    #[test]
    fn an_unreadable_table_promises_nothing() {
        let mut probe = Probe::documented((6, 12));
        assert!(
            !MountTable::default()
                .idmap(Path::new("/"), &mut probe)
                .is_possible()
        );
    }
}
