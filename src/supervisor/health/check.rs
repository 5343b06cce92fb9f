//! The asking as it is: what is asked, and what is written down of the answers.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::asker::{Asker, Question};
use super::{Left, State};
use crate::health::{self, Answer, FILE, Health, PROBES, printable};
use crate::launch::run_directory::PARENT;
use crate::name::Name;
use crate::plan::HealthRules;
use crate::sys;

/// Most characters of what a probe said that are shown in a line.
const LINE_MAX: usize = 120;

/// The health of a box that has a `[health]`.
#[derive(Debug)]
pub struct Check {
    /// When the box is asked, and what follows.
    pub rules: HealthRules,
    /// Where that stands.
    pub state: State,
    /// What is written down.
    known: Health,
    asking: Option<Asking>,
    /// When the last probe began, on both clocks, and what it said, until that is recorded.
    times: Option<(u64, Duration)>,
    output: Vec<u8>,
    /// What the unit's status says of it.
    pub shown: String,
}

/// A probe that has not answered yet.
#[derive(Debug)]
struct Asking {
    question: Question,
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
            rules,
            state,
            known: known.unwrap_or_else(|| Health {
                state: state.condition,
                since: wall_clock(),
                failures: state.failures,
                probes: Vec::new(),
            }),
            asking: None,
            times: None,
            output: Vec::new(),
            shown: String::new(),
        }
    }

    /// Has the box asked. The error says why it cannot be asked, with the answer that this amounts to.
    pub fn ask(&mut self, asker: &Asker, now: Duration) -> Result<(), Answer> {
        let question = now.as_nanos() as Question;
        if let Err(error) = asker.ask(question) {
            self.output = ["cannot ask: ", &error.to_string()].concat().into_bytes();
            return Err(Answer::Error);
        }
        self.asking = Some(Asking {
            question,
            began: now,
            at: wall_clock(),
        });
        Ok(())
    }

    /// The answer to a question, if that is the one that was asked and not given up since.
    pub fn answered(
        &mut self,
        asker: &Asker,
        question: Question,
        answer: Answer,
    ) -> Option<Answer> {
        let output = asker.output();
        let asking = self.asking.take_if(|asking| asking.question == question)?;
        self.times = Some((asking.at, asking.began));
        self.output = output;
        Some(answer)
    }

    /// Gives up what is being asked.
    pub fn cancel(&mut self, asker: &Asker) -> Result<(), sys::Error> {
        if let Some(Asking { began, at, .. }) = self.asking.take() {
            self.times = Some((at, began));
            self.output = b"no answer, and the probe itself hung".to_vec();
        }
        asker.give_up()
    }

    /// Notes an answer, and has it written down for people.
    pub fn record(
        &mut self,
        asker: &Asker,
        answer: Answer,
        now: Duration,
    ) -> Result<(), sys::Error> {
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
        self.write(asker)
    }

    /// Has it all written down for people.
    pub fn write(&self, asker: &Asker) -> Result<(), sys::Error> {
        // Numbers and texts: there is nothing in it that JSON has no form for.
        let mut json = serde_json::to_vec(&self.known).unwrap_or_default();
        json.push(b'\n');
        asker.write_down(&json)
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
}

/// Microseconds since the epoch.
fn wall_clock() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
