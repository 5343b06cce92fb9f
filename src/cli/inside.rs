//! `boxctl exec`, `shell`, `kill`, `pause` and `resume`: what is done to a running box from outside it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Error, names};
use crate::cgroup;
use crate::definition::{Layers, Users, parse_user};
use crate::enter::{self, Errand, Input, Options, What};
use crate::name::Name;
use crate::running::{self, Running};

/// The options of `boxctl exec`.
#[derive(Debug)]
pub struct Wish {
    pub user: Option<String>,
    pub terminal: bool,
    pub interactive: bool,
    pub working_directory: Option<PathBuf>,
    pub command: Vec<OsString>,
}

/// Runs a command in a box.
pub fn exec(name: &str, wish: Wish) -> Result<ExitCode, Error> {
    let running = open("enter", name)?;
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    // Asked for nothing, a person at a terminal wants to use it.
    let by_hand = on_terminal && !wish.terminal && !wish.interactive;
    let options = Options {
        what: What::Command(text(wish.command)?),
        user: user(&running, wish.user.as_deref())?,
        working_directory: wish.working_directory,
        terminal: wish.terminal || by_hand,
        input: if wish.interactive || by_hand {
            Input::Passed
        } else {
            Input::Empty
        },
        errand: Errand::Operator,
    };
    Ok(ExitCode::from(enter::run(&running, &options)?))
}

/// Opens a shell in a box; without a terminal it reads its commands from standard input, as sh(1) does.
pub fn shell(name: &str, wanted: Option<String>) -> Result<ExitCode, Error> {
    let running = open("enter", name)?;
    let options = Options {
        what: What::Shell,
        user: user(&running, wanted.as_deref())?,
        working_directory: None,
        terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
        input: Input::Passed,
        errand: Errand::Operator,
    };
    Ok(ExitCode::from(enter::run(&running, &options)?))
}

/// Sends a signal to the first process of each box, or to all its processes.
pub fn kill(signal: i32, all: bool, texts: &[String]) -> Result<ExitCode, Error> {
    for running in every("signal", texts)? {
        if all {
            signal_all(&running, signal)?;
            continue;
        }
        crate::sys::send_signal(running.process.as_fd(), signal)
            .map_err(|source| not_signalled(&running, signal, source))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets each box stand still. One that does so already is left alone.
pub fn pause(texts: &[String]) -> Result<ExitCode, Error> {
    for running in every("pause", texts)? {
        let cgroup = &running.document.cgroup;
        if let Err(source) = cgroup::freeze(cgroup, FREEZE) {
            // Half of a box that stands still is worse than none.
            let _ = cgroup::thaw(cgroup, FREEZE);
            return Err(Error::Pause {
                name: running.document.name,
                source,
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets each paused box go on.
pub fn resume(texts: &[String]) -> Result<ExitCode, Error> {
    for running in every("resume", texts)? {
        cgroup::thaw(&running.document.cgroup, FREEZE).map_err(|source| Error::Resume {
            name: running.document.name,
            source,
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How long the processes of a box may take to stand still.
const FREEZE: Duration = Duration::from_secs(10);

/// How often the processes of a box are listed to find those that were made meanwhile.
const LISTINGS: u32 = 16;

/// Signals all processes, those made meanwhile too. What is ended by SIGKILL has no time to make others.
fn signal_all(running: &Running, signal: i32) -> Result<(), Error> {
    let cgroup = &running.document.cgroup;
    let failed = |source| Error::Processes {
        name: running.document.name.clone(),
        source,
    };
    if signal == libc::SIGKILL {
        return cgroup::kill(cgroup).map_err(failed);
    }
    let mut reached = BTreeSet::new();
    for _ in 0..LISTINGS {
        let pids = cgroup::processes(cgroup).map_err(failed)?;
        let new: Vec<i32> = pids
            .into_iter()
            .filter(|pid| reached.insert(*pid))
            .collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            signal_member(running, pid, signal)?;
        }
    }
    Ok(())
}

/// Signals a process by its number if it still is one of the box's; one that has ended is none.
fn signal_member(running: &Running, pid: i32, signal: i32) -> Result<(), Error> {
    let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(process) = process else {
        return Ok(());
    };
    // Whose cgroup this is, is known from the process that is open now.
    let is_ours =
        cgroup::of_process(pid).is_ok_and(|cgroup| cgroup.starts_with(&running.document.cgroup));
    if !is_ours || running::has_ended(&process) {
        return Ok(());
    }
    match crate::sys::send_signal(process.as_fd(), signal) {
        Err(error) if error.errno() == crate::sys::Errno::ESRCH => Ok(()),
        result => result.map_err(|source| not_signalled(running, signal, source)),
    }
}

fn not_signalled(running: &Running, signal: i32, source: crate::sys::Error) -> Error {
    Error::Signal {
        name: running.document.name.clone(),
        signal,
        source,
    }
}

/// All of them, before anything is done to one.
fn every(operation: &'static str, texts: &[String]) -> Result<Vec<Running>, Error> {
    let layers = Layers::system();
    let names = names::each(texts, &layers, names::running)?;
    names.iter().map(|name| of_name(operation, name)).collect()
}

/// A running box that can be entered.
fn open(operation: &'static str, text: &str) -> Result<Running, Error> {
    let running = running(operation, text)?;
    match cgroup::is_frozen(&running.document.cgroup) {
        Ok(true) => Err(Error::Paused(running.document.name)),
        _ => Ok(running),
    }
}

/// The running box of this name.
pub fn running(operation: &'static str, text: &str) -> Result<Running, Error> {
    let name = names::one(operation, text, &Layers::system())?;
    of_name(operation, &name)
}

fn of_name(operation: &'static str, name: &Name) -> Result<Running, Error> {
    if let Some(running) = running::find(name)? {
        return Ok(running);
    }
    let layers = Layers::system();
    let name = name.clone();
    let status = crate::status::collect::one(&name, &layers, &None)?;
    Err(if status.exists() {
        names::Error::NotRunning { operation, name }.into()
    } else {
        names::unknown(name, &layers).into()
    })
}

fn user(running: &Running, text: Option<&str>) -> Result<Option<crate::definition::User>, Error> {
    let users = match running.plan.ids {
        Some(_) => Users::Auto,
        None => Users::Host,
    };
    text.map(|text| {
        parse_user(text, users).map_err(|expected| Error::User {
            text: text.to_owned(),
            expected,
        })
    })
    .transpose()
}

/// Arguments as text: a box's command is text, too.
fn text(command: Vec<OsString>) -> Result<Vec<String>, Error> {
    command
        .into_iter()
        .map(|argument| argument.into_string().map_err(Error::Argument))
        .collect()
}
