//! Moving a process to another cgroup without the kernel's wait before it.
//!
//! Whoever moves a process waits for a grace period of RCU, several milliseconds, until no processor forks or exits any
//! more without looking: `cgroup_threadgroup_rwsem` in kernel/cgroup/cgroup.c. The wait is one of the whole host, and
//! for a moment after one move there is none before the next. systemd moves the first process of a scope, late in a
//! launch. A move that changes nothing, begun early beside the launch, has most of the wait over by then.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::cgroup;
use crate::sys::{self, Fork};

/// A process that moves itself to where it is, reaped when this is dropped.
#[derive(Debug)]
pub struct Hastened(OwnedFd);

impl Hastened {
    /// Begins the wait. Nothing depends on it: whatever fails, the moves that follow take as long as they take.
    pub fn begin() -> Option<Self> {
        let path = cgroup::of_self().ok()?.join("cgroup.procs");
        let mut file = OpenOptions::new().write(true).open(path).ok()?;
        match sys::clone3(CloneFlags::empty()).ok()? {
            Fork::Child => {
                // This process: cgroup-v2.rst, "Processes".
                let _ = file.write_all(b"0");
                sys::exit_now(0)
            }
            Fork::Parent { pidfd, .. } => Some(Hastened(pidfd)),
        }
    }
}

impl Drop for Hastened {
    fn drop(&mut self) {
        let _ = waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
    }
}
