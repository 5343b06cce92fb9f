//! What a box says by sd_notify(3): text of the box to what of it counts.
//!
//! | | |
//! |---|---|
//! | `READY=1` | the box is ready, or has read its configuration anew |
//! | `RELOADING=1` | it reads its configuration anew |
//! | `STOPPING=1` | it ends |
//! | `STATUS=` | the line in `systemctl status`, [at most so long](STATUS_MAX), without control characters |
//! | `EXTEND_TIMEOUT_USEC=` | its start takes longer; a stop does not: its time is the definition's |
//! | `WATCHDOG=1`, `WATCHDOG=trigger` | it is alive; it has failed |
//! | `WATCHDOG_USEC=` | it wants to be heard of so often, 0 for never |
//! | `ERRNO=`, `EXIT_STATUS=` | why it fails; the latter is its exit status where nobody saw it end |
//! | `BARRIER=1` | its descriptor is closed when all before it has been passed on |
//!
//! All else is ignored. `MAINPID=`: what is supervised is the first process of the box, and nothing in the box can
//! change that. `FDSTORE=1`, `FDSTOREREMOVE=1`: a box that is started anew is a new box, and descriptors of an
//! untrusted one are not kept. `MONOTONIC_USEC=`: the clock of the box need not be the host's, which is what
//! systemd is told. Descriptors are closed, whatever came with them.

use std::time::Duration;

/// What `boxd reload` says, which is no box: it wants to know when the box has read its configuration anew, through
/// the pipe that comes with this.
pub const REQUEST: &[u8] = b"X_BOXD_RELOAD=1";

/// Longest message, as systemd takes it: `PIPE_BUF`.
pub const MESSAGE_MAX: usize = 4096;

/// Most characters of a status that are passed on.
pub const STATUS_MAX: usize = 256;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notification {
    /// `READY=1`.
    pub ready: bool,
    /// `RELOADING=1`.
    pub reloading: bool,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `STATUS=` as one harmless line; empty if the box takes back what it said.
    pub status: Option<String>,
    /// `EXTEND_TIMEOUT_USEC=`.
    pub extend: Option<Duration>,
    /// `WATCHDOG=`.
    pub watchdog: Option<Watchdog>,
    /// `WATCHDOG_USEC=`.
    pub watchdog_interval: Option<Duration>,
    /// `ERRNO=`.
    pub errno: Option<u32>,
    /// `EXIT_STATUS=`.
    pub exit_status: Option<u8>,
}

/// `WATCHDOG=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// `1`.
    Alive,
    /// `trigger`.
    Trigger,
}

/// Understands a message, as systemd does: lines of assignments, of which the first of a name counts. What is no
/// such line, and values that are none, are as if not there.
pub fn parse(message: &[u8]) -> Notification {
    let mut found = Notification::default();
    let mut seen = [false; 9];
    for line in message.split(|byte| *byte == b'\n') {
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = (&line[..equals], &line[equals + 1..]);
        let mut first = |index: usize| !std::mem::replace(&mut seen[index], true);
        match name {
            b"READY" if first(0) => found.ready = value == b"1",
            b"RELOADING" if first(1) => found.reloading = value == b"1",
            b"STOPPING" if first(2) => found.stopping = value == b"1",
            b"STATUS" if first(3) => found.status = Some(harmless(value)),
            b"EXTEND_TIMEOUT_USEC" if first(4) => found.extend = microseconds(value),
            b"WATCHDOG" if first(5) => {
                found.watchdog = match value {
                    b"1" => Some(Watchdog::Alive),
                    b"trigger" => Some(Watchdog::Trigger),
                    _ => None,
                }
            }
            b"WATCHDOG_USEC" if first(6) => found.watchdog_interval = microseconds(value),
            b"ERRNO" if first(7) => found.errno = number(value).filter(|errno| *errno < ERRNO_END),
            b"EXIT_STATUS" if first(8) => found.exit_status = number(value),
            _ => {}
        }
    }
    found
}

/// The kernel's `MAX_ERRNO`, and the first number beyond.
const ERRNO_END: u32 = 4096;

