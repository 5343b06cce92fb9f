//! The box's root becomes the root of the process, and the host's goes; pivot_root(2).

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use super::paths::Root;
use crate::sys::{self, Called as _, MountAttributes, Propagation};

/// What kept the process in the host's root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mounts of the host still told each other what happens.
    #[error("cannot separate the box's mounts from the host's, whose root must be a mount")]
    Separate(#[source] sys::Error),
    /// The new root was not attached or not entered.
    #[error("cannot make the box's root the root")]
    Enter(#[source] sys::Error),
    /// The old one stayed.
    #[error("cannot take the host's root away from the box")]
    Detach(#[source] sys::Error),
}

/// Attaches this mount, makes it the root and working directory of this process, and detaches everything the
/// mount namespace had before. The process must be in a mount namespace of its own.
pub fn enter(root: OwnedFd) -> Result<Root, Error> {
    let host = open(Path::new("/")).map_err(Error::Enter)?;
    let private = MountAttributes {
        recursive: true,
        propagation: Some(Propagation::Private),
        ..MountAttributes::default()
    };
    sys::mount_setattr(host.as_fd(), &private).map_err(Error::Separate)?;
    // On top of the host's root, where every process looks up its own "/" below it: no directory of the host
    // has to be found for the purpose.
    attach(&root, &host).map_err(Error::Enter)?;
    change_directory(&root).map_err(Error::Enter)?;
    rustix::process::pivot_root(".", ".")
        .called(|| r#"pivot_root(".", ".")"#.to_owned())
        .map_err(Error::Enter)?;
    // The old root now lies on top of the new one.
    change_directory(&host).map_err(Error::Detach)?;
    unmount(".", UnmountFlags::DETACH)
        .called(|| r#"umount2(".", MNT_DETACH)"#.to_owned())
        .map_err(Error::Detach)?;
    rustix::process::chdir("/")
        .called(|| r#"chdir("/")"#.to_owned())
        .map_err(Error::Detach)?;
    Ok(Root::new(root))
}

/// Attaches a mount that is attached nowhere to a place, both by descriptor.
pub fn attach(mount: &OwnedFd, place: &OwnedFd) -> Result<(), sys::Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).called(|| {
        format!(
            "move_mount(fd {}, \"\", fd {}, \"\")",
            mount.as_raw_fd(),
            place.as_raw_fd()
        )
    })
}

/// A directory of this process' root, as a place: `O_PATH`.
pub fn open(path: &Path) -> Result<OwnedFd, sys::Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).called(|| format!("open({path:?}, O_PATH)"))
}

/// fchdir(2).
pub fn change_directory(directory: &OwnedFd) -> Result<(), sys::Error> {
    rustix::process::fchdir(directory).called(|| format!("fchdir(fd {})", directory.as_raw_fd()))
}
