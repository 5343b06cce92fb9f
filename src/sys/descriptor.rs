//! close_range(2).
#![allow(unsafe_code, reason = "no library closes descriptors it does not own")]

use std::os::fd::RawFd;

use super::{Error, checked};

/// Closes every descriptor from `first` on.
///
/// Only for a process about to become another program, in a function that never returns: every `OwnedFd` it
/// was born with names a closed descriptor afterwards, and must be neither used nor dropped.
pub fn close_from(first: RawFd) -> Result<(), Error> {
    // SAFETY: takes numbers only and touches no memory. What becomes of owners of the closed descriptors is
    // the caller's promise above; its one caller is the child of a launch, which ends in execve(2) or _exit(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as libc::c_uint,
            libc::c_uint::MAX,
            0,
        )
    };
    checked(result)
        .map(drop)
        .map_err(|errno| Error::new(format!("close_range({first}, ~0, 0)"), errno))
}
