//! A pipe from the box to one of our own outputs, byte by byte as it came.
//!
//! Nothing here waits: whoever reads our output may take its time, and the operator's Ctrl-C must still be
//! heard.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::Errno;

/// Read at once; as much as a pipe holds.
const BUFFER: usize = 64 * 1024;

/// A pipe or terminal that poll(2) calls writable takes this much without waiting: `PIPE_BUF`.
const WITHOUT_WAITING: usize = 4096;

/// Where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Our standard output.
    Stdout,
    /// Our standard error.
    Stderr,
}

impl Sink {
    fn fd(self) -> BorrowedFd<'static> {
        match self {
            Sink::Stdout => rustix::stdio::stdout(),
            Sink::Stderr => rustix::stdio::stderr(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Sink::Stdout => "standard output",
            Sink::Stderr => "standard error",
        }
    }
}

/// One stream of output.
#[derive(Debug)]
pub struct Relay {
    /// None once it has ended, or nobody takes what it says.
    source: Option<OwnedFd>,
    sink: Sink,
    /// Most bytes written at once.
    portion: usize,
    buffer: Box<[u8]>,
    /// What of the buffer is not written yet.
    pending: Range<usize>,
    no_more_expected: bool,
}

impl Relay {
    /// The error is that of fcntl(2).
    pub fn new(source: OwnedFd, sink: Sink) -> io::Result<Self> {
        // The read end has a file description of its own: nobody in the box notices.
        fcntl_setfl(&source, fcntl_getfl(&source)? | OFlags::NONBLOCK)?;
        let is_file = fstat(sink.fd())
            .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile);
        Ok(Relay {
            source: Some(source),
            sink,
            portion: if is_file { BUFFER } else { WITHOUT_WAITING },
            buffer: vec![0; BUFFER].into_boxed_slice(),
            pending: 0..0,
            no_more_expected: false,
        })
    }

    /// The box has ended: an empty pipe is the end, even if somebody outside still holds its other end.
    pub fn expect_no_more(&mut self) {
        self.no_more_expected = true;
    }

    /// Nothing more is passed on.
    pub fn give_up(&mut self) {
        self.source = None;
        self.pending = 0..0;
    }

    /// Whether all is passed on that ever will be.
    pub fn is_done(&self) -> bool {
        self.source.is_none() && self.pending().is_empty()
    }

    /// What poll(2) has to wait for before there is work.
    pub fn waits_for(&self) -> Option<PollFd<'_>> {
        if !self.pending().is_empty() {
            return Some(PollFd::from_borrowed_fd(self.sink.fd(), PollFlags::OUT));
        }
        self.source
            .as_ref()
            .map(|source| PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN))
    }

    /// Passes on what can be without waiting. What it returns is for the operator: once, when our own output
    /// cannot be written any more. The box's output then has no reader, which the box learns from its next
    /// write, as in a pipeline of a shell.
    pub fn work(&mut self) -> Option<String> {
        loop {
            if self.pending().is_empty() && !self.fill() {
                return None;
            }
            match self.pass_on() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(errno) => {
                    self.give_up();
                    // Whoever read our output wants no more of it, and that is all.
                    return (errno != Errno::PIPE).then(|| {
                        format!(
                            "cannot write to {}: {}",
                            self.sink.words(),
                            io::Error::from(errno)
                        )
                    });
                }
            }
        }
    }

    fn pending(&self) -> &[u8] {
        &self.buffer[self.pending.clone()]
    }

    /// Whether there is something to pass on now.
    fn fill(&mut self) -> bool {
        let Some(source) = &self.source else {
            return false;
        };
        let read = loop {
            match rustix::io::read(source, &mut self.buffer[..]) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        self.pending = 0..*read.as_ref().unwrap_or(&0);
        match read {
            Ok(0) => self.source = None,
            Ok(_) => return true,
            Err(Errno::AGAIN) if !self.no_more_expected => {}
            Err(_) => self.source = None,
        }
        false
    }

    /// Whether all was written.
    fn pass_on(&mut self) -> Result<bool, Errno> {
        let fd = self.sink.fd();
        while !self.pending().is_empty() {
            if !is_writable(fd) {
                return Ok(false);
            }
            let portion = self.pending().len().min(self.portion);
            match rustix::io::write(fd, &self.pending()[..portion]) {
                Ok(written) => self.pending.start += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }
}

/// Whether a write of [`WITHOUT_WAITING`] bytes would not wait. It may fail at once all the same.
fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut files = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let at_once = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(rustix::event::poll(&mut files, Some(&at_once)), Ok(ready) if ready > 0)
}
