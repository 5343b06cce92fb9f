//! boxctl, by hand.

use crate::guest::{
    define, define_script, everything, inside, must, nothing_left, pid, property, refused, sh,
    small_root, start, status, stop, unit, wait_for, wait_for_line,
};

/// start, stop and restart are systemd's, and wait for the job as systemctl does.
#[test]
fn boxes_are_started_stopped_and_restarted_by_name() {
    define_script("web", "echo up; exec sleep infinity", "");
    define_script("db", "exec sleep infinity", "");
    must("boxctl start web db");
    assert_eq!(property(&unit("web"), "ActiveState"), "active");
    assert_eq!(property(&unit("db"), "ActiveState"), "active");
    let before = pid("web");
    must("boxctl restart web");
    assert_ne!(pid("web"), before);
    must("boxctl stop web db");
    assert_eq!(property(&unit("web"), "ActiveState"), "inactive");
    assert_eq!(property(&unit("db"), "ActiveState"), "inactive");
}

/// A refused action exits non-zero with one sentence that names the box and what to do.
#[test]
fn a_start_that_fails_says_why() {
    define("web", "command = ['/usr/bin/no-such-program']");
    let said = refused("boxctl start web");
    assert!(said.contains("web"), "{said}");
    assert!(said.contains("/usr/bin/no-such-program"), "{said}");
    let said = refused("boxctl start nothing-of-this-name");
    assert!(said.contains("nothing-of-this-name"), "{said}");
    refused("boxctl stop nothing-of-this-name");
    refused("boxctl exec nothing-of-this-name -- true");
    refused("boxctl status nothing-of-this-name");
    refused("boxctl plan nothing-of-this-name");
    refused("boxctl start '../../etc/passwd'");
}

/// The page of one box has what `systemctl status` has, and what only boxd knows.
#[test]
fn status_shows_a_box_whole() {
    define_script(
        "web",
        "echo last line of output; exec sleep infinity",
        "description = 'Shop front'\n[resources]\nmemory = '64M'\ntasks = 10",
    );
    start("web");
    wait_for_line("web", "last line of output");
    let page = must("boxctl status web");
    for words in [
        "web",
        "Shop front",
        "running",
        "last line of output",
        "64",
        &pid("web").to_string(),
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(
        !page.contains('\u{1b}'),
        "no colours where there is no terminal: {page}"
    );
    let table = must("boxctl status");
    assert!(table.contains("web") && table.contains("hello"), "{table}");
    let status = status("web");
    assert_eq!(status["limits"]["memory"], 67_108_864);
    assert!(
        status["usage"]["memory"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0)
    );
    stop("web");
    assert_eq!(crate::guest::status("web")["state"], "stopped");
}

/// Pause, resume, wait and kill. A paused box is seen as one, by systemd too, and is stopped like any other.
#[test]
fn boxes_are_paused_resumed_signalled_and_waited_for() {
    define_script(
        "web",
        "trap 'echo last words; exit 3' TERM; trap 'echo first heard' USR1; \
         sh -c \"trap 'echo second heard' USR1; echo second; while :; do sleep 0.1; done\" & \
         i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done",
        "",
    );
    define_script("job", "sleep 3; exit 7", "");
    start("web");
    wait_for_line("web", "second");
    wait_for_line("web", "tick 2");

    must("boxctl pause web");
    must("boxctl pause web");
    assert_eq!(status("web")["state"], "paused");
    assert!(must("boxctl status web").contains("paused"));
    wait_for("systemd hears it", || {
        property(&unit("web"), "StatusText").starts_with("paused")
    });
    let said = refused("timeout 60 boxctl exec web -- true");
    assert!(said.contains("boxctl resume web"), "{said}");
    let printed = crate::guest::printed("web");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(crate::guest::printed("web"), printed);

    must("boxctl resume web");
    assert_eq!(status("web")["state"], "running");
    wait_for("more output", || {
        crate::guest::printed("web").len() > printed.len() + 2
    });
    wait_for("systemd hears it", || {
        property(&unit("web"), "StatusText").starts_with("running")
    });
    must("boxctl kill -s USR1 --all web");
    wait_for_line("web", "first heard");
    wait_for_line("web", "second heard");

    must("boxctl pause web");
    let waited = "/tmp/waited";
    must(&format!(
        "(boxctl wait web; echo status $?) > {waited} 2>&1 &"
    ));
    must("timeout 60 systemctl stop box@web");
    let journal = crate::guest::journal("web");
    for words in [
        "box web is paused",
        "box web goes on after a pause",
        "last words",
    ] {
        assert!(journal.contains(words), "{words}: {journal}");
    }
    wait_for("the end of the wait", || {
        must(&format!("cat {waited}")) == "3\nstatus 3"
    });
    assert_eq!(status("web")["last-end"]["exit-status"], 3);
    start("job");
    let waited = sh("boxctl wait job web");
    assert_eq!(
        (waited.out.as_str(), waited.status),
        ("7\n3", 7),
        "{}",
        waited.err
    );
    assert_eq!(sh("boxctl wait job").out, "7");
    let never = sh("boxctl wait hello");
    assert_eq!(never.status, 125, "{}", never.err);
    for verb in ["pause", "resume", "kill"] {
        let said = refused(&format!("boxctl {verb} web"));
        assert!(said.contains("not running"), "{said}");
    }
}

/// A command in a box has the box's walls: namespaces, cgroup, ids and privileges.
#[test]
fn exec_enters_everything_the_box_has() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        assert_eq!(
            inside("web", &format!("readlink /proc/self/ns/{kind}")),
            must(&format!("readlink /proc/{}/ns/{kind}", pid("web"))),
            "{kind}"
        );
    }
    assert_eq!(inside("web", "cat /proc/self/cgroup"), "0::/");
    for field in ["CapBnd", "CapEff", "NoNewPrivs", "CapInh", "CapAmb"] {
        assert_eq!(
            inside("web", &format!("grep {field} /proc/self/status")),
            must(&format!("grep {field} /proc/{}/status", pid("web"))),
            "{field}"
        );
    }
    assert_eq!(sh("boxctl exec web -- sh -c 'exit 9'").status, 9);
    assert_eq!(sh("boxctl exec web -- sh -c 'kill -TERM $$'").status, 143);
    let missing = sh("boxctl exec web -- /no/such/program");
    assert_eq!(missing.status, 127, "{}", missing.err);
    assert_eq!(must("echo through | boxctl exec -i web -- cat"), "through");
    let descriptors = inside("web", "ls /proc/self/fd");
    assert_eq!(descriptors.split_whitespace().count(), 4, "{descriptors}");
}

