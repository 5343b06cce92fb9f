//! What a box does not share with the host.

use std::path::Path;

use super::Test;
use super::boxes::*;

pub const TESTS: &[Test] = &[
    ("its_namespaces_are_its_own", its_namespaces_are_its_own),
    (
        "it_is_the_first_process_and_alone",
        it_is_the_first_process_and_alone,
    ),
    ("it_has_its_hostname", it_has_its_hostname),
    (
        "loopback_is_up_and_nothing_else_is_there",
        loopback_is_up_and_nothing_else_is_there,
    ),
    (
        "nothing_of_the_host_is_mounted",
        nothing_of_the_host_is_mounted,
    ),
    (
        "its_ids_are_a_range_of_the_host",
        its_ids_are_a_range_of_the_host,
    ),
    (
        "a_private_clock_begins_at_zero",
        a_private_clock_begins_at_zero,
    ),
    ("its_cgroup_is_its_root", its_cgroup_is_its_root),
    ("no_descriptor_is_inherited", no_descriptor_is_inherited),
    (
        "its_session_keyring_is_new_and_empty",
        its_session_keyring_is_new_and_empty,
    ),
    (
        "it_dies_with_the_launcher_before_go",
        it_dies_with_the_launcher_before_go,
    ),
    (
        "it_outlives_the_launcher_after_go",
        it_outlives_the_launcher_after_go,
    ),
    (
        "the_hosts_mounts_are_as_before",
        the_hosts_mounts_are_as_before,
    ),
];

const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

fn its_namespaces_are_its_own() {
    let line = format!("cd /proc/self/ns; readlink {}", KINDS.join(" "));
    let mut plan = host_box(&line);
    plan.namespaces.time = true;
    let shared = |plan: &boxd::plan::Plan| -> Vec<&str> {
        let inside = run(plan);
        KINDS
            .into_iter()
            .zip(inside.lines())
            .filter(|(kind, inside)| {
                let outside = std::fs::read_link(Path::new("/proc/self/ns").join(kind));
                outside.expect("it is there") == Path::new(inside)
            })
            .map(|(kind, _)| kind)
            .collect()
    };
    assert_eq!(shared(&plan), [""; 0]);
    plan.namespaces.time = false;
    assert_eq!(shared(&plan), ["time"]);
    assert_eq!(shared(&with_host_ids(plan)), ["time", "user"]);
}

fn it_is_the_first_process_and_alone() {
    let plan = host_box(
        "echo $$; echo /proc/[0-9]*; ps -o sid= -p 1 2>/dev/null || cut -d' ' -f6 /proc/1/stat",
    );
    let out = run(&plan);
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert_eq!(lines, ["1", "/proc/1", "1"]);
}

fn it_has_its_hostname() {
    assert_eq!(
        run(&host_box("cat /proc/sys/kernel/hostname")),
        "test-box\n"
    );
}

fn loopback_is_up_and_nothing_else_is_there() {
    let out = run(&host_box(
        "cd /sys/class/net; echo *; cat lo/operstate lo/flags",
    ));
    let lines: Vec<_> = out.lines().collect();
    let names: Vec<_> = lines[0].split(' ').collect();
    assert!(names.contains(&"lo") && !names.contains(&"eth0"), "{out}");
    assert_eq!(lines[2], "0x9", "up and loopback: {out}");
}

fn nothing_of_the_host_is_mounted() {
    let plan = host_box("cat /proc/self/mountinfo; ls -A /");
    for plan in [plan.clone(), with_host_ids(plan)] {
        let out = run(&plan);
        let (mounts, names): (Vec<_>, Vec<_>) = out.lines().partition(|line| line.contains(" - "));
        // One line for each step that is a mount; none for what the old root had.
        let wanted = plan
            .mounts
            .iter()
            .filter(|step| {
                use boxd::plan::What::*;
                !matches!(step.what, Directory { .. } | File { .. } | Symlink { .. })
            })
            .count();
        assert_eq!(mounts.len(), wanted, "{out}");
        assert!(
            mounts
                .iter()
                .all(|line| !line.contains("shared:") && !line.contains("master:")),
            "{out}"
        );
        assert!(
            !names.contains(&"work") && !names.contains(&"home"),
            "{out}"
        );
    }
}

fn its_ids_are_a_range_of_the_host() {
    let out = run(&host_box(
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c %u:%g / /usr /usr/bin /tmp /etc/passwd /dev /dev/pts/ptmx",
    ));
    let fields: Vec<_> = out.split_whitespace().collect();
    let base = IDS.base.to_string();
    assert_eq!(fields[..7], ["0", &base, "65536", "0", &base, "65536", "0"]);
    for owner in &fields[7..] {
        assert_eq!(*owner, "0:0", "{out}");
    }
    let built = build(&host_box("true")).expect("built");
    let status = std::fs::read_to_string(format!("/proc/{}/status", built.pid)).expect("alive");
    assert!(
        status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", IDS.base)),
        "{status}"
    );
    assert_eq!(built.go().expect("runs").status, 0);
}

