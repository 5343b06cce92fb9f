//! What the supervisor decides: `(State, Event, now) -> (State, Actions)`, without a system call.
//!
//! ```text
//!              Stop                    Deadline: kill all
//!   Running ──────────► Stopping ─────────────────────────┐
//!      │   signal          │                              ▼
//!      │                   │ Exited: kill the rest     Killing ◄─┐
//!      │                   └─────────────────────────►    │      │ Exited or Empty,
//!      │ Exited: kill the rest                            │ ─────┘ one is missing
//!      │ Stop that would go unheard: kill all             │
//!      └─────────────────────────────────────────────►    │ both known, or Deadline
//!                                                         ▼
//!                                                     Draining
//!                                                         │ OutputSent, or Deadline
//!                                                         ▼
//!                                                       Ended
//! ```
//!
//! The first process takes its whole pid namespace with it, but a process that came in by another way, such as
//! `boxctl exec`, may outlive it in the cgroup. So whatever ends a box, all of its cgroup is killed, and its
//! output is complete only when the cgroup is empty.
//!
//! Times are those of `CLOCK_MONOTONIC`, which stands still while the machine sleeps.

use std::time::Duration;

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

/// A first process killed so soon after the kernel killed for memory was killed for memory.
const OOM_WINDOW: Duration = Duration::from_secs(10);

/// How a box is stopped, as its document says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
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

/// Where a box is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It runs.
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
    /// It sent the stop signal then.
    pub stopping: Option<Duration>,
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
    /// systemd, or somebody with a signal, wants the box to end.
    Stop {
        /// The first process handles, blocks or ignores the stop signal, so it will have its say.
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
    /// Tell systemd that the box is being stopped, and that it may take so long.
    TellStopping(Duration),
    /// Thaw the cgroup: a frozen process hears no signal.
    Thaw,
    /// Send the stop signal to the first process.
    Signal,
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
    /// The stop signal was sent.
    Stopping,
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
    /// The exit status that says so to systemd.
    pub status: u8,
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
    /// Killed because it did not stop in time.
    Timeout,
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
            Result::Unknown => "unknown",
        }
    }
}

impl State {
    /// Where an earlier supervisor left off; one that runs, if there was none.
    pub fn begin(rules: &Rules, left: &Left, now: Duration) -> State {
        let until = now + KILL_WAIT;
        State {
            phase: match (left.stopping, left.killed, left.exit) {
                (_, _, Some(_)) | (_, Some(_), _) => Phase::Killing { until },
                (Some(since), None, None) => Phase::Stopping {
                    until: since + rules.timeout,
                },
                (None, None, None) => Phase::Running,
            },
            requested: left.stopping.is_some() || left.killed.is_some(),
            killed: left.killed,
            exit: left.exit,
            oom: left.oom,
            empty: false,
            oom_seen: None,
        }
    }

    /// When [`Event::Deadline`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Running | Phase::Ended => None,
            Phase::Stopping { until }
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
            (Phase::Running, Event::Stop { heard }) => {
                self.requested = true;
                actions.push(Action::TellStopping(if heard {
                    rules.timeout + KILL_WAIT + DRAIN_MAX
                } else {
                    KILL_WAIT + DRAIN_MAX
                }));
                if heard {
                    self.phase = Phase::Stopping {
                        until: now + rules.timeout,
                    };
                    actions.extend([
                        Action::Say(Notice::Stopping),
                        Action::Signal,
                        Action::RecordStop,
                        Action::Thaw,
                    ]);
                } else {
                    self.kill(Killed::Unheard, now, &mut actions);
                }
            }
            (Phase::Stopping { .. }, Event::Deadline) => {
                self.kill(Killed::Timeout, now, &mut actions);
            }
            (Phase::Running | Phase::Stopping { .. }, Event::Exited(exit)) => {
                self.exited(exit, now, &mut actions);
                actions.push(Action::KillAll);
                self.phase = Phase::Killing {
                    until: now + KILL_WAIT,
                };
                self.drain_if_gone(now);
            }
            (Phase::Running | Phase::Stopping { .. }, Event::Empty) => self.empty = true,
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
                Event::Stop { .. },
            ) => {
                if !self.requested {
                    actions.push(Action::TellStopping(KILL_WAIT + DRAIN_MAX));
                }
                self.requested = true;
            }
            (Phase::Draining { .. }, Event::Exited(_) | Event::Empty)
            | (Phase::Running, Event::Deadline)
            | (
                Phase::Running | Phase::Stopping { .. } | Phase::Killing { .. },
                Event::OutputSent | Event::OutputTaken,
            ) => {}
        }
        (self, actions)
    }

    fn kill(&mut self, why: Killed, now: Duration, actions: &mut Vec<Action>) {
        self.killed = Some(why);
        self.phase = Phase::Killing {
            until: now + KILL_WAIT,
        };
        actions.extend([
            Action::Say(Notice::Killed(why)),
            Action::RecordEnd,
            Action::KillAll,
        ]);
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
        let (result, status) = match (killed, exit) {
            (Some(Killed::Timeout), _) => (Result::Timeout, KILLED),
            (Some(Killed::Unheard), _) => (Result::Success, 0),
            (None, _) if self.oom => (Result::OomKill, KILLED),
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
            (None, Exit::Unknown) if self.requested => (Result::Success, 0),
            (None, Exit::Unknown) => (Result::Unknown, 255),
        };
        Outcome {
            result,
            exit,
            status,
        }
    }
}

#[cfg(test)]
mod tests;
