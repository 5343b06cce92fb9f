//! What every box has from the kernel: `/proc`, `/sys`, `/dev`, and the file systems in memory at `/run` and
//! `/tmp`. Sizes are those systemd gives the same mounts in its containers.

use std::path::{Path, PathBuf};

use super::mounts::{directory, own_tmpfs, step, symlink};
use super::problem::Findings;
use super::{Content, MountFlags, MountStep, Notify, What, walls};
use crate::definition::{Definition, Profile};
use crate::host::Host;

/// The host's devices every box has.
pub(super) const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// Files of the kernel that tell of the host, or of others on it, what a box need not know: addresses, keys,
/// timers, interrupts, power and heat that give away what the neighbours compute, and doors for debugging.
pub(super) const MASKED: [&str; 21] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    FILE_SYSTEMS,
    "/sys/hypervisor",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/module",
    "/sys/power",
];

/// What the kernel's file systems tell of themselves, those of the host's disks among them, and where some are
/// mounted; of all that, a box has its cgroup.
const FILE_SYSTEMS: &str = "/sys/fs";

/// Whether a step is what hides one of [`MASKED`].
pub(super) fn hides(step: &MountStep, path: &str) -> bool {
    let cover = match step.what {
        What::Tmpfs { .. } => path == FILE_SYSTEMS,
        What::Mask => true,
        _ => false,
    };
    cover && step.at == Path::new(path)
}

/// Parts of proc(5) that configure the host.
const READ_ONLY: [&str; 4] = ["/proc/apm", "/proc/bus", "/proc/fs", "/proc/irq"];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A device works, and nothing else about its mount does.
const DEVICE_FLAGS: MountFlags = MountFlags {
    nodev: false,
    ..MountFlags::INERT
};

pub(super) fn steps(
    definition: &Definition,
    host: &Host,
    findings: &mut Findings,
) -> Vec<MountStep> {
    let mut steps = kernel(definition, host, findings);
    steps.extend(devices(definition));
    steps.extend(memory(definition, host));
    steps
}

/// The restrictions of a mask. Not `nodev`: what lies over a file is a device that can be read, to its end at
/// once.
pub(super) const MASK: MountFlags = DEVICE_FLAGS.read_only();

fn kernel(definition: &Definition, host: &Host, findings: &mut Findings) -> Vec<MountStep> {
    let system = definition.profile == Profile::System;
    let read_only = MountFlags::INERT.read_only();
    let masked = MASKED
        .iter()
        .map(PathBuf::from)
        .chain(host.thermal_throttle.iter().cloned());
    let mut masked = walls::masked(masked.collect(), definition, findings);
    let file_systems = masked.iter().position(|at| at == Path::new(FILE_SYSTEMS));
    let file_systems = file_systems.map(|index| masked.remove(index));

    let mut steps = vec![
        step("/proc", What::Proc, MountFlags::INERT),
        step("/sys", What::Sysfs, read_only),
    ];
    // Hidden by what a place for the cgroup can be made in.
    let place = What::Tmpfs {
        size: MIB,
        inodes: 16,
        mode: 0o755,
    };
    steps.extend(
        file_systems
            .iter()
            .map(|at| step(at, place.clone(), MountFlags::INERT)),
    );
    steps.push(step(
        "/sys/fs/cgroup",
        What::Cgroup,
        MountFlags {
            read_only: !system,
            ..MountFlags::INERT
        },
    ));
    steps.extend(
        file_systems
            .iter()
            .map(|at| step(at, What::Remount, read_only)),
    );
    steps.extend(masked.into_iter().map(|at| step(at, What::Mask, MASK)));
    // What is shown is not opened for writing.
    let shown = definition.security.unmask.iter();
    steps.extend(
        shown
            .filter(|at| at.starts_with("/proc"))
            .map(|at| step(at, What::Rebind, read_only)),
    );
    steps.extend(READ_ONLY.map(|at| step(at, What::Rebind, read_only)));
    if system {
        // An init may configure its own network; all else in /proc/sys is closed around it, as
        // <https://systemd.io/CONTAINER_INTERFACE> wants it.
        steps.push(step("/proc/sys", What::Rebind, MountFlags::INERT));
        steps.push(step("/proc/sys/net", What::Rebind, MountFlags::INERT));
        steps.push(step("/proc/sys", What::Remount, read_only));
    } else {
        steps.push(step("/proc/sys", What::Rebind, read_only));
    }
    steps
}

