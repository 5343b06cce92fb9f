//! The limits a cgroup has, read back from the kernel.
//!
//! systemd passes in silence over a limit that it cannot put in force: one of a device where there is none, and one
//! whose file this kernel was built or booted without. So whoever has asked for limits looks: [`check`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, check_controllers, property};
use crate::host::Disk;
use crate::plan::Limit;

/// What `cpu.weight` and `io.weight` are where nobody has set them.
const WEIGHT: u64 = 100;

/// The limits somebody has put on this cgroup: those that are not as the kernel makes every one. What cannot be
/// read, since its controller is not there, limits nothing. Devices are named as udev(7) names them, where it does.
pub fn set_on(cgroup: &Path) -> Vec<Limit> {
    let mut limits = parse(|file| fs::read_to_string(cgroup.join(file)).ok());
    for limit in &mut limits {
        if let Some(path) = limit.device_mut()
            && let Ok(named) = fs::canonicalize(&*path)
        {
            *path = named;
        }
    }
    limits
}

/// An error for the first of these limits that cannot hold for the cgroup. Another value than the one asked for is none:
/// an operator may have set that on the scope, or the kernel has rounded it.
///
/// # Errors
///
/// [`Error::Controller`] and [`Error::Limit`], for that limit.
pub fn check(cgroup: &Path, limits: &[Limit]) -> Result<(), Error> {
    check_controllers(cgroup, limits)?;
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    for limit in limits {
        if let Some(why) = unheld(limit, &read) {
            return Err(Error::Limit {
                limit: property(limit),
                path: cgroup.to_owned(),
                source: why.into(),
            });
        }
    }
    Ok(())
}

/// Why the limit cannot hold, if it cannot. The kernel takes every value that a definition may have, so where there is a
/// file for it, it was set.
fn unheld(limit: &Limit, read: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let file = match limit {
        Limit::TasksMax(_) => return None,
        Limit::MemoryMax(_) => "memory.max",
        Limit::MemoryHigh(_) => "memory.high",
        // A kernel that cannot swap at all swaps no more than that.
        Limit::MemorySwapMax(_) if read("/proc/swaps").is_none() => return None,
        Limit::MemorySwapMax(_) => "memory.swap.max",
        Limit::CpuQuotaPerSec(_) => "cpu.max",
        Limit::CpuWeight(_) => "cpu.weight",
        Limit::AllowedCpus(_) => "cpuset.cpus",
        // Where the kernel has no other, systemd sets the weight of the BFQ scheduler.
        Limit::IoWeight(_) if read("io.bfq.weight").is_some() => return None,
        Limit::IoWeight(_) => "io.weight",
        Limit::IoReadBandwidthMax(path, rate) | Limit::IoWriteBandwidthMax(path, rate) => {
            return unheld_io(path, *rate == u64::MAX, read);
        }
        // Operations are counted in 32 bits: more than that is no limit, nor shown as one.
        Limit::IoReadIopsMax(path, rate) | Limit::IoWriteIopsMax(path, rate) => {
            return unheld_io(path, *rate >= u64::from(u32::MAX), read);
        }
    };
    match read(file) {
        Some(_) => None,
        None => Some(absent(file)),
    }
}

fn absent(file: &str) -> String {
    format!("{file} is not there: this kernel does not offer it")
}

/// A disk that has any limit counts: of several for one disk, an operator's among them, systemd sets the last.
fn unheld_io(
    path: &Path,
    is_endless: bool,
    read: &impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let disks = match Disk::under(path) {
        Disk::Device(device) => disks(device),
        Disk::Unknown => BTreeSet::new(),
        Disk::Absent => return Some(no_device(path)),
    };
    let Some(text) = read("io.max") else {
        return Some(absent("io.max"));
    };
    if is_endless || has_line(&text, &disks) {
        return None;
    }
    Some(format!(
        "io.max has no line for the disk of {}",
        path.display()
    ))
}

/// Whether `io.max` has a line of one of these disks, or of any if they are not known.
fn has_line(text: &str, disks: &BTreeSet<String>) -> bool {
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .any(|disk| disks.is_empty() || disks.contains(disk))
}

/// Numbers of the device, of the disk it is part of, and of what it is made of: which of these is limited is systemd's
/// choice. None if the kernel does not tell.
fn disks(device: rustix::fs::Dev) -> BTreeSet<String> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mut left = vec![format!("{major}:{minor}")];
    let mut found = BTreeSet::new();
    while let Some(number) = left.pop() {
        let sys = Path::new("/sys/dev/block").join(&number);
        if !sys.exists() {
            return BTreeSet::new();
        }
        if !found.insert(number) {
            continue;
        }
        let number = |of: PathBuf| Some(fs::read_to_string(of.join("dev")).ok()?.trim().to_owned());
        if sys.join("partition").exists() {
            left.extend(number(sys.join("..")));
        }
        let slaves = fs::read_dir(sys.join("slaves")).into_iter().flatten();
        left.extend(slaves.flatten().filter_map(|slave| number(slave.path())));
    }
    found
}

