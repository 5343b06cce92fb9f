//! The descriptors a service manager passes; sd_listen_fds(3).
#![allow(
    unsafe_code,
    reason = "no library owns descriptors it knows only by number"
)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Errno, Error};

/// The first descriptor a service manager passes, `SD_LISTEN_FDS_START` of sd_listen_fds(3).
pub const FIRST_PASSED: RawFd = 3;

/// Owns the first `count` descriptors a service manager passed to this process, and makes them close-on-exec.
///
/// Only the first call gets any: a descriptor has one owner. To be called before this process opens anything
/// of its own, and with the count from `LISTEN_FDS`.
pub fn take_passed(count: usize) -> Result<Vec<OwnedFd>, Error> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    (FIRST_PASSED..)
        .take(count)
        .map(|fd| {
            // SAFETY: touches no memory; a number that names nothing is refused with EBADF.
            let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            if result < 0 {
                let call = format!("fcntl({fd}, F_SETFD, FD_CLOEXEC) of a passed descriptor");
                return Err(Error::new(call, Errno::last()));
            }
            // SAFETY: the descriptor is open, was opened by whoever started this process and passed to it, and
            // is handed out once.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect()
}
