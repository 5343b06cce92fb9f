//! What rustix and nix do not do with a pidfd: `PIDFD_GET_INFO` of ioctl_pidfd(2), and pidfd_send_signal(2)
//! with a real-time signal.
#![allow(
    unsafe_code,
    reason = "no library has this ioctl, nor takes any signal number"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, Error, checked};

/// How a process ended that may have been nobody's child we know; wait(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It called exit(3) with this status.
    Status(u8),
    /// This signal ended it.
    Signal(i32),
    /// It has ended, and the kernel cannot say how: it is older than 6.15.
    Unknown,
}

/// How the process behind a pidfd ended; none while it lives, or is a zombie its parent has not waited for, and
/// always none before Linux 6.13.
pub fn exit_of(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>, Error> {
    let call = || format!("ioctl(pidfd {}, PIDFD_GET_INFO)", pidfd.as_raw_fd());
    // SAFETY: plain data for which zero is valid.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the request encodes the size of `pidfd_info`, which is what the kernel writes.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if result < 0 {
        return match Errno::last() {
            // What a kernel before 6.15 says of a process that is gone.
            Errno::ESRCH => Ok(Some(Exit::Unknown)),
            // And one before 6.13 of this ioctl, whatever became of the process.
            Errno::ENOTTY | Errno::EINVAL => Ok(None),
            errno => Err(Error::new(call(), errno)),
        };
    }
    if info.mask & u64::from(libc::PIDFD_INFO_EXIT) == 0 {
        return Ok(None);
    }
    Ok(Some(decode(info.exit_code)))
}

/// Sends a signal of this number, a real-time one too, to the process behind a pidfd.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Error> {
    // SAFETY: no memory is passed, and the kernel checks both numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    checked(result).map(drop).map_err(|errno| {
        let call = format!("pidfd_send_signal({}, {signal})", pidfd.as_raw_fd());
        Error::new(call, errno)
    })
}

fn decode(status: libc::c_int) -> Exit {
    match status & 0x7f {
        0 => Exit::Status((status >> 8 & 0xff) as u8),
        signal => Exit::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn the_end_of_a_process_is_known_after_it_was_waited_for() {
        let cases = [
            ("exit 0", Exit::Status(0)),
            ("exit 203", Exit::Status(203)),
            ("kill -KILL $$", Exit::Signal(libc::SIGKILL)),
        ];
        for (line, exit) in cases {
            let mut child = Command::new("sh")
                .args(["-c", &format!("read wait; {line}")])
                .stdin(Stdio::piped())
                .spawn()
                .expect("started");
            let pid = Pid::from_raw(child.id() as i32).expect("a pid");
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("alive");
            assert_eq!(exit_of(pidfd.as_fd()), Ok(None), "it waits for its input");
            child.wait().expect("our child");
            let told = exit_of(pidfd.as_fd()).expect("a pidfd");
            match kernel() >= (6, 15) {
                true => assert_eq!(told, Some(exit)),
                false => assert!(matches!(told, None | Some(Exit::Unknown)), "{told:?}"),
            }
        }
    }

    fn kernel() -> (u32, u32) {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy();
        let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}
