//! The caller's side while a command runs in a box: its bytes, its signals and its window, and at last its
//! exit status.
//!
//! The caller's own streams are left blocking, since their flags are shared with whoever else has them; the
//! other ends belong to this program alone and do not block. So a command that reads nothing cannot keep its
//! own output from being written.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::Winsize;

use super::terminal::Raw;

/// What a command's standard streams are connected to.
#[derive(Debug)]
pub enum Streams {
    /// All three to a terminal of the box, of which this is the master.
    Terminal(OwnedFd),
    /// Each to a pipe of its own.
    Pipes {
        /// Write end of its standard input; none if that is empty.
        input: Option<OwnedFd>,
        /// Read end of its standard output.
        output: OwnedFd,
        /// Read end of its standard error.
        error: OwnedFd,
    },
}

/// The caller's own streams.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'fd> {
    /// Read, if the command gets any input.
    pub input: Option<BorrowedFd<'fd>>,
    /// Written.
    pub output: BorrowedFd<'fd>,
    /// Written, unless the command has a terminal: that has one output only.
    pub error: BorrowedFd<'fd>,
}

/// Why the relay broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Signals cannot be taken as events.
    #[error("cannot take signals as events: signalfd")]
    Signals(#[source] io::Error),
    /// Nothing can be waited for.
    #[error("cannot wait for the command's output: poll")]
    Wait(#[source] io::Error),
    /// Output cannot be read.
    #[error("cannot read what the command wrote")]
    Read(#[source] io::Error),
    /// The exit status cannot be had.
    #[error("cannot learn how the command ended: waitid")]
    Reap(#[source] io::Error),
}

/// Signals that are passed on to the command, as if it had been signalled itself.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals taken as events, blocked since this was made and until it is dropped.
#[derive(Debug)]
pub struct Signals {
    events: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks them. A process made from here on has them blocked too.
    pub fn block() -> Result<Signals, Error> {
        let mut set = SigSet::empty();
        for signal in PASSED_ON
            .into_iter()
            .chain([Signal::SIGWINCH, Signal::SIGCONT])
        {
            set.add(signal);
        }
        let events = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|errno| Error::Signals(errno.into()))?;
        let mut before = SigSet::empty();
        nix::sys::signal::pthread_sigmask(
            nix::sys::signal::SigmaskHow::SIG_BLOCK,
            Some(&set),
            Some(&mut before),
        )
        .map_err(|errno| Error::Signals(errno.into()))?;
        Ok(Signals { events, before })
    }
}

impl AsFd for Signals {
    /// Readable when one has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Signals {
    /// The next one that has come, if any.
    pub fn next(&self) -> Option<Signal> {
        let signal = self.events.read_signal().ok().flatten()?;
        let number = i32::try_from(signal.ssi_signo).ok()?;
        Signal::try_from(number).ok()
    }

    /// Returns once something can be read from `from`; false if the caller was told to end before that.
    pub fn wait_for(&self, from: impl AsFd) -> Result<bool, Error> {
        loop {
            let mut fds = [
                PollFd::new(&from, PollFlags::IN),
                PollFd::new(&self.events, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Wait(errno.into())),
            }
            if !fds[0].revents().is_empty() {
                return Ok(true);
            }
            while let Ok(Some(signal)) = self.events.read_signal() {
                let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
                if Signal::try_from(number).is_ok_and(|signal| PASSED_ON.contains(&signal)) {
                    return Ok(false);
                }
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Relays until the command has ended and everything it wrote is passed on; the status is that of a shell:
/// 128+n for a signal.
///
/// What processes it left behind write later is not waited for.
pub fn relay(
    streams: Streams,
    caller: Caller<'_>,
    process: &OwnedFd,
    signals: &Signals,
    raw: Option<&Raw>,
) -> Result<u8, Error> {
    let mut relay = match streams {
        Streams::Terminal(master) => {
            let output = master.try_clone().map_err(Error::Read)?;
            Relay {
                input: caller.input.map(|from| Input {
                    from,
                    to: master,
                    held: Vec::new(),
                    ended: false,
                    terminal: true,
                }),
                outputs: vec![Output {
                    from: Some(output),
                    to: caller.output,
                }],
            }
        }
        Streams::Pipes {
            input,
            output,
            error,
        } => Relay {
            input: caller.input.zip(input).map(|(from, to)| Input {
                from,
                to,
                held: Vec::new(),
                ended: false,
                terminal: false,
            }),
            outputs: vec![
                Output {
                    from: Some(output),
                    to: caller.output,
                },
                Output {
                    from: Some(error),
                    to: caller.error,
                },
            ],
        },
    };
    loop {
        let events = relay.wait(process, signals)?;
        if events.signal {
            while let Ok(Some(signal)) = signals.events.read_signal() {
                relay.signal(signal.ssi_signo, process, raw);
            }
        }
        relay.pass_output()?;
        relay.pass_input();
        if events.ended {
            relay.pass_output()?;
            return reap(process);
        }
    }
}

/// How a command ended, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// As [`relay`] has it; none if its time was up.
    pub status: Option<u8>,
    /// The end of what it wrote to both its outputs.
    pub output: Vec<u8>,
}

/// Reads what a command writes until it has ended or its time is up, and keeps the last `most` bytes.
///
/// The command's input is at its end. What processes it left behind write later is not waited for.
pub fn collect(
    streams: Streams,
    process: &OwnedFd,
    deadline: Instant,
    most: usize,
) -> Result<Collected, Error> {
    let mut sources: Vec<OwnedFd> = match streams {
        Streams::Terminal(master) => vec![master],
        Streams::Pipes { output, error, .. } => vec![output, error],
    };
    let mut output = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = vec![PollFd::new(process, PollFlags::IN)];
        fds.extend(
            sources
                .iter()
                .map(|source| PollFd::new(source, PollFlags::IN)),
        );
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::Wait(errno.into())),
        }
        let ended = !fds[0].revents().is_empty();
        let mut failed = None;
        // One buffer of each at a turn: a command that writes without end must not keep its time from passing.
        sources.retain(|source| match take(source, &mut output) {
            Ok(more) => more,
            Err(errno) => {
                failed = Some(errno);
                false
            }
        });
        if let Some(errno) = failed {
            return Err(Error::Read(errno.into()));
        }
        output.drain(..output.len().saturating_sub(most));
        if ended {
            return Ok(Collected {
                status: Some(reap(process)?),
                output,
            });
        }
        if left.is_zero() {
            return Ok(Collected {
                status: None,
                output,
            });
        }
    }
}

/// Reads what is there, up to what a pipe holds; false at the end.
fn take(source: &OwnedFd, output: &mut Vec<u8>) -> Result<bool, Errno> {
    let mut buffer = [0; 16 * 1024];
    for _ in 0..4 {
        match rustix::io::read(source, &mut buffer) {
            Ok(0) | Err(Errno::IO) => return Ok(false),
            Ok(length) => output.extend_from_slice(&buffer[..length]),
            Err(Errno::AGAIN) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// The status of a process that has ended: its exit status, or 128 and the number of the signal that killed it.
pub fn reap(process: &OwnedFd) -> Result<u8, Error> {
    let status = loop {
        match waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other.map_err(|errno| Error::Reap(errno.into()))?,
        }
    };
    Ok(status
        .and_then(|status| {
            let exited = status.exit_status();
            exited.or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        })
        .and_then(|status| u8::try_from(status).ok())
        .unwrap_or(u8::MAX))
}

struct Relay<'fd> {
    input: Option<Input<'fd>>,
    outputs: Vec<Output<'fd>>,
}

struct Input<'fd> {
    from: BorrowedFd<'fd>,
    to: OwnedFd,
    /// Read, and not yet taken by the command.
    held: Vec<u8>,
    /// `from` has no more.
    ended: bool,
    terminal: bool,
}

struct Output<'fd> {
    /// None once it has ended.
    from: Option<OwnedFd>,
    to: BorrowedFd<'fd>,
}

#[derive(Debug, Clone, Copy)]
struct Events {
    ended: bool,
    signal: bool,
}

impl Relay<'_> {
    fn wait(&self, process: &OwnedFd, signals: &Signals) -> Result<Events, Error> {
        let mut fds = vec![
            PollFd::new(process, PollFlags::IN),
            PollFd::new(&signals.events, PollFlags::IN),
        ];
        for output in &self.outputs {
            if let Some(from) = &output.from {
                fds.push(PollFd::new(from, PollFlags::IN));
            }
        }
        if let Some(input) = &self.input {
            if input.held.is_empty() {
                fds.push(PollFd::from_borrowed_fd(input.from, PollFlags::IN));
            } else {
                fds.push(PollFd::new(&input.to, PollFlags::OUT));
            }
        }
        loop {
            match poll(&mut fds, None) {
                Ok(_) => {
                    return Ok(Events {
                        ended: !fds[0].revents().is_empty(),
                        signal: !fds[1].revents().is_empty(),
                    });
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Wait(errno.into())),
            }
        }
    }

    /// Passes on all that is there to read.
    fn pass_output(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 16 * 1024];
        for output in &mut self.outputs {
            while let Some(from) = &output.from {
                match rustix::io::read(from, &mut buffer) {
                    // A terminal whose other side nobody has open says EIO, a pipe says the end.
                    Ok(0) | Err(Errno::IO) => output.from = None,
                    Ok(length) => {
                        // Nobody reads any more: the command shall feel it as it would without us.
                        if write_all(output.to, &buffer[..length]).is_err() {
                            output.from = None;
                        }
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(Error::Read(errno.into())),
                }
            }
        }
        Ok(())
    }

    fn pass_input(&mut self) {
        let Some(input) = &mut self.input else {
            return;
        };
        if input.held.is_empty() && is_readable(input.from) {
            let mut buffer = [0; 16 * 1024];
            match rustix::io::read(input.from, &mut buffer) {
                Ok(0) => {
                    input.ended = true;
                    if input.terminal {
                        input.held.push(END_OF_TRANSMISSION);
                    }
                }
                Ok(length) => input.held.extend_from_slice(&buffer[..length]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => input.ended = true,
            }
        }
        while !input.held.is_empty() {
            match rustix::io::write(&input.to, &input.held) {
                Ok(length) => {
                    input.held.drain(..length);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    input.held.clear();
                    input.ended = true;
                }
            }
        }
        if input.ended {
            self.input = None;
        }
    }

    fn signal(&self, number: u32, process: &OwnedFd, raw: Option<&Raw>) {
        let Some(signal) = i32::try_from(number)
            .ok()
            .and_then(|number| Signal::try_from(number).ok())
        else {
            return;
        };
        match signal {
            Signal::SIGWINCH => self.follow_window(),
            Signal::SIGCONT => {
                if let Some(raw) = raw {
                    raw.again();
                }
                self.follow_window();
            }
            other => {
                // It may have ended meanwhile.
                if let Some(signal) = rustix::process::Signal::from_named_raw(other as i32) {
                    let _ = rustix::process::pidfd_send_signal(process, signal);
                }
            }
        }
    }

    fn follow_window(&self) {
        if let Some(input) = &self.input
            && input.terminal
            && let Some(size) = window(input.from)
        {
            let _ = rustix::termios::tcsetwinsize(&input.to, size);
        }
    }
}

/// What a terminal in its usual modes reads as the end of input: `VEOF`.
pub const END_OF_TRANSMISSION: u8 = 4;

/// The size of a terminal's window, if it is one and knows.
pub fn window(terminal: impl AsFd) -> Option<Winsize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some(size)
}

