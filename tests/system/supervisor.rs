//! The supervisor may crash, and the box does not notice.

use crate::guest::{
    define_script, everything, journal, must, nothing_left, pid, printed, property, sh, start,
    status, stop, unit, wait_for, wait_for_line, wait_for_state, write,
};

fn ticking() {
    define_script(
        "tick",
        "i=0; while [ ! -e /tmp/end ]; do echo tick $i; i=$((i+1)); sleep 0.1; done; exit 7",
        "",
    );
    start("tick");
    wait_for_line("tick", "tick 3");
}

fn kill_the_supervisor() {
    let old = property(&unit("tick"), "MainPID");
    must(&format!("kill -KILL {old}"));
    wait_for("another supervisor", || {
        let new = property(&unit("tick"), "MainPID");
        property(&unit("tick"), "ActiveState") == "active" && new != old && new != "0"
    });
}

/// `kill -9` of the supervisor: same payload, another supervisor, not a line lost, not one twice.
#[test]
fn a_killed_supervisor_is_replaced_and_the_box_lives_on() {
    ticking();
    let payload = pid("tick");
    let since = status("tick")["payload"]["started"].clone();
    for _ in 0..2 {
        kill_the_supervisor();
        assert_eq!(pid("tick"), payload);
        assert_eq!(status("tick")["payload"]["started"], since);
        let seen = printed("tick").len();
        wait_for("more output", || printed("tick").len() > seen + 2);
    }
    assert_eq!(property("box-tick.scope", "ActiveState"), "active");
    let ticks: Vec<_> = printed("tick");
    for (number, line) in ticks.iter().enumerate() {
        assert_eq!(*line, format!("tick {number}"), "{ticks:#?}");
    }
    stop("tick");
    assert_eq!(property("box-tick.scope", "ActiveState"), "inactive");
    assert_eq!(sh("test -e /run/boxd/tick").status, 1);
}

/// The new supervisor is not the payload's parent; how the payload ended is still told, or said to be unknown.
#[test]
fn a_replaced_supervisor_reports_the_end_of_the_box() {
    ticking();
    kill_the_supervisor();
    // The box may be gone before the one who lets it go.
    sh("boxctl exec tick -- touch /tmp/end");
    wait_for_state(&unit("tick"), "failed");
    let status = property(&unit("tick"), "ExecMainStatus");
    // The kernel tells a stranger the exit status from 6.15 on.
    assert!(status == "7" || status == "255", "{status}");
    assert_eq!(property("box-tick.scope", "ActiveState"), "inactive");

    // One that has said that it ends has ended in order, whether anybody saw it or not.
    define_script(
        "leaving",
        "echo begun; while [ ! -e /tmp/end ]; do sleep 0.1; done; systemd-notify --stopping; exit 0",
        "[reload]\nnotify = true\nsignal = 'SIGHUP'",
    );
    start("leaving");
    wait_for_line("leaving", "begun");
    let old = property(&unit("leaving"), "MainPID");
    must(&format!("kill -KILL {old}"));
    wait_for("another supervisor", || {
        let new = property(&unit("leaving"), "MainPID");
        property(&unit("leaving"), "ActiveState") == "active" && new != old && new != "0"
    });
    sh("boxctl exec leaving -- touch /tmp/end");
    wait_for_state(&unit("leaving"), "inactive");
    assert_eq!(property(&unit("leaving"), "Result"), "success");
}

/// A supervisor killed while the box ends leaves nothing either.
#[test]
fn a_supervisor_killed_with_its_box_leaves_nothing() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    stop("web");
    let before = everything();
    start("web");
    let (supervisor, payload) = (property(&unit("web"), "MainPID"), pid("web"));
    must(&format!("kill -KILL {supervisor} {payload}"));
    wait_for("the end", || {
        ["failed", "inactive"].contains(&property(&unit("web"), "ActiveState").as_str())
    });
    must("systemctl reset-failed");
    nothing_left(&before);
}

