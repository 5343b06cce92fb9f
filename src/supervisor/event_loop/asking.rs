//! What the loop does to ask its box how it is.

use std::io;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{EventLoop, Source, now};
use crate::health::State as Condition;
use crate::plan::ReadyWhen;
use crate::supervisor::health::{Action, Event};
use crate::supervisor::message::Message;
use crate::supervisor::policy::{self, Failure, Phase};

impl EventLoop {
    /// Ends what an earlier supervisor was asking; the answer is lost with it.
    pub(super) fn begin_asking(&mut self) {
        let Some(check) = &self.check else { return };
        let written = check.write();
        self.written(written);
        self.end_probe();
        self.keep_health();
        if !self.is_asked() {
            self.tend(Event::Ended);
        }
    }

    /// Whether a box in this phase is worth asking.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.state.phase, Phase::Starting { .. } | Phase::Running)
    }

    /// The box was frozen or thawed.
    pub(super) fn pause_asking(&mut self) {
        self.tend(match self.paused {
            true => Event::Frozen,
            false => Event::Thawed,
        });
    }

    /// Tells the rules of health what happened, and does what they say.
    pub(super) fn tend(&mut self, event: Event) {
        let Some(check) = &mut self.check else {
            return;
        };
        let (state, actions) = check.state.after(event, now(), &check.rules);
        check.state = state;
        for action in actions {
            self.tend_to(action);
        }
    }

    fn tend_to(&mut self, action: Action) {
        let Some(check) = &mut self.check else {
            return;
        };
        match action {
            Action::Probe => {
                let asked = check.ask(now()).map(|process| {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Probe as u64);
                    // What cannot be watched is given up when its time is over.
                    let _ = self.epoll.add(process, event);
                });
                if let Err(answer) = asked {
                    self.tend(Event::Answered(answer));
                }
            }
            Action::Cancel => {
                check.cancel();
                self.end_probe();
            }
            Action::Record(answer) => {
                let written = check.record(answer, now());
                self.written(written);
                self.show_health();
            }
            Action::Keep => self.keep_health(),
            Action::Tell(condition) => {
                let rules = check.rules;
                let output = check.last_output().to_owned();
                let message = Message::health(&self.subject(), condition, &rules, &output);
                self.say(&message);
                if condition == Condition::Healthy {
                    self.event(policy::Event::Ready {
                        by: ReadyWhen::Healthy,
                    });
                }
                self.show_health();
            }
            Action::Stop => {
                let why = Failure::Unhealthy;
                let heard = self.received.process.hears(why.signal(&self.rules));
                self.event(policy::Event::Failed { why, heard });
            }
        }
    }

    /// The process that asks has ended, or one that was given up.
    pub(super) fn probe_ended(&mut self) {
        if let Some(answer) = self.check.as_mut().and_then(|check| check.answer()) {
            self.end_probe();
            self.tend(Event::Answered(answer));
        }
    }

    /// Ends what a probe started in the box and left there.
    fn end_probe(&mut self) {
        if let Err(error) = self.scope.kill_probe() {
            self.trouble(["what a probe started cannot be ended: ", &error.to_string()].concat());
        }
    }

    /// Health that is not shown does no harm but that.
    fn written(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.trouble(["its health cannot be written down: ", &error.to_string()].concat());
        }
    }

    fn keep_health(&mut self) {
        if let Some(left) = self.check.as_ref().map(|check| check.state.left()) {
            self.keep(|kept| kept.health = Some(left));
        }
    }

    /// What the unit's status says of the health, where that is bad or waited for.
    pub(super) fn bad_health(&self) -> String {
        let Some(check) = &self.check else {
            return String::new();
        };
        let words = check.last_words();
        match (self.state.phase, check.state.condition) {
            (Phase::Starting { .. }, _) if self.rules.ready == ReadyWhen::Healthy => {
                match words.is_empty() {
                    true => String::new(),
                    false => ["; the last probe said: ", &words].concat(),
                }
            }
            (_, Condition::Unhealthy) => ["; unhealthy: ", &words].concat(),
            _ => String::new(),
        }
    }

    /// Has the unit's status say so, once for the same words.
    fn show_health(&mut self) {
        let text = self.bad_health();
        let Some(check) = &mut self.check else { return };
        if check.shown != text {
            check.shown = text;
            if self.is_asked() {
                self.tell_status();
            }
        }
    }
}