/// A shell has a terminal of the box, with the caller's window size.
#[test]
fn a_shell_has_a_terminal_of_its_own() {
    let root = small_root("web");
    define(
        "web",
        &format!(
            "command = ['/bin/sleep', '1000']\n[root]\ndirectory = '{}'",
            root.display()
        ),
    );
    start("web");
    let said = must(
        "printf 'tty; stty size; echo $((40+2)); exit 5\\n' > /tmp/typed; \
         script -q -e -c 'stty rows 33 cols 77; boxctl shell web' /dev/null < /tmp/typed; test $? = 5",
    );
    assert!(said.contains("/dev/pts/"), "{said}");
    assert!(said.contains("33 77"), "{said}");
    assert!(said.contains("42"), "{said}");
}

/// Logs are the box's output, and `-f` goes on with it.
#[test]
fn logs_shows_the_output_and_follows_it() {
    define_script(
        "web",
        "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.5; done",
        "",
    );
    start("web");
    wait_for_line("web", "line 1");
    let logs = must("boxctl logs web");
    assert!(logs.contains("line 0") && logs.contains("line 1"), "{logs}");
    let followed =
        sh("timeout 20 boxctl logs web -f | head -n 200 | grep -q -m 1 'line [5-9]'; echo $?").out;
    assert_eq!(followed, "0");
}

/// check, plan and schema need no running box.
#[test]
fn definitions_are_checked_and_planned_without_running_them() {
    define_script("web", "exec sleep infinity", "[resources]\nmemory = '64M'");
    must("boxctl check");
    must("boxctl check /etc/boxd/web.toml");
    let plan = must("boxctl plan web");
    assert!(plan.contains("67108864") || plan.contains("64"), "{plan}");
    assert!(plan.contains("box-web.scope"), "{plan}");
    let schema = must("boxctl schema");
    serde_json::from_str::<serde_json::Value>(&schema).expect("the schema is JSON");
    assert_eq!(
        schema.trim(),
        must("cat /usr/share/boxd/box.schema.json").trim()
    );
    assert_eq!(property(&unit("web"), "ActiveState"), "inactive");
    define("bad", "command = 3");
    let said = refused("boxctl check /etc/boxd/bad.toml");
    assert!(
        said.contains("/etc/boxd/bad.toml:1:11") || said.contains("bad.toml"),
        "{said}"
    );
}

