//! Another process in a running box: `boxctl exec`, `boxctl shell`, and the commands of probes.
//!
//! ```text
//! boxctl ──fork──► the envoy ──clone──► the command
//!   │                cgroup, namespaces,    privileges, streams,
//!   │                root of the box        execve
//!   └──────────── parent of both; relays, waits ────────────┘
//! ```
//!
//! The envoy goes into the box's cgroup first, so that whatever the command costs is the box's, and then into
//! all its namespaces. Only a process made after that is in the pid namespace, and so the envoy makes the
//! command its own sibling and is gone. The command is a child of boxctl, which learns its exit status.
//!
//! From the moment one of them can be seen from inside the box until it executes, neither can be traced from
//! there (`PR_SET_DUMPABLE`), and neither has a descriptor of the host but `/dev/null` and the socket to
//! boxctl: a process of the box has nothing to steal (CVE-2016-9962, CVE-2024-21626). The command's streams are
//! made by the command itself when it is already the user it shall be: a terminal of the box's own devpts, or
//! pipes. So it owns them, and the caller's terminal is never within its reach (CVE-2017-5226).

mod envoy;
pub mod relay;
pub mod seal;
pub mod terminal;

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::termios::Winsize;
use serde::{Deserialize, Serialize};

use crate::definition::User;
use crate::launch::channel::{self, Socket};
use crate::launch::environment;
use crate::launch::protocol::{Failure, Status};
use crate::name::Name;
use crate::running::{self, Running};
use crate::sys::{self, Fork};
use relay::{Caller, Collected, Signals, Streams};
use terminal::Raw;

/// What runs in the box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A program with its arguments, looked up in the `PATH` of the box.
    Command(Vec<String>),
    /// The shell of the user, or else one the box has.
    Shell,
}

/// What the command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing: its standard input is at its end.
    Empty,
    /// What the caller's standard input has.
    Passed,
}

/// How it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What runs.
    pub what: What,
    /// As whom; none for the user of the box.
    pub user: Option<User>,
    /// In which directory of the box; none for the box's own.
    pub working_directory: Option<PathBuf>,
    /// It gets a terminal.
    pub terminal: bool,
    /// What it reads.
    pub input: Input,
    /// Whose it is.
    pub errand: Errand,
}

/// For whom something is run in a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Somebody who decides himself when it ends.
    Operator,
    /// A probe: it runs in a [cgroup of its own](crate::health::CGROUP), by which it can be ended with all it
    /// started, and dies with its caller.
    Probe,
}

/// Why nothing was run in a box.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This program cannot be made safe from a box that has the host's ids.
    #[error("cannot enter box {name}: cannot show it this program read-only")]
    Seal {
        /// The box.
        name: Name,
        /// Why.
        source: seal::Error,
    },
    /// The kernel refused what is done outside the box.
    #[error("cannot enter box {name}")]
    Prepare {
        /// The box.
        name: Name,
        /// Why.
        source: sys::Error,
    },
    /// The environment of the box cannot be had.
    #[error("cannot enter box {name}")]
    Environment {
        /// The box.
        name: Name,
        /// Why.
        source: environment::Error,
    },
    /// The box ended meanwhile.
    #[error(
        "cannot enter box {name}: it has just ended; start it with `systemctl start box@{name}`"
    )]
    Ended {
        /// The box.
        name: Name,
    },
    /// A process on its way into the box went no further.
    #[error("cannot run it in box {name}: {failure}")]
    Failed {
        /// The box.
        name: Name,
        /// Where and why.
        failure: Failure,
    },
    /// The caller was told to end before the command was executed.
    #[error("gave up entering box {name}; nothing was run in it")]
    Interrupted {
        /// The box.
        name: Name,
    },
    /// A process on its way into the box was not heard.
    #[error("cannot enter box {name}: the process on its way in is gone")]
    Lost {
        /// The box.
        name: Name,
        /// How that was noticed.
        source: channel::Error,
    },
    /// The caller's terminal cannot be made raw.
    #[error("cannot put the terminal into raw mode: tcsetattr")]
    Raw(#[source] io::Error),
    /// The command runs, and the relay broke off.
    #[error("lost the command in box {name}; it goes on without input or output")]
    Relay {
        /// The box.
        name: Name,
        /// Why.
        source: relay::Error,
    },
}

impl Error {
    /// What boxctl exits with: 126 and 127 as a shell would for a command that is not executable or not there,
    /// else 125, which docker-run(1) and env(1) use for troubles of their own.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Failed { failure, .. } => failure.status,
            Error::Interrupted { .. } => 130,
            _ => TROUBLE.0,
        }
    }
}

