//! A stop is certain: whatever the box does at that moment, it ends in its time, and nothing of it is left.

use crate::guest::{
    define_script, everything, journal, must, nothing_left, pid, property, refused, sh, start,
    stop, unit, wait_for, wait_for_line, wait_for_state,
};

const CGROUPS: &str = "/sys/fs/cgroup/box.slice";

fn processes(name: &str) -> usize {
    must(&format!(
        "cat {CGROUPS}/box-{name}.scope/cgroup.procs 2>/dev/null | wc -l"
    ))
    .parse()
    .expect("a number")
}

/// Neither a process nor a file nor a cgroup is left of it.
#[track_caller]
fn gone(name: &str) {
    let left = sh(&format!(
        "ls -d /run/boxd/{name} {CGROUPS}/box-{name}.scope 2>/dev/null"
    ));
    assert_eq!(left.out, "", "of {name}");
}

/// Ten boxes of every temper, stopped at once: one that tidies up, deaf ones, frozen ones, ones that fork faster than
/// anybody can kill them one by one, ones with many processes. Together they take as long as the slowest of them.
#[test]
fn ten_boxes_of_every_temper_are_stopped_at_once() {
    // As many processes as ever, never the same: each forks and ends. There is no limit of tasks.
    let forks = "exec perl -e '$SIG{CHLD} = \"IGNORE\"; $| = 1; print \"ready\\n\"; sleep 1 until -e \"/tmp/go\";
                 for (1..2) { next if fork; while (1) { exit if fork } }
                 while (1) { sleep 1000 }'";
    let flood = "echo ready; until [ -e /tmp/go ]; do sleep 1; done; exec yes 77777";
    let deaf = "trap '' TERM INT; setsid sleep 77777 & echo ready; while :; do sleep 1; done";
    let tidy = "trap 'echo tidied; exit 0' TERM; echo ready; while :; do sleep 0.2; done";
    let many =
        "i=0; while [ $i -lt 40 ]; do setsid sleep 77777 & i=$((i+1)); done; echo ready; wait";
    let tempers = [
        ("tidy", tidy),
        ("deaf", deaf),
        ("frozen", tidy),
        ("frozen-deaf", deaf),
        ("forks", forks),
        ("frozen-forks", forks),
        ("many", many),
        ("plain", "echo ready; exec sleep 77777"),
        ("flood", flood),
        ("ends", tidy),
    ];
    let names = tempers.map(|(name, _)| name);
    // As many tasks as a number can say, where anybody counts them.
    let tasks = match must("cat /sys/fs/cgroup/cgroup.controllers").contains("pids") {
        true => "[resources]\ntasks = 4194304",
        false => "",
    };
    for (name, script) in tempers {
        define_script(name, script, &format!("[stop]\ntimeout = '5s'\n{tasks}"));
    }
    must("systemctl daemon-reload");
    let units = names.map(unit).join(" ");
    must(&format!("systemctl start {units}"));
    for name in names {
        wait_for_line(name, "ready");
    }
    for name in ["frozen", "frozen-deaf"] {
        must(&format!("boxctl pause {name}"));
    }
    // These begin when all stand, for little else gets its turn then.
    must("for box in flood forks frozen-forks; do boxctl exec $box -- touch /tmp/go & done; wait");
    for name in ["forks", "frozen-forks"] {
        wait_for("processes that fork", || processes(name) > 1);
    }
    must("boxctl pause frozen-forks");
    let ends = pid("ends");
    must(&format!("kill -KILL {ends} & systemctl stop {units}; wait"));
    for name in names {
        gone(name);
        let state = property(&unit(name), "ActiveState");
        let deaf = name.ends_with("deaf");
        match name {
            // It may have been faster than the stop.
            "ends" => assert_ne!(state, "active"),
            _ => assert_eq!(state, if deaf { "failed" } else { "inactive" }, "{name}"),
        }
        if deaf {
            let text = property(&unit(name), "StatusText");
            assert!(text.contains("did not stop within 5s of SIGTERM"), "{text}");
        }
    }
    assert!(journal("frozen").lines().any(|line| line == "tidied"));
    assert_eq!(must("pgrep -f '[7]7777' | wc -l"), "0");
}

