//! `boxctl stats`: what running boxes use, once.

use std::process::ExitCode;

use super::show::Clock;
use super::table::{self, Cell, Side};
use super::terminal::{Look, Paint, harmless, say};
use super::{Error, names, text};
use crate::cgroup::pressure::Stall;
use crate::definition::Layers;
use crate::running;
use crate::status::stats::{self, Stats, Usage};

/// From this share of the time on, waiting is worth a look: percent over ten seconds.
const MUCH: f64 = 10.0;

/// Shows what these boxes use; all that run, if none is named.
pub fn stats(texts: &[String], json: bool, look: Look) -> Result<ExitCode, Error> {
    let wanted = names::each(texts, &Layers::system(), names::running)?;
    for name in &wanted {
        if running::find(name)?.is_none() {
            return Err(names::Error::NotRunning {
                operation: "measure",
                name: name.clone(),
            }
            .into());
        }
    }
    shown(&stats::stats(&wanted, Clock::system().now)?, json, look)
}

/// Shows what boxes use.
pub fn shown(usage: &Usage, json: bool, look: Look) -> Result<ExitCode, Error> {
    say(&if json {
        format!("{}\n", serde_json::to_string_pretty(usage)?)
    } else {
        page(usage, look)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn page(usage: &Usage, look: Look) -> String {
    if usage.boxes.is_empty() {
        return "No box runs.\n".to_owned();
    }
    let rows: Vec<Vec<Cell>> = usage.boxes.iter().map(row).collect();
    let headings = [
        ("NAME", Side::Left),
        ("CPU", Side::Right),
        ("MEMORY", Side::Right),
        ("PEAK", Side::Right),
        ("LIMIT", Side::Right),
        ("TASKS", Side::Right),
        ("READ", Side::Right),
        ("WRITTEN", Side::Right),
        ("WAITS CPU", Side::Right),
        ("MEM", Side::Right),
        ("IO", Side::Right),
    ];
    let mut page = table::render(&headings, &rows, look);
    for one in &usage.boxes {
        if let Some(kills) = one.oom_kills.filter(|kills| *kills > 0) {
            let processes = if kills == 1 { "process" } else { "processes" };
            page += &format!(
                "{} {kills} {processes} of box {} killed for want of memory\n",
                look.paint(Paint::Bad, "OOM:"),
                harmless(&one.name)
            );
        }
    }
    page
}

fn row(one: &Stats) -> Vec<Cell> {
    vec![
        Cell::new(Some(harmless(&one.name))),
        Cell::new(one.cpu.map(text::cpu_time)),
        Cell::new(one.memory.map(text::size)),
        Cell::new(one.memory_peak.map(text::size)),
        Cell::new(one.limits.memory.map(text::size)),
        Cell::new(one.tasks.map(|tasks| match one.limits.tasks {
            Some(limit) => format!("{tasks}/{limit}"),
            None => tasks.to_string(),
        })),
        Cell::new(one.io_read.map(text::size)),
        Cell::new(one.io_written.map(text::size)),
        waits(one.pressure.cpu),
        waits(one.pressure.memory),
        waits(one.pressure.io),
    ]
}

/// For how much of the last ten seconds something in the box waited.
fn waits(stall: Option<Stall>) -> Cell {
    match stall {
        None => Cell::new(None),
        Some(stall) => {
            let share = stall.some.avg10;
            Cell::painted(
                &format!("{share:.1}%"),
                (share >= MUCH).then_some(Paint::Warning),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::pressure::{Pressure, Share};
    use crate::cli::golden;
    use crate::status::{Limits, VERSION};

    #[test]
    fn what_boxes_use_is_a_table() {
        let share = |avg10: f64| Share {
            avg10,
            ..Share::default()
        };
        let stall = |some: f64| {
            Some(Stall {
                some: share(some),
                full: None,
            })
        };
        let usage = Usage {
            version: VERSION,
            at: 0,
            boxes: vec![
                Stats {
                    name: "db".to_owned(),
                    cpu: Some(3_723_100_000),
                    ..Stats::default()
                },
                Stats {
                    name: "web".to_owned(),
                    cpu: Some(1_234_000),
                    memory: Some(12_897_485),
                    memory_peak: Some(15 << 20),
                    tasks: Some(3),
                    io_read: Some(4096),
                    io_written: Some(0),
                    oom_kills: Some(1),
                    pressure: Pressure {
                        cpu: stall(0.0),
                        memory: stall(12.34),
                        io: None,
                    },
                    limits: Limits {
                        memory: Some(512 << 20),
                        tasks: Some(512),
                        ..Limits::default()
                    },
                    ..Stats::default()
                },
            ],
        };
        let look = |color, width| Look { color, width };
        let pages = [
            page(&usage, look(false, Some(100))),
            page(&usage, look(true, None)),
        ];
        golden::compare("stats/table", &pages.join("\n"));
        let nothing = Usage {
            boxes: Vec::new(),
            ..usage
        };
        assert_eq!(page(&nothing, look(false, None)), "No box runs.\n");
    }
}
