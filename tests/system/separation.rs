//! Two boxes, and a box and its host: what one cannot see or do of the other.

use std::fs;

use crate::guest::{
    define, define_script, inside, must, pid, printed, refused, sh, small_root, start, status,
    stop, wait_for_line,
};

fn two_boxes() {
    for name in ["left", "right"] {
        define_script(
            name,
            &format!("echo mine > /tmp/{name}; echo ready; exec sleep infinity"),
            "",
        );
        start(name);
        wait_for_line(name, "ready");
    }
}

fn range(name: &str) -> std::ops::RangeInclusive<u64> {
    let ids = &status(name)["payload"]["ids"];
    let number = |key: &str| {
        ids[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key} in {ids}"))
    };
    number("first")..=number("last")
}

/// Root of a box is nobody on the host, and nobody in another box: no id is in two ranges, and each box gets the
/// same range at each start.
#[test]
fn two_boxes_never_share_an_id() {
    two_boxes();
    let (left, right) = (range("left"), range("right"));
    assert!(
        left.end() < right.start() || right.end() < left.start(),
        "{left:?} {right:?}"
    );
    assert_eq!(left.start() % 65536, 0);
    assert_eq!(left.end() - left.start(), 65535);
    assert!(
        *left.start() >= 524_288 && *left.end() <= 1_879_048_191,
        "{left:?}"
    );
    let host_uid = must(&format!("stat -c %u /proc/{}", pid("left")));
    assert_eq!(host_uid, left.start().to_string());
    assert_eq!(inside("left", "id -u"), "0");
    must("systemctl restart box@left");
    assert_eq!(range("left"), left);
}

/// Each kind of namespace is the box's own.
#[test]
fn every_namespace_is_the_boxs_own() {
    two_boxes();
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let of = |pid: &str| must(&format!("readlink /proc/{pid}/ns/{kind}"));
        let (host, left, right) = (
            of("1"),
            of(&pid("left").to_string()),
            of(&pid("right").to_string()),
        );
        assert!(
            host != left && left != right && host != right,
            "{kind}: {host} {left} {right}"
        );
    }
}

/// Processes, files, hostname, network and IPC objects of one box do not exist in the other.
#[test]
fn two_boxes_cannot_see_each_other() {
    two_boxes();
    assert_eq!(inside("left", "hostname"), "left");
    assert_eq!(inside("right", "hostname"), "right");
    // Of the other and of the host there is no process: first process, its sleep, and who asks.
    let processes = inside("left", "sh -c 'ls -d /proc/[0-9]* | wc -l'");
    assert!(
        processes.parse::<u32>().is_ok_and(|number| number <= 4),
        "{processes}"
    );
    assert_eq!(inside("left", "ls /tmp"), "left");
    assert_eq!(inside("right", "ls /tmp"), "right");
    assert!(!fs::exists("/tmp/left").expect("the host's /tmp can be asked"));
    let links = inside("left", "ls /sys/class/net");
    assert_eq!(links, "lo");
    assert_eq!(
        inside("left", "cat /sys/class/net/lo/operstate"),
        "unknown",
        "lo is up"
    );
    inside("left", "ipcmk -M 4096");
    assert!(inside("left", "ipcs -m").contains("4096"));
    assert!(!inside("right", "ipcs -m").contains("4096"));
    assert!(!must("ipcs -m").contains("4096"));
}

/// The network of the host, abstract sockets included, is out of reach.
#[test]
fn a_box_has_no_network_but_its_own_loopback() {
    two_boxes();
    assert!(inside("left", "ip addr show lo").contains("127.0.0.1"));
    inside(
        "left",
        "python3 -c 'import socket; server = socket.create_server((\"127.0.0.1\", 80)); socket.create_connection(server.getsockname())'",
    );
    let abstract_sockets = inside("left", "sh -c 'grep -c @ /proc/net/unix || true'");
    assert_eq!(abstract_sockets, "0");
}

/// No privilege the payload did not get: the kernel's own account of the first process.
#[test]
fn the_payload_has_only_the_privileges_of_its_profile() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    let state = must(&format!("cat /proc/{}/status", pid("web")));
    let field = |name: &str| {
        state
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name} in {state}"))
            .trim()
            .to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    let bounding = u64::from_str_radix(&field("CapBnd:"), 16).expect("a hexadecimal number");
    for (name, bit) in [
        ("NET_RAW", 13),
        ("SYS_MODULE", 16),
        ("SYS_RAWIO", 17),
        ("SYS_PTRACE", 19),
        ("SYS_ADMIN", 21),
        ("SYS_BOOT", 22),
        ("SYS_TIME", 25),
        ("MKNOD", 27),
        ("BPF", 39),
    ] {
        assert_eq!(bounding >> bit & 1, 0, "{name}: {state}");
    }
    assert_eq!(field("CapEff:"), field("CapBnd:"));
    assert_eq!(field("SigBlk:"), "0000000000000000");
    assert_eq!(field("SigIgn:"), "0000000000000000");
}

