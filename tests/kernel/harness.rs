//! Tests without libtest's threads, for a process that clones a box must have one.

use std::io::Write as _;
use std::panic::catch_unwind;
use std::process::ExitCode;

/// Its name, and what it does.
pub type Test = (&'static str, fn());

/// Runs those tests whose names contain one of the arguments, or all. Needs root; says so and fails where it is
/// not.
pub fn run(all: &[&[Test]]) -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut out = std::io::stdout();
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(
            out,
            "the tests of boxes need root: run them as root, as tests/run does"
        );
        return ExitCode::FAILURE;
    }
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, test) in all.iter().copied().flatten() {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        match catch_unwind(test) {
            Ok(()) => passed += 1,
            Err(_) => failed.push(*name),
        }
    }
    for name in &failed {
        let _ = writeln!(out, "test {name} ... FAILED");
    }
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    let _ = writeln!(
        out,
        "test result: {result}. {passed} passed; {} failed",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
