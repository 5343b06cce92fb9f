//! Messages to the service manager about ourselves, and the descriptors it keeps for us; sd_notify(3).
//!
//! All of them do nothing and succeed where nobody listens, that is, without `NOTIFY_SOCKET`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sd_notify::NotifyState;

/// Why systemd could not be told something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The datagram was not sent.
    #[error("cannot tell systemd {message:?}")]
    Send {
        /// What it was to be told.
        message: String,
        /// Why.
        source: io::Error,
    },
    /// The pipe for a barrier could not be made or waited for.
    #[error("cannot wait for systemd to take the messages")]
    Barrier(#[source] io::Error),
    /// systemd did not reach the barrier in time.
    #[error("systemd has not taken the messages within {} s", .0.as_secs())]
    Late(Duration),
}

/// Whether anybody listens.
pub fn is_listening() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// One line on what we are doing, for `systemctl status`.
///
/// # Errors
///
/// [`Error::Send`], as all below.
pub fn status(text: &str) -> Result<(), Error> {
    send(&[NotifyState::Status(&one_line(text))])
}

/// The box is up, with the line for `systemctl status`.
///
/// # Errors
///
/// [`Error::Send`].
pub fn ready(text: &str) -> Result<(), Error> {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(text))])
}

/// The box is going down, with the line for `systemctl status`.
///
/// # Errors
///
/// [`Error::Send`].
pub fn stopping(text: &str) -> Result<(), Error> {
    send(&[NotifyState::Stopping, NotifyState::Status(&one_line(text))])
}

/// The box reads its configuration anew since then, a time of `CLOCK_MONOTONIC`; [`ready`] ends that.
///
/// # Errors
///
/// [`Error::Send`].
pub fn reloading(since: Duration) -> Result<(), Error> {
    let since = format!("MONOTONIC_USEC={}", since.as_micros());
    send(&[NotifyState::Reloading, NotifyState::Custom(&since)])
}

/// Why the box fails, in numbers of its own: errno(3), and an exit status.
///
/// # Errors
///
/// [`Error::Send`].
pub fn failing(errno: Option<u32>, exit_status: Option<u8>) -> Result<(), Error> {
    let errno = errno.map(NotifyState::Errno);
    let exit_status = exit_status.map(|status| format!("EXIT_STATUS={status}"));
    let exit_status = exit_status.as_deref().map(NotifyState::Custom);
    let states: Vec<_> = errno.into_iter().chain(exit_status).collect();
    send(&states)
}

/// The current start or stop may take this much longer, counted from now.
///
/// # Errors
///
/// [`Error::Send`].
pub fn extend_timeout(by: Duration) -> Result<(), Error> {
    // The crate's own way of saying it ends at 71 minutes.
    let assignment = format!("EXTEND_TIMEOUT_USEC={}", by.as_micros());
    send(&[NotifyState::Custom(&assignment)])
}

/// We are alive.
///
/// # Errors
///
/// [`Error::Send`].
pub fn watchdog() -> Result<(), Error> {
    send(&[NotifyState::Watchdog])
}

/// The service has failed as if it had not been heard of in time: `WatchdogSignal=` and `Restart=` follow.
///
/// # Errors
///
/// [`Error::Send`].
pub fn watchdog_trigger() -> Result<(), Error> {
    send(&[NotifyState::WatchdogTrigger])
}

/// How often systemd wants to hear [`watchdog`] at least; `WatchdogSec=` of systemd.service(5).
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Gives systemd a descriptor to keep under this name: it comes back as `LISTEN_FDS` when the service is
/// started again without having been stopped.
///
/// # Errors
///
/// [`Error::Send`].
pub fn store(name: &str, fd: BorrowedFd<'_>) -> Result<(), Error> {
    let states = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        // systemd would drop a pipe whose writers are gone, and with it the last words of the box.
        NotifyState::Custom("FDPOLL=0"),
    ];
    send_with(&states, &[fd])
}

/// Has systemd let go of what it keeps under this name.
///
/// # Errors
///
/// [`Error::Send`].
pub fn remove(name: &str) -> Result<(), Error> {
    send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// Returns when systemd has taken everything that was sent before; `BARRIER=1`.
///
/// # Errors
///
/// [`Error::Late`] after the time.
pub fn barrier(timeout: Duration) -> Result<(), Error> {
    match begin_barrier()? {
        None => Ok(()),
        Some(barrier) => barrier.wait(timeout),
    }
}

/// A barrier that is on its way; None where nobody listens.
///
/// # Errors
///
/// [`Error::Send`], [`Error::Barrier`].
pub fn begin_barrier() -> Result<Option<Barrier>, Error> {
    if !is_listening() {
        return Ok(None);
    }
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::Barrier(errno.into()))?;
    send_with(&[NotifyState::Custom("BARRIER=1")], &[write.as_fd()])?;
    // systemd's copy of the write end is the last one; it closes it when it has come to the message.
    drop(write);
    Ok(Some(Barrier { read }))
}

/// Ends when systemd has taken everything that was sent before it.
#[derive(Debug)]
pub struct Barrier {
    read: std::os::fd::OwnedFd,
}

impl Barrier {
    /// Waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] after the time.
    pub fn wait(self, timeout: Duration) -> Result<(), Error> {
        let limit = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        loop {
            let mut files = [PollFd::from_borrowed_fd(
                self.read.as_fd(),
                PollFlags::empty(),
            )];
            match poll(&mut files, Some(&limit)) {
                Ok(0) => return Err(Error::Late(timeout)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Barrier(errno.into())),
            }
        }
    }
}

fn send(states: &[NotifyState<'_>]) -> Result<(), Error> {
    sd_notify::notify(states).map_err(|source| failed(states, source))
}

fn send_with(states: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    sd_notify::notify_with_fds(states, fds).map_err(|source| failed(states, source))
}

fn failed(states: &[NotifyState<'_>], source: io::Error) -> Error {
    let words: Vec<String> = states.iter().map(ToString::to_string).collect();
    Error::Send {
        message: words.join(" "),
        source,
    }
}

/// A message is lines of assignments: a newline in a text would begin another one.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_control())
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_whatever_is_in_it() {
        assert_eq!(
            one_line("cannot\nREADY=1\r\n\tmount\u{0}"),
            "cannot READY=1 mount"
        );
    }

    #[test]
    fn nobody_listening_is_no_error() {
        // cargo test does not run under a manager that would take it at its word.
        if !is_listening() {
            status("x").expect("nothing to do");
            barrier(Duration::ZERO).expect("nothing to wait for");
        }
    }
}