/// Whether a read would not wait.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&now)), Ok(1))
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            // Someone else made the caller's stream non-blocking.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs a shell script with its streams relayed, as a box's command is.
    fn run(script: &str, input: Option<&[u8]>) -> (u8, Vec<u8>, Vec<u8>) {
        let [mut given, mut output, mut error] =
            std::array::from_fn(|_| tempfile::tempfile().expect("a temporary file"));
        given.write_all(input.unwrap_or_default()).expect("written");
        given.rewind().expect("rewound");
        let signals = Signals::block().expect("signals");
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        let pid = rustix::process::Pid::from_child(&child);
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .expect("a pidfd");
        let ours = |fd: OwnedFd| {
            rustix::io::ioctl_fionbio(&fd, true).expect("non-blocking");
            fd
        };
        let streams = Streams::Pipes {
            input: child.stdin.take().map(|fd| ours(fd.into())),
            output: ours(child.stdout.take().expect("piped").into()),
            error: ours(child.stderr.take().expect("piped").into()),
        };
        let caller = Caller {
            input: input.map(|_| given.as_fd()),
            output: output.as_fd(),
            error: error.as_fd(),
        };
        let status = relay(streams, caller, &process, &signals, None).expect("relayed");
        child.wait().expect_err("the relay has reaped it");
        let contents = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().expect("rewound");
            file.read_to_end(&mut bytes).expect("read");
            bytes
        };
        let (output, error) = (contents(&mut output), contents(&mut error));
        (status, output, error)
    }

    #[test]
    fn output_error_and_status_come_back() {
        let (status, output, error) = run("echo out; echo err >&2; exit 7", None);
        assert_eq!(
            (status, &*output, &*error),
            (7, &b"out\n"[..], &b"err\n"[..])
        );
        assert_eq!(run("kill -9 $$", None).0, 137);
    }

    #[test]
    fn more_than_a_pipe_holds_goes_through_both_ways_at_once() {
        let megabyte = vec![b'x'; 1 << 20];
        let (status, output, _) = run("cat", Some(&megabyte));
        assert_eq!(status, 0);
        assert!(output == megabyte, "{} bytes came back", output.len());
    }

    #[test]
    fn a_command_that_reads_nothing_keeps_nobody_waiting() {
        let megabyte = vec![b'x'; 1 << 20];
        assert_eq!(run("exec 0<&-; echo done", Some(&megabyte)).1, b"done\n");
        assert_eq!(run("echo done", Some(&megabyte)).1, b"done\n");
    }

    #[test]
    fn what_is_left_behind_is_not_waited_for() {
        let (status, output, _) = run("sleep 1000 & echo $!", None);
        assert_eq!(status, 0);
        let pid = String::from_utf8(output).expect("a pid");
        let pid = pid.trim().parse().expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    }
}
