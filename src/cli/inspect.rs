//! `boxctl inspect`: all that is known of a box.

use std::fs;
use std::process::ExitCode;

use serde::Serialize;

use super::show::{self, Clock};
use super::table::{self, Cell, Side};
use super::terminal::{Look, Paint, harmless, say};
use super::{Error, look, names};
use crate::definition::{self, Definition, Layers, Written, written};
use crate::plan::{self, Plan};
use crate::status::stats::{self, Stats};
use crate::status::{Status, VERSION};
use crate::{cgroup, host, running};

/// The JSON of `boxctl inspect --json`: of the parts that are stable formats of their own, [`Status`] and [`Stats`] are;
/// the definition and the plan follow the version of boxd.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Inspected {
    version: u32,
    status: Status,
    /// As it would be read for the next start; none if there is none that can be used.
    definition: Option<Definition>,
    /// Every value of its files, with its place.
    written: Vec<Written>,
    /// What was done for the box that runs, else what would be; none if nothing can be.
    plan: Option<Plan>,
    /// Why nothing can be done.
    problems: Vec<String>,
    usage: Option<Stats>,
    processes: Vec<Process>,
}

/// A process of a box.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Process {
    /// On the host.
    pid: i32,
    /// In its own pid namespace, the innermost.
    pid_inside: Option<i32>,
    /// On the host.
    uid: Option<u32>,
    /// `R`, `S`, `D`, `Z` …: proc_pid_stat(5).
    state: Option<String>,
    /// Its arguments, or its name.
    command: String,
}

/// Shows all that is known.
pub fn inspect(name: &str, json: bool, look: Look) -> Result<ExitCode, Error> {
    let layers = Layers::system();
    let name = names::one("inspect", name, &layers)?;
    let manager = look::manager()?;
    let status = look::one(&name, &layers, manager.as_ref())?;
    let running = running::find(&name)?;
    let texts = definition::texts(&name, &layers).unwrap_or_default();
    let definition = definition::load(&name, &layers).ok();
    let mut problems = Vec::new();
    let plan = match (&running, &definition) {
        (Some(running), _) => Some(running.plan.clone()),
        (None, Some(definition)) => plan::resolve(definition, &host::read(definition))
            .map_err(|found| problems.extend(found.iter().map(ToString::to_string)))
            .ok(),
        (None, None) => None,
    };
    let inspected = Inspected {
        version: VERSION,
        written: written(&texts),
        definition,
        plan,
        problems,
        usage: running
            .as_ref()
            .and_then(|running| stats::of(&running.document)),
        processes: running.as_ref().map_or_else(Vec::new, |running| {
            let pids = cgroup::processes(&running.document.cgroup).unwrap_or_default();
            pids.into_iter().filter_map(process).collect()
        }),
        status,
    };
    say(&if json {
        format!("{}\n", serde_json::to_string_pretty(&inspected)?)
    } else {
        page(&inspected, &Clock::system(), look)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What `/proc` says of a process; none if it has ended.
fn process(pid: i32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<String> = arguments
        .split(|byte| *byte == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    Some(Process {
        pid,
        pid_inside: field("NSpid")
            .and_then(|pids| pids.split_whitespace().next_back()?.parse().ok()),
        uid: field("Uid").and_then(|uids| uids.split_whitespace().next()?.parse().ok()),
        state: field("State").and_then(|state| state.split(' ').next().map(str::to_owned)),
        command: match arguments.is_empty() {
            true => format!("[{}]", field("Name").unwrap_or_default()),
            false => arguments.join(" "),
        },
    })
}

fn page(inspected: &Inspected, clock: &Clock, look: Look) -> String {
    let heading = |text: &str| format!("\n{}\n", look.paint(Paint::Strong, text));
    let mut page = show::page(&inspected.status, &[], clock, look);
    if !inspected.written.is_empty() {
        page += &heading("Written");
        let rows: Vec<Vec<Cell>> = inspected
            .written
            .iter()
            .filter(|one| one.holds)
            .map(|one| {
                let place = format!("{}:{}", one.file.display(), one.line);
                let key = match one.element {
                    Some(number) => format!("{} ({number})", one.key),
                    None => one.key.clone(),
                };
                vec![
                    Cell::new(Some(harmless(&key))),
                    Cell::new(Some(harmless(&place))),
                    Cell::new(Some(harmless(&one.value))),
                ]
            })
            .collect();
        page += &table::render(
            &[
                ("KEY", Side::Left),
                ("FROM", Side::Left),
                ("VALUE", Side::Left),
            ],
            &rows,
            look,
        );
    }
    if !inspected.processes.is_empty() {
        page += &heading("Processes");
        let number = |number: Option<i64>| Cell::new(number.map(|number| number.to_string()));
        let rows: Vec<Vec<Cell>> = inspected
            .processes
            .iter()
            .map(|process| {
                vec![
                    number(Some(process.pid.into())),
                    number(process.pid_inside.map(i64::from)),
                    number(process.uid.map(i64::from)),
                    Cell::new(process.state.as_deref().map(harmless)),
                    Cell::new(Some(harmless(&process.command))),
                ]
            })
            .collect();
        page += &table::render(
            &[
                ("PID", Side::Right),
                ("INSIDE", Side::Right),
                ("UID", Side::Right),
                ("STATE", Side::Left),
                ("COMMAND", Side::Left),
            ],
            &rows,
            look,
        );
    }
    if let Some(plan) = &inspected.plan {
        let runs = inspected.status.payload.is_some();
        page += &heading(match runs {
            true => "Plan: what was done for it",
            false => "Plan: what would be done",
        });
        page += &plan::print(plan);
    }
    if !inspected.problems.is_empty() {
        page += &heading("It cannot be started");
        for problem in &inspected.problems {
            page += &format!("{}\n", harmless(problem));
        }
    }
    page
}
