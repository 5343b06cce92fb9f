//! When a box is asked how it is, and what follows from its answers: `(State, Event, now) -> (State, Actions)`.
//!
//! ```text
//!                     success                         retries failures in a row
//!   Starting ──────────────────────────► Healthy ─────────────────────────────► Unhealthy ──► Over, if the box is
//!      │                                    ▲                                      │  ▲          stopped for it
//!      │                                    └──────────────────────────────────────┘  │
//!      │                                                    success                   │
//!      └──────────────────────────────────────────────────────────────────────────────┘
//!         retries failures in a row, of probes that began after the start period
//! ```
//!
//! Beside that there is what is being done: one probe at a time, [`Activity`]. A probe is a process of its own,
//! `boxd probe`, which the [`Asker`] starts and the loop hears of: see [`Check`].
//!
//! A box that is frozen is not asked: it could not answer, and is not to blame. One that is being stopped is not
//! asked any more.

mod asker;
mod check;

pub use asker::{Asker, Error as AskerError, Word};
pub use check::Check;

use std::time::Duration;

use crate::health::{self, Answer};
use crate::plan::{HealthRules, OnFailure};

/// A probe that has not even said that its time was up by so much later is killed.
pub const GRACE: Duration = Duration::from_secs(5);

/// All that the decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// How the box is.
    pub condition: health::State,
    /// Failures in a row that count.
    pub failures: u32,
    /// Failures of probes that began before this do not count, until one has succeeded.
    pub start_until: Duration,
    /// What is being done.
    pub activity: Activity,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Nothing.
    Waiting {
        /// Then the box is asked.
        until: Duration,
    },
    /// The box is being asked.
    Probing {
        /// Since then.
        since: Duration,
        /// Then the probe is given up.
        until: Duration,
    },
    /// Nothing: the box is frozen.
    Suspended,
    /// Nothing any more.
    Over,
}

/// What an earlier supervisor left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How the box was.
    pub condition: health::State,
    /// Failures in a row.
    pub failures: u32,
    /// As [`State::start_until`].
    pub start_until: Duration,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The time of the activity has passed.
    Deadline,
    /// The probe has ended.
    Answered(Answer),
    /// The box was frozen.
    Frozen,
    /// It runs again.
    Thawed,
    /// The box is being stopped, or has ended.
    Ended,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask the box.
    Probe,
    /// End the probe with all it started.
    Cancel,
    /// Add this answer to those that are shown.
    Record(Answer),
    /// Keep in mind how the box is, for a supervisor to come.
    Keep,
    /// Say that the box has become so.
    Tell(health::State),
    /// Stop the box: it is unhealthy.
    Stop,
}

impl State {
    /// Where an earlier supervisor left off: what it was asking is asked again. A box that was not asked yet, if there
    /// was none.
    pub fn begin(rules: &HealthRules, left: Option<Left>, now: Duration) -> State {
        match left {
            Some(left) => State {
                condition: left.condition,
                failures: left.failures,
                start_until: left.start_until,
                activity: Activity::Waiting { until: now },
            },
            None => State {
                condition: health::State::Starting,
                failures: 0,
                start_until: now + rules.start_period,
                activity: Activity::Waiting {
                    // Without a start period the box gets one interval in its place.
                    until: match rules.start_period.is_zero() {
                        true => now + rules.interval,
                        false => now,
                    },
                },
            },
        }
    }

    /// What a supervisor to come needs to know.
    pub fn left(&self) -> Left {
        Left {
            condition: self.condition,
            failures: self.failures,
            start_until: self.start_until,
        }
    }

