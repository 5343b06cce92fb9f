//! `boxctl doctor`: what of this host is missing or risky for boxes, and what to do about it.

mod checks;
mod host;

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::Error;
use super::terminal::{Look, Paint, harmless, say, wrap};

/// Version of the format of `boxctl doctor --json`.
const VERSION: u32 = 1;

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Boxes cannot run, or not all that a definition may ask for.
    Missing,
    /// A box, or somebody on the host, could do more than they should; or something will fail.
    Risk,
    /// Something is not as it could be; boxes run without it.
    Note,
    /// It could not be looked at.
    Unknown,
    /// As it should be.
    Good,
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// For programs; never changes its meaning.
    pub id: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen, in a sentence.
    pub says: String,
    /// What to do about it; none if nothing is to be done.
    pub remedy: Option<String>,
}

/// The JSON of `boxctl doctor --json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    version: u32,
    checks: &'a [Check],
}

/// Looks at the host. The exit status is 1 if something is missing that boxes need.
pub fn doctor(all: bool, json: bool, look: Look) -> Result<ExitCode, Error> {
    let mut checks = checks::checks(&host::Host::read(Path::new("/")));
    checks.sort_by_key(|check| check.verdict);
    say(&if json {
        let report = Report {
            version: VERSION,
            checks: &checks,
        };
        format!("{}\n", serde_json::to_string_pretty(&report)?)
    } else {
        page(&checks, all, look)
    })?;
    let missing = checks.iter().any(|check| check.verdict == Verdict::Missing);
    Ok(if missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What is wrong first; what is good is only counted, unless it is asked for.
fn page(checks: &[Check], all: bool, look: Look) -> String {
    const WORDS: usize = "missing".len();
    let mut text = String::new();
    for check in checks {
        if check.verdict == Verdict::Good && !all {
            continue;
        }
        let (word, paint) = match check.verdict {
            Verdict::Missing => ("missing", Paint::Bad),
            Verdict::Risk => ("risk", Paint::Warning),
            Verdict::Note => ("note", Paint::Strong),
            Verdict::Unknown => ("unknown", Paint::Faint),
            Verdict::Good => ("good", Paint::Good),
        };
        let padding = " ".repeat(WORDS - word.len());
        let indent = " ".repeat(WORDS + 2);
        let says = wrap(&harmless(&check.says), look.width, &indent);
        text += &format!("{}{padding}  {says}\n", look.paint(paint, word));
        if let Some(remedy) = &check.remedy {
            let indent = format!("{indent}  ");
            let remedy = wrap(&format!("→ {}", harmless(remedy)), look.width, &indent);
            text += &format!("{indent}{remedy}\n");
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text + &count(checks, all)
}

fn count(checks: &[Check], all: bool) -> String {
    let number = |verdict| {
        checks
            .iter()
            .filter(|check| check.verdict == verdict)
            .count()
    };
    let parts: Vec<String> = [
        (number(Verdict::Missing), "missing", "missing"),
        (number(Verdict::Risk), "risk", "risks"),
        (number(Verdict::Note), "note", "notes"),
        (number(Verdict::Unknown), "unknown", "unknown"),
        (number(Verdict::Good), "good", "good"),
    ]
    .into_iter()
    .filter(|(number, ..)| *number > 0)
    .map(|(number, one, many)| format!("{number} {}", if number == 1 { one } else { many }))
    .collect();
    let hint = if all || number(Verdict::Good) == 0 {
        ""
    } else {
        " (`boxctl doctor --all` shows what is good)"
    };
    format!("{}{hint}.\n", parts.join(", "))
}

#[cfg(test)]
mod tests;