/// In the foreground a box is a command like others: output, exit status, Ctrl-C, and nothing left.
#[test]
fn a_box_runs_in_the_foreground() {
    define_script("once", "echo out; echo err >&2; exit 4", "");
    must("mkdir -p /root/boxes; cp /etc/boxd/once.toml /root/boxes/other.toml");
    let _ = sh("boxctl run once");
    let before = everything();
    let ran = sh("boxctl run once");
    assert_eq!(ran.status, 4, "{}", ran.err);
    assert_eq!(ran.out, "out");
    assert!(ran.err.contains("err"), "{}", ran.err);
    nothing_left(&before);
    assert_eq!(sh("boxctl run /root/boxes/other.toml").status, 4);
    define_script(
        "long",
        "trap 'echo bye; exit 0' INT TERM; echo up; while :; do sleep 0.1; done",
        "",
    );
    let ran = sh(
        "boxctl run long > /tmp/out & pid=$!; until grep -q up /tmp/out; do sleep 0.1; done; kill -INT $pid; wait $pid; echo $?",
    );
    assert!(must("cat /tmp/out").contains("bye"));
    assert_eq!(ran.out, "0", "{}", ran.err);
    // Its processes are gone at once; systemd forgets the empty scope when it comes round to it.
    wait_for("the end of the scope", || {
        must("systemctl list-units --plain --no-legend 'box-long*'").is_empty()
    });
}

/// Limits hold in the foreground too.
#[test]
fn limits_hold_in_the_foreground() {
    define_script(
        "small",
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max",
        "[resources]\nmemory = '64M'\ntasks = 20",
    );
    assert_eq!(must("boxctl run small"), "67108864\n20");
}

/// A foreground box whose boxctl is killed does not go on unseen.
#[test]
fn a_killed_foreground_box_does_not_go_on_alone() {
    define_script("web", "echo up; exec sleep 54321", "");
    let _ = sh(
        "boxctl run web > /tmp/out & pid=$!; until grep -q up /tmp/out; do sleep 0.1; done; kill -KILL $pid; wait $pid",
    );
    wait_for("the payload ends with it", || {
        must("pgrep -f '[s]leep 54321' | wc -l") == "0"
    });
    must(
        "boxctl run web > /tmp/out & pid=$!; until grep -q up /tmp/out; do sleep 0.1; done; kill -TERM $pid; wait $pid || true",
    );
}

/// Two at once under one name are refused, not mixed up.
#[test]
fn a_box_that_runs_is_not_run_again() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    let pid_before = pid("web");
    let said = refused("boxctl run web");
    assert!(said.contains("web"), "{said}");
    assert_eq!(pid("web"), pid_before);
    assert_eq!(property(&unit("web"), "ActiveState"), "active");
}

