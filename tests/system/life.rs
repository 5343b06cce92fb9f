//! A box from its start to its end, as its unit.

use crate::guest::{
    define, define_script, everything, journal, must, nothing_left, pid, printed, property, start,
    start_refused, status, stop, unit, wait_for, wait_for_line, wait_for_state, write,
};

/// The package's promise: after the installation one command runs a box, and not before it is asked.
#[test]
fn hello_runs_right_after_the_installation_and_only_when_asked() {
    assert_eq!(property(&unit("hello"), "ActiveState"), "inactive");
    start("hello");
    wait_for_state(&unit("hello"), "inactive");
    assert_eq!(property(&unit("hello"), "Result"), "success");
    let by_unit = printed("hello");
    let by_hand = must("boxctl run hello");
    let by_hand: Vec<String> = by_hand.lines().map(str::to_owned).collect();
    for said in [&by_unit, &by_hand] {
        assert_eq!(said[0], "Hello from the box hello.", "{said:#?}");
        for title in ["Who", "What it may", "Limits", "Namespaces", "What it sees"] {
            assert!(said.iter().any(|line| line == title), "{title}: {said:#?}");
        }
        let value = |label: &str| {
            let words = format!("  {label:<16} ");
            let found = said.iter().find_map(|line| line.strip_prefix(&words));
            found.unwrap_or_else(|| panic!("{label}: {said:#?}"))
        };
        assert_eq!(value("process"), "1");
        // The range of a box is its own for good.
        let ids = by_unit.iter().find(|line| line.contains("user ids"));
        assert!(ids.is_some_and(|line| line.ends_with(value("user ids"))));
        assert!(value("user ids").starts_with("0 to 65535, on the host "));
        assert_eq!(value("tasks"), "4096");
        assert_eq!(value("memory"), "none");
        assert_eq!(value("network"), "lo");
        for kind in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"] {
            let hosts = must(&format!("readlink /proc/self/ns/{kind}"));
            assert_ne!(value(kind), hosts, "{kind}");
        }
    }
}

/// Type=notify means something: when `systemctl start` returns, the payload has been executed.
#[test]
fn a_started_box_is_active_and_its_payload_stands_in_its_own_scope() {
    define_script("web", "exec sleep infinity", "description = 'Shop front'");
    must("systemctl daemon-reload");
    start("web");
    assert_eq!(property(&unit("web"), "ActiveState"), "active");
    assert_eq!(property(&unit("web"), "Description"), "Shop front");
    assert_eq!(property("box-web.scope", "ActiveState"), "active");
    assert_eq!(property("box-web.scope", "Slice"), "box.slice");
    assert_eq!(property("box-web.scope", "Delegate"), "yes");
    let pid = pid("web");
    let cgroup = must(&format!("cat /proc/{pid}/cgroup"));
    assert!(cgroup.contains("/box.slice/box-web.scope"), "{cgroup}");
    let supervisor = property(&unit("web"), "MainPID");
    assert_eq!(
        must(&format!("cat /proc/{supervisor}/comm")),
        "box-supervisor"
    );
    assert_eq!(
        must(&format!("cat /proc/{pid}/cmdline | tr '\\0' ' '")),
        "sleep infinity"
    );
    let status = status("web");
    assert_eq!(status["state"], "running");
    assert_eq!(status["runner"], "unit");
}

/// A clean stop: nothing of a box is left, whether it stopped when asked or ended by itself.
#[test]
fn a_stop_leaves_nothing_behind() {
    define_script("once", "true", "");
    define_script("web", "exec sleep infinity", "[root]\nwrites = 'keep'");
    // What the first start makes for good: id ranges, the kept layer, the slice.
    for name in ["once", "web"] {
        start(name);
        wait_for("a start", || {
            property(&unit(name), "ActiveState") != "activating"
        });
        stop(name);
    }
    let before = everything();
    start("web");
    stop("web");
    start("once");
    wait_for_state(&unit("once"), "inactive");
    nothing_left(&before);
}

