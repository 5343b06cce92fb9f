//! Control groups of version 2, as cgroup-v2.rst of the kernel's documentation describes them: what a box
//! uses, ending, freezing, and (in [`plain`]) the driver for hosts whose cgroups no systemd owns.
//!
//! cgroups-rs, which only this module names, freezes, and sets the limits of the plain driver. Reading is done here: its
//! statistics turn every failure into a zero, its io figures are always zero under version 2, and it takes
//! the wish to be frozen for the fact.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cgroups_rs::fs::freezer::FreezerController;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::plan::Limit;

pub mod hasten;
pub mod limits;
pub mod plain;
pub mod pressure;

/// Where systemd and nearly every distribution mount the whole of cgroup2.
const USUAL_MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Longest sleep between two looks at a group: its directory may go without waking whoever polls its files.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why something could not be done with a control group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of a cgroup or of `/proc` could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a cgroup could not be written.
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A cgroup could not be told to freeze or to thaw.
    #[error("cannot write {}", path.join("cgroup.freeze").display())]
    Freeze {
        /// Which.
        path: PathBuf,
        /// What cgroups-rs or the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A cgroup could not be made.
    #[error("cannot make the cgroup {}", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cgroup could not be removed.
    #[error("cannot remove the cgroup {}", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line or file that should be there is not.
    #[error("{} says nothing of {what}", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
        /// What was looked for.
        what: String,
    },
    /// The host has no cgroup2 tree.
    #[error(
        "no cgroup2 file system is mounted; mount one: mount -t cgroup2 cgroup2 {USUAL_MOUNT_POINT}"
    )]
    NotMounted,
    /// A limit asks for a controller that the cgroup has not got.
    #[error(
        "the limit {limit} needs the cgroup controller \"{controller}\", which {} does not have (it has: {available})",
        path.display()
    )]
    Controller {
        /// The limit by systemd's name.
        limit: &'static str,
        /// What is missing.
        controller: &'static str,
        /// Where it is missing.
        path: PathBuf,
        /// What is there instead.
        available: String,
    },
    /// A limit was refused.
    #[error("cannot set the limit {limit} on {}", path.display())]
    Limit {
        /// The limit by systemd's name.
        limit: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// What cgroups-rs or the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of a cgroup could not be given away.
    #[error("cannot give {} to the box", path.display())]
    Delegate {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The wait was over before the group was as wanted.
    #[error("{} is still not {what} after {} ms", path.display(), waited.as_millis())]
    Timeout {
        /// The cgroup.
        path: PathBuf,
        /// `empty`, `frozen` or `thawed`.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// What a cgroup and all below it use. A figure whose controller is not there is absent, not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of memory, `memory.current`.
    pub memory: Option<u64>,
    /// Most bytes of memory so far, `memory.peak` (since Linux 5.19).
    pub memory_peak: Option<u64>,
    /// Bytes of swap, `memory.swap.current`.
    pub swap: Option<u64>,
    /// Microseconds of CPU time so far.
    pub cpu_usec: Option<u64>,
    /// Processes and threads, `pids.current`.
    pub tasks: Option<u64>,
    /// Bytes read from block devices so far.
    pub io_read: Option<u64>,
    /// Bytes written to block devices so far.
    pub io_written: Option<u64>,
    /// Processes killed for want of memory so far.
    pub oom_kills: Option<u64>,
}

/// What the cgroup uses now.
///
/// # Errors
///
/// [`Error::Read`] with `NotFound` when the cgroup itself is gone.
pub fn usage(cgroup: &Path) -> Result<Usage, Error> {
    let number = |file: &str| -> Result<Option<u64>, Error> {
        Ok(read_if_there(&cgroup.join(file))?.and_then(|text| text.trim().parse().ok()))
    };
    let cpu = read(&cgroup.join("cpu.stat"))?;
    let io = read_if_there(&cgroup.join("io.stat"))?;
    let events = read_if_there(&cgroup.join("memory.events"))?;
    Ok(Usage {
        memory: number("memory.current")?,
        memory_peak: number("memory.peak")?,
        swap: number("memory.swap.current")?,
        cpu_usec: keyed(&cpu, "usage_usec"),
        tasks: number("pids.current")?,
        io_read: io.as_deref().map(|text| io_sum(text, "rbytes")),
        io_written: io.as_deref().map(|text| io_sum(text, "wbytes")),
        oom_kills: events.as_deref().and_then(|text| keyed(text, "oom_kill")),
    })
}

/// Pids of all processes in the cgroup and below it, ascending. Pids of other pid namespaces than the
/// caller's are not listed by the kernel.
///
/// # Errors
///
/// [`Error::Read`] with `NotFound` when the cgroup itself is gone.
pub fn processes(cgroup: &Path) -> Result<Vec<i32>, Error> {
    let mut pids = Vec::new();
    for group in tree(cgroup)? {
        let file = group.join("cgroup.procs");
        match fs::read_to_string(&file) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            // A group below may go at any moment; a threaded one lists its processes at its domain.
            Err(_) if group != cgroup => {}
            Err(source) => return Err(Error::Read { path: file, source }),
        }
    }
    pids.retain(|pid| *pid > 0);
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Kills everything in the cgroup and below it, also what forks meanwhile (`cgroup.kill`, since Linux 5.14).
/// A cgroup that is gone has nothing to kill.
///
/// # Errors
///
/// [`Error::Write`] when the kernel refuses.
pub fn kill(cgroup: &Path) -> Result<(), Error> {
    match write(&cgroup.join("cgroup.kill"), "1") {
        Err(Error::Write { source, .. }) if is_gone(&source) => Ok(()),
        other => other,
    }
}

/// Stops all processes of the cgroup where they stand, and returns when they do.
///
/// # Errors
///
/// [`Error::Timeout`] when some process is still not frozen: one that sleeps uninterruptibly.
pub fn freeze(cgroup: &Path, timeout: Duration) -> Result<(), Error> {
    freezer(cgroup)
        .freeze()
        .map_err(|error| unfrozen(cgroup, error))?;
    wait_for_event(cgroup, "frozen", 1, "frozen", timeout)
}

/// Lets frozen processes go on.
///
/// # Errors
///
/// As [`freeze`].
pub fn thaw(cgroup: &Path, timeout: Duration) -> Result<(), Error> {
    freezer(cgroup)
        .thaw()
        .map_err(|error| unfrozen(cgroup, error))?;
    wait_for_event(cgroup, "frozen", 0, "thawed", timeout)
}

fn freezer(cgroup: &Path) -> FreezerController {
    FreezerController::new(cgroup.to_owned(), cgroup.to_owned(), VERSION_2)
}

const VERSION_2: bool = true;

fn unfrozen(cgroup: &Path, error: cgroups_rs::fs::error::Error) -> Error {
    Error::Freeze {
        path: cgroup.to_owned(),
        source: Box::new(plain::Chain::of(&error)),
    }
}

/// Whether the processes of the cgroup are frozen.
///
/// # Errors
///
/// [`Error::Read`] when the cgroup is gone.
pub fn is_frozen(cgroup: &Path) -> Result<bool, Error> {
    let file = cgroup.join("cgroup.events");
    Ok(keyed(&read(&file)?, "frozen") == Some(1))
}

/// Whether any process lives in the cgroup or below it. A cgroup that is gone is empty.
///
/// # Errors
///
/// [`Error::Read`] when the kernel refuses.
pub fn is_populated(cgroup: &Path) -> Result<bool, Error> {
    Ok(read_if_there(&cgroup.join("cgroup.events"))?
        .is_some_and(|text| keyed(&text, "populated") == Some(1)))
}

/// Returns when no process is left in the cgroup.
///
/// # Errors
///
/// [`Error::Timeout`] when some process is still there.
pub fn wait_empty(cgroup: &Path, timeout: Duration) -> Result<(), Error> {
    wait_for_event(cgroup, "populated", 0, "empty", timeout)
}

/// Kills everything in the cgroup, waits until it is empty, and gives its owner that long to remove it. Whether it is
/// gone then.
///
/// # Errors
///
/// [`Error::Timeout`] when a process does not die within the time: one that sleeps uninterruptibly.
pub fn end(cgroup: &Path, timeout: Duration, owner: Duration) -> Result<bool, Error> {
    if !cgroup.exists() {
        return Ok(true);
    }
    kill(cgroup)?;
    wait_empty(cgroup, timeout)?;
    let emptied = Instant::now();
    // Its owner hears of it at once, and mostly needs less than a millisecond or two.
    let mut pause = Duration::from_micros(200);
    while cgroup.exists() {
        if emptied.elapsed() >= owner {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(LOOK_AGAIN);
    }
    Ok(true)
}

/// Kills everything in the cgroup and removes it with all below it. One that is gone already is no error.
///
/// # Errors
///
/// [`Error::Timeout`] when a process does not die within the time, [`Error::Remove`] when the kernel refuses.
pub fn remove(cgroup: &Path, timeout: Duration) -> Result<(), Error> {
    if !cgroup.exists() {
        return Ok(());
    }
    kill(cgroup)?;
    wait_empty(cgroup, timeout)?;
    remove_empty(cgroup)
}

/// Removes a cgroup without processes, and all below it. One that is gone already is no error.
///
/// # Errors
///
/// [`Error::Remove`] when a process is in it.
pub fn remove_empty(cgroup: &Path) -> Result<(), Error> {
    let groups = match tree(cgroup) {
        Ok(groups) => groups,
        Err(Error::Read { source, .. }) if is_gone(&source) => return Ok(()),
        Err(error) => return Err(error),
    };
    for group in groups.iter().rev() {
        match fs::remove_dir(group) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::Remove {
                    path: group.clone(),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Where cgroup2 is mounted.
///
/// # Errors
///
/// [`Error::NotMounted`] when it is not.
pub fn mount_point() -> Result<PathBuf, Error> {
    let usual = Path::new(USUAL_MOUNT_POINT);
    if rustix::fs::statfs(usual).is_ok_and(|fs| fs.f_type as u64 == CGROUP2_SUPER_MAGIC) {
        return Ok(usual.to_owned());
    }
    mount_point_in(&read(Path::new("/proc/self/mountinfo"))?).ok_or(Error::NotMounted)
}

/// The cgroup of a process, as a path below the mount point.
///
/// # Errors
///
/// [`Error::Read`] when there is no such process.
pub fn of_process(pid: i32) -> Result<PathBuf, Error> {
    own_path(Path::new(&format!("/proc/{pid}/cgroup")))
}

/// The cgroup of the caller, as a path below the mount point.
///
/// # Errors
///
/// [`Error::NotMounted`] and what `/proc` answers.
pub fn of_self() -> Result<PathBuf, Error> {
    own_path(Path::new("/proc/self/cgroup"))
}

/// Gives a cgroup to this user: it may make groups below it and move its processes among them, and change no
/// limit of the group itself. The files are those of cgroup-v2.rst, "Model of Delegation".
///
/// # Errors
///
/// [`Error::Delegate`].
pub fn delegate(cgroup: &Path, owner: u32) -> Result<(), Error> {
    let list = fs::read_to_string("/sys/kernel/cgroup/delegate")
        .unwrap_or_else(|_| "cgroup.procs cgroup.threads cgroup.subtree_control".to_owned());
    let files = list.split_whitespace().map(|file| cgroup.join(file));
    for path in std::iter::once(cgroup.to_owned()).chain(files) {
        match std::os::unix::fs::chown(&path, Some(owner), Some(owner)) {
            Ok(()) => {}
            // The list names the files of every controller.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path != cgroup => {}
            Err(source) => return Err(Error::Delegate { path, source }),
        }
    }
    Ok(())
}

/// An error for the first limit whose controller the cgroup has not got.
///
/// # Errors
///
/// [`Error::Controller`] for that limit.
pub fn check_controllers(cgroup: &Path, limits: &[Limit]) -> Result<(), Error> {
    if limits.is_empty() {
        return Ok(());
    }
    let text = read(&cgroup.join("cgroup.controllers"))?;
    let available: Vec<&str> = text.split_whitespace().collect();
    match limits
        .iter()
        .find(|limit| !available.contains(&limit.controller()))
    {
        None => Ok(()),
        Some(limit) => Err(Error::Controller {
            limit: property(limit),
            controller: limit.controller(),
            path: cgroup.to_owned(),
            available: if available.is_empty() {
                "none".to_owned()
            } else {
                available.join(" ")
            },
        }),
    }
}

/// The limit by the name of systemd.resource-control(5).
pub fn property(limit: &Limit) -> &'static str {
    match limit {
        Limit::MemoryMax(_) => "MemoryMax",
        Limit::MemoryHigh(_) => "MemoryHigh",
        Limit::MemorySwapMax(_) => "MemorySwapMax",
        Limit::CpuQuotaPerSec(_) => "CPUQuota",
        Limit::CpuWeight(_) => "CPUWeight",
        Limit::AllowedCpus(_) => "AllowedCPUs",
        Limit::TasksMax(_) => "TasksMax",
        Limit::IoWeight(_) => "IOWeight",
        Limit::IoReadBandwidthMax(..) => "IOReadBandwidthMax",
        Limit::IoWriteBandwidthMax(..) => "IOWriteBandwidthMax",
        Limit::IoReadIopsMax(..) => "IOReadIOPSMax",
        Limit::IoWriteIopsMax(..) => "IOWriteIOPSMax",
    }
}

/// `CGROUP2_SUPER_MAGIC` of statfs(2).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

fn own_path(file: &Path) -> Result<PathBuf, Error> {
    let text = read(file)?;
    let path = version_2_path(&text).ok_or_else(|| Error::Absent {
        path: file.to_owned(),
        what: "cgroup2".to_owned(),
    })?;
    Ok(mount_point()?.join(path.trim_start_matches('/')))
}

/// The path in the line of version 2 of a `/proc/PID/cgroup`; cgroups(7).
fn version_2_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The first mount of type cgroup2 in a proc_pid_mountinfo(5).
fn mount_point_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        if file_system.split(' ').next()? != "cgroup2" {
            return None;
        }
        Some(PathBuf::from(unescape(mount.split(' ').nth(4)?)))
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    [
        (r"\040", " "),
        (r"\011", "\t"),
        (r"\012", "\n"),
        (r"\134", r"\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (escape, character)| {
        text.replace(escape, character)
    })
}

/// The number behind a key of a flat keyed file.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// One figure of an `io.stat`, over all devices.
fn io_sum(text: &str, key: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// The group and all below it, deepest last.
fn tree(cgroup: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut groups = vec![cgroup.to_owned()];
    let mut next = 0;
    while next < groups.len() {
        let group = groups[next].clone();
        next += 1;
        let entries = match fs::read_dir(&group) {
            Ok(entries) => entries,
            Err(_) if group != cgroup => continue,
            Err(source) => {
                return Err(Error::Read {
                    path: group,
                    source,
                });
            }
        };
        groups.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    Ok(groups)
}

/// Waits for a line of `cgroup.events`, which wakes its pollers whenever it changes.
fn wait_for_event(
    cgroup: &Path,
    key: &str,
    value: u64,
    what: &'static str,
    timeout: Duration,
) -> Result<(), Error> {
    let path = cgroup.join("cgroup.events");
    let mut file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(source) if is_gone(&source) => return Ok(()),
        Err(source) => return Err(Error::Read { path, source }),
    };
    let begin = Instant::now();
    let mut text = String::new();
    loop {
        text.clear();
        match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
            Ok(_) if keyed(&text, key) == Some(value) => return Ok(()),
            Ok(_) => {}
            Err(source) if is_gone(&source) => return Ok(()),
            Err(source) => return Err(Error::Read { path, source }),
        }
        let left = timeout.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(Error::Timeout {
                path: cgroup.to_owned(),
                what,
                waited: timeout,
            });
        }
        let pause = left.min(LOOK_AGAIN);
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: pause.as_nanos() as i64,
        };
        let mut files = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)];
        match poll(&mut files, Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::Read {
                    path,
                    source: errno.into(),
                });
            }
        }
    }
}

