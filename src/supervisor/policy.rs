//! What the supervisor decides: `(State, Event, now) -> (State, Actions)`, without a system call.
//!
//! ```text
//!             Ready              Stop or Failed: a signal; Leaving
//!   Starting ───────► Running ────────────────────────────► Stopping
//!      │ Deadline        │                                   │    │ Deadline: kill all
//!      ▼                 │ Exited: kill the rest             │    ▼
//!   Overdue ────────►    │ a signal that would go unheard:   │  Killing ◄─┐ Exited or Empty,
//!      Stop, or Deadline │ kill all                          │    │ ──────┘ one is missing
//!                        └───────────────────────────────────┴──► │
//!                                                                 │ both known, or Deadline
//!                                                                 ▼
//!                                                             Draining
//!                                                                 │ OutputSent, or Deadline
//!                                                                 ▼
//!                                                               Ended
//! ```
//!
//! A box that is ready as soon as it is started begins in Running. What leads out of Running leads out of Starting
//! and Overdue too, except for Leaving.
//!
//! What is not ready in time is systemd's to stop, whose own time for the start ends just then: only so does the
//! unit's result become `timeout`. If no stop comes, Overdue asks for one itself.
//!
//! The first process takes its whole pid namespace with it, but a process that came in by another way, such as
//! `boxctl exec`, may outlive it in the cgroup. So whatever ends a box, all of its cgroup is killed, and its
//! output is complete only when the cgroup is empty.
//!
//! A box whose sockets nobody uses is stopped like one whose stop is asked for, except that systemd must be told
//! apart from the exit status that it is not to be started again: see [`Farewell`].
//!
//! Times are those of `CLOCK_MONOTONIC`, which stands still while the machine sleeps.

use std::time::Duration;

use crate::plan::{ReadyWhen, UNHEALTHY};

/// From the kill of all to the admission that the kernel does not let go of them.
pub const KILL_WAIT: Duration = Duration::from_secs(10);

/// A journal that takes nothing for so long, of the output that is left when the box is gone, is stuck.
pub const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// For all of that output, however slowly it is taken.
pub const DRAIN_MAX: Duration = Duration::from_secs(60);

/// How the kernel ends a pid namespace whose init powers it off or halts it, reboot(2). No other way leads to such
/// an end: pid 1 of a namespace is spared the default action of both signals, whoever sends them.
pub const POWERED_OFF: i32 = libc::SIGINT;

/// The same for a reboot.
pub const REBOOTED: i32 = libc::SIGHUP;

/// The exit status that asks systemd to start the box again whatever `Restart=` says; systemd-nspawn(1) has the
/// same.
pub const REBOOT_STATUS: u8 = 133;

/// From the moment a box is overdue until the supervisor no longer waits for systemd to stop it.
pub const OVERDUE_WAIT: Duration = Duration::from_secs(5);

/// A first process killed so soon after the kernel killed for memory was killed for memory.
const OOM_WINDOW: Duration = Duration::from_secs(10);

/// How a box becomes ready and is stopped, as its document says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What makes it ready.
    pub ready: ReadyWhen,
    /// When it must be ready at the latest.
    pub ready_by: Duration,
    /// Asks the first process to stop.
    pub signal: i32,
    /// From the signal to the kill of all.
    pub timeout: Duration,
}

/// How the first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By exit(3).
    Status(u8),
    /// By a signal.
    Signal {
        /// Its number.
        signal: i32,
        /// It left a core.
        dumped: bool,
    },
    /// It is gone, and nobody can say how: its supervisor was not its parent, and the kernel keeps no record.
    Unknown,
}

/// Why the supervisor killed a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    /// The stop signal did not end it in time.
    Timeout,
    /// The stop signal would have had no effect: pid 1 of a namespace is spared the default action of signals,
    /// which for any other process would have been the end.
    Unheard,
}

/// Why the supervisor ends a box that nobody asked it to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It was not ready in time.
    NotReady,
    /// Its watchdog was not fed in time, or it asked to be treated so.
    Watchdog,
    /// Its probes fail.
    Unhealthy,
}

