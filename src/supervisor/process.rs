//! The box's first process, by its pidfd.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::policy::Exit;
use crate::sys;

/// The first process of a box.
///
/// After the launch it is this process' child, since `boxd run` became the supervisor. A supervisor that came
/// later is not its parent: then somebody else waits for it, and what the kernel keeps must do.
#[derive(Debug)]
pub struct Process {
    pidfd: Option<OwnedFd>,
    pid: i32,
}

impl Process {
    /// The process behind a pidfd, which has, or had, this pid on the host. Without a pidfd it is gone.
    pub fn new(pidfd: Option<OwnedFd>, pid: i32) -> Process {
        Process { pidfd, pid }
    }

    /// The pidfd: readable when the process has ended.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// The pid on the host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether this process is its parent, and will be told how it ends.
    pub fn is_child(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.pidfd()
            .is_some_and(|pidfd| waitid(WaitId::PidFd(pidfd), options).is_ok())
    }

    /// How it ended; none while it lives, and while a dead one is not waited for by its parent and does not
    /// tell.
    pub fn exit(&self) -> Option<Exit> {
        let Some(pidfd) = self.pidfd() else {
            return Some(Exit::Unknown);
        };
        match waitid(
            WaitId::PidFd(pidfd),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(None) => return None,
            Ok(Some(status)) => {
                return Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => Exit::Status((status & 0xff) as u8),
                    (None, Some(signal)) => Exit::Signal {
                        signal,
                        dumped: status.dumped(),
                    },
                    (None, None) => Exit::Unknown,
                });
            }
            Err(_) => {}
        }
        match sys::exit_of(pidfd) {
            Ok(Some(sys::Exit::Status(status))) => return Some(Exit::Status(status)),
            Ok(Some(sys::Exit::Signal(signal))) => {
                return Some(Exit::Signal {
                    signal,
                    dumped: false,
                });
            }
            Ok(Some(sys::Exit::Unknown)) => return Some(Exit::Unknown),
            Ok(None) | Err(_) => {}
        }
        // Before Linux 6.15 only a zombie tells, in its stat, until its parent has waited for it.
        let zombie = self.exit_of_zombie();
        match self.is_there() {
            true => zombie,
            false => Some(Exit::Unknown),
        }
    }

    /// Sends a signal; a process that is gone is no failure.
    pub fn signal(&self, signal: i32) -> Result<(), sys::Error> {
        let Some(pidfd) = self.pidfd() else {
            return Ok(());
        };
        match sys::send_signal(pidfd, signal) {
            Err(error) if error.errno() == sys::Errno::ESRCH => Ok(()),
            result => result,
        }
    }

    /// Whether the process does something of its own with a signal: handles it, blocks it to fetch it later,
    /// or ignores it. If not, the signal's default action is what counts, and from that pid 1 of a namespace
    /// is spared. Also true for signals whose default action is no end, and if nothing can be learnt.
    pub fn hears(&self, signal: i32) -> bool {
        if matches!(
            signal,
            libc::SIGCHLD
                | libc::SIGCONT
                | libc::SIGURG
                | libc::SIGWINCH
                | libc::SIGSTOP
                | libc::SIGTSTP
                | libc::SIGTTIN
                | libc::SIGTTOU
        ) {
            return true;
        }
        let Ok(threads) = fs::read_dir(self.path("task")) else {
            return true;
        };
        let mut known = false;
        for thread in threads.flatten() {
            let Ok(status) = fs::read(thread.path().join("status")) else {
                continue;
            };
            known = true;
            if hears(&status, signal) {
                return true;
            }
        }
        !known || !self.is_there()
    }

    fn path(&self, file: &str) -> String {
        ["/proc/", itoa(self.pid).as_str(), "/", file].concat()
    }

    /// Whether the pid still is this process', dead or alive.
    fn is_there(&self) -> bool {
        self.pidfd()
            .is_some_and(|pidfd| sys::send_signal(pidfd, 0).is_ok())
    }

    fn exit_of_zombie(&self) -> Option<Exit> {
        let mut stat = Vec::new();
        File::open(self.path("stat"))
            .and_then(|file| file.take(4096).read_to_end(&mut stat))
            .ok()?;
        zombie(&stat)
    }
}

fn itoa(number: i32) -> String {
    number.to_string()
}

