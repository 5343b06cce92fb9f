//! Sizes, times, processors and signals as text, written as systemd writes them.
//!
//! An error here is what was expected, ready to stand under the text.

use std::time::Duration;

use nix::sys::signal::Signal;

/// What a size looks like.
pub(super) const SIZE: &str =
    "expected bytes with an optional suffix K, M, G, T, P or E (powers of 1024), as in \"512M\"";
/// What a rate looks like.
pub(super) const RATE: &str =
    "expected a number with an optional suffix K, M, G or T (powers of 1000), as in \"10M\"";
/// What a time looks like.
pub(super) const TIME: &str = "expected a time as in systemd.time(7): \"10s\", \"1min 30s\", \"500ms\", or a number of seconds";
/// What a set of processors looks like.
pub(super) const PROCESSORS: &str = "expected processor numbers and ranges, as in \"0-3,5\"";
/// What a signal looks like.
pub(super) const SIGNAL: &str =
    "expected a signal of signal(7) by name or number, as in \"SIGTERM\", \"SIGRTMIN+3\" or 15";

/// Longest time of a definition: what is added to a clock or handed to systemd stays far from any overflow.
pub(super) const TIME_MAX: Duration = Duration::from_secs(10 * YEAR);

/// Highest number a processor can have: Linux is built for at most 8192 (`CONFIG_NR_CPUS`).
pub(super) const PROCESSOR_MAX: u32 = 8191;

const YEAR: u64 = 31_557_600;
const SIZE_SUFFIXES: &str = "KMGTPE";

/// Bytes, with suffixes to the base of 1024 as everywhere in systemd but for I/O.
pub(super) fn size(text: &str) -> Result<u64, String> {
    scaled(text, 1024, SIZE_SUFFIXES, SIZE)
}

/// Bytes or operations per second, with suffixes to the base of 1000 as `IOReadBandwidthMax=` of
/// systemd.resource-control(5) has them.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    scaled(text, 1000, "KMGT", RATE)
}

fn scaled(text: &str, base: u64, suffixes: &str, expected: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let (number, unit) = split_number(trimmed);
    let unit = unit.trim_start();
    let number = Decimal::parse(number).ok_or(expected)?;
    let scale = match unit {
        "" | "B" => Some(1),
        unit => suffixes
            .find(unit)
            .filter(|_| unit.len() == 1)
            .map(|power| u128::from(base).pow(power as u32 + 1)),
    };
    let Some(scale) = scale else {
        // 512m, 512MB, 512MiB: what was meant is not in doubt, so say how it is written here.
        let first = unit.chars().next().map(|c| c.to_ascii_uppercase());
        let rest = unit.get(1..).unwrap_or_default().to_ascii_lowercase();
        return Err(match first {
            Some(first) if suffixes.contains(first) && ["", "b", "ib"].contains(&&*rest) => {
                format!("did you mean \"{}{first}\"? {expected}", number.text)
            }
            _ => expected.to_owned(),
        });
    };
    number
        .times(scale)
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value < u64::MAX)
        .ok_or_else(|| "expected a number below 16E: this one does not fit".to_owned())
}

/// A time span of systemd.time(7). `infinity` is not one: every time of a definition has an end.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(TIME.to_owned());
    }
    if rest == "infinity" {
        return Err("every time has an end here: write a long one, as in \"1d\"".to_owned());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let number = Decimal::parse(number).ok_or(TIME)?;
        let after = after.trim_start();
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.' || c.is_whitespace())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale = microseconds(unit).ok_or_else(|| match unit {
            "S" | "H" | "D" | "W" | "Min" | "MIN" | "Ms" | "MS" => {
                format!(
                    "did you mean \"{}{}\"? {TIME}",
                    number.text,
                    unit.to_lowercase()
                )
            }
            _ => TIME.to_owned(),
        })?;
        total = number
            .times(scale)
            .and_then(|span| total.checked_add(span))
            .filter(|total| *total <= TIME_MAX.as_micros())
            .ok_or("expected a time of at most 10 years")?;
        rest = after.trim_start();
    }
    // TIME_MAX in microseconds is far below u64::MAX.
    Ok(Duration::from_micros(total as u64))
}

fn microseconds(unit: &str) -> Option<u128> {
    const SECOND: u128 = 1_000_000;
    Some(match unit {
        "usec" | "us" | "µs" | "μs" => 1,
        "msec" | "ms" => 1_000,
        "" | "seconds" | "second" | "sec" | "s" => SECOND,
        "minutes" | "minute" | "min" | "m" => 60 * SECOND,
        "hours" | "hour" | "hr" | "h" => 3_600 * SECOND,
        "days" | "day" | "d" => 86_400 * SECOND,
        "weeks" | "week" | "w" => 7 * 86_400 * SECOND,
        "months" | "month" | "M" => 2_629_800 * SECOND,
        "years" | "year" | "y" => YEAR as u128 * SECOND,
        _ => return None,
    })
}

/// `0-3,5`, ascending and without repetition, whatever the order written.
pub(super) fn processors(text: &str) -> Result<Vec<u32>, String> {
    let mut ranges = Vec::new();
    let written = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|range| !range.is_empty());
    for range in written {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (
            whole(first).ok_or(PROCESSORS)?,
            whole(last).ok_or(PROCESSORS)?,
        );
        if last < first {
            return Err(format!(
                "{range} runs backwards: did you mean {last}-{first}?"
            ));
        }
        if last > PROCESSOR_MAX {
            return Err(format!("expected numbers up to {PROCESSOR_MAX}"));
        }
        ranges.push((first, last));
    }
    if ranges.is_empty() {
        return Err(PROCESSORS.to_owned());
    }
    // However often a range is written, its numbers are looked at once.
    ranges.sort_unstable();
    let mut processors = Vec::new();
    let mut next = 0;
    for (first, last) in ranges {
        processors.extend(first.max(next)..=last);
        next = next.max(last + 1);
    }
    Ok(processors)
}

