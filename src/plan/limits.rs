//! `[resources]` as properties of the scope. A limit that cannot be held is a problem, never dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Limit;
use super::problem::{Findings, Reason};
use crate::definition::{Definition, Profile};
use crate::host::{Disk, Host, Kind};

/// Tasks a box may have when its definition says nothing, by profile: what podman and systemd-nspawn@.service
/// allow, to the power of two.
const TASKS_APP: u64 = 4096;
const TASKS_SYSTEM: u64 = 16384;

/// Microseconds in a second: one core's worth of `CPUQuotaPerSecUSec`.
const CORE: f64 = 1_000_000.0;

pub(super) fn of(definition: &Definition, host: &Host, findings: &mut Findings) -> Vec<Limit> {
    let resources = &definition.resources;
    let mut asked: Vec<(String, Limit)> = Vec::new();
    let mut ask = |key: &str, limit: Option<Limit>| {
        asked.extend(limit.map(|limit| (format!("resources.{key}"), limit)));
    };
    ask("memory", resources.memory.map(Limit::MemoryMax));
    ask("memory-high", resources.memory_high.map(Limit::MemoryHigh));
    ask(
        "memory-swap",
        resources.memory_swap.map(Limit::MemorySwapMax),
    );
    ask("cpu", resources.cpu.map(cpu_quota));
    ask("cpu-weight", resources.cpu_weight.map(Limit::CpuWeight));
    ask("cpus", resources.cpus.clone().map(Limit::AllowedCpus));
    ask("tasks", resources.tasks.map(Limit::TasksMax));
    ask("io-weight", resources.io_weight.map(Limit::IoWeight));
    type PerDevice = fn(PathBuf, u64) -> Limit;
    let io: [(&str, &BTreeMap<PathBuf, u64>, PerDevice); 4] = [
        ("io-read", &resources.io_read, Limit::IoReadBandwidthMax),
        ("io-write", &resources.io_write, Limit::IoWriteBandwidthMax),
        (
            "io-read-operations",
            &resources.io_read_operations,
            Limit::IoReadIopsMax,
        ),
        (
            "io-write-operations",
            &resources.io_write_operations,
            Limit::IoWriteIopsMax,
        ),
    ];
    for (key, devices, limit) in io {
        for (path, value) in devices {
            let limit = limit(path.clone(), *value);
            check_device(key, path, &limit, host, findings);
            ask(key, Some(limit));
        }
    }

    for cpu in resources.cpus.iter().flatten() {
        if !host.cpus.contains(cpu) {
            findings.refuse(
                "resources.cpus",
                Reason::NoCpu {
                    cpu: *cpu,
                    online: Limit::cpu_list(host.cpus.iter().copied()),
                },
            );
        }
    }
    for (key, limit) in &asked {
        if !host.has_controller(limit.controller()) {
            findings.refuse(
                key,
                Reason::NoController {
                    limit: limit.property(),
                    controller: limit.controller(),
                    offered: offered(host),
                },
            );
        }
    }

    let mut limits: Vec<Limit> = asked.into_iter().map(|(_, limit)| limit).collect();
    if resources.tasks.is_none() {
        let tasks = match definition.profile {
            Profile::App => TASKS_APP,
            Profile::System => TASKS_SYSTEM,
        };
        if host.has_controller("pids") {
            limits.push(Limit::TasksMax(tasks));
        } else {
            findings.remark(format!(
                "tasks are not limited to {tasks} as they usually are: this host has no cgroup2 controller \"pids\""
            ));
        }
    }
    limits
}

fn cpu_quota(cores: f64) -> Limit {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a definition holds a positive number of cores, and `as` saturates"
    )]
    Limit::CpuQuotaPerSec((cores * CORE).round() as u64)
}