/// What proc_pid_status(5) says of a signal.
fn hears(status: &[u8], signal: i32) -> bool {
    let bit = 1u64 << (signal - 1);
    status.split(|byte| *byte == b'\n').any(|line| {
        [&b"SigBlk:\t"[..], b"SigIgn:\t", b"SigCgt:\t"]
            .into_iter()
            .filter_map(|key| line.strip_prefix(key))
            .filter_map(|mask| std::str::from_utf8(mask).ok())
            .filter_map(|mask| u64::from_str_radix(mask, 16).ok())
            .any(|mask| mask & bit != 0)
    })
}

/// The exit code in the stat of a zombie; proc_pid_stat(5). None if it is none.
fn zombie(stat: &[u8]) -> Option<Exit> {
    // The name before stands in parentheses and may hold anything.
    let after_name = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    let mut fields = std::str::from_utf8(after_name)
        .ok()?
        .split_ascii_whitespace();
    if fields.next()? != "Z" {
        return None;
    }
    // The state is field 3, the exit code field 52.
    let code: i32 = fields.nth(48)?.parse().ok()?;
    Some(match code & 0x7f {
        0 => Exit::Status((code >> 8 & 0xff) as u8),
        signal => Exit::Signal {
            signal,
            dumped: code & 0x80 != 0,
        },
    })
}

/// The name of a signal as the definition spells it.
pub fn signal_name(signal: i32) -> String {
    // The first two real-time signals belong to libc.
    const REAL_TIME_MIN: i32 = 34;
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) if signal == REAL_TIME_MIN => "SIGRTMIN".to_owned(),
        Err(_) => ["SIGRTMIN+", &itoa(signal - REAL_TIME_MIN)].concat(),
    }
}

/// An error of a kernel file that is read while its subject may vanish.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    /// A shell that runs this script; it can wait for its standard input to end.
    fn child(script: &str) -> (Child, Process) {
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let pid = child.id() as i32;
        let pidfd = pidfd_open(Pid::from_raw(pid).expect("is no zero"), PidfdFlags::empty())
            .expect("opens");
        (child, Process::new(Some(pidfd), pid))
    }

    fn wait(process: &Process) {
        let pidfd = process.pidfd().expect("is there");
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut fds, None).expect("polls");
    }

    #[test]
    fn a_child_tells_how_it_ended() {
        for (script, expected) in [
            ("exit 3", Exit::Status(3)),
            (
                "kill -KILL $$",
                Exit::Signal {
                    signal: 9,
                    dumped: false,
                },
            ),
            (
                "kill -40 $$",
                Exit::Signal {
                    signal: 40,
                    dumped: false,
                },
            ),
        ] {
            let (_, process) = child(&["read -r x; ", script].concat());
            wait(&process);
            assert_eq!(process.exit(), Some(expected));
        }
    }

    #[test]
    fn a_zombie_tells_in_its_stat() {
        let (mut child, process) = child("read -r x; exit 9");
        assert_eq!(process.exit_of_zombie(), None);
        assert_eq!(process.exit(), None);
        assert!(process.is_child());
        drop(child.stdin.take());
        wait(&process);
        assert_eq!(process.exit_of_zombie(), Some(Exit::Status(9)));
        assert!(process.is_there());
        assert!(process.is_child());
        child.wait().expect("waits");
        assert!(!process.is_there() && !process.is_child());
        assert!(matches!(
            process.exit(),
            Some(Exit::Status(9) | Exit::Unknown)
        ));
        process
            .signal(15)
            .expect("a process that is gone is no failure");
    }

    #[test]
    fn a_signal_is_heard_if_it_is_handled_ignored_or_blocked() {
        let (mut child, process) = child("trap : TERM; trap '' HUP; echo; read -r x");
        let mut byte = [0];
        child
            .stdout
            .as_mut()
            .expect("is piped")
            .read_exact(&mut byte)
            .expect("reads");
        assert!(process.hears(libc::SIGTERM));
        assert!(process.hears(libc::SIGHUP));
        assert!(!process.hears(libc::SIGUSR1));
        assert!(process.hears(libc::SIGWINCH));
        child.kill().expect("kills");
        child.wait().expect("waits");
        assert!(process.hears(libc::SIGUSR1), "nothing is known of it");
    }

    #[test]
    fn masks_are_read_by_bit() {
        let status = b"Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\nSigCgt:\t0000001000004000\n";
        assert!(hears(status, 13));
        assert!(hears(status, 15));
        assert!(hears(status, 37));
        assert!(!hears(status, 1));
        assert!(!hears(status, 64));
    }

    #[test]
    fn signals_are_named_as_the_definition_spells_them() {
        assert_eq!(signal_name(15), "SIGTERM");
        assert_eq!(signal_name(34), "SIGRTMIN");
        assert_eq!(signal_name(37), "SIGRTMIN+3");
    }
}
