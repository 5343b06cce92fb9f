//! Golden pictures of tables and pages, in `snapshots/`. With `BOXD_BLESS=1` they are written instead of compared.

use super::*;
use crate::cli::golden;
use crate::status::{Answer, Definition, Ids, Limits, Payload, Probe, Unit, Usage, VERSION};

const NOW: u64 = 1_795_995_903_000_000;
const SECOND: u64 = 1_000_000;

fn clock() -> Clock {
    Clock {
        now: NOW,
        zone: TimeZone::UTC,
    }
}

fn at_rest(name: &str, description: &str) -> Status {
    Status {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        state: State::Stopped,
        since: None,
        runner: None,
        definition: Definition {
            state: DefinitionState::Loaded,
            files: vec![format!("/etc/boxd/{name}.toml").into()],
            problem: None,
            start_at_boot: false,
            newer: false,
            held: None,
        },
        unit: None,
        sockets: Vec::new(),
        payload: None,
        usage: None,
        limits: Limits::default(),
        health: None,
        remarks: Vec::new(),
        last_end: None,
    }
}

fn running() -> Status {
    Status {
        state: State::Running,
        since: Some(NOW - 123 * SECOND),
        runner: Some(Runner::Unit),
        definition: Definition {
            state: DefinitionState::Loaded,
            files: vec![
                "/etc/boxd/web.toml".into(),
                "/run/boxd/definitions/web.toml.d/10-memory.toml".into(),
            ],
            problem: None,
            start_at_boot: true,
            newer: false,
            held: None,
        },
        unit: Some(Unit {
            name: "box@web.service".to_owned(),
            active_state: "active".to_owned(),
            sub_state: "running".to_owned(),
            result: "success".to_owned(),
            since: Some(NOW - 123 * SECOND),
            supervisor: Some(812),
            supervisor_version: Some("1.2.0".to_owned()),
            status_text: Some("Running".to_owned()),
            restarts: 2,
            ..Unit::default()
        }),
        payload: Some(Payload {
            pid: 815,
            command: Some("nginx".to_owned()),
            started: NOW - 123 * SECOND,
            started_by: "1.1.9".to_owned(),
            scope: "box-web.scope".to_owned(),
            cgroup: "/sys/fs/cgroup/box.slice/box-web.scope".into(),
            root: "/srv/web".to_owned(),
            tty: true,
            ids: Some(Ids {
                first: 655_360,
                last: 720_895,
            }),
        }),
        usage: Some(Usage {
            memory: Some(12_897_485),
            memory_peak: Some(15 << 20),
            cpu: Some(1_234_000),
            tasks: Some(3),
        }),
        limits: Limits {
            memory: Some(512 << 20),
            memory_high: Some(400 << 20),
            memory_swap: Some(0),
            cpu: Some(1_500_000),
            cpu_weight: Some(50),
            cpus: Some(vec![0, 1, 2, 5]),
            tasks: Some(512),
            io_weight: Some(200),
            io_read: [("/dev/vda".into(), 10_000_000)].into(),
            io_write: [("/dev/vda".into(), 1_500)].into(),
            io_read_operations: [("/dev/vdb\u{1b}[2J".into(), 100)].into(),
            io_write_operations: [("/dev/vda".into(), 7)].into(),
        },
        health: Some(Health {
            state: HealthState::Unhealthy,
            since: NOW - 33 * SECOND,
            failures: 2,
            probes: vec![
                Probe {
                    at: NOW - 93 * SECOND,
                    took: 900,
                    answer: Answer::Success,
                    output: String::new(),
                },
                Probe {
                    at: NOW - 63 * SECOND,
                    took: 12_000,
                    answer: Answer::Failure,
                    output: "HTTP 200 OK\nits body does not contain \"ok\"".to_owned(),
                },
                Probe {
                    at: NOW - 33 * SECOND,
                    took: 5_001_000,
                    answer: Answer::Timeout,
                    output: "\u{1b}[2J a line that is longer than any terminal ought to be, which it clears \
                             if nobody is in the way; no answer within 5s"
                        .to_owned(),
                },
            ],
        }),
        ..at_rest("web", "Shop front")
    }
}

fn listening() -> Status {
    let socket = |unit: &str, listen: &[&str], is_open, sub_state: &str, result: &str| Socket {
        unit: unit.to_owned(),
        listen: listen.iter().map(|address| (*address).to_owned()).collect(),
        is_open,
        sub_state: sub_state.to_owned(),
        result: result.to_owned(),
    };
    Status {
        sockets: vec![
            socket(
                "box@api.socket",
                &["[::]:80", "/run/api"],
                true,
                "listening",
                "success",
            ),
            socket(
                "box@api:admin.socket",
                &["127.0.0.1:81"],
                true,
                "running",
                "success",
            ),
            socket("box@api:old.socket", &["82"], false, "dead", "success"),
            socket(
                "box@api:x.socket",
                &["83"],
                false,
                "failed",
                "trigger-limit-hit",
            ),
        ],
        ..at_rest("api", "Started at need")
    }
}