/// An operator who debugs a box that ends at once sees all it said: not a byte is lost at its start or its end.
#[test]
fn output_is_in_the_journal_from_the_first_byte_to_the_last() {
    define_script(
        "talk",
        "echo first; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf 'last without newline'",
        "",
    );
    start("talk");
    wait_for_state(&unit("talk"), "inactive");
    let printed = printed("talk");
    assert_eq!(printed.first().map(String::as_str), Some("first"));
    assert_eq!(
        printed.last().map(String::as_str),
        Some("last without newline")
    );
    assert_eq!(printed.len(), 3002);
    for (number, line) in printed[1..3001].iter().enumerate() {
        assert_eq!(*line, format!("line {number}"));
    }
}

/// `journalctl -u` finds what the box wrote, and its fields say which box and which stream.
#[test]
fn output_carries_the_box_and_the_stream() {
    define_script("talk", "echo to out; echo to err >&2; sleep infinity", "");
    start("talk");
    wait_for_line("talk", "to out");
    wait_for_line("talk", "to err");
    let entries = must("journalctl --no-pager -o json -u box@talk BOX_NAME=talk");
    let stream = |message: &str| {
        entries
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an entry is JSON"))
            .find(|entry| entry["MESSAGE"] == message)
            .map(|entry| entry["BOX_STREAM"].clone())
    };
    assert_eq!(stream("to out"), Some("stdout".into()));
    assert_eq!(stream("to err"), Some("stderr".into()));
}

/// A long line, one that no datagram can hold, and bytes that are no text are data too.
#[test]
fn awkward_output_arrives_whole() {
    define_script(
        "talk",
        r#"head -c 20000 /dev/zero | tr '\0' x; echo; head -c 250000 /dev/zero | tr '\0' y; echo; \
           printf 'a\001b\377c\n'; echo end"#,
        "",
    );
    start("talk");
    wait_for_line("talk", "end");
    let length = must(
        "journalctl --sync; journalctl --no-pager -a -o cat -u box@talk BOX_STREAM=stdout | tr -dc x | wc -c",
    );
    assert_eq!(length, "20000");
    let longest = must(
        "journalctl --no-pager -a -o cat -u box@talk BOX_STREAM=stdout | LC_ALL=C awk '{ if (length > n) n = length } END { print n }'",
    );
    assert_eq!(longest, "250000");
    let bytes = must(
        "journalctl --no-pager -o export -u box@talk BOX_STREAM=stdout | LC_ALL=C grep -a -c \"$(printf 'a\\001b\\377c')\"",
    );
    assert_eq!(bytes, "1");
}

