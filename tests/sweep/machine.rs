//! The box that is struck, the operations on it, and what is looked at afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::guest::{self, Ran};
use crate::tracer::{Role, Tracer};

/// The box that is struck.
pub const NAME: &str = "swept";
const SERVICE: &str = "box@swept.service";

/// In the command line of a box's payload, and in no other.
pub fn mark(name: &str) -> String {
    format!("this-is-the-payload-of-{name}")
}

/// A command that never ends is a finding of its own.
const COMMAND: &str = "timeout 100";

/// What is done to a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Start,
    Stop,
    Restart,
    Exec,
    /// The supervisor is killed, and the next one takes over.
    Adopt,
    /// The supervisor becomes the one that is installed.
    Replace,
}

impl Operation {
    pub const ALL: [Operation; 6] = [
        Operation::Start,
        Operation::Stop,
        Operation::Restart,
        Operation::Exec,
        Operation::Adopt,
        Operation::Replace,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Start => "start",
            Operation::Stop => "stop",
            Operation::Restart => "restart",
            Operation::Exec => "exec",
            Operation::Adopt => "adopt",
            Operation::Replace => "replace",
        }
    }
}

/// What is the case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// All of the box is there: its supervisor's pid and its first process'.
    Running { supervisor: i32, payload: i32 },
    /// Nothing of it is.
    Stopped,
    /// Something in between, which must not last.
    Between(String),
}

impl State {
    /// The first process of a box that runs.
    pub fn payload(&self) -> Option<i32> {
        match self {
            State::Running { payload, .. } => Some(*payload),
            _ => None,
        }
    }
}

/// Makes the box known, behind the gate.
pub fn install(program: &str) {
    // Its supervisor has an asker beside it, which asks nothing in this time.
    guest::define(
        NAME,
        &format!(
            "command = ['/bin/sh', '-c', '''\n: {}\ntrap 'exit 0' TERM\necho up\n\
             while :; do sleep 1000 & wait $!; done\n''']\n\
             [restart]\nlimit-interval = 0\n[[mount]]\nbind = '/srv'\nat = '/srv'\nread-only = true\n\
             [health]\ncommand = ['/bin/true']\ninterval = '1h'\nstart-period = 0\n",
            mark(NAME)
        ),
    );
    guest::write(
        &format!("/etc/systemd/system/{SERVICE}.d/gate.conf"),
        &format!(
            "[Service]\nExecStart=\nExecStart={program} gate l /usr/bin/boxd run %i\n\
             ExecStopPost=\nExecStopPost=-{program} gate c /usr/bin/boxd clean %i\n\
             ExecStopPost={program} gate a /usr/bin/boxd clean --again %i\n"
        ),
    );
    guest::must("systemctl daemon-reload");
}

/// Looks at everything of a box once.
pub fn look(name: &str) -> State {
    look_with(name, Processes::look)
}

/// As [`look`], but for those who give commands about the box: they are its matter as little as the looker is.
pub fn look_among_clients(name: &str) -> State {
    look_with(name, |name| Processes {
        clients: Vec::new(),
        ..Processes::look(name)
    })
}

