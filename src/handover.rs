//! What a launcher hands to the supervisor, and a supervisor to the one after it: named file descriptors and a
//! sealed document.
//!
//! `boxd run` puts the set into systemd's file descriptor store before the payload begins, and the supervisor
//! starts from that set alone: after the launch, after its own death, after an upgrade. Normal start and
//! recovery are one path. The names are those of `FDNAME=` (sd_notify(3)) and `LISTEN_FDNAMES`
//! (sd_listen_fds(3)).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::plan::IdRange;

/// Version of [`Document`] this program writes and understands. A change that an older or newer program would
/// misread gets another number; a document of another number is refused with a sentence.
pub const VERSION: u32 = 1;

/// Name of the descriptor of the sealed memfd that holds the [`Document`] as JSON.
pub const FD_DOCUMENT: &str = "box-document";
/// Name of the pidfd of the box's first process.
pub const FD_PROCESS: &str = "box-process";
/// Name of the read end of the payload's standard output.
pub const FD_STDOUT: &str = "box-stdout";
/// Name of the read end of the payload's standard error.
pub const FD_STDERR: &str = "box-stderr";
/// Name of the memfd in which the supervisor keeps what changes: see [`Kept`].
pub const FD_KEPT: &str = "box-kept";

/// What a supervisor must know of its box; never changes while the box lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// The version of boxd that launched the box.
    pub boxd: String,
    /// The box.
    pub name: Name,
    /// For people.
    pub description: String,
    /// Pid of the box's first process on the host; the pidfd is what is acted on.
    pub pid: i32,
    /// When the payload was started: microseconds since the epoch.
    pub started: u64,
    /// Absolute path of the scope's cgroup on the host, below the cgroup2 mount point.
    pub cgroup: PathBuf,
    /// The scope's unit name.
    pub scope: String,
    /// Ids of the box on the host.
    pub ids: Option<IdRange>,
    /// The root as the definition wrote it, for `boxctl status`.
    pub root: String,
    /// Signal that asks the box to stop.
    pub stop_signal: i32,
    /// Time from the signal to the kill of all.
    pub stop_timeout: Duration,
}

/// What changes while a box lives, and must survive its supervisor. Written in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// `READY=1` was sent.
    pub ready: bool,
    /// The stop signal was sent, at this `CLOCK_BOOTTIME` in microseconds.
    pub stopping: Option<u64>,
}
