//! How a status looks to people: the table of all boxes, and the page about one.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::tz::TimeZone;

use super::table::{self, Cell, Side};
use super::terminal::{Look, Paint, cut, harmless};
use super::text;
use crate::plan::Limit;
use crate::status::{
    DefinitionState, End, Health, HealthState, Limits, Report, Runner, Socket, State, Status,
};

/// When it is, and where the reader is.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Microseconds since the epoch.
    pub now: u64,
    /// In which moments are told.
    pub zone: TimeZone,
}

impl Clock {
    /// The host's.
    pub fn system() -> Clock {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            now: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            zone: TimeZone::system(),
        }
    }
}

/// All boxes as a table, with a line below it that counts them.
pub fn boxes(report: &Report, clock: &Clock, look: Look) -> String {
    let mut result = String::new();
    if report.boxes.is_empty() {
        result.push_str("No boxes. Describe one in /etc/boxd/NAME.toml; box.toml(5) tells how.\n");
    } else {
        let rows: Vec<Vec<Cell>> = report
            .boxes
            .iter()
            .map(|status| row(status, clock))
            .collect();
        result.push_str(&table::render(
            &[
                ("NAME", Side::Left),
                ("STATE", Side::Left),
                ("SINCE", Side::Left),
                ("PID", Side::Right),
                ("MEMORY", Side::Right),
                ("CPU", Side::Right),
                ("TASKS", Side::Right),
                ("DESCRIPTION", Side::Left),
            ],
            &rows,
            look,
        ));
        result.push('\n');
        result.push_str(&count(report));
    }
    if !report.systemd {
        result.push_str(
            "systemd does not run this host: only boxes that `boxctl run` holds are seen running.\n",
        );
    }
    result
}

fn row(status: &Status, clock: &Clock) -> Vec<Cell> {
    let usage = status.usage.unwrap_or_default();
    // Why it is as it is counts more than what it is for.
    let why = status.why();
    let says = why.as_deref().or(status.description.as_deref());
    let foreground = match status.runner {
        Some(Runner::Foreground) => " (in the foreground)",
        _ => "",
    };
    let description = format!("{}{foreground}", harmless(says.unwrap_or_default()));
    vec![
        Cell::new(Some(harmless(&status.name))),
        Cell::painted(status.state.as_str(), paint(status.state)),
        Cell::new(status.since.map(|since| text::ago(since, clock.now))),
        Cell::new(
            status
                .payload
                .as_ref()
                .map(|payload| payload.pid.to_string()),
        ),
        Cell::new(usage.memory.map(text::size)),
        Cell::new(usage.cpu.map(text::cpu_time)),
        Cell::new(usage.tasks.map(|tasks| tasks.to_string())),
        Cell::new(Some(description.trim_start().to_owned())),
    ]
}

fn count(report: &Report) -> String {
    let total = report.boxes.len();
    let boxes = if total == 1 { "box" } else { "boxes" };
    let mut parts = vec![format!("{total} {boxes}")];
    let number = |state| {
        report
            .boxes
            .iter()
            .filter(|status| status.state == state)
            .count()
    };
    for state in [State::Running, State::Failed, State::Broken] {
        let number = number(state);
        if number > 0 {
            parts.push(format!("{number} {}", state.as_str()));
        }
    }
    let mut line = parts.join(", ");
    line.push_str(match (number(State::Failed), number(State::Broken)) {
        (0, 0) => "",
        (_, 0) => "; `boxctl status NAME` says why",
        (0, _) => "; `boxctl check` says what is wrong",
        _ => "; `boxctl status NAME` and `boxctl check` say why",
    });
    line.push_str(".\n");
    line
}

fn paint(state: State) -> Option<Paint> {
    match state {
        State::Running => Some(Paint::Good),
        State::Paused
        | State::Starting
        | State::Reloading
        | State::Stopping
        | State::Restarting => Some(Paint::Warning),
        State::Failed | State::Broken => Some(Paint::Bad),
        State::Stopped | State::Masked => None,
    }
}

