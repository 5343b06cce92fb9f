//! How much of a box's output was dropped for being more than its definition allows.
//!
//! The supervisor counts it in the memfd in which it keeps what its heir must know, and writes no file: behind its
//! walls it could not. Root finds that memfd among the supervisor's descriptors.

use std::fs::{self, File};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup;
use crate::name::Name;
use crate::running;
use crate::supervisor::kept::Record;

/// What `/proc/PID/fd` shows for the record: memfd_create(2).
const RECORD: &str = "/memfd:box-kept (deleted)";

/// Bytes of output that were dropped in this run of the box, whose supervisor is this process; none if it is not, or
/// cannot be looked at.
pub fn output(name: &Name, supervisor: u32) -> Option<u64> {
    let pid = i32::try_from(supervisor).ok()?;
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let record = descriptors
        .flatten()
        .map(|entry| entry.path())
        .find(|path| fs::read_link(path).is_ok_and(|target| target == Path::new(RECORD)))?;
    let record = File::open(record).ok()?;
    let cgroup = cgroup::of_process(pid).ok()?;
    // Only now is it known whose all that was: a process of the box, which may have been given the number of a
    // supervisor that has ended, is in another cgroup.
    if running::has_ended(&process) || !cgroup.ends_with(name.unit()) {
        return None;
    }
    let kept = Record::adopt(record.into()).load().ok()?;
    Some(
        kept.stdout
            .dropped_bytes
            .saturating_add(kept.stderr.dropped_bytes),
    )
}