fn look_with(name: &str, processes: impl FnOnce(&str) -> Processes) -> State {
    let scope = format!("box-{name}.scope");
    let cgroup = format!("/sys/fs/cgroup/box.slice/{scope}");
    let shown = guest::must(&format!(
        "systemctl show -p Id -p ActiveState -p SubState -p MainPID -p Job box@{name}.service {scope}"
    ));
    let mut units = shown.split("\n\n").map(|unit| {
        let value = |key: &str| {
            unit.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .unwrap_or_default()
                .to_owned()
        };
        let job = value("Job");
        (
            value("ActiveState"),
            value("SubState"),
            job.is_empty() || job == "0",
            value("MainPID").parse::<i32>().unwrap_or(0),
        )
    });
    let (service, scope) = (
        units.next().unwrap_or_default(),
        units.next().unwrap_or_default(),
    );
    let said = format!(
        "service {}/{}, scope {}/{}",
        service.0, service.1, scope.0, scope.1
    );
    if !service.2 || !scope.2 {
        return State::Between(format!("{said}, with a job"));
    }
    let processes = processes(name);
    let run_directory = Path::new("/run/boxd").join(name);
    match service.0.as_str() {
        "active" => {
            let main = service.3;
            let mut wrong = Vec::new();
            let mut check = |holds: bool, what: &str| {
                if !holds {
                    wrong.push(what.to_owned());
                }
            };
            check(service.1 == "running", "the service does not run");
            check(scope.0 == "active", "the scope is not active");
            check(
                processes.supervisors == [main],
                "the service's main process is not the one supervisor",
            );
            check(processes.askers.len() <= 1, "there is more than one asker");
            check(
                processes.others.is_empty() && processes.clients.is_empty(),
                "other processes of boxd are there",
            );
            check(
                processes.payloads.len() == 1,
                "there is not one first process",
            );
            check(
                run_directory.join("document.json").exists(),
                "the run directory has no document",
            );
            check(
                fs::read_to_string(format!("{cgroup}/cgroup.procs"))
                    .is_ok_and(|text| !text.is_empty()),
                "the scope's cgroup is empty",
            );
            if wrong.is_empty() {
                return State::Running {
                    supervisor: main,
                    payload: processes.payloads[0],
                };
            }
            State::Between(format!("{said}: {}; {processes:?}", wrong.join(", ")))
        }
        "inactive" | "failed" => {
            let mut left = Vec::new();
            if !["inactive", "failed"].contains(&scope.0.as_str()) {
                left.push("the scope".to_owned());
            }
            if Path::new(&cgroup).exists() {
                left.push("the scope's cgroup".to_owned());
            }
            if run_directory.exists() {
                left.push("the run directory".to_owned());
            }
            if !processes.is_empty() {
                left.push(format!("{processes:?}"));
            }
            if left.is_empty() {
                return State::Stopped;
            }
            State::Between(format!("{said}; left: {}", left.join(", ")))
        }
        _ => State::Between(said),
    }
}

/// boxd's processes and those of the box.
#[derive(Debug, Default)]
struct Processes {
    supervisors: Vec<i32>,
    /// Their copies that ask the box how it is.
    askers: Vec<i32>,
    payloads: Vec<i32>,
    /// `boxctl`.
    clients: Vec<(i32, String)>,
    /// `boxd`.
    others: Vec<(i32, String)>,
}

impl Processes {
    fn look(box_name: &str) -> Processes {
        let mut found = Processes::default();
        let mark = mark(box_name);
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let Ok(command) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            let name = program
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name == "box-supervisor" {
                let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                if command.trim_end().ends_with(&format!(" {box_name}")) {
                    match comm.trim_end() {
                        "box-asker" => found.askers.push(pid),
                        _ => found.supervisors.push(pid),
                    }
                }
            } else if command.contains(&mark) {
                let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
                let first = status
                    .lines()
                    .find_map(|line| line.strip_prefix("NSpid:"))
                    .is_some_and(|pids| pids.split_whitespace().next_back() == Some("1"));
                if first {
                    found.payloads.push(pid);
                }
            } else if ["boxd", "boxctl"].contains(&name.as_str())
                && command.split(' ').any(|word| word == box_name)
            {
                match name.as_str() {
                    "boxd" => found.others.push((pid, command)),
                    _ => found.clients.push((pid, command)),
                }
            }
        }
        found
    }

    fn is_empty(&self) -> bool {
        self.supervisors.is_empty()
            && self.askers.is_empty()
            && self.payloads.is_empty()
            && self.clients.is_empty()
            && self.others.is_empty()
    }
}

/// Waits until the box is wholly there or wholly not; how long that took.
pub fn settle(name: &str, limit: Duration) -> Result<(State, Duration), String> {
    let begun = Instant::now();
    loop {
        match look(name) {
            State::Between(what) if begun.elapsed() > limit => {
                return Err(format!(
                    "neither running nor stopped after {} s: {what}",
                    limit.as_secs()
                ));
            }
            State::Between(_) => std::thread::sleep(Duration::from_millis(10)),
            state => return Ok((state, begun.elapsed())),
        }
    }
}

fn settled(limit: Duration) -> Result<State, String> {
    settle(NAME, limit).map(|(state, _)| state)
}

