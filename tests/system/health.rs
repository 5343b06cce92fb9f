//! A box is asked how it is, and what follows from its answers.

use crate::guest::{
    define, define_script, everything, inside, journal, must, nothing_left, pid, property, sh,
    start, status, stop, unit, wait_for, wait_for_state,
};

/// Its state, and what its last probe said.
fn health(name: &str) -> (String, String) {
    let health = &status(name)["health"];
    let last = health["probes"].as_array().and_then(|probes| probes.last());
    let said = last.map_or("", |probe| probe["output"].as_str().expect("text"));
    (
        health["state"].as_str().unwrap_or_default().to_owned(),
        said.to_owned(),
    )
}

fn wait_for_health(name: &str, state: &str) {
    wait_for(&format!("{name} is {state}"), || health(name).0 == state);
}

/// Entries of the journal with this message id about the box: how often, and the last one's field.
fn told(name: &str, id: &str, field: &str) -> (usize, String) {
    let lines = must(&format!(
        "journalctl --sync; journalctl --no-pager -o json MESSAGE_ID={id} BOX_NAME={name}"
    ));
    let last = lines.lines().next_back().unwrap_or("{}");
    let entry: serde_json::Value = serde_json::from_str(last).expect("JSON");
    (
        lines.lines().count(),
        entry[field].as_str().unwrap_or_default().to_owned(),
    )
}

const UNHEALTHY: &str = "80a849665eed43e7af13788af7184cd1";
const HEALTHY: &str = "e9fd0a7c7dd5468dbfe526f3cc0ef6a8";

/// Ready is the first success, asked for at short intervals; failing probes end the box, and systemd starts it again
/// though its own policy is "no", and stops doing so at its limit; "stop" ends it for good.
#[test]
fn a_box_is_ready_once_healthy_and_started_again_when_unhealthy() {
    let definition = |on_failure: &str| {
        define_script(
            "well",
            "until [ -e /tmp/slept ]; do sleep 0.3; touch /tmp/slept; done; touch /tmp/well; exec sleep infinity",
            &format!(
                "user = 'nobody'\nready.when = 'healthy'\nrestart.limit-burst = 2\nrestart.limit-interval = '1h'\n\
                 [health]\ncommand = ['/bin/sh', '-c', 'test -e /tmp/well || {{ echo ill as; id -un; exit 3; }}']\n\
                 interval = '300ms'\nstart-interval = '100ms'\nretries = 2\non-failure = '{on_failure}'"
            ),
        );
        must("systemctl daemon-reload");
    };
    definition("restart");
    start("well");
    assert_eq!(health("well").0, "healthy");
    let first = pid("well");
    inside("well", "rm /tmp/well");
    wait_for("another start", || {
        property(&unit("well"), "NRestarts") == "1"
    });
    wait_for_state(&unit("well"), "active");
    assert_ne!(pid("well"), first);
    let (entries, said) = told("well", UNHEALTHY, "BOX_PROBE_OUTPUT");
    assert_eq!(
        (entries, said.as_str()),
        (1, "ill as\nnobody\nexit status 3")
    );
    assert_eq!(
        told("well", HEALTHY, "BOX_HEALTH"),
        (2, "healthy".to_owned())
    );
    let log = journal("well");
    assert!(
        log.contains(
            "box well is unhealthy: 2 probes in a row failed; it is stopped and started again"
        ),
        "{log}"
    );
    assert!(
        log.contains("box well was ended: it was unhealthy"),
        "{log}"
    );
    // The second start was the last one that is allowed.
    inside("well", "rm /tmp/well");
    wait_for_state(&unit("well"), "failed");
    assert_eq!(property(&unit("well"), "ExecMainStatus"), "254");
    let page = sh("boxctl status --json well").out;
    assert!(page.contains("\"result\": \"health\""), "{page}");
    must("systemctl reset-failed");

    definition("stop");
    start("well");
    inside("well", "rm /tmp/well");
    wait_for_state(&unit("well"), "failed");
    assert_eq!(property(&unit("well"), "NRestarts"), "0");
    assert_eq!(property("box-well.scope", "ActiveState"), "inactive");
    assert_eq!(sh("test -e /run/boxd/well").status, 1);
}

