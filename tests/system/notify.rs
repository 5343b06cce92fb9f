//! Boxes that speak for themselves: readiness, watchdog and reload by sd_notify(3).

use crate::guest::{
    define, define_script, everything, journal, must, nothing_left, pid, property, refused, sh,
    start, start_refused, stop, unit, wait_for, wait_for_line, wait_for_state,
};

const BY_NOTIFY: &str = "[ready]\nwhen = 'notify'\n";

fn status_text(name: &str) -> String {
    property(&unit(name), "StatusText")
}

/// Begins a start that waits, and returns when the box itself runs.
fn begin(name: &str) {
    must(&format!("systemctl start --no-block box@{name}"));
    wait_for_line(name, "begun");
    assert_eq!(property(&unit(name), "ActiveState"), "activating");
}

/// Lets a waiting script go on.
fn go_on(name: &str, file: &str) {
    must(&format!("boxctl exec {name} -- touch /tmp/{file}"));
}

fn kill_the_supervisor(name: &str) {
    let old = property(&unit(name), "MainPID");
    must(&format!("kill -KILL {old}"));
    wait_for("another supervisor", || {
        let new = property(&unit(name), "MainPID");
        new != old && new != "0" && status_text(name).starts_with("starting")
    });
}

/// systemd hears READY=1 when the box says it and no sooner: not from a stranger, and not because its supervisor was
/// killed. What else the box says is passed on, harmless.
#[test]
fn a_box_is_ready_when_it_says_so() {
    // What the first start makes for good.
    define_script("web", "exec sleep infinity", "");
    start("web");
    stop("web");
    let before = everything();
    define_script(
        "web",
        "trap 'exit 0' TERM; echo begun; echo \"$NOTIFY_SOCKET ${WATCHDOG_USEC-none}\"\n\
         while [ ! -e /tmp/go ]; do sleep 0.1; done\n\
         systemd-notify --ready --status=\"$(printf 'serving\\033[2J')\"\n\
         while [ ! -e /tmp/more ]; do sleep 0.1; done\n\
         systemd-notify --pid=1 STATUS= ERRNO=2 FDSTORE=1 MAINPID=1\n\
         while [ ! -e /tmp/end ]; do sleep 0.1; done\n\
         systemd-notify --stopping; while [ ! -e /tmp/out ]; do sleep 0.1; done",
        &format!("{BY_NOTIFY}timeout = '10min'\n[stop]\ntimeout = '80s'\n"),
    );
    begin("web");
    wait_for_line("web", "/run/host/notify none");
    let status = status_text("web");
    assert!(
        status.starts_with("starting: waits for READY=1 from the box, for "),
        "{status}"
    );
    // Nobody but root can reach the socket from outside, and root is not believed.
    must("NOTIFY_SOCKET=/run/boxd/web/notify systemd-notify --ready");
    wait_for("a stranger in the journal", || {
        journal("web").contains("a message in its name was ignored: it comes from process")
    });
    assert_eq!(
        sh("setpriv --reuid=1 test -e /run/boxd/web/notify").status,
        1
    );
    let payload = pid("web");
    kill_the_supervisor("web");
    assert_eq!(property(&unit("web"), "ActiveState"), "activating");
    assert_eq!(pid("web"), payload);

    // Commands that come in later do not speak in its name by accident.
    assert_eq!(
        must("boxctl exec web -- sh -c 'echo ${NOTIFY_SOCKET-none}'"),
        "none"
    );
    go_on("web", "go");
    wait_for_state(&unit("web"), "active");
    assert_eq!(status_text("web"), "serving [2J");
    assert!(journal("web").contains("box web is ready"));
    // systemd forgets it with the supervisor, the next one knows it.
    let old = property(&unit("web"), "MainPID");
    must(&format!("kill -KILL {old}"));
    wait_for("the status again", || {
        let new = property(&unit("web"), "MainPID");
        new != old && new != "0" && status_text("web") == "serving [2J"
    });
    go_on("web", "more");
    wait_for("the error it tells", || {
        property(&unit("web"), "StatusErrno") == "2"
    });
    wait_for("no status of its own", || {
        status_text("web").starts_with("running, pid ")
    });
    assert_eq!(property(&unit("web"), "MainPID").parse(), Ok(supervisor()));

    // It says that it ends, and does; begun anew, as kernels before 6.15 tell the end only to who began it.
    stop("web");
    assert_eq!(property(&unit("web"), "Result"), "success");
    must("systemctl start --no-block box@web");
    wait_for("a box to let go", || {
        sh("boxctl exec web -- touch /tmp/go /tmp/more /tmp/end").status == 0
    });
    wait_for_state(&unit("web"), "deactivating");
    assert!(status_text("web").starts_with("stopping: the box says so itself"));
    // The box may be gone before the one who lets it go.
    sh("boxctl exec web -- touch /tmp/out");
    wait_for_state(&unit("web"), "inactive");
    assert_eq!(property(&unit("web"), "Result"), "success");
    nothing_left(&before);
}