fn devices(definition: &Definition) -> Vec<MountStep> {
    let tmpfs = |size, inodes, mode| What::Tmpfs { size, inodes, mode };
    // Not `nodev`: the devices are mounts of their own, but an init may make nodes here.
    let flags = MountFlags {
        nodev: false,
        ..MountFlags::INERT
    };
    let mut steps = vec![step("/dev", tmpfs(4 * MIB, 64 * KIB, 0o755), flags)];
    steps.extend(DEVICES.map(|path| {
        step(
            path,
            What::Tree {
                path: path.into(),
                recursive: false,
                idmap: false,
            },
            DEVICE_FLAGS,
        )
    }));
    steps.extend([step("/dev/pts", What::Devpts, DEVICE_FLAGS)]);
    if definition.tty {
        steps.push(step("/dev/console", What::Console, DEVICE_FLAGS));
    }
    steps.extend([
        symlink("/dev/ptmx", "pts/ptmx"),
        symlink("/dev/fd", "/proc/self/fd"),
        symlink("/dev/stdin", "/proc/self/fd/0"),
        symlink("/dev/stdout", "/proc/self/fd/1"),
        symlink("/dev/stderr", "/proc/self/fd/2"),
    ]);
    steps.extend(own_tmpfs(
        definition,
        "/dev/shm",
        tmpfs(64 * MIB, 16 * KIB, 0o1777),
        MountFlags::INERT,
    ));
    steps.push(step("/dev/mqueue", What::Mqueue, MountFlags::INERT));
    steps
}

fn memory(definition: &Definition, host: &Host) -> Vec<MountStep> {
    let tenth = |inodes, mode| What::Tmpfs {
        size: host.memory / 10 / MIB * MIB,
        inodes,
        mode,
    };
    let mut steps = Vec::new();
    steps.extend(own_tmpfs(
        definition,
        "/run",
        tenth(800 * KIB, 0o755),
        MountFlags::DATA,
    ));
    steps.push(directory("/run/lock", 0o1777));
    steps.extend(own_tmpfs(
        definition,
        "/tmp",
        tenth(400 * KIB, 0o1777),
        MountFlags::DATA,
    ));
    steps
}

/// `/run/host`: what the box may know of the host; <https://systemd.io/CONTAINER_INTERFACE>.
pub(super) fn run_host(
    uuid: String,
    notify: Option<&Notify>,
    credentials: Option<MountStep>,
) -> Vec<MountStep> {
    let file = |at: &str, content| {
        step(
            at,
            What::File {
                mode: 0o444,
                content,
            },
            MountFlags::NONE,
        )
    };
    let mut steps = vec![
        step(
            "/run/host",
            What::Tmpfs {
                size: MIB,
                inodes: 256,
                mode: 0o755,
            },
            MountFlags::INERT,
        ),
        file(
            "/run/host/container-manager",
            Content::Text("boxd\n".to_owned()),
        ),
        file("/run/host/container-uuid", Content::Text(uuid + "\n")),
        file(
            "/run/host/os-release",
            Content::CopyOf("/etc/os-release".into()),
        ),
    ];
    steps.extend(credentials);
    steps.extend(notify.map(|notify| {
        let socket = What::Tree {
            path: notify.host.clone(),
            recursive: false,
            idmap: false,
        };
        // A socket on a read-only mount still takes messages.
        step(&notify.socket, socket, MountFlags::INERT.read_only())
    }));
    steps.push(step(
        "/run/host",
        What::Remount,
        MountFlags::INERT.read_only(),
    ));
    steps
}
