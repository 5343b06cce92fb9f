//! `boxctl attach`: an operator's terminal on the terminal of a box.
//!
//! The box's supervisor has the terminal, and passes on what is typed and shown here; see [`protocol`]. Where it is
//! killed or replaced meanwhile, the next one is asked for the rest, at the same socket and from the byte on that was
//! shown last. What was typed and not yet taken is lost then.
//!
//! The operator's own terminal is raw meanwhile, so every key is the box's but the [`Keys`] that detach, and it is as
//! it was before when this ends, however that comes about; only SIGKILL cannot be helped.

mod keys;
pub mod protocol;

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::enter::relay::{self, Signals};
use crate::enter::terminal::Raw;
use crate::launch::run_directory::{ATTACH, PARENT};
use crate::name::Name;
use crate::running::{self, Running};
pub use keys::{Keys, Watch};
use protocol::{INPUT_MAX, MESSAGE_MAX, RECENT, Reply, Request, VERSION};

/// Between two attempts to find the next supervisor.
const AGAIN: Duration = Duration::from_millis(50);

/// For so long the next supervisor is looked for, of a box that runs on.
const PATIENCE: Duration = Duration::from_secs(90);

/// A terminal that poll(2) calls writable takes so much without waiting.
const WITHOUT_WAITING: usize = 4096;

/// After this a terminal is usable again, whatever the box has done to it: on its usual screen, with a cursor, in no
/// colour, and it sends neither the mouse's moves nor marks around what is pasted.
const USABLE: &[u8] =
    b"\x1b[?1047l\x1b[?25h\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\r\n";

/// How it came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The operator has detached; the box runs on.
    Detached,
    /// This process was told to end by a signal of this number; the box runs on.
    Told(i32),
    /// The box has ended, with this exit status if that is known.
    Ended(Option<u8>),
}

/// Why nothing is attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The box was started without a terminal.
    #[error(
        "cannot attach to box {name}: it has no terminal; write `tty = true` into its definition and start it anew, \
         or run something in a terminal of its own in it: boxctl exec -t {name} -- sh"
    )]
    NoTerminal {
        /// The box.
        name: Name,
    },
    /// The box has its terminal elsewhere.
    #[error(
        "cannot attach to box {name}: it runs in the foreground, and its terminal is that of its `boxctl run`"
    )]
    Foreground {
        /// The box.
        name: Name,
    },
    /// Its supervisor is not reached.
    #[error("cannot attach to box {name}: cannot connect to {}", path.display())]
    Connect {
        /// The box.
        name: Name,
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its supervisor has said why not.
    #[error("cannot attach to box {name}: {why}")]
    Refused {
        /// The box.
        name: Name,
        /// A sentence.
        why: String,
    },
    /// What its supervisor says is not understood.
    #[error(
        "cannot go on with box {name}: its supervisor speaks another version of the protocol; the box runs on"
    )]
    Message {
        /// The box.
        name: Name,
    },
    /// The box lives, and nobody supervises it.
    #[error(
        "lost the supervisor of box {name}, which runs on, and no other has come; see: systemctl status box@{name}"
    )]
    Lost {
        /// The box.
        name: Name,
    },
    /// The operator's terminal cannot be made raw.
    #[error("cannot put the terminal into raw mode: tcsetattr")]
    Raw(#[source] io::Error),
    /// Signals, or the wait itself.
    #[error(transparent)]
    Relay(#[from] relay::Error),
}

/// Connects this process' standard streams to the terminal of a box until the operator detaches or the box ends.
/// `begun` is called once it is there, while the operator's terminal still is as it was.
///
/// This process must have one thread.
///
/// # Errors
///
/// There is nothing to attach to, or the box's supervisor is lost for good.
pub fn attach(running: &Running, keys: &Keys, begun: &dyn Fn()) -> Result<Outcome, Error> {
    let name = running.document.name.clone();
    if !running.plan.tty {
        return Err(Error::NoTerminal { name });
    }
    let signals = Signals::block()?;
    let path = Path::new(PARENT).join(name.as_str()).join(ATTACH);
    let socket = connect(&path).map_err(|errno| match errno {
        // A box that a service runs has the socket before it has a first process.
        Errno::NOENT => Error::Foreground { name: name.clone() },
        errno => Error::Connect {
            name: name.clone(),
            path: path.clone(),
            source: errno.into(),
        },
    })?;
    begun();
    let stdin = io::stdin();
    let raw = match stdin.is_terminal() {
        true => Some(Raw::new(&stdin).map_err(|errno| Error::Raw(errno.into()))?),
        false => None,
    };
    let mut session = Session {
        running,
        path,
        socket: Some(socket),
        seen: None,
        deaf: false,
        lost: None,
        input: Some(rustix::stdio::stdin()),
        typed: Vec::new(),
        shown: Vec::new(),
        unwritten: 0,
        watch: keys.watch(),
        signals: &signals,
        raw: raw.as_ref(),
    };
    session.greet();
    let outcome = session.last();
    drop(raw);
    if stdin.is_terminal() && io::stdout().is_terminal() {
        let _ = rustix::io::write(rustix::stdio::stdout(), USABLE);
    }
    outcome
}

/// One operator on one box.
struct Session<'a> {
    running: &'a Running,
    path: PathBuf,
    /// None while there is no supervisor.
    socket: Option<OwnedFd>,
    /// The next byte of output; none before the first.
    seen: Option<u64>,
    /// It takes no more input.
    deaf: bool,
    /// When the supervisor was lost.
    lost: Option<Instant>,
    /// None once it has ended.
    input: Option<BorrowedFd<'a>>,
    /// Not sent yet.
    typed: Vec<u8>,
    /// Output, which is written from `unwritten` on.
    shown: Vec<u8>,
    unwritten: usize,
    watch: Watch,
    signals: &'a Signals,
    raw: Option<&'a Raw>,
}

