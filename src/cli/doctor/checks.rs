//! The things that are looked at, each with its verdict. Pure but for the files of the [`Host`].

use super::host::Host;
use super::{Check, Verdict};
use crate::cli::text;

/// The oldest kernel and systemd boxd is made for.
const KERNEL: (u64, u64) = (6, 1);
const SYSTEMD: u64 = 252;

/// A file system with less than this part of it free is about to be full.
const SPACE_PART: u64 = 20;

/// Everything that is looked at.
pub fn checks(host: &Host) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.extend([
        systemd(host),
        delegation(host),
        kernel(host),
        cgroup(host),
        pressure(host),
        user_namespaces(host),
        overlay(host),
        seccomp(host),
        time_namespaces(host),
        terminal(host),
        ebpf(host),
        links(host),
        vulnerabilities(host),
        labels(host),
        bus(host),
        polkit(host),
        journal(host),
        machine_id(host),
        programs(host),
        definitions(host),
        trust(
            host,
            "definitions-trust",
            "etc/boxd",
            "could describe boxes of their own",
        ),
        trust(
            host,
            "state-trust",
            "var/lib/boxd",
            "could change what boxes keep, or whose ids they have",
        ),
        ids(host),
        supervisors(host),
        descriptors(host),
        processes(host),
    ]);
    checks.extend(space(host));
    checks
}

fn check(
    id: &'static str,
    verdict: Verdict,
    says: impl Into<String>,
    remedy: Option<&str>,
) -> Check {
    Check {
        id,
        verdict,
        says: says.into(),
        remedy: remedy.map(str::to_owned),
    }
}

fn good(id: &'static str, says: impl Into<String>) -> Check {
    check(id, Verdict::Good, says, None)
}

