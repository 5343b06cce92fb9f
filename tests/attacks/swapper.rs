//! Whoever changes a directory all the time while somebody else looks at it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::boxes::{fork, wait};

/// Fewest exchanges of a race that counts as one.
pub const EXCHANGES: u64 = 20_000;

/// A process that exchanges two names until it is dropped: renameat2(2), `RENAME_EXCHANGE`.
pub struct Swapper {
    process: OwnedFd,
    count: File,
}

impl Swapper {
    /// Begins to exchange these two, which stay where they are if an exchange fails.
    pub fn of(one: &Path, other: &Path) -> Swapper {
        let count = rustix::fs::memfd_create("exchanges", rustix::fs::MemfdFlags::CLOEXEC)
            .map(File::from)
            .expect("memory");
        match fork() {
            Some(process) => Swapper { process, count },
            None => {
                let _ = rustix::process::set_parent_process_death_signal(Some(
                    rustix::process::Signal::KILL,
                ));
                let mut done: u64 = 0;
                loop {
                    if renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                        done += 1;
                    }
                    let _ = count.write_all_at(&done.to_ne_bytes(), 0);
                }
            }
        }
    }

    /// How many exchanges there were.
    pub fn exchanges(&self) -> u64 {
        let mut bytes = [0; 8];
        match self.count.read_exact_at(&mut bytes, 0) {
            Ok(()) => u64::from_ne_bytes(bytes),
            Err(_) => 0,
        }
    }

    /// Does it until there were enough exchanges, and at least so often.
    pub fn race(&self, at_least: u32, mut attempt: impl FnMut(u32)) {
        let mut attempts = 0;
        while attempts < at_least || self.exchanges() < EXCHANGES {
            attempt(attempts);
            attempts += 1;
        }
        assert!(self.exchanges() >= EXCHANGES);
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
        wait(&self.process);
    }
}
