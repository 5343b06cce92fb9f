//! New file systems, attached nowhere yet; fsopen(2).

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::plan::MountFlags;
use crate::sys::{self, Called as _};

/// An option of a file system.
#[derive(Debug, Clone)]
pub enum Setting<'a> {
    /// `key`.
    Flag(&'static str),
    /// `key=value`.
    Value(&'static str, String),
    /// The same by a file that is open.
    File(&'static str, BorrowedFd<'a>),
}

/// A mount of a new instance of the file system of this kind.
pub fn make(
    kind: &str,
    settings: &[Setting<'_>],
    flags: MountFlags,
) -> Result<OwnedFd, sys::Error> {
    let context =
        fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).called(|| format!("fsopen({kind:?})"))?;
    // Shown in proc_pid_mountinfo(5); the kernel would show "none".
    fsconfig_set_string(&context, "source", kind)
        .called(|| format!("fsconfig({kind}, \"source\", {kind:?})"))?;
    for setting in settings {
        match setting {
            Setting::Flag(key) => {
                fsconfig_set_flag(&context, *key).called(|| format!("fsconfig({kind}, {key:?})"))?
            }
            Setting::Value(key, value) => fsconfig_set_string(&context, *key, value.as_str())
                .called(|| format!("fsconfig({kind}, {key:?}, {value:?})"))?,
            Setting::File(key, file) => fsconfig_set_fd(&context, *key, file)
                .called(|| format!("fsconfig({kind}, {key:?}, fd {})", file.as_raw_fd()))?,
        }
    }
    fsconfig_create(&context)
        .called(|| format!("fsconfig({kind}, FSCONFIG_CMD_CREATE)"))
        .map_err(|error| with_log(error, &context))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(flags))
        .called(|| format!("fsmount({kind}, {:?})", attributes(flags)))
}

/// tmpfs(5) with these limits, in bytes and files, and permission bits of its root.
pub fn tmpfs(size: u64, inodes: u64, mode: u32, flags: MountFlags) -> Result<OwnedFd, sys::Error> {
    make(
        "tmpfs",
        &[
            Setting::Value("size", size.to_string()),
            Setting::Value("nr_inodes", inodes.to_string()),
            Setting::Value("mode", format!("{mode:o}")),
        ],
        flags,
    )
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, flags.read_only);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, flags.nosuid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, flags.nodev);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, flags.noexec);
    attributes
}

/// The kernel leaves sentences about what it did not like in the context; the first is the reason.
fn with_log(error: sys::Error, context: &OwnedFd) -> sys::Error {
    let mut line = [0; 512];
    let Ok(length) = rustix::io::read(context, &mut line) else {
        return error;
    };
    let text = String::from_utf8_lossy(&line[..length]);
    // "e overlay: …": the letter is the level.
    let text = text.trim().trim_start_matches("e ").to_owned();
    error.with_remark(&text)
}
