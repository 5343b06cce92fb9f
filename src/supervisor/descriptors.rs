//! What a supervisor starts from: the descriptors systemd passes, and those it adds to the store itself.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::handover::{self, Document};
use crate::journal::relay::{self, Descriptors, Stream, Style};
use crate::sys;
use crate::systemd::notify;

use super::attached::Attached;
use super::health::Asker;
use super::kept::{Kept, Record};
use super::notify_socket::NotifySocket;
use super::process::Process;
use super::terminal::Terminal;
use super::walls;

/// All a supervisor has of its box.
#[derive(Debug)]
pub struct Received {
    /// What never changes.
    pub document: Document,
    /// The memfd it was read from.
    sealed: OwnedFd,
    /// The first process.
    pub process: Process,
    /// Where the box speaks for itself.
    pub notify: Option<NotifySocket>,
    /// Standard output and standard error; absent if nobody passed it.
    pub streams: [Option<Stream>; 2],
    /// Where the first of these comes from, if the box has a terminal.
    pub terminal: Option<Terminal>,
    /// Who has attached to that.
    pub attached: Option<Attached>,
    /// Who asks the box how it is, if there is one already.
    pub asker: Option<Asker>,
    /// What changes.
    pub record: Record,
    /// What an earlier supervisor left there.
    pub kept: Kept,
    /// There was an earlier supervisor.
    pub taken_over: bool,
}