/// One box as a page, in the manner of `systemctl status`; `output` are the last lines the box wrote.
pub fn page(status: &Status, output: &[String], clock: &Clock, look: Look) -> String {
    let mut page = Page {
        lines: vec![heading(status, look)],
        look,
    };
    page.entry("Loaded", &loaded(status, look));
    page.entry("Active", &active(status, clock, look));
    let at_rest = status.payload.is_none();
    let end = status.last_end.as_ref().filter(|_| at_rest);
    let invocation = status
        .unit
        .as_ref()
        .and_then(|unit| unit.invocation.as_ref());
    let (end, earlier) = match end {
        Some(end) if invocation.is_some() && end.invocation.as_ref() == invocation => {
            (Some(end), None)
        }
        earlier => (None, earlier),
    };
    if let Some(end) = earlier {
        let when = text::ago(end.at, clock.now);
        page.entry("Last end", &format!("{}; {when}", result(end)));
    }
    if let Some(unit) = &status.unit {
        if let Some(end) = end {
            page.entry("Result", &result(end));
        } else if unit.result != "success" && !unit.result.is_empty() {
            page.entry(
                "Result",
                &ended(&unit.result, unit.exit_code, unit.exit_status),
            );
        }
        if let Some(text) = unit.status_text.as_deref().filter(|text| !text.is_empty()) {
            page.entry("Status", &harmless(text));
        }
        if !unit.waits_for.is_empty() {
            page.entry("Waits for", &harmless(&unit.waits_for.join(", ")));
        }
        if unit.needs_reload && status.definition.state == DefinitionState::Loaded {
            let text = "since systemd read it; `systemctl daemon-reload` puts ordering and restarts in force";
            page.entry("Changed", &look.paint(Paint::Warning, text));
        }
        if unit.restarts > 0 {
            page.entry("Restarts", &unit.restarts.to_string());
        }
    }
    if status.definition.newer {
        let text = format!(
            "since the box was started; `boxctl restart {}` puts it in force",
            harmless(&status.name)
        );
        page.entry("Changed", &look.paint(Paint::Warning, &text));
    }
    for socket in &status.sockets {
        page.entry("Socket", &open(socket, look));
    }
    if let Some(payload) = &status.payload {
        let command = match &payload.command {
            Some(command) => format!(" ({})", harmless(command)),
            None => String::new(),
        };
        page.entry("Main PID", &format!("{}{command}", payload.pid));
    }
    match status.runner {
        Some(Runner::Unit) => {
            if let Some(text) = supervisor(status) {
                page.entry("Supervisor", &text);
            }
        }
        Some(Runner::Foreground) => page.entry("Supervisor", "boxctl run"),
        None => {}
    }
    usage(&mut page, status);
    if let Some(payload) = &status.payload {
        let ids = match payload.ids {
            Some(ids) => format!("{}-{}", ids.first, ids.last),
            None => "the host's".to_owned(),
        };
        page.entry("Ids", &ids);
        page.entry("Root", &root(&payload.root));
        if payload.tty {
            page.entry("Terminal", &format!("boxctl attach {}", status.name));
        }
        page.entry("CGroup", &cgroup(&payload.cgroup));
    }
    if let Some(health) = &status.health {
        show_health(&mut page, health, clock);
    }
    let definition = &status.definition;
    if let Some(held) = &definition.held {
        let text = harmless(&format!("it {held}"));
        page.entry("Held", &look.paint(Paint::Warning, &text));
    }
    for remark in &status.remarks {
        page.entry("Remark", &harmless(remark));
    }
    let mut result = page.lines.join("\n");
    result.push('\n');
    if let Some(problem) = &status.definition.problem {
        result.push('\n');
        result.push_str(problem.trim_end());
        result.push('\n');
    }
    if !output.is_empty() {
        result.push('\n');
        for line in output {
            let line = harmless(line);
            result.push_str(
                &look
                    .width
                    .map_or_else(|| line.clone(), |width| cut(&line, width)),
            );
            result.push('\n');
        }
    }
    result
}

/// The supervisor, with its version; that of who started the box where it is another.
fn supervisor(status: &Status) -> Option<String> {
    let unit = status.unit.as_ref()?;
    let pid = unit.supervisor?;
    let Some(version) = &unit.supervisor_version else {
        return Some(pid.to_string());
    };
    let version = harmless(version);
    Some(match &status.payload {
        Some(payload) if payload.started_by != version => format!(
            "{pid}, boxd {version}; the box was started by boxd {}",
            harmless(&payload.started_by)
        ),
        _ => format!("{pid}, boxd {version}"),
    })
}

/// The lines of a page: labels end at one column.
struct Page {
    lines: Vec<String>,
    look: Look,
}

impl Page {
    /// Where the labels end.
    const LABELS: usize = "Supervisor".len() + 1;