impl Failure {
    /// The signal that ends such a box; a watchdog's is that of `WatchdogSignal=` in systemd.service(5), whose
    /// core tells what hung.
    pub fn signal(self, rules: &Rules) -> i32 {
        match self {
            Failure::NotReady | Failure::Unhealthy => rules.signal,
            Failure::Watchdog => libc::SIGABRT,
        }
    }
}

/// Where a box is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It runs, and is not ready yet.
    Starting {
        /// Then it is overdue.
        until: Duration,
    },
    /// It was not ready in time, and systemd is about to stop it.
    Overdue {
        /// Then it is stopped in any case.
        until: Duration,
    },
    /// It is ready.
    Running,
    /// It was asked to stop.
    Stopping {
        /// Then all is killed.
        until: Duration,
    },
    /// All of it was killed.
    Killing {
        /// Then the supervisor gives up.
        until: Duration,
    },
    /// It is gone, and what it said is being sent.
    Draining {
        /// Then the rest is dropped, unless some of it is taken before.
        until: Duration,
        /// Then it is dropped in any case.
        last: Duration,
    },
    /// Nothing is left to do.
    Ended,
}

/// All that the decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Where the box is in its life.
    pub phase: Phase,
    /// A stop was asked for.
    pub requested: bool,
    /// By nobody but the rule that ends a box whose sockets are not used.
    pub idle: bool,
    /// It says that it ends of itself.
    pub leaving: bool,
    /// The exit status that it says it will have.
    pub foretold: Option<u8>,
    /// The supervisor ends it for this, or has.
    pub failed: Option<Failure>,
    /// It has been ready.
    pub ready: bool,
    /// The supervisor killed it.
    pub killed: Option<Killed>,
    /// How the first process ended, once it did.
    pub exit: Option<Exit>,
    /// The first process was killed for want of memory.
    pub oom: bool,
    /// No process is left in the cgroup.
    pub empty: bool,
    /// The last kill for want of memory in the box.
    pub oom_seen: Option<Duration>,
}

/// What an earlier supervisor left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// It told systemd that the box is ready.
    pub ready: bool,
    /// The time to become ready ends then: the box asked for more than the rules give it.
    pub ready_by: Option<Duration>,
    /// It ends the box for this.
    pub failed: Option<Failure>,
    /// It stops the box because its sockets are not used.
    pub idle: bool,
    /// It sent the stop signal then, or the box said that it ends.
    pub stopping: Option<Duration>,
    /// The box said so itself, and nobody asked it to.
    pub leaving: bool,
    /// The exit status that the box said it would have.
    pub foretold: Option<u8>,
    /// It killed the box.
    pub killed: Option<Killed>,
    /// It learnt how the first process ended.
    pub exit: Option<Exit>,
    /// That was for want of memory.
    pub oom: bool,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The box is ready by this measure; it counts if it is the one of the rules.
    Ready {
        /// What says so.
        by: ReadyWhen,
    },
    /// The box says that its start takes longer, until then.
    Extended {
        /// On the clock of all times here.
        until: Duration,
    },
    /// The box says that it ends of itself.
    Leaving,
    /// The box says which exit status it will have.
    Foretold {
        /// That one.
        status: u8,
    },
    /// The box is to end for this.
    Failed {
        /// Why.
        why: Failure,
        /// The first process handles, blocks or ignores the signal for that.
        heard: bool,
    },
    /// systemd, or somebody with a signal, wants the box to end.
    Stop {
        /// The first process handles, blocks or ignores the stop signal, so it will have its say.
        heard: bool,
    },
    /// Nobody has used the sockets of the box for the time of its rule.
    Idle {
        /// The first process handles, blocks or ignores the stop signal.
        heard: bool,
    },
    /// The first process ended.
    Exited(Exit),
    /// The cgroup holds no process any more.
    Empty,
    /// The kernel killed processes of the box for want of memory.
    OomKill {
        /// So many since the last time.
        processes: u64,
    },
    /// The journal has taken some output.
    OutputTaken,
    /// All output is sent.
    OutputSent,
    /// The time of the phase has passed.
    Deadline,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tell systemd that the box is ready, and keep that in mind for a supervisor to come.
    TellReady,
    /// Tell systemd that the service has failed for this, where it has a way to be told.
    TellFailed(Failure),
    /// Bring about [`Event::Stop`].
    Stop,
    /// Tell systemd that the box is being stopped, and that it may take so long.
    TellStopping(Duration),
    /// Thaw the cgroup: a frozen process hears no signal.
    Thaw,
    /// Send this signal to the first process.
    Signal(i32),
    /// Keep in mind, for a supervisor to come, that the box is being stopped since now.
    RecordStop,
    /// Keep in mind what happened to the box, for a supervisor to come.
    RecordEnd,
    /// Kill every process in the cgroup.
    KillAll,
    /// Say something in the journal and in the unit's status.
    Say(Notice),
    /// Count what is left of the output and drop it.
    DropOutput,
    /// Forget the box and exit with this status.
    Exit(u8),
}

