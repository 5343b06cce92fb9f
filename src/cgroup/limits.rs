//! The limits a cgroup has, read back from the kernel.
//!
//! systemd passes in silence over a limit that it cannot put in force: one of a device where there is none, and one
//! whose file this kernel was built or booted without. So whoever has asked for limits looks: [`check`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, check_controllers, property};
use crate::plan::Limit;

/// What `cpu.weight` and `io.weight` are where nobody has set them.
const WEIGHT: u64 = 100;

/// `BTRFS_SUPER_MAGIC` of statfs(2).
const BTRFS: u64 = 0x9123_683e;

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

/// An error for the first of these limits that does not hold for the cgroup. Another value than the one asked for is
/// one: an operator has set it, or the kernel has rounded it.
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

/// Why the limit does not hold, if it does not.
fn unheld(limit: &Limit, read: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let (file, holds): (&str, &dyn Fn(&str) -> bool) = match limit {
        // The kernel takes every number that a definition may have.
        Limit::TasksMax(_) => return None,
        Limit::MemoryMax(bytes) => ("memory.max", &|text| is_number(text) || is_all(*bytes)),
        Limit::MemoryHigh(bytes) => ("memory.high", &|text| is_number(text) || is_all(*bytes)),
        Limit::MemorySwapMax(bytes) => {
            ("memory.swap.max", &|text| is_number(text) || is_all(*bytes))
        }
        Limit::CpuQuotaPerSec(_) => ("cpu.max", &|text| quota(text).is_some()),
        Limit::CpuWeight(asked) => ("cpu.weight", &|text| is_weighed(text, *asked)),
        Limit::AllowedCpus(_) => ("cpuset.cpus", &|text| cpus(text.trim()).is_some()),
        // Where the kernel has no other, systemd sets the weight of the BFQ scheduler, on a scale of its own.
        Limit::IoWeight(asked) if read("io.weight").is_none() => {
            ("io.bfq.weight", &|text| is_weighed(text, *asked))
        }
        Limit::IoWeight(asked) => ("io.weight", &|text| is_weighed(text, *asked)),
        Limit::IoReadBandwidthMax(path, rate) => return unheld_io(path, "rbps", *rate, read),
        Limit::IoWriteBandwidthMax(path, rate) => return unheld_io(path, "wbps", *rate, read),
        Limit::IoReadIopsMax(path, rate) => return unheld_io(path, "riops", *rate, read),
        Limit::IoWriteIopsMax(path, rate) => return unheld_io(path, "wiops", *rate, read),
    };
    match read(file) {
        None => Some(format!(
            "{file} is not there: this kernel does not offer it"
        )),
        Some(text) if !holds(&text) => Some(format!("{file} is still {:?}", text.trim())),
        Some(_) => None,
    }
}

/// The limit of a device is looked for by its value: which disk lies under a path, through encryption and volumes,
/// is systemd's to find out.
fn unheld_io(
    path: &Path,
    key: &str,
    rate: u64,
    read: &impl Fn(&str) -> Option<String>,
) -> Option<String> {
    if let Err(error) = lies_on_a_device(path) {
        return Some(error.to_string());
    }
    let Some(text) = read("io.max") else {
        return Some("io.max is not there: this kernel does not offer it".to_owned());
    };
    let set = format!("{key}={rate}");
    // Operations are counted in 32 bits: more than that is no limit, nor shown as one.
    let is_endless = rate == u64::MAX || key.ends_with("iops") && rate >= u64::from(u32::MAX);
    if is_endless || text.split_whitespace().any(|word| word == set) {
        return None;
    }
    Some(format!(
        "io.max has no {set} for {}; is there another limit for the same disk?",
        path.display()
    ))
}

/// An error with words where nothing under a path is a block device that systemd could find.
pub(super) fn lies_on_a_device(path: &Path) -> Result<(), io::Error> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    let metadata = fs::metadata(path)?;
    let on_one = metadata.file_type().is_block_device()
        || rustix::fs::major(metadata.dev()) != 0
        || rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == BTRFS);
    if on_one {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} lies on no block device",
        path.display()
    )))
}

fn is_number(text: &str) -> bool {
    text.trim().parse::<u64>().is_ok()
}

