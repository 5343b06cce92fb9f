//! Strikes boxd at every system call, under a real systemd: kills the process or lets the call fail, and looks
//! whether the box is soon wholly there or wholly not, the same command then succeeds, and nothing is left.
//!
//! Runs as root in the native lab; `tests/sweep/run` takes it there.

#![expect(clippy::print_stdout, reason = "what was struck and what came of it")]

mod chaos;
mod edits;
#[path = "../system/guest.rs"]
#[expect(dead_code, reason = "the tests under systemd need more of it")]
mod guest;
mod machine;
mod points;
mod random;
mod tracer;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use machine::{Operation, State};
use points::{Names, Point};
use tracer::{Fault, Role, Tracer};

/// Points of the sample.
const SAMPLE: usize = 330;

/// Within so long the box must be in one state or the other, on a machine with nothing else to do.
const SETTLE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[1..] {
        ["gate", role, program, ..] => tracer::gate(role, program, &arguments[4..]),
        ["sweep", ref options @ ..] => sweep(words[0], options),
        ["chaos", ref options @ ..] => chaos::run(options),
        ["edits", ref options @ ..] => edits::run(options),
        _ => {
            println!("as tests/sweep/run has it, under systemd");
            ExitCode::FAILURE
        }
    }
}

struct Bench {
    program: String,
    tracer: Tracer,
    names: Names,
    before: BTreeSet<String>,
    limit: Duration,
}

struct Finding {
    point: Point,
    call: String,
    what: String,
}

fn sweep(program: &str, options: &[&str]) -> ExitCode {
    let everything = options.contains(&"--all");
    let wanted: Vec<&str> = options
        .iter()
        .copied()
        .filter(|option| *option != "--all")
        .collect();
    let tracer = Tracer::start();
    machine::install(program);
    let mut pace = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        guest::start(machine::NAME);
        guest::stop(machine::NAME);
        pace = pace.min(begun.elapsed());
    }
    let bench = Bench {
        program: program.to_owned(),
        tracer,
        names: Names::new(),
        before: guest::everything(),
        // A start and a stop take a fifth of a second where nothing else is done.
        limit: SETTLE.max(pace * 25),
    };
    println!(
        "a start and a stop take {} ms; the box must settle within {} s",
        pace.as_millis(),
        bench.limit.as_secs()
    );

    let mut groups: Vec<(Operation, Role, Vec<Point>)> = Vec::new();
    for operation in Operation::ALL {
        let record = match bench.follow(operation) {
            Ok(record) => record,
            Err(error) => {
                println!("{} fails without any blow: {error}", operation.name());
                return ExitCode::FAILURE;
            }
        };
        for (role, calls) in &record.calls {
            println!("{} {role:?}: {} calls", operation.name(), calls.len());
            groups.push((
                operation,
                *role,
                points::all(operation, *role, calls, &bench.names),
            ));
        }
    }
    let per_group = SAMPLE.div_ceil(groups.len());
    let mut chosen = Vec::new();
    for (operation, role, points) in groups {
        let exact = wanted.iter().any(|wanted| wanted.matches('/').count() == 2);
        let points = match everything || exact {
            true => points,
            false => points::sample(points, per_group),
        };
        chosen.extend(points.into_iter().filter(|point| {
            wanted.is_empty()
                || wanted.iter().any(|wanted| {
                    let path = format!("{}/{role:?}/{}", operation.name(), point.target.call);
                    path == *wanted || path.starts_with(&format!("{wanted}/"))
                })
        }));
    }

    println!("{} points", chosen.len());
    let begun = Instant::now();
    let mut findings: Vec<Finding> = Vec::new();
    let mut counts: BTreeMap<(Operation, Role), [usize; 4]> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for (number, point) in chosen.iter().enumerate() {
        let count = counts
            .entry((point.operation, point.target.role))
            .or_default();
        count[usize::from(point.target.fault != Fault::Kill)] += 1;
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        match bench.strike(*point) {
            Ok(Struck { call, settled }) => {
                slowest = slowest.max(settled);
                if call.is_none() {
                    count[2] += 1;
                }
            }
            Err((call, what)) => {
                count[3] += 1;
                println!(
                    "FAILED {}\n  {what}\n{}",
                    describe(point, &call),
                    machine::journal(since.as_secs_f64())
                );
                findings.push(Finding {
                    point: *point,
                    call,
                    what,
                });
                bench.mend();
            }
        }
        if number % 100 == 99 {
            println!(
                "{} of {} points after {} s, {} failed",
                number + 1,
                chosen.len(),
                begun.elapsed().as_secs(),
                findings.len()
            );
        }
    }

    println!(
        "\n{:10}{:12}{:>8}{:>8}{:>14}{:>8}",
        "", "", "kills", "errors", "not reached", "failed"
    );
    for ((operation, role), [kills, errors, unreached, failed]) in &counts {
        println!(
            "{:10}{:12}{kills:8}{errors:8}{unreached:14}{failed:8}",
            operation.name(),
            format!("{role:?}")
        );
    }
    println!(
        "{} points in {} s, the slowest settled after {:.1} s; {} failed",
        chosen.len(),
        begun.elapsed().as_secs(),
        slowest.as_secs_f64(),
        findings.len()
    );
    for finding in &findings {
        println!(
            "  {}: {}",
            describe(&finding.point, &finding.call),
            finding.what
        );
    }
    match findings.is_empty() && !chosen.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn describe(point: &Point, call: &str) -> String {
    let fault = match point.target.fault {
        Fault::Kill => "SIGKILL".to_owned(),
        Fault::Fail(errno) => format!("{errno:?}"),
    };
    format!(
        "{}/{:?}/{} {fault} at {call}",
        point.operation.name(),
        point.target.role,
        point.target.call
    )
}

