//! Which namespaces a box has, and how to be in them; namespaces(7).

use std::fs::File;
use std::io::Write as _;
use std::os::fd::BorrowedFd;

use nix::sched::CloneFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::plan::Namespaces;
use crate::sys::{self, Called as _};

/// What could not be done about a namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One that exists was not joined.
    #[error("cannot enter the box's namespaces")]
    Join(#[source] sys::Error),
    /// The box's cgroups were not made its root.
    #[error("cannot make the box's cgroup namespace")]
    Cgroup(#[source] sys::Error),
    /// The box's clocks were not set.
    #[error("cannot give the box clocks of its own")]
    Clocks(#[source] sys::Error),
    /// The name was refused.
    #[error("cannot set the box's hostname to {name:?}")]
    Hostname {
        /// As the plan has it.
        name: String,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// The network namespace has no working loopback interface.
    #[error("cannot bring up the box's loopback interface")]
    Loopback(#[source] sys::Error),
}

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
pub fn join(pidfd: BorrowedFd<'_>, namespaces: Namespaces) -> Result<(), Error> {
    let mut flags = at_birth(namespaces) | CloneFlags::CLONE_NEWCGROUP;
    flags.set(NEWTIME, namespaces.time);
    nix::sched::setns(pidfd, flags)
        .called(|| format!("setns(pidfd, {flags:?})"))
        .map_err(Error::Join)
}

/// Puts this process into the network namespace of a box's first process, and no other.
pub fn join_network(pidfd: BorrowedFd<'_>) -> Result<(), Error> {
    nix::sched::setns(pidfd, CloneFlags::CLONE_NEWNET)
        .called(|| "setns(pidfd, CLONE_NEWNET)".to_owned())
        .map_err(Error::Join)
}

/// The cgroup this process stands in becomes the root of what it and its children see; cgroup_namespaces(7).
pub fn make_own_cgroup_the_root() -> Result<(), Error> {
    nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP)
        .called(|| "unshare(CLONE_NEWCGROUP)".to_owned())
        .map_err(Error::Cgroup)
}

/// Moves this process, which must have one thread, into a time namespace whose `CLOCK_MONOTONIC` and
/// `CLOCK_BOOTTIME` begin now; time_namespaces(7). `/proc` must be the host's.
pub fn start_clocks() -> Result<(), Error> {
    let attempt = || {
        nix::sched::unshare(NEWTIME).called(|| "unshare(CLONE_NEWTIME)".to_owned())?;
        // Whole seconds, for the kernel refuses an offset that would take a clock below zero.
        let offsets = format!(
            "monotonic {} 0\nboottime {} 0\n",
            -clock_gettime(ClockId::Monotonic).tv_sec,
            -clock_gettime(ClockId::Boottime).tv_sec,
        );
        let path = "/proc/self/timens_offsets";
        File::options()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(offsets.as_bytes()))
            .called(|| format!("write({path:?}, {offsets:?})"))?;
        let path = "/proc/self/ns/time_for_children";
        let namespace = File::open(path).called(|| format!("open({path:?})"))?;
        nix::sched::setns(namespace, NEWTIME).called(|| format!("setns({path:?}, CLONE_NEWTIME)"))
    };
    attempt().map_err(Error::Clocks)
}

/// Names the box; uts_namespaces(7).
pub fn set_hostname(name: &str) -> Result<(), Error> {
    nix::unistd::sethostname(name)
        .called(|| format!("sethostname({name:?})"))
        .map_err(|source| Error::Hostname {
            name: name.to_owned(),
            source,
        })
}

/// A new network namespace has a loopback interface that is down; network_namespaces(7).
pub fn bring_loopback_up() -> Result<(), Error> {
    sys::bring_loopback_up().map_err(Error::Loopback)
}
