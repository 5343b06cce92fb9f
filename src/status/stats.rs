//! What running boxes use, read from their cgroups: for `boxctl stats` and `boxctl top`. A stable format as
//! [`Report`](super::Report) is, with the same units.

use serde::{Deserialize, Serialize};

use super::{Limits, VERSION};
use crate::cgroup;
use crate::cgroup::pressure::{Pressure, pressure};
use crate::handover::Document;
use crate::name::Name;
use crate::running;

/// What all running boxes use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Usage {
    /// [`VERSION`].
    pub version: u32,
    /// When it was looked: microseconds since the epoch.
    pub at: u64,
    /// By name.
    pub boxes: Vec<Stats>,
}

/// What one box uses. A part its cgroup has no controller for is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stats {
    /// The box.
    pub name: String,
    /// When it was started.
    pub started: u64,
    /// Microseconds of CPU so far: of this run, as everything here that is counted.
    pub cpu: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Most bytes there ever were.
    pub memory_peak: Option<u64>,
    /// Bytes.
    pub swap: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Bytes read from block devices so far.
    pub io_read: Option<u64>,
    /// Bytes written to block devices so far.
    pub io_written: Option<u64>,
    /// Processes killed for want of memory so far.
    pub oom_kills: Option<u64>,
    /// What it waits for.
    pub pressure: Pressure,
    /// What it may use, as the kernel holds it to it.
    pub limits: Limits,
}

/// What these boxes use; all that run, if none is named. One that ends meanwhile is left out.
///
/// # Errors
///
/// As [`running::names`] and [`running::launched`].
pub fn stats(wanted: &[Name], now: u64) -> Result<Usage, running::Error> {
    let names = match wanted {
        [] => running::names()?,
        wanted => wanted.to_vec(),
    };
    let mut boxes = Vec::new();
    for name in names {
        if let Some((document, _process)) = running::launched(&name)? {
            boxes.extend(of(&document));
        }
    }
    Ok(Usage {
        version: VERSION,
        at: now,
        boxes,
    })
}

/// What one box uses; none if it has ended.
pub fn of(document: &Document) -> Option<Stats> {
    let usage = cgroup::usage(&document.cgroup).ok()?;
    Some(Stats {
        name: document.name.to_string(),
        started: document.started,
        cpu: usage.cpu_usec,
        memory: usage.memory,
        memory_peak: usage.memory_peak,
        swap: usage.swap,
        tasks: usage.tasks,
        io_read: usage.io_read,
        io_written: usage.io_written,
        oom_kills: usage.oom_kills,
        pressure: pressure(&document.cgroup),
        limits: Limits::of(&cgroup::limits::set_on(&document.cgroup)),
    })
}
