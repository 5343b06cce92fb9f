//! The terminal of a box in the foreground: the operator's is connected to it for as long as the box runs.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

use crate::attach::{Keys, Watch};
use crate::enter::relay::{self, END_OF_TRANSMISSION};
use crate::enter::terminal::Raw;

/// Most bytes that are typed at once.
const PORTION: usize = 4096;

/// The operator's side of a box's terminal, except what it shows.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    /// Held open: a box whose programs close their terminal opens it again.
    _peer: OwnedFd,
    /// Sizes of the operator's window, and that this program goes on after it was stopped.
    events: SignalFd,
    /// The operator's terminal, if there is one.
    raw: Option<Raw>,
    keys: Watch,
    /// Our standard input has more.
    open: bool,
    /// What the box did not take yet.
    typed: Vec<u8>,
}

impl Terminal {
    /// Makes the operator's terminal raw, if our standard input is one.
    pub fn new(master: OwnedFd) -> io::Result<Terminal> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = ioctl_tiocgptpeer(&master, flags)?;
        let signals = SigSet::from_iter([Signal::SIGWINCH, Signal::SIGCONT]);
        signals.thread_block()?;
        let events =
            SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let stdin = io::stdin();
        let raw = match stdin.is_terminal() {
            true => Some(Raw::new(&stdin)?),
            false => None,
        };
        follow_window(&master);
        Ok(Terminal {
            master,
            _peer: peer,
            events,
            raw,
            keys: Keys::default().watch(),
            open: true,
            typed: Vec::new(),
        })
    }

    /// Whether lines on the operator's terminal need a carriage return at their end.
    pub fn is_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// What poll(2) has to wait for before there is work.
    pub fn waits_for(&self) -> Vec<PollFd<'_>> {
        let mut files = vec![PollFd::from_borrowed_fd(self.events.as_fd(), PollFlags::IN)];
        if !self.typed.is_empty() {
            files.push(PollFd::new(&self.master, PollFlags::OUT));
        } else if self.open {
            files.push(PollFd::from_borrowed_fd(
                rustix::stdio::stdin(),
                PollFlags::IN,
            ));
        }
        files
    }

    /// Passes on what was typed, and the size of the window. True if the operator wants the box to end.
    pub fn work(&mut self) -> bool {
        while let Ok(Some(signal)) = self.events.read_signal() {
            if signal.ssi_signo == Signal::SIGCONT as u32
                && let Some(raw) = &self.raw
            {
                raw.again();
            }
            follow_window(&self.master);
        }
        let wants_the_end = self.typed.is_empty() && self.read();
        while !self.typed.is_empty() {
            match rustix::io::write(&self.master, &self.typed) {
                Ok(length) => {
                    self.typed.drain(..length);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.typed.clear(),
            }
        }
        wants_the_end
    }

    fn read(&mut self) -> bool {
        let stdin = rustix::stdio::stdin();
        if !self.open || !relay::is_readable(stdin) {
            return false;
        }
        let mut buffer = [0; PORTION];
        match rustix::io::read(stdin, &mut buffer) {
            Ok(length @ 1..) => {
                let bytes = &buffer[..length];
                let (typed, whole) = match self.raw {
                    Some(_) => self.keys.look_at(bytes, Instant::now()),
                    None => (bytes, false),
                };
                self.typed.extend_from_slice(typed);
                return whole;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(_) => {
                self.open = false;
                self.typed.push(END_OF_TRANSMISSION);
            }
            Err(_) => self.open = false,
        }
        false
    }
}

/// Gives the terminal of a box the size of the operator's window, if there is one.
pub fn follow_window(master: &OwnedFd) {
    let size =
        relay::window(rustix::stdio::stdout()).or_else(|| relay::window(rustix::stdio::stdin()));
    if let Some(size) = size {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}
