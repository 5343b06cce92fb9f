//! `[watchdog]` and `[reload]`: what a box is asked for while it runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[watchdog]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Watchdog {
    /// The box has failed when it has not said `WATCHDOG=1` for so long. Absent: it need not.
    pub timeout: Option<Duration>,
}

/// `[reload]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// How the box is asked.
    pub how: ReloadHow,
    /// It says by sd_notify(3) when it begins and when it is done.
    pub notify: bool,
}

/// `[reload] signal = …` or `command = …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadHow {
    /// A signal to its first process, by number.
    Signal(i32),
    /// A program with its arguments, run inside the box.
    Command(Vec<String>),
}
