//! The transient scope of a box as typed properties; systemd.scope(5), systemd.resource-control(5).

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use zbus::wire::{Fd, Variant};

use super::Manager;
use crate::cgroup;
use crate::plan::{Limit, Scope, Stop};

/// Devices a box may open, with what it may do: those that its `/dev` shows, and its own terminals.
const DEVICES: [(&str, &str); 8] = [
    ("/dev/null", "rwm"),
    ("/dev/zero", "rwm"),
    ("/dev/full", "rwm"),
    ("/dev/random", "rwm"),
    ("/dev/urandom", "rwm"),
    ("/dev/tty", "rwm"),
    ("/dev/ptmx", "rwm"),
    ("char-pts", "rw"),
];

/// Why a scope did not go.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// Its processes or its cgroup.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// systemd's knowledge of it.
    #[error(transparent)]
    Systemd(#[from] super::Error),
}

/// How long systemd mostly needs at most to let go of a scope that is empty.
pub const UNASKED: Duration = Duration::from_millis(200);

/// The same where nothing else happens to the scope, and somebody waits. The kernel tells of a cgroup that is empty no
/// sooner than 10 ms after it has told of its first process.
pub const UNASKED_SHORT: Duration = Duration::from_millis(1);

/// Kills all processes of a scope, and returns when neither they nor the scope are there. One that is gone
/// already is no error. systemd is asked to let go of it when it has not done so by itself after `unasked`: within the
/// stop of the service, whose job the scope's would wait for, no sooner than must be.
///
/// # Errors
///
/// A process does not die within the time, or systemd cannot be reached and holds on to an empty scope.
pub fn end(
    unit: &str,
    cgroup: &Path,
    timeout: Duration,
    unasked: Duration,
) -> Result<(), EndError> {
    if cgroup::end(cgroup, timeout, unasked)? {
        return Ok(());
    }
    Manager::connect()?.forget_scope(unit)?;
    Ok(cgroup::remove_empty(cgroup)?)
}

/// What a scope is made of and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The unit and its limits.
    pub scope: &'a Scope,
    /// How it ends when no supervisor is there to end it: at the host's shutdown after its service has stopped.
    pub stop: &'a Stop,
    /// The process the scope begins with.
    pub process: Process<'a>,
}

/// A process by both of its names.
#[derive(Debug, Clone, Copy)]
pub struct Process<'a> {
    /// Number in the pid namespace of systemd.
    pub pid: i32,
    /// What cannot come to mean another process.
    pub pidfd: BorrowedFd<'a>,
}

/// How much the manager knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `PIDFDs` and `OOMPolicy` of scopes: systemd 254 and later.
    Current,
    /// systemd 252: processes by number.
    Old,
}

/// The properties for `StartTransientUnit`.
pub(super) fn properties<'a>(
    request: &Request<'a>,
    dialect: Dialect,
) -> Vec<(&'static str, Variant<'a>)> {
    let Request {
        scope,
        stop,
        process,
    } = *request;
    let mut properties: Vec<(&'static str, Variant<'a>)> = vec![
        ("Description", Variant::from(scope.description.as_str())),
        ("Slice", Variant::from(scope.slice.as_str())),
        // The payload's tree of groups below the scope is its own; systemd leaves it alone.
        ("Delegate", Variant::from(true)),
        // Also a scope that failed leaves nothing behind.
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("KillSignal", Variant::from(stop.signal)),
        ("SendSIGKILL", Variant::from(true)),
        (
            "TimeoutStopUSec",
            Variant::from(u64::try_from(stop.timeout.as_micros()).unwrap_or(u64::MAX)),
        ),
        ("DevicePolicy", Variant::from("closed")),
        ("DeviceAllow", Variant::from(devices(scope))),
    ];
    match dialect {
        Dialect::Current => {
            properties.push(("PIDFDs", Variant::from(vec![Fd::from(process.pidfd)])));
            // One process killed for want of memory is the box's affair, not the end of the box.
            properties.push(("OOMPolicy", Variant::from("continue")));
        }
        Dialect::Old => {
            properties.push(("PIDs", Variant::from(vec![process.pid.unsigned_abs()])));
        }
    }
    if let Some(service) = &scope.before {
        // What starts first stops last: at shutdown the service, with its supervisor, stops before the scope.
        properties.push(("Before", Variant::from(vec![service.as_str()])));
        // Stopped with its service, even while that waits for its next supervisor and would run nothing any more.
        // A restart does not reach it, as systemd starts no scope twice: so a recovery leaves it alone.
        properties.push(("PartOf", Variant::from(vec![service.as_str()])));
    }
    properties.extend(scope.limits.iter().map(limit));
    properties
}

