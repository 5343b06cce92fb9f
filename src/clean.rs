//! `boxd clean NAME`: what a box may have left behind, ended and removed. `ExecStopPost=` of its service, and
//! the first thing each start does about an earlier life.
//!
//! A supervisor that was killed leaves a box that runs, and the box must still be there for the next one. So it
//! is left alone when a signal ended the service's main process and nobody wants the service stopped or started
//! anew. The next supervisor is then called from here, and at once. systemd would start it by itself
//! (`RestartForceExitStatus=`), and does if the bus is away; but only after `RestartSec=`, which is for the box,
//! and until then a `systemctl stop` would run nothing that cleans up, and a `systemctl restart` would find the
//! old box in the store; it would restart the boxes that require this one; and a few deaths in a row would reach
//! the start limit and leave a box without an owner. Here a stop or restart is seen as long as the supervisor is
//! away, and after many deaths in a row the next supervisor comes later, not never.
//!
//! A stop that comes after the call, and before the next supervisor has begun, is seen too: by the second
//! `ExecStopPost=`, or else by `box-clean@NAME.service`, which systemd begins when it has done what it was asked for.
//! A restart is seen by the former. One that comes when that has looked and systemd has not heard of its end, which is
//! about a millisecond, is taken for the call, and gets the next supervisor of the same box.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cgroup;
use crate::launch::run_directory::{self, RunDirectory};
use crate::name::Name;
use crate::systemd::{self, Manager, machine, scope};

/// How long the processes of a killed box may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// How long the child of a launcher that was killed may take to die with it.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// So many supervisors that die in a row are followed by another at once.
const AT_ONCE: u32 = 3;

/// Before the one after that; each further one is waited for twice as long.
const PAUSE: Duration = Duration::from_millis(250);

/// And no longer than this, which is less than systemd grants an `ExecStopPost=`.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// How often it is asked meanwhile whether the service is to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A start waits no longer than this for those who clean up.
const CLEANING: Duration = Duration::from_secs(15);

/// The slice of all boxes.
const SLICE: &str = "box.slice";

/// The slice of their services, and of box-clean@.service.
const SERVICES: &str = "system.slice/system-box.slice";

/// Why something was left behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run directory.
    #[error(transparent)]
    RunDirectory(#[from] run_directory::Error),
    /// The box's service cannot be looked at.
    #[error(transparent)]
    Service(#[from] systemd::Error),
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
    /// There is nothing to do: an earlier try has done it all, or the service goes on.
    Done,
}

/// How systemd says the service ended; systemd.exec(5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// `$SERVICE_RESULT`: `success`, `exit-code`, `signal`, `timeout` …
    pub service_result: String,
    /// `$EXIT_CODE`: `exited`, `killed`, `dumped`.
    pub exit_code: String,
    /// `$EXIT_STATUS`: the exit status, or the name of the signal.
    pub exit_status: String,
    /// Which run of the service that was: `$INVOCATION_ID`.
    pub invocation: String,
}

impl Ending {
    /// From the environment of this process.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Ending {
            service_result: variable("SERVICE_RESULT"),
            exit_code: variable("EXIT_CODE"),
            exit_status: variable("EXIT_STATUS"),
            invocation: variable("INVOCATION_ID"),
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

    /// Of a program that did not begin: its libraries could not be loaded, or systemd could not execute it. It may
    /// also be the box's own status, but then the box has ended.
    fn is_no_begin(&self) -> bool {
        self.exit_code == "exited" && matches!(self.exit_status.as_str(), "127" | "203")
    }
}

/// Does what [`clean`] has left undone: the second `ExecStopPost=` of the service, since nobody else would if the
/// first was killed or failed in the middle.
///
/// # Errors
///
/// As [`clean`].
pub fn clean_again(name: &Name, ending: &Ending) -> Result<Outcome, Error> {
    if is_nothing_left(name) {
        return Ok(Outcome::Done);
    }
    if !run_directory::is_left(name, &ending.invocation)? {
        return clean(name, ending);
    }
    match is_heir_to_come(name, ending) {
        Ok(true) => Ok(Outcome::Done),
        Ok(false) => match claim(name)? {
            Some(directory) => remove(name, directory),
            None => Ok(Outcome::Others),
        },
        Err(error) => {
            tracing::warn!(
                "it is not known whether box {name} is stopped meanwhile: {}",
                crate::journal::chain(&error)
            );
            Ok(Outcome::Done)
        }
    }
}

