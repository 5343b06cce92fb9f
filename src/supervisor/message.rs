//! What the supervisor says in the journal, and in the status of its unit.
//!
//! Every entry has `BOX_NAME=` and a `MESSAGE_ID=` that the catalog `boxd.catalog` explains (`journalctl -x`).
//! The last one of a box has the fields of [`fields`]: how it ended, and which run of the box that was.

use std::time::Duration;

use super::policy::{self, Exit, Failure, KILL_WAIT, Killed, Notice, Outcome, Result};
use super::process::signal_name;
use crate::health;
use crate::journal::fields;
use crate::journal::native::field;
use crate::plan::{HealthRules, OnFailure, Rate, ReadyWhen};

/// Identifier of the supervisor's own entries; those of the payload have the box's name.
const IDENTIFIER: &[u8] = b"box-supervisor";

/// An entry in the journal.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    id: &'static str,
    priority: Priority,
    text: String,
    end: Option<End>,
    health: Option<(health::State, String)>,
}

/// What the last entry of a box holds besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    outcome: Outcome,
    pid: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    Error,
    Warning,
    Info,
    Debug,
}

/// What the sentences are about.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The box.
    pub name: &'a str,
    /// Pid of its first process.
    pub pid: i32,
    /// What makes it ready.
    pub ready: ReadyWhen,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// From that to the kill of all.
    pub stop_timeout: Duration,
    /// How long its sockets are not used when it is stopped.
    pub idle_time: Option<Duration>,
    /// What the box may use of memory, if it has a limit.
    pub memory_limit: Option<u64>,
}

impl Message {
    /// The box runs; for the first supervisor and for one that takes over.
    pub fn running(subject: &Subject<'_>, taken_over: bool) -> Message {
        let Subject { name, pid, .. } = subject;
        match taken_over {
            false => Message::info(
                "7cc03c01505c4fd1b61d3abda9138f48",
                format!("box {name} runs, pid {pid}"),
            ),
            true => Message::info(
                "f55f1424e66c4006a15c8653795d11a7",
                format!("box {name} still runs, pid {pid}; its supervision was taken over"),
            ),
        }
    }

    /// Something the policy wants said; a stop needs no entry, as systemd says so itself.
    pub fn of(notice: Notice, subject: &Subject<'_>) -> Option<Message> {
        let name = subject.name;
        let status = status_of(notice, subject);
        Some(match notice {
            Notice::Stopping | Notice::Leaving | Notice::Killed(Killed::Unheard) => return None,
            // Said with more words where the probes are known.
            Notice::Failed(Failure::Unhealthy) => return None,
            Notice::Idle => Message::info(
                "a08b0b33b7ae4f6e9c3a0bd92d7b1c5e",
                format!(
                    "box {name} is stopped: nobody has used its sockets for {}; the next connection starts it again",
                    idle_time(subject)
                ),
            ),
            Notice::Ready => Message::info(
                "4b8284ea54234e3d8b194000bd63b774",
                format!("box {name} is ready"),
            ),
            Notice::Failed(_) => Message {
                priority: Priority::Error,
                ..Message::info(
                    "86d6254a23a74dbc8f092a8be598dd92",
                    format!("box {name} {status}"),
                )
            },
            Notice::Killed(Killed::Timeout) => Message {
                priority: Priority::Warning,
                ..Message::info(
                    "9b8a298db069458d834b66b8501e11ae",
                    format!(
                        "box {name} did not stop within {:?} of {}: all its processes are killed",
                        subject.stop_timeout,
                        signal_name(subject.stop_signal)
                    ),
                )
            },
            Notice::OomKill(processes) => Message {
                priority: Priority::Error,
                ..Message::info(
                    "baaf4d8f82cf444b943cd396d1de4efd",
                    format!(
                        "box {name}: the kernel killed {processes} {}: {}",
                        if processes == 1 {
                            "process"
                        } else {
                            "processes"
                        },
                        out_of_memory(subject)
                    ),
                )
            },
            Notice::Stuck => Message {
                priority: Priority::Error,
                ..Message::info(
                    "c0ab431c840d4396b7165c80e10ed8a4",
                    format!(
                        "box {name}: processes are left {KILL_WAIT:?} after they were killed; \
                         the kernel waits for something they do"
                    ),
                )
            },
            Notice::Ended(outcome) => Message {
                priority: match outcome.result {
                    Result::Success | Result::Reboot => Priority::Info,
                    _ => Priority::Warning,
                },
                end: Some(End {
                    outcome,
                    pid: subject.pid,
                }),
                ..Message::info(fields::ENDED, format!("box {name} {status}"))
            },
        })
    }

