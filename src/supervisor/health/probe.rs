//! One question to the box, asked by a process of its own.
//!
//! It is `boxd probe`, which has in it what entering a box takes; this program stays small. It is a child of the
//! supervisor in the service's cgroup, its command lives in a cgroup below the box's, and both die with the
//! supervisor.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::health::{Answer, OUTPUT_MAX};
use crate::name::Name;
use crate::programs;
use crate::sys::{self, Called as _, Fork};

/// Where the package puts it.
const PROGRAM: &CStr = c"/usr/bin/boxd";

/// How long a process that was killed is waited for before this one becomes another program.
const DEATH: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// A question that was asked.
#[derive(Debug)]
pub struct Probe {
    process: OwnedFd,
    output: OwnedFd,
}

impl Probe {
    /// Asks the box of this name.
    pub fn start(name: &Name) -> Result<Probe, sys::Error> {
        let (output, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .called(|| "pipe2(O_CLOEXEC | O_NONBLOCK)".to_owned())?;
        let program = programs::beside_or(PROGRAM);
        let arguments = [
            c"boxd".to_owned(),
            c"probe".to_owned(),
            CString::new(name.as_str()).unwrap_or_default(),
        ];
        match sys::clone3(CloneFlags::empty())? {
            Fork::Child => {
                let Err(error) = become_probe(&theirs, &program, &arguments);
                let _ = rustix::io::write(&theirs, error.to_string().as_bytes());
                sys::exit_now(Answer::Error.exit_status())
            }
            Fork::Parent { pidfd, .. } => Ok(Probe {
                process: pidfd,
                output,
            }),
        }
    }

    /// Readable when it has ended.
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// What came of it, if it has ended; the bytes it said are at most [`OUTPUT_MAX`].
    pub fn answer(&self) -> Option<(Answer, Vec<u8>)> {
        let status = match waitid(
            WaitId::PidFd(self.process()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(None) => return None,
            Ok(Some(status)) => status.exit_status(),
            Err(_) => None,
        };
        let mut output = vec![0; OUTPUT_MAX];
        let mut length = 0;
        while let Ok(read @ 1..) = rustix::io::read(&self.output, &mut output[length..]) {
            length += read;
        }
        output.truncate(length);
        Some((status.map_or(Answer::Error, Answer::of_status), output))
    }

    /// Kills it.
    pub fn kill(&self) {
        // One that has ended is still to be waited for.
        let _ = sys::send_signal(self.process(), libc::SIGKILL);
    }

    /// Waits a moment for the end of one that was killed.
    pub fn wait(&self) {
        let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&DEATH));
        let _ = self.answer();
    }
}

fn become_probe(
    output: &OwnedFd,
    program: &CString,
    arguments: &[CString],
) -> Result<Infallible, sys::Error> {
    // What this program blocks to look at it later is to end that one.
    SigSet::empty()
        .thread_set_mask()
        .called(|| "sigprocmask(SIG_SETMASK, [])".to_owned())?;
    rustix::stdio::dup2_stdout(output).called(|| "dup2(pipe, 1)".to_owned())?;
    // It needs no environment, and must not have systemd's sockets.
    sys::exec_with_descriptors(program, arguments, &[], Vec::new())
}