/// The properties for `SetUnitProperties` that make a scope of these limits one of those.
pub(super) fn changes<'a>(
    description: &'a str,
    before: &'a [Limit],
    now: &'a [Limit],
) -> Vec<(&'static str, Variant<'a>)> {
    let mut properties = vec![("Description", Variant::from(description))];
    let differ = |these: &[Limit], those: &[Limit], property| {
        these
            .iter()
            .any(|limit| limit.property() == property && !those.contains(limit))
    };
    let mut reset = Vec::new();
    for limit in before {
        let property = limit.property();
        if reset.contains(&property) || now.iter().any(|now| now.replaces(limit)) {
            continue;
        }
        reset.push(property);
        properties.push(none(limit));
    }
    // Where the limit of one device was taken away, those of the others went with it.
    properties.extend(
        now.iter()
            .filter(|limit| {
                reset.contains(&limit.property()) || differ(now, before, limit.property())
            })
            .map(limit),
    );
    properties
}

/// The limit as one that does not limit; for a limit of devices, of none of them.
fn none(limit: &Limit) -> (&'static str, Variant<'static>) {
    let property = match limit {
        Limit::CpuQuotaPerSec(_) => "CPUQuotaPerSecUSec",
        limit => limit.property().trim_end_matches('='),
    };
    let value = match limit {
        Limit::MemoryMax(_)
        | Limit::MemoryHigh(_)
        | Limit::MemorySwapMax(_)
        | Limit::CpuQuotaPerSec(_)
        | Limit::CpuWeight(_)
        | Limit::TasksMax(_)
        | Limit::IoWeight(_) => Variant::from(u64::MAX),
        Limit::AllowedCpus(_) => Variant::from(Vec::<u8>::new()),
        Limit::IoReadBandwidthMax(..)
        | Limit::IoWriteBandwidthMax(..)
        | Limit::IoReadIopsMax(..)
        | Limit::IoWriteIopsMax(..) => Variant::from(Vec::<(String, u64)>::new()),
    };
    (property, value)
}

/// What every box may open, and what this one may besides.
fn devices(scope: &Scope) -> Vec<(String, String)> {
    let own = scope
        .devices
        .iter()
        .map(|rule| (rule.property(), rule.access.to_string()));
    DEVICES
        .into_iter()
        .map(|(node, access)| (node.to_owned(), access.to_owned()))
        .chain(own)
        .collect()
}

fn limit(limit: &Limit) -> (&'static str, Variant<'_>) {
    match limit {
        Limit::MemoryMax(bytes) => ("MemoryMax", Variant::from(*bytes)),
        Limit::MemoryHigh(bytes) => ("MemoryHigh", Variant::from(*bytes)),
        Limit::MemorySwapMax(bytes) => ("MemorySwapMax", Variant::from(*bytes)),
        Limit::CpuQuotaPerSec(usec) => ("CPUQuotaPerSecUSec", Variant::from(*usec)),
        Limit::CpuWeight(weight) => ("CPUWeight", Variant::from(*weight)),
        Limit::AllowedCpus(cpus) => ("AllowedCPUs", Variant::from(cpu_mask(cpus))),
        Limit::TasksMax(tasks) => ("TasksMax", Variant::from(*tasks)),
        Limit::IoWeight(weight) => ("IOWeight", Variant::from(*weight)),
        Limit::IoReadBandwidthMax(path, rate) => ("IOReadBandwidthMax", device_rate(path, *rate)),
        Limit::IoWriteBandwidthMax(path, rate) => ("IOWriteBandwidthMax", device_rate(path, *rate)),
        Limit::IoReadIopsMax(path, rate) => ("IOReadIOPSMax", device_rate(path, *rate)),
        Limit::IoWriteIopsMax(path, rate) => ("IOWriteIOPSMax", device_rate(path, *rate)),
    }
}

/// `a(st)` with one entry; several such properties add up.
fn device_rate(path: &Path, rate: u64) -> Variant<'static> {
    Variant::from(vec![(path.to_string_lossy().into_owned(), rate)])
}