/// Whether the supervisor that was called is still wanted. It is called if whoever was to do so has not come to it, and
/// so is the one who cleans up when it is stopped before it has begun.
fn is_heir_to_come(name: &Name, ending: &Ending) -> Result<bool, CallError> {
    let manager = Manager::connect()?;
    match manager.pending_job(&name.unit())?.as_deref() {
        Some("stop") => return Ok(false),
        // The call itself, unless it is known to be through.
        Some("restart") if run_directory::is_called(name, &ending.invocation)? => {
            return Ok(false);
        }
        Some(_) => {}
        None => {
            manager.revive(&name.unit())?;
        }
    }
    manager.call_unit(&name.cleaner())?;
    Ok(true)
}

/// Cleans up after a box whose service is at rest, so that nobody else does: what `box-clean@NAME.service` is for.
///
/// # Errors
///
/// As [`clean`]; [`Error::Service`] when systemd cannot be asked.
pub fn clean_orphan(name: &Name) -> Result<Outcome, Error> {
    let manager = Manager::connect()?;
    // Mostly the next supervisor has begun, and nobody is to wait for the lock then.
    if is_nothing_left(name) || !is_at_rest(&manager, name)? {
        return Ok(Outcome::Done);
    }
    let Some(directory) = claim(name)? else {
        return Ok(Outcome::Others);
    };
    // Whoever starts the box waits for the lock: what is at rest now stays so.
    if is_at_rest(&manager, name)? {
        return remove(name, directory);
    }
    if directory.document()?.is_none() {
        // It was made by the claim.
        directory.remove()?;
    }
    Ok(Outcome::Done)
}

fn is_at_rest(manager: &Manager, name: &Name) -> Result<bool, systemd::Error> {
    let service = manager.unit(&name.unit())?;
    Ok(service.job.is_none() && ["inactive", "failed"].contains(&service.active_state.as_str()))
}

/// Claims the name for a start, which waits for whoever [cleans up](clean_orphan) before it.
///
/// # Errors
///
/// As [`RunDirectory::claim`].
pub fn claim_for_start(name: &Name) -> Result<RunDirectory, run_directory::Error> {
    let begin = Instant::now();
    loop {
        match RunDirectory::claim(name) {
            // That has waited for a while.
            Err(run_directory::Error::Busy { .. })
                if begin.elapsed() < CLEANING && is_being_cleaned(name) => {}
            claimed => return claimed,
        }
    }
}

fn is_being_cleaned(name: &Name) -> bool {
    cgroup::mount_point().is_ok_and(|top| top.join(SERVICES).join(name.cleaner()).exists())
}

