//! `boxd stop NAME`: the `command` in `[stop]`, run in the box before its stop signal. `ExecStop=` of its service,
//! where its definition has one.
//!
//! It is run as `boxctl exec` runs commands: in the box's namespaces and cgroup, as its user, with its privileges.
//! What it says goes to the journal. It has the time that the box has to stop; whatever comes of it, the supervisor is
//! asked to stop next, and its signal and the kill of all follow. A box that has ended by then has stopped.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::name::Name;
use crate::programs;
use crate::running::{self, Running};

/// Where the package puts what enters a box.
const ENTER: &CStr = c"/usr/bin/boxctl";

/// How often it is looked whether the command has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why the stop command did not do its work. The box is stopped by its signal then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The box cannot be found.
    #[error(transparent)]
    Running(#[from] running::Error),
    /// The command was not run.
    #[error("box {name}: cannot run its stop command, so it gets its stop signal: execve({})", program.display())]
    Run {
        /// The box.
        name: Name,
        /// What was to enter it.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The command was not waited for.
    #[error("box {name}: cannot wait for its stop command, so it gets its stop signal")]
    Wait {
        /// The box.
        name: Name,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("box {name}: its stop command failed ({status}), so it gets its stop signal")]
    Failed {
        /// The box.
        name: Name,
        /// How it ended.
        status: ExitStatus,
    },
    /// It took too long.
    #[error("box {name}: its stop command has not ended within {timeout:?}, so it is given up")]
    Late {
        /// The box.
        name: Name,
        /// `timeout` in `[stop]`.
        timeout: Duration,
    },
}

/// Runs the stop command of a box that runs.
///
/// # Errors
///
/// It did not end well in its time.
pub fn run(name: &Name) -> Result<(), Error> {
    // systemd calls it for a box that has ended of itself, too.
    let Some(running) = running::find(name)? else {
        return Ok(());
    };
    if running.plan.stop_command.is_empty() {
        return Ok(());
    }
    let program = OsString::from_vec(programs::beside_or(ENTER).into_bytes());
    let mut child = Command::new(&program)
        .args(["exec", name.as_str(), "--"])
        .args(&running.plan.stop_command)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|source| Error::Run {
            name: name.clone(),
            program: program.into(),
            source,
        })?;
    let timeout = running.plan.stop.timeout;
    let begin = Instant::now();
    loop {
        let ended = child.try_wait().map_err(|source| Error::Wait {
            name: name.clone(),
            source,
        })?;
        match ended {
            Some(status) => return ended_well(&running, status),
            None if begin.elapsed() >= timeout => {
                // What it started in the box ends with the box.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(Error::Late {
                    name: name.clone(),
                    timeout,
                });
            }
            None => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// A command that ends the box ends with it.
fn ended_well(running: &Running, status: ExitStatus) -> Result<(), Error> {
    if status.success() || running::has_ended(&running.process) {
        return Ok(());
    }
    Err(Error::Failed {
        name: running.document.name.clone(),
        status,
    })
}