fn failed() -> Status {
    Status {
        state: State::Failed,
        since: Some(NOW - 3700 * SECOND),
        unit: Some(Unit {
            name: "box@db.service".to_owned(),
            active_state: "failed".to_owned(),
            sub_state: "failed".to_owned(),
            result: "exit-code".to_owned(),
            exit_code: libc::CLD_EXITED,
            exit_status: 203,
            status_text: Some("cannot execute \"/usr/bin/postgres\": no such file".to_owned()),
            ..Unit::default()
        }),
        ..at_rest(
            "db",
            "Orders and stock, with a description too long for any narrow terminal",
        )
    }
}

fn broken() -> Status {
    Status {
        state: State::Broken,
        definition: Definition {
            state: DefinitionState::Broken,
            files: vec!["/etc/boxd/mail.toml".into()],
            problem: Some(
                "error: unknown key \"comand\"\n --> /etc/boxd/mail.toml:2:1\n  |\n2 | comand = [\"/bin/true\"]\n  | ^^^^^^ did you mean \"command\"?\n"
                    .to_owned(),
            ),
            start_at_boot: false,
            newer: false,
            held: None,
        },
        ..at_rest("mail", "")
    }
}

fn foreground() -> Status {
    Status {
        state: State::Running,
        since: Some(NOW - 5 * SECOND),
        runner: Some(Runner::Foreground),
        definition: Definition {
            state: DefinitionState::Missing,
            files: vec![],
            problem: None,
            start_at_boot: false,
            newer: false,
            held: None,
        },
        payload: Some(Payload {
            pid: 999,
            command: Some("sh\x1b[2J".to_owned()),
            started: NOW - 5 * SECOND,
            started_by: "1.2.0".to_owned(),
            scope: "box-try.scope".to_owned(),
            cgroup: "/sys/fs/cgroup/unified/boxd-try".into(),
            root: "host".to_owned(),
            tty: false,
            ids: None,
        }),
        remarks: vec!["the host's /usr cannot be idmapped: its owners appear as nobody".to_owned()],
        ..at_rest("try", "A try")
    }
}

fn report() -> Report {
    Report {
        version: VERSION,
        systemd: true,
        boxes: vec![
            failed(),
            broken(),
            at_rest("old", "Yesterday's"),
            foreground(),
            running(),
        ],
    }
}

fn plain(width: Option<usize>) -> Look {
    Look {
        color: false,
        width,
    }
}

const COLOURED: Look = Look {
    color: true,
    width: Some(120),
};

fn compare(name: &str, text: &str) {
    golden::compare(&format!("show/snapshots/{name}"), text);
}

#[test]
fn the_table_fits_a_terminal_of_80_columns() {
    let text = boxes(&report(), &clock(), plain(Some(80)));
    for line in text.lines().take(6) {
        assert!(super::super::terminal::columns(line) <= 80, "{line}");
    }
    compare("table-80", &text);
}

#[test]
fn the_table_uses_a_terminal_of_120_columns() {
    compare("table-120", &boxes(&report(), &clock(), plain(Some(120))));
}

#[test]
fn the_table_is_whole_where_there_is_no_terminal() {
    compare("table-whole", &boxes(&report(), &clock(), plain(None)));
}

#[test]
fn the_table_has_colours() {
    compare("table-colour", &boxes(&report(), &clock(), COLOURED));
}