fn check_device(key: &str, path: &Path, limit: &Limit, host: &Host, findings: &mut Findings) {
    let facts = host.path(path);
    let reason = match facts.kind {
        Kind::Missing => Reason::Missing {
            path: path.to_owned(),
        },
        Kind::Unreadable(why) => Reason::Unreadable {
            path: path.to_owned(),
            why,
        },
        _ if facts.disk == Disk::Absent => Reason::NoDisk {
            limit: limit.property(),
            path: path.to_owned(),
        },
        _ => return,
    };
    findings.refuse(format!("resources.{key}"), reason);
}

fn offered(host: &Host) -> String {
    match &host.cgroup {
        None => "no cgroup2 tree is mounted".to_owned(),
        Some(tree) if tree.controllers.is_empty() => {
            format!("{} has none", tree.mount.display())
        }
        Some(tree) => {
            let names: Vec<&str> = tree.controllers.iter().map(String::as_str).collect();
            format!("{} has {}", tree.mount.display(), names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::example;

    fn limits(definition: &Definition, host: &Host) -> (Vec<Limit>, Vec<String>) {
        let mut findings = Findings::new(definition.name.clone());
        let limits = of(definition, host, &mut findings);
        let problems = findings.problems.iter().map(ToString::to_string).collect();
        (limits, problems)
    }

    #[test]
    fn cores_become_microseconds_of_each_second() {
        assert_eq!(cpu_quota(1.5), Limit::CpuQuotaPerSec(1_500_000));
        assert_eq!(cpu_quota(0.1), Limit::CpuQuotaPerSec(100_000));
    }

    #[test]
    fn a_missing_controller_is_named_with_the_key_and_the_limit() {
        let mut definition = example();
        definition.resources.memory = Some(1 << 29);
        definition.resources.io_read = [("/dev/vda".into(), 1 << 20)].into();
        let mut host = Host::fixed(&definition);
        host.cgroup.as_mut().expect("a tree").controllers = ["hugetlb".to_owned()].into();
        let (_, problems) = limits(&definition, &host);
        assert_eq!(
            problems,
            [
                "box web: resources.memory: MemoryMax= needs the cgroup2 controller \"memory\", which this host \
                 does not offer (/sys/fs/cgroup has hugetlb); enable it in the kernel, or take the limit out",
                "box web: resources.io-read: IOReadBandwidthMax= needs the cgroup2 controller \"io\", which this \
                 host does not offer (/sys/fs/cgroup has hugetlb); enable it in the kernel, or take the limit out",
            ]
        );
    }

    #[test]
    fn the_default_for_tasks_is_no_reason_to_refuse_a_box() {
        let definition = example();
        let mut host = Host::fixed(&definition);
        assert_eq!(limits(&definition, &host).0, [Limit::TasksMax(4096)]);
        host.cgroup = None;
        assert_eq!(limits(&definition, &host), (Vec::new(), Vec::new()));
    }

    #[test]
    fn cpus_and_devices_must_be_there() {
        let mut definition = example();
        definition.resources.cpus = Some(vec![0, 9]);
        definition.resources.io_write = [("/dev/missing".into(), 1)].into();
        let (_, problems) = limits(&definition, &Host::fixed(&definition));
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(problems[0].contains("/dev/missing does not exist"));
        assert!(problems[1].contains("CPU 9 is not online on this host; it has 0-7"));
    }

    /// Of a path whose disk only systemd may find, the start tells.
    #[test]
    fn a_limit_of_what_lies_on_no_disk_is_refused() {
        let mut definition = example();
        definition.resources.io_read = [("/srv".into(), 1), ("/srv/overlay".into(), 1)].into();
        let (_, problems) = limits(&definition, &Host::fixed(&definition));
        assert_eq!(
            problems,
            [
                "box web: resources.io-read: IOReadBandwidthMax= limits a disk, and /srv/overlay lies on no block \
                 device; name a disk or a path on one, or take the limit out",
            ]
        );
    }

    #[test]
    fn numbers_are_written_as_ranges() {
        assert_eq!(Limit::cpu_list([0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(Limit::cpu_list([]), "");
    }
}
