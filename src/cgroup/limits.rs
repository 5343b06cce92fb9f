//! The limits a cgroup has, read back from the kernel.

use std::fs;
use std::path::{Path, PathBuf};

use crate::plan::Limit;

/// What `cpu.weight` and `io.weight` are where nobody has set them.
const WEIGHT: u64 = 100;

/// The limits somebody has put on this cgroup: those that are not as the kernel makes every one. What cannot be
/// read, since its controller is not there, limits nothing.
pub fn set_on(cgroup: &Path) -> Vec<Limit> {
    parse(|file| fs::read_to_string(cgroup.join(file)).ok())
}

fn parse(read: impl Fn(&str) -> Option<String>) -> Vec<Limit> {
    // "max", no limit, is no number.
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let weight = |file: &str| {
        let text = read(file)?;
        let first = text.lines().next()?.trim_start_matches("default ");
        first.trim().parse().ok().filter(|set| *set != WEIGHT)
    };
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
}
