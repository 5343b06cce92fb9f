//! What boxd says about a box; the only stable serialised format.
//!
//! A [`Report`] is what `boxctl status --json` prints. Keys are kebab-case; times are microseconds since the
//! epoch, sizes bytes, and CPU time microseconds. What is not known is absent or `null`. A change a reader of
//! an older version would misread gets another [`VERSION`]; new keys may appear at any time.

pub mod collect;
pub mod dropped;
pub mod ends;
mod newer;
pub mod stats;
mod why;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::health::{Answer, Health, Probe, State as HealthState};
use crate::identity::IdRange;
use crate::plan::Limit;

/// Version of the format, [`Report::version`].
pub const VERSION: u32 = 1;

/// Everything `boxctl status` knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Whether systemd runs this host. Without it only boxes run in the foreground are seen.
    pub systemd: bool,
    /// Every box that has a definition, a unit that is not at rest, or a running payload; by name.
    pub boxes: Vec<Status>,
}

/// One box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The box; for a definition file whose name is no box's name, that text.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What the box does now.
    pub state: State,
    /// When it came to this state.
    pub since: Option<u64>,
    /// Who runs it; absent when nobody does.
    pub runner: Option<Runner>,
    /// What is known of its definition.
    pub definition: Definition,
    /// Its unit, where systemd has it loaded.
    pub unit: Option<Unit>,
    /// What starts it at a connection, where systemd has it loaded.
    #[serde(default)]
    pub sockets: Vec<Socket>,
    /// What runs, while something does.
    pub payload: Option<Payload>,
    /// What it uses, while it runs.
    pub usage: Option<Usage>,
    /// What it may use; absent limits are not set.
    pub limits: Limits,
    /// How it answers when it is asked, while it runs under a supervisor and has a `[health]`.
    #[serde(default)]
    pub health: Option<Health>,
    /// What differs on this host from what was asked for.
    pub remarks: Vec<String>,
    /// How it ended the last time, where the journal still knows. `boxctl status --json` without names looks it up
    /// only for boxes that failed or wait for their restart.
    #[serde(default)]
    pub last_end: Option<End>,
}

/// A socket unit of a box, in the words of org.freedesktop.systemd1(5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Socket {
    /// `box@NAME.socket`, or `box@NAME:SOCKET.socket`.
    pub unit: String,
    /// Where it listens, or would.
    pub listen: Vec<String>,
    /// Whether it does: a connection is taken, by the box or for it.
    pub is_open: bool,
    /// `SubState`: `listening`, `running` while the box is at work, `dead`, `failed` …
    pub sub_state: String,
    /// `Result`: why it failed, `success` else.
    pub result: String,
}

/// How a box ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct End {
    /// When.
    pub at: u64,
    /// In one word, systemd's `Result` where it has one: `success`, `exit-code`, `signal`, `core-dump`, `reboot`,
    /// `oom-kill`, `timeout`, `watchdog`, `protocol`, `unknown` …
    pub result: String,
    /// In a sentence without its subject.
    pub sentence: String,
    /// How its first process ended: `exited`, `killed`, `dumped` or `unknown`.
    pub code: String,
    /// Its exit status, or the signal without its `SIG`.
    pub detail: Option<String>,
    /// The exit status that says so to systemd: 128+n for signal n, 0 if it ended as it was asked to.
    pub exit_status: u8,
    /// `InvocationID` of the unit in that run.
    pub invocation: Option<String>,
}

/// What a box does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Ready.
    Running,
    /// All its processes stand still, until it is resumed.
    Paused,
    /// Being made, or not yet ready.
    Starting,
    /// Ready, and reading its configuration anew.
    Reloading,
    /// Asked to stop.
    Stopping,
    /// Ended, and will be started again by its restart policy.
    Restarting,
    /// At rest.
    Stopped,
    /// Ended badly; nobody will start it again.
    Failed,
    /// At rest, and its definition has errors: it cannot be started.
    Broken,
    /// At rest, and its definition is masked: it cannot be started.
    Masked,
}

impl State {
    /// The word of the serialised format.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Paused => "paused",
            State::Starting => "starting",
            State::Reloading => "reloading",
            State::Stopping => "stopping",
            State::Restarting => "restarting",
            State::Stopped => "stopped",
            State::Failed => "failed",
            State::Broken => "broken",
            State::Masked => "masked",
        }
    }
}

/// Who runs a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runner {
    /// systemd, as `box@NAME.service`.
    Unit,
    /// `boxctl run`.
    Foreground,
}