    /// Adds a line. The text is not cut: a path cut in two is of no use.
    fn entry(&mut self, label: &str, text: &str) {
        let label = match label {
            // Another line of the entry above.
            "" => " ".repeat(Page::LABELS + 1),
            label => {
                let width = Page::LABELS;
                self.look.paint(Paint::Faint, &format!("{label:>width$}:"))
            }
        };
        self.lines.push(format!("{label} {text}"));
    }
}

/// The state, and below it a line for each probe, the last first. What a probe said may have more lines: the last of
/// them stands here, all of them in the JSON.
fn show_health(page: &mut Page, health: &Health, clock: &Clock) {
    let look = page.look;
    let state = match health.state {
        HealthState::Healthy => look.paint(Paint::Good, "healthy"),
        HealthState::Unhealthy => look.paint(Paint::Bad, "unhealthy"),
        HealthState::Starting => look.paint(Paint::Warning, "starting"),
    };
    let failures = match health.failures {
        0 => String::new(),
        1 => "; the last probe failed".to_owned(),
        number => format!("; the last {number} probes failed"),
    };
    let since = text::moment(health.since, &clock.zone);
    let ago = text::ago(health.since, clock.now);
    page.entry("Health", &format!("{state} since {since}; {ago}{failures}"));
    for (index, probe) in health.probes.iter().rev().enumerate() {
        let said = probe.output.lines().next_back().unwrap_or_default();
        let line = format!(
            "{} {} after {}{}{}",
            text::moment(probe.at, &clock.zone),
            probe.answer.as_str(),
            text::cpu_time(probe.took),
            if said.is_empty() { "" } else { ": " },
            harmless(said)
        );
        let line = match look.width {
            Some(width) => cut(&line, width.saturating_sub(Page::LABELS + 2)),
            None => line,
        };
        page.entry(if index == 0 { "Probes" } else { "" }, &line);
    }
}

fn heading(status: &Status, look: Look) -> String {
    let dot = match status.state {
        State::Failed | State::Broken => "×",
        State::Stopped | State::Masked => "○",
        State::Running => "●",
        State::Paused => "‖",
        State::Starting | State::Reloading | State::Stopping | State::Restarting => "↻",
    };
    let dot = match paint(status.state) {
        Some(paint) => look.paint(paint, dot),
        None => dot.to_owned(),
    };
    let name = harmless(&status.name);
    match status
        .description
        .as_deref()
        .filter(|text| !text.is_empty())
    {
        Some(description) if description != status.name => {
            format!("{dot} {name} - {}", harmless(description))
        }
        _ => format!("{dot} {name}"),
    }
}

fn loaded(status: &Status, look: Look) -> String {
    let files: Vec<String> = status
        .definition
        .files
        .iter()
        .map(|file| harmless(&file.display().to_string()))
        .collect();
    let files = files.join(", ");
    match status.definition.state {
        DefinitionState::Loaded => {
            let boot = if status.definition.start_at_boot {
                "; starts at boot"
            } else {
                ""
            };
            format!("{files}{boot}")
        }
        DefinitionState::Broken => format!(
            "{} ({files})",
            look.paint(Paint::Bad, "the definition has errors")
        ),
        DefinitionState::Masked => format!("masked ({files})"),
        DefinitionState::Missing if status.runner == Some(Runner::Foreground) => {
            "from a file that is not installed".to_owned()
        }
        DefinitionState::Missing => look.paint(Paint::Warning, "no definition any more"),
    }
}

/// `127.0.0.1:80, /run/web.socket (box@web.socket, listening)`.
fn open(socket: &Socket, look: Look) -> String {
    let state = match &*socket.sub_state {
        "failed" => look.paint(Paint::Bad, &format!("failed: {}", socket.result)),
        "dead" => "closed".to_owned(),
        // systemd's word for a socket whose box is at work.
        "running" => "open".to_owned(),
        state => state.to_owned(),
    };
    let listen = harmless(&socket.listen.join(", "));
    format!("{listen} ({}, {state})", harmless(&socket.unit))
}

fn root(root: &str) -> String {
    match root {
        "host" => "/usr of the host".to_owned(),
        directory => harmless(directory),
    }
}

/// A cgroup as systemctl(1) writes it: from the top of the tree.
fn cgroup(path: &Path) -> String {
    let path = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .find_map(|top| path.strip_prefix(top).ok())
        .map_or_else(|| path.to_owned(), |below| Path::new("/").join(below));
    harmless(&path.display().to_string())
}

fn active(status: &Status, clock: &Clock, look: Look) -> String {
    let state = match paint(status.state) {
        Some(paint) => look.paint(paint, status.state.as_str()),
        None => status.state.as_str().to_owned(),
    };
    match status.since {
        Some(since) => format!(
            "{state} since {}; {}",
            text::moment(since, &clock.zone),
            text::ago(since, clock.now)
        ),
        None => state,
    }
}

