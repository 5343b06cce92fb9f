//! What a box says by sd_notify(3), beside a reading of it that keeps all assignments.

use std::collections::HashMap;
use std::time::Duration;

use boxd::supervisor::notification::{STATUS_MAX, Watchdog, parse};

/// One message.
pub fn notification(data: &[u8]) {
    let found = parse(data);
    let mut said: HashMap<&[u8], &[u8]> = HashMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b'=');
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            said.entry(name).or_insert(value);
        }
    }
    let yes = |name: &str| said.get(name.as_bytes()) == Some(&&b"1"[..]);
    assert_eq!(found.ready, yes("READY"));
    assert_eq!(found.reloading, yes("RELOADING"));
    assert_eq!(found.stopping, yes("STOPPING"));
    let number = |name: &str, most: u64| {
        let digits = said.get(name.as_bytes())?;
        let mut number: Option<u64> = None;
        for digit in *digits {
            let digit = u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
        }
        number.filter(|number| *number <= most)
    };
    let time = |name| number(name, u64::MAX).map(Duration::from_micros);
    assert_eq!(found.extend, time("EXTEND_TIMEOUT_USEC"));
    assert_eq!(found.watchdog_interval, time("WATCHDOG_USEC"));
    assert_eq!(found.errno.map(u64::from), number("ERRNO", 4095));
    assert_eq!(found.exit_status.map(u64::from), number("EXIT_STATUS", 255));
    let watchdog = said.get(&b"WATCHDOG"[..]).and_then(|value| match *value {
        b"1" => Some(Watchdog::Alive),
        b"trigger" => Some(Watchdog::Trigger),
        _ => None,
    });
    assert_eq!(found.watchdog, watchdog);

    assert_eq!(found.status.is_some(), said.contains_key(&b"STATUS"[..]));
    if let Some(status) = found.status {
        assert!(status.chars().count() <= STATUS_MAX);
        // Controls, and what turns the direction of a line: Unicode's Bidi_Control and its separators of lines.
        let obeyed = |character: char| {
            character.is_control()
                || "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                    \u{2066}\u{2067}\u{2068}\u{2069}"
                    .contains(character)
        };
        assert!(!status.contains(obeyed), "{status:?}");
        let again = parse(format!("STATUS={status}").as_bytes()).status;
        assert_eq!(again, Some(status));
    }
}
