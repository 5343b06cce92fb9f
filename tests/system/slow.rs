//! Many at once and many after each other. Tests here get more time.

use std::collections::BTreeMap;

use crate::guest::{
    define_script, everything, must, nothing_left, property, sh, start, status, stop, unit,
    wait_for,
};

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
    stop("web");
    let before = everything();
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