/// Each state with something to tell has a line that tells it.
#[test]
fn the_table_says_why() {
    let waiting = Status {
        state: State::Starting,
        unit: Some(Unit {
            waits_for: vec![
                "box@db.service".to_owned(),
                "network-online.target".to_owned(),
            ],
            ..Unit::default()
        }),
        ..at_rest("app", "Waits for others")
    };
    let starting = Status {
        state: State::Starting,
        unit: Some(Unit {
            status_text: Some("waiting for READY=1".to_owned()),
            ..Unit::default()
        }),
        ..at_rest("api", "Not ready yet")
    };
    let limited = Status {
        state: State::Failed,
        unit: Some(Unit {
            result: "start-limit-hit".to_owned(),
            ..Unit::default()
        }),
        ..at_rest("limit", "Started too often")
    };
    let again = Status {
        state: State::Restarting,
        unit: Some(Unit {
            result: "oom-kill".to_owned(),
            invocation: Some("abc".to_owned()),
            ..Unit::default()
        }),
        last_end: Some(crate::status::End {
            at: NOW,
            result: "oom-kill".to_owned(),
            sentence: "was killed: out of memory (limit 64M)".to_owned(),
            code: "killed".to_owned(),
            detail: Some("KILL".to_owned()),
            exit_status: 137,
            invocation: Some("abc".to_owned()),
        }),
        ..at_rest("oom", "Wants too much")
    };
    let mut changed = running();
    changed.health = None;
    changed.definition.newer = true;
    let mut broken_while_running = running();
    broken_while_running.health = None;
    broken_while_running.definition.problem = Some("error: a slip".to_owned());
    let report = Report {
        version: VERSION,
        systemd: true,
        boxes: vec![
            waiting.clone(),
            starting,
            failed(),
            limited,
            again,
            broken(),
            running(),
            changed.clone(),
            broken_while_running,
            at_rest("old", "Yesterday's"),
        ],
    };
    compare("table-why", &boxes(&report, &clock(), plain(None)));
    let pages = [waiting, changed].map(|status| page(&status, &[], &clock(), plain(Some(80))));
    compare("page-why", &pages.join("\n"));
}

#[test]
fn no_boxes_and_no_systemd_are_told() {
    let report = Report {
        version: VERSION,
        systemd: false,
        boxes: vec![],
    };
    compare("table-empty", &boxes(&report, &clock(), plain(Some(80))));
}

#[test]
fn a_running_box_has_a_page() {
    let output = [
        "Nov 29 23:43:01 host web[815]: listening on port 80".to_owned(),
        format!("Nov 29 23:43:02 host web[815]: {}", "GET / ".repeat(30)),
    ];
    compare(
        "page-80",
        &page(&running(), &output, &clock(), plain(Some(80))),
    );
    compare(
        "page-120",
        &page(&running(), &output, &clock(), plain(Some(120))),
    );
    compare(
        "page-colour",
        &page(&running(), &output, &clock(), COLOURED),
    );
}

#[test]
fn a_failed_box_has_a_page_that_says_why() {
    compare(
        "page-failed",
        &page(&failed(), &[], &clock(), plain(Some(80))),
    );
    compare(
        "page-broken",
        &page(&broken(), &[], &clock(), plain(Some(80))),
    );
    compare(
        "page-foreground",
        &page(&foreground(), &[], &clock(), plain(Some(80))),
    );
}

#[test]
fn sockets_are_told_with_what_becomes_of_a_connection() {
    compare(
        "page-sockets",
        &page(&listening(), &[], &clock(), plain(Some(80))),
    );
}

#[test]
fn an_end_is_told_when_the_box_is_gone() {
    let end = |invocation: &str| crate::status::End {
        at: NOW - 300 * SECOND,
        result: "oom-kill".to_owned(),
        sentence: "was killed: out of memory (limit 64M)\x1b[2J".to_owned(),
        code: "killed".to_owned(),
        detail: Some("KILL".to_owned()),
        exit_status: 137,
        invocation: Some(invocation.to_owned()),
    };
    let unit = Unit {
        name: "box@db.service".to_owned(),
        active_state: "failed".to_owned(),
        result: "exit-code".to_owned(),
        exit_code: libc::CLD_EXITED,
        exit_status: 137,
        invocation: Some("abc".to_owned()),
        ..Unit::default()
    };
    let of_this_run = Status {
        unit: Some(unit),
        last_end: Some(end("abc")),
        ..failed()
    };
    let of_an_earlier_run = Status {
        last_end: Some(end("def")),
        ..failed()
    };
    let forgotten_by_systemd = Status {
        last_end: Some(end("abc")),
        ..at_rest("old", "Yesterday's")
    };
    let paused = Status {
        state: State::Paused,
        last_end: Some(end("def")),
        ..foreground()
    };
    let pages: Vec<String> = [of_this_run, of_an_earlier_run, forgotten_by_systemd, paused]
        .iter()
        .map(|status| page(status, &[], &clock(), plain(Some(80))))
        .collect();
    compare("page-ended", &pages.join("\n"));
}

#[test]
fn an_end_is_told_in_words() {
    for (result, code, status, text) in [
        (
            "exit-code",
            libc::CLD_EXITED,
            3,
            "exit-code: exited with status 3",
        ),
        (
            "exit-code",
            libc::CLD_EXITED,
            137,
            "exit-code: killed by SIGKILL (status 137)",
        ),
        (
            "signal",
            libc::CLD_KILLED,
            11,
            "signal: the supervisor was killed by SIGSEGV",
        ),
        ("unheard-of", 0, 0, "unheard-of"),
    ] {
        assert_eq!(ended(result, code, status), text);
    }
}