/// Whether so many bytes are all there can be: the kernel has them as pages in a `long`, and shows "max".
fn is_all(bytes: u64) -> bool {
    bytes >= i64::MAX as u64 - 0xffff
}

/// Whether a weight was set, as far as one can see: what every cgroup begins with may be what was asked for.
fn is_weighed(text: &str, asked: u64) -> bool {
    weight(text).is_some_and(|set| asked == WEIGHT || set != WEIGHT)
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

    /// What the kernel or systemd passed over in silence is found, and named.
    #[test]
    fn a_limit_that_does_not_hold_is_named() {
        let why = |limit: &Limit, files: &[(&str, &str)]| {
            unheld(limit, &|file| {
                let found = files.iter().find(|(name, _)| *name == file);
                found.map(|(_, text)| (*text).to_owned())
            })
        };
        let disk = PathBuf::from("/");
        for (limit, held, unheld) in [
            (Limit::MemoryMax(5000), ("memory.max", "4096\n"), "max\n"),
            (Limit::MemoryHigh(5000), ("memory.high", "4096\n"), "max\n"),
            (Limit::MemorySwapMax(0), ("memory.swap.max", "0\n"), "max\n"),
            (
                Limit::CpuQuotaPerSec(500_000),
                ("cpu.max", "50000 100000\n"),
                "max 100000\n",
            ),
            (Limit::CpuWeight(50), ("cpu.weight", "50\n"), "100\n"),
            (Limit::AllowedCpus(vec![0]), ("cpuset.cpus", "0\n"), "\n"),
            (
                Limit::IoWeight(50),
                ("io.weight", "default 50\n"),
                "default 100\n",
            ),
            (
                Limit::IoWeight(50),
                ("io.bfq.weight", "default 50\n"),
                "default 100\n",
            ),
        ] {
            let (file, text) = held;
            assert_eq!(why(&limit, &[(file, text)]), None, "{limit:?}");
            let still = why(&limit, &[(file, unheld)]).expect("it does not hold");
            assert!(still.starts_with(file), "{still}");
            let absent = why(&limit, &[]).expect("there is no such file");
            assert!(absent.contains("is not there"), "{absent}");
        }
        // What every cgroup has anyway can be asked for, if there is a file for it at all.
        assert_eq!(
            why(&Limit::CpuWeight(100), &[("cpu.weight", "100\n")]),
            None
        );
        assert!(why(&Limit::CpuWeight(100), &[]).is_some());
        assert_eq!(
            why(&Limit::MemoryMax(u64::MAX), &[("memory.max", "max\n")]),
            None
        );
        assert_eq!(why(&Limit::TasksMax(5), &[]), None);

        let proc = why(&Limit::IoReadIopsMax("/proc".into(), 5), &[]);
        assert_eq!(proc.as_deref(), Some("/proc lies on no block device"));
        // A machine that tests this on an overlay has no disk under its root.
        if lies_on_a_device(&disk).is_ok() {
            let io = [("io.max", "8:0 rbps=10 wbps=max riops=max wiops=7\n")];
            assert_eq!(why(&Limit::IoReadBandwidthMax(disk.clone(), 10), &io), None);
            assert_eq!(why(&Limit::IoWriteIopsMax(disk.clone(), 7), &io), None);
            assert_eq!(
                why(&Limit::IoWriteIopsMax(disk.clone(), 1 << 40), &io),
                None
            );
            let other = why(&Limit::IoReadBandwidthMax(disk, 11), &io).expect("not that rate");
            assert!(other.contains("rbps=11 for /"), "{other}");
        }
    }

    #[test]
    fn a_cgroup_without_the_controller_is_named_with_the_limit() {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("cgroup.controllers"), "memory\n").expect("written");
        fs::write(folder.path().join("memory.max"), "max\n").expect("written");
        let error = |limit| {
            let error = check(folder.path(), &[limit]).expect_err("it does not hold");
            crate::cgroup::plain::Chain::of(&error).to_string()
        };
        assert!(error(Limit::CpuWeight(5)).contains("\"cpu\""));
        let memory = error(Limit::MemoryMax(5));
        assert!(memory.contains("MemoryMax"), "{memory}");
        assert!(memory.contains("memory.max is still \"max\""), "{memory}");
    }
}
