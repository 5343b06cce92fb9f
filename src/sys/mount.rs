//! mount_setattr(2).
#![allow(unsafe_code, reason = "no library has mount_setattr")]

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Error, checked};

/// What [`mount_setattr`] changes; what is false or none stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttributes<'a> {
    /// Mounts below change as well: `AT_RECURSIVE`.
    pub recursive: bool,
    /// `MOUNT_ATTR_RDONLY`.
    pub read_only: bool,
    /// `MOUNT_ATTR_NOSUID`.
    pub nosuid: bool,
    /// `MOUNT_ATTR_NODEV`.
    pub nodev: bool,
    /// `MOUNT_ATTR_NOEXEC`.
    pub noexec: bool,
    /// `MOUNT_ATTR_IDMAP` with this user namespace.
    pub idmap: Option<BorrowedFd<'a>>,
    /// Where mounts below propagate to.
    pub propagation: Option<Propagation>,
}

/// Kinds of mount propagation; mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Neither here nor from here.
    Private,
    /// Among all copies of the mount.
    Shared,
}

impl MountAttributes<'_> {
    fn bits(&self) -> u64 {
        [
            (self.read_only, libc::MOUNT_ATTR_RDONLY),
            (self.nosuid, libc::MOUNT_ATTR_NOSUID),
            (self.nodev, libc::MOUNT_ATTR_NODEV),
            (self.noexec, libc::MOUNT_ATTR_NOEXEC),
            (self.idmap.is_some(), libc::MOUNT_ATTR_IDMAP),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |bits, (_, bit)| bits | bit)
    }

    /// Whether a call would change nothing.
    pub fn is_empty(&self) -> bool {
        self.bits() == 0 && self.propagation.is_none()
    }
}

impl fmt::Display for MountAttributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.recursive, "recursive"),
            (self.read_only, "read-only"),
            (self.nosuid, "nosuid"),
            (self.nodev, "nodev"),
            (self.noexec, "noexec"),
            (self.idmap.is_some(), "idmap"),
            (self.propagation == Some(Propagation::Private), "private"),
            (self.propagation == Some(Propagation::Shared), "shared"),
        ];
        let words: Vec<_> = words
            .iter()
            .filter(|(there, _)| *there)
            .map(|(_, word)| *word)
            .collect();
        f.write_str(&words.join(" "))
    }
}

/// Changes the mount whose root is `mount`.
pub fn mount_setattr(mount: BorrowedFd<'_>, attributes: &MountAttributes<'_>) -> Result<(), Error> {
    let mut attr = libc::mount_attr {
        attr_set: attributes.bits(),
        attr_clr: 0,
        propagation: match attributes.propagation {
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Shared) => libc::MS_SHARED,
            None => 0,
        },
        userns_fd: attributes
            .idmap
            .map_or(0, |namespace| namespace.as_raw_fd() as u64),
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if attributes.recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a static string, `attr` outlives the call and its size is given; the descriptors are
    // borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut attr,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(result).map(drop).map_err(|errno| {
        let call = format!(
            "mount_setattr(fd {}, \"\", {attributes})",
            mount.as_raw_fd()
        );
        Error::new(call, errno)
    })
}