/// Nothing waits for `RestartSec=`, which is the box's, when a supervisor dies; no start limit leaves the box
/// without one, and the boxes that require it do not notice. Whoever stops or restarts the box meanwhile gets what
/// they want: no box, or a new one.
#[test]
fn supervisors_that_die_in_a_row_cost_the_box_nothing() {
    define_script("web", "exec sleep infinity", "requires = ['tick']");
    define_script(
        "tick",
        "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done",
        "[restart]\npolicy = 'always'\ndelay = '10min'",
    );
    must("systemctl daemon-reload");
    start("tick");
    stop("tick");
    let before = everything();
    start("web");
    wait_for_line("tick", "tick 3");
    let (tick, web) = (pid("tick"), pid("web"));
    for _ in 0..8 {
        kill_the_supervisor();
    }
    assert_eq!((pid("tick"), pid("web")), (tick, web));
    assert!(
        journal("tick").contains("8 supervisors in a row"),
        "{}",
        journal("tick")
    );
    let seen = printed("tick").len();
    wait_for("more output", || printed("tick").len() > seen + 2);

    // By now the next one is waited for, for seconds.
    let supervisor = property(&unit("tick"), "MainPID");
    must(&format!(
        "kill -KILL {supervisor}; systemctl restart box@tick"
    ));
    assert_ne!(pid("tick"), tick, "a restart gives a new box");
    assert_eq!(sh(&format!("kill -0 {tick}")).status, 1);

    stop("web");
    let supervisor = property(&unit("tick"), "MainPID");
    must(&format!("kill -KILL {supervisor}; systemctl stop box@tick"));
    must("systemctl reset-failed");
    assert_eq!(property(&unit("tick"), "ActiveState"), "inactive");
    nothing_left(&before);
}

/// A stop that comes when the next supervisor is called already, and has not begun: systemd then begins nothing, and
/// nobody but those who called it can end the box. A restart gives a new box.
#[test]
fn a_stop_between_two_supervisors_ends_the_box() {
    const HELD: &str = "ExecStopPost=/bin/sh -c 'until test -e /run/go-on; do sleep 0.1; done'\n";
    const AGAIN: &str = "ExecStopPost=/usr/bin/boxd clean --again %i\n";
    for (name, after_the_call) in [
        ("early", format!("{HELD}{AGAIN}")),
        ("late", format!("{AGAIN}{HELD}")),
    ] {
        define_script(name, "exec sleep infinity", "");
        write(
            &format!("/etc/systemd/system/{}.d/held.conf", unit(name)),
            &format!(
                "[Service]\nExecStopPost=\nExecStopPost=-/usr/bin/boxd clean %i\n{after_the_call}"
            ),
        );
    }
    must("systemctl daemon-reload; touch /run/go-on");
    for name in ["early", "late"] {
        start(name);
        stop(name);
    }
    let before = everything();
    for (name, operation) in [("early", "stop"), ("late", "stop"), ("early", "restart")] {
        start(name);
        let payload = pid(name);
        must("rm -f /run/go-on");
        let supervisor = property(&unit(name), "MainPID");
        must(&format!("kill -KILL {supervisor}"));
        let file = match name {
            "early" => "called",
            _ => "left",
        };
        wait_for("the call", || {
            sh(&format!("test -e /run/boxd/{name}/{file}")).status == 0
        });
        let called = match name {
            "early" => "start",
            _ => "box-clean@late",
        };
        wait_for("the job of the call", || {
            must("systemctl list-jobs --no-legend").contains(called)
        });
        must(&format!("systemctl {operation} --no-block box@{name}"));
        must("touch /run/go-on");
        if operation == "restart" {
            wait_for("another box", || {
                property(&unit(name), "ActiveState") == "active"
                    && sh(&format!("kill -0 {payload}")).status == 1
            });
            stop(name);
            nothing_left(&before);
            continue;
        }
        wait_for_state(&unit(name), "inactive");
        nothing_left(&before);
        // There is nothing that a new box could trip over.
        start(name);
        stop(name);
    }
}

