//! Definitions in their layers, and what the generator makes of them.

use std::fs;

use crate::guest::{
    boots, define, define_script, journal, must, printed, property, reboot, refused, sh, start,
    start_refused, stop, unit, wait_for, wait_for_line, wait_for_state, write,
};

/// `/etc` wins over `/run` wins over `/usr/lib`, and drop-ins of all layers are merged by file name.
#[test]
fn definitions_come_from_all_layers_and_drop_ins_are_merged() {
    let script =
        |word: &str| format!("command = ['/bin/sh', '-c', 'echo {word} $MORE; sleep 1000']\n");
    write("/usr/lib/boxd/web.toml", &script("vendor"));
    start("web");
    wait_for_line("web", "vendor");
    stop("web");
    write("/run/boxd/definitions/web.toml", &script("runtime"));
    start("web");
    wait_for_line("web", "runtime");
    stop("web");
    write("/etc/boxd/web.toml", &script("operator"));
    write(
        "/usr/lib/boxd/web.toml.d/10-more.toml",
        "environment = { MORE = 'from vendor' }\n",
    );
    start("web");
    wait_for_line("web", "operator from vendor");
    stop("web");
    write(
        "/etc/boxd/web.toml.d/10-more.toml",
        "environment = { MORE = 'from operator' }\n",
    );
    write(
        "/run/boxd/definitions/web.toml.d/05-first.toml",
        "environment = { MORE = 'from runtime' }\n",
    );
    start("web");
    wait_for_line("web", "operator from operator");
    let files = crate::guest::status("web")["definition"]["files"].clone();
    assert_eq!(
        files,
        serde_json::json!([
            "/etc/boxd/web.toml",
            "/run/boxd/definitions/web.toml.d/05-first.toml",
            "/etc/boxd/web.toml.d/10-more.toml"
        ])
    );
}

/// What a definition says to systemd counts from the next daemon-reload on: a start before it says so, and so does
/// `boxctl status`. Nobody is told so who said nothing of the kind.
#[test]
fn a_definition_that_systemd_has_not_read_is_hinted_at() {
    let hint = "systemctl daemon-reload";
    let changed = || crate::guest::status("web")["unit"]["needs-reload"] == true;
    define_script("web", "exec sleep infinity", "");
    start("web");
    assert!(!journal("web").contains(hint), "{}", journal("web"));
    stop("web");

    write(
        "/etc/boxd/web.toml.d/10-restart.toml",
        "[restart]\npolicy = 'always'\n",
    );
    start("web");
    let said = journal("web");
    assert!(said.contains(hint) && said.contains("restarts"), "{said}");
    assert_eq!(property(&unit("web"), "Restart"), "no");
    assert!(changed());
    let page = sh("boxctl status web").out;
    assert!(page.contains("Changed:") && page.contains(hint), "{page}");
    stop("web");

    must("systemctl daemon-reload");
    assert!(!changed());
    start("web");
    assert_eq!(journal("web").matches(hint).count(), 1);
    assert_eq!(property(&unit("web"), "Restart"), "always");

    // boxctl reads it for systemd.
    define("web", "command = ['/bin/sleep', '1000']\nafter = ['db']\n");
    assert!(changed());
    must("boxctl restart web");
    assert!(!changed());
    assert_eq!(journal("web").matches(hint).count(), 1);
    assert!(property(&unit("web"), "After").contains("box@db.service"));
}

/// A name is masked as a unit is.
#[test]
fn a_masked_definition_does_not_start() {
    write(
        "/usr/lib/boxd/web.toml",
        "command = ['/bin/sleep', '1000']\n",
    );
    must("ln -s /dev/null /etc/boxd/web.toml");
    let journal = start_refused("web");
    assert!(journal.contains("masked"), "{journal}");
    must("rm /etc/boxd/web.toml");
    start("web");
}

/// `after` and `requires` are systemd's, and a box's name stands for its unit.
#[test]
fn ordering_and_requirements_become_the_units() {
    define_script("db", "echo db up; exec sleep infinity", "");
    define_script("web", "exec sleep infinity", "");
    define(
        "web",
        "command = ['/bin/sleep', '1000']\nafter = ['db', 'systemd-logind.service']\nrequires = ['db']\n",
    );
    must("systemctl daemon-reload");
    let after = property(&unit("web"), "After");
    assert!(after.contains("box@db.service"), "{after}");
    assert!(after.contains("systemd-logind.service"), "{after}");
    assert!(property(&unit("web"), "Requires").contains("box@db.service"));
    start("web");
    assert_eq!(property(&unit("db"), "ActiveState"), "active");
    stop("db");
    assert_eq!(property(&unit("web"), "ActiveState"), "inactive");
}