fn usage(page: &mut Page, status: &Status) {
    let usage = status.usage.unwrap_or_default();
    let limits = &status.limits;
    if let Some(memory) = usage.memory {
        let note = |word: &str, bytes: Option<u64>| {
            bytes.map(|bytes| format!("{word} {}", text::size(bytes)))
        };
        let notes = [
            note("peak", usage.memory_peak),
            note("limit", limits.memory),
            note("high", limits.memory_high),
            note("swap", limits.memory_swap),
        ];
        page.entry("Memory", &with_notes(text::size(memory), notes));
    }
    if let Some(cpu) = usage.cpu {
        let cpus = limits.cpus.as_ref();
        let notes = [
            limits
                .cpu
                .map(|limit| format!("limit {}", text::cores(limit))),
            limits.cpu_weight.map(|weight| format!("weight {weight}")),
            cpus.map(|cpus| format!("on {}", Limit::cpu_list(cpus.iter().copied()))),
        ];
        page.entry("CPU", &with_notes(text::cpu_time(cpu), notes));
    }
    if let Some(tasks) = usage.tasks {
        let notes = [limits.tasks.map(|limit| format!("limit {limit}"))];
        page.entry("Tasks", &with_notes(tasks.to_string(), notes));
    }
    let io = io(limits);
    if !io.is_empty() {
        page.entry("IO", &harmless(&io.join("; ")));
    }
}

/// `weight 50`, and for each device `/dev/vda: reads 9.5M/s, 100 writes/s`.
fn io(limits: &Limits) -> Vec<String> {
    let mut devices: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
    type Words = fn(u64) -> String;
    let kinds: [(_, Words); 4] = [
        (&limits.io_read, |rate| {
            format!("reads {}", text::rate(rate))
        }),
        (&limits.io_write, |rate| {
            format!("writes {}", text::rate(rate))
        }),
        (&limits.io_read_operations, |rate| format!("{rate} reads/s")),
        (&limits.io_write_operations, |rate| {
            format!("{rate} writes/s")
        }),
    ];
    for (rates, words) in kinds {
        for (device, rate) in rates {
            devices.entry(device).or_default().push(words(*rate));
        }
    }
    let weight = limits.io_weight.map(|weight| format!("weight {weight}"));
    let devices = devices
        .into_iter()
        .map(|(device, limits)| format!("{}: {}", device.display(), limits.join(", ")));
    weight.into_iter().chain(devices).collect()
}

fn with_notes<const N: usize>(text: String, notes: [Option<String>; N]) -> String {
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    if notes.is_empty() {
        text
    } else {
        format!("{text} ({})", notes.join(", "))
    }
}

/// How a box ended, in words; what the journal has may be anything.
fn result(end: &End) -> String {
    format!("{}: {}", harmless(&end.result), harmless(&end.sentence))
}

/// How a unit ended, in words: `Result=`, `ExecMainCode=` and `ExecMainStatus=` of a service whose main process
/// passes on a box's end.
pub fn ended(result: &str, code: i32, status: i32) -> String {
    let sentence = match result {
        "exit-code" => match (code, status) {
            (libc::CLD_EXITED, 203) => "the command could not be executed (status 203)".to_owned(),
            (libc::CLD_EXITED, 217) => "the user is not known in the box (status 217)".to_owned(),
            (libc::CLD_EXITED, status @ 129..=192) => {
                format!("killed by {} (status {status})", signal(status - 128))
            }
            _ => format!("exited with status {status}"),
        },
        "signal" | "core-dump" => format!("the supervisor was killed by {}", signal(status)),
        "oom-kill" => "it wanted more memory than its limit, and was killed".to_owned(),
        "timeout" => "it took longer than its time limit".to_owned(),
        "watchdog" => "the supervisor fell silent".to_owned(),
        "start-limit-hit" => "it was started too often in too short a time".to_owned(),
        "protocol" => "the supervisor ended before the box was ready".to_owned(),
        "resources" => "systemd could not give it what it needs".to_owned(),
        "condition" | "exec-condition" => "a condition of its unit was not met".to_owned(),
        _ => return result.to_owned(),
    };
    format!("{result}: {sentence}")
}

fn signal(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(
        |_| format!("signal {number}"),
        |signal| signal.as_str().to_owned(),
    )
}

#[cfg(test)]
mod tests;