/// What is known of a box's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Definition {
    /// Whether it can be used.
    pub state: DefinitionState,
    /// The files it is read from: the base, then its drop-ins in order.
    pub files: Vec<PathBuf>,
    /// Why it cannot be used: every diagnostic, as `boxctl check` prints them without colour.
    pub problem: Option<String>,
    /// Whether the box is started with the host.
    pub start_at_boot: bool,
    /// Whether it says something else than what runs: a start now would make another box.
    #[serde(default)]
    pub newer: bool,
    /// That the box starts by another definition than its files', and why: a sentence without its subject.
    #[serde(default)]
    pub held: Option<String>,
}

/// Whether a definition can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefinitionState {
    /// It can.
    Loaded,
    /// It has errors.
    Broken,
    /// It is an empty file or a link to `/dev/null`.
    Masked,
    /// There is none: the box was run from a file elsewhere, or its definition was removed while it ran.
    Missing,
}

impl DefinitionState {
    /// The word of the serialised format.
    pub fn as_str(self) -> &'static str {
        match self {
            DefinitionState::Loaded => "loaded",
            DefinitionState::Broken => "broken",
            DefinitionState::Masked => "masked",
            DefinitionState::Missing => "missing",
        }
    }
}

/// The unit of a box, in the words of org.freedesktop.systemd1(5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unit {
    /// `box@NAME.service`.
    pub name: String,
    /// `ActiveState`.
    pub active_state: String,
    /// `SubState`.
    pub sub_state: String,
    /// `Result`: how the last run ended, `success` while it runs.
    pub result: String,
    /// `StateChangeTimestamp`.
    pub since: Option<u64>,
    /// `MainPID`: the supervisor.
    pub supervisor: Option<u32>,
    /// The version of boxd that it is of, while it runs; an upgrade replaces it under the box.
    #[serde(default)]
    pub supervisor_version: Option<String>,
    /// `StatusText`: what the supervisor said last.
    pub status_text: Option<String>,
    /// `ExecMainCode`: a `CLD_*` of waitid(2), 0 before the first end.
    pub exit_code: i32,
    /// `ExecMainStatus`: an exit status, or a signal number.
    pub exit_status: i32,
    /// `NRestarts`.
    pub restarts: u32,
    /// Units whose jobs its own waits for, while it waits to be started.
    #[serde(default)]
    pub waits_for: Vec<String>,
    /// `InvocationID` of the last run, as 32 hexadecimal digits.
    pub invocation: Option<String>,
    /// `NeedDaemonReload`, or the definition says something else of ordering, restarts and timeouts than systemd
    /// has read: it is not in force.
    pub needs_reload: bool,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Payload {
    /// The box's first process, on the host.
    pub pid: i32,
    /// Its name, proc_pid_comm(5).
    pub command: Option<String>,
    /// When it was started.
    pub started: u64,
    /// The version of boxd that started it.
    #[serde(default)]
    pub started_by: String,
    /// The scope's unit name.
    pub scope: String,
    /// The scope's cgroup, absolute on the host.
    pub cgroup: PathBuf,
    /// Where the box's files come from, as its definition says.
    pub root: String,
    /// It has a terminal, to which `boxctl attach` connects.
    #[serde(default)]
    pub tty: bool,
    /// Host ids of the box; absent when it has the host's.
    pub ids: Option<Ids>,
}

/// A range of host ids, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ids {
    /// Host id of the box's root.
    pub first: u32,
    /// Host id of the box's last id.
    pub last: u32,
}

impl From<IdRange> for Ids {
    fn from(range: IdRange) -> Ids {
        Ids {
            first: range.base,
            last: range.last(),
        }
    }
}

/// What a box uses; a part its cgroup has no controller for is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Usage {
    /// Bytes.
    pub memory: Option<u64>,
    /// Most bytes there ever were in this run.
    pub memory_peak: Option<u64>,
    /// Microseconds of CPU in this run.
    pub cpu: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// What a box may use. What is not set is absent, or has no entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes above which it is slowed down, and its memory taken back.
    pub memory_high: Option<u64>,
    /// Bytes of swap.
    pub memory_swap: Option<u64>,
    /// Microseconds of CPU per second: a million is one core.
    pub cpu: Option<u64>,
    /// From 1 to 10000, 100 for those who have none.
    pub cpu_weight: Option<u64>,
    /// Indices of the only CPUs it runs on.
    pub cpus: Option<Vec<u32>>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// As [`Limits::cpu_weight`].
    pub io_weight: Option<u64>,
    /// Bytes per second by device.
    pub io_read: BTreeMap<PathBuf, u64>,
    /// Bytes per second by device.
    pub io_write: BTreeMap<PathBuf, u64>,
    /// Operations per second by device.
    pub io_read_operations: BTreeMap<PathBuf, u64>,
    /// Operations per second by device.
    pub io_write_operations: BTreeMap<PathBuf, u64>,
}