/// What is wrong with a limit of this path.
pub(super) fn no_device(path: &Path) -> String {
    format!("{} lies on no block device", path.display())
}

/// `50`, or `default 50` and lines for devices.
fn weight(text: &str) -> Option<u64> {
    let first = text.lines().next()?.trim_start_matches("default ");
    first.trim().parse().ok()
}

fn parse(read: impl Fn(&str) -> Option<String>) -> Vec<Limit> {
    // "max", no limit, is no number.
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let weight = |file: &str| weight(&read(file)?).filter(|set| *set != WEIGHT);
    let limits = [
        number("memory.max").map(Limit::MemoryMax),
        number("memory.high").map(Limit::MemoryHigh),
        number("memory.swap.max").map(Limit::MemorySwapMax),
        read("cpu.max").and_then(|text| quota(&text)),
        weight("cpu.weight").map(Limit::CpuWeight),
        read("cpuset.cpus").and_then(|text| cpus(text.trim())),
        number("pids.max").map(Limit::TasksMax),
        weight("io.weight").map(Limit::IoWeight),
    ];
    let io = read("io.max").unwrap_or_default();
    limits
        .into_iter()
        .flatten()
        .chain(io.lines().flat_map(of_device))
        .collect()
}

/// `50000 100000`: microseconds in each period.
fn quota(text: &str) -> Option<Limit> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    let per_second = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(per_second).ok().map(Limit::CpuQuotaPerSec)
}

/// `0-3,8`.
fn cpus(text: &str) -> Option<Limit> {
    let mut cpus = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    (!cpus.is_empty()).then_some(Limit::AllowedCpus(cpus))
}

