//! Which namespaces a box has, and how to be in them; namespaces(7).

use std::os::fd::BorrowedFd;

use nix::sched::CloneFlags;

use crate::plan::Namespaces;
use crate::sys;

/// `CLONE_NEWTIME`, which nix does not name.
const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

/// The namespaces the box's first process is born in, for [`clone3`](sys::clone3).
///
/// The cgroup namespace is not among them, for its root is the cgroup its maker stands in, nor the time
/// namespace, which only takes those who come later: the child makes both.
pub fn at_birth(namespaces: Namespaces) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    flags.set(CloneFlags::CLONE_NEWUSER, namespaces.user);
    flags
}

/// Puts this process, which must have one thread, into all namespaces of a box's first process. Children made
/// from now on are in its pid namespace too; the process itself never is.
pub fn join(pidfd: BorrowedFd<'_>, namespaces: Namespaces) -> Result<(), sys::Error> {
    let mut flags = at_birth(namespaces) | CloneFlags::CLONE_NEWCGROUP;
    flags.set(NEWTIME, namespaces.time);
    nix::sched::setns(pidfd, flags)
        .map_err(|errno| sys::Error::new(format!("setns(pidfd, {flags:?})"), errno))
}
