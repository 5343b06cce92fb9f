//! Sizes, spans and moments as systemd writes them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes with a binary prefix and one decimal, as systemctl(1) shows memory: `512B`, `12.3M`.
pub fn size(bytes: u64) -> String {
    prefixed(bytes, 1024)
}

/// Bytes per second with a decimal prefix, as a definition has them: `512B/s`, `10M/s`.
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", prefixed(bytes_per_second, 1000))
}

fn prefixed(value: u64, base: u64) -> String {
    const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    let mut unit = None;
    let mut scale = 1_u64;
    for candidate in UNITS {
        let Some(next) = scale.checked_mul(base).filter(|next| value >= *next) else {
            break;
        };
        scale = next;
        unit = Some(candidate);
    }
    match unit {
        None => format!("{value}B"),
        Some(unit) => {
            let tenths = u128::from(value) * 10 / u128::from(scale);
            match tenths % 10 {
                0 => format!("{}{unit}", tenths / 10),
                decimal => format!("{}.{decimal}{unit}", tenths / 10),
            }
        }
    }
}

/// CPU time: `15ms`, `1.234s`, `2min 3.100s`.
pub fn cpu_time(microseconds: u64) -> String {
    let milliseconds = microseconds / 1000;
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (hours, rest) = (milliseconds / 3_600_000, milliseconds % 3_600_000);
    let (minutes, rest) = (rest / 60_000, rest % 60_000);
    let mut result = String::new();
    if hours > 0 {
        result.push_str(&format!("{hours}h "));
    }
    if hours > 0 || minutes > 0 {
        result.push_str(&format!("{minutes}min "));
    }
    result.push_str(&format!("{}.{:03}s", rest / 1000, rest % 1000));
    result
}

/// A time span in its two largest units, as systemctl(1) tells how long ago something was: `2min 3s`, `5 days`.
pub fn span(microseconds: u64) -> String {
    const UNITS: [(&str, &str, u64); 6] = [
        (" year", " years", 31_557_600),
        (" month", " months", 2_629_800),
        (" day", " days", 86_400),
        ("h", "h", 3600),
        ("min", "min", 60),
        ("s", "s", 1),
    ];
    let mut seconds = microseconds / 1_000_000;
    if seconds == 0 {
        return format!("{}ms", microseconds / 1000);
    }
    let mut parts = Vec::new();
    for (one, many, length) in UNITS {
        let count = seconds / length;
        seconds %= length;
        if count > 0 {
            let unit = if count == 1 { one } else { many };
            parts.push(format!("{count}{unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// How long ago a moment was: `2min 3s ago`, and `in 3s` where a clock was set back.
pub fn ago(then: u64, now: u64) -> String {
    if then > now {
        format!("in {}", span(then - now))
    } else {
        format!("{} ago", span(now - then))
    }
}

/// A moment, as systemctl(1) shows it: `Sun 2026-11-29 23:45:03 UTC`.
pub fn moment(microseconds: u64, zone: &TimeZone) -> String {
    told(microseconds, zone, "%a %Y-%m-%d %H:%M:%S %Z")
}

/// A moment, as journalctl(1) shows it: `Nov 29 23:45:03`.
pub fn short_moment(microseconds: u64, zone: &TimeZone) -> String {
    told(microseconds, zone, "%b %d %H:%M:%S")
}

fn told(microseconds: u64, zone: &TimeZone, form: &str) -> String {
    i64::try_from(microseconds)
        .ok()
        .and_then(|microseconds| Timestamp::from_microsecond(microseconds).ok())
        .map_or_else(
            || "at an unknown time".to_owned(),
            |timestamp| timestamp.to_zoned(zone.clone()).strftime(form).to_string(),
        )
}

/// Microseconds of CPU per second as cores: `1 core`, `1.5 cores`.
pub fn cores(microseconds_per_second: u64) -> String {
    let hundredths = microseconds_per_second / 10_000;
    let number = match (hundredths / 100, hundredths % 100) {
        (whole, 0) => whole.to_string(),
        (whole, rest) if rest % 10 == 0 => format!("{whole}.{}", rest / 10),
        (whole, rest) => format!("{whole}.{rest:02}"),
    };
    match hundredths {
        100 => format!("{number} core"),
        _ => format!("{number} cores"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_systemds() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (1536, "1.5K"),
            (512 << 20, "512M"),
            (12_897_485, "12.3M"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(rate(7), "7B/s");
        assert_eq!(rate(1500), "1.5K/s");
        assert_eq!(rate(10_000_000), "10M/s");
    }

    #[test]
    fn spans_are_two_units_long_at_most() {
        for (microseconds, text) in [
            (0, "0ms"),
            (999_000, "999ms"),
            (1_000_000, "1s"),
            (123_000_000, "2min 3s"),
            (3_600_000_000, "1h"),
            (3_601_000_000, "1h"),
            (86_400_000_000 * 5 + 1, "5 days"),
            (86_400_000_000 + 7_200_000_000, "1 day 2h"),
            (31_557_600_000_000 * 2, "2 years"),
        ] {
            assert_eq!(span(microseconds), text);
        }
        assert_eq!(ago(1_000_000, 3_000_000), "2s ago");
        assert_eq!(ago(3_000_000, 1_000_000), "in 2s");
    }

    #[test]
    fn cpu_time_keeps_its_milliseconds() {
        assert_eq!(cpu_time(15_999), "15ms");
        assert_eq!(cpu_time(1_234_000), "1.234s");
        assert_eq!(cpu_time(3_723_100_000), "1h 2min 3.100s");
        assert_eq!(cores(1_000_000), "1 core");
        assert_eq!(cores(1_500_000), "1.5 cores");
        assert_eq!(cores(250_000), "0.25 cores");
        assert_eq!(cores(50_000), "0.05 cores");
    }

    #[test]
    fn moments_are_told_in_the_zone_of_the_reader() {
        assert_eq!(
            moment(1_795_995_903_000_000, &TimeZone::UTC),
            "Sun 2026-11-29 23:45:03 UTC"
        );
    }
}
