//! What the loop does to ask its box how it is.

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Error, EventLoop, Source, now};
use crate::health::State as Condition;
use crate::plan::ReadyWhen;
use crate::supervisor::health::{Action, Asker, Event, Word};
use crate::supervisor::message::Message;
use crate::supervisor::policy::{self, Failure, Phase};
use crate::sys;

impl EventLoop {
    /// Makes who asks, unless the program that this one replaces has done so: while this process still has all that it
    /// takes.
    pub(super) fn make_asker(&mut self) -> Result<(), Error> {
        if self.check.is_none() {
            return Ok(());
        }
        let asker = match self.received.asker.take() {
            Some(asker) => asker,
            None => {
                Asker::make(&self.received.document.name, &self.scope).map_err(Error::MakeAsker)?
            }
        };
        let asker = self.received.asker.insert(asker);
        self.epoll
            .add(
                asker.socket(),
                EpollEvent::new(EpollFlags::EPOLLIN, Source::Asker as u64),
            )
            .map_err(|source| Error::Watch {
                what: "the process that asks the box",
                source,
            })
    }

    /// Ends what an earlier supervisor was asking; the answer is lost with it.
    pub(super) fn begin_asking(&mut self) {
        let (Some(check), Some(asker)) = (&self.check, &self.received.asker) else {
            return;
        };
        let given_up = asker.give_up();
        let written = check.write(asker);
        self.asked_for(given_up);
        self.asked_for(written);
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
        let (Some(check), Some(asker)) = (&mut self.check, &self.received.asker) else {
            return;
        };
        match action {
            Action::Probe => {
                if let Err(answer) = check.ask(asker, now()) {
                    self.tend(Event::Answered(answer));
                }
            }
            Action::Cancel => {
                let given_up = check.cancel(asker);
                self.asked_for(given_up);
            }
            Action::Record(answer) => {
                let written = check.record(asker, answer, now());
                self.asked_for(written);
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

    /// Who asks has said something, or has ended.
    pub(super) fn hear_asker(&mut self) -> Result<(), Error> {
        while let (Some(check), Some(asker)) = (&mut self.check, &self.received.asker)
            && let Some(word) = asker.hear()?
        {
            match word {
                Word::Answer(question, answer) => {
                    if let Some(answer) = check.answered(asker, question, answer) {
                        self.tend(Event::Answered(answer));
                    }
                }
                Word::Trouble(what) => self.trouble(what),
            }
        }
        Ok(())
    }

    /// One who cannot be told has ended, or will say why: this is for people.
    fn asked_for(&mut self, result: Result<(), sys::Error>) {
        if let Err(error) = result {
            self.trouble(["its health cannot be tended: ", &error.to_string()].concat());
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