/// A box needs nothing but its kernel. systemd that reads its units anew or is executed anew, a bus and a journal that
/// are restarted or killed, a journal whose disk is full: afterwards the box and its supervisor are what they were, and
/// its output goes on. Not a line comes twice, and only what a journal has taken and could not write is missing.
#[test]
fn a_box_does_not_notice_what_happens_around_it() {
    const JOURNAL: &str = "/run/log/journal";
    const CONFIGURATION: &str = "/run/systemd/journald.conf.d/volatile.conf";
    write(
        CONFIGURATION,
        "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n",
    );
    must(&format!(
        "mkdir -p {JOURNAL}; mount -t tmpfs -o size=64m tmpfs {JOURNAL}; systemctl restart systemd-journald"
    ));
    define_script(
        "calm",
        "i=0; while :; do echo $i > /tmp/number; echo tick $i; i=$((i+1)); sleep 0.1; done",
        "",
    );
    start("calm");
    wait_for_line("calm", "tick 3");
    let supervisor = property(&unit("calm"), "MainPID");
    let payload = pid("calm");
    let ticks = || -> Vec<u32> {
        let numbers = printed("calm").into_iter().map(|line| {
            let number = line.strip_prefix("tick ").expect("nothing else");
            number.parse().expect("a number")
        });
        numbers.collect()
    };
    let mut lost = 0;
    for (event, may_be_lost) in [
        ("systemctl daemon-reload", 0),
        ("systemctl daemon-reexec", 0),
        ("systemctl restart dbus.service", 0),
        ("systemctl kill --signal=KILL dbus.service", 0),
        ("systemctl restart systemd-journald", 0),
        // The one it is just writing.
        ("systemctl kill --signal=KILL systemd-journald", 1),
    ] {
        must(event);
        lost += may_be_lost;
        let seen = ticks().last().copied().unwrap_or(0);
        wait_for(&format!("output after {event}"), || {
            ticks().last().is_some_and(|last| *last > seen + 5)
        });
        assert_eq!(property(&unit("calm"), "MainPID"), supervisor, "{event}");
        assert_eq!(property(&unit("calm"), "ActiveState"), "active", "{event}");
    }
    let all = ticks();
    let missing = all.last().expect("some") + 1 - all.len() as u32;
    assert!(missing <= lost, "{all:?}");
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");

    // The journal may make room again at once, by removing what is old.
    let filled = sh(&format!("dd if=/dev/zero of={JOURNAL}/full bs=64k"));
    assert!(filled.err.contains("No space left"), "{}", filled.err);
    // What it has set aside for the file it writes is of no use to it any more.
    sh("journalctl --rotate");
    let number = || -> u32 {
        let number = must(&format!("cat /proc/{payload}/root/tmp/number"));
        number.parse().unwrap_or(0)
    };
    let before = number();
    wait_for("a box that goes on", || number() > before + 20);
    must(&format!("rm {JOURNAL}/full"));
    let seen = number();
    wait_for("output after a full disk", || {
        ticks().last().is_some_and(|last| *last > seen)
    });
    let all = ticks();
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    assert_eq!(property(&unit("calm"), "MainPID"), supervisor);
    assert_eq!(pid("calm"), payload);
    stop("calm");
    assert_eq!(property(&unit("calm"), "Result"), "success");
    must(&format!(
        "rm {CONFIGURATION}; umount --lazy {JOURNAL}; systemctl restart systemd-journald"
    ));
}

/// What has it in its power to change a host is not in that of a supervisor, which reads what its box writes: not after
/// an upgrade in place either. One that took over may learn how the box ends.
#[test]
fn a_supervisor_keeps_no_more_power_than_it_needs() {
    let of = |name: &str| {
        let supervisor = property(&unit(name), "MainPID");
        must(&format!(
            "sed -nE 's/^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):[[:space:]]*0*/\\1 /p' \
             /proc/{supervisor}/status | tr '\\n' ' '"
        ))
    };
    const LEFT: &str = "CapInh  CapPrm 24 CapEff 24 CapBnd 24 CapAmb  NoNewPrivs 1 Seccomp 2";
    ticking();
    assert_eq!(of("tick"), LEFT);
    let main = property(&unit("tick"), "MainPID");
    for round in 1..=2 {
        must("systemctl kill --kill-whom=main --signal=USR1 box@tick");
        wait_for("the next supervisor", || {
            journal("tick")
                .matches("supervision was taken over")
                .count()
                == round
        });
        assert_eq!(property(&unit("tick"), "MainPID"), main);
        assert_eq!(of("tick"), LEFT);
    }
    // One that brings its libraries along executes nothing but what lies beside it: a script is read by another program.
    const PROGRAM: &str = "/usr/lib/boxd/box-supervisor";
    // Built for one machine alone, it may load what lies in /usr.
    if sh(&format!("head -c 4096 {PROGRAM} | grep -q ld-linux")).status != 0 {
        let old = property(&unit("tick"), "MainPID");
        must(&format!("cp -p {PROGRAM} {PROGRAM}.itself"));
        write(
            &format!("{PROGRAM}.new"),
            &format!("#!/bin/sh\nexec {PROGRAM}.itself \"$@\"\n"),
        );
        // As a package replaces it.
        must(&format!(
            "chmod 755 {PROGRAM}.new; mv {PROGRAM}.new {PROGRAM}"
        ));
        must("systemctl kill --kill-whom=main --signal=USR1 box@tick");
        wait_for("the one outside of the walls", || {
            let new = property(&unit("tick"), "MainPID");
            property(&unit("tick"), "ActiveState") == "active" && new != old && new != "0"
        });
        let said = journal("tick");
        assert!(
            said.contains("cannot become the supervisor that is installed"),
            "{said}"
        );
        must(&format!("mv {PROGRAM}.itself {PROGRAM}"));
    }
    let seen = printed("tick").len();
    wait_for("more output", || printed("tick").len() > seen + 2);
    kill_the_supervisor();
    wait_for("the heir's walls", || {
        of("tick") == LEFT.replace(" 24", " 80024")
    });

    stop("tick");
}

