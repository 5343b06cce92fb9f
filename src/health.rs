//! What is known of a box's health: the supervisor writes it down, `boxctl status` shows it.

use serde::{Deserialize, Serialize};

/// Name of the file in the box's run directory that holds a [`Health`] as JSON.
pub const FILE: &str = "health.json";

/// The cgroup below the box's in which the command of a probe runs.
pub const CGROUP: &str = "boxd-probe";

/// How many probes are kept.
pub const PROBES: usize = 5;

/// Most bytes of what a probe says.
pub const OUTPUT_MAX: usize = 1024;

/// How a box is, and how the last probes went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Health {
    /// How the box is.
    pub state: State,
    /// Since when: microseconds since the epoch.
    pub since: u64,
    /// Failures in a row that count.
    pub failures: u32,
    /// The last [`PROBES`], the last of all at the end.
    pub probes: Vec<Probe>,
}

/// How a box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No probe has succeeded yet, nor have enough failed.
    Starting,
    /// The last probes did not all fail.
    Healthy,
    /// They did.
    Unhealthy,
}

impl State {
    /// The word of the serialised format.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
        }
    }
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Probe {
    /// When it began: microseconds since the epoch.
    pub at: u64,
    /// How long it took, in microseconds.
    pub took: u64,
    /// How it went.
    pub answer: Answer,
    /// What it said; of control characters only line breaks are in it.
    pub output: String,
}

/// How a probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The box is well.
    Success,
    /// It is not.
    Failure,
    /// It did not say in time.
    Timeout,
    /// It could not be asked, for reasons that are not its own: nothing follows from that.
    Error,
}

impl Answer {
    /// The word of the serialised format.
    pub fn as_str(self) -> &'static str {
        match self {
            Answer::Success => "success",
            Answer::Failure => "failure",
            Answer::Timeout => "timeout",
            Answer::Error => "error",
        }
    }

    /// What `boxd probe` exits with.
    pub fn exit_status(self) -> u8 {
        match self {
            Answer::Success => 0,
            Answer::Failure => 1,
            Answer::Timeout => 2,
            Answer::Error => 3,
        }
    }

    /// What `boxd probe` means by its exit status.
    pub fn of_status(status: i32) -> Answer {
        [Answer::Success, Answer::Failure, Answer::Timeout]
            .into_iter()
            .find(|answer| i32::from(answer.exit_status()) == status)
            .unwrap_or(Answer::Error)
    }
}

/// What a probe said, of any bytes, as text without a control character but line breaks.
pub fn printable(output: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(output.len());
    for character in String::from_utf8_lossy(output.trim_ascii()).chars() {
        match character {
            '\n' => text.push('\n'),
            '\t' => text.push(' '),
            '\r' => {}
            // None is beyond U+009F.
            control if control.is_control() => {
                let number = control as usize;
                text.push_str("\\x");
                text.push(char::from(DIGITS[number >> 4 & 15]));
                text.push(char::from(DIGITS[number & 15]));
            }
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_probe_says_cannot_move_the_cursor() {
        assert_eq!(
            printable(b" a\tb\r\n\x1b[2J\0\x7f\xc2\x9b\xff caf\xc3\xa9 \n"),
            "a b\n\\x1b[2J\\x00\\x7f\\x9b\u{fffd} caf\u{e9}"
        );
    }

    #[test]
    fn an_answer_is_its_exit_status() {
        for answer in [
            Answer::Success,
            Answer::Failure,
            Answer::Timeout,
            Answer::Error,
        ] {
            assert_eq!(Answer::of_status(answer.exit_status().into()), answer);
            assert_eq!(
                serde_json::to_value(answer).expect("serialises"),
                answer.as_str()
            );
        }
        assert_eq!(Answer::of_status(137), Answer::Error);
    }
}