fn supervisor() -> u32 {
    must("pgrep -x box-supervisor").parse().expect("one")
}

/// A start that fails says what was waited for; systemd's result is `timeout` when the time was over, and a box that
/// asks for more time gets it. A stop that comes during the start is a stop.
#[test]
fn a_box_that_does_not_become_ready_fails_its_start() {
    define_script(
        "late",
        "systemd-notify STATUS='at step 3'; trap 'echo asked; exit 0' TERM; while :; do sleep 0.1; done",
        &format!("{BY_NOTIFY}timeout = '15s'\n"),
    );
    // The time for a start is systemd's to know beforehand.
    must("systemctl daemon-reload");
    let said = start_refused("late");
    assert_eq!(property(&unit("late"), "Result"), "timeout");
    assert!(
        said.contains(
            "box late did not say READY=1 within the timeout in [ready] of its definition"
        ),
        "{said}"
    );
    assert!(said.lines().any(|line| line == "asked"), "{said}");
    assert!(
        status_text("late").starts_with("was ended: it did not say READY=1"),
        "{}",
        status_text("late")
    );

    // The time of a start begins anew for systemd with another supervisor, but not for the box.
    define_script(
        "lost",
        "echo begun; trap 'exit 0' TERM; while :; do sleep 0.1; done",
        &format!("{BY_NOTIFY}timeout = '40s'\n"),
    );
    must("systemctl daemon-reload");
    begin("lost");
    kill_the_supervisor("lost");
    wait_for_state(&unit("lost"), "failed");
    let page = sh("boxctl status --json lost").out;
    assert!(page.contains("\"result\": \"timeout\""), "{page}");
    assert!(
        status_text("lost").starts_with("was ended: it did not say READY=1"),
        "{}",
        status_text("lost")
    );

    define_script("short", "exit 3", BY_NOTIFY);
    let said = start_refused("short");
    assert!(
        said.contains("box short ended with exit status 3 before it was ready"),
        "{said}"
    );
    define_script("silent", "exit 0", BY_NOTIFY);
    let said = start_refused("silent");
    assert_eq!(property(&unit("silent"), "Result"), "protocol");
    assert!(
        said.contains("box silent ended with exit status 0 before it was ready"),
        "{said}"
    );

    define_script(
        "more",
        "echo begun; systemd-notify EXTEND_TIMEOUT_USEC=600000000\n\
         while [ ! -e /tmp/go ]; do sleep 0.1; done; systemd-notify --ready; sleep 1000",
        &format!("{BY_NOTIFY}timeout = '30s'\n"),
    );
    must("systemctl daemon-reload");
    begin("more");
    kill_the_supervisor("more");
    let status = status_text("more");
    let left = status
        .split("for ")
        .last()
        .and_then(|left| left.split('.').next()?.parse::<u32>().ok());
    assert!(left.is_some_and(|left| left > 60), "{status}");
    go_on("more", "go");
    wait_for_state(&unit("more"), "active");
    stop("more");

    define_script(
        "wait",
        "echo begun; trap 'exit 0' TERM; while :; do sleep 0.1; done",
        BY_NOTIFY,
    );
    begin("wait");
    stop("wait");
    assert_eq!(property(&unit("wait"), "ActiveState"), "inactive");
    assert_eq!(sh("test -e /run/boxd/wait").status, 1);
}