/// Connections are made in the box's own network; a box that only reports goes on, and recovers; a frozen one is not
/// asked.
#[test]
fn a_box_is_asked_over_its_own_network() {
    let server = "mkdir -p /tmp/www; cd /tmp/www; echo all is well > healthz; exec busybox httpd -f -p 8017 -h /tmp/www";
    let rules = "interval = '300ms'\nstart-interval = '200ms'\nretries = 2\ntimeout = '20s'";
    let define = |name: &str, probe: &str| {
        define_script(
            name,
            server,
            &format!("ready.when = 'healthy'\n[health]\n{probe}\n{rules}"),
        );
    };
    define(
        "web",
        "http = 'http://localhost:8017/healthz'\nhttp-body = 'is well'\nhttp-status = 200",
    );
    define("port", "tcp = '127.0.0.1:8017'");
    start("web");
    start("port");
    assert_eq!(
        health("web"),
        ("healthy".to_owned(), "HTTP 200 OK".to_owned())
    );
    assert_eq!(health("port").1, "connected to 127.0.0.1:8017");
    let payload = pid("web");
    inside("web", "rm /tmp/www/healthz");
    wait_for_health("web", "unhealthy");
    assert_eq!(health("web").1, "HTTP 404 Not Found");
    wait_for("the status of the unit", || {
        property(&unit("web"), "StatusText").contains("unhealthy: HTTP 404 Not Found")
    });
    let page = must("boxctl status web");
    assert!(
        page.contains("Health: unhealthy since ") && page.contains("Probes: "),
        "{page}"
    );
    inside("web", "cp /dev/null /tmp/www/healthz");
    wait_for("another reason", || {
        health("web").1.contains("does not contain \"is well\"")
    });
    inside("web", "sh -c 'echo it is well > /tmp/www/healthz'");
    wait_for_health("web", "healthy");
    wait_for("the status of the unit", || {
        !property(&unit("web"), "StatusText").contains("healthy")
    });
    assert_eq!(
        (pid("web"), property(&unit("web"), "NRestarts")),
        (payload, "0".to_owned())
    );
    assert_eq!(told("web", UNHEALTHY, "BOX_HEALTH").0, 1);
    assert_eq!(told("web", HEALTHY, "BOX_HEALTH").0, 2);

    let freeze = |value| {
        must(&format!(
            "echo {value} > /sys/fs/cgroup/box.slice/box-port.scope/cgroup.freeze"
        ))
    };
    freeze(1);
    wait_for("the freezer", || {
        must("cat /sys/fs/cgroup/box.slice/box-port.scope/cgroup.events").contains("frozen 1")
    });
    std::thread::sleep(std::time::Duration::from_secs(1));
    let asked = status("port")["health"].clone();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(status("port")["health"], asked);
    freeze(0);
    wait_for("another probe", || status("port")["health"] != asked);
    assert_eq!(health("port").0, "healthy");
}

/// A probe that hangs ends with all it started, its output is kept within bounds and harmless, and a supervisor killed
/// while it asks has an heir that goes on counting.
#[test]
fn a_hanging_probe_ends_with_all_it_started() {
    define(
        "hang",
        r#"command = ["/bin/sleep", "infinity"]
[health]
command = ["/bin/sh", "-c", '''
sleep 7654 & (sleep 7653 &)
head -c 3000000 /dev/urandom; printf '\033[2J\000here\n'; [ ! -e /tmp/flood ] || cat /dev/zero
exec sleep 7652''']
timeout = "3s"
interval = "200ms"
start-period = 0
retries = 1000
"#,
    );
    let processes = || must("pgrep -fc 'sleep 765[2-4]' || true");
    start("hang");
    stop("hang");
    let before = everything();
    start("hang");
    wait_for("a probe at work", || processes() == "3");
    wait_for("an answer", || !health("hang").1.is_empty());
    let probe = status("hang")["health"]["probes"][0].clone();
    assert_eq!(probe["answer"], "timeout");
    let said = probe["output"].as_str().expect("text");
    assert!(
        said.ends_with("\\x1b[2J\\x00here\nno answer within 3s"),
        "{said:?}"
    );
    assert!(said.len() < 5000, "{} bytes", said.len());
    // Never more than those of one probe, which are some more for a moment while the shell forks.
    for _ in 0..20 {
        let number: u32 = processes().parse().expect("a number");
        assert!(number <= 5, "{number} processes of probes");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(told("hang", UNHEALTHY, "BOX_HEALTH").0, 0);

    wait_for("a probe at work", || processes() == "3");
    let (payload, supervisor) = (pid("hang"), property(&unit("hang"), "MainPID"));
    let failures = || status("hang")["health"]["failures"].as_u64().unwrap_or(0);
    let counted = failures();
    must(&format!("kill -KILL {supervisor}"));
    wait_for("the heir", || {
        let heir = property(&unit("hang"), "MainPID");
        heir != supervisor && heir != "0" && property(&unit("hang"), "ActiveState") == "active"
    });
    wait_for("it goes on counting", || failures() > counted + 1);
    assert_eq!(pid("hang"), payload);

    inside("hang", "touch /tmp/flood");
    wait_for("a flood", || health("hang").1.starts_with("\\x00\\x00"));
    stop("hang");
    assert_eq!(processes(), "0");
    nothing_left(&before);
}