/// explain, inspect, stats and doctor say what there is, to people and to programs.
#[test]
fn what_is_known_of_a_box_and_its_host_is_told() {
    define_script(
        "web",
        "echo up; exec sleep infinity",
        "environment = { A = 'base' }\n[stop]\ntimeout = '8s'",
    );
    crate::guest::write(
        "/etc/boxd/web.toml.d/10-stop.toml",
        "environment.A = 'drop-in'\nstop.timeout = '9s'\n",
    );
    start("web");
    wait_for_line("web", "up");
    let json = |command: &str| -> serde_json::Value {
        serde_json::from_str(&must(command)).unwrap_or_else(|error| panic!("{command}: {error}"))
    };

    let explained = must("boxctl explain stop.timeout web");
    for words in [
        "StopTimeout=",
        "replaced: '8s'",
        "stop.timeout = '9s'",
        "/etc/boxd/web.toml.d/10-stop.toml:2",
    ] {
        assert!(explained.contains(words), "{words}: {explained}");
    }
    let explained = json("boxctl explain --json environment web");
    assert_eq!(explained["written"][0]["key"], "environment.A");
    assert_eq!(explained["written"][0]["line"], 1);
    assert_eq!(explained["written"][0]["holds"], true);
    assert_eq!(explained["written"][1]["holds"], false);
    let said = refused("boxctl explain resources.memroy");
    assert!(said.contains("did you mean resources.memory?"), "{said}");

    let inspected = json("boxctl inspect --json web");
    assert_eq!(inspected["status"]["name"], "web");
    assert_eq!(inspected["definition"]["environment"]["A"], "drop-in");
    assert_eq!(inspected["plan"]["scope"]["unit"], "box-web.scope");
    let first = &inspected["processes"][0];
    assert_eq!(first["pid"].as_i64(), Some(pid("web")), "{first}");
    assert_eq!(first["pid-inside"], 1);
    assert_eq!(first["command"], "sleep infinity");
    let page = must("boxctl inspect web");
    for words in ["Written", "Processes", "box-web.scope", "sleep infinity"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    must("boxctl inspect hello");
    refused("boxctl inspect nothing-of-this-name");

    let stats = json("boxctl stats --json");
    let of_web = &stats["boxes"][0];
    assert_eq!(of_web["name"], "web", "{stats}");
    assert!(of_web["cpu"].as_u64().is_some(), "{stats}");
    if must("cat /sys/fs/cgroup/cgroup.controllers").contains("pids") {
        assert!(of_web["tasks"].as_u64() >= Some(1), "{stats}");
    }
    assert!(must("boxctl stats web").contains("web"));
    let said = refused("boxctl stats hello");
    assert!(said.contains("not running"), "{said}");

    let verdict = |id: &str| {
        let report: serde_json::Value =
            serde_json::from_str(&sh("boxctl doctor --json").out).expect("JSON");
        let checks = report["checks"].as_array().expect("a list").clone();
        let check = checks.iter().find(|check| check["id"] == id);
        check.unwrap_or_else(|| panic!("{id}: {report}"))["verdict"].clone()
    };
    assert_eq!(verdict("systemd"), "good");
    assert_eq!(verdict("installation"), "good");
    assert_eq!(verdict("ids"), "good");
    assert_eq!(verdict("definitions"), "good");
    define("bad", "comand = 3");
    must("chmod 777 /etc/boxd");
    assert_eq!(verdict("definitions"), "risk");
    assert_eq!(verdict("definitions-trust"), "risk");
    let said = sh("boxctl doctor").out;
    assert!(said.contains("chmod go-w /etc/boxd"), "{said}");
}

/// new, edit, enable and events: a box from its first line to its end, without a definition that is broken, half
/// written or overwritten on the way.
#[test]
fn a_definition_is_written_edited_and_enabled_by_command() {
    must("boxctl new web -- /bin/sh -c 'echo up; exec sleep infinity'");
    must("boxctl check web");
    for name in ["web", "hello"] {
        let said = refused(&format!("boxctl new {name}"));
        assert!(said.contains("there already"), "{said}");
    }
    let follower = must("boxctl events --json --since=-1h web > /tmp/events 2>&1 & echo $!");
    must("boxctl start web");
    wait_for_line("web", "up");

    let file = "/etc/boxd/web.toml";
    must("EDITOR='sed -i s/infinity/1000000/' boxctl edit web");
    assert!(must(&format!("cat {file}")).contains("exec sleep 1000000"));
    assert_eq!(must(&format!("stat -c %a:%U {file}")), "644:root");
    let before = must(&format!("sha256sum {file}"));
    let said = refused("EDITOR='sed -i s/^command/comand/' boxctl edit web");
    assert!(said.contains("did you mean"), "{said}");
    let kept = said
        .rsplit(' ')
        .next()
        .expect("where it is kept")
        .to_owned();
    assert!(
        must(&format!("cat '{kept}'")).contains("comand ="),
        "{said}"
    );
    must(&format!("rm '{kept}'"));
    crate::guest::write(
        "/tmp/careless",
        "#!/bin/sh\necho '# mine' >> /etc/boxd/web.toml\necho '# yours' >> \"$1\"\n",
    );
    let said = refused("chmod +x /tmp/careless; EDITOR=/tmp/careless boxctl edit web");
    assert!(said.contains("somebody else"), "{said}");
    assert_eq!(must(&format!("tail -n 1 {file}")), "# mine");
    must(&format!("rm /etc/boxd/.*.web.toml; sed -i '$d' {file}"));
    refused("EDITOR=false boxctl edit web");
    refused("EDITOR='truncate -s 0' boxctl edit web");
    must("EDITOR=true boxctl edit web");
    assert_eq!(must(&format!("sha256sum {file}")), before);
    assert_eq!(must("ls -A /etc/boxd"), "web.toml");

    crate::guest::write(
        "/tmp/describe",
        "#!/bin/sh\necho \"description = 'From a drop-in'\" >> \"$1\"\n",
    );
    must("chmod +x /tmp/describe; EDITOR=/tmp/describe boxctl edit --drop-in web");
    assert!(must("boxctl list").contains("From a drop-in"));
    must("EDITOR='sed -i 1i#mine' boxctl edit hello");
    must("test -e /usr/lib/boxd/hello.toml && test -e /etc/boxd/hello.toml");

    let link = "/run/systemd/generator/multi-user.target.wants/box@web.service";
    let wanted = || sh(&format!("test -L {link}")).status == 0;
    assert!(!wanted());
    must("boxctl enable web");
    assert!(wanted());
    assert!(must("boxctl enable web").contains("as before"));
    assert!(must("boxctl explain start-at-boot web").contains("90-start-at-boot.toml"));
    must("boxctl disable --now web");
    assert!(!wanted());
    assert_eq!(property(&unit("web"), "ActiveState"), "inactive");
    must("test ! -e /etc/boxd/web.toml.d/90-start-at-boot.toml");
    refused("boxctl enable nothing-of-this-name");

    wait_for("the events", || {
        must("cat /tmp/events").contains("\"event\":\"ended\"")
    });
    let events: Vec<String> = must("cat /tmp/events")
        .lines()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(event["name"], "web");
            event["event"].as_str().expect("a word").to_owned()
        })
        .collect();
    assert_eq!(
        events.first().map(String::as_str),
        Some("started"),
        "{events:?}"
    );
    must(&format!("kill {follower}"));
    let past = must("boxctl events --no-follow web");
    assert!(past.contains("started") && past.contains("ended"), "{past}");
    assert_eq!(must("boxctl events --no-follow db"), "");
}