/// A box that is no longer heard of is ended, and so told that `Restart=on-watchdog` follows. The supervisor has a
/// watchdog too; when that bites, the box does not notice.
#[test]
fn a_watchdog_ends_a_box_that_hangs_and_no_other() {
    // The second one is watched by the next supervisor.
    for name in ["dog", "cub"] {
        define_script(
            name,
            "echo \"$WATCHDOG_PID $$ $WATCHDOG_USEC\"; i=0\n\
             while [ $i -lt 4 ]; do systemd-notify WATCHDOG=1; i=$((i+1)); sleep 3; done\n\
             echo hangs; sleep 1000",
            "[watchdog]\ntimeout = '10s'\n[restart]\npolicy = 'on-watchdog'\ndelay = '10min'\n",
        );
    }
    must("systemctl daemon-reload");
    must("systemctl start box@dog box@cub");
    wait_for_line("cub", "1 1 10000000");
    let supervisor = property(&unit("cub"), "MainPID");
    must(&format!("kill -KILL {supervisor}"));
    for name in ["dog", "cub"] {
        wait_for_line(name, "1 1 10000000");
        wait_for_line(name, "hangs");
        assert_eq!(property(&unit(name), "NRestarts"), "0");
        wait_for("the watchdog", || {
            property(&unit(name), "SubState") == "auto-restart"
        });
        assert_eq!(property(&unit(name), "Result"), "watchdog");
        let said = journal(name);
        assert!(
            said.contains(&format!("box {name} did not feed its watchdog in time")),
            "{said}"
        );
        let page = sh(&format!("boxctl status --json {name}")).out;
        assert!(page.contains("\"result\": \"watchdog\""), "{page}");
        stop(name);
    }
    assert!(journal("cub").contains("supervision was taken over"));

    define_script(
        "trap",
        "sleep 2; systemd-notify WATCHDOG=trigger; sleep 1000",
        BY_NOTIFY,
    );
    refused("systemctl start box@trap");
    assert_eq!(property(&unit("trap"), "Result"), "watchdog");

    define_script("tick", "while :; do sleep 0.1; done", "");
    must(
        "mkdir -p /run/systemd/system/box@tick.service.d; \
         printf '[Service]\\nWatchdogSec=10s\\n' > /run/systemd/system/box@tick.service.d/50-dog.conf; \
         systemctl daemon-reload",
    );
    start("tick");
    let payload = pid("tick");
    let old = property(&unit("tick"), "MainPID");
    must(&format!("kill -STOP {old}"));
    wait_for("another supervisor", || {
        let new = property(&unit("tick"), "MainPID");
        property(&unit("tick"), "ActiveState") == "active" && new != old && new != "0"
    });
    assert_eq!(pid("tick"), payload);
    stop("tick");
    must("rm -r /run/systemd/system/box@tick.service.d; systemctl daemon-reload");
}

