//! Sizes, times, rates, processors and names as a definition has them, beside a slow reading of what systemd.syntax(7)
//! and systemd.time(7) say of them.

use std::collections::BTreeSet;
use std::time::Duration;

use boxd::definition::{SourceText, understand};
use boxd::name::Name;

use super::input::{quoted, texts};

/// A text that is read as each of them.
pub fn quantities(data: &[u8]) {
    let Some(text) = texts(data).into_iter().next() else {
        return;
    };
    let value = quoted(&text);
    let (found, _) = understand(
        &"sample".parse().expect("a name"),
        &[SourceText {
            path: "sample.toml".into(),
            text: format!(
                "[resources]\nmemory = {value}\ncpus = {value}\nio-read = {{ \"/dev/vda\" = {value} }}\n\
                 [stop]\ntimeout = {value}\n"
            ),
        }],
    );
    // One line, without a control character.
    let line = Some(&*text).filter(|text| !text.is_empty() && !text.contains(char::is_control));
    let positive = |number: &u64| *number > 0;
    let size = line.and_then(|text| scaled(text, 1024, "KMGTPE"));
    assert_eq!(
        found.resources.memory,
        size.filter(positive),
        "size {text:?}"
    );
    let rate = line.and_then(|text| scaled(text, 1000, "KMGT"));
    assert_eq!(
        found.resources.io_read.values().next().copied(),
        rate.filter(positive),
        "rate {text:?}"
    );
    assert_eq!(
        found.resources.cpus,
        line.and_then(processors),
        "processors {text:?}"
    );
    assert_eq!(found.stop.timeout, line.and_then(time), "time {text:?}");
    named(&text);
}

/// Digits with a fraction, as their number and how many of them are behind the point.
fn decimal(text: &str) -> Option<(u128, u32)> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    if whole.is_empty() || fraction.len() > 9 {
        return None;
    }
    let mut number: u128 = 0;
    for character in whole.chars().chain(fraction.chars()) {
        let digit = u128::from(character.to_digit(10)?);
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    Some((number, fraction.len() as u32))
}

fn scaled(text: &str, base: u128, suffixes: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let (number, places) = decimal(&text[..text.len() - unit.len()])?;
    let power = match unit.trim_start() {
        "" | "B" => 0,
        unit => {
            let mut units = suffixes.chars().enumerate();
            units.find(|(_, suffix)| unit == suffix.to_string())?.0 as u32 + 1
        }
    };
    let value = number.checked_mul(base.pow(power))? / 10_u128.pow(places);
    u64::try_from(value).ok().filter(|value| *value != u64::MAX)
}

fn time(text: &str) -> Option<Duration> {
    const UNITS: [(&[&str], u128); 9] = [
        (&["usec", "us", "µs", "μs"], 1),
        (&["msec", "ms"], 1_000),
        (&["", "seconds", "second", "sec", "s"], 1_000_000),
        (&["minutes", "minute", "min", "m"], 60_000_000),
        (&["hours", "hour", "hr", "h"], 3_600_000_000),
        (&["days", "day", "d"], 86_400_000_000),
        (&["weeks", "week", "w"], 604_800_000_000),
        (&["months", "month", "M"], 2_629_800_000_000),
        (&["years", "year", "y"], 31_557_600_000_000),
    ];
    let mut rest = text.trim();
    let mut sum: u128 = 0;
    let mut terms = 0;
    while !rest.is_empty() {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let (number, places) = decimal(&rest[..rest.len() - after.len()])?;
        let after = after.trim_start();
        let unit: String = after
            .chars()
            .take_while(|c| !c.is_ascii_digit() && *c != '.' && !c.is_whitespace())
            .collect();
        let (_, scale) = UNITS.iter().find(|(names, _)| names.contains(&&*unit))?;
        sum = sum.checked_add(number.checked_mul(*scale)? / 10_u128.pow(places))?;
        if sum > 10 * 31_557_600_000_000 {
            return None;
        }
        rest = after[unit.len()..].trim_start();
        terms += 1;
    }
    (terms > 0).then(|| Duration::from_micros(sum as u64))
}

fn processors(text: &str) -> Option<Vec<u32>> {
    let number = |text: &str| -> Option<u32> {
        let (number, places) = decimal(text)?;
        (places == 0).then_some(())?;
        u32::try_from(number).ok().filter(|number| *number < 8192)
    };
    let mut all = BTreeSet::new();
    for part in text.split(|c: char| c == ',' || c.is_whitespace()) {
        if part.is_empty() {
            continue;
        }
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return None;
        }
        all.extend(first..=last);
    }
    (!all.is_empty()).then(|| all.into_iter().collect())
}

/// What is a name can stand in a unit's, a file's and a host's.
fn named(text: &str) {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let good = (1..=63).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
        && text != "definitions";
    match text.parse::<Name>() {
        Ok(name) => {
            assert!(good, "{text:?}");
            assert_eq!(name.as_str(), text);
            let json = serde_json::to_string(&name).expect("JSON");
            assert_eq!(serde_json::from_str::<Name>(&json).ok(), Some(name));
        }
        Err(error) => {
            assert!(!good, "{text:?}");
            super::input::assert_plain(&error.to_string());
        }
    }
}