impl Session<'_> {
    fn last(&mut self) -> Result<Outcome, Error> {
        loop {
            self.wait()?;
            while let Some(signal) = self.signals.next() {
                match signal {
                    Signal::SIGWINCH => self.tell_size(),
                    Signal::SIGCONT => {
                        if let Some(raw) = self.raw {
                            raw.again();
                        }
                        self.tell_size();
                    }
                    // They mean nothing to this program.
                    Signal::SIGUSR1 | Signal::SIGUSR2 => {}
                    other => return Ok(Outcome::Told(other as i32)),
                }
            }
            if self.is_written()
                && let Some(outcome) = self.hear()?
            {
                return Ok(outcome);
            }
            self.write();
            if self.typed.is_empty() && self.read() {
                return Ok(Outcome::Detached);
            }
            self.send();
            if self.socket.is_none()
                && self.is_written()
                && let Some(outcome) = self.find_the_next()?
            {
                return Ok(outcome);
            }
        }
    }

    /// Sleeps until anything can be done.
    fn wait(&self) -> Result<(), Error> {
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.signals.as_fd(),
            PollFlags::IN,
        )];
        if let Some(socket) = &self.socket {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, self.is_written());
            wanted.set(PollFlags::OUT, !self.typed.is_empty() && !self.deaf);
            // Else its end would be told again and again while the output is not taken.
            if !wanted.is_empty() {
                fds.push(PollFd::new(socket, wanted));
            }
            if self.typed.is_empty()
                && let Some(input) = self.input
            {
                fds.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
            }
        }
        if !self.is_written() {
            fds.push(PollFd::from_borrowed_fd(
                rustix::stdio::stdout(),
                PollFlags::OUT,
            ));
        }
        let timeout = match self.socket {
            Some(_) => None,
            None => Timespec::try_from(AGAIN).ok(),
        };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(relay::Error::Wait(errno.into()).into()),
        }
    }

    fn is_written(&self) -> bool {
        self.unwritten == self.shown.len()
    }

    /// Says hello to a supervisor.
    fn greet(&mut self) {
        let from = self.seen.unwrap_or(RECENT);
        let hello = Request::Hello {
            version: VERSION,
            from,
        };
        self.say(&hello);
        self.tell_size();
    }

    fn tell_size(&self) {
        // The window of what is written to, or of the terminal that is typed at.
        let size = relay::window(rustix::stdio::stdout())
            .or_else(|| relay::window(rustix::stdio::stdin()));
        if let Some(size) = size {
            self.say(&Request::of_window(size));
        }
    }

    /// A word that finds no room is a word to a supervisor that does not listen: the next one is told.
    fn say(&self, request: &Request<'_>) {
        if let Some(socket) = &self.socket {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(socket, &request.encode(), flags);
        }
    }

    /// Takes one message.
    fn hear(&mut self) -> Result<Option<Outcome>, Error> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        let mut packet = vec![0; MESSAGE_MAX];
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let length = match rustix::net::recv(socket, &mut packet[..], flags) {
            // A reset is told once, before what the supervisor had said until then.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => return Ok(None),
            Ok((_, length)) if (1..=MESSAGE_MAX).contains(&length) => length,
            Ok((_, 0)) | Err(_) => {
                self.socket = None;
                self.lost.get_or_insert_with(Instant::now);
                return Ok(None);
            }
            Ok(_) => return Err(self.not_understood()),
        };
        match Reply::decode(&packet[..length]) {
            Some(Reply::Output { at, bytes }) => {
                if self.seen.is_some_and(|seen| at > seen) {
                    let missed = at - self.seen.unwrap_or(at);
                    let remark = format!("\r\n[{missed} bytes were shown too fast to follow]\r\n");
                    self.shown = remark.into_bytes();
                } else {
                    self.shown.clear();
                }
                self.shown.extend_from_slice(bytes);
                self.unwritten = 0;
                self.seen = Some(at + bytes.len() as u64);
                self.lost = None;
                Ok(None)
            }
            Some(Reply::Ended(status)) => Ok(Some(Outcome::Ended(Some(status)))),
            Some(Reply::Refused(why)) => Err(Error::Refused {
                name: self.name(),
                why: why.chars().filter(|c| !c.is_control()).collect(),
            }),
            None => Err(self.not_understood()),
        }
    }

    /// Writes what can be written without waiting.
    fn write(&mut self) {
        let stdout = rustix::stdio::stdout();
        while !self.is_written() && is_writable(stdout) {
            let rest = &self.shown[self.unwritten..];
            match rustix::io::write(stdout, &rest[..rest.len().min(WITHOUT_WAITING)]) {
                Ok(length) => self.unwritten += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody looks: what is typed still goes to the box.
                Err(_) => self.unwritten = self.shown.len(),
            }
        }
    }

    /// Reads what is typed; true if it says that the operator detaches.
    fn read(&mut self) -> bool {
        let Some(input) = self.input else {
            return false;
        };
        if self.socket.is_none() || !relay::is_readable(input) {
            return false;
        }
        let mut buffer = [0; INPUT_MAX];
        match rustix::io::read(input, &mut buffer) {
            // Of an input that is no terminal, or one that is gone. The output goes on.
            Ok(0) => self.input = None,
            Ok(length) => {
                let (typed, detached) = self.watch.look_at(&buffer[..length], Instant::now());
                self.typed.extend_from_slice(typed);
                return detached;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input = None,
        }
        false
    }

    fn send(&mut self) {
        let Some(socket) = &self.socket else {
            return;
        };
        if self.typed.is_empty() || self.deaf {
            return;
        }
        let packet = Request::Input(&self.typed).encode();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(socket, &packet, flags) {
            Ok(_) => self.typed.clear(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // That the other side is gone is heard after all it has said; this is for the next one.
            Err(_) => self.deaf = true,
        }
    }

    /// Looks for the box's next supervisor.
    fn find_the_next(&mut self) -> Result<Option<Outcome>, Error> {
        if running::has_ended(&self.running.process) {
            return Ok(Some(Outcome::Ended(None)));
        }
        if let Ok(socket) = connect(&self.path) {
            self.socket = Some(socket);
            self.deaf = false;
            self.greet();
            return Ok(None);
        }
        match self.lost {
            Some(lost) if lost.elapsed() > PATIENCE => Err(Error::Lost { name: self.name() }),
            _ => Ok(None),
        }
    }

    fn name(&self) -> Name {
        self.running.document.name.clone()
    }

    fn not_understood(&self) -> Error {
        Error::Message { name: self.name() }
    }
}

fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1))
}
