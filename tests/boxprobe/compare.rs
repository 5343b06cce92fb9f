//! The table, and what must hold of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use crate::golden;
use crate::lines::lines;
use crate::machine::{Host, Runtime};
use crate::openings::{COLUMNS, Openings};

/// Each profile, and whom it must not be wider than. `system` boots an init, which of the others only nspawn does.
const PAIRS: [(Runtime, &[Runtime]); 2] = [
    (
        Runtime::App,
        &[
            Runtime::Podman,
            Runtime::Crun,
            Runtime::Nspawn,
            Runtime::NspawnUnit,
        ],
    ),
    (Runtime::System, &[Runtime::Nspawn, Runtime::NspawnUnit]),
];

/// Where a profile is wider on purpose: it, the other, the item and why.
const DECIDED: [(Runtime, Runtime, &str, &str); 1] = [(
    Runtime::App,
    Runtime::Crun,
    "limits not set: Max open files is ",
    "1024 descriptors are too few for a server that wants more, whose soft limit they are; systemd's hard limit",
)];

/// Prints the lines of one report.
pub fn show(name: &str) -> ExitCode {
    let host = Host::prepare();
    for runtime in Runtime::ALL
        .into_iter()
        .filter(|runtime| runtime.name() == name)
    {
        for line in lines(&host.report_of(runtime), &host) {
            println!("{line}");
        }
    }
    ExitCode::SUCCESS
}

/// Runs the probe everywhere, prints the table, and fails unless everything holds.
pub fn compare(folder: &Path) -> ExitCode {
    let host = Host::prepare();
    let mut wrong = Vec::new();
    let mut openings = BTreeMap::new();
    for runtime in Runtime::ALL {
        let report = host.report_of(runtime);
        let name = runtime.name();
        wrong.extend(
            report
                .unlearnt
                .iter()
                .map(|gap| format!("{name}: cannot be learnt: {gap}")),
        );
        if matches!(runtime, Runtime::App | Runtime::System) {
            let path = folder.join(format!("{name}.expected"));
            match std::fs::read_to_string(&path) {
                Ok(golden) => wrong.extend(
                    golden::differences(&golden, &lines(&report, &host))
                        .into_iter()
                        .map(|difference| format!("{name}.expected: {difference}")),
                ),
                Err(error) => wrong.push(format!("{}: {error}", path.display())),
            }
        }
        openings.insert(runtime, Openings::of(&report, &host));
    }
    table(&openings);
    for (ours, others) in PAIRS {
        for other in others {
            let (decided, wider): (Vec<_>, Vec<_>) = openings[&ours]
                .wider_than(&openings[other])
                .into_iter()
                .partition(|item| reason(ours, *other, item).is_some());
            let verdict = if wider.is_empty() {
                "nowhere wider"
            } else {
                "WIDER"
            };
            println!("{} than {}: {verdict}", ours.name(), other.name());
            for item in decided {
                let reason = reason(ours, *other, &item).unwrap_or_default();
                println!("    but on purpose, {item}: {reason}");
            }
            wrong.extend(
                wider
                    .into_iter()
                    .map(|item| format!("{} is wider than {}: {item}", ours.name(), other.name())),
            );
        }
    }
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nwrong:");
    for line in wrong {
        println!("    {line}");
    }
    ExitCode::FAILURE
}

fn reason(ours: Runtime, other: Runtime, item: &str) -> Option<&'static str> {
    DECIDED
        .iter()
        .find(|known| (known.0, known.1) == (ours, other) && item.starts_with(known.2))
        .map(|known| known.3)
}

/// How much is open in each respect.
fn table(openings: &BTreeMap<Runtime, Openings>) {
    print!("{:<26}", "open");
    for runtime in openings.keys() {
        print!("{:>10}", runtime.name());
    }
    println!();
    for column in COLUMNS {
        print!("{column:<26}");
        for of in openings.values() {
            print!("{:>10}", of.columns[column].len());
        }
        println!();
    }
    println!();
}
