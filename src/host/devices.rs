//! Device nodes of the host.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Most nodes that are taken of a directory.
const NODES_MAX: usize = 256;

/// What stands at a path that is to be a device; links are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceFacts {
    /// Nothing.
    Missing,
    /// It could not be looked at, for this reason.
    Unreadable(String),
    /// Something else than a device or a directory.
    NoDevice,
    /// One device, at the path itself.
    Device(Node),
    /// A directory with these devices in it and below, by their paths in it, sorted; possibly none.
    Directory(Vec<(PathBuf, Node)>),
}

/// A device by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Which of the two kinds.
    pub kind: NodeKind,
    /// Number of the driver.
    pub major: u32,
    /// Number within it.
    pub minor: u32,
}

/// The kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "mknod(2) has them")]
pub enum NodeKind {
    Character,
    Block,
}

impl Node {
    /// Of a file; none for what is no device.
    fn of(metadata: &fs::Metadata) -> Option<Node> {
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => NodeKind::Character,
            kind if kind.is_block_device() => NodeKind::Block,
            _ => return None,
        };
        let number = metadata.rdev();
        Some(Node {
            kind,
            major: libc::major(number),
            minor: libc::minor(number),
        })
    }
}

impl DeviceFacts {
    pub(super) fn read(path: &Path) -> DeviceFacts {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return DeviceFacts::Missing,
            Err(error) => return DeviceFacts::Unreadable(error.to_string()),
        };
        if let Some(node) = Node::of(&metadata) {
            return DeviceFacts::Device(node);
        }
        if !metadata.is_dir() {
            return DeviceFacts::NoDevice;
        }
        let mut nodes = Vec::new();
        match collect(path, Path::new(""), &mut nodes) {
            Ok(()) if nodes.len() <= NODES_MAX => {
                nodes.sort_by(|one, other| one.0.cmp(&other.0));
                DeviceFacts::Directory(nodes)
            }
            Ok(()) => DeviceFacts::Unreadable(format!("it has more than {NODES_MAX} devices")),
            Err(error) => DeviceFacts::Unreadable(error.to_string()),
        }
    }

    /// See [`super::Host::fixed`]: a path whose last part is `missing` or `file` is that, `disk` is a block device,
    /// `directory` has two devices, every other is a character device.
    pub(super) fn fixed(path: &Path) -> DeviceFacts {
        let character = |minor| Node {
            kind: NodeKind::Character,
            major: 10,
            minor,
        };
        match path.file_name().and_then(|name| name.to_str()) {
            Some("missing") => DeviceFacts::Missing,
            Some("file") => DeviceFacts::NoDevice,
            Some("disk") => DeviceFacts::Device(Node {
                kind: NodeKind::Block,
                major: 254,
                minor: 0,
            }),
            Some("directory") => DeviceFacts::Directory(vec![
                ("card0".into(), character(240)),
                ("deep/card1".into(), character(241)),
            ]),
            _ => DeviceFacts::Device(character(229)),
        }
    }
}

/// Devices in a directory and below; links are left out, for they lead to others.
fn collect(
    directory: &Path,
    below: &Path,
    nodes: &mut Vec<(PathBuf, Node)>,
) -> Result<(), io::Error> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let name = below.join(entry.file_name());
        if let Some(node) = Node::of(&metadata) {
            nodes.push((name, node));
            if nodes.len() > NODES_MAX {
                return Ok(());
            }
        } else if metadata.is_dir() && below.components().count() < 4 {
            collect(&entry.path(), &name, nodes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_by_their_numbers() {
        let null = Node {
            kind: NodeKind::Character,
            major: 1,
            minor: 3,
        };
        assert_eq!(
            DeviceFacts::read(Path::new("/dev/null")),
            DeviceFacts::Device(null)
        );
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("file"), "").expect("written");
        std::os::unix::fs::symlink("/dev/null", directory.path().join("link")).expect("a link");
        assert_eq!(
            DeviceFacts::read(directory.path()),
            DeviceFacts::Directory(Vec::new())
        );
        assert_eq!(
            DeviceFacts::read(&directory.path().join("link")),
            DeviceFacts::Device(null)
        );
        assert_eq!(
            DeviceFacts::read(&directory.path().join("file")),
            DeviceFacts::NoDevice
        );
        assert_eq!(
            DeviceFacts::read(&directory.path().join("none")),
            DeviceFacts::Missing
        );
    }
}