    /// The box was paused, or goes on.
    pub fn paused(subject: &Subject<'_>, paused: bool) -> Message {
        let name = subject.name;
        match paused {
            true => Message::info(
                "db4c12afcef94f78a699574b6f1538f4",
                format!("box {name} is paused"),
            ),
            false => Message::info(
                "7ccc56797c20443685b4bc074d9c89de",
                format!("box {name} goes on after a pause"),
            ),
        }
    }

    /// The box has become healthy or unhealthy by what the last probe said.
    pub fn health(
        subject: &Subject<'_>,
        condition: health::State,
        rules: &HealthRules,
        output: &str,
    ) -> Message {
        let name = subject.name;
        let message = match (condition, rules.on_failure) {
            (health::State::Unhealthy, on_failure) => {
                let failures = match rules.retries {
                    1 => "a probe failed".to_owned(),
                    number => format!("{number} probes in a row failed"),
                };
                let (priority, then) = match on_failure {
                    OnFailure::Report => (Priority::Warning, ""),
                    OnFailure::Restart => (Priority::Error, "; it is stopped and started again"),
                    OnFailure::Stop => (Priority::Error, "; it is stopped"),
                };
                Message {
                    priority,
                    ..Message::info(
                        "80a849665eed43e7af13788af7184cd1",
                        format!("box {name} is unhealthy: {failures}{then}"),
                    )
                }
            }
            _ => Message::info(
                "e9fd0a7c7dd5468dbfe526f3cc0ef6a8",
                format!("box {name} is healthy"),
            ),
        };
        Message {
            health: Some((condition, output.to_owned())),
            ..message
        }
    }

    /// Output that the journal did not take in time.
    pub fn dropped(subject: &Subject<'_>, bytes: u64) -> Message {
        Message {
            priority: Priority::Warning,
            ..Message::info(
                "bb7d8d4b986042e59a648b212b0bbec8",
                format!(
                    "box {}: {bytes} bytes of its output are dropped: the journal did not take them \
                     in time",
                    subject.name
                ),
            )
        }
    }

    /// Output that is more than the definition allows.
    pub fn too_much(subject: &Subject<'_>, lines: u64, bytes: u64, rate: &Rate) -> Message {
        let limits: Vec<String> = rate
            .lines
            .map(|lines| format!("{lines} lines"))
            .into_iter()
            .chain(rate.bytes.map(size))
            .collect();
        Message {
            priority: Priority::Warning,
            ..Message::info(
                "c87192727d85418bada13960a1f9cd22",
                format!(
                    "box {}: {lines} lines of its output, {bytes} bytes, are dropped: [output] of its definition allows \
                     {} in {:?}",
                    subject.name,
                    limits.join(" and "),
                    rate.interval
                ),
            )
        }
    }

    /// Something went wrong that the supervisor tries again, or does without.
    pub fn trouble(subject: &Subject<'_>, what: &str) -> Message {
        Message {
            priority: Priority::Error,
            ..Message::info(
                "7457a434cb0b4ceabc832a6491a82572",
                format!("box {}: {what}", subject.name),
            )
        }
    }

    /// The kernel does not help the supervisor to give up the files it does not need.
    pub fn without_landlock(subject: &Subject<'_>) -> Message {
        Message {
            priority: Priority::Debug,
            ..Message::info(
                "5c0f4dbb1d6f4a0e8f7d3b6c2a9e4718",
                format!(
                    "box {}: this kernel runs without Landlock, so its supervisor can still open files that it does \
                     not need",
                    subject.name
                ),
            )
        }
    }

    fn info(id: &'static str, text: String) -> Message {
        Message {
            id,
            priority: Priority::Info,
            text,
            end: None,
            health: None,
        }
    }

