//! Leases on files; fcntl(2).
#![allow(unsafe_code, reason = "no library takes leases")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::Errno;

/// Whether anybody has this regular file open to write to it: a lease on it is refused then. It is open here for reading
/// alone.
///
/// Whoever opens it meanwhile waits a moment, and the kernel sends SIGIO for that, so [`super::ignore_sigio`] comes first.
/// Where leases are not to be had, by the file system or for want of `CAP_LEASE`, nobody is seen.
pub fn is_being_written(file: BorrowedFd<'_>) -> bool {
    match set_lease(file, libc::F_RDLCK) {
        Ok(()) => {
            // It ends with the descriptor at the latest.
            let _ = set_lease(file, libc::F_UNLCK);
            false
        }
        Err(errno) => errno == Errno::EAGAIN,
    }
}

fn set_lease(file: BorrowedFd<'_>, kind: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes numbers only and touches no memory.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn who_writes_is_seen() {
        super::super::ignore_sigio();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let writer = File::create(&path).expect("made");
        let reader = File::open(&path).expect("opened");
        assert!(is_being_written(reader.as_fd()));
        drop(writer);
        // A process that another test starts meanwhile has the writer too, until it executes something.
        let is_left = || {
            (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                !is_being_written(reader.as_fd())
            })
        };
        assert!(is_left());
        // Nothing stays of it.
        drop(File::options().append(true).open(&path).expect("opened"));
        let appends = File::options().append(true).open(&path).expect("opened");
        assert!(is_being_written(reader.as_fd()));
        drop(appends);
    }
}
