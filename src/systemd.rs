//! systemd, over D-Bus and sd_notify(3); beside [`bus`](crate::bus) the only place that names zbus.
//!
//! Everything here blocks: the programs that talk to systemd have one thing to do at a time, and what runs
//! beside it (the child that makes its mounts) runs in another process. The runtime zbus needs exists only
//! inside a [`Manager`], which is made after the child is.

use std::io;
use std::time::Duration;

mod bus;
pub mod machine;
pub mod manager;
pub mod notify;
pub mod scope;

pub use manager::{ListedUnit, Manager, Starts, UnitStatus};

/// Whether systemd is the init system of this host; sd_booted(3).
pub fn is_running() -> bool {
    sd_notify::booted().unwrap_or(false)
}

/// Why systemd did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime beneath the D-Bus client did not start.
    #[error("cannot set up a D-Bus client")]
    Client(#[source] io::Error),
    /// Nobody answers.
    #[error(
        "cannot reach systemd over the system bus; is this host run by systemd, and does dbus.socket listen?"
    )]
    Connect(#[source] Box<zbus::Error>),
    /// The caller may not do this.
    #[error("cannot {attempt}: {reason}; run this as root")]
    Denied {
        /// What was to be done.
        attempt: String,
        /// systemd's or the bus's words.
        reason: String,
    },
    /// A unit that is to be made is there already.
    #[error(
        "cannot {attempt}: a unit of that name exists already; look at it with: systemctl status {unit}"
    )]
    Exists {
        /// What was to be done.
        attempt: String,
        /// The unit.
        unit: String,
    },
    /// systemd knows no such unit.
    #[error("cannot {attempt}: there is no such unit")]
    NoSuchUnit {
        /// What was to be done.
        attempt: String,
    },
    /// systemd said no.
    #[error("cannot {attempt}: {reason}")]
    Refused {
        /// What was to be done.
        attempt: String,
        /// The D-Bus error's name.
        name: String,
        /// systemd's words.
        reason: String,
    },
    /// The job was accepted and did not succeed.
    #[error("cannot {attempt}: {}", job_result(result))]
    Job {
        /// What was to be done.
        attempt: String,
        /// The unit.
        unit: String,
        /// The job's result as systemd names it: `failed`, `timeout`, `dependency`, `canceled` …
        result: String,
    },
    /// The connection ended before the answer came.
    #[error("cannot {attempt}: the connection to systemd broke off")]
    Lost {
        /// What was to be done.
        attempt: String,
        /// Why, where it is known.
        source: Option<Box<zbus::Error>>,
    },
    /// No answer in time.
    #[error("cannot {attempt}: systemd has not done it within {} s", waited.as_secs())]
    Timeout {
        /// What was to be done.
        attempt: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// An answer of another shape than org.freedesktop.systemd1(5) says, or a question that has no such shape.
    #[error("cannot {attempt}: the message does not have the form of org.freedesktop.systemd1(5)")]
    Form {
        /// What was to be done.
        attempt: String,
        /// What zbus says.
        source: Box<zbus::Error>,
    },
}

/// The results of a job, as `JobRemoved` names them, in words.
fn job_result(result: &str) -> &str {
    match result {
        "failed" => "it failed",
        "timeout" => "it took too long",
        "dependency" => "a unit it requires did not start",
        "canceled" => "another job took its place",
        "skipped" => "it does not apply to the unit's state",
        "assert" => "an assertion of the unit does not hold",
        "invalid" => "the unit does not support it",
        "unsupported" => "this host does not support it",
        "once" => "the unit was started once already and may not be again",
        "collected" => "the unit went away",
        other => other,
    }
}
