//! The driver for hosts without systemd: a cgroup of our own for a box in the foreground.
//!
//! The group lies below the caller's own one, or, where that cannot have the controllers the limits need,
//! at the top of the tree. Directory and controllers are made here, and only from that parent down:
//! `Cgroup::create()` of cgroups-rs would switch on every controller in every group above. Its typed setters
//! then put the limits in force, one by one, since its `apply()` drops their errors.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::freezer::FreezerController;
use cgroups_rs::fs::memory::{MemController, SetMemory};
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, Hierarchy, MaxValue, Subsystem};

use super::{Error, check_controllers, property, write};
use crate::host::Disk;
use crate::plan::Limit;

/// `cpu.max` is set for this period, in microseconds: the kernel's default and systemd's.
const CPU_PERIOD: u64 = 100_000;

/// The kernel refuses a quota below this many microseconds.
const CPU_QUOTA_LEAST: u64 = 1_000;

/// A cgroup that this process made and owns. It stays until it is removed.
#[derive(Debug)]
pub struct Plain {
    path: PathBuf,
    cgroup: Cgroup,
}

impl Plain {
    /// Makes the cgroup of this name with these limits in force. A group of that name that is left from
    /// before is used again; whoever lives in it is the caller's business.
    ///
    /// # Errors
    ///
    /// [`Error::Controller`] for a limit that cannot be applied.
    pub fn create(name: &str, limits: &[Limit]) -> Result<Self, Error> {
        let top = super::mount_point()?;
        let own = super::of_self()?;
        let below_own = if own == top {
            None
        } else {
            make(&own, name, limits).ok()
        };
        let path = match below_own {
            Some(path) => path,
            None => make(&top, name, limits)?,
        };
        let parent = path.parent().unwrap_or(&top).to_owned();
        let plain = Plain {
            cgroup: Cgroup::load(Box::new(Below { parent }), name),
            path,
        };
        for limit in limits {
            if let Err(error) = plain.set(limit) {
                // The limit that was refused is the news; an empty group is easily removed.
                let _ = fs::remove_dir(&plain.path);
                return Err(error);
            }
        }
        Ok(plain)
    }

    /// The group's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The group as a descriptor, for a process to be born in: clone3(2).
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub fn open(&self) -> Result<OwnedFd, Error> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).map_err(|errno| Error::Read {
            path: self.path.clone(),
            source: errno.into(),
        })
    }

    /// Moves a process in.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] when the process is gone or may not be moved.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        self.cgroup
            .add_task_by_tgid(CgroupPid::from(u64::from(pid.unsigned_abs())))
            .map_err(|error| Error::Write {
                path: self.path.join("cgroup.procs"),
                value: pid.to_string(),
                source: io::Error::other(Chain::of(&error)),
            })
    }

    fn set(&self, limit: &Limit) -> Result<(), Error> {
        let refused = |error: cgroups_rs::fs::error::Error| self.refused(limit, Chain::of(&error));
        match limit {
            Limit::MemoryMax(bytes) => self
                .controller::<MemController>(limit)?
                .set_mem(SetMemory {
                    max: Some(most(*bytes)),
                    low: None,
                    high: None,
                    min: None,
                })
                .map_err(refused),
            Limit::MemoryHigh(bytes) => self
                .controller::<MemController>(limit)?
                .set_mem(SetMemory {
                    high: Some(most(*bytes)),
                    low: None,
                    max: None,
                    min: None,
                })
                .map_err(refused),
            // A negative number stands for no limit in cgroups-rs.
            Limit::MemorySwapMax(bytes) => self
                .controller::<MemController>(limit)?
                .set_memswap_limit(i64::try_from(*bytes).unwrap_or(-1))
                .map_err(refused),
            Limit::CpuQuotaPerSec(usec) => self
                .controller::<CpuController>(limit)?
                .set_cfs_quota_and_period(Some(quota(*usec)), Some(CPU_PERIOD))
                .map_err(refused),
            // On version 2 this is cpu.weight.
            Limit::CpuWeight(weight) => self
                .controller::<CpuController>(limit)?
                .set_shares(*weight)
                .map_err(refused),
            Limit::AllowedCpus(cpus) => self
                .controller::<CpuSetController>(limit)?
                .set_cpus(&Limit::cpu_list(cpus.iter().copied()))
                .map_err(refused),
            Limit::TasksMax(tasks) => self
                .controller::<PidController>(limit)?
                .set_pid_max(most(*tasks))
                .map_err(refused),
            // cgroups-rs writes io.bfq.weight, which few kernels have, and has no io.max.
            Limit::IoWeight(weight) => self.set_file(limit, "io.weight", &weight.to_string()),
            Limit::IoReadBandwidthMax(path, rate) => self.set_io(limit, path, "rbps", *rate),
            Limit::IoWriteBandwidthMax(path, rate) => self.set_io(limit, path, "wbps", *rate),
            Limit::IoReadIopsMax(path, rate) => self.set_io(limit, path, "riops", *rate),
            Limit::IoWriteIopsMax(path, rate) => self.set_io(limit, path, "wiops", *rate),
        }
    }

    fn set_io(&self, limit: &Limit, path: &Path, key: &str, rate: u64) -> Result<(), Error> {
        let (major, minor) = block_device(path).map_err(|error| self.refused(limit, error))?;
        self.set_file(limit, "io.max", &format!("{major}:{minor} {key}={rate}"))
    }

    fn set_file(&self, limit: &Limit, file: &str, value: &str) -> Result<(), Error> {
        write(&self.path.join(file), value).map_err(|error| self.refused(limit, error))
    }

    fn controller<'a, T>(&'a self, limit: &Limit) -> Result<&'a T, Error>
    where
        &'a T: From<&'a Subsystem>,
        T: cgroups_rs::fs::Controller + cgroups_rs::fs::ControllIdentifier,
    {
        self.cgroup
            .controller_of::<T>()
            .ok_or_else(|| self.refused(limit, "cgroups-rs has no such controller"))
    }

    fn refused(
        &self,
        limit: &Limit,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Limit {
            limit: property(limit),
            path: self.path.clone(),
            source: source.into(),
        }
    }
}

