//! The only unsafe code: system calls that neither rustix nor nix has, behind safe functions.
//!
//! Also the home of [`Error`], which every module below the plan uses: a failed call is printed with the
//! arguments it was made with, `move_mount(fd 7, "", "/proc"): EBUSY: Device or resource busy`, for that line
//! is often all there is when a box does not start on a machine we cannot see.

use std::fmt;

mod clone;
mod datagram;
mod descriptor;
mod entry;
mod exec;
mod interface;
mod keyring;
mod landlock;
mod lease;
mod memory;
mod mount;
mod passed;
mod pidfd;
mod seccomp;
mod signal;
mod socket_filter;

pub use clone::{Fork, clone3, clone3_into, exit_now};
pub use datagram::{Datagram, Sender, receive_datagram};
pub use descriptor::{close_all_but, close_from, close_from_but, close_on_exec_from};
pub use exec::{exec_with_descriptors, place_descriptors};
pub use interface::bring_loopback_up;
pub use keyring::join_new_session_keyring;
pub use landlock::{FileAccess, give_up_files};
pub use lease::is_being_written;
pub use memory::{give_heap_back, give_memory_back, give_memory_back_early};
pub use mount::{MountAttributes, Propagation, mount_setattr};
pub use passed::{FIRST_PASSED, take_passed};
pub use pidfd::{Exit, exit_of, send_signal};
#[cfg(all(test, target_arch = "x86_64"))]
pub use seccomp::call_as_x86;
#[cfg(test)]
pub use seccomp::call_by_number;
pub use seccomp::{Instruction, MOST_INSTRUCTIONS, set_seccomp_filter};
pub use signal::{end_by_sigterm, ignore_sigio, ignore_sigpipe, reset_dispositions};
pub use socket_filter::attach_filter;

pub use nix::errno::Errno;

/// A system call that failed, with its arguments; errno(3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    call: String,
    errno: Errno,
}

impl Error {
    /// `call` is the call as one would write it in C, without what strace would not show either.
    pub fn new(call: impl Into<String>, errno: impl IntoErrno) -> Self {
        Error {
            call: call.into(),
            errno: errno.into_errno(),
        }
    }

    /// The same error with what the kernel said about it besides the number.
    #[must_use]
    pub fn with_remark(mut self, remark: &str) -> Self {
        self.call = format!("{} ({remark})", self.call);
        self
    }

    /// What the kernel answered.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.call, self.errno, self.errno.desc())
    }
}

impl std::error::Error for Error {}

/// The error types of the libraries through which system calls are made.
pub trait IntoErrno {
    /// The number behind it.
    fn into_errno(self) -> Errno;
}

impl IntoErrno for Errno {
    fn into_errno(self) -> Errno {
        self
    }
}

impl IntoErrno for rustix::io::Errno {
    fn into_errno(self) -> Errno {
        Errno::from_raw(self.raw_os_error())
    }
}

impl IntoErrno for std::io::Error {
    fn into_errno(self) -> Errno {
        // Errors std makes up itself, like a short read, have no number; EIO is what the kernel says for those.
        Errno::from_raw(self.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Names the call that may have failed.
pub trait Called<T> {
    /// The error becomes an [`Error`] with the text `call` makes; it is made only then.
    fn called(self, call: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: IntoErrno> Called<T> for Result<T, E> {
    fn called(self, call: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::new(call(), error))
    }
}

/// The result of a raw system call: negative is failure, and the reason is in errno.
fn checked(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_the_call_the_name_and_the_words() {
        let error = Error::new(r#"move_mount(fd 7, "", "/proc")"#, Errno::EBUSY);
        assert_eq!(
            error.to_string(),
            r#"move_mount(fd 7, "", "/proc"): EBUSY: Device or resource busy"#
        );
    }
}