/// What the kernel answers about a removed cgroup: its files are gone, or were opened before and are dead.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// A file that a cgroup may not have, for want of its controller or because the group is gone.
fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if is_gone(&source) => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// One write(2) to a file that exists.
fn write(path: &Path, value: &str) -> Result<(), Error> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            value: value.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_version_2_is_found_among_those_of_version_1() {
        let text = "9:name=systemd:/\n4:memory:/a/b\n0::/box.slice/box-web.scope\n";
        assert_eq!(version_2_path(text), Some("/box.slice/box-web.scope"));
        assert_eq!(version_2_path("4:memory:/a\n"), None);
    }

    #[test]
    fn the_mount_of_cgroup2_is_found_and_unescaped() {
        let text = "25 1 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    26 1 0:23 / /mnt/a\\040b rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point_in(text), Some(PathBuf::from("/mnt/a b")));
        assert_eq!(
            mount_point_in("26 1 0:23 / /mnt rw - tmpfs cgroup2 rw\n"),
            None
        );
    }

    #[test]
    fn figures_are_read_by_their_keys() {
        let cpu = "usage_usec 4711\nuser_usec 1\nsystem_usec 2\n";
        assert_eq!(keyed(cpu, "usage_usec"), Some(4711));
        assert_eq!(keyed(cpu, "usage"), None);
        let io = "8:0 rbytes=10 wbytes=20 rios=1\n253:70000 rbytes=5 wbytes=1 rios=1\n";
        assert_eq!(io_sum(io, "rbytes"), 15);
        assert_eq!(io_sum(io, "wbytes"), 21);
    }
}
