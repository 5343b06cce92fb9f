//! The cgroup a box lives in: whether anybody is left in it, and who was killed for want of memory.
//!
//! systemd removes the cgroup as soon as it is empty, and may make another of the same name. So its directory is
//! opened once, and everything goes through that descriptor: a cgroup that is gone stays gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};

use super::process::is_gone;

/// `cgroup.kill` of [`crate::health::CGROUP`].
const KILL_PROBE: &str = "boxd-probe/cgroup.kill";

/// The cgroup of a box.
#[derive(Debug)]
pub struct Scope {
    directory: Option<OwnedFd>,
    events: Option<File>,
    memory_events: Option<File>,
}

impl Scope {
    /// Opens the cgroup's files; all absent if the cgroup is gone, and the ones of a controller that is missing.
    pub fn open(cgroup: &Path) -> Scope {
        let directory = open(
            cgroup,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok();
        let file = |name| {
            openat(
                directory.as_ref()?,
                name,
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .ok()
            .map(File::from)
        };
        Scope {
            events: file("cgroup.events"),
            memory_events: file("memory.events"),
            directory,
        }
    }

    /// The cgroup itself, `O_PATH`.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// `cgroup.events`: has an exceptional condition, `EPOLLPRI`, when it changes and until it is read.
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(AsFd::as_fd)
    }

    /// `memory.events`, likewise.
    pub fn memory_events(&self) -> Option<BorrowedFd<'_>> {
        self.memory_events.as_ref().map(AsFd::as_fd)
    }

    /// Whether all of its processes are frozen.
    pub fn is_frozen(&self) -> bool {
        self.events
            .as_ref()
            .and_then(|file| value(file, b"frozen "))
            .is_some_and(|frozen| frozen != 0)
    }

    /// Whether a process lives in it or below it.
    pub fn is_populated(&self) -> bool {
        self.events
            .as_ref()
            .and_then(|file| value(file, b"populated "))
            .is_some_and(|populated| populated != 0)
    }

    /// Processes the kernel killed for want of memory, in it and below it; none if it is gone.
    pub fn oom_kills(&self) -> Option<u64> {
        value(self.memory_events.as_ref()?, b"oom_kill ")
    }

    /// `memory.max` in bytes; none if there is no limit.
    pub fn memory_limit(&self) -> Option<u64> {
        let file = self.file("memory.max", OFlags::RDONLY).ok()?;
        let mut text = [0; 32];
        let length = file.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..length])
            .ok()?
            .trim_end()
            .parse()
            .ok()
    }

    /// Kills every process in it and below it, and those they are about to fork. A cgroup that is gone is no
    /// failure.
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", b"1")
    }

    /// Kills what the last probe started, if there is anything of it.
    pub fn kill_probe(&self) -> io::Result<()> {
        self.write(KILL_PROBE, b"1")
    }

    /// Lets frozen processes run.
    pub fn thaw(&self) -> io::Result<()> {
        self.write("cgroup.freeze", b"0")
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let directory = self.directory.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    fn write(&self, name: &str, value: &[u8]) -> io::Result<()> {
        match self
            .file(name, OFlags::WRONLY)
            .and_then(|file| file.write_all_at(value, 0))
        {
            Err(error) if is_gone(&error) => Ok(()),
            result => result,
        }
    }
}

/// The number after a key in a flat-keyed file of cgroups(7).
fn value(file: &File, key: &[u8]) -> Option<u64> {
    let mut text = [0; 512];
    let length = file.read_at(&mut text, 0).ok()?;
    let number = text[..length]
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(key))?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_cgroup_that_is_not_there_is_empty_and_dies_willingly() {
        let scope = Scope::open(Path::new("/sys/fs/cgroup/no/such"));
        assert!(!scope.is_populated());
        assert_eq!(scope.oom_kills(), None);
        scope.kill().expect("nothing to kill");
        scope.thaw().expect("nothing to thaw");
    }

    #[test]
    fn the_cgroup_of_probes_is_the_one_they_go_to() {
        assert_eq!(KILL_PROBE, format!("{}/cgroup.kill", crate::health::CGROUP));
        Scope::open(Path::new("/sys/fs/cgroup/no/such"))
            .kill_probe()
            .expect("nothing to kill");
    }

    #[test]
    fn values_are_found_by_key() {
        let directory = tempfile::tempdir().expect("makes a directory");
        fs::write(
            directory.path().join("memory.events"),
            "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n",
        )
        .expect("writes");
        fs::write(
            directory.path().join("cgroup.events"),
            "populated 1\nfrozen 0\n",
        )
        .expect("writes");
        let limit = directory.path().join("memory.max");
        fs::write(&limit, "67108864\n").expect("writes");
        let scope = Scope::open(directory.path());
        assert_eq!(scope.oom_kills(), Some(4));
        assert!(scope.is_populated());
        assert!(!scope.is_frozen());
        fs::write(
            directory.path().join("cgroup.events"),
            "populated 1\nfrozen 1\n",
        )
        .expect("writes");
        assert!(scope.is_frozen());
        assert_eq!(scope.memory_limit(), Some(64 << 20));
        fs::write(&limit, "max\n").expect("writes");
        assert_eq!(scope.memory_limit(), None);
    }
}
