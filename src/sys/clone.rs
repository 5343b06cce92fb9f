//! clone3(2).
#![allow(
    unsafe_code,
    reason = "no library has clone3, and none can know that this process has one thread"
)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::{Error, checked};

/// Which side of [`clone3`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The process that called.
    Parent {
        /// The child as this process sees it.
        pid: Pid,
        /// Refers to the child even after its pid is used by another process; close-on-exec.
        pidfd: OwnedFd,
    },
}

/// Makes a child that is a copy of this process, in new namespaces of these kinds, as fork(2) does.
///
/// With `CLONE_PARENT` the new process is a sibling: the caller's parent waits for it.
///
/// Refused with `EINVAL` in a process of several threads: in the child only the calling one would go on, and a
/// lock another one held would stay locked, the allocator's first of all.
///
/// The child shares open files and buffers with the parent; what it must not inherit it has to close.
pub fn clone3(namespaces: CloneFlags) -> Result<Fork, Error> {
    clone(namespaces, None)
}

/// [`clone3`], and the child is born in this cgroup, a directory of a cgroup2 tree: moving a process costs the
/// kernel milliseconds, in which all others wait that fork.
pub fn clone3_into(namespaces: CloneFlags, cgroup: BorrowedFd<'_>) -> Result<Fork, Error> {
    clone(namespaces, Some(cgroup))
}

fn clone(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, Error> {
    let call = || match cgroup {
        None => format!("clone3({namespaces:?} | CLONE_PIDFD)"),
        Some(cgroup) => format!(
            "clone3({namespaces:?} | CLONE_PIDFD | CLONE_INTO_CGROUP, cgroup {})",
            cgroup.as_raw_fd()
        ),
    };
    // unshare(2): without effect in a process of one thread, and EINVAL in any other. It asks no /proc, which may
    // be a box's by now.
    nix::sched::unshare(CloneFlags::CLONE_THREAD).map_err(|errno| {
        Error::new(format!("{} in a process of several threads", call()), errno)
    })?;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which zero is valid and means "not used".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (namespaces.bits() | libc::CLONE_PIDFD) as u32 as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= linux_raw_sys::general::CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // A sibling has the caller's own exit signal, and clone3(2) refuses to be told one.
    if !namespaces.contains(CloneFlags::CLONE_PARENT) {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    // SAFETY: without CLONE_VM and with no stack given the child goes on here on a copy of this stack, as after
    // fork(2), and `arguments` with the pointer in it outlives the call. There is one thread, so no lock is
    // held by another and every invariant of this process holds in the copy. libc does not learn of the new
    // thread id; it uses it only for raise(3) and locks of its own that check their owner, and the child has
    // one thread as well.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match checked(pid).map_err(|errno| Error::new(call(), errno))? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent {
            pid: Pid::from_raw(pid as libc::pid_t),
            // SAFETY: the kernel stored a new descriptor there, and nobody else knows it.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Ends this process without any of what the process it is a copy of has prepared for its own end: nothing it
/// had buffered is written a second time.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: ends the process; there is nothing after it that could be unsound.
    unsafe { libc::_exit(libc::c_int::from(status)) }
}
