//! `boxctl run`: a box in the foreground, with systemd or without.
//!
//! This process is launcher, supervisor and log in one: it passes the box's output on, hands it the operator's
//! wish to stop, and ends with its exit status. When it ends, all of the box has ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::cgroup::hasten::Hastened;
use crate::definition::Definition;
use crate::launch::run_directory::{self, RunDirectory};
use crate::launch::{self, Launched, Lifetime, Output, Place, Stdio};
use crate::name::Name;
use crate::plan::Plan;
use crate::run::{self, Undecided};
use crate::systemd::{self, Manager, scope};
use crate::{cgroup, clean, enter, sys};

mod relay;
mod sockets;
mod terminal;

use relay::Relay;
use terminal::Terminal;

/// The status of `boxctl run` for a box that wants to be started again, systemd-nspawn(1)'s.
const REBOOT: u8 = 133;

/// How long what is left of a box may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// Why a box could not be run, or not be watched to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The definition cannot be carried out here.
    #[error(transparent)]
    Undecided(#[from] Undecided),
    /// The box runs already.
    #[error(transparent)]
    RunDirectory(#[from] run_directory::Error),
    /// The box runs already, as a service.
    #[error("box {name} runs as {unit}; stop it first: boxctl stop {name}")]
    Service {
        /// The box.
        name: Name,
        /// Its unit.
        unit: String,
    },
    /// A socket of the box cannot be opened.
    #[error(transparent)]
    Sockets(#[from] sockets::Error),
    /// What an earlier life left does not go.
    #[error(transparent)]
    Clean(#[from] clean::Error),
    /// Signals, pipes or the wait itself.
    #[error("cannot {attempt}")]
    Watch {
        /// What was to be done.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The launch failed.
    #[error("box {name}")]
    Launch {
        /// The box.
        name: Name,
        /// Why.
        source: launch::Error,
    },
    /// The box has ended, and something of it stays.
    #[error("cannot clear away what is left of box {name}")]
    Left {
        /// The box.
        name: Name,
        /// Why.
        source: scope::EndError,
    },
}

impl Error {
    /// The exit status of `boxctl run`.
    pub fn status(&self) -> u8 {
        match self {
            Error::Launch {
                source: launch::Error::Interrupted,
                ..
            } => 130,
            Error::Launch { source, .. } => source.status(),
            _ => 1,
        }
    }
}

/// Runs a box until it ends. SIGINT, SIGTERM and SIGHUP pass the box's stop signal on, and kill it after its
/// grace time; a second one, or SIGQUIT, kills it at once. What the caller should tell the operator goes to
/// `notice`, a line each time.
///
/// Returns the exit status of the payload, 128 and the signal's number where a signal ended it. This process
/// must have one thread. The signals stay blocked afterwards.
///
/// # Errors
///
/// The box was not started, or did not go away whole.
pub fn run(definition: &Definition, notice: &dyn Fn(&str)) -> Result<u8, Error> {
    let name = &definition.name;
    run::seal(definition.security.users)?;
    let with_systemd = systemd::is_running();
    // The scope is to come.
    let hastened = with_systemd.then(Hastened::begin).flatten();
    let mut plan = run::decide(definition)?.by_hand();
    if plan.tty && !definition.environment.contains_key("TERM") {
        follow_terminal(&mut plan);
    }
    let plan = plan;
    plan.remarks.iter().for_each(|remark| notice(remark));
    if plan.health.is_some() {
        notice(
            "nobody asks a box in the foreground how it is: [health] is for the unit of the box",
        );
    }
    if plan.idle_stop.is_some() {
        notice(
            "a box in the foreground runs until it ends or is stopped: idle-stop is for the unit of the box",
        );
    }
    let place = if with_systemd {
        Place::Scope
    } else {
        notice(
            "systemd does not run this host: the box gets a plain cgroup, no device policy, and no journal",
        );
        Place::Plain
    };
    let directory = RunDirectory::claim(name)?;
    if clean::is_running(&directory)? {
        refuse_a_service(name)?;
        notice("ending what is left of an earlier life of this box");
    }
    clean::clear(name, &directory)?;

    let watched = watch(definition, &plan, place, &directory, hastened, notice);
    // Whatever happened, the name is free again.
    let removed = directory.remove();
    let status = watched?;
    removed?;
    Ok(status)
}

/// From the clone to the end of the box.
fn watch(
    definition: &Definition,
    plan: &Plan,
    place: Place,
    directory: &RunDirectory,
    hastened: Option<Hastened>,
    notice: &dyn Fn(&str),
) -> Result<u8, Error> {
    let name = &plan.name;
    let launch_failed = |source| Error::Launch {
        name: name.clone(),
        source,
    };
    let signals = block_signals()?;
    let (stdio, output) = streams(plan).map_err(|source| Error::Watch {
        attempt: "make pipes for the output of the box",
        source,
    })?;
    let (sockets, _paths) = sockets::open(name, &plan.sockets)?;
    let settling = launch::begin(plan, place, stdio, sockets, Some(signals.as_fd()))
        .and_then(launch::Begun::settle)
        .map_err(launch_failed)?;
    // While the child and systemd are at work. If it fails, that is no reason to leave them in the middle of it.
    let written = directory.write_plan(plan);
    let mut standing = settling.stand().map_err(launch_failed)?;
    drop(hastened);
    written?;
    let (pid, _) = standing.process();
    let document = run::document(definition, plan, pid, standing.cgroup(), None);
    directory.write(&document)?;
    let master = standing.take_terminal();
    master.iter().for_each(terminal::follow_window);
    let launched = standing.go(Lifetime::Launchers).map_err(launch_failed)?;
    if let Err(error) = directory.confirm() {
        let _ = launched.kill();
        clear_away(plan, place, &launched)?;
        return Err(error.into());
    }

    let connected = connect(output, master).map_err(|source| Error::Watch {
        attempt: "connect the output of the box",
        source,
    });
    let ended = connected.and_then(|(relays, terminal)| {
        let mut watch = Watch {
            plan,
            launched: &launched,
            signals,
            relays,
            terminal,
            stage: Stage::Running,
            status: None,
            notice,
        };
        watch.until_the_end()
    });
    clear_away(plan, place, &launched)?;
    ended
}

/// The payload's standard streams, and our ends of them; none for a box with a terminal.
fn streams(plan: &Plan) -> io::Result<(Stdio, Option<Output>)> {
    if plan.tty {
        return Ok((Stdio::nothing()?, None));
    }
    let (stdio, output) = Stdio::piped()?;
    Ok((stdio, Some(output)))
}

/// What passes on the output of a box, and what it has instead of pipes.
fn connect(
    output: Option<Output>,
    master: Option<OwnedFd>,
) -> io::Result<(Vec<Relay>, Option<Terminal>)> {
    let mut relays = Vec::new();
    if let Some(output) = output {
        relays.push(Relay::new(output.stdout, relay::Sink::Stdout)?);
        relays.push(Relay::new(output.stderr, relay::Sink::Stderr)?);
    }
    let Some(master) = master else {
        return Ok((relays, None));
    };
    relays.push(Relay::new(master.try_clone()?, relay::Sink::Stdout)?);
    Ok((relays, Some(Terminal::new(master)?)))
}

/// The box's programs write for the operator's terminal.
fn follow_terminal(plan: &mut Plan) {
    let variable = plan
        .payload
        .environment
        .iter_mut()
        .find(|(name, _)| name == "TERM");
    if let (Some((_, value)), Some(name)) = (variable, enter::terminal::callers()) {
        *value = name;
    }
}

/// Ends whatever of the box is left, and waits until its cgroup is gone.
///
/// A scope's cgroup is systemd's to remove: one that goes before systemd has read that it is empty leaves a scope
/// that counts as running for ever.
fn clear_away(plan: &Plan, place: Place, launched: &Launched) -> Result<(), Error> {
    match place {
        Place::Scope => scope::end(
            &plan.scope.unit,
            &launched.cgroup,
            DEATH,
            scope::UNASKED_SHORT,
        ),
        Place::Plain => cgroup::remove(&launched.cgroup, DEATH).map_err(scope::EndError::from),
    }
    .map_err(|source| Error::Left {
        name: plan.name.clone(),
        source,
    })
}

/// How far the box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// The stop signal was sent; everything is killed when the time has come.
    Stopping {
        kill_at: Instant,
    },
    Killed,
}

/// The loop over signals, output and the end of the box.
struct Watch<'a> {
    plan: &'a Plan,
    launched: &'a Launched,
    signals: SignalFd,
    relays: Vec<Relay>,
    terminal: Option<Terminal>,
    stage: Stage,
    /// Known once the first process has ended.
    status: Option<u8>,
    notice: &'a dyn Fn(&str),
}

impl Watch<'_> {
    fn until_the_end(&mut self) -> Result<u8, Error> {
        loop {
            if let Some(status) = self.status
                && self.relays.iter().all(Relay::is_done)
            {
                return Ok(status);
            }
            self.wait()?;
            self.take_signals()?;
            if self.terminal.as_mut().is_some_and(Terminal::work) {
                self.stop(Signal::SIGTERM as i32);
            }
            if let Stage::Stopping { kill_at } = self.stage
                && Instant::now() >= kill_at
            {
                self.kill();
            }
            if self.status.is_none() {
                self.status = self.exit_status()?;
                if self.status.is_some() {
                    // All writers died with their first process: what is in the pipes now is all there will be.
                    self.relays.iter_mut().for_each(Relay::expect_no_more);
                }
            }
            let troubles: Vec<String> = self.relays.iter_mut().filter_map(Relay::work).collect();
            troubles.iter().for_each(|trouble| self.say(trouble));
            if self.relays.iter().all(Relay::is_done) {
                // Nobody reads what a terminal shows any more, which its box learns by a hangup.
                self.terminal = None;
            }
        }
    }

    /// Sleeps until anything can be done.
    fn wait(&self) -> Result<(), Error> {
        let mut files = vec![PollFd::from_borrowed_fd(
            self.signals.as_fd(),
            PollFlags::IN,
        )];
        if self.status.is_none() {
            files.push(PollFd::from_borrowed_fd(
                self.launched.pidfd.as_fd(),
                PollFlags::IN,
            ));
        }
        files.extend(self.relays.iter().filter_map(Relay::waits_for));
        if self.status.is_none() {
            files.extend(self.terminal.iter().flat_map(Terminal::waits_for));
        }
        let timeout = match self.stage {
            Stage::Stopping { kill_at } => {
                Timespec::try_from(kill_at.saturating_duration_since(Instant::now())).ok()
            }
            Stage::Running | Stage::Killed => None,
        };
        match poll(&mut files, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(watching(errno.into())),
        }
    }

    fn take_signals(&mut self) -> Result<(), Error> {
        loop {
            match self.signals.read_signal() {
                Ok(None) => return Ok(()),
                Ok(Some(signal)) => self.stop(signal.ssi_signo as i32),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(watching(errno.into())),
            }
        }
    }

    /// The operator wants the box to end.
    fn stop(&mut self, signal: i32) {
        let patient = self.stage == Stage::Running && signal != Signal::SIGQUIT as i32;
        if self.status.is_some() {
            // Only output is left, which nobody takes: the operator wants no more of it.
            self.relays.iter_mut().for_each(Relay::give_up);
        } else if patient {
            let timeout = self.plan.stop.timeout;
            self.stage = Stage::Stopping {
                kill_at: Instant::now() + timeout,
            };
            self.say(&format!(
                "stopping box {}; it is killed in {} s, or when you ask again",
                self.plan.name,
                timeout.as_secs_f32()
            ));
            // A box that is gone already is what was wanted.
            let _ = sys::send_signal(self.launched.pidfd.as_fd(), self.plan.stop.signal);
        } else {
            self.kill();
        }
    }

    /// To the operator, whose terminal may be raw.
    fn say(&self, text: &str) {
        match &self.terminal {
            Some(terminal) if terminal.is_raw() => (self.notice)(&format!("{text}\r")),
            _ => (self.notice)(text),
        }
    }

    fn kill(&mut self) {
        self.stage = Stage::Killed;
        if let Err(error) = self.launched.kill() {
            self.say(&crate::journal::chain(&error));
        }
    }

    /// Whether the first process has ended, and how.
    fn exit_status(&self) -> Result<Option<u8>, Error> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.launched.pidfd.as_fd()), options) {
            Ok(None) => Ok(None),
            Ok(Some(status)) => Ok(Some(match status.terminating_signal() {
                // How reboot(2) ends a pid namespace.
                Some(libc::SIGINT) => 0,
                Some(libc::SIGHUP) => {
                    self.say(&format!(
                        "box {} wants to reboot; only a service does that for it: run it again",
                        self.plan.name
                    ));
                    REBOOT
                }
                Some(signal) => 128 | signal as u8,
                None => status.exit_status().unwrap_or_default() as u8,
            })),
            Err(Errno::INTR) => Ok(None),
            Err(errno) => Err(watching(errno.into())),
        }
    }
}

/// The signals by which an operator ends a program, blocked and as a descriptor.
fn block_signals() -> Result<SignalFd, Error> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        signals.add(signal);
    }
    let attempt = || {
        signals.thread_block()?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
    };
    attempt().map_err(|errno: nix::errno::Errno| Error::Watch {
        attempt: "take signals through a descriptor",
        source: errno.into(),
    })
}

/// A box that a service runs is not ours to end.
fn refuse_a_service(name: &Name) -> Result<(), Error> {
    if !systemd::is_running() {
        return Ok(());
    }
    let unit = name.unit();
    // Without an answer the processes there are taken for the service's: they are more likely that than lost.
    let runs = Manager::connect()
        .and_then(|manager| manager.unit(&unit))
        .map_or(true, |status| {
            !matches!(status.active_state.as_str(), "inactive" | "failed")
        });
    if runs {
        return Err(Error::Service {
            name: name.clone(),
            unit,
        });
    }
    Ok(())
}

fn watching(source: io::Error) -> Error {
    Error::Watch {
        attempt: "watch the box",
        source,
    }
}