/// Something worth saying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It says that it ends of itself.
    Leaving,
    /// It is ready, after it was waited for.
    Ready,
    /// It is to end for this.
    Failed(Failure),
    /// The stop signal was sent.
    Stopping,
    /// It is stopped because its sockets are not used.
    Idle,
    /// All is killed, for this reason.
    Killed(Killed),
    /// The kernel killed so many processes for want of memory.
    OomKill(u64),
    /// Processes are left that even SIGKILL does not end.
    Stuck,
    /// It is over.
    Ended(Outcome),
}

/// How a box ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The word for it.
    pub result: Result,
    /// How its first process ended.
    pub exit: Exit,
    /// It was ended for this.
    pub failed: Option<Failure>,
    /// It had been ready.
    pub ready: bool,
    /// It was stopped because its sockets were not used.
    pub idle: bool,
    /// The exit status that says so to systemd.
    pub status: u8,
}

/// How a supervisor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// By this exit status.
    Status(u8),
    /// By SIGTERM: systemd takes that for a good end, and `RestartPreventExitStatus=` for one after which the box is
    /// not to be started again, which no exit status could say that is not a box's own too.
    Idle,
}

/// How a box ended, in the words of systemd's `Result` property where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Result {
    /// Of itself with status 0, or as it was asked to.
    Success,
    /// With another status.
    ExitCode,
    /// By a signal nobody here sent.
    Signal,
    /// By a signal, leaving a core.
    CoreDump,
    /// It asks to be started again, by reboot(2).
    Reboot,
    /// Killed by the kernel for want of memory.
    OomKill,
    /// Killed because it did not stop in time, or ended because it was not ready in time.
    Timeout,
    /// Ended because its watchdog was not fed in time.
    Watchdog,
    /// Ended because its probes failed.
    Health,
    /// Of itself with status 0, before it was ready.
    Protocol,
    /// Nobody can say.
    Unknown,
}

impl Result {
    /// As it is written in `BOX_RESULT=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Result::Success => "success",
            Result::ExitCode => "exit-code",
            Result::Signal => "signal",
            Result::CoreDump => "core-dump",
            Result::Reboot => "reboot",
            Result::OomKill => "oom-kill",
            Result::Timeout => "timeout",
            Result::Watchdog => "watchdog",
            Result::Health => "health",
            Result::Protocol => "protocol",
            Result::Unknown => "unknown",
        }
    }
}

impl Rules {
    /// The most that is left of a box's life once it is asked to end.
    pub fn time_to_end(&self, heard: bool) -> Duration {
        let grace = if heard { self.timeout } else { Duration::ZERO };
        grace + KILL_WAIT + DRAIN_MAX
    }
}

impl Phase {
    fn is_before_the_kill(self) -> bool {
        matches!(
            self,
            Phase::Starting { .. }
                | Phase::Overdue { .. }
                | Phase::Running
                | Phase::Stopping { .. }
        )
    }
}

