//! Limits, as the cgroup and the payload see them.

use crate::guest::{
    define_script, inside, journal, must, property, sh, start, start_refused, stop, unit, wait_for,
    wait_for_line, wait_for_state, write,
};

/// Limits of every kind that needs no disk.
const RESOURCES: &str = "[resources]\nmemory = '64M'\nmemory-high = '48M'\nmemory-swap = '1M'\ncpu = 0.5\ncpu-weight = 50\n\
                         cpus = '0'\ntasks = 20\nio-weight = 50";

/// What the files of a cgroup with [`RESOURCES`] hold, each behind its name.
const IN_FORCE: [&str; 8] = [
    "memory.max 67108864",
    "memory.high 50331648",
    "memory.swap.max 1048576",
    "cpu.max 50000 100000",
    "cpu.weight 50",
    "pids.max 20",
    "io.weight default 50",
    "cpuset.cpus 0",
];

/// Limits that come a moment late are no limits: the payload's first instructions already see them.
#[test]
fn limits_are_in_force_before_the_first_instruction() {
    define_script(
        "small",
        "cd /sys/fs/cgroup; for f in memory.max memory.high memory.swap.max cpu.max cpu.weight pids.max io.weight cpuset.cpus; do echo $f $(cat $f); done; sleep infinity",
        RESOURCES,
    );
    start("small");
    wait_for_line("small", "io.weight default 50");
    let journal = journal("small");
    for line in IN_FORCE {
        assert!(
            journal.lines().any(|printed| printed == line),
            "{line}: {journal}"
        );
    }
    assert_eq!(property("box-small.scope", "MemoryMax"), "67108864");
    assert_eq!(property("box-small.scope", "TasksMax"), "20");
    let limits = &crate::guest::status("small")["limits"];
    assert_eq!(
        *limits,
        serde_json::json!({
            "memory": 67_108_864, "memory-high": 50_331_648, "memory-swap": 1_048_576, "cpu": 500_000,
            "cpu-weight": 50, "cpus": [0], "tasks": 20, "io-weight": 50,
            "io-read": {}, "io-write": {}, "io-read-operations": {}, "io-write-operations": {},
        })
    );
    let page = must("boxctl status small");
    for words in [
        "limit 64M, high 48M, swap 1M)",
        "(limit 0.5 cores, weight 50, on 0)",
        "(limit 20)",
        "IO: weight 50",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

/// `MemoryMax=` put on the unit would otherwise limit the supervisor, and silently do nothing to the box.
#[test]
fn limits_an_operator_puts_on_the_unit_reach_the_box() {
    define_script(
        "small",
        "cd /sys/fs/cgroup; for f in memory.max cpu.max pids.max; do echo $f $(cat $f); done; exec sleep infinity",
        "[resources]\nmemory = '64M'\ncpu = 0.5",
    );
    write(
        "/etc/systemd/system/box@small.service.d/limits.conf",
        "[Service]\nMemoryMax=48M\n",
    );
    must("systemctl daemon-reload; systemctl set-property --runtime box@small.service TasksMax=50");
    start("small");
    wait_for_line("small", "pids.max 50");
    let journal = journal("small");
    for line in ["memory.max 50331648", "cpu.max 50000 100000"] {
        assert!(
            journal.lines().any(|printed| printed == line),
            "{line}: {journal}"
        );
    }
    assert_eq!(property("box-small.scope", "MemoryMax"), "50331648");
    let remarks = crate::guest::status("small")["remarks"].to_string();
    assert!(remarks.contains("MemoryMax, TasksMax"), "{remarks}");
}

/// IO limits name a device of the host and arrive in the kernel. Where there is no device systemd passes over them in
/// silence: then the start fails, and names the limit.
#[test]
fn io_limits_arrive_in_the_kernel_or_are_refused() {
    define_script(
        "slowdisk",
        "sleep infinity",
        "[resources]\nio-read = { '/' = '10M' }\nio-write-operations = { '/' = 100 }",
    );
    start("slowdisk");
    let limits = must("cat /sys/fs/cgroup/box.slice/box-slowdisk.scope/io.max");
    assert!(limits.contains("rbps=10000000"), "{limits}");
    assert!(limits.contains("wiops=100"), "{limits}");
    let shown = &crate::guest::status("slowdisk")["limits"];
    let disk = shown["io-read"].as_object().expect("a table of devices");
    assert!(
        disk.iter()
            .all(|(device, rate)| device.starts_with("/dev/") && *rate == 10_000_000),
        "{shown}"
    );
    assert_eq!(disk.len(), 1, "{shown}");
    let page = must("boxctl status slowdisk");
    assert!(page.contains("reads 10M/s"), "{page}");
    assert!(page.contains("100 writes/s"), "{page}");

    define_script(
        "nodisk",
        "echo never",
        "[resources]\nio-read = { '/' = '10M', '/run' = '1M' }",
    );
    let journal = start_refused("nodisk");
    assert!(
        journal.contains("IOReadBandwidthMax") && journal.contains("/run lies on no block device"),
        "{journal}"
    );
    assert!(!journal.contains("never"), "{journal}");
    assert_eq!(property("box-nodisk.scope", "ActiveState"), "inactive");
}

/// A host without systemd: its limits are put in force through cgroups-rs, before the first instruction too. The
/// tests have systemd, which counts as absent where `/run` has nothing of it.
#[test]
fn limits_of_a_plain_cgroup_are_in_force_before_the_first_instruction() {
    let alone = |name: &str| {
        sh(&format!(
            "unshare -m sh -c 'mount -t tmpfs tmpfs /run && exec boxctl run {name}'"
        ))
    };
    define_script(
        "small",
        "cd /sys/fs/cgroup; for f in memory.max memory.high memory.swap.max cpu.max cpu.weight pids.max io.weight \
         cpuset.cpus io.max cgroup.procs; do echo $f $(cat $f); done; cat /proc/self/cgroup",
        &format!("{RESOURCES}\nio-read = {{ '/' = '10M' }}\nio-write-operations = {{ '/' = 100 }}"),
    );
    let ran = alone("small");
    assert_eq!(ran.status, 0, "{}\n{}", ran.out, ran.err);
    for line in IN_FORCE.into_iter().chain(["0::/"]) {
        assert!(
            ran.out.lines().any(|printed| printed == line),
            "{line}: {}",
            ran.out
        );
    }
    assert!(ran.out.contains("rbps=10000000"), "{}", ran.out);
    assert!(ran.out.contains("wiops=100"), "{}", ran.out);
    assert!(
        ran.err
            .contains("systemd does not run this host: the box gets a plain cgroup"),
        "{}",
        ran.err
    );

    define_script(
        "nodisk",
        "echo never",
        "[resources]\nio-read = { '/run' = '1M' }",
    );
    let ran = alone("nodisk");
    assert_ne!(ran.status, 0);
    assert_eq!(ran.out, "");
    assert!(
        ran.err.contains("IOReadBandwidthMax") && ran.err.contains("/run lies on no block device"),
        "{}",
        ran.err
    );
    assert_eq!(
        must("find /sys/fs/cgroup -name '*small*' -o -name '*nodisk*'"),
        ""
    );
}

/// The payload is put into its cgroup before its cgroup namespace is made: that cgroup is its root.
#[test]
fn the_cgroup_of_a_box_is_the_root_of_what_it_sees() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    assert_eq!(inside("web", "cat /proc/1/cgroup"), "0::/");
}

/// Of two deaths by SIGKILL only one is for want of memory: the journal and the status say so.
#[test]
fn an_oom_kill_is_named_as_such() {
    define_script(
        "greedy",
        "echo eating; exec tail /dev/zero",
        "[resources]\nmemory = '32M'\nmemory-swap = '0'",
    );
    start("greedy");
    wait_for_state(&unit("greedy"), "failed");
    let journal = journal("greedy");
    assert!(
        journal.to_lowercase().contains("out of memory"),
        "{journal}"
    );
    assert_eq!(property(&unit("greedy"), "ExecMainStatus"), "137");
    let end = &crate::guest::status("greedy")["last-end"];
    assert_eq!(end["result"], "oom-kill", "{end}");
    let text = property(&unit("greedy"), "StatusText");
    assert!(text.contains("out of memory (limit 32M)"), "{text}");
}

/// A fork bomb stays within its box: the host still works, and the box can be stopped.
#[test]
fn a_fork_bomb_is_held_by_the_task_limit() {
    define_script(
        "bomb",
        // A shell gives up at its first fork that fails.
        "exec python3 -c '
import os, time
while True:
    try:
        if os.fork() == 0: time.sleep(1000)
    except OSError:
        pass
'",
        "[resources]\ntasks = 30\n[stop]\ntimeout = '2s'",
    );
    start("bomb");
    let tasks = || {
        must("cat /sys/fs/cgroup/box.slice/box-bomb.scope/pids.current")
            .parse::<u32>()
            .expect("a number")
    };
    wait_for("the bomb reaches its limit", || {
        !must("grep -s max /sys/fs/cgroup/box.slice/box-bomb.scope/pids.events").ends_with(" 0")
    });
    assert!(tasks() <= 30);
    stop("bomb");
    assert_eq!(property("box-bomb.scope", "ActiveState"), "inactive");
}

/// An operator's drop-in on the unit must not be silently without effect on the box.
#[test]
fn a_limit_that_makes_no_sense_is_refused() {
    define_script("odd", "true", "[resources]\nmemory = 'lots'");
    let journal = start_refused("odd");
    assert!(journal.contains("lots"), "{journal}");
    assert!(journal.contains("memory"), "{journal}");
}