/// `8:0 rbps=10000000 wbps=max riops=max wiops=100`.
fn of_device(line: &str) -> Vec<Limit> {
    let mut words = line.split_whitespace();
    let Some(device) = words.next() else {
        return Vec::new();
    };
    let path = Path::new("/dev/block").join(device);
    words
        .filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            let limit: fn(PathBuf, u64) -> Limit = match key {
                "rbps" => Limit::IoReadBandwidthMax,
                "wbps" => Limit::IoWriteBandwidthMax,
                "riops" => Limit::IoReadIopsMax,
                "wiops" => Limit::IoWriteIopsMax,
                _ => return None,
            };
            Some(limit(path.clone(), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Vec<Limit> {
        parse(|file| {
            let found = files.iter().find(|(name, _)| *name == file);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn what_nobody_has_set_is_no_limit() {
        assert_eq!(of(&[]), []);
        let untouched = [
            ("memory.max", "max\n"),
            ("memory.high", "max\n"),
            ("memory.swap.max", "max\n"),
            ("cpu.max", "max 100000\n"),
            ("cpu.weight", "100\n"),
            ("cpuset.cpus", "\n"),
            ("pids.max", "max\n"),
            ("io.weight", "default 100\n"),
            ("io.max", ""),
        ];
        assert_eq!(of(&untouched), []);
    }

    #[test]
    fn every_limit_is_read_as_it_was_set() {
        let limits = of(&[
            ("memory.max", "67108864\n"),
            ("memory.high", "1048576\n"),
            ("memory.swap.max", "0\n"),
            ("cpu.max", "150000 100000\n"),
            ("cpu.weight", "50\n"),
            ("cpuset.cpus", "0-1,3\n"),
            ("pids.max", "20\n"),
            ("io.weight", "default 50\n8:0 70\n"),
            ("io.max", "8:0 rbps=10000000 wbps=max riops=max wiops=100\n"),
        ]);
        let device = || PathBuf::from("/dev/block/8:0");
        assert_eq!(
            limits,
            [
                Limit::MemoryMax(67_108_864),
                Limit::MemoryHigh(1_048_576),
                Limit::MemorySwapMax(0),
                Limit::CpuQuotaPerSec(1_500_000),
                Limit::CpuWeight(50),
                Limit::AllowedCpus(vec![0, 1, 3]),
                Limit::TasksMax(20),
                Limit::IoWeight(50),
                Limit::IoReadBandwidthMax(device(), 10_000_000),
                Limit::IoWriteIopsMax(device(), 100),
            ]
        );
    }

    /// What the kernel or systemd passed over in silence is found, and named. A value that is there is somebody's word.
    #[test]
    fn a_limit_that_cannot_hold_is_named() {
        let why = |limit: &Limit, files: &[(&str, &str)]| {
            unheld(limit, &|file| {
                let found = files.iter().find(|(name, _)| *name == file);
                found.map(|(_, text)| (*text).to_owned())
            })
        };
        for (limit, file, text) in [
            (Limit::MemoryMax(5000), "memory.max", "max\n"),
            (Limit::MemoryHigh(5000), "memory.high", "4096\n"),
            (Limit::MemorySwapMax(0), "memory.swap.max", "max\n"),
            (Limit::CpuQuotaPerSec(1), "cpu.max", "max 100000\n"),
            (Limit::CpuWeight(50), "cpu.weight", "100\n"),
            (Limit::AllowedCpus(vec![0]), "cpuset.cpus", "\n"),
            (Limit::IoWeight(50), "io.weight", "default 100\n"),
            (Limit::IoWeight(50), "io.bfq.weight", "1\n"),
        ] {
            let swaps = ("/proc/swaps", "Filename Type\n");
            assert_eq!(why(&limit, &[swaps, (file, text)]), None, "{limit:?}");
            let absent = why(&limit, &[swaps]).expect("there is no such file");
            assert!(absent.contains("is not there"), "{absent}");
        }
        assert_eq!(why(&Limit::TasksMax(5), &[]), None);
        // A kernel without swap has neither file.
        assert_eq!(why(&Limit::MemorySwapMax(0), &[]), None);

        let proc = why(&Limit::IoReadIopsMax("/proc".into(), 5), &[]);
        assert_eq!(proc.as_deref(), Some("/proc lies on no block device"));
    }

    /// Whose value it is does not matter: two paths on one disk, or an operator's limit for it, and systemd sets the last.
    #[test]
    fn a_disk_with_any_limit_counts() {
        // As one of a file system with devices of its own: nothing is known of its disk.
        let path = PathBuf::from("/proc/nothing");
        let limit = Limit::IoReadBandwidthMax(path.clone(), 10);
        let why = |limit: &Limit, text: &str| {
            unheld(limit, &|file| (file == "io.max").then(|| text.to_owned()))
        };
        assert_eq!(
            why(&limit, "8:0 rbps=max wbps=11 riops=max wiops=7\n"),
            None
        );
        let none = why(&limit, "").expect("no line");
        assert!(none.contains("no line for the disk of /proc/"), "{none}");
        assert_eq!(why(&Limit::IoWriteIopsMax(path, 1 << 40), ""), None);
        assert!(unheld(&limit, &|_| None).is_some_and(|why| why.contains("is not there")));

        let of = |disks: &[&str]| disks.iter().map(|disk| (*disk).to_owned()).collect();
        let text =
            "8:0 rbps=max wbps=11 riops=max wiops=7\n254:16 rbps=5 wbps=max riops=max wiops=max\n";
        assert!(has_line(text, &of(&["254:17", "254:16"])));
        assert!(has_line(text, &of(&["8:0"])));
        assert!(!has_line(text, &of(&["8:1", "54:16"])));
    }

    /// A partition stands for its disk, and a volume for what it is made of.
    #[test]
    fn every_device_of_this_machine_is_among_its_disks() {
        for entry in fs::read_dir("/sys/dev/block")
            .into_iter()
            .flatten()
            .flatten()
        {
            let number = entry.file_name().into_string().expect("digits");
            let (major, minor) = number.split_once(':').expect("two numbers");
            let number_of = |text: &str| text.parse().expect("a number");
            let device = rustix::fs::makedev(number_of(major), number_of(minor));
            let found = disks(device);
            assert!(found.contains(&number), "{number}: {found:?}");
            if entry.path().join("partition").exists() {
                assert!(found.len() > 1, "{number}: {found:?}");
            }
        }
    }

    #[test]
    fn a_cgroup_without_the_controller_is_named_with_the_limit() {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("cgroup.controllers"), "memory\n").expect("written");
        let error = |limit| {
            let error = check(folder.path(), &[limit]).expect_err("it does not hold");
            crate::cgroup::plain::Chain::of(&error).to_string()
        };
        assert!(error(Limit::CpuWeight(5)).contains("\"cpu\""));
        let memory = error(Limit::MemoryMax(5));
        assert!(memory.contains("MemoryMax"), "{memory}");
        assert!(memory.contains("memory.max is not there"), "{memory}");
        fs::write(folder.path().join("memory.max"), "max\n").expect("written");
        assert!(check(folder.path(), &[Limit::MemoryMax(5)]).is_ok());
    }
}