impl State {
    /// Where an earlier supervisor left off; one that runs, if there was none.
    pub fn begin(rules: &Rules, left: &Left, now: Duration) -> State {
        let until = now + KILL_WAIT;
        let ready = left.ready || rules.ready == ReadyWhen::Started;
        let phase = match (left.stopping, left.failed) {
            _ if left.exit.is_some() || left.killed.is_some() => Phase::Killing { until },
            (Some(since), _) => Phase::Stopping {
                until: since + rules.timeout,
            },
            // Its supervisor was killed while it said so.
            (None, Some(_)) => Phase::Killing { until },
            (None, None) if ready => Phase::Running,
            (None, None) => Phase::Starting {
                until: left.ready_by.unwrap_or(rules.ready_by),
            },
        };
        State {
            phase,
            requested: left.failed.is_none()
                && !left.leaving
                && (left.stopping.is_some() || left.killed.is_some()),
            // A supervisor may have been killed between the decision and the signal.
            idle: left.idle && (left.stopping.is_some() || left.killed.is_some()),
            leaving: left.leaving,
            foretold: left.foretold,
            failed: left.failed,
            ready,
            killed: left.killed,
            exit: left.exit,
            oom: left.oom,
            empty: false,
            oom_seen: None,
        }
    }

    /// How the supervisor of a box that ended so ends.
    pub fn farewell(&self, rules: &Rules, status: u8) -> Farewell {
        match self.ends_idle(rules) {
            true => Farewell::Idle,
            false => Farewell::Status(status),
        }
    }

    /// The box was stopped because its sockets were not used, and ended well. Whatever `Restart=` says, the next
    /// connection starts it, and nothing else does.
    fn ends_idle(&self, rules: &Rules) -> bool {
        self.idle && self.outcome(rules).result == Result::Success
    }

