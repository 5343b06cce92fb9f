//! `boxd clean NAME`: what a box may have left behind, ended and removed. `ExecStopPost=` of its service, and
//! the first thing each start does about an earlier life.
//!
//! A supervisor that was killed leaves a box that runs; systemd starts the next supervisor, and the box must
//! still be there then. So the box is left alone when a signal ended the service's main process and nobody
//! wants the service stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup;
use crate::launch::run_directory::{self, RunDirectory};
use crate::name::Name;
use crate::systemd::{self, Manager, scope};

/// How long the processes of a killed box may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// How long the child of a launcher that was killed may take to die with it.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// The slice of all boxes.
const SLICE: &str = "box.slice";

/// Why something was left behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run directory.
    #[error(transparent)]
    RunDirectory(#[from] run_directory::Error),
    /// Processes or cgroups that do not go.
    #[error("cannot end what is left of box {name}")]
    Left {
        /// The box.
        name: Name,
        /// Why.
        source: scope::EndError,
    },
    /// The box's cgroup is somebody else's.
    #[error(
        "processes that are not known as those of box {name} are in its cgroup {}; see which: systemctl status {scope}; end them: systemctl stop {scope}",
        cgroup.display(),
        scope = name.scope()
    )]
    Foreign {
        /// The box.
        name: Name,
        /// The cgroup.
        cgroup: PathBuf,
    },
}

/// What became of the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of it is left.
    Removed,
    /// It stays as it is, for the supervisor that comes next.
    Left,
    /// It belongs to another process: one in the foreground.
    Others,
}

/// How systemd says the service ended; `$SERVICE_RESULT` and `$EXIT_CODE` of systemd.exec(5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// `success`, `exit-code`, `signal`, `timeout` …
    pub service_result: String,
    /// `exited`, `killed`, `dumped`.
    pub exit_code: String,
}

impl Ending {
    /// From the environment of this process.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Ending {
            service_result: variable("SERVICE_RESULT"),
            exit_code: variable("EXIT_CODE"),
        }
    }

    /// The main process was ended by a signal that systemd did not send in order to stop the service.
    fn is_accident(&self) -> bool {
        matches!(self.exit_code.as_str(), "killed" | "dumped")
            && matches!(
                self.service_result.as_str(),
                "signal" | "core-dump" | "watchdog" | "oom-kill"
            )
    }
}

/// Ends the box and removes what it left, unless it is to live on. Done twice, it finds nothing to do.
///
/// # Errors
///
/// Something did not go; it is tried again at the next start.
pub fn clean(name: &Name, ending: &Ending) -> Result<Outcome, Error> {
    let directory = match RunDirectory::claim(name) {
        Ok(directory) => directory,
        Err(run_directory::Error::Busy { .. }) => return Ok(Outcome::Others),
        Err(error) => return Err(error.into()),
    };
    // Ended or not: how it ended is the next supervisor's to report, or `Restart=` would be asked about a signal
    // that was not the box's.
    if ending.is_accident() && directory.document().is_some() && !is_stop_wanted(name) {
        return Ok(Outcome::Left);
    }
    match clear(name, &directory) {
        // Not ours to end, and the start has said so.
        Ok(_) | Err(Error::Foreign { .. }) => {}
        Err(error) => return Err(error),
    }
    directory.remove()?;
    Ok(Outcome::Removed)
}

/// Ends whatever an earlier life of this box left. Whether any process of it lived.
///
/// Only processes that the run directory knows are killed: a launch that was killed before it wrote there has
/// taken its child with it, so that any others are somebody else's.
///
/// # Errors
///
/// [`Error::Left`] when a process cannot be killed: it sleeps in the kernel. [`Error::Foreign`].
pub fn clear(name: &Name, directory: &RunDirectory) -> Result<bool, Error> {
    let known = directory.document().map(|document| document.cgroup);
    let mut lived = false;
    for cgroup in cgroups(name, known.as_deref()) {
        if !cgroup.exists() {
            continue;
        }
        if known.as_ref() == Some(&cgroup) {
            lived |= cgroup::is_populated(&cgroup).unwrap_or(true);
        } else if cgroup::wait_empty(&cgroup, LAST_BREATH).is_err() {
            return Err(Error::Foreign {
                name: name.clone(),
                cgroup,
            });
        }
        let gone = if systemd::is_running() {
            scope::end(&name.scope(), &cgroup, DEATH)
        } else {
            cgroup::remove(&cgroup, DEATH).map_err(scope::EndError::from)
        };
        gone.map_err(|source| Error::Left {
            name: name.clone(),
            source,
        })?;
    }
    Ok(lived)
}

/// Whether a box of this name runs, as far as the run directory knows.
pub fn is_running(directory: &RunDirectory) -> bool {
    directory
        .document()
        .filter(|_| directory.is_confirmed())
        .is_some_and(|document| cgroup::is_populated(&document.cgroup).unwrap_or(false))
}

/// Everywhere that a cgroup of this box may be.
fn cgroups(name: &Name, known: Option<&Path>) -> Vec<PathBuf> {
    let mut cgroups: Vec<PathBuf> = known.map(Path::to_owned).into_iter().collect();
    if systemd::is_running() {
        let top = cgroup::mount_point().ok();
        cgroups.extend(top.map(|top| top.join(SLICE).join(name.scope())));
    } else {
        let plain = crate::launch::plain_name(name);
        cgroups.extend(cgroup::plain::places(&plain).unwrap_or_default());
    }
    cgroups.sort();
    cgroups.dedup();
    cgroups
}

/// Whether the operator or the shutdown wants the service to end. When systemd cannot be asked the answer is
/// no: the next supervisor needs no bus, and a shutdown ends the scope in any case.
fn is_stop_wanted(name: &Name) -> bool {
    match Manager::connect().and_then(|manager| manager.pending_job(&name.unit())) {
        Ok(job) => job.is_some_and(|job| job == "stop" || job.contains("restart")),
        Err(error) => {
            tracing::warn!(
                "cannot see whether {} is to stop, so the box is left alone: {}",
                name.unit(),
                crate::journal::chain(&error)
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(service_result: &str, exit_code: &str) -> Ending {
        Ending {
            service_result: service_result.into(),
            exit_code: exit_code.into(),
        }
    }

    #[test]
    fn a_box_outlives_only_an_accident_of_its_supervisor() {
        assert!(ending("signal", "killed").is_accident());
        assert!(ending("core-dump", "dumped").is_accident());
        assert!(ending("watchdog", "dumped").is_accident());
        // By hand, without the variables.
        assert!(!Ending::default().is_accident());
        assert!(!ending("success", "exited").is_accident());
        assert!(!ending("exit-code", "exited").is_accident());
        // systemd killed it because it took too long to start or stop.
        assert!(!ending("timeout", "killed").is_accident());
    }
}