/// Where the group of this name may be on a host without systemd: below the caller's own group or at the top.
///
/// # Errors
///
/// [`Error::NotMounted`].
pub fn places(name: &str) -> Result<Vec<PathBuf>, Error> {
    let mut places = vec![super::of_self()?.join(name)];
    let top = super::mount_point()?.join(name);
    if places[0] != top {
        places.push(top);
    }
    Ok(places)
}

/// Makes the directory and switches on what the limits need, from the parent down.
fn make(parent: &Path, name: &str, limits: &[Limit]) -> Result<PathBuf, Error> {
    check_controllers(parent, limits)?;
    for controller in limits.iter().map(Limit::controller) {
        // EBUSY where processes live in the parent: a group with processes cannot pass controllers on.
        write(
            &parent.join("cgroup.subtree_control"),
            &format!("+{controller}"),
        )?;
    }
    let path = parent.join(name);
    match fs::create_dir(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(Error::Make { path, source }),
    }
    check_controllers(&path, limits)?;
    Ok(path)
}

/// The tree as cgroups-rs shall see it: nothing above the parent of our group.
#[derive(Debug)]
struct Below {
    parent: PathBuf,
}

impl Hierarchy for Below {
    fn subsystems(&self) -> Vec<Subsystem> {
        let at = || (self.parent.clone(), self.parent.clone());
        let (path, base) = at();
        // The freezer needs no controller and is always there; cgroups-rs moves tasks through the first.
        let freezer = Subsystem::Freezer(FreezerController::new(path, base, true));
        let (path, base) = at();
        let cpu = Subsystem::Cpu(CpuController::new(path, base, true));
        let (path, base) = at();
        let memory = Subsystem::Mem(MemController::new(path, base, true));
        let (path, base) = at();
        let pids = Subsystem::Pid(PidController::new(path, base, true));
        let (path, base) = at();
        let cpuset = Subsystem::CpuSet(CpuSetController::new(path, base, true));
        vec![freezer, cpu, memory, pids, cpuset]
    }

    fn root(&self) -> PathBuf {
        self.parent.clone()
    }

    fn root_control_group(&self) -> Cgroup {
        self.parent_control_group("")
    }

    fn parent_control_group(&self, _path: &str) -> Cgroup {
        let parent = self.parent.clone();
        Cgroup::load(Box::new(Below { parent }), "")
    }

    fn v2(&self) -> bool {
        true
    }
}

/// An error of cgroups-rs with its causes: its own text leaves them out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Chain(String);

impl Chain {
    pub(super) fn of(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Chain(text)
    }
}

fn most(value: u64) -> MaxValue {
    i64::try_from(value).map_or(MaxValue::Max, MaxValue::Value)
}

