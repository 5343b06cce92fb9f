//! This program, read-only.
//!
//! A box can make a program of its own into a link to `/proc/self/exe`, so that whoever executes it executes
//! the file of the process that entered, or that became the box, and can then be opened for writing through
//! `/proc`: CVE-2019-5736.
//! Root of a box with ids of its own may not write a file of the host's root. Root of a box that has the host's
//! ids may, unless the program was executed from a mount that nobody can write through. Such a mount is made
//! here, attached to no place, and lasts as long as the process does.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::{CWD, StatVfsMountFlags, statvfs};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::{self, Called as _, Errno, MountAttributes, mount_setattr};

/// Why this program cannot be executed from a read-only mount.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] sys::Error);

const SELF: &str = "/proc/self/exe";

/// Returns in a process that was executed from a read-only mount; in any other, this process becomes one, from its
/// beginning. Descriptors that are closed by execve(2) are lost then, and what was read from a pipe is.
///
/// # Errors
///
/// What the kernel refused.
pub fn this_program() -> Result<(), Error> {
    let mount = statvfs(SELF).called(|| format!("statvfs({SELF:?})"))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    match execute(&read_only()?)? {}
}

/// The file of this process on a mount of its own.
fn read_only() -> Result<OwnedFd, sys::Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree =
        open_tree(CWD, SELF, flags).called(|| format!("open_tree({SELF:?}, OPEN_TREE_CLONE)"))?;
    let attributes = MountAttributes {
        read_only: true,
        ..MountAttributes::default()
    };
    mount_setattr(tree.as_fd(), &attributes)?;
    Ok(tree)
}

fn execute(file: &OwnedFd) -> Result<Infallible, sys::Error> {
    let string = |text: std::ffi::OsString| {
        CString::new(text.into_vec())
            .map_err(|_| sys::Error::new("execveat(an argument with a NUL byte)", Errno::EINVAL))
    };
    let arguments = std::env::args_os()
        .map(string)
        .collect::<Result<Vec<_>, _>>()?;
    let environment = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            string(name)
        })
        .collect::<Result<Vec<_>, _>>()?;
    nix::unistd::fexecve(file, &arguments, &environment)
        .called(|| format!("execveat({SELF:?} on a read-only mount)"))
}
