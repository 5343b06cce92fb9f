//! The asking as it is: the process that asks, and what is written down of its answers.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::probe::Probe;
use super::{Left, State};
use crate::health::{self, Answer, FILE, Health, PROBES, printable};
use crate::launch::run_directory::{PARENT, replace};
use crate::name::Name;
use crate::plan::HealthRules;

/// Most characters of what a probe said that are shown in a line.
const LINE_MAX: usize = 120;

/// The health of a box that has a `[health]`.
#[derive(Debug)]
pub struct Check {
    name: Name,
    /// When the box is asked, and what follows.
    pub rules: HealthRules,
    /// Where that stands.
    pub state: State,
    /// What is written down.
    known: Health,
    file: PathBuf,
    asking: Option<Asking>,
    /// One that was killed and has not ended yet.
    dying: Option<Probe>,
    /// When the last probe began, on both clocks, and what it said, until that is recorded.
    times: Option<(u64, Duration)>,
    output: Vec<u8>,
    /// What the unit's status says of it.
    pub shown: String,
}

/// A probe that has not answered yet.
#[derive(Debug)]
struct Asking {
    probe: Probe,
    began: Duration,
    at: u64,
}

impl Check {
    /// Where an earlier supervisor left off, whose last probe is over by now.
    pub fn begin(name: &Name, rules: HealthRules, left: Option<Left>, now: Duration) -> Check {
        let file = Path::new(PARENT).join(name.as_str()).join(FILE);
        let known = left
            .and_then(|_| fs::read(&file).ok())
            .and_then(|json| serde_json::from_slice(&json).ok());
        let state = State::begin(&rules, left, now);
        Check {
            name: name.clone(),
            rules,
            state,
            known: known.unwrap_or_else(|| Health {
                state: state.condition,
                since: wall_clock(),
                failures: state.failures,
                probes: Vec::new(),
            }),
            file,
            asking: None,
            dying: None,
            times: None,
            output: Vec::new(),
            shown: String::new(),
        }
    }

    /// Asks the box. The error says why it cannot be asked, with the answer that this amounts to.
    pub fn ask(&mut self, now: Duration) -> Result<BorrowedFd<'_>, Answer> {
        self.bury();
        if self.dying.is_some() {
            // Whatever it waits for in the kernel, the box is behind it.
            self.output = b"the last probe was killed, and does not end".to_vec();
            return Err(Answer::Timeout);
        }
        match Probe::start(&self.name) {
            Ok(probe) => {
                let asking = Asking {
                    probe,
                    began: now,
                    at: wall_clock(),
                };
                Ok(self.asking.insert(asking).probe.process())
            }
            Err(error) => {
                self.output = ["cannot ask: ", &error.to_string()].concat().into_bytes();
                Err(Answer::Error)
            }
        }
    }

    /// What the box answered, if it has by now.
    pub fn answer(&mut self) -> Option<Answer> {
        self.bury();
        let (answer, output) = self.asking.as_ref()?.probe.answer()?;
        self.times = self.asking.take().map(|asking| (asking.at, asking.began));
        self.output = output;
        Some(answer)
    }

    /// Gives up what is being asked.
    pub fn cancel(&mut self) {
        if let Some(Asking { probe, began, at }) = self.asking.take() {
            probe.kill();
            self.dying = Some(probe);
            self.times = Some((at, began));
            self.output = b"no answer, and the probe itself hung".to_vec();
        }
    }

    /// Waits a moment for the end of a probe that was given up.
    pub fn await_end(&self) {
        if let Some(probe) = &self.dying {
            probe.wait();
        }
    }

    /// Notes an answer, and writes it down for people.
    pub fn record(&mut self, answer: Answer, now: Duration) -> io::Result<()> {
        let (at, began) = self.times.take().unwrap_or_else(|| (wall_clock(), now));
        let took = now.saturating_sub(began);
        if self.known.probes.len() == PROBES {
            self.known.probes.remove(0);
        }
        self.known.probes.push(health::Probe {
            at,
            took: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            answer,
            output: printable(&std::mem::take(&mut self.output)),
        });
        self.known.failures = self.state.failures;
        if self.known.state != self.state.condition {
            self.known.state = self.state.condition;
            self.known.since = wall_clock();
        }
        self.write()
    }

    /// Writes it all down for people.
    pub fn write(&self) -> io::Result<()> {
        replace(&self.file, &self.known)
    }

    /// What the last probe said, as one line of bounded length.
    pub fn last_words(&self) -> String {
        let Some(probe) = self.known.probes.last() else {
            return String::new();
        };
        let line = probe.output.lines().next_back().unwrap_or_default();
        let line = if line.is_empty() {
            probe.answer.as_str()
        } else {
            line
        };
        line.chars().take(LINE_MAX).collect()
    }

    /// All that the last probe said.
    pub fn last_output(&self) -> &str {
        self.known
            .probes
            .last()
            .map_or("", |probe| probe.output.as_str())
    }

    /// Lets go of a killed probe that has ended.
    fn bury(&mut self) {
        if self
            .dying
            .as_ref()
            .is_some_and(|probe| probe.answer().is_some())
        {
            self.dying = None;
        }
    }
}

/// Microseconds since the epoch.
fn wall_clock() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