    /// When [`Event::Deadline`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        match self.activity {
            Activity::Waiting { until } | Activity::Probing { until, .. } => Some(until),
            Activity::Suspended | Activity::Over => None,
        }
    }

    /// What follows from an event. Events that mean nothing at the moment change nothing.
    #[must_use]
    pub fn after(
        mut self,
        event: Event,
        now: Duration,
        rules: &HealthRules,
    ) -> (State, Vec<Action>) {
        let mut actions = Vec::new();
        match (self.activity, event) {
            (Activity::Over, _) => {}
            (Activity::Waiting { .. }, Event::Deadline) => {
                self.activity = Activity::Probing {
                    since: now,
                    until: now + rules.timeout + GRACE,
                };
                actions.push(Action::Probe);
            }
            (Activity::Probing { since, .. }, Event::Answered(answer)) => {
                self.answered(answer, since, now, rules, &mut actions);
            }
            (Activity::Probing { since, .. }, Event::Deadline) => {
                actions.push(Action::Cancel);
                self.answered(Answer::Timeout, since, now, rules, &mut actions);
            }
            (activity, Event::Frozen | Event::Ended) => {
                if let Activity::Probing { .. } = activity {
                    actions.push(Action::Cancel);
                }
                self.activity = match event {
                    Event::Frozen => Activity::Suspended,
                    _ => Activity::Over,
                };
            }
            (Activity::Suspended, Event::Thawed) => self.wait(now, rules),
            (Activity::Waiting { .. }, Event::Answered(_) | Event::Thawed)
            | (Activity::Probing { .. }, Event::Thawed)
            | (Activity::Suspended, Event::Deadline | Event::Answered(_)) => {}
        }
        (self, actions)
    }

    fn answered(
        &mut self,
        answer: Answer,
        since: Duration,
        now: Duration,
        rules: &HealthRules,
        actions: &mut Vec<Action>,
    ) {
        let before = self.left();
        actions.push(Action::Record(answer));
        match answer {
            Answer::Success => {
                self.failures = 0;
                self.condition = health::State::Healthy;
            }
            Answer::Failure | Answer::Timeout if !self.is_starting(since) => {
                self.failures = self.failures.saturating_add(1).min(rules.retries);
                if self.failures == rules.retries {
                    self.condition = health::State::Unhealthy;
                }
            }
            Answer::Failure | Answer::Timeout | Answer::Error => {}
        }
        self.wait(now, rules);
        if self.left() == before {
            return;
        }
        actions.push(Action::Keep);
        if self.condition == before.condition {
            return;
        }
        actions.push(Action::Tell(self.condition));
        if self.condition == health::State::Unhealthy && rules.on_failure != OnFailure::Report {
            self.activity = Activity::Over;
            actions.push(Action::Stop);
        }
    }

    /// Whether a probe of this time belongs to the start.
    fn is_starting(&self, at: Duration) -> bool {
        self.condition == health::State::Starting && at < self.start_until
    }

    fn wait(&mut self, now: Duration, rules: &HealthRules) {
        let pause = match self.is_starting(now) {
            true => rules.start_interval,
            false => rules.interval,
        };
        self.activity = Activity::Waiting { until: now + pause };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: HealthRules = HealthRules {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        retries: 3,
        start_period: Duration::from_secs(5),
        start_interval: Duration::from_secs(1),
        on_failure: OnFailure::Restart,
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One that probes whenever it is time and hears this answer a second later, until it has been asked for all of
    /// them; what it said and when it stopped the box.
    fn answers(
        rules: &HealthRules,
        left: Option<Left>,
        answers: &[Answer],
    ) -> (State, Vec<(u64, Action)>) {
        let mut state = State::begin(rules, left, at(0));
        let mut said = Vec::new();
        for answer in answers {
            let Some(now) = state.deadline() else { break };
            let actions;
            (state, actions) = state.after(Event::Deadline, now, rules);
            assert_eq!(actions, [Action::Probe]);
            let now = now + at(1);
            let (next, actions) = state.after(Event::Answered(*answer), now, rules);
            state = next;
            assert_eq!(actions[0], Action::Record(*answer));
            let told = actions
                .into_iter()
                .filter(|action| matches!(action, Action::Tell(_) | Action::Stop));
            said.extend(told.map(|action| (now.as_secs(), action)));
        }
        (state, said)
    }

    use Answer::{Error, Failure, Success, Timeout};
    use health::State::{Healthy, Unhealthy};

    #[test]
    fn failures_of_the_start_do_not_count_until_a_success() {
        // Asked at 0, 2 and 4; the one at 6 is after the start period.
        let (state, said) = answers(&RULES, None, &[Failure, Timeout, Failure]);
        assert_eq!((state.failures, said.as_slice()), (0, &[][..]));
        assert_eq!(state.deadline(), Some(at(15)), "the start is over at 5");
        let (state, said) = answers(&RULES, None, &[Failure, Success, Failure]);
        assert_eq!(said, [(3, Action::Tell(Healthy))]);
        assert_eq!(state.failures, 1);
    }

    #[test]
    fn failures_in_a_row_make_a_box_unhealthy_and_one_success_healthy_again() {
        let report = HealthRules {
            on_failure: OnFailure::Report,
            ..RULES
        };
        let (state, said) = answers(
            &report,
            None,
            &[
                Success, Failure, Timeout, Success, Failure, Failure, Failure, Failure, Error,
                Success,
            ],
        );
        assert_eq!(
            said,
            [
                (1, Action::Tell(Healthy)),
                (67, Action::Tell(Unhealthy)),
                (100, Action::Tell(Healthy)),
            ]
        );
        assert_eq!(state.failures, 0);
    }

    #[test]
    fn an_unhealthy_box_is_stopped_once_if_that_is_what_was_asked_for() {
        let (state, said) = answers(&RULES, None, &[Success, Failure, Failure, Failure, Failure]);
        assert_eq!(
            said,
            [
                (1, Action::Tell(Healthy)),
                (34, Action::Tell(Unhealthy)),
                (34, Action::Stop),
            ]
        );
        assert_eq!(state.activity, Activity::Over);
        // One that was never healthy, too, once the start period is over.
        let (_, said) = answers(&RULES, None, &[Failure; 6]);
        assert_eq!(said, [(38, Action::Tell(Unhealthy)), (38, Action::Stop)]);
    }

    #[test]
    fn what_could_not_be_asked_counts_for_nothing() {
        let (state, said) = answers(&RULES, None, &[Success, Failure, Failure, Error, Error]);
        assert_eq!((state.failures, said.len()), (2, 1));
    }

    #[test]
    fn an_heir_goes_on_counting() {
        let left = Left {
            condition: Healthy,
            failures: 2,
            start_until: at(0),
        };
        let (_, said) = answers(&RULES, Some(left), &[Failure]);
        assert_eq!(said, [(1, Action::Tell(Unhealthy)), (1, Action::Stop)]);
    }

    #[test]
    fn a_probe_that_does_not_end_is_given_up() {
        let (state, _) = State::begin(&RULES, None, at(0)).after(Event::Deadline, at(0), &RULES);
        assert_eq!(state.deadline(), Some(at(2) + GRACE));
        let (state, actions) = state.after(Event::Deadline, at(7), &RULES);
        assert_eq!(actions, [Action::Cancel, Action::Record(Timeout)]);
        assert_eq!(state.failures, 0, "it began at the start, {state:?}");
    }

    #[test]
    fn a_frozen_box_is_not_asked() {
        let begun = State::begin(&RULES, None, at(0));
        let (state, actions) = begun.after(Event::Frozen, at(1), &RULES);
        assert_eq!((state.deadline(), actions.len()), (None, 0));
        let (probing, _) = begun.after(Event::Deadline, at(1), &RULES);
        let (state, actions) = probing.after(Event::Frozen, at(1), &RULES);
        assert_eq!((state.deadline(), &*actions), (None, &[Action::Cancel][..]));
        let (state, _) = state.after(Event::Answered(Failure), at(2), &RULES);
        assert_eq!(state.failures, 0);
        let (state, _) = state.after(Event::Thawed, at(100), &RULES);
        assert_eq!(state.deadline(), Some(at(110)));
    }

    #[test]
    fn a_box_that_ends_is_not_asked_any_more() {
        let (probing, _) = State::begin(&RULES, None, at(0)).after(Event::Deadline, at(1), &RULES);
        let (state, actions) = probing.after(Event::Ended, at(1), &RULES);
        assert_eq!(actions, [Action::Cancel]);
        for event in [
            Event::Deadline,
            Event::Thawed,
            Event::Frozen,
            Event::Answered(Failure),
        ] {
            let (next, actions) = state.after(event, at(50), &RULES);
            assert_eq!((next, actions.len()), (state, 0));
        }
    }

    #[test]
    fn without_a_start_period_the_first_probe_comes_after_an_interval() {
        let rules = HealthRules {
            start_period: Duration::ZERO,
            ..RULES
        };
        assert_eq!(State::begin(&rules, None, at(3)).deadline(), Some(at(13)));
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => Just(Event::Deadline),
            1 => Just(Event::Frozen),
            1 => Just(Event::Thawed),
            4 => prop::sample::select(&[Success, Failure, Timeout, Error][..]).prop_map(Event::Answered),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// There is never more than one probe, and one that was begun ends.
        #[test]
        fn there_is_one_probe_at_a_time(events in prop::collection::vec((0..20_u64, event()), 1..60)) {
            let mut state = State::begin(&RULES, None, at(0));
            let mut now = at(0);
            let mut running = false;
            for (later, event) in events {
                now += at(later);
                let actions;
                (state, actions) = state.after(event, now, &RULES);
                if let Event::Answered(_) = event {
                    running = false;
                }
                for action in actions {
                    match action {
                        Action::Probe => {
                            prop_assert!(!running);
                            running = true;
                        }
                        Action::Cancel => running = false,
                        _ => {}
                    }
                }
                prop_assert!(state.failures <= RULES.retries);
                let probing = matches!(state.activity, Activity::Probing { .. });
                prop_assert!(!running || probing);
            }
        }
    }
}