/// The number of a signal given with or without `SIG`, relative to `RTMIN` or `RTMAX`, or as digits.
pub(super) fn signal(text: &str) -> Result<i32, String> {
    if let Some(number) = whole(text) {
        return signal_number(number.into());
    }
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (min, max) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let real_time = |prefix: &str, sign: &str| {
        let rest = bare.strip_prefix(prefix)?;
        match rest {
            "" => Some(0),
            rest => whole(rest.strip_prefix(sign)?),
        }
        .and_then(|offset| i32::try_from(offset).ok())
        .filter(|offset| *offset <= max - min)
    };
    if let Some(offset) = real_time("RTMIN", "+") {
        return Ok(min + offset);
    }
    if let Some(offset) = real_time("RTMAX", "-") {
        return Ok(max - offset);
    }
    if let Ok(signal) = format!("SIG{bare}").parse::<Signal>() {
        return Ok(signal as i32);
    }
    let names = Signal::iterator().map(|signal| signal.as_str().trim_start_matches("SIG"));
    Err(match nearest(bare, names) {
        Some(near) => format!("did you mean \"SIG{near}\"? {SIGNAL}"),
        None => SIGNAL.to_owned(),
    })
}

/// This number as a signal, if one has it.
pub(super) fn signal_number(number: i128) -> Result<i32, String> {
    i32::try_from(number)
        .ok()
        .filter(|number| {
            Signal::try_from(*number).is_ok()
                || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(number)
        })
        .ok_or_else(|| SIGNAL.to_owned())
}

/// The candidate most like the text, unless all are too far off to have been meant.
pub(super) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = text.chars().count();
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= length.max(3) / 3)
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= length.max(candidate.len()).max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Digits only: `u32::from_str` takes a sign as well.
pub(super) fn whole(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A number with an optional fraction, kept exact: `0.1G` and `1.5s` are not binary fractions.
struct Decimal<'a> {
    text: &'a str,
    digits: u128,
    fraction_scale: u128,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        // Nine places of a fraction of the largest unit are less than a byte or a microsecond's worth of doubt.
        if whole.is_empty() || fraction.len() > 9 || text.ends_with('.') {
            return None;
        }
        Some(Decimal {
            text,
            digits: format!("{whole}{fraction}").parse().ok()?,
            fraction_scale: 10_u128.pow(fraction.len() as u32),
        })
    }

    /// This many units, rounded down.
    fn times(&self, scale: u128) -> Option<u128> {
        Some(self.digits.checked_mul(scale)? / self.fraction_scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_rates_of_1000() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1B", 1),
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            (" 2 K ", 2048),
            ("15E", 15 << 60),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(rate("10M"), Ok(10_000_000));
        assert_eq!(rate("1.5K"), Ok(1500));
        for bad in [
            "",
            "M",
            "-1",
            "+1",
            "1.",
            ".5",
            "1..2",
            "1X",
            "16E",
            "1 M M",
            "1e3",
            "0x10",
            "١",
            "99999999999999999999999999999999999999999999999999",
            "1.0000000000",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(rate("1P").is_err());
        for (text, meant) in [
            ("512m", "512M"),
            ("512MB", "512M"),
            ("2GiB", "2G"),
            ("1.5g", "1.5G"),
        ] {
            let error = size(text).expect_err(text);
            assert!(
                error.starts_with(&format!("did you mean \"{meant}\"?")),
                "{error}"
            );
        }
    }

    #[test]
    fn times_are_spans_of_systemd_time() {
        for (text, milliseconds) in [
            ("0", 0),
            ("10", 10_000),
            ("10s", 10_000),
            ("1min 30s", 90_000),
            ("1min30s", 90_000),
            ("500ms", 500),
            ("1.5 h", 5_400_000),
            ("2 hours 1 minute", 7_260_000),
            ("1w", 604_800_000),
            ("1M", 2_629_800_000),
            ("1000us", 1),
            ("1000µs", 1),
        ] {
            assert_eq!(
                time(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for bad in [
            "", " ", "s", "-1s", "1x", "1s x", "infinity", "11y", "1s,2s", "1.s",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processors_are_sorted_and_written_once() {
        assert_eq!(processors("5,0-3 2"), Ok(vec![0, 1, 2, 3, 5]));
        for bad in [
            "",
            ",",
            "3-1",
            "a",
            "1-",
            "-1",
            "+1",
            "0-9999999",
            "8192",
            "1--2",
        ] {
            assert!(processors(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_go_by_name_and_number() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("15", 15),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("RTMAX-1", libc::SIGRTMAX() - 1),
            ("SIGRTMIN", libc::SIGRTMIN()),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for bad in [
            "",
            "0",
            "65",
            "32",
            "SIG",
            "SIGFOO",
            "RTMIN+99",
            "RTMIN-1",
            "-15",
            "99999999999",
        ] {
            assert!(signal(bad).is_err(), "{bad}");
        }
        let error = signal("SIGTREM").expect_err("no such signal");
        assert!(error.starts_with("did you mean \"SIGTERM\"?"), "{error}");
    }
}