/// status and list say why a box is as it is, not only how.
#[test]
fn a_status_says_why() {
    crate::guest::write(
        "/etc/systemd/system/slow.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/bin/sh -c 'until test -e /tmp/go; do sleep 0.2; done'\n",
    );
    define_script(
        "web",
        "echo up; exec sleep infinity",
        "after = ['slow.service']",
    );
    must("systemctl daemon-reload");
    must("systemctl start --no-block slow.service box@web.service");
    wait_for("it waits", || status("web")["state"] == "starting");
    assert_eq!(status("web")["unit"]["waits-for"][0], "slow.service");
    assert!(must("boxctl status").contains("waits for slow.service"));
    assert!(
        sh("boxctl status web")
            .out
            .contains("Waits for: slow.service")
    );
    must("touch /tmp/go");
    wait_for_line("web", "up");
    wait_for("it is ready", || status("web")["state"] == "running");

    assert_eq!(status("web")["definition"]["newer"], false);
    must("touch /etc/boxd/web.toml");
    assert_eq!(
        status("web")["definition"]["newer"],
        false,
        "{}",
        status("web")
    );
    must(
        "echo \"hostname = 'other'\" > /tmp/head; cat /etc/boxd/web.toml >> /tmp/head; cp /tmp/head /etc/boxd/web.toml",
    );
    assert_eq!(status("web")["definition"]["newer"], true);
    assert!(must("boxctl status").contains("its definition is newer"));
    assert!(must("boxctl status web").contains("boxctl restart web"));
    must("boxctl restart web");
    assert_eq!(status("web")["definition"]["newer"], false);

    define("web", "comand = ['/bin/true']");
    let table = must("boxctl status");
    assert!(
        table.contains("running") && table.contains("its definition has errors"),
        "{table}"
    );
    assert!(must("boxctl list").contains("unknown key"));
}