/// A descriptor that came along would be a way out of the box.
#[test]
fn the_payload_inherits_no_descriptor_and_no_keyring() {
    must("keyctl add user secret hidden @s || keyctl add user secret hidden @u");
    define_script(
        "web",
        "echo keys; cat /proc/keys; echo end; exec sleep infinity",
        "[security]\nunmask = ['/proc/keys']",
    );
    start("web");
    let descriptors = must(&format!("ls /proc/{}/fd", pid("web")));
    assert_eq!(
        descriptors.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2"]
    );
    // One of its own, in which nothing is. The kernel would not show it the host's.
    wait_for_line("web", "end");
    let printed = printed("web");
    assert!(
        matches!(&*printed, [_, only, _] if only.contains(" _ses") && only.contains(": empty")),
        "{printed:#?}"
    );
}

/// What an ordinary escape begins with is refused.
#[test]
fn a_box_cannot_mount_make_devices_or_write_to_the_hosts_kernel() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    for command in [
        "mount -t tmpfs none /mnt",
        "mknod /tmp/disk b 254 0",
        "sh -c 'echo 1 > /proc/sys/vm/drop_caches'",
        "sh -c 'echo host > /proc/sys/kernel/hostname; test $(hostname) = host'",
        "sh -c 'echo max > /sys/fs/cgroup/memory.max'",
        "dd if=/dev/vda of=/dev/null count=1",
        "dmesg",
    ] {
        refused(&format!("boxctl exec web -- {command}"));
    }
    assert_eq!(must("hostname"), "boxlab");
    // Written or refused: the machine would not be there to say so.
    let _ = sh("boxctl exec web -- sh -c 'echo b > /proc/sysrq-trigger'");
    must("sleep 1");
}

/// With `users = "host"` there is no user namespace, and everything else holds.
#[test]
fn a_box_with_the_hosts_ids_has_all_other_walls() {
    define_script("plain", "exec sleep infinity", "[security]\nusers = 'host'");
    start("plain");
    let pid = pid("plain");
    assert_eq!(must(&format!("stat -c %u /proc/{pid}")), "0");
    assert_eq!(
        must(&format!("readlink /proc/{pid}/ns/user")),
        must("readlink /proc/1/ns/user")
    );
    assert_ne!(
        must(&format!("readlink /proc/{pid}/ns/mnt")),
        must("readlink /proc/1/ns/mnt")
    );
    assert!(status("plain")["payload"]["ids"].is_null());
    stop("plain");
}

/// A private clock begins with the box.
#[test]
fn a_private_clock_begins_at_zero() {
    define_script(
        "young",
        "cut -d' ' -f1 /proc/uptime; exec sleep infinity",
        "[security]\nclock = 'private'",
    );
    start("young");
    let uptime = inside("young", "cut -d. -f1 /proc/uptime");
    assert!(
        uptime.parse::<u32>().is_ok_and(|seconds| seconds < 60),
        "{uptime}"
    );
    assert_ne!(
        must(&format!("readlink /proc/{}/ns/time", pid("young"))),
        must("readlink /proc/1/ns/time")
    );
}

/// The user of the definition is looked up in the box's own files, and its groups come along.
#[test]
fn the_user_is_looked_up_inside_the_box() {
    let root = small_root("web");
    define(
        "web",
        &format!(
            "command = ['/bin/sh', '-c', 'echo $(id -u) $(id -g) $(id -G | tr \" \" \"\\n\" | grep 44); exec sleep 1000']\nuser = 'web'\ngroups = ['extra']\n[root]\ndirectory = '{}'",
            root.display()
        ),
    );
    start("web");
    wait_for_line("web", "33 33 44");
    let base = *range("web").start();
    assert_eq!(
        must(&format!("stat -c %u /proc/{}", pid("web"))),
        (base + 33).to_string()
    );
    let effective = must(&format!("grep CapEff /proc/{}/status", pid("web")));
    assert!(effective.ends_with("0000000000000000"), "{effective}");
    assert_eq!(sh("boxctl exec web -- id -u").out, "33");
}