/// The other side of the socket, in words.
const ON_ITS_WAY: &str = "the process on its way in";

/// Exit status of boxctl when the box could not be entered.
pub const TROUBLE: Status = Status(125);
/// Exit status when the command is there and cannot be executed.
const NOT_EXECUTABLE: Status = Status(126);
/// Exit status when there is no such command.
const NOT_FOUND: Status = Status(127);

/// What the processes on their way into the box say.
#[derive(Debug, Serialize, Deserialize)]
enum FromInside {
    /// The envoy has made the command; its pidfd comes with this.
    Made,
    /// The command is ready, and its streams, as they are for boxctl, come with this. It waits for [`Go`];
    /// execve(2) is next, and its success closes the socket.
    Ready,
    /// It went no further.
    Failed(Failure),
}

/// What boxctl says to the command once it knows its process: without it nothing is executed.
#[derive(Debug, Serialize, Deserialize)]
struct Go;

/// Runs a command in a box until it ends, and returns its status as a shell would: 128+n for a signal.
///
/// This process must have one thread.
///
/// # Errors
///
/// The command does not run, except for [`Error::Relay`].
pub fn run(running: &Running, options: &Options) -> Result<u8, Error> {
    let name = &running.document.name;
    let environment = prepare(running)?;
    let relayed = |source| Error::Relay {
        name: name.clone(),
        source,
    };
    // Whatever descriptors boxctl was started with end here at the latest.
    sys::close_on_exec_from(3).map_err(|source| Error::Prepare {
        name: name.clone(),
        source,
    })?;
    let stdin = io::stdin();
    let size = relay::window(&stdin).or_else(|| relay::window(io::stdout()));
    let signals = Signals::block().map_err(relayed)?;
    let command = enter(running, options, environment, size, &signals)?;
    let raw = if options.terminal && options.input == Input::Passed && stdin.is_terminal() {
        Some(Raw::new(&stdin).map_err(|errno| Error::Raw(errno.into()))?)
    } else {
        None
    };
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let caller = Caller {
        input: (options.input == Input::Passed).then(|| stdin.as_fd()),
        output: stdout.as_fd(),
        error: stderr.as_fd(),
    };
    let status = relay::relay(
        command.streams,
        caller,
        &command.process,
        &signals,
        raw.as_ref(),
    );
    envoy::remove_leaf(&running.document.cgroup);
    status.map_err(relayed)
}

/// Runs a command in a box until it ends or the time is up, and returns what it said, of much the last part.
///
/// What it started is not ended here. This process must have one thread.
///
/// # Errors
///
/// The command does not run, except for [`Error::Relay`].
pub fn collect(
    running: &Running,
    options: &Options,
    deadline: Instant,
    most: usize,
) -> Result<Collected, Error> {
    let environment = prepare(running)?;
    let relayed = |source| Error::Relay {
        name: running.document.name.clone(),
        source,
    };
    let signals = Signals::block().map_err(relayed)?;
    let command = enter(running, options, environment, None, &signals)?;
    relay::collect(command.streams, &command.process, deadline, most).map_err(relayed)
}

/// Makes this program safe from the box, and reads the environment of the box's commands.
fn prepare(running: &Running) -> Result<Vec<(String, String)>, Error> {
    let name = &running.document.name;
    if running.plan.ids.is_none() {
        seal::this_program().map_err(|source| Error::Seal {
            name: name.clone(),
            source,
        })?;
    }
    environment::read(&running.plan.payload).map_err(|source| Error::Environment {
        name: name.clone(),
        source,
    })
}

/// A command that runs in a box.
struct Inside {
    process: OwnedFd,
    streams: Streams,
}