/// `ay`: bit N of byte N/8 stands for CPU N.
fn cpu_mask(cpus: &[u32]) -> Vec<u8> {
    let mut mask = Vec::new();
    for cpu in cpus {
        let byte = *cpu as usize / 8;
        if mask.len() <= byte {
            mask.resize(byte + 1, 0);
        }
        mask[byte] |= 1 << (cpu % 8);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn cpus_become_a_mask() {
        assert_eq!(cpu_mask(&[]), [] as [u8; 0]);
        assert_eq!(cpu_mask(&[0, 3]), [0b1001]);
        assert_eq!(cpu_mask(&[1, 8, 17]), [2, 1, 2]);
    }

    #[test]
    fn a_change_of_limits_sets_what_differs_and_resets_what_is_gone() {
        let io = |device: &str, rate| Limit::IoReadBandwidthMax(device.into(), rate);
        let before = [
            Limit::MemoryMax(1),
            Limit::TasksMax(5),
            Limit::AllowedCpus(vec![0]),
            io("/dev/sda", 1),
            io("/dev/sdb", 2),
        ];
        let now = [
            Limit::MemoryMax(2),
            Limit::TasksMax(5),
            Limit::CpuQuotaPerSec(7),
            io("/dev/sdb", 2),
        ];
        let said: Vec<(&str, String)> = changes("Shop", &before, &now)
            .iter()
            .map(|(name, value)| (*name, value.value_signature().to_string()))
            .collect();
        let expected = [
            ("Description", "s"),
            ("AllowedCPUs", "ay"),
            ("IOReadBandwidthMax", "a(st)"),
            ("MemoryMax", "t"),
            ("CPUQuotaPerSecUSec", "t"),
            ("IOReadBandwidthMax", "a(st)"),
        ]
        .map(|(name, signature)| (name, signature.to_owned()));
        assert_eq!(said, expected);
        assert_eq!(changes("Shop", &now, &now).len(), 1);
    }

    #[test]
    fn every_property_has_the_signature_systemd_expects() {
        let scope = Scope {
            unit: "box-web.scope".into(),
            slice: "box.slice".into(),
            description: "Shop \"front\"\n[Service]".into(),
            before: Some("box@web.service".into()),
            limits: vec![
                Limit::MemoryMax(1),
                Limit::MemoryHigh(1),
                Limit::MemorySwapMax(0),
                Limit::CpuQuotaPerSec(1_500_000),
                Limit::CpuWeight(100),
                Limit::AllowedCpus(vec![0, 9]),
                Limit::TasksMax(5),
                Limit::IoWeight(100),
                Limit::IoReadBandwidthMax("/dev/sda".into(), 1),
                Limit::IoWriteBandwidthMax("/dev/sda".into(), 1),
                Limit::IoReadIopsMax("/dev/sda".into(), 1),
                Limit::IoWriteIopsMax("/dev/sda".into(), 1),
            ],
            devices: Vec::new(),
        };
        let stop = Stop {
            signal: 15,
            timeout: Duration::from_secs(10),
        };
        let stdin = std::io::stdin();
        let request = Request {
            scope: &scope,
            stop: &stop,
            process: Process {
                pid: 42,
                pidfd: stdin.as_fd(),
            },
        };
        let signatures = |dialect| -> Vec<(&str, String)> {
            properties(&request, dialect)
                .iter()
                .map(|(name, value)| (*name, value.value_signature().to_string()))
                .collect()
        };
        let common = [
            ("Description", "s"),
            ("Slice", "s"),
            ("Delegate", "b"),
            ("CollectMode", "s"),
            ("KillSignal", "i"),
            ("SendSIGKILL", "b"),
            ("TimeoutStopUSec", "t"),
            ("DevicePolicy", "s"),
            ("DeviceAllow", "a(ss)"),
        ];
        let limits = [
            ("Before", "as"),
            ("PartOf", "as"),
            ("MemoryMax", "t"),
            ("MemoryHigh", "t"),
            ("MemorySwapMax", "t"),
            ("CPUQuotaPerSecUSec", "t"),
            ("CPUWeight", "t"),
            ("AllowedCPUs", "ay"),
            ("TasksMax", "t"),
            ("IOWeight", "t"),
            ("IOReadBandwidthMax", "a(st)"),
            ("IOWriteBandwidthMax", "a(st)"),
            ("IOReadIOPSMax", "a(st)"),
            ("IOWriteIOPSMax", "a(st)"),
        ];
        let expect = |process: &[(&'static str, &str)]| -> Vec<(&str, String)> {
            common
                .iter()
                .chain(process)
                .chain(&limits)
                .map(|(name, signature)| (*name, (*signature).to_owned()))
                .collect()
        };
        assert_eq!(
            signatures(Dialect::Current),
            expect(&[("PIDFDs", "ah"), ("OOMPolicy", "s")])
        );
        assert_eq!(signatures(Dialect::Old), expect(&[("PIDs", "au")]));
    }
}