/// Why a supervisor cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was passed, or it was meant for another process.
    #[error(
        "no descriptors were passed: box-supervisor is started by `boxd run NAME` in box@NAME.service, never \
         by hand"
    )]
    Nothing,
    /// `LISTEN_FDS` promises what is not there.
    #[error("cannot take the descriptors that LISTEN_FDS promises")]
    Take(#[source] sys::Error),
    /// One without which there is no box.
    #[error("no descriptor named {0} was passed: systemd does not have it, so this box is lost")]
    Missing(&'static str),
    /// The document or the record.
    #[error(transparent)]
    Handover(#[from] handover::Error),
    /// A stream's files.
    #[error(transparent)]
    Relay(#[from] relay::Error),
    /// The terminal.
    #[error("cannot take over the terminal of the box")]
    Terminal(#[source] sys::Error),
    /// A descriptor that is to outlive this process could not be stored.
    #[error("cannot have systemd keep a descriptor")]
    Store(#[source] notify::Error),
}

impl Error {
    /// The host is short of something for now: nothing is wrong with what was passed.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Nothing | Error::Missing(_) => false,
            Error::Take(_) | Error::Relay(_) | Error::Terminal(_) | Error::Store(_) => true,
            Error::Handover(error) => matches!(error, handover::Error::Memfd { .. }),
        }
    }
}

/// Takes what was passed, and makes and stores what an heir will need besides.
pub fn receive() -> Result<Received, Error> {
    let mut passed = passed()?;
    let mut take = |name: &str| {
        let at = passed.iter().position(|(found, _)| found == name)?;
        Some(passed.swap_remove(at).1)
    };
    let sealed = take(handover::FD_DOCUMENT).ok_or(Error::Missing(handover::FD_DOCUMENT))?;
    let document = handover::read(sealed.as_fd())?;
    let pidfd = take(handover::FD_PROCESS);
    let passed_record = take(handover::FD_KEPT);
    let taken_over = passed_record.is_some();
    let record = match passed_record {
        Some(fd) => Record::adopt(fd),
        None => {
            let record = Record::create()?;
            store(handover::FD_KEPT, record.file())?;
            record
        }
    };
    let kept = record.load()?;
    record.sign();
    // A supervisor that had seen the end of the box may have been killed while it tidied up.
    if pidfd.is_none() && kept.exit.is_none() {
        return Err(Error::Missing(handover::FD_PROCESS));
    }
    let notify = take(handover::FD_NOTIFY)
        .map(|socket| NotifySocket::new(socket, &document.cgroup, document.ids));
    let terminal = match (
        take(handover::FD_TERMINAL),
        take(handover::FD_TERMINAL_PIPE),
    ) {
        (Some(master), Some(pipe)) => {
            let peer = match take(handover::FD_TERMINAL_PEER) {
                Some(peer) => peer,
                None => {
                    let peer = Terminal::peer_of(&master).map_err(Error::Terminal)?;
                    store(handover::FD_TERMINAL_PEER, &peer)?;
                    peer
                }
            };
            Some(Terminal::adopt(master, peer, pipe).map_err(Error::Terminal)?)
        }
        _ => None,
    };
    let attached = take(handover::FD_ATTACH).map(Attached::new);
    let [asker, words, output] = ASKER.map(&mut take);
    let asker = match (asker, words, output) {
        (Some(asker), Some(words), Some(output)) => Some(Asker::adopt([asker, words, output])),
        _ => None,
    };
    let [of_stdout, of_stderr] = Style::of(&document.output, terminal.is_some());
    let mut stream = |stream_name, style, [pipe, inlet, outlet]: [&'static str; 3], sent| {
        let Some(pipe) = take(pipe) else {
            return Ok(None);
        };
        let mut memfd = |name, label| match take(name) {
            Some(fd) => Ok::<OwnedFd, Error>(fd),
            None => {
                let fd = handover::memfd(name, label)?;
                store(name, &fd)?;
                Ok(fd)
            }
        };
        let descriptors = Descriptors {
            pipe,
            inlet: memfd(inlet, c"box-inlet")?,
            outlet: memfd(outlet, c"box-outlet")?,
        };
        Stream::adopt(
            document.name.as_str(),
            stream_name,
            style,
            descriptors,
            sent,
        )
        .map(Some)
        .map_err(Error::Relay)
    };
    let name_of_stdout = if terminal.is_some() { "tty" } else { "stdout" };
    let stdout = stream(name_of_stdout, of_stdout, STREAMS[0], kept.stdout)?;
    let stderr = stream("stderr", of_stderr, STREAMS[1], kept.stderr)?;
    Ok(Received {
        process: Process::new(pidfd, document.pid),
        document,
        sealed,
        notify,
        streams: [stdout, stderr],
        terminal,
        attached,
        asker,
        record,
        kept,
        taken_over,
    })
}

impl Received {
    /// Readable when the box has written to this stream.
    pub fn output(&self, index: usize) -> Option<BorrowedFd<'_>> {
        let stream = self.streams[index].as_ref()?;
        let terminal = self.terminal.as_ref().filter(|_| index == 0);
        Some(terminal.map_or(stream.pipe(), Terminal::exit))
    }
}

/// The names of a stream's pipe, inlet and outlet.
const STREAMS: [[&str; 3]; 2] = [
    [
        handover::FD_STDOUT,
        handover::FD_STDOUT_INLET,
        handover::FD_STDOUT_OUTLET,
    ],
    [
        handover::FD_STDERR,
        handover::FD_STDERR_INLET,
        handover::FD_STDERR_OUTLET,
    ],
];

/// The names of what there is of an [`Asker`]. It lives as long as this process, so systemd need not keep it.
const ASKER: [&str; 3] = ["box-asker", "box-asker-socket", "box-asker-output"];

/// The names of sd_listen_fds(3).
const LISTEN: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Becomes the program that is installed now, with all that was received, and inside the walls.
///
/// # Errors
///
/// The outer one if it cannot be tried, and nothing has changed; the inner one if it was tried: then the
/// descriptors are in disorder, and only another process can go on.
pub fn pass_on(received: &Received) -> Result<Result<Infallible, sys::Error>, io::Error> {
    let program = installed()?;
    let mut all: Vec<(&str, BorrowedFd<'_>)> = vec![
        (handover::FD_DOCUMENT, received.sealed.as_fd()),
        (handover::FD_KEPT, received.record.file().as_fd()),
    ];
    if let Some(pidfd) = received.process.pidfd() {
        all.push((handover::FD_PROCESS, pidfd));
    }
    if let Some(socket) = &received.notify {
        all.push((handover::FD_NOTIFY, socket.as_fd()));
    }
    if let Some(terminal) = &received.terminal {
        let names = [
            handover::FD_TERMINAL,
            handover::FD_TERMINAL_PEER,
            handover::FD_TERMINAL_PIPE,
        ];
        all.extend(names.into_iter().zip(terminal.descriptors()));
    }
    if let Some(attached) = &received.attached {
        all.push((handover::FD_ATTACH, attached.listener()));
    }
    if let Some(asker) = &received.asker {
        all.extend(ASKER.into_iter().zip(asker.descriptors()));
    }
    for (stream, names) in received.streams.iter().zip(STREAMS) {
        if let Some(stream) = stream {
            all.extend(names.into_iter().zip(stream.descriptors()));
        }
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let listen = [
        std::process::id().to_string(),
        names.len().to_string(),
        names.join(":"),
    ];
    let environment: Vec<CString> = env::vars_os()
        .filter(|(name, _)| !LISTEN.iter().any(|listen| name == listen) && name != walls::VARIABLE)
        .chain([(walls::VARIABLE.into(), walls::GENERATION.into())])
        .chain(
            LISTEN
                .into_iter()
                .map(OsString::from)
                .zip(listen.into_iter().map(OsString::from)),
        )
        .filter_map(|(name, value)| {
            CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok()
        })
        .collect();
    let arguments: Vec<CString> = env::args_os()
        .filter_map(|argument| CString::new(argument.into_vec()).ok())
        .collect();
    let copies = all
        .iter()
        .map(|(_, fd)| fd.try_clone_to_owned())
        .collect::<io::Result<Vec<_>>>()?;
    Ok(sys::exec_with_descriptors(
        &program,
        &arguments,
        &environment,
        copies,
    ))
}

/// The program this process runs, as the file system has it now.
fn installed() -> io::Result<CString> {
    let program = std::fs::read_link("/proc/self/exe")?
        .into_os_string()
        .into_vec();
    // The kernel says so of a file that was replaced.
    let program = program
        .strip_suffix(b" (deleted)")
        .unwrap_or(&program)
        .to_vec();
    let path = PathBuf::from(OsString::from_vec(program.clone()));
    rustix::fs::access(&path, rustix::fs::Access::EXEC_OK)?;
    Ok(CString::new(program)?)
}

/// Has systemd forget all of the box's descriptors, so that the next start begins from nothing.
pub fn forget() {
    for name in handover::NAMES {
        // systemd drops the store of a unit that has ended anyhow; it is only kept across a restart.
        let _ = notify::remove(name);
    }
}

fn store(name: &str, fd: impl AsFd) -> Result<(), Error> {
    notify::store(name, fd.as_fd()).map_err(Error::Store)
}

/// The descriptors passed by the protocol of sd_listen_fds(3), with their names.
fn passed() -> Result<Vec<(String, OwnedFd)>, Error> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Err(Error::Nothing);
    }
    let count = number("LISTEN_FDS")
        .filter(|count| *count > 0)
        .ok_or(Error::Nothing)?;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let descriptors = sys::take_passed(count as usize).map_err(Error::Take)?;
    Ok(names
        .split(':')
        .map(str::to_owned)
        .zip(descriptors)
        .collect())
}