    /// When [`Event::Deadline`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Running | Phase::Ended => None,
            Phase::Starting { until }
            | Phase::Overdue { until }
            | Phase::Stopping { until }
            | Phase::Killing { until }
            | Phase::Draining { until, .. } => Some(until),
        }
    }

    /// What follows from an event. Events that mean nothing in a phase change nothing.
    #[must_use]
    pub fn after(mut self, event: Event, now: Duration, rules: &Rules) -> (State, Vec<Action>) {
        let mut actions = Vec::new();
        match (self.phase, event) {
            (Phase::Ended, _) => {}
            (Phase::Starting { .. }, Event::Ready { by }) if by == rules.ready => {
                self.ready = true;
                self.phase = Phase::Running;
                actions.extend([Action::TellReady, Action::Say(Notice::Ready)]);
            }
            (Phase::Starting { until }, Event::Extended { until: later }) => {
                let until = until.max(later);
                self.phase = Phase::Starting { until };
            }
            (Phase::Starting { .. }, Event::Deadline) => {
                self.failed = Some(Failure::NotReady);
                self.phase = Phase::Overdue {
                    until: now + OVERDUE_WAIT,
                };
                actions.extend([
                    Action::RecordEnd,
                    Action::Say(Notice::Failed(Failure::NotReady)),
                    Action::TellFailed(Failure::NotReady),
                ]);
            }
            (Phase::Overdue { .. }, Event::Deadline) => actions.push(Action::Stop),
            (
                Phase::Starting { .. } | Phase::Overdue { .. } | Phase::Running,
                Event::Stop { heard },
            ) => {
                self.requested = true;
                actions.push(Action::TellStopping(rules.time_to_end(heard)));
                if heard {
                    actions.push(Action::Say(Notice::Stopping));
                }
                self.ask(rules.signal, heard, now, rules, &mut actions);
            }
            (Phase::Running, Event::Idle { heard }) => {
                (self.requested, self.idle) = (true, true);
                actions.extend([
                    Action::RecordEnd,
                    Action::TellStopping(rules.time_to_end(heard)),
                    Action::Say(Notice::Idle),
                ]);
                self.ask(rules.signal, heard, now, rules, &mut actions);
            }
            (Phase::Running, Event::Leaving) => {
                self.leaving = true;
                self.phase = Phase::Stopping {
                    until: now + rules.timeout,
                };
                actions.extend([
                    Action::TellStopping(rules.time_to_end(true)),
                    Action::Say(Notice::Leaving),
                    Action::RecordStop,
                ]);
            }
            (Phase::Starting { .. } | Phase::Running, Event::Failed { why, heard }) => {
                self.failed = Some(why);
                actions.extend([
                    Action::RecordEnd,
                    Action::Say(Notice::Failed(why)),
                    Action::TellFailed(why),
                ]);
                self.ask(why.signal(rules), heard, now, rules, &mut actions);
            }
            (Phase::Stopping { .. }, Event::Deadline) => {
                self.kill(Killed::Timeout, now, &mut actions);
            }
            (phase, Event::Exited(exit)) if phase.is_before_the_kill() => {
                self.exited(exit, now, &mut actions);
                actions.push(Action::KillAll);
                self.phase = Phase::Killing {
                    until: now + KILL_WAIT,
                };
                self.drain_if_gone(now);
            }
            (phase, Event::Empty) if phase.is_before_the_kill() => self.empty = true,
            (Phase::Killing { .. }, Event::Exited(exit)) => {
                if self.exit.is_none() {
                    self.exited(exit, now, &mut actions);
                }
                self.drain_if_gone(now);
            }
            (Phase::Killing { .. }, Event::Empty) => {
                self.empty = true;
                self.drain_if_gone(now);
            }
            (Phase::Killing { .. }, Event::Deadline) => {
                if !self.empty {
                    actions.push(Action::Say(Notice::Stuck));
                }
                self.drain(now);
            }
            (Phase::Draining { last, .. }, Event::OutputTaken) => {
                let until = last.min(now + DRAIN_WAIT);
                self.phase = Phase::Draining { until, last };
            }
            (Phase::Draining { .. }, Event::OutputSent) => self.end(rules, &mut actions),
            (Phase::Draining { .. }, Event::Deadline) => {
                actions.push(Action::DropOutput);
                self.end(rules, &mut actions);
            }
            (_, Event::OomKill { processes }) => {
                self.oom_seen = Some(now);
                actions.push(Action::Say(Notice::OomKill(processes)));
            }
            (
                Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Draining { .. },
                Event::Stop { heard },
            ) => {
                if !self.requested {
                    self.requested = true;
                    actions.extend([
                        Action::RecordEnd,
                        Action::TellStopping(rules.time_to_end(heard)),
                    ]);
                    let leaving = matches!(self.phase, Phase::Stopping { .. });
                    if leaving && heard && self.failed.is_none() {
                        actions.push(Action::Signal(rules.signal));
                    }
                }
            }
            (_, Event::Foretold { status }) => self.foretold = Some(status),
            // In a phase of which nothing above speaks, these mean nothing.
            (
                _,
                Event::Ready { .. }
                | Event::Extended { .. }
                | Event::Leaving
                | Event::Failed { .. }
                | Event::Idle { .. }
                | Event::Exited(_)
                | Event::Empty
                | Event::OutputSent
                | Event::OutputTaken
                | Event::Deadline,
            ) => {}
        }
        (self, actions)
    }

    /// Asks the box to end by this signal, or kills it if the signal would go unheard.
    fn ask(
        &mut self,
        signal: i32,
        heard: bool,
        now: Duration,
        rules: &Rules,
        actions: &mut Vec<Action>,
    ) {
        if !heard {
            return self.kill(Killed::Unheard, now, actions);
        }
        self.phase = Phase::Stopping {
            until: now + rules.timeout,
        };
        actions.extend([Action::Signal(signal), Action::RecordStop, Action::Thaw]);
    }

    fn kill(&mut self, why: Killed, now: Duration, actions: &mut Vec<Action>) {
        self.killed = Some(why);
        self.phase = Phase::Killing {
            until: now + KILL_WAIT,
        };
        // A failure has been told already, and no stop was asked for that could go unheard.
        if self.failed.is_none() || why != Killed::Unheard {
            actions.push(Action::Say(Notice::Killed(why)));
        }
        actions.extend([Action::RecordEnd, Action::KillAll]);
    }

    fn exited(&mut self, exit: Exit, now: Duration, actions: &mut Vec<Action>) {
        self.exit = Some(exit);
        actions.push(Action::RecordEnd);
        let recent = self.oom_seen.is_some_and(|seen| now <= seen + OOM_WINDOW);
        let by_kill = match exit {
            Exit::Signal { signal, .. } => signal == libc::SIGKILL,
            Exit::Unknown => true,
            Exit::Status(_) => false,
        };
        self.oom = recent && by_kill && self.killed.is_none();
    }

    fn drain_if_gone(&mut self, now: Duration) {
        if self.empty && self.exit.is_some() {
            self.drain(now);
        }
    }

    fn drain(&mut self, now: Duration) {
        self.phase = Phase::Draining {
            until: now + DRAIN_WAIT,
            last: now + DRAIN_MAX,
        };
    }

    fn end(&mut self, rules: &Rules, actions: &mut Vec<Action>) {
        self.phase = Phase::Ended;
        let outcome = self.outcome(rules);
        actions.extend([
            Action::Say(Notice::Ended(outcome)),
            Action::Exit(outcome.status),
        ]);
    }

    /// How the box ended, as far as is known by now.
    pub fn outcome(&self, rules: &Rules) -> Outcome {
        const KILLED: u8 = 128 + libc::SIGKILL as u8;
        let exit = self.exit.unwrap_or(Exit::Unknown);
        let by_signal = |signal: i32| 128u8.wrapping_add(signal as u8);
        // A first process that ended of itself just before the kill did what it was asked to.
        let killed = self.killed.filter(|_| match exit {
            Exit::Status(_) => false,
            Exit::Signal { signal, .. } => signal == libc::SIGKILL,
            Exit::Unknown => true,
        });
        // What nobody saw the box may have said itself.
        let exit = match self.foretold {
            Some(status) if exit == Exit::Unknown && killed.is_none() && !self.oom => {
                Exit::Status(status)
            }
            _ => exit,
        };
        let (result, status) = match (killed, exit) {
            _ if self.failed == Some(Failure::NotReady) => (Result::Timeout, KILLED),
            _ if self.failed == Some(Failure::Watchdog) => {
                (Result::Watchdog, by_signal(libc::SIGABRT))
            }
            _ if self.failed == Some(Failure::Unhealthy) => (Result::Health, UNHEALTHY),
            (Some(Killed::Timeout), _) => (Result::Timeout, KILLED),
            (Some(Killed::Unheard), _) => (Result::Success, 0),
            (None, _) if self.oom => (Result::OomKill, KILLED),
            // systemd calls it a failure of its own accord.
            (None, Exit::Status(0)) if !self.ready && !self.requested => (Result::Protocol, 0),
            (None, Exit::Status(0)) => (Result::Success, 0),
            (None, Exit::Status(status)) if self.requested && status == by_signal(rules.signal) => {
                (Result::Success, 0)
            }
            (None, Exit::Status(status)) => (Result::ExitCode, status),
            (None, Exit::Signal { signal, .. }) if self.requested && signal == rules.signal => {
                (Result::Success, 0)
            }
            (None, Exit::Signal { signal, .. }) if signal == POWERED_OFF => (Result::Success, 0),
            (None, Exit::Signal { signal, .. }) if signal == REBOOTED && self.requested => {
                (Result::Success, 0)
            }
            (None, Exit::Signal { signal, .. }) if signal == REBOOTED => {
                (Result::Reboot, REBOOT_STATUS)
            }
            (
                None,
                Exit::Signal {
                    signal,
                    dumped: true,
                },
            ) => (Result::CoreDump, by_signal(signal)),
            (None, Exit::Signal { signal, .. }) => (Result::Signal, by_signal(signal)),
            // One that said beforehand that it ends has ended in order, as far as anybody can say.
            (None, Exit::Unknown) if self.requested || self.leaving => (Result::Success, 0),
            (None, Exit::Unknown) => (Result::Unknown, 255),
        };
        Outcome {
            result,
            exit,
            failed: self.failed,
            ready: self.ready,
            idle: self.idle,
            status,
        }
    }
}

#[cfg(test)]
mod tests;