/// A process that sleeps in the kernel and cannot be killed, here in the write to a file system that is frozen: the
/// stop ends, says so, and the box is not started again until it is gone. A process that waits for its child to be
/// done, vfork(2), is in such a sleep too, but can be killed.
#[test]
fn a_process_that_cannot_be_killed_does_not_hold_up_its_stop_for_ever() {
    must(
        "dd if=/dev/zero of=/srv/ice.img bs=1M count=16 status=none; mkfs.ext4 -q /srv/ice.img; mkdir /srv/ice; \
         mount -o loop /srv/ice.img /srv/ice; chmod 777 /srv/ice",
    );
    define_script(
        "stuck",
        "trap 'exit 0' TERM; echo ready; until [ -e /tmp/go ]; do sleep 0.1; done; echo goes; echo x >/ice/file",
        "[[mount]]\nbind = '/srv/ice'\nat = '/ice'\n[stop]\ntimeout = '2s'",
    );
    // CLONE_VFORK and SIGCHLD.
    define_script(
        "vfork",
        "exec perl -e '$SIG{TERM} = sub { exit }; $| = 1; print \"ready\\n\";
         syscall(`uname -m` =~ /x86_64/ ? 56 : 220, 0x4011, 0, 0, 0, 0) == 0 and kill STOP => $$'",
        "[stop]\ntimeout = '2s'",
    );
    must("systemctl daemon-reload");
    start("vfork");
    start("stuck");
    let sleeps = |name| {
        let pid = pid(name);
        wait_for("a sleep in the kernel", || {
            must(&format!("cut -d' ' -f3 /proc/{pid}/stat")) == "D"
        });
    };
    sleeps("vfork");
    stop("vfork");
    assert_eq!(property(&unit("vfork"), "Result"), "exit-code");
    gone("vfork");

    wait_for_line("stuck", "ready");
    must("fsfreeze -f /srv/ice");
    must("boxctl exec stuck -- touch /tmp/go");
    wait_for_line("stuck", "goes");
    sleeps("stuck");
    let stopped = sh("timeout 80 systemctl stop box@stuck");
    assert_ne!(stopped.status, 124, "the stop never ends");
    assert_eq!(property(&unit("stuck"), "ActiveState"), "failed");
    let said = journal("stuck");
    assert!(
        said.contains("processes are left 10s after they were killed"),
        "{said}"
    );
    assert_eq!(processes("stuck"), 1);
    must("systemctl reset-failed box@stuck");
    refused("systemctl start box@stuck");
    let said = journal("stuck");
    assert!(
        said.contains("cannot end what is left of box stuck"),
        "{said}"
    );

    must("fsfreeze -u /srv/ice");
    wait_for("the end of the process", || processes("stuck") == 0);
    must("systemctl reset-failed box@stuck; rm -f /srv/ice/file");
    start("stuck");
    stop("stuck");
    gone("stuck");
}

/// A stop that comes while the box is launched, at any moment of that, and while it is waited for to be ready.
#[test]
fn a_stop_during_the_start_is_a_stop() {
    define_script(
        "web",
        "trap 'exit 0' TERM; echo begun; while :; do sleep 77777 & wait; done",
        "[ready]\nwhen = 'notify'\ntimeout = '10min'\n[restart]\npolicy = 'always'\nlimit-burst = 1000",
    );
    must("systemctl daemon-reload");
    must("systemctl start --no-block box@web");
    wait_for_line("web", "begun");
    stop("web");
    let before = everything();
    for step in 0..8 {
        // Spread over the launch and what follows, wherever that is on this machine.
        let moment = format!("{:.2}", f64::from(step * step) * 0.04);
        must(&format!(
            "systemctl start --no-block box@web; sleep {moment}; systemctl stop box@web"
        ));
        assert_eq!(
            property(&unit("web"), "ActiveState"),
            "inactive",
            "after {moment} s"
        );
        assert_eq!(
            must("pgrep -f '[s]leep 77777' | wc -l"),
            "0",
            "after {moment} s"
        );
        gone("web");
    }
    // Whoever waits for the start hears that it was called off.
    let start = std::thread::spawn(|| sh("systemctl start box@web"));
    wait_for_state(&unit("web"), "activating");
    stop("web");
    assert_ne!(start.join().expect("ends").status, 0);
    assert_eq!(property(&unit("web"), "ActiveState"), "inactive");
    nothing_left(&before);
}
