//! How much of the output is passed on.

use std::time::Duration;

use crate::plan::Rate;

/// How much of a box's output passes: both of its streams together, within an interval that begins with the first
/// line after the last one.
#[derive(Debug)]
pub struct Gate {
    rate: Option<Rate>,
    now: Duration,
    until: Duration,
    lines: u64,
    bytes: u64,
}

impl Gate {
    /// A gate that is as open as this says.
    pub fn new(rate: Option<Rate>) -> Gate {
        Gate {
            rate,
            now: Duration::ZERO,
            until: Duration::ZERO,
            lines: 0,
            bytes: 0,
        }
    }

    /// It is so late now; all lines until the next call come now.
    pub fn tell_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// The end of the interval, if what comes before it is counted.
    pub fn until(&self) -> Option<Duration> {
        self.rate.map(|_| self.until)
    }

    /// Whether a line of so many bytes passes. The one that reaches the limit of bytes does.
    pub(super) fn admits(&mut self, length: usize) -> bool {
        let Some(rate) = self.rate else {
            return true;
        };
        if self.now >= self.until {
            self.until = self.now + rate.interval;
            (self.lines, self.bytes) = (0, 0);
        }
        let full = |limit: Option<u64>, count: u64| limit.is_some_and(|limit| count >= limit);
        if full(rate.lines, self.lines) || full(rate.bytes, self.bytes) {
            return false;
        }
        self.lines += 1;
        self.pass(length);
        true
    }

    /// More bytes of a line that was admitted.
    pub(super) fn pass(&mut self, length: usize) {
        self.bytes = self.bytes.saturating_add(length as u64);
    }
}
