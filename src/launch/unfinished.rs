//! A child that is not yet a box: what it says is heard here, and what is made for it is undone here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::channel::{self, ParentEnd};
use super::protocol::{FromChild, ToChild};
use super::{Error, Place};
use crate::cgroup;
use crate::systemd::scope;

/// How long the processes of a killed child may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// A child of a launch, killed and cleared away when dropped before [`Unfinished::finish`].
pub(super) struct Unfinished<'a> {
    // None only once the child is finished.
    process: Option<(Pid, OwnedFd)>,
    end: ParentEnd,
    interrupt: Option<BorrowedFd<'a>>,
    cgroup: Option<(PathBuf, Place)>,
    scope: &'a str,
}

impl<'a> Unfinished<'a> {
    pub fn new(
        pid: Pid,
        pidfd: OwnedFd,
        end: ParentEnd,
        interrupt: Option<BorrowedFd<'a>>,
        scope: &'a str,
    ) -> Self {
        Unfinished {
            process: Some((pid, pidfd)),
            end,
            interrupt,
            cgroup: None,
            scope,
        }
    }

    pub fn process(&self) -> (Pid, BorrowedFd<'_>) {
        let (pid, pidfd) = self
            .process
            .as_ref()
            .expect("the process leaves only with finish(), which consumes this");
        (*pid, pidfd.as_fd())
    }

    /// The cgroup, there or on its way, goes when the launch fails.
    pub fn owns(&mut self, made_by: Place, cgroup: &Path) {
        self.cgroup = Some((cgroup.to_owned(), made_by));
    }

    /// The cgroup is somebody else's after all.
    pub fn disowns(&mut self) {
        self.cgroup = None;
    }

    /// Sends a message.
    pub fn say(&self, message: &ToChild, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        match self.end.send(message, descriptors) {
            Ok(()) => Ok(()),
            // It ended unasked, and has most likely said why.
            Err(channel::Error::Ended(_)) => Err(self.hear().map_or_else(
                |error| error,
                |message| match message {
                    FromChild::Failed(failure) => Error::Failed(failure),
                    other => Error::Unexpected(other),
                },
            )),
            Err(error) => Err(Error::Talk(error)),
        }
    }

    /// Waits for the child's next message; a failure is an error.
    pub fn hear(&self) -> Result<FromChild, Error> {
        self.hear_all().map(|(message, _)| message)
    }

    /// The same, with what comes along.
    pub fn hear_all(&self) -> Result<(FromChild, Vec<OwnedFd>), Error> {
        self.wait_for_word()?;
        match self.end.receive_all() {
            Ok((FromChild::Failed(failure), _)) => Err(Error::Failed(failure)),
            Ok(message) => Ok(message),
            Err(channel::Error::Ended(_)) => Err(self.died()),
            Err(error) => Err(Error::Talk(error)),
        }
    }

    /// Waits until execve(2) has closed the child's end.
    pub fn hear_the_end(&self) -> Result<(), Error> {
        self.wait_for_word()?;
        match self.end.receive() {
            Err(channel::Error::Ended(_)) => Ok(()),
            Err(error) => Err(Error::Talk(error)),
            Ok(FromChild::Failed(failure)) => Err(Error::Failed(failure)),
            Ok(other) => Err(Error::Unexpected(other)),
        }
    }

    /// Why the child failed, if it has said so by now.
    pub fn failure(&self) -> Option<Error> {
        let mut files = [PollFd::from_borrowed_fd(self.end.as_fd(), PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut files, Some(&at_once)) {
            Ok(ready) if ready > 0 => match self.end.receive() {
                Ok(FromChild::Failed(failure)) => Some(Error::Failed(failure)),
                Err(channel::Error::Ended(_)) => Some(self.died()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The child is a box now, and its process the caller's.
    pub fn finish(mut self) -> (Pid, OwnedFd) {
        self.process
            .take()
            .expect("the process leaves only here, and this consumes it")
    }

    fn wait_for_word(&self) -> Result<(), Error> {
        loop {
            let mut files = vec![PollFd::from_borrowed_fd(self.end.as_fd(), PollFlags::IN)];
            if let Some(interrupt) = self.interrupt {
                files.push(PollFd::from_borrowed_fd(interrupt, PollFlags::IN));
            }
            match poll(&mut files, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::Wait(errno.into())),
            }
            if files.get(1).is_some_and(|file| !file.revents().is_empty()) {
                return Err(Error::Interrupted);
            }
            if !files[0].revents().is_empty() {
                return Ok(());
            }
        }
    }

    /// The child is gone without a word. It is left to be waited for by [`Drop`].
    fn died(&self) -> Error {
        let (_, pidfd) = self.process();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let how = match waitid(WaitId::PidFd(pidfd), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => format!("exited with status {status}"),
                (None, Some(signal)) => format!("was killed by {}", signal_name(signal)),
                (None, None) => "ended".to_owned(),
            },
            Ok(None) | Err(_) => "ended".to_owned(),
        };
        Error::Died(how)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some((_, pidfd)) = self.process.take() else {
            return;
        };
        // The first process of a pid namespace takes all others with it. One that is dead already is as good.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
        let cleared = match self.cgroup.take() {
            None => Ok(()),
            Some((cgroup, Place::Plain)) => {
                cgroup::remove(&cgroup, DEATH).map_err(scope::EndError::from)
            }
            // Whoever comes next under this name must not find the scope there.
            Some((cgroup, Place::Scope)) => scope::end(self.scope, &cgroup, DEATH, scope::UNASKED),
        };
        if let Err(error) = cleared {
            tracing::warn!(
                "cannot clear away what a failed launch left: {}",
                crate::journal::chain(&error)
            );
        }
    }
}

/// `SIGKILL` rather than 9.
fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |known| known.to_string())
}