/// `systemctl reload` does what the definition says and fails if that fails; without [reload] it is refused.
#[test]
fn a_box_is_reloaded_as_its_definition_says() {
    let script =
        "trap 'echo reloaded' HUP; trap 'exit 0' TERM; echo begun; while :; do sleep 0.1; done";
    define_script("plain", script, "");
    define_script("sign", script, "[reload]\nsignal = 'SIGHUP'\n");
    define_script(
        "deaf",
        "echo begun; sleep 1000",
        "[reload]\nsignal = 'SIGHUP'\n",
    );
    define_script(
        "run",
        script,
        "[reload]\ncommand = ['sh', '-c', 'echo inside $(hostname); exit $(cat /tmp/status)']\n",
    );
    define(
        "says",
        "command = ['/bin/sh', '-c', '''\n\
         trap 'systemd-notify --reloading; echo reloading; while [ ! -e /tmp/done ]; do sleep 0.1; done; rm /tmp/done; systemd-notify --ready' HUP\n\
         trap 'exit 0' TERM; systemd-notify --ready; echo begun; while :; do sleep 0.1; done''']\n\
         [ready]\nwhen = 'notify'\ntimeout = '10min'\n[reload]\nnotify = true\n",
    );
    must("systemctl daemon-reload");
    for name in ["plain", "sign", "deaf", "run", "says"] {
        start(name);
        wait_for_line(name, "begun");
    }
    let said = refused("boxctl reload plain");
    assert!(said.contains("box plain has no [reload]"), "{said}");
    refused("systemctl reload box@plain");

    must("systemctl reload box@sign");
    wait_for_line("sign", "reloaded");
    let said = refused("boxctl reload deaf");
    assert!(said.contains("box deaf does nothing at SIGHUP"), "{said}");
    assert_eq!(property(&unit("deaf"), "ActiveState"), "active");

    must("boxctl exec run -- sh -c 'echo 0 > /tmp/status'");
    must("boxctl reload run");
    wait_for_line("run", "inside run");
    must("boxctl exec run -- sh -c 'echo 5 > /tmp/status'");
    let said = refused("boxctl reload run");
    assert!(
        said.contains("which reloads it, failed with exit status 5"),
        "{said}"
    );
    assert_eq!(property(&unit("run"), "ActiveState"), "active");

    // The reload lasts until the box says that it is done.
    must("systemctl reload --no-block box@says");
    wait_for_line("says", "reloading");
    assert_eq!(property(&unit("says"), "ActiveState"), "reloading");
    go_on("says", "done");
    wait_for_state(&unit("says"), "active");
    go_on("says", "done");
    must("systemctl reload box@says");
    for name in ["plain", "sign", "deaf", "run", "says"] {
        stop(name);
    }
}

/// A supervisor that has given up what it does not need knows its box, and the `boxd reload` of its unit, also where
/// a host hides processes from those who could not trace them.
#[test]
fn boxes_are_heard_where_processes_are_hidden() {
    let script = "trap 'systemd-notify --reloading; echo reloading; systemd-notify --ready' HUP\n\
                  trap 'exit 0' TERM; systemd-notify --ready; while :; do sleep 0.1; done";
    let more = "[ready]\nwhen = 'notify'\ntimeout = '10min'\n[reload]\nnotify = true\n";
    define_script("own", script, more);
    define_script(
        "host",
        script,
        &format!("{more}[security]\nusers = 'host'\n"),
    );
    must("systemctl daemon-reload");
    let (kill, trace, search) = (1 << 5, 1 << 19, 1 << 2);
    for (hidden, capabilities, names) in [
        (
            "hidepid=invisible,gid=4242",
            kill | search,
            ["own", "host"].as_slice(),
        ),
        (
            "hidepid=ptraceable,gid=0",
            kill | search | trace,
            ["host"].as_slice(),
        ),
    ] {
        must(&format!("mount -o remount,{hidden} /proc"));
        for name in names {
            start(name);
            let supervisor = property(&unit(name), "MainPID");
            assert_eq!(
                must(&format!(
                    "sed -n 's/^CapEff:\\t//p' /proc/{supervisor}/status"
                )),
                format!("{capabilities:016x}"),
                "{hidden}"
            );
            must(&format!("boxctl reload {name}"));
            stop(name);
            let said = journal(name);
            for trouble in ["was ignored", "its supervisor"] {
                assert!(!said.contains(trouble), "{hidden}: {said}");
            }
        }
    }
    must("mount -o remount,hidepid=off,gid=0 /proc");
}