/// Brings the box into the state in which an operation begins.
pub fn prepare(operation: Operation, limit: Duration) -> Result<State, String> {
    let state = settled(limit)?;
    let wanted = match (operation, &state) {
        (Operation::Start, State::Running { .. }) => "stop",
        (Operation::Start, _) | (_, State::Running { .. }) => return Ok(state),
        _ => "start",
    };
    let ran = guest::sh(&format!("{COMMAND} systemctl {wanted} {SERVICE}"));
    if ran.status != 0 {
        return Err(format!("systemctl {wanted} fails: {}", ran.err));
    }
    settled(limit)
}

/// What an operation did.
#[derive(Debug)]
pub struct Done {
    pub succeeded: bool,
    pub said: String,
}

/// Does it, with the processes that take part followed if there is a tracer. The state is the one before.
pub fn perform(
    operation: Operation,
    before: &State,
    program: &str,
    tracer: Option<&Tracer>,
) -> Done {
    let supervisor = match before {
        State::Running { supervisor, .. } => *supervisor,
        _ => 0,
    };
    let seize = || {
        if let Some(tracer) = tracer {
            tracer.seize(supervisor, Role::Supervisor);
        }
    };
    let systemctl = |verb: &str| guest::sh(&format!("{COMMAND} systemctl {verb} {SERVICE}"));
    let ran = match operation {
        Operation::Start => systemctl("start"),
        Operation::Stop => {
            seize();
            systemctl("stop")
        }
        Operation::Restart => {
            seize();
            systemctl("restart")
        }
        Operation::Exec => {
            let gate = match tracer {
                Some(_) => format!("{program} gate x /usr/bin/"),
                None => String::new(),
            };
            let ran = guest::sh(&format!(
                "{COMMAND} {gate}boxctl exec {NAME} -- /bin/sh -c 'echo inside; exit 7'"
            ));
            let as_wanted = ran.status == 7 && ran.out == "inside";
            Ran {
                status: i32::from(!as_wanted),
                err: format!("status {}: {} {}", ran.status, ran.out, ran.err),
                ..ran
            }
        }
        Operation::Adopt => {
            guest::must(&format!("kill -KILL {supervisor}"));
            another_supervisor(before)
        }
        Operation::Replace => {
            seize();
            let old = place(supervisor);
            guest::sh(&format!("kill -USR1 {supervisor}"));
            let deadline = Instant::now() + Duration::from_secs(5);
            while place(supervisor) == old && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ran {
                status: i32::from(place(supervisor) == old),
                out: String::new(),
                err: "the supervisor does not execute another".to_owned(),
            }
        }
    };
    Done {
        succeeded: ran.status == 0,
        said: ran.err,
    }
}

/// Where a program lies in memory: another place each time it is executed.
fn place(pid: i32) -> String {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().next().unwrap_or_default().to_owned()
}

/// Waits for the next supervisor of the same payload.
fn another_supervisor(before: &State) -> Ran {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut err = String::new();
    while Instant::now() < deadline {
        match (look(NAME), before) {
            (
                State::Running {
                    supervisor,
                    payload,
                },
                State::Running {
                    supervisor: old,
                    payload: same,
                },
            ) if supervisor != *old => {
                return Ran {
                    status: i32::from(payload != *same),
                    out: String::new(),
                    err: format!("the payload was {same} and is {payload}"),
                };
            }
            (state, _) => err = format!("{state:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ran {
        status: 1,
        out: String::new(),
        err,
    }
}

/// Whether a state is what a success of an operation means.
pub fn fits(operation: Operation, state: &State) -> bool {
    match operation {
        Operation::Stop => *state == State::Stopped,
        _ => matches!(state, State::Running { .. }),
    }
}

/// Compares with what was there at the beginning, while the box is stopped; waits for what is still going away.
pub fn leaks(before: &BTreeSet<String>, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    loop {
        let after = guest::snapshot();
        // Keys and disks are those of the whole machine, on which other things run than this lab.
        let changed: Vec<_> = after
            .symmetric_difference(before)
            .filter(|thing| !thing.starts_with("key ") && !thing.starts_with("file /dev/disk/"))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let words: Vec<String> = changed
                .iter()
                .map(|thing| match after.contains(*thing) {
                    true => format!("came: {thing}"),
                    false => format!("went: {thing}"),
                })
                .collect();
            return Err(words.join("; "));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last things the journal has about the box.
pub fn journal(since: f64) -> String {
    guest::sh(&format!(
        "journalctl --sync; journalctl --no-pager -o short-precise --since=@{since:.3} | tail -n 40"
    ))
    .out
}