fn a_private_clock_begins_at_zero() {
    let mut plan = host_box("cat /proc/uptime");
    plan.namespaces.time = true;
    let uptime = |plan: &boxd::plan::Plan| -> f64 {
        let out = run(plan);
        out.split(' ')
            .next()
            .expect("a field")
            .parse()
            .expect("a number")
    };
    let host: f64 = std::fs::read_to_string("/proc/uptime")
        .expect("readable")
        .split(' ')
        .next()
        .expect("a field")
        .parse()
        .expect("a number");
    assert!(uptime(&plan) < host / 2.0);
    plan.namespaces.time = false;
    assert!(uptime(&plan) >= host);
}

fn its_cgroup_is_its_root() {
    let plan = host_box(
        "grep ^0:: /proc/self/cgroup; stat -f -c %T /sys/fs/cgroup; mkdir /sys/fs/cgroup/x 2>&1 || true",
    );
    for plan in [plan.clone(), with_host_ids(plan)] {
        let out = run(&plan);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[..2], ["0::/", "cgroup2fs"], "{out}");
        assert!(lines[2].ends_with("Read-only file system"), "{out}");
    }
}

fn no_descriptor_is_inherited() {
    // Not close-on-exec, as a careless parent of the launcher leaves them.
    let leaked = std::fs::File::open("/root").expect("it is there");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("set");
    let copy = rustix::io::fcntl_dupfd_cloexec(&leaked, 200).expect("free");
    rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).expect("set");
    let out = run(&host_box(
        "n=3; while [ $n -lt 300 ]; do [ -e /proc/1/fd/$n ] && echo $n; n=$((n+1)); done; echo checked",
    ));
    assert_eq!(
        out,
        "checked
"
    );
}

/// The launcher's, which is not the box's to see, would be none at all. Those of other boxes with these ids that live
/// beside it, or have ended and are not collected yet, are seen as well.
fn its_session_keyring_is_new_and_empty() {
    let out = run(&host_box("cat /proc/keys"));
    let keyrings: Vec<_> = out
        .lines()
        .filter(|line| line.contains(" keyring "))
        .collect();
    assert!(
        !keyrings.is_empty()
            && keyrings
                .iter()
                .all(|line| line.contains(" _ses") && line.contains(": empty")),
        "{out}"
    );
}

/// A launcher in a process of its own, that is killed at one point.
fn killed_launcher(after_go: bool) -> (i32, std::os::fd::OwnedFd) {
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    let plan = host_box("sleep 1000");
    let launcher = match fork() {
        None => {
            let built = build(&plan).unwrap_or_else(|failure| panic!("{failure}"));
            if after_go {
                use boxd::launch::protocol::{Lifetime, ToChild};
                built
                    .end
                    .send(&ToChild::Go(Lifetime::Own), &[])
                    .expect("it waits");
                while built.end.receive().is_ok() {}
            }
            rustix::io::write(&write, &built.pid.as_raw().to_ne_bytes()).expect("written");
            loop {
                std::thread::park();
            }
        }
        Some(pidfd) => pidfd,
    };
    let mut pid = [0; 4];
    rustix::io::read(&read, &mut pid).expect("told");
    let pid = i32::from_ne_bytes(pid);
    let child = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(pid).expect("a pid"),
        rustix::process::PidfdFlags::empty(),
    )
    .expect("alive");
    rustix::process::pidfd_send_signal(&launcher, rustix::process::Signal::KILL).expect("killed");
    wait(&launcher);
    (pid, child)
}

fn ends(pidfd: &std::os::fd::OwnedFd, within: std::time::Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut descriptors = [PollFd::new(pidfd, PollFlags::IN)];
    let timeout = Timespec::try_from(within).expect("short");
    poll(&mut descriptors, Some(&timeout)).expect("polled") == 1
}

fn it_dies_with_the_launcher_before_go() {
    let (_, child) = killed_launcher(false);
    assert!(
        ends(&child, std::time::Duration::from_secs(60)),
        "the child is an orphan"
    );
}

fn it_outlives_the_launcher_after_go() {
    let (pid, child) = killed_launcher(true);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
    assert!(!status.contains("State:\tZ"), "{status}");
    rustix::process::pidfd_send_signal(&child, rustix::process::Signal::KILL).expect("alive");
    assert!(ends(&child, std::time::Duration::from_secs(60)));
}

fn the_hosts_mounts_are_as_before() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let descriptors = || {
        std::fs::read_dir("/proc/self/fd")
            .expect("readable")
            .count()
    };
    let whereabouts = || std::env::current_dir().expect("somewhere");
    let before = (mounts(), descriptors(), whereabouts());
    run(&host_box("true"));
    assert_eq!((mounts(), descriptors(), whereabouts()), before);
}