/// A box never silently vanishes: with a broken definition its unit is there, and its start says what is wrong.
#[test]
fn a_broken_definition_fails_with_its_diagnostics() {
    define(
        "web",
        "comand = ['/bin/true']\nstart-at-boot = 'yes'\n[resources]\nmemory = '12Q'\n",
    );
    must("systemctl daemon-reload");
    let journal = start_refused("web");
    for words in [
        "/etc/boxd/web.toml",
        "comand",
        "command",
        "start-at-boot",
        "12Q",
    ] {
        assert!(journal.contains(words), "{words}: {journal}");
    }
    let check = refused("boxctl check");
    assert!(check.contains("12Q"), "{check}");
    assert_eq!(crate::guest::status("web")["definition"]["state"], "broken");
}

/// Bad input never hurts a running box.
#[test]
fn a_definition_that_breaks_leaves_the_running_box_alone() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    let pid = crate::guest::pid("web");
    define("web", "nonsense");
    must("systemctl daemon-reload");
    assert_eq!(property(&unit("web"), "ActiveState"), "active");
    assert_eq!(crate::guest::pid("web"), pid);
    let status = crate::guest::status("web");
    assert_eq!(status["state"], "running");
    assert_eq!(status["definition"]["state"], "broken");
    stop("web");
    assert_eq!(property(&unit("web"), "Result"), "success");
}

/// What a definition says can never become another line of a unit.
#[test]
fn no_text_of_a_definition_breaks_out_of_the_unit() {
    define(
        "web",
        "command = ['/bin/sleep', '1000']\ndescription = '100 % of $HOME; %n \\ \"quoted\" é'\n",
    );
    must("systemctl daemon-reload");
    assert_eq!(
        property(&unit("web"), "Description"),
        "100 % of $HOME; %n \\ \"quoted\" é"
    );
    define(
        "web",
        "command = ['/bin/sleep', '1000']\ndescription = \"a\\nExecStartPre=/bin/touch /evil\"\n",
    );
    must("systemctl daemon-reload");
    start_refused("web");
    assert!(!fs::exists("/evil").expect("the root can be asked"));
}

/// A box with `start-at-boot` runs after the machine has started, in its order; one without does not; and at
/// shutdown a box is stopped in its own way while its scope and the journal still stand.
#[test]
fn boxes_start_at_boot_and_stop_in_order_at_shutdown() {
    if boots() == 0 {
        must("mkdir -p /srv/mark /var/log/journal; systemctl restart systemd-journald");
        // The stop command runs in the box before the signal. A scope that systemd stops first gets the signal first.
        let script = "trap 'sleep 1; [ -e /tmp/asked ] && echo stopped well > /mark/$(hostname); echo last words; exit 0' TERM; \
                      echo up; while :; do sleep 0.2; done";
        let mount = "[stop]\ncommand = ['touch', '/tmp/asked']\ntimeout = '60s'\n\
                     [[mount]]\nbind = '/srv/mark'\nat = '/mark'";
        define_script("db", script, &format!("start-at-boot = true\n{mount}"));
        define_script(
            "web",
            script,
            &format!("start-at-boot = true\nafter = ['db']\nrequires = ['db']\n{mount}"),
        );
        define_script("idle", script, "");
        must("systemctl daemon-reload");
        start("web");
        wait_for_line("web", "up");
        wait_for_line("db", "up");
        reboot();
    }
    for name in ["db", "web"] {
        wait_for_state(&unit(name), "active");
        assert_eq!(must(&format!("cat /srv/mark/{name}")), "stopped well");
        let previous = must(&format!("journalctl -b -1 --no-pager -o cat -u box@{name}"));
        assert!(previous.contains("last words"), "{previous}");
        assert!(!previous.contains("SIGKILL"), "{previous}");
    }
    assert_eq!(property(&unit("idle"), "ActiveState"), "inactive");
    let entered = |name: &str| {
        property(&unit(name), "ActiveEnterTimestampMonotonic")
            .parse::<u64>()
            .expect("a number")
    };
    assert!(entered("db") <= entered("web"));
    // At shutdown web ended before db, which it requires.
    let previous = must("journalctl -b -1 --no-pager -o short-monotonic -u box@db -u box@web");
    let position = |name: &str| {
        previous
            .lines()
            .position(|line| line.contains(&format!("Stopped box@{name}.service")))
            .unwrap_or_else(|| panic!("{name} was stopped: {previous}"))
    };
    assert!(position("web") < position("db"), "{previous}");
    assert!(!printed("web").is_empty(), "{}", journal("web"));
    wait_for("the host is whole", || {
        must("systemctl is-system-running || true") == "running"
    });
}
