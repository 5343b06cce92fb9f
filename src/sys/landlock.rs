//! landlock(7): a process gives up the files it does not need.
#![allow(unsafe_code, reason = "no library in use has these calls")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Error, checked};

/// What may be done with files below a directory: bits of `LANDLOCK_ACCESS_FS_…`, linux/landlock.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAccess(u64);

impl FileAccess {
    /// Programs are executed, and read for that.
    pub const EXECUTE: FileAccess = FileAccess(1 << 0 | 1 << 2);
    /// Files and directories are read.
    pub const READ: FileAccess = FileAccess(1 << 2 | 1 << 3);
    /// Files that are there are read and written.
    pub const READ_AND_WRITE: FileAccess = FileAccess(1 << 1 | 1 << 2 | 1 << 14);

    /// All that a kernel of this ABI can refuse.
    const fn all(abi: u32) -> u64 {
        let bits = match abi {
            0 => 0,
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        (1 << bits) - 1
    }
}

/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `LANDLOCK_ACCESS_NET_CONNECT_TCP`.
const TCP: u64 = 0b11;

/// The first ABI that knows [`TCP`].
const ABI_WITH_TCP: u32 = 4;

/// `struct landlock_ruleset_attr`, as far as it is used.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    directory: i32,
}

/// Gives up every file but these, below their directories, and with them TCP, tracing others, and mounts: for this
/// process, which has `no_new_privs` set or `CAP_SYS_ADMIN`, and all it becomes. What is open stays open. False on a
/// kernel without Landlock; an old one refuses less.
pub fn give_up_files(allowed: &[(BorrowedFd<'_>, FileAccess)]) -> Result<bool, Error> {
    const VERSION: u32 = 1;
    const PATH_BENEATH: u32 = 1;
    // SAFETY: asks for a number; no memory is passed.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Ruleset>(),
            0_usize,
            VERSION,
        )
    };
    let abi = match checked(abi) {
        Ok(abi) => u32::try_from(abi).unwrap_or(u32::MAX),
        // Not built, or not among those that were asked for at boot.
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => return Ok(false),
        Err(errno) => {
            let call = "landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION)";
            return Err(Error::new(call, errno));
        }
    };
    let files = FileAccess::all(abi);
    let ruleset = Ruleset {
        files,
        network: if abi >= ABI_WITH_TCP { TCP } else { 0 },
    };
    // An older kernel takes a longer structure whose end is zero.
    // SAFETY: the kernel reads the structure of the size that is stated.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<Ruleset>(),
            0_u32,
        )
    };
    let made = checked(made)
        .map_err(|errno| Error::new(format!("landlock_create_ruleset({files:#x})"), errno))?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    let made = unsafe { OwnedFd::from_raw_fd(made as i32) };
    for (directory, access) in allowed {
        let rule = PathBeneath {
            allowed: access.0 & files,
            directory: directory.as_raw_fd(),
        };
        // SAFETY: the kernel reads the structure of this type of rule.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                made.as_raw_fd(),
                PATH_BENEATH,
                &raw const rule,
                0_u32,
            )
        };
        checked(added).map_err(|errno| {
            let call = format!(
                "landlock_add_rule({:#x}, fd {})",
                access.0,
                directory.as_raw_fd()
            );
            Error::new(call, errno)
        })?;
    }
    // SAFETY: takes a descriptor and a number.
    let restricted =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, made.as_raw_fd(), 0_u32) };
    checked(restricted)
        .map(|_| true)
        .map_err(|errno| Error::new("landlock_restrict_self()", errno))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::fd::AsFd as _;

    use super::*;

    /// In a thread of its own, which alone is restricted.
    #[test]
    fn what_was_given_up_cannot_be_opened_any_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        for path in [&inside, &outside] {
            fs::create_dir(path).expect("made");
            fs::write(path.join("file"), "text").expect("written");
        }
        std::thread::spawn(move || {
            let beneath = fs::File::open(&inside).expect("opens");
            rustix::thread::set_no_new_privs(true).expect("sets");
            let rules = [(beneath.as_fd(), FileAccess::READ)];
            if !give_up_files(&rules).expect("a kernel that works") {
                return;
            }
            assert_eq!(fs::read(inside.join("file")).expect("reads"), b"text");
            for denied in [
                fs::read(outside.join("file")).map(drop),
                fs::write(inside.join("file"), "other"),
                fs::create_dir(inside.join("more")),
                fs::remove_file(inside.join("file")),
            ] {
                let error = denied.expect_err("given up");
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            }
            // Not before ABI 4.
            if let Err(error) = std::net::TcpListener::bind("127.0.0.1:0") {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            }
            assert!(outside.join("file").exists(), "names are no secret");
        })
        .join()
        .expect("holds");
    }

    #[test]
    fn every_right_a_rule_gives_is_one_that_can_be_refused() {
        for access in [
            FileAccess::EXECUTE,
            FileAccess::READ,
            FileAccess::READ_AND_WRITE,
        ] {
            assert_eq!(access.0 & !FileAccess::all(3), 0);
        }
        assert_eq!(FileAccess::all(1), 0x1fff);
        assert_eq!(FileAccess::all(7), 0xffff);
    }
}