/// The name's lock, if nobody has it.
fn claim(name: &Name) -> Result<Option<RunDirectory>, Error> {
    match RunDirectory::claim(name) {
        Ok(directory) => Ok(Some(directory)),
        Err(run_directory::Error::Busy { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_nothing_left(name: &Name) -> bool {
    !run_directory::exists(name) && cgroups(name, None).iter().all(|cgroup| !cgroup.exists())
}

/// Ends the box and removes what it left, unless it is to live on. Done twice, it finds nothing to do.
///
/// # Errors
///
/// Something did not go; it is tried again at the next start.
pub fn clean(name: &Name, ending: &Ending) -> Result<Outcome, Error> {
    let Some(directory) = claim(name)? else {
        return Ok(Outcome::Others);
    };
    // Ended or not: how it ended is the next supervisor's to report, or `Restart=` would be asked about a signal
    // that was not the box's. A launch that was killed half-way has no heir: it is started anew.
    let left = if !directory.is_confirmed()? {
        false
    } else if ending.is_accident() {
        is_left_to_an_heir(name, &directory, ending)
    } else {
        // systemd calls nobody after an exit status, so here the call must be heard.
        ending.is_no_begin()
            && is_running(&directory)?
            && call_heir_in_turn(name, &directory, ending).unwrap_or(false)
    };
    if left {
        return Ok(Outcome::Left);
    }
    remove(name, directory)
}

fn remove(name: &Name, directory: RunDirectory) -> Result<Outcome, Error> {
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
    let known = directory.document()?.map(|document| document.cgroup);
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
            scope::end(&name.scope(), &cgroup, DEATH, scope::UNASKED)
        } else {
            cgroup::remove(&cgroup, DEATH).map_err(scope::EndError::from)
        };
        gone.map_err(|source| Error::Left {
            name: name.clone(),
            source,
        })?;
    }
    if let Err(error) = machine::withdraw(&name.scope()) {
        tracing::warn!("{}", crate::journal::chain(&error));
    }
    Ok(lived)
}

/// Whether a box of this name runs, as far as the run directory knows.
///
/// # Errors
///
/// What is known of it cannot be read.
pub fn is_running(directory: &RunDirectory) -> Result<bool, run_directory::Error> {
    if !directory.is_confirmed()? {
        return Ok(false);
    }
    // Where it cannot be seen whether the box lives, it may.
    Ok(directory
        .document()?
        .is_some_and(|document| cgroup::is_populated(&document.cgroup).unwrap_or(true)))
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

/// Calls the next supervisor; false if there is to be none, since the operator or the shutdown wants the service
/// to end, or to begin anew.
///
/// When systemd cannot be asked the box is left alone: the next supervisor needs no bus, and a shutdown ends the
/// scope in any case.
fn is_left_to_an_heir(name: &Name, directory: &RunDirectory, ending: &Ending) -> bool {
    match call_heir_in_turn(name, directory, ending) {
        Ok(called) => called,
        Err(error) => {
            tracing::warn!(
                "cannot call the next supervisor of box {name}, which is left to systemd and {}'s RestartSec=: {}",
                name.unit(),
                crate::journal::chain(&error)
            );
            true
        }
    }
}

/// Calls the next supervisor, later if many have died before it.
fn call_heir_in_turn(
    name: &Name,
    directory: &RunDirectory,
    ending: &Ending,
) -> Result<bool, CallError> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::from_secs(now.tv_sec.unsigned_abs());
    let deaths = directory.count_death(now).unwrap_or_else(|error| {
        tracing::warn!("{}", crate::journal::chain(&error));
        1
    });
    let pause = pause(deaths);
    if !pause.is_zero() {
        tracing::error!(
            "box {name} has lost {deaths} supervisors in a row; the box runs on, and the next one comes in {pause:?}"
        );
    }
    call_heir(name, directory, ending, pause)
}

/// Why the next supervisor was not called.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    RunDirectory(#[from] run_directory::Error),
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
}

fn call_heir(
    name: &Name,
    directory: &RunDirectory,
    ending: &Ending,
    pause: Duration,
) -> Result<bool, CallError> {
    let manager = Manager::connect()?;
    let unit = name.unit();
    let begin = Instant::now();
    loop {
        if manager.is_to_end(&unit)? {
            return Ok(false);
        }
        let left = pause.saturating_sub(begin.elapsed());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(LOOK_AGAIN));
    }
    // Said before it is done: from then on the job of this call looks like somebody's wish for a restart.
    directory.leave(&ending.invocation)?;
    if manager.revive(&unit)? {
        directory.call(&ending.invocation)?;
    }
    Ok(true)
}

/// How long the next supervisor is waited for when so many have died one soon after the other.
fn pause(deaths: u32) -> Duration {
    match deaths.checked_sub(AT_ONCE + 1) {
        None => Duration::ZERO,
        Some(more) => PAUSE_MAX.min(PAUSE * 2u32.saturating_pow(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(service_result: &str, exit_code: &str) -> Ending {
        Ending {
            service_result: service_result.into(),
            exit_code: exit_code.into(),
            ..Ending::default()
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
        let status = |status: &str| Ending {
            exit_status: status.into(),
            ..ending("exit-code", "exited")
        };
        assert!(status("127").is_no_begin() && status("203").is_no_begin());
        assert!(!status("1").is_no_begin());
        // systemd killed it because it took too long to start or stop.
        assert!(!ending("timeout", "killed").is_accident());
    }

    #[test]
    fn the_next_supervisor_comes_later_the_more_have_died() {
        let milliseconds = |deaths| pause(deaths).as_millis();
        assert_eq!(
            [1, 3, 4, 5, 9, 10, u32::MAX].map(milliseconds),
            [0, 0, 250, 500, 8000, 8000, 8000]
        );
    }
}