/// Microseconds a period for microseconds a second.
fn quota(usec_per_sec: u64) -> i64 {
    let quota = usec_per_sec.saturating_mul(CPU_PERIOD) / 1_000_000;
    i64::try_from(quota.max(CPU_QUOTA_LEAST)).unwrap_or(i64::MAX)
}

/// The whole disk a path stands for, as systemd finds it: the device itself, or the one its file system is on.
fn block_device(path: &Path) -> Result<(u32, u32), io::Error> {
    fs::metadata(path)?;
    let device = match Disk::under(path) {
        Disk::Device(device) => device,
        Disk::Unknown => {
            return Err(io::Error::other(format!(
                "the disks of the file system at {} are not known; name one of them",
                path.display()
            )));
        }
        Disk::Absent => return Err(io::Error::other(super::limits::no_device(path))),
    };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let sys = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if !sys.join("partition").exists() {
        return Ok((major, minor));
    }
    // Limits are a disk's; a partition's directory lies in that of its disk.
    let disk = fs::read_to_string(sys.join("../dev"))?;
    disk.trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| io::Error::other(format!("{disk:?} is no device number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{
        freeze, is_frozen, is_populated, kill, mount_point, of_process, processes, remove, thaw,
        usage, wait_empty,
    };
    use std::time::Duration;

    #[test]
    fn cpus_are_written_as_ranges() {
        assert_eq!(Limit::cpu_list([]), "");
        assert_eq!(Limit::cpu_list([3]), "3");
        assert_eq!(Limit::cpu_list([0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(Limit::cpu_list([u32::MAX]), "4294967295");
    }

    #[test]
    fn a_quota_is_a_share_of_the_period() {
        assert_eq!(quota(1_500_000), 150_000);
        assert_eq!(quota(1), 1_000);
        assert_eq!(quota(u64::MAX), (u64::MAX / 1_000_000) as i64);
    }

    #[test]
    fn a_path_without_a_block_device_is_refused_with_words() {
        let error = block_device(Path::new("/proc")).expect_err("proc has no device");
        assert!(error.to_string().contains("/proc"), "{error}");
    }

    /// Needs root and a cgroup2 tree, as everything here does.
    #[test]
    fn a_group_holds_freezes_counts_and_ends_its_processes() {
        let name = format!("boxd-test-{}", std::process::id());
        let group = Plain::create(&name, &[]).expect("a group of our own");
        let mut sleeper = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("sleep starts");
        let pid = sleeper.id() as i32;
        let second = Duration::from_secs(1);

        group.add(pid).expect("the process moves in");
        let path = group.path().to_owned();
        assert_eq!(of_process(pid).expect("its cgroup"), path);
        assert_eq!(processes(&path).expect("its pids"), [pid]);
        assert!(is_populated(&path).expect("its state"));
        assert!(usage(&path).expect("its use").cpu_usec.is_some());

        freeze(&path, second).expect("it freezes");
        assert!(is_frozen(&path).expect("its state"));
        thaw(&path, second).expect("it thaws");
        let busy = wait_empty(&path, Duration::from_millis(30));
        assert!(matches!(busy, Err(Error::Timeout { .. })), "{busy:?}");

        remove(group.path(), second).expect("it goes");
        sleeper.wait().expect("the process was killed");
        assert!(!path.exists());
        remove(&path, second).expect("a second time is no error");
        wait_empty(&path, second).expect("a group that is gone is empty");
        kill(&path).expect("and has nothing to kill");
    }

    #[test]
    fn a_limit_without_its_controller_is_an_error_that_names_it() {
        let name = format!("boxd-test-limit-{}", std::process::id());
        let top = mount_point().expect("a cgroup2 tree");
        let controllers = fs::read_to_string(top.join("cgroup.controllers")).expect("readable");
        let made = Plain::create(&name, &[Limit::TasksMax(7)]);
        if controllers.split_whitespace().any(|word| word == "pids") {
            let group = made.expect("the limit can be set");
            let text = fs::read_to_string(group.path().join("pids.max")).expect("readable");
            assert_eq!(text.trim(), "7");
            remove(group.path(), Duration::from_secs(1)).expect("it goes");
        } else {
            let error = made.expect_err("no pids controller").to_string();
            assert!(
                error.contains("\"pids\"") && error.contains("TasksMax"),
                "{error}"
            );
            assert!(!top.join(&name).exists());
        }
    }
}