/// A number in decimal digits alone.
fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    // `parse` would take a sign.
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn microseconds(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_micros)
}

/// One line that is no more than text: neither control characters nor such as turn the direction of a line or
/// break it.
fn harmless(value: &[u8]) -> String {
    let line: String = String::from_utf8_lossy(value)
        .chars()
        .map(|character| {
            if is_harmless(character) {
                character
            } else {
                ' '
            }
        })
        .collect();
    let short: String = line.trim().chars().take(STATUS_MAX).collect();
    short.trim_end().to_owned()
}

fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_assignment_that_counts_is_understood() {
        let message = b"READY=1\nRELOADING=1\nSTOPPING=1\nSTATUS=at work\nEXTEND_TIMEOUT_USEC=5000000\n\
            WATCHDOG=trigger\nWATCHDOG_USEC=20\nERRNO=2\nEXIT_STATUS=3\nMAINPID=1\nFDSTORE=1\nX_OWN=1";
        assert_eq!(
            parse(message),
            Notification {
                ready: true,
                reloading: true,
                stopping: true,
                status: Some("at work".to_owned()),
                extend: Some(Duration::from_secs(5)),
                watchdog: Some(Watchdog::Trigger),
                watchdog_interval: Some(Duration::from_micros(20)),
                errno: Some(2),
                exit_status: Some(3),
            }
        );
        assert_eq!(parse(b"WATCHDOG=1").watchdog, Some(Watchdog::Alive));
    }

    #[test]
    fn what_is_no_assignment_or_no_value_is_nothing() {
        for message in [
            &b""[..],
            b"\n\n",
            b"=",
            b"READY",
            b"READY=",
            b"READY=0",
            b"READY=1 ",
            b" READY=1",
            b"ready=1",
            b"READY=1\0",
            b"READY=0\nREADY=1",
            b"WATCHDOG=0",
            b"ERRNO=-1\nEXIT_STATUS=-1",
            b"ERRNO=4096\nEXIT_STATUS=256",
            b"ERRNO=\nEXIT_STATUS=",
            b"ERRNO=+1",
            b"EXTEND_TIMEOUT_USEC=18446744073709551616\nWATCHDOG_USEC=1.5",
            b"EXTEND_TIMEOUT_USEC=\xff\xfe",
            b"STATUS",
            b"BARRIER=1",
        ] {
            assert_eq!(parse(message), Notification::default(), "{message:?}");
        }
        let most = parse(b"EXTEND_TIMEOUT_USEC=18446744073709551615");
        assert_eq!(most.extend, Some(Duration::from_micros(u64::MAX)));
    }

    #[test]
    fn a_status_is_one_short_harmless_line() {
        let status = |text: &[u8]| parse(&[b"STATUS=", text].concat()).status;
        assert_eq!(status(b""), Some(String::new()));
        assert_eq!(status(b"a=b"), Some("a=b".to_owned()));
        assert_eq!(status(b"\x1b[31mred\x07\r").as_deref(), Some("[31mred"));
        assert_eq!(status(b"\xff\xfe").as_deref(), Some("\u{fffd}\u{fffd}"));
        assert_eq!(
            status("a\u{202e}b\u{2028}c\u{85}d".as_bytes()).as_deref(),
            Some("a b c d")
        );
        assert_eq!(
            status("ä".repeat(4000).as_bytes()),
            Some("ä".repeat(STATUS_MAX))
        );
        assert_eq!(status(b"one\nREADY=1").as_deref(), Some("one"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_box_sends_is_understood_as_something(
            message in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..20),
                    "(READY|STATUS|WATCHDOG|ERRNO|EXTEND_TIMEOUT_USEC)=?".prop_map(String::into_bytes),
                    Just(b"\n".to_vec()),
                ],
                0..20,
            )
        ) {
            let found = parse(&message.concat());
            if let Some(status) = found.status {
                prop_assert!(status.chars().count() <= STATUS_MAX);
                prop_assert!(status.chars().all(is_harmless));
            }
        }
    }
}