/// A box is asked how it is by a process that its supervisor cannot become and that does not read what the box writes.
/// It lives as long as the supervisor, upgrades in place included, and not longer; one that is killed costs the box
/// nothing.
#[test]
fn a_supervisor_that_asks_its_box_has_no_power_over_it() {
    let powers = |process: &str| {
        must(&format!(
            "sed -nE 's/^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):[[:space:]]*0*/\\1 /p' /proc/{process}/status |
             tr '\\n' ' '"
        ))
    };
    const LEFT: &str = "CapPrm 24 CapEff 24 CapBnd 24 NoNewPrivs 1 Seccomp 2";
    define_script(
        "asked",
        "exec sleep infinity",
        "[ready]\nwhen = 'healthy'\n[health]\ncommand = ['/bin/sh', '-c', 'echo well; sleep 1000 >&- 2>&- &']\n\
         interval = '200ms'",
    );
    let health = || status("asked")["health"].clone();
    let goes_on = || {
        let before = health()["probes"].clone();
        wait_for("another answer", || {
            let now = health()["probes"].clone();
            now != before && !now.as_array().is_none_or(Vec::is_empty)
        });
    };
    // What is about to become a probe has its name for a moment, and is younger.
    let asker = || sh("pgrep -o -x box-asker").out;
    start("asked");
    let (payload, supervisor, first) = (pid("asked"), property(&unit("asked"), "MainPID"), asker());
    assert_eq!(powers(&supervisor), LEFT);
    let of_the_asker = powers(&first);
    assert!(!of_the_asker.contains("Seccomp 2"), "{of_the_asker}");
    // Nothing of the box's is open there.
    assert_eq!(
        must(&format!("ls -l /proc/{first}/fd | grep -c pipe:")),
        "1"
    );
    wait_for("enough answers", || {
        health()["probes"]
            .as_array()
            .is_some_and(|probes| probes.len() == 5)
    });
    let since = health()["since"].clone();

    must("systemctl kill --kill-whom=main --signal=USR1 box@asked");
    wait_for("the next supervisor", || {
        journal("asked").contains("supervision was taken over")
    });
    goes_on();
    assert_eq!(
        (property(&unit("asked"), "MainPID"), asker()),
        (supervisor.clone(), first.clone())
    );
    assert_eq!(powers(&supervisor), LEFT);
    // What was known of it is known.
    assert_eq!(
        (health()["since"].clone(), health()["state"].clone()),
        (since, "healthy".into())
    );

    must(&format!("kill -KILL {first}"));
    wait_for("another supervisor", || {
        let new = property(&unit("asked"), "MainPID");
        property(&unit("asked"), "ActiveState") == "active" && new != supervisor && new != "0"
    });
    assert!(journal("asked").contains("the process that asks the box has ended"));
    goes_on();
    assert_eq!(pid("asked"), payload);
    let second = asker();
    assert_ne!(second, first);

    let supervisor = property(&unit("asked"), "MainPID");
    must(&format!("kill -KILL {supervisor}"));
    wait_for("no asker without its supervisor", || {
        sh(&format!("test -e /proc/{second}")).status != 0
    });
    goes_on();
    assert_eq!(pid("asked"), payload);
    let third = asker();
    stop("asked");
    assert_eq!(sh(&format!("test -e /proc/{third}")).status, 1);
    assert_eq!(sh("pgrep -x box-asker; pgrep -fx 'sleep 1000'").out, "");
}