/// The numbers a version begins with: `257.13-1~deb13u1` is 257.13, `258~rc1` is 258.0.
fn version(text: &str) -> (u64, u64) {
    let mut parts = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let mut numbers = parts
        .next()
        .unwrap_or_default()
        .split('.')
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn systemd(host: &Host) -> Check {
    const ID: &str = "systemd";
    match &host.systemd {
        None => check(
            ID,
            Verdict::Missing,
            "systemd does not run this host: there are no units of boxes",
            Some(
                "boot the host with systemd; `boxctl run NAME` runs a box in the foreground meanwhile",
            ),
        ),
        Some(Err(error)) => check(
            ID,
            Verdict::Missing,
            format!("systemd does not answer: {error}"),
            Some("see `systemctl status dbus.service dbus.socket`"),
        ),
        Some(Ok(text)) if version(text).0 < SYSTEMD => check(
            ID,
            Verdict::Missing,
            format!("systemd {text} is older than {SYSTEMD}, the oldest boxd is made for"),
            Some("upgrade the distribution"),
        ),
        Some(Ok(text)) => good(ID, format!("systemd {text} runs this host")),
    }
}

/// CVE-2026-40223: in systemd 258 and 259 an unprivileged user can end PID 1 by an assertion while a unit runs that has
/// `Delegate=` and no `User=`, as every box's scope. Corrected in 258.5, 259.2 and 260.
fn delegation(host: &Host) -> Check {
    const ID: &str = "cve-2026-40223";
    let Some(Ok(text)) = &host.systemd else {
        return check(
            ID,
            Verdict::Unknown,
            "whether systemd has CVE-2026-40223 is not known, as it does not say which version it is",
            None,
        );
    };
    match version(text) {
        (258, 0..=4) | (259, 0..=1) => check(
            ID,
            Verdict::Risk,
            format!(
                "systemd {text} has CVE-2026-40223, unless its distribution has corrected it: while a box runs, any \
                 user of the host can bring systemd down"
            ),
            Some(
                "upgrade systemd to 258.5, 259.2, 260 or later, or see that your distribution's package names the CVE",
            ),
        ),
        _ => good(ID, format!("systemd {text} does not have CVE-2026-40223")),
    }
}

fn kernel(host: &Host) -> Check {
    const ID: &str = "kernel";
    let release = host
        .text("proc/sys/kernel/osrelease")
        .unwrap_or_else(|| "of unknown version".to_owned());
    if version(&release) < KERNEL {
        return check(
            ID,
            Verdict::Missing,
            format!(
                "the kernel {release} is older than {}.{}, the oldest boxd is made for",
                KERNEL.0, KERNEL.1
            ),
            Some("boot a newer kernel"),
        );
    }
    good(ID, format!("the kernel is {release}"))
}

/// The controllers a definition may ask for, with what asks for them.
const CONTROLLERS: [(&str, &str); 5] = [
    ("memory", "memory, memory-high, memory-swap"),
    ("cpu", "cpu, cpu-weight"),
    ("pids", "tasks"),
    ("io", "io-weight, io-read, io-write and their like"),
    ("cpuset", "cpus"),
];

fn cgroup(host: &Host) -> Check {
    const ID: &str = "cgroup-controllers";
    let Some(there) = host.text("sys/fs/cgroup/cgroup.controllers") else {
        let (says, remedy) = if host.has("sys/fs/cgroup/unified/cgroup.controllers") {
            (
                "the cgroup controllers are bound to version 1, so boxes have no limits",
                "boot with systemd.unified_cgroup_hierarchy=1, or without cgroup_no_v1= and the like",
            )
        } else {
            (
                "no cgroup2 file system is mounted at /sys/fs/cgroup",
                "boot with systemd, which mounts it, or: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
            )
        };
        return check(ID, Verdict::Missing, says, Some(remedy));
    };
    let there: Vec<&str> = there.split_whitespace().collect();
    let missing: Vec<(&str, &str)> = CONTROLLERS
        .into_iter()
        .filter(|(controller, _)| !there.contains(controller))
        .collect();
    if missing.is_empty() {
        return good(
            ID,
            format!("cgroup2 has the controllers {}", there.join(" ")),
        );
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let keys: Vec<&str> = missing.iter().map(|(_, keys)| *keys).collect();
    check(
        ID,
        Verdict::Missing,
        format!(
            "cgroup2 lacks the controllers {}: a box with {} under [resources] does not start",
            names.join(", "),
            keys.join(", ")
        ),
        Some(
            "see which ones `cat /proc/cgroups` has, and that none is bound to version 1 (`mount -t cgroup`); some \
             distributions want cgroup_enable=memory on the kernel's command line",
        ),
    )
}

fn pressure(host: &Host) -> Check {
    const ID: &str = "pressure";
    if host.has("proc/pressure/cpu") {
        return good(ID, "the kernel counts pressure");
    }
    check(
        ID,
        Verdict::Note,
        "the kernel does not count pressure: `boxctl stats` and `boxctl top` cannot say what boxes wait for",
        Some("boot with psi=1 on the kernel's command line"),
    )
}

fn user_namespaces(host: &Host) -> Check {
    const ID: &str = "user-namespaces";
    match host.number("proc/sys/user/max_user_namespaces") {
        Some(0) | None => check(
            ID,
            Verdict::Missing,
            "the kernel gives no user namespaces: boxes with ids of their own, as is the default, do not start",
            Some("sysctl -w user.max_user_namespaces=63000, and keep it in /etc/sysctl.d"),
        ),
        Some(number) => good(ID, format!("there may be {number} user namespaces")),
    }
}

fn overlay(host: &Host) -> Check {
    const ID: &str = "overlay";
    let known = host.text("proc/filesystems").unwrap_or_default();
    if known
        .lines()
        .any(|line| line.split_whitespace().next_back() == Some("overlay"))
    {
        return good(ID, "the kernel has the file system overlay");
    }
    let release = host.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let is_module = |modules: &str| {
        host.text(&format!("{modules}/{release}/modules.dep"))
            .is_some_and(|text| text.contains("/overlay.ko"))
    };
    if ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .any(is_module)
    {
        return good(
            ID,
            "the kernel loads the file system overlay when it is needed",
        );
    }
    check(
        ID,
        Verdict::Missing,
        "the kernel does not have the file system overlay: only boxes with writes = \"refuse\" start",
        Some("boot a kernel with CONFIG_OVERLAY_FS"),
    )
}

fn seccomp(host: &Host) -> Check {
    const ID: &str = "seccomp";
    if host.has("proc/sys/kernel/seccomp/actions_avail") {
        return good(ID, "the kernel filters system calls");
    }
    check(
        ID,
        Verdict::Missing,
        "the kernel cannot filter system calls: no box starts but with seccomp = \"unconfined\"",
        Some("boot a kernel with CONFIG_SECCOMP_FILTER"),
    )
}

fn time_namespaces(host: &Host) -> Check {
    const ID: &str = "time-namespaces";
    if host.has("proc/self/ns/time") {
        return good(ID, "the kernel has time namespaces");
    }
    check(
        ID,
        Verdict::Note,
        "the kernel has no time namespaces: clock = \"private\" cannot be had",
        Some("boot a kernel with CONFIG_TIME_NS"),
    )
}

/// TIOCSTI: who has a terminal's descriptor could type into it. Boxes are refused it by their filter of system calls
/// and get terminals of their own; but not what runs on the host.
fn terminal(host: &Host) -> Check {
    const ID: &str = "tiocsti";
    match host.number("proc/sys/dev/tty/legacy_tiocsti") {
        Some(0) => good(
            ID,
            "no program can type into the terminal of another (dev.tty.legacy_tiocsti is 0)",
        ),
        Some(_) => check(
            ID,
            Verdict::Risk,
            "a program can type into a terminal it shares (dev.tty.legacy_tiocsti is 1): a box with \
             seccomp = \"unconfined\" that is given one could too",
            Some("sysctl -w dev.tty.legacy_tiocsti=0, and keep it in /etc/sysctl.d"),
        ),
        None => check(
            ID,
            Verdict::Note,
            "this kernel has no switch for TIOCSTI, which types into terminals; boxes are refused it by their filter",
            None,
        ),
    }
}

fn ebpf(host: &Host) -> Check {
    const ID: &str = "bpf";
    match host.number("proc/sys/kernel/unprivileged_bpf_disabled") {
        Some(0) => check(
            ID,
            Verdict::Risk,
            "every user may load BPF programs (kernel.unprivileged_bpf_disabled is 0): a way into the kernel for a box \
             with seccomp = \"unconfined\"",
            Some("sysctl -w kernel.unprivileged_bpf_disabled=2, and keep it in /etc/sysctl.d"),
        ),
        _ => good(ID, "only privileged programs may load BPF programs"),
    }
}

fn links(host: &Host) -> Check {
    const ID: &str = "protected-links";
    let open: Vec<&str> = ["protected_symlinks", "protected_hardlinks"]
        .into_iter()
        .filter(|name| host.number(&format!("proc/sys/fs/{name}")) == Some(0))
        .collect();
    if open.is_empty() {
        return good(ID, "links of others in shared directories are not followed");
    }
    let names: Vec<String> = open.iter().map(|name| format!("fs.{name}")).collect();
    check(
        ID,
        Verdict::Risk,
        format!(
            "{} {} 0: what a box puts into a directory it shares with others can lead them astray",
            names.join(" and "),
            if names.len() == 1 { "is" } else { "are" }
        ),
        Some(
            "sysctl -w fs.protected_symlinks=1 fs.protected_hardlinks=1, and keep it in /etc/sysctl.d",
        ),
    )
}

fn vulnerabilities(host: &Host) -> Check {
    const ID: &str = "cpu-vulnerabilities";
    const FOLDER: &str = "sys/devices/system/cpu/vulnerabilities";
    let open: Vec<String> = host
        .names(FOLDER)
        .into_iter()
        .filter(|name| {
            host.text(&format!("{FOLDER}/{name}"))
                .is_some_and(|text| text.starts_with("Vulnerable"))
        })
        .collect();
    if open.is_empty() {
        return good(
            ID,
            "the kernel knows no open vulnerability of this processor",
        );
    }
    check(
        ID,
        Verdict::Risk,
        format!(
            "the kernel says that this processor is open to {}: a box may read what others on the host compute",
            open.join(", ")
        ),
        Some(
            "install the processor's microcode and a newer kernel, and look for mitigations=off on its command line",
        ),
    )
}

fn labels(host: &Host) -> Check {
    const ID: &str = "security-module";
    let apparmor = host
        .text("sys/module/apparmor/parameters/enabled")
        .as_deref()
        == Some("Y");
    if apparmor || host.has("sys/fs/selinux/enforce") {
        let name = if apparmor { "AppArmor" } else { "SELinux" };
        return good(
            ID,
            format!("{name} runs, for boxes with a profile or label of their own"),
        );
    }
    check(
        ID,
        Verdict::Note,
        "neither AppArmor nor SELinux runs: one wall less around a box, and `apparmor` and `selinux` cannot be had",
        Some("boot with security=apparmor, or security=selinux on a distribution made for it"),
    )
}

fn bus(host: &Host) -> Check {
    const ID: &str = "bus";
    if host.has("run/dbus/system_bus_socket") {
        return good(ID, "the system bus is there");
    }
    check(
        ID,
        Verdict::Missing,
        "there is no system bus, over which systemd is asked for a box's scope",
        Some("install and start it: apt-get install dbus, or dbus-broker"),
    )
}

fn polkit(host: &Host) -> Check {
    const ID: &str = "polkit";
    let places = [
        "usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service",
        "usr/local/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service",
    ];
    if places.iter().any(|place| host.has(place)) {
        return good(ID, "polkit is installed");
    }
    check(
        ID,
        Verdict::Note,
        "polkit is not installed: only root can start, stop and enter boxes",
        Some("apt-get install polkitd, or run boxctl as root"),
    )
}

fn journal(host: &Host) -> Check {
    const ID: &str = "journal";
    if !host.has("run/systemd/journal/socket") {
        return check(
            ID,
            Verdict::Missing,
            "systemd-journald does not listen: what boxes write is not kept",
            Some("systemctl start systemd-journald.socket systemd-journald.service"),
        );
    }
    if host.has("var/log/journal") {
        return good(ID, "the journal is kept over reboots");
    }
    check(
        ID,
        Verdict::Note,
        "the journal is in memory alone: what boxes wrote, and how they ended, is forgotten at a reboot",
        Some("mkdir /var/log/journal && journalctl --flush"),
    )
}

fn machine_id(host: &Host) -> Check {
    const ID: &str = "machine-id";
    let is_id = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if host.text("etc/machine-id").is_some_and(|text| is_id(&text)) {
        return good(ID, "the host has a machine id, from which boxes get theirs");
    }
    check(
        ID,
        Verdict::Risk,
        "/etc/machine-id holds no machine id: boxes get another one at each start",
        Some("systemd-machine-id-setup"),
    )
}

/// What the package installs and a start needs.
const INSTALLED: [(&str, &str); 4] = [
    ("usr/lib/systemd/system/box@.service", "the unit of boxes"),
    ("usr/lib/boxd/box-supervisor", "the supervisor"),
    (
        "usr/lib/systemd/system-generators/boxd-generator",
        "the generator",
    ),
    ("usr/bin/boxd", "boxd"),
];

fn programs(host: &Host) -> Check {
    const ID: &str = "installation";
    let missing: Vec<String> = INSTALLED
        .iter()
        .filter(|(path, _)| !host.has(path))
        .map(|(path, what)| format!("{what} (/{path})"))
        .collect();
    if missing.is_empty() {
        return good(ID, "boxd is installed whole");
    }
    check(
        ID,
        Verdict::Missing,
        format!("not installed: {}", missing.join(", ")),
        Some("install the package boxd again"),
    )
}

fn definitions(host: &Host) -> Check {
    const ID: &str = "definitions";
    match &host.definitions {
        Ok((all, 0)) => good(ID, format!("{all} definitions, none with errors")),
        Ok((all, broken)) => check(
            ID,
            Verdict::Risk,
            format!("{broken} of {all} definitions cannot be used"),
            Some("boxctl check says what is wrong with each"),
        ),
        Err(error) => check(ID, Verdict::Unknown, error.clone(), None),
    }
}

fn trust(host: &Host, id: &'static str, path: &str, could: &str) -> Check {
    match host.owner_and_mode(path) {
        None => good(id, format!("/{path} is not there yet")),
        Some((0, mode)) if mode & 0o022 == 0 => good(id, format!("only root can write /{path}")),
        Some((owner, mode)) => check(
            id,
            Verdict::Risk,
            format!(
                "/{path} belongs to user {owner} with mode {mode:04o}: others than root {could}"
            ),
            Some(&format!("chown root:root /{path} && chmod go-w /{path}")),
        ),
    }
}

fn ids(host: &Host) -> Check {
    const ID: &str = "ids";
    match &host.shared_ids {
        Ok(shared) if shared.is_empty() => good(ID, "nobody else on the host has the ids of boxes"),
        Ok(shared) => check(
            ID,
            Verdict::Risk,
            format!(
                "an account, /etc/subuid, /etc/subgid or an nspawn has ids of boxes too: {}",
                shared.join(", ")
            ),
            Some(
                "move the others elsewhere; or, with the box stopped and its files gone, remove its link from \
                 /var/lib/boxd/ids, so that the next start finds another range",
            ),
        ),
        Err(error) if !host.is_root => check(
            ID,
            Verdict::Unknown,
            format!("whether somebody else has the ids of boxes is not known: {error}"),
            Some("run this as root"),
        ),
        Err(error) => check(ID, Verdict::Risk, error.clone(), None),
    }
}

fn supervisors(host: &Host) -> Check {
    const ID: &str = "supervisors";
    if host.old_supervisors.is_empty() {
        return good(
            ID,
            "no running box has the supervisor of an earlier version",
        );
    }
    let units: Vec<String> = host
        .old_supervisors
        .iter()
        .map(|name| format!("box@{name}"))
        .collect();
    check(
        ID,
        Verdict::Note,
        format!(
            "the supervisors of {} are of a version that is not installed any more",
            host.old_supervisors.join(", ")
        ),
        Some(&format!(
            "systemctl kill --kill-whom=main --signal=USR1 {} replaces them; the boxes do not notice",
            units.join(" ")
        )),
    )
}

/// Boxes of profile `system` have programs that watch many files each; the kernel counts per user, and each box is
/// some users of its own, but every one is charged to root too.
fn descriptors(host: &Host) -> Check {
    const ID: &str = "inotify";
    const ENOUGH: u64 = 512;
    match host.number("proc/sys/fs/inotify/max_user_instances") {
        Some(number) if number < ENOUGH => check(
            ID,
            Verdict::Note,
            format!(
                "fs.inotify.max_user_instances is {number}: some ten boxes of profile \"system\" use them up, and \
                 programs then fail with EMFILE"
            ),
            Some("sysctl -w fs.inotify.max_user_instances=8192, and keep it in /etc/sysctl.d"),
        ),
        Some(number) => good(ID, format!("a user may have {number} inotify instances")),
        None => good(ID, "the kernel has no inotify to run out of"),
    }
}

fn processes(host: &Host) -> Check {
    const ID: &str = "pids";
    const ENOUGH: u64 = 65_536;
    match host.number("proc/sys/kernel/pid_max") {
        Some(number) if number < ENOUGH => check(
            ID,
            Verdict::Note,
            format!("there can be {number} processes and threads on this host, all boxes together"),
            Some("sysctl -w kernel.pid_max=4194304, and keep it in /etc/sysctl.d"),
        ),
        Some(number) => good(ID, format!("there can be {number} processes and threads")),
        None => check(ID, Verdict::Unknown, "kernel.pid_max cannot be read", None),
    }
}

fn space(host: &Host) -> Vec<Check> {
    const ID: &str = "space";
    host.space
        .iter()
        .map(|(path, free, all)| {
            let place = path.display();
            let says = format!(
                "{} of {} are free at {place}",
                text::size(*free),
                text::size(*all)
            );
            // A file system that does not count has a size of nothing.
            if *all == 0 || *free >= all / SPACE_PART {
                return good(ID, says);
            }
            check(
                ID,
                Verdict::Risk,
                format!("only {says}, where boxes keep what they write"),
                Some("free some space, or limit what boxes write"),
            )
        })
        .collect()
}
