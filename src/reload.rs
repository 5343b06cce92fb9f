//! `boxd reload NAME`: `ExecReload=` of a box's service.
//!
//! systemd waits for this program: when it has ended, the reload is over. A signal is sent and that is all, unless
//! the box is to say when it is done. Then its supervisor, to whom it says so, is asked to pass it on: this program
//! sends it [`REQUEST`] with the end of a pipe, and is answered by a byte when its request stands and by another
//! when the box has said `RELOADING=1` and `READY=1` after that. Until then systemd shows the unit as reloading.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::net::{SocketAddrUnix, SocketFlags, SocketType};

use crate::enter::{self, Errand, Input, Options, What};
use crate::name::Name;
use crate::plan::{Notify, Reload, ReloadHow};
use crate::running::{self, Running};
use crate::supervisor::notification::REQUEST;
use crate::supervisor::process::{self, Process};
use crate::sys;

/// So much sooner than systemd this program gives up, to say what was waited for.
const BEFORE_SYSTEMD: Duration = Duration::from_secs(1);

/// Why a box was not reloaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be found.
    #[error(transparent)]
    Running(#[from] running::Error),
    /// There is none.
    #[error("box {name} does not run; start it with `systemctl start box@{name}`")]
    NotRunning {
        /// The box.
        name: Name,
    },
    /// It was started without one.
    #[error(
        "box {name} has no [reload] in the definition it was started with: write one, and restart it with `systemctl restart box@{name}`"
    )]
    NoReload {
        /// The box.
        name: Name,
    },
    /// The kernel spares it the signal's default action, and it has no other.
    #[error(
        "box {name} does nothing at {signal}, so it cannot be reloaded by it: write a `signal` that its command handles, or a `command`, under [reload]"
    )]
    Unheard {
        /// The box.
        name: Name,
        /// Its name.
        signal: String,
    },
    /// It cannot be sent.
    #[error("cannot send {signal} to box {name}")]
    Signal {
        /// The box.
        name: Name,
        /// Its name.
        signal: String,
        /// Why.
        source: sys::Error,
    },
    /// The command of the definition does not run.
    #[error(transparent)]
    Enter(#[from] enter::Error),
    /// It runs, and fails.
    #[error("box {name}: {command:?}, which reloads it, failed with exit status {status}")]
    Command {
        /// The box.
        name: Name,
        /// Program and arguments.
        command: Vec<String>,
        /// As a shell has it.
        status: u8,
    },
    /// The supervisor cannot be asked.
    #[error("cannot ask the supervisor of box {name} when it is done")]
    Ask {
        /// The box.
        name: Name,
        /// Why.
        source: io::Error,
    },
    /// The supervisor has gone away or refuses.
    #[error(
        "box {name} was not seen to be done: it has ended, or its supervisor has ended or was replaced meanwhile; see `boxctl status {name}`"
    )]
    Unseen {
        /// The box.
        name: Name,
    },
    /// The box says nothing.
    #[error(
        "box {name} has not said RELOADING=1 and READY=1 within {timeout:?} of {signal}; `timeout` under [ready] gives it more time"
    )]
    Silent {
        /// The box.
        name: Name,
        /// Since the signal.
        timeout: Duration,
        /// Its name.
        signal: String,
    },
}

/// Has a box read its configuration anew, as its definition says.
///
/// This process must have one thread, and runs in the service of the box.
///
/// # Errors
///
/// It has not, as far as is known.
pub fn reload(name: &Name) -> Result<(), Error> {
    let running = running::find(name)?.ok_or_else(|| Error::NotRunning { name: name.clone() })?;
    let Some(Reload { how, notify }) = running.plan.reload.clone() else {
        return Err(Error::NoReload { name: name.clone() });
    };
    match how {
        ReloadHow::Command(command) => run(name, &running, command),
        ReloadHow::Signal(signal) => {
            let socket = running.plan.notify.as_ref().filter(|_| notify);
            let answers = socket.map(ask).transpose().map_err(|source| Error::Ask {
                name: name.clone(),
                source,
            })?;
            send(name, running, signal, answers)
        }
    }
}

fn run(name: &Name, running: &Running, command: Vec<String>) -> Result<(), Error> {
    let options = Options {
        what: What::Command(command.clone()),
        user: None,
        working_directory: None,
        terminal: false,
        input: Input::Empty,
        errand: Errand::Operator,
    };
    match enter::run(running, &options)? {
        0 => Ok(()),
        status => Err(Error::Command {
            name: name.clone(),
            command,
            status,
        }),
    }
}

fn send(
    name: &Name,
    running: Running,
    signal: i32,
    answers: Option<io::PipeReader>,
) -> Result<(), Error> {
    let process = Process::new(Some(running.process), running.document.pid);
    let signal_name = process::signal_name(signal);
    if !process.hears(signal) {
        return Err(Error::Unheard {
            name: name.clone(),
            signal: signal_name,
        });
    }
    let timeout = running.plan.ready.timeout;
    let timeout = timeout - BEFORE_SYSTEMD.min(timeout / 10);
    let begin = Instant::now();
    let mut answers = answers;
    if let Some(answers) = &mut answers {
        wait(name, &signal_name, answers, timeout, begin)?;
    }
    process.signal(signal).map_err(|source| Error::Signal {
        name: name.clone(),
        signal: signal_name.clone(),
        source,
    })?;
    match &mut answers {
        Some(answers) => wait(name, &signal_name, answers, timeout, begin),
        None => Ok(()),
    }
}

/// Sends the request; what it is answered comes out of the pipe.
fn ask(notify: &Notify) -> io::Result<io::PipeReader> {
    let (answers, end) = io::pipe()?;
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let descriptors = [end.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg_addr(
        &socket,
        &SocketAddrUnix::new(&notify.host)?,
        &[IoSlice::new(REQUEST)],
        &mut ancillary,
        SendFlags::empty(),
    )?;
    Ok(answers)
}

fn wait(
    name: &Name,
    signal: &str,
    answers: &mut io::PipeReader,
    timeout: Duration,
    begin: Instant,
) -> Result<(), Error> {
    let failed = |source| Error::Ask {
        name: name.clone(),
        source,
    };
    let left = timeout.saturating_sub(begin.elapsed());
    let limit = Timespec::try_from(left).ok();
    let mut fds = [PollFd::new(answers, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref()))
        .map_err(|errno| failed(errno.into()))?;
    if ready == 0 {
        return Err(Error::Silent {
            name: name.clone(),
            timeout,
            signal: signal.to_owned(),
        });
    }
    match answers.read(&mut [0]).map_err(failed)? {
        0 => Err(Error::Unseen { name: name.clone() }),
        _ => Ok(()),
    }
}