impl Limits {
    /// The limits of a plan, or of a cgroup.
    pub fn of(limits: &[Limit]) -> Limits {
        let mut result = Limits::default();
        for limit in limits {
            match limit {
                Limit::MemoryMax(bytes) => result.memory = Some(*bytes),
                Limit::MemoryHigh(bytes) => result.memory_high = Some(*bytes),
                Limit::MemorySwapMax(bytes) => result.memory_swap = Some(*bytes),
                Limit::CpuQuotaPerSec(microseconds) => result.cpu = Some(*microseconds),
                Limit::CpuWeight(weight) => result.cpu_weight = Some(*weight),
                Limit::AllowedCpus(cpus) => result.cpus = Some(cpus.clone()),
                Limit::TasksMax(tasks) => result.tasks = Some(*tasks),
                Limit::IoWeight(weight) => result.io_weight = Some(*weight),
                Limit::IoReadBandwidthMax(device, rate) => {
                    result.io_read.insert(device.clone(), *rate);
                }
                Limit::IoWriteBandwidthMax(device, rate) => {
                    result.io_write.insert(device.clone(), *rate);
                }
                Limit::IoReadIopsMax(device, rate) => {
                    result.io_read_operations.insert(device.clone(), *rate);
                }
                Limit::IoWriteIopsMax(device, rate) => {
                    result.io_write_operations.insert(device.clone(), *rate);
                }
            }
        }
        result
    }
}

/// What a box does, from what is known of it. A running box is never called broken: bad input does not hurt it.
pub fn state(
    definition: DefinitionState,
    unit: Option<&Unit>,
    payload: Option<&Payload>,
    runner: Option<Runner>,
) -> State {
    // Without an answer of systemd's, a process that lives is all there is to know.
    if payload.is_some() && (runner == Some(Runner::Foreground) || unit.is_none()) {
        return State::Running;
    }
    let active = unit.map_or("inactive", |unit| unit.active_state.as_str());
    let sub = unit.map_or("dead", |unit| unit.sub_state.as_str());
    match (active, sub) {
        ("active", _) => State::Running,
        ("reloading" | "refreshing", _) => State::Reloading,
        ("activating", "auto-restart" | "auto-restart-queued") => State::Restarting,
        ("activating", _) => State::Starting,
        ("deactivating", _) => State::Stopping,
        _ if unit.is_some_and(|unit| !unit.waits_for.is_empty()) => State::Starting,
        _ if definition == DefinitionState::Broken => State::Broken,
        _ if definition == DefinitionState::Masked => State::Masked,
        ("failed", _) => State::Failed,
        _ => State::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(active: &str, sub: &str) -> Unit {
        Unit {
            active_state: active.to_owned(),
            sub_state: sub.to_owned(),
            ..Unit::default()
        }
    }

    #[test]
    fn a_bad_definition_never_hides_that_its_box_runs() {
        let running = unit("active", "running");
        assert_eq!(
            state(DefinitionState::Broken, Some(&running), None, None),
            State::Running
        );
        let failed = unit("failed", "failed");
        assert_eq!(
            state(DefinitionState::Broken, Some(&failed), None, None),
            State::Broken
        );
        assert_eq!(
            state(DefinitionState::Loaded, Some(&failed), None, None),
            State::Failed
        );
        assert_eq!(
            state(DefinitionState::Masked, None, None, None),
            State::Masked
        );
        assert_eq!(
            state(DefinitionState::Loaded, None, None, None),
            State::Stopped
        );
    }

    #[test]
    fn a_box_that_waits_for_its_restart_is_not_starting() {
        let waiting = unit("activating", "auto-restart");
        assert_eq!(
            state(DefinitionState::Loaded, Some(&waiting), None, None),
            State::Restarting
        );
        let starting = unit("activating", "start");
        assert_eq!(
            state(DefinitionState::Loaded, Some(&starting), None, None),
            State::Starting
        );
    }

    #[test]
    fn a_box_that_waits_for_others_is_starting() {
        let waiting = Unit {
            waits_for: vec!["box@db.service".to_owned()],
            ..unit("inactive", "dead")
        };
        assert_eq!(
            state(DefinitionState::Loaded, Some(&waiting), None, None),
            State::Starting
        );
    }

    #[test]
    fn the_words_of_the_format_are_those_of_the_table() {
        for state in [
            State::Running,
            State::Paused,
            State::Starting,
            State::Reloading,
            State::Stopping,
            State::Restarting,
            State::Stopped,
            State::Failed,
            State::Broken,
            State::Masked,
        ] {
            assert_eq!(
                serde_json::to_value(state).expect("a state serialises"),
                serde_json::json!(state.as_str())
            );
        }
    }
}