/// What is too much is dropped by whole lines, and every one of them is counted in the journal; a box that never
/// stops writing neither grows its supervisor nor holds up its stop.
#[test]
fn output_is_limited_and_what_is_dropped_is_counted() {
    define_script(
        "counted",
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo '<3>err' >&2; echo warned >&2",
        "[output]\nrate-lines = 200\nrate-interval = '5s'\nstderr-priority = 'warning'",
    );
    start("counted");
    wait_for_state(&unit("counted"), "inactive");
    let dropped: usize = journal("counted")
        .lines()
        .filter_map(|line| {
            line.strip_prefix("box counted: ")?
                .split_once(" lines of its output")
        })
        .map(|(number, _)| number.parse::<usize>().expect("a number"))
        .sum();
    let printed = printed("counted").len();
    assert!(printed >= 200 && dropped > 0, "{printed} and {dropped}");
    assert_eq!(printed + dropped, 3002);

    define_script("endless", "exec yes a line of some length", "");
    define_script(
        "muted",
        "trap 'exit 0' TERM; while :; do yes 12345678 | head -c 1000000; done",
        "[output]\nrate-bytes = '10K'\nrate-interval = '1h'",
    );
    start("endless");
    start("muted");
    // Its last entry alone: to read all of them takes longer than they take to be written.
    wait_for("output of endless", || {
        let last = "journalctl --no-pager -o cat -n 1 -u box@endless BOX_STREAM=stdout";
        must(last) == "a line of some length"
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    for name in ["endless", "muted"] {
        let supervisor = property(&unit(name), "MainPID");
        let kib: u64 = must(&format!(
            "sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/{supervisor}/status"
        ))
        .parse()
        .expect("a number");
        assert!(kib < 4096, "{name}: {kib} KiB");
        must(&format!("timeout 80 systemctl stop box@{name}"));
        assert_eq!(property(&unit(name), "Result"), "success");
    }
    let said = journal("muted");
    assert!(
        said.contains("are dropped: [output] of its definition allows 10K in 3600s"),
        "{}",
        said.lines().next_back().unwrap_or_default()
    );
    assert!(said.len() < 100_000, "{}", said.len());
}

/// `Restart=`, `OnFailure=` and people all go by the exit status: it is the payload's.
#[test]
fn systemd_sees_the_exit_status_of_the_payload() {
    for (name, status, result) in [
        ("zero", "0", "success"),
        ("three", "3", "exit-code"),
        ("most", "255", "exit-code"),
    ] {
        define_script(name, &format!("sleep 1; exit {status}"), "");
        start(name);
        wait_for("the end", || property(&unit(name), "SubState") != "running");
        wait_for("no more deactivating", || {
            property(&unit(name), "ActiveState") != "deactivating"
        });
        assert_eq!(property(&unit(name), "Result"), result, "{name}");
        assert_eq!(property(&unit(name), "ExecMainStatus"), status, "{name}");
    }
}

/// A first process that dies by a signal is reported as 128 and the signal's number, as shells do.
#[test]
fn a_payload_killed_by_a_signal_is_reported_as_such() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    must(&format!("kill -KILL {}", pid("web")));
    wait_for_state(&unit("web"), "failed");
    assert_eq!(property(&unit("web"), "ExecMainCode"), "1");
    assert_eq!(property(&unit("web"), "ExecMainStatus"), "137");
    assert!(journal("web").contains("SIGKILL"), "{}", journal("web"));
}

/// One word says how a box ended, after the box is gone too; systemd's own word is mostly `exit-code`.
#[test]
fn ends_are_told_apart() {
    define_script("zero", "exit 0", "");
    define_script("three", "exit 3", "");
    define_script("fault", "exec perl -e 'unpack \"p\", pack \"L!\", 1'", "");
    define_script("killed", "exec sleep infinity", "");
    define_script(
        "late",
        "trap '' TERM; echo deaf; while :; do sleep 1; done",
        "[stop]\ntimeout = '1s'",
    );
    for name in ["zero", "three", "fault", "killed", "late"] {
        must(&format!("systemctl start --no-block box@{name}"));
    }
    wait_for_line("late", "deaf");
    wait_for_state(&unit("killed"), "active");
    must(&format!("kill -KILL {}", pid("killed")));
    stop("late");
    for (name, results, status, words) in [
        ("zero", ["success", "success"], 0, "ended"),
        ("three", ["exit-code", "exit-code"], 3, "exit status 3"),
        ("fault", ["signal", "core-dump"], 139, "SIGSEGV"),
        ("killed", ["signal", "signal"], 137, "SIGKILL"),
        (
            "late",
            ["timeout", "timeout"],
            137,
            "did not stop within 1s",
        ),
    ] {
        wait_for("the end", || {
            ["failed", "inactive"].contains(&property(&unit(name), "ActiveState").as_str())
        });
        let report: serde_json::Value =
            serde_json::from_str(&crate::guest::sh(&format!("boxctl status --json {name}")).out)
                .expect("status is JSON");
        let end = &report["boxes"][0]["last-end"];
        assert!(
            results.contains(&end["result"].as_str().expect("a result")),
            "{name}: {end}"
        );
        assert_eq!(end["exit-status"], status, "{name}: {end}");
        let page = crate::guest::sh(&format!("boxctl status {name}")).out;
        assert!(page.contains(words), "{page}");
        if status != 0 {
            assert_eq!(property(&unit(name), "ExecMainStatus"), status.to_string());
            let text = property(&unit(name), "StatusText");
            assert!(text.contains(words), "systemctl status says: {text}");
        }
    }
}

/// `[restart]` is systemd's own restart policy.
#[test]
fn a_failed_box_is_started_again_as_its_policy_says() {
    define_script(
        "flaky",
        "echo start; sleep 1; exit 1",
        "[restart]\npolicy = 'on-failure'\ndelay = '1s'",
    );
    define_script(
        "calm",
        "sleep 1; exit 0",
        "[restart]\npolicy = 'on-failure'",
    );
    must("systemctl daemon-reload");
    start("flaky");
    start("calm");
    wait_for("two restarts", || {
        property(&unit("flaky"), "NRestarts")
            .parse::<u32>()
            .is_ok_and(|restarts| restarts >= 2)
    });
    assert_eq!(property(&unit("flaky"), "Restart"), "on-failure");
    wait_for_state(&unit("calm"), "inactive");
    assert_eq!(property(&unit("calm"), "NRestarts"), "0");
    stop("flaky");
    assert_eq!(property("box-flaky.scope", "ActiveState"), "inactive");
}

/// Stop asks first: a payload that tidies up after SIGTERM is waited for, and its last words are kept.
#[test]
fn a_stop_lets_the_payload_end_in_its_own_way() {
    define_script(
        "tidy",
        "trap 'echo tidying; sleep 1; echo tidied; exit 0' TERM; echo ready; while :; do sleep 0.2; done",
        "",
    );
    start("tidy");
    wait_for_line("tidy", "ready");
    stop("tidy");
    assert!(journal("tidy").contains("tidied"), "{}", journal("tidy"));
    assert_eq!(property(&unit("tidy"), "Result"), "success");
    assert_eq!(property(&unit("tidy"), "ActiveState"), "inactive");
}

/// Stop is certain: after the grace everything of the box is killed, children in their own sessions too.
#[test]
fn a_stop_ends_a_payload_that_ignores_sigterm() {
    define_script(
        "stubborn",
        "trap '' TERM; setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & echo ready; while :; do sleep 1; done",
        "[stop]\ntimeout = '2s'",
    );
    start("stubborn");
    wait_for_line("stubborn", "ready");
    stop("stubborn");
    assert_ne!(property(&unit("stubborn"), "ActiveState"), "active");
    assert_eq!(property("box-stubborn.scope", "ActiveState"), "inactive");
    assert_eq!(
        must("find /sys/fs/cgroup -name 'box-stubborn.scope' | wc -l"),
        "0"
    );
}

/// `[stop] command` runs in the box before the signal. One that fails or hangs is named, and the signal follows.
#[test]
fn a_stop_command_runs_in_the_box_before_the_signal() {
    let payload = "trap 'echo got TERM; exit 0' TERM; echo ready; until [ -e /tmp/end ]; do sleep 0.1; done; echo told; exit 0";
    for (name, command, timeout) in [
        (
            "gentle",
            "readlink /proc/self/ns/pid; touch /tmp/end; sleep 3",
            "60s",
        ),
        ("wrong", "echo cannot; exit 4", "60s"),
        ("stuck", "exec sleep 4321", "3s"),
    ] {
        define_script(
            name,
            payload,
            &format!("[stop]\ntimeout = '{timeout}'\ncommand = ['/bin/sh', '-c', '{command}']"),
        );
    }
    must("systemctl daemon-reload");
    for name in ["gentle", "wrong", "stuck"] {
        start(name);
        wait_for_line(name, "ready");
    }
    let namespace = must(&format!("readlink /proc/{}/ns/pid", pid("gentle")));
    must("systemctl stop box@gentle box@wrong box@stuck");
    for (name, words, not) in [
        ("gentle", vec![namespace.as_str(), "told"], "got TERM"),
        (
            "wrong",
            vec!["cannot", "stop command failed", "got TERM"],
            "told",
        ),
        ("stuck", vec!["has not ended within 3s", "got TERM"], "told"),
    ] {
        let journal = journal(name);
        for word in words {
            assert!(journal.contains(word), "{name}: {word}: {journal}");
        }
        assert!(!journal.contains(not), "{name}: {not}: {journal}");
        assert_eq!(property(&unit(name), "Result"), "success", "{name}");
        assert_eq!(
            crate::guest::sh(&format!("test -e /run/boxd/{name}")).status,
            1
        );
    }
    assert_eq!(must("pgrep -f '[s]leep 4321' | wc -l"), "0");
}

/// `[stop] signal` is what the payload gets.
#[test]
fn the_stop_signal_is_the_definitions() {
    define_script(
        "inter",
        "trap 'echo got INT; exit 0' INT; trap 'echo got TERM; exit 0' TERM; echo ready; while :; do sleep 0.2; done",
        "[stop]\nsignal = 'SIGINT'",
    );
    start("inter");
    wait_for_line("inter", "ready");
    stop("inter");
    let journal = journal("inter");
    assert!(journal.contains("got INT"), "{journal}");
    assert!(!journal.contains("got TERM"), "{journal}");
}

/// What the first process leaves running ends with it: the box is its pid namespace.
#[test]
fn what_the_first_process_leaves_behind_ends_with_it() {
    define_script("parent", "setsid sleep 12345 & sleep 1; exit 0", "");
    start("parent");
    wait_for_state(&unit("parent"), "inactive");
    assert_eq!(must("pgrep -f '[s]leep 12345' | wc -l"), "0");
}

/// A mistake in a definition is said in the unit's own words, not as a closed stream.
#[test]
fn a_command_that_cannot_be_executed_fails_the_unit_with_that_sentence() {
    define("missing", "command = ['/usr/bin/no-such-program']");
    let journal = start_refused("missing");
    assert!(journal.contains("/usr/bin/no-such-program"), "{journal}");
    assert!(journal.contains("no such file"), "{journal}");

    define("plain", "command = ['/usr/lib/os-release']");
    let journal = start_refused("plain");
    assert!(journal.contains("/usr/lib/os-release"), "{journal}");
    assert!(journal.contains("not executable"), "{journal}");

    define(
        "nobody-here",
        "command = ['/bin/true']\nuser = 'no-such-user'",
    );
    let journal = start_refused("nobody-here");
    assert!(journal.contains("no-such-user"), "{journal}");

    define(
        "odd",
        "command = ['/bin/true']\nworking-directory = '/no/such/folder'",
    );
    let journal = start_refused("odd");
    assert!(journal.contains("/no/such/folder"), "{journal}");
}

/// The environment is exactly what the definition and the container interface say; nothing of systemd's leaks.
#[test]
fn the_environment_is_the_definitions_and_nothing_of_the_units() {
    write("/etc/boxd/env", "FROM_FILE=yes\nTZ=Mars\n");
    define(
        "env",
        "command = ['/usr/bin/env']\nenvironment = { TZ = 'UTC', GREETING = 'a b' }\nenvironment-file = '/etc/boxd/env'",
    );
    start("env");
    wait_for_state(&unit("env"), "inactive");
    let printed = printed("env");
    for line in ["GREETING=a b", "FROM_FILE=yes", "TZ=Mars"] {
        assert!(printed.iter().any(|printed| printed == line), "{printed:?}");
    }
    assert!(
        printed.iter().any(|line| line.starts_with("container=")),
        "{printed:?}"
    );
    for name in [
        "NOTIFY_SOCKET",
        "LISTEN_",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "MAINPID",
        "SYSTEMD_EXEC_PID",
        "FDSTORE",
    ] {
        assert!(
            !printed.iter().any(|line| line.starts_with(name)),
            "{name} leaked: {printed:?}"
        );
    }
}
