//! close_range(2).
#![allow(unsafe_code, reason = "no library closes descriptors it does not own")]

use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use super::{Error, FIRST_PASSED, checked};

/// Closes every descriptor from `first` on.
///
/// Only for a process about to become another program, in a function that never returns: every `OwnedFd` it
/// was born with names a closed descriptor afterwards, and must be neither used nor dropped.
pub fn close_from(first: RawFd) -> Result<(), Error> {
    close_range(first as libc::c_uint, libc::c_uint::MAX, 0)
}

/// Closes every descriptor from 3 on but these.
///
/// For the same kind of process as [`close_from`], with the same promise.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> Result<(), Error> {
    close_from_but(FIRST_PASSED, kept)
}

/// Closes every descriptor from `first` on but these.
///
/// For the same kind of process as [`close_from`], with the same promise.
pub fn close_from_but(mut first: RawFd, kept: &[BorrowedFd<'_>]) -> Result<(), Error> {
    let mut kept: Vec<RawFd> = kept.iter().map(|fd| fd.as_raw_fd()).collect();
    kept.sort_unstable();
    kept.retain(|fd| *fd >= first);
    for fd in kept {
        if fd > first {
            close_range(first as libc::c_uint, (fd - 1) as libc::c_uint, 0)?;
        }
        first = first.max(fd + 1);
    }
    close_from(first)
}

/// Marks every descriptor from `first` on close-on-exec, those too that this process was started with.
pub fn close_on_exec_from(first: RawFd) -> Result<(), Error> {
    close_range(
        first as libc::c_uint,
        libc::c_uint::MAX,
        libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
    )
}

fn close_range(first: libc::c_uint, last: libc::c_uint, flags: libc::c_uint) -> Result<(), Error> {
    // SAFETY: takes numbers only and touches no memory. What becomes of owners of closed descriptors is the
    // promise above; the callers are children that end in execve(2) or _exit(2).
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    checked(result)
        .map(drop)
        .map_err(|errno| Error::new(format!("close_range({first}, {last}, {flags:#x})"), errno))
}