struct Struck {
    /// None if the process did not come to that call this time.
    call: Option<u64>,
    settled: Duration,
}

impl Bench {
    /// An operation without a blow.
    fn follow(&self, operation: Operation) -> Result<tracer::Record, String> {
        let before = machine::prepare(operation, self.limit)?;
        self.tracer.watch(None);
        let done = machine::perform(operation, &before, &self.program, Some(&self.tracer));
        let (state, _) = machine::settle(machine::NAME, self.limit)?;
        let record = self.tracer.end();
        if !done.succeeded || !machine::fits(operation, &state) {
            return Err(format!("{}, then {state:?}", done.said));
        }
        Ok(record)
    }

    fn strike(&self, point: Point) -> Result<Struck, (String, String)> {
        let Point { operation, target } = point;
        let unknown = |what| ("?".to_owned(), what);
        let before = machine::prepare(operation, self.limit).map_err(unknown)?;
        self.tracer.watch(Some(target));
        let begun = Instant::now();
        let done = machine::perform(operation, &before, &self.program, Some(&self.tracer));
        let took = begun.elapsed();
        let settled = machine::settle(machine::NAME, self.limit);
        let record = self.tracer.end();
        let name = record
            .struck
            .map_or("no call", |number| self.names.of(number))
            .to_owned();
        let failed = |what: String| (name.clone(), what);
        let (state, settled) = settled.map_err(failed)?;
        if took > Duration::from_secs(60) {
            return Err(failed(format!("the command took {} s", took.as_secs())));
        }
        if done.succeeded && !machine::fits(operation, &state) {
            return Err(failed(format!("{state:?} after a success")));
        }
        // These must not so much as be noticed by the box.
        if let Operation::Exec | Operation::Adopt | Operation::Replace = operation
            && state.payload() != before.payload()
        {
            return Err(failed(format!("the box was {before:?} and is {state:?}")));
        }
        // Exec needs a box; the others do what they do in any state.
        let again = match (&state, operation) {
            (State::Stopped, Operation::Exec | Operation::Adopt | Operation::Replace) => {
                machine::prepare(operation, self.limit)
                    .map_err(|error| failed(format!("then {error}")))?
            }
            _ => state,
        };
        let done = machine::perform(operation, &again, &self.program, None);
        if !done.succeeded {
            return Err(failed(format!(
                "then the same command fails: {}",
                done.said
            )));
        }
        let (state, _) = machine::settle(machine::NAME, self.limit).map_err(failed)?;
        if !machine::fits(operation, &state) {
            return Err(failed(format!("then the same command ends in {state:?}")));
        }
        machine::prepare(Operation::Start, self.limit)
            .map_err(|error| failed(format!("at the end {error}")))?;
        guest::sh("systemctl reset-failed");
        machine::leaks(&self.before, self.limit * 2)
            .map_err(|what| failed(format!("left: {what}")))?;
        Ok(Struck {
            call: record.struck,
            settled,
        })
    }

    /// After a finding: as far as possible back to the beginning, so that it counts once.
    fn mend(&self) {
        self.tracer.end();
        guest::sh(
            "systemctl stop box@swept.service; systemctl kill -s KILL box-swept.scope; \
             systemctl stop box-swept.scope; systemctl reset-failed; rm -rf /run/boxd/swept; \
             pkill -KILL box-supervisor",
        );
        let _ = machine::settle(machine::NAME, Duration::from_secs(20));
    }
}
