//! What a box can do and see, asked from within: a static program that reports as JSON. And the comparison of boxd's
//! profiles with podman, crun and systemd-nspawn by what it reports in each of them.
//!
//! `tests/boxprobe/run` builds it and takes it to a machine.
//!
//! - without arguments, inside a box: the report, as [`machine::Errand`] in `/etc/boxprobe` says;
//! - `compare FOLDER`: in the machine, as root: runs itself everywhere, holds boxd's profiles against the goldens in
//!   FOLDER and against the peers, and prints the table;
//! - `show NAME`: there too: the lines of one report, which are what a golden is made of.

#![expect(clippy::print_stdout, reason = "its report and its table")]

mod calls;
mod compare;
mod devices;
mod files;
mod golden;
#[path = "../system/guest.rs"]
#[expect(dead_code, reason = "the tests under systemd need more of it")]
mod guest;
mod kernel;
mod lines;
mod machine;
mod openings;
mod process;
mod report;
mod sockets;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Longer lines are cut by who passes them on.
const LINE: usize = 2000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [calls::CHILD, start] => calls::child(start),
        [process::CHILD, kind] => process::child(kind),
        ["compare", folder] => compare::compare(Path::new(folder)),
        ["show", name] => compare::show(name),
        _ => probe(),
    }
}

fn probe() -> ExitCode {
    // Before anything else is opened.
    let descriptors = process::descriptors();
    let errand = machine::Errand::read();
    let report = report::Report::of_here(descriptors, &errand);
    let text = serde_json::to_string(&report).expect("a report is JSON");
    if let Some(path) = errand.report {
        std::fs::write(path, text).expect("the report can be written");
        return ExitCode::SUCCESS;
    }
    let mut out = std::io::stdout().lock();
    for part in text.as_bytes().chunks(LINE) {
        out.write_all(part)
            .and_then(|()| out.write_all(b"\n"))
            .expect("the report can be written");
    }
    ExitCode::SUCCESS
}