    /// The entry in journald's native protocol.
    pub fn entry(&self, box_name: &str) -> Vec<u8> {
        let mut entry = Vec::with_capacity(256);
        let priority = match self.priority {
            Priority::Error => b"3",
            Priority::Warning => b"4",
            Priority::Info => b"6",
            Priority::Debug => b"7",
        };
        field(&mut entry, "PRIORITY", priority);
        field(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
        field(&mut entry, "MESSAGE_ID", self.id.as_bytes());
        field(&mut entry, fields::BOX_NAME, box_name.as_bytes());
        // `journalctl -u` finds by it what came from a process that was gone when journald asked for its cgroup.
        let unit = ["box@", box_name, ".service"].concat();
        field(&mut entry, "OBJECT_SYSTEMD_UNIT", unit.as_bytes());
        if let Some(End { outcome, pid }) = self.end {
            field(&mut entry, fields::BOX_PID, pid.to_string().as_bytes());
            let result = outcome.result.as_str();
            field(&mut entry, fields::BOX_RESULT, result.as_bytes());
            let status = outcome.status.to_string();
            field(&mut entry, fields::BOX_EXIT_STATUS, status.as_bytes());
            let (code, status) = match outcome.exit {
                Exit::Status(status) => ("exited", status.to_string()),
                Exit::Signal { signal, dumped } => (
                    if dumped { "dumped" } else { "killed" },
                    // systemd writes signals without their SIG.
                    signal_name(signal).trim_start_matches("SIG").to_owned(),
                ),
                Exit::Unknown => ("unknown", String::new()),
            };
            field(&mut entry, fields::EXIT_CODE, code.as_bytes());
            field(&mut entry, fields::EXIT_STATUS, status.as_bytes());
            // Of the process that told journald a field says so too, unless it was gone when journald asked.
            if let Ok(invocation) = std::env::var(fields::INVOCATION) {
                field(&mut entry, fields::INVOCATION, invocation.as_bytes());
            }
        }
        if let Some((condition, output)) = &self.health {
            field(&mut entry, "BOX_HEALTH", condition.as_str().as_bytes());
            field(&mut entry, "BOX_PROBE_OUTPUT", output.as_bytes());
        }
        field(&mut entry, "MESSAGE", self.text.as_bytes());
        entry
    }
}

/// The line in `systemctl status` while the box runs.
pub fn running(subject: &Subject<'_>) -> String {
    format!("running, pid {}", subject.pid)
}

/// The line in `systemctl status` while the box is paused.
pub fn paused(subject: &Subject<'_>) -> String {
    format!("paused, pid {}", subject.pid)
}

/// The line in `systemctl status` while a box is waited for.
pub fn waiting(for_what: ReadyWhen, left: Duration) -> String {
    let what = match for_what {
        ReadyWhen::Started => "its command to be executed",
        ReadyWhen::Notify => "READY=1 from the box",
        ReadyWhen::Healthy => "a probe to succeed",
    };
    let left = Duration::from_millis(left.as_millis() as u64);
    format!("starting: waits for {what}, for {left:?} at most")
}

/// The line in `systemctl status` after a notice.
pub fn status_of(notice: Notice, subject: &Subject<'_>) -> String {
    match notice {
        Notice::Leaving => format!(
            "stopping: the box says so itself, all is killed after {:?}",
            subject.stop_timeout
        ),
        Notice::Ready => running(subject),
        Notice::Idle => format!(
            "stopping: nobody has used its sockets for {}",
            idle_time(subject)
        ),
        Notice::Failed(why) => failed(why, subject).to_owned(),
        Notice::Stopping => format!(
            "stopping: {} was sent, all is killed after {:?}",
            signal_name(subject.stop_signal),
            subject.stop_timeout
        ),
        Notice::Killed(Killed::Timeout) => format!(
            "stopping: killed, as it did not stop within {:?} of {}",
            subject.stop_timeout,
            signal_name(subject.stop_signal)
        ),
        Notice::Killed(Killed::Unheard) => {
            format!(
                "stopping: killed, as it does not handle {}",
                signal_name(subject.stop_signal)
            )
        }
        Notice::OomKill(_) => format!(
            "{}; processes of it were killed: {}",
            running(subject),
            out_of_memory(subject)
        ),
        Notice::Stuck => "stopping: processes are left that SIGKILL does not end".to_owned(),
        Notice::Ended(outcome) => ended(outcome, subject),
    }
}

/// Of an end that nobody saw.
const UNKNOWN: &str = "its exit status is unknown: it ended under another supervisor than the one that started it, and \
                       kernels before 6.15 keep no record";

fn ended(outcome: Outcome, subject: &Subject<'_>) -> String {
    if let Some(why) = outcome.failed {
        return format!("was ended: it {}", failed(why, subject));
    }
    let how = match (outcome.result, outcome.exit) {
        (Result::OomKill, _) => format!("was killed: {}", out_of_memory(subject)),
        (Result::Timeout, _) => format!(
            "was killed: it did not stop within {:?} of {}",
            subject.stop_timeout,
            signal_name(subject.stop_signal)
        ),
        (Result::Success, _) if outcome.idle => "stopped, as nobody used its sockets".to_owned(),
        (Result::Success, Exit::Status(0)) => "ended".to_owned(),
        (Result::Success, Exit::Signal { signal, .. }) if signal == policy::POWERED_OFF => {
            "powered off".to_owned()
        }
        (Result::Reboot, _) => "reboots".to_owned(),
        (Result::Success, Exit::Unknown) => ["stopped, and ", UNKNOWN].concat(),
        (Result::Success, _) => "stopped".to_owned(),
        (_, Exit::Status(status)) => format!("ended with exit status {status}"),
        (_, Exit::Signal { signal, dumped }) => format!(
            "was ended by {}{}",
            signal_name(signal),
            if dumped { " and left a core" } else { "" }
        ),
        (_, Exit::Unknown) => ["ended, and ", UNKNOWN].concat(),
    };
    match outcome.ready {
        true => how,
        false => [&how, " before it was ready"].concat(),
    }
}

/// What a box did that ends it.
fn failed(why: Failure, subject: &Subject<'_>) -> &'static str {
    match (why, subject.ready) {
        (Failure::NotReady, ReadyWhen::Started) => {
            "was not ready within the timeout in [ready] of its definition"
        }
        (Failure::NotReady, ReadyWhen::Notify) => {
            "did not say READY=1 within the timeout in [ready] of its definition"
        }
        (Failure::NotReady, ReadyWhen::Healthy) => {
            "was not healthy within the timeout in [ready] of its definition"
        }
        (Failure::Unhealthy, _) => "was unhealthy",
        (Failure::Watchdog, _) => "did not feed its watchdog in time",
    }
}

fn idle_time(subject: &Subject<'_>) -> String {
    subject
        .idle_time
        .map_or_else(String::new, |time| format!("{time:?}"))
}

fn out_of_memory(subject: &Subject<'_>) -> String {
    match subject.memory_limit {
        Some(limit) => format!("out of memory (limit {})", size(limit)),
        None => "out of memory (the host's: the box has no limit)".to_owned(),
    }
}

/// A size as the definition writes it, in the greatest unit that divides it.
fn size(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'static> = Subject {
        name: "web",
        pid: 42,
        ready: ReadyWhen::Started,
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
        idle_time: None,
        memory_limit: Some(64 << 20),
    };

    fn outcome(result: Result, exit: Exit) -> Notice {
        Notice::Ended(Outcome {
            result,
            exit,
            status: 0,
            failed: None,
            ready: true,
            idle: false,
        })
    }

    #[test]
    fn an_end_says_how() {
        let killed = Exit::Signal {
            signal: 9,
            dumped: false,
        };
        for (notice, expected) in [
            (
                outcome(Result::OomKill, killed),
                "was killed: out of memory (limit 64M)",
            ),
            (
                outcome(Result::Timeout, killed),
                "was killed: it did not stop within 10s of SIGTERM",
            ),
            (outcome(Result::Success, killed), "stopped"),
            (outcome(Result::Success, Exit::Status(0)), "ended"),
            (
                outcome(Result::ExitCode, Exit::Status(3)),
                "ended with exit status 3",
            ),
            (
                outcome(
                    Result::CoreDump,
                    Exit::Signal {
                        signal: 11,
                        dumped: true,
                    },
                ),
                "was ended by SIGSEGV and left a core",
            ),
        ] {
            assert_eq!(status_of(notice, &SUBJECT), expected);
        }
    }

    #[test]
    fn an_entry_has_the_fields_that_tell_it_from_others() {
        let notice = Notice::Ended(Outcome {
            result: Result::Signal,
            exit: Exit::Signal {
                signal: 6,
                dumped: false,
            },
            failed: None,
            ready: true,
            idle: false,
            status: 134,
        });
        let message = Message::of(notice, &SUBJECT).expect("is said");
        let entry = String::from_utf8(message.entry("web")).expect("is text");
        let fields: Vec<&str> = entry
            .lines()
            .filter(|field| !field.starts_with("INVOCATION_ID="))
            .collect();
        assert_eq!(
            fields,
            [
                "PRIORITY=4",
                "SYSLOG_IDENTIFIER=box-supervisor",
                "MESSAGE_ID=3791e04bc2bb4303996efe9b2b2dc398",
                "BOX_NAME=web",
                "OBJECT_SYSTEMD_UNIT=box@web.service",
                "BOX_PID=42",
                "BOX_RESULT=signal",
                "BOX_EXIT_STATUS=134",
                "EXIT_CODE=killed",
                "EXIT_STATUS=ABRT",
                "MESSAGE=box web was ended by SIGABRT",
            ]
        );
    }

    #[test]
    fn the_catalog_explains_every_message() {
        let catalog = include_str!("../../packaging/boxd.catalog");
        let source = [
            include_str!("message.rs"),
            include_str!("../journal/fields.rs"),
        ]
        .concat();
        let ids: Vec<&str> = source
            .split('"')
            .filter(|text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .collect();
        assert!(ids.len() > 12, "{ids:?}");
        for id in ids {
            assert!(catalog.contains(&format!("-- {id}\n")), "{id}");
        }
    }

    #[test]
    fn sizes_are_written_as_in_a_definition() {
        for (bytes, text) in [
            (64 << 20, "64M"),
            (1 << 30, "1G"),
            (1536 << 20, "1536M"),
            (1000, "1000"),
            (0, "0"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
