//! A host that is as it should be, and one that is not: golden pictures in `snapshots/`, written anew with
//! `BOXD_BLESS=1`.

use std::fs;

use super::host::Host;
use super::*;
use crate::cli::golden;

/// Files of a host, below a folder of its own.
fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    let host = Host::of(root.path());
    (root, host)
}

const WELL: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.12.63+deb13-amd64\n"),
    (
        "sys/fs/cgroup/cgroup.controllers",
        "cpuset cpu io memory hugetlb pids\n",
    ),
    ("proc/pressure/cpu", ""),
    ("proc/sys/user/max_user_namespaces", "63000\n"),
    ("proc/filesystems", "nodev\tproc\nnodev\toverlay\n\text4\n"),
    (
        "proc/sys/kernel/seccomp/actions_avail",
        "kill_process allow",
    ),
    ("proc/self/ns/time", ""),
    ("proc/sys/dev/tty/legacy_tiocsti", "0"),
    ("proc/sys/kernel/unprivileged_bpf_disabled", "2"),
    ("proc/sys/fs/protected_symlinks", "1"),
    (
        "sys/devices/system/cpu/vulnerabilities/meltdown",
        "Mitigation: PTI",
    ),
    ("sys/module/apparmor/parameters/enabled", "Y"),
    ("run/dbus/system_bus_socket", ""),
    (
        "usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service",
        "",
    ),
    ("run/systemd/journal/socket", ""),
    ("var/log/journal/x", ""),
    ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("usr/lib/systemd/system/box@.service", ""),
    ("usr/lib/boxd/box-supervisor", ""),
    ("usr/lib/systemd/system-generators/boxd-generator", ""),
    ("usr/bin/boxd", ""),
    ("proc/sys/fs/inotify/max_user_instances", "8192"),
    ("proc/sys/kernel/pid_max", "4194304"),
];

const PLAIN: Look = Look {
    color: false,
    width: Some(80),
};

fn checked(host: &Host) -> Vec<Check> {
    let mut checks = checks::checks(host);
    checks.sort_by_key(|check| check.verdict);
    checks
}

#[test]
fn a_host_that_is_as_it_should_be_has_nothing_to_be_told() {
    let (_root, host) = host(WELL);
    let found = checked(&host);
    let wrong: Vec<_> = found
        .iter()
        .filter(|check| check.verdict != Verdict::Good)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(page(&found, false, PLAIN).lines().count() == 1);
    assert!(page(&found, true, PLAIN).lines().count() > found.len());
}

#[test]
fn everything_that_is_wrong_is_told_with_its_remedy() {
    let (_root, mut bad) = host(&[
        ("proc/sys/kernel/osrelease", "5.10.0-1\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
        ("proc/sys/user/max_user_namespaces", "0"),
        ("proc/sys/dev/tty/legacy_tiocsti", "1"),
        ("proc/sys/kernel/unprivileged_bpf_disabled", "0"),
        ("proc/sys/fs/protected_symlinks", "0"),
        (
            "sys/devices/system/cpu/vulnerabilities/meltdown",
            "Vulnerable",
        ),
        (
            "sys/devices/system/cpu/vulnerabilities/retbleed",
            "Vulnerable: no microcode",
        ),
        ("run/systemd/journal/socket", ""),
        ("proc/sys/fs/inotify/max_user_instances", "128"),
        ("proc/sys/kernel/pid_max", "32768"),
    ]);
    bad.systemd = Some(Ok("259.1-1".to_owned()));
    bad.definitions = Ok((3, 1));
    bad.shared_ids = Ok(vec!["524288-589823 of box web".to_owned()]);
    bad.old_supervisors = vec!["web".to_owned()];
    bad.space = vec![("/var/lib".into(), 1 << 20, 1 << 30)];
    golden::compare(
        "doctor/snapshots/bad-80",
        &page(&checked(&bad), false, PLAIN),
    );
    let looks_fine: Vec<_> = checked(&bad)
        .into_iter()
        .filter(|check| check.verdict == Verdict::Missing || check.verdict == Verdict::Risk)
        .filter(|check| check.remedy.is_none())
        .collect();
    assert!(looks_fine.is_empty(), "no remedy: {looks_fine:#?}");
}

#[test]
fn the_fault_of_systemd_is_known_by_its_versions() {
    let (_root, mut host) = host(WELL);
    for (version, verdict) in [
        ("257.13-1~deb13u1", Verdict::Good),
        ("258~rc1", Verdict::Risk),
        ("258.4-1", Verdict::Risk),
        ("258.5-1", Verdict::Good),
        ("259", Verdict::Risk),
        ("259.1+suse.3", Verdict::Risk),
        ("259.2-1.fc44", Verdict::Good),
        ("260.1", Verdict::Good),
    ] {
        host.systemd = Some(Ok(version.to_owned()));
        let found = checked(&host);
        let check = found
            .iter()
            .find(|check| check.id == "cve-2026-40223")
            .expect("it is looked for");
        assert_eq!(check.verdict, verdict, "{version}");
    }
}

#[test]
fn a_host_without_systemd_or_cgroups_is_told_so() {
    let (_root, mut host) = host(&[("sys/fs/cgroup/unified/cgroup.controllers", "hugetlb")]);
    host.systemd = None;
    host.is_root = false;
    host.shared_ids = Err("permission denied".to_owned());
    let found = checked(&host);
    let verdict = |id: &str| {
        let check = found.iter().find(|check| check.id == id);
        check.map(|check| check.verdict)
    };
    assert_eq!(verdict("systemd"), Some(Verdict::Missing));
    assert_eq!(verdict("cgroup-controllers"), Some(Verdict::Missing));
    assert_eq!(verdict("ids"), Some(Verdict::Unknown));
    assert_eq!(verdict("cve-2026-40223"), Some(Verdict::Unknown));
}
