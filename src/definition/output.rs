//! `[output]`: what becomes of the lines a box writes.

use std::time::Duration;

use super::diagnostics::Problem;
use super::section::{Item, Section};
use super::values::{size, time};

/// Fewest bytes of a line that can be asked to stay together, and most.
const LINE: std::ops::RangeInclusive<u64> = 1024..=1024 * 1024;

/// By the names of syslog(3) and journalctl(1).
const PRIORITIES: [(&str, u8); 8] = [
    ("emerg", 0),
    ("alert", 1),
    ("crit", 2),
    ("err", 3),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];

/// `[output]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Output {
    /// Priority of lines on standard output that name none, 0 to 7. Absent: 6, info.
    pub stdout_priority: Option<u8>,
    /// The same for standard error. Absent: 6, info.
    pub stderr_priority: Option<u8>,
    /// Whether a line names its priority by beginning with `<n>`; `SyslogLevelPrefix=`. Absent: it does.
    pub priority_prefix: Option<bool>,
    /// Most bytes of a line that stay in one entry. Absent: 256 KiB.
    pub line_max: Option<u64>,
    /// What the limits below count over. Absent: 30 s, if there is one.
    pub rate_interval: Option<Duration>,
    /// Most lines within that time. Absent: no limit.
    pub rate_lines: Option<u64>,
    /// Most bytes within that time. Absent: no limit.
    pub rate_bytes: Option<u64>,
}

pub(super) fn output(mut section: Section<'_>) -> Output {
    let priority = |item: Item<'_>| item.choice(&PRIORITIES);
    let is_limited = ["rate-lines", "rate-bytes"]
        .iter()
        .any(|key| section.place_of(key).is_some());
    let interval =
        section.read_placed("rate-interval", |item| time(item, Duration::from_millis(1)));
    let output = Output {
        stdout_priority: section.read("stdout-priority", priority),
        stderr_priority: section.read("stderr-priority", priority),
        priority_prefix: section.read("priority-prefix", |item| item.boolean()),
        line_max: section.read("line-max", |item| {
            let bytes = size(item, 1)?;
            match LINE.contains(&bytes) {
                true => Some(bytes),
                false => item.refuse("expected a size from 1K to 1M"),
            }
        }),
        rate_interval: interval.as_ref().map(|(interval, _)| *interval),
        rate_lines: section.read("rate-lines", |item| item.integer(1..=u64::from(u32::MAX))),
        rate_bytes: section.read("rate-bytes", |item| size(item, 1)),
    };
    if let Some((_, place)) = interval
        && !is_limited
    {
        section.problems().report(Problem::at(
            &place,
            "`rate-interval` without a limit",
            "nothing is counted over this time: add `rate-lines` or `rate-bytes`",
        ));
    }
    section.finish();
    output
}
