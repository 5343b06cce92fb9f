//! Many at once and many after each other. Tests here get more time.

mod agent;
mod applying;
mod bus;
mod instances;

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::{
    define, define_script, everything, inside, journal, must, nothing_left, property, sh, snapshot,
    start, status, stop, unit, wait_for, wait_for_state,
};
use crate::machines::install_machined;
use crate::terminal::Operator;

/// A host that boots starts all its boxes at the same moment: all come up, none shares an id.
#[test]
fn twenty_boxes_start_at_once() {
    let names: Vec<String> = (0..20).map(|number| format!("many-{number}")).collect();
    for name in &names {
        define_script(name, "exec sleep infinity", "");
    }
    let units = names
        .iter()
        .map(|name| unit(name))
        .collect::<Vec<_>>()
        .join(" ");
    must(&format!("systemctl start {units}"));
    let mut ids: Vec<u64> = names
        .iter()
        .map(|name| {
            assert_eq!(property(&unit(name), "ActiveState"), "active", "{name}");
            status(name)["payload"]["ids"]["first"]
                .as_u64()
                .expect("a number")
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "{ids:?}");
    must(&format!("systemctl stop {units}"));
    assert_eq!(must("find /sys/fs/cgroup -name 'box-many*' | wc -l"), "0");
}

/// As many as an emulated machine gets through in some minutes.
const CYCLES: usize = 200;

/// A box that restarts for years must not wear its host down: after many cycles mounts, namespaces, cgroups,
/// units, descriptors, keyrings and files are exactly what they were.
#[test]
fn many_cycles_leave_nothing_behind() {
    define_script(
        "web",
        "exec sleep infinity",
        "[root]\nwrites = 'keep'\n[resources]\nmemory = '64M'\n[restart]\nlimit-burst = 10000\nlimit-interval = '1s'",
    );
    must("systemctl daemon-reload");
    start("web");
    // What must go is seen while it is there.
    let running = snapshot();
    let keys = |seen: &BTreeSet<String>| {
        let of_boxes = |line: &&String| line.starts_with("keys of user");
        seen.iter().filter(of_boxes).count()
    };
    assert_eq!(keys(&running), 1, "{running:#?}");
    stop("web");
    let before = everything();
    assert_eq!(keys(&before), 0, "{before:#?}");
    let objects = || -> BTreeMap<String, i64> {
        must("awk '$1 == \"net_namespace\" || $1 == \"mnt_cache\" { print $1, $2 }' /proc/slabinfo")
            .lines()
            .map(|line| {
                let (name, number) = line.split_once(' ').expect("two words");
                (name.to_owned(), number.parse().expect("a number"))
            })
            .collect()
    };
    let kernel = objects();
    for _ in 0..CYCLES {
        must("systemctl start box@web && systemctl stop box@web");
    }
    nothing_left(&before);
    // Namespaces and mounts nobody can name any more would still be the kernel's. Its caches are inexact and
    // emptied late, so this only says that not every cycle lost a namespace, or a root with its dozens of mounts.
    wait_for("the end of namespaces and mounts", || {
        objects().iter().all(|(name, now)| {
            let each = if name == "mnt_cache" { 10 } else { 1 };
            now - kernel[name] < each * CYCLES as i64
        })
    });
}

/// `boxd run` killed at any moment: no orphan, no leftover, the next start works.
#[test]
fn a_launch_killed_at_any_moment_leaves_nothing() {
    define_script("web", "exec sleep 77777", "");
    start("web");
    stop("web");
    let before = everything();
    for step in 0..25 {
        let _ = sh("systemctl start --no-block box@web");
        // Spread over the whole launch: the moments differ with every machine anyway.
        let delay = f64::from(step) * 0.03;
        let _ = sh(&format!(
            "sleep {delay}; pid=$(systemctl show --value -p MainPID box@web); test \"$pid\" != 0 && kill -KILL $pid"
        ));
        wait_for("the start has ended", || {
            !["activating", "deactivating"]
                .contains(&property(&unit("web"), "ActiveState").as_str())
        });
        must("systemctl stop box@web; systemctl reset-failed");
        assert_eq!(
            must("pgrep -f '[s]leep 77777' | wc -l"),
            "0",
            "after {delay} s"
        );
        assert_eq!(
            must("find /sys/fs/cgroup -name box-web.scope | wc -l"),
            "0",
            "after {delay} s"
        );
    }
    nothing_left(&before);
    start("web");
    assert_eq!(property(&unit("web"), "ActiveState"), "active");
}

/// A Debian with systemd as its own pid 1: it comes up without a failed unit, has its part of the cgroup tree, a
/// journal and a console to itself, and ends and comes back as it wishes itself.
#[test]
fn a_box_boots_a_debian_of_its_own() {
    must(
        "mkdir -p /srv/debian/proc /srv/debian/sys /srv/debian/dev /srv/debian/run /srv/debian/tmp /srv/debian/var/tmp
        for part in bin sbin lib lib64; do test ! -e /$part || cp -a /$part /srv/debian/; done
        cp -ax /usr /etc /root /srv/debian/
        mkdir -p /srv/debian/var/log/journal && cp -a /var/lib /srv/debian/var/
        rm -rf /srv/debian/etc/boxd /srv/debian/var/lib/boxd /srv/debian/var/lib/systemd/coredump
        rm -f /srv/debian/etc/machine-id /srv/debian/etc/fstab /srv/debian/etc/systemd/system/lab*
        find /srv/debian/etc/systemd/system -name 'lab*' -delete",
    );
    define(
        "debian",
        "command = ['/sbin/init']\nprofile = 'system'\ntty = true\n[root]\ndirectory = '/srv/debian'\n[stop]\ntimeout = '10min'\n\
         [credentials]\ngreeting = { file = '/srv/greeting' }",
    );
    install_machined();
    must("umask 077; printf hello > /srv/greeting; systemctl daemon-reload");
    let comes_up = |after: i64| {
        let mut first = 0;
        wait_for("another life of the box", || {
            first = status("debian")["payload"]["pid"].as_i64().unwrap_or(0);
            first != 0 && first != after
        });
        // It goes on starting for minutes on an emulated machine.
        for _ in 0..20 {
            let ran = sh("boxctl exec debian -- timeout 80 systemctl is-system-running --wait");
            if ran.out == "running" {
                return first;
            }
            assert!(
                !["degraded", "maintenance"].contains(&ran.out.as_str()),
                "{}\n{}",
                ran.out,
                sh("boxctl exec debian -- systemctl --no-pager --failed").out
            );
            std::thread::sleep(std::time::Duration::from_secs(2));
        }
        panic!(
            "not running: {}",
            sh("boxctl exec debian -- systemctl --no-pager list-jobs").out
        );
    };
    start("debian");
    let first = comes_up(0);
    assert_eq!(inside("debian", "cat /proc/1/comm"), "systemd");
    // What it was told of itself is what it believes.
    let id = inside("debian", "cat /etc/machine-id");
    assert_eq!(
        inside("debian", "sh -c 'tr -d - < /run/host/container-uuid'"),
        id
    );
    assert_ne!(id, must("cat /etc/machine-id"));
    assert_eq!(inside("debian", "systemd-detect-virt"), "container-other");
    assert_eq!(
        inside("debian", "systemd-creds --system cat greeting --newline=no"),
        "hello"
    );
    // Its services have groups of their own in the part of the tree that is its root's, and limits hold there.
    inside(
        "debian",
        "systemd-run --unit=inner -p TasksMax=7 -p User=daemon sleep infinity",
    );
    let group = "/sys/fs/cgroup/box.slice/box-debian.scope/system.slice/inner.service";
    assert_eq!(must(&format!("wc -l < {group}/cgroup.procs")), "1");
    if fs_has(&format!("{group}/pids.max")) {
        assert_eq!(must(&format!("cat {group}/pids.max")), "7");
    }
    inside("debian", "logger -t inner its-own-journal");
    wait_for("its journal", || {
        inside("debian", "journalctl -t inner -o cat --no-pager").contains("its-own-journal")
    });
    // The tools of the host for machines reach into it.
    let out = |command: &str| sh(command).out;
    assert_eq!(out("systemctl -M debian is-system-running"), "running");
    assert_eq!(
        out("systemctl -M debian show --value -p TasksMax inner"),
        "7"
    );
    let lines = out("journalctl -M debian -t inner -o cat --no-pager");
    assert_eq!(lines, "its-own-journal");
    let shell = out(
        "machinectl -q shell root@debian /bin/sh -c 'echo $(cat /proc/1/comm) $(id -u) $(hostname)'",
    );
    assert_eq!(shell, "systemd 0 debian");
    let page = must("machinectl status --no-pager debian");
    for word in ["box-debian.scope", "OS: Debian", "UID Shift: "] {
        assert!(page.contains(word), "{word}: {page}");
    }

    // Its console is a terminal at which one logs in, as at any machine's.
    let mut operator = Operator::attach("debian");
    operator.sees("login: ");
    operator.types("root\r");
    operator.sees("# ");
    operator.types("echo at $(tty) as $(id -un), $((6 * 7))\r");
    operator.sees("at /dev/console as root, 42");
    operator.types("exit\r");
    operator.sees("login: ");
    drop(operator);

    // A reboot is another life, whatever [restart] says; nothing of the first is left.
    let _ = sh("boxctl exec debian -- systemctl reboot");
    let second = comes_up(first);
    assert_eq!(
        sh("boxctl exec debian -- systemctl is-active inner").out,
        "inactive"
    );
    assert_eq!(property(&unit("debian"), "NRestarts"), "1");
    assert!(journal("debian").contains("box debian reboots"));

    // Powering off is an end like any other, and no failure.
    let _ = sh("boxctl exec debian -- systemctl poweroff");
    wait_for_state(&unit("debian"), "inactive");
    assert_eq!(property(&unit("debian"), "Result"), "success");
    assert_eq!(sh(&format!("kill -0 {second}")).status, 1);

    // And a stop asks its init to go down, in order.
    start("debian");
    comes_up(second);
    stop("debian");
    assert_eq!(property(&unit("debian"), "Result"), "success");
    assert!(
        journal("debian")
            .lines()
            .rev()
            .take(5)
            .any(|line| line == "box debian powered off")
    );
}

fn fs_has(path: &str) -> bool {
    std::path::Path::new(path).exists()
}