/// Has the command made, and returns when it has been executed.
fn enter(
    running: &Running,
    options: &Options,
    environment: Vec<(String, String)>,
    size: Option<Winsize>,
    signals: &Signals,
) -> Result<Inside, Error> {
    let name = &running.document.name;
    let failed = |source| Error::Prepare {
        name: name.clone(),
        source,
    };
    let (ours, theirs) = channel::sockets(ON_ITS_WAY, "boxctl").map_err(failed)?;
    let envoy = match sys::clone3(nix::sched::CloneFlags::empty()).map_err(failed)? {
        Fork::Child => {
            drop(ours);
            envoy::go(running, options, environment, size, &theirs)
        }
        Fork::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let heard = hear_all(&ours, &envoy, signals);
    if heard.is_err() {
        let _ = rustix::process::pidfd_send_signal(&envoy, rustix::process::Signal::KILL);
    }
    // If all is heard, both have let go of the socket: the envoy has ended, and the command has, or has been
    // executed.
    let _ = relay::reap(&envoy);
    let command = heard.and_then(|heard| heard.command(options));
    match command {
        Ok(command) => Ok(command),
        Err((why, process)) => {
            if let Some(process) = process {
                let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
                let _ = relay::reap(&process);
            }
            if options.errand == Errand::Operator {
                envoy::remove_leaf(&running.document.cgroup);
            }
            Err(broken_off(why, running))
        }
    }
}

/// What the two processes have said when neither has more to say. They are two, and so their words come in any
/// order.
#[derive(Default)]
struct Heard {
    process: Option<OwnedFd>,
    streams: Option<Vec<OwnedFd>>,
    failure: Option<Failure>,
}

/// Why a command was not executed.
enum Why {
    Failure(Failure),
    Unheard(channel::Error),
    Interrupted,
    Relay(relay::Error),
}

fn hear_all(
    ours: &Socket,
    envoy: &OwnedFd,
    signals: &Signals,
) -> Result<Heard, (Why, Option<OwnedFd>)> {
    let mut heard = Heard::default();
    let mut told = false;
    loop {
        // A box can hold up whoever enters: by being frozen, or by what it has in the place of a terminal.
        match signals.wait_for(ours) {
            Ok(true) => {}
            Ok(false) => return Err((Why::Interrupted, heard.process)),
            Err(error) => return Err((Why::Relay(error), heard.process)),
        }
        match ours.receive() {
            Ok((FromInside::Made, mut descriptors)) => heard.process = descriptors.pop(),
            Ok((FromInside::Ready, descriptors)) => heard.streams = Some(descriptors),
            Ok((FromInside::Failed(failure), _)) => heard.failure = Some(failure),
            Err(channel::Error::Ended(_)) => return Ok(heard),
            Err(error) => return Err((Why::Unheard(error), heard.process)),
        }
        if !told && heard.process.is_some() && heard.streams.is_some() {
            told = true;
            match ours.send(&Go, &[]) {
                // Of one that has ended the next message, or the end, tells.
                Ok(()) | Err(channel::Error::Ended(_)) => {}
                Err(error) => return Err((Why::Unheard(error), heard.process)),
            }
        }
        if heard.streams.is_some() && heard.process.is_none() {
            // The envoy has said whom it made when it ends, or nobody will: the command would wait for ever.
            match signals.wait_for(envoy) {
                Ok(true) => {}
                Ok(false) => return Err((Why::Interrupted, None)),
                Err(error) => return Err((Why::Relay(error), None)),
            }
            if !relay::is_readable(ours.as_fd()) {
                let lost = channel::Error::Ended(ON_ITS_WAY);
                return Err((Why::Unheard(lost), None));
            }
        }
    }
}

impl Heard {
    /// The command, if all went well.
    fn command(self, options: &Options) -> Result<Inside, (Why, Option<OwnedFd>)> {
        if let Some(failure) = self.failure {
            return Err((Why::Failure(failure), self.process));
        }
        let streams = self
            .streams
            .and_then(|descriptors| streams(descriptors, options.terminal));
        match (self.process, streams) {
            (Some(process), Some(streams)) => Ok(Inside { process, streams }),
            (process, _) => Err((Why::Unheard(channel::Error::Ended(ON_ITS_WAY)), process)),
        }
    }
}

/// The command's streams from their descriptors, in the order in which it sends them.
fn streams(descriptors: Vec<OwnedFd>, terminal: bool) -> Option<Streams> {
    let mut descriptors = descriptors.into_iter();
    if terminal {
        return descriptors.next().map(Streams::Terminal);
    }
    Some(Streams::Pipes {
        output: descriptors.next()?,
        error: descriptors.next()?,
        input: descriptors.next(),
    })
}

/// A box that ends takes along whoever is on the way in: then that is the reason to tell.
fn broken_off(why: Why, running: &Running) -> Error {
    let name = running.document.name.clone();
    match why {
        _ if running::has_ended(&running.process) => Error::Ended { name },
        Why::Failure(failure) => Error::Failed { name, failure },
        Why::Unheard(source) => Error::Lost { name, source },
        Why::Interrupted => Error::Interrupted { name },
        Why::Relay(source) => Error::Relay { name, source },
    }
}
