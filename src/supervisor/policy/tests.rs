//! The policy's own tests: sequences of events, and what follows.

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    ready: ReadyWhen::Started,
    ready_by: Duration::ZERO,
    signal: libc::SIGTERM,
    timeout: Duration::from_secs(5),
};

const SIGKILL: Exit = Exit::Signal {
    signal: libc::SIGKILL,
    dumped: false,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs events at these seconds from a running box; all actions in order.
fn run(events: &[(u64, Event)]) -> (State, Vec<Action>) {
    let mut state = State::begin(&RULES, &Left::default(), Duration::ZERO);
    let mut all = Vec::new();
    for (at, event) in events {
        let actions;
        (state, actions) = state.after(*event, seconds(*at), &RULES);
        all.extend(actions);
    }
    (state, all)
}

fn status(events: &[(u64, Event)]) -> (Result, u8) {
    let (state, actions) = run(events);
    assert_eq!(state.phase, Phase::Ended);
    let Some(Action::Exit(status)) = actions.last() else {
        panic!("does not exit: {actions:?}");
    };
    let outcome = state.outcome(&RULES);
    assert_eq!(outcome.status, *status);
    (outcome.result, *status)
}

const STOP: Event = Event::Stop { heard: true };

#[test]
fn an_init_that_powers_off_or_reboots_says_so_by_its_signal() {
    let exited = |signal| {
        Event::Exited(Exit::Signal {
            signal,
            dumped: false,
        })
    };
    let then = |before: &[(u64, Event)], exit| {
        let end = [(1, exit), (1, Event::Empty), (1, Event::OutputSent)];
        status(&[before, &end].concat())
    };
    let stop = [(0, STOP)];
    assert_eq!(then(&[], exited(POWERED_OFF)), (Result::Success, 0));
    assert_eq!(then(&stop, exited(POWERED_OFF)), (Result::Success, 0));
    assert_eq!(then(&[], exited(REBOOTED)), (Result::Reboot, REBOOT_STATUS));
    // Whoever wants it stopped does not want it started again.
    assert_eq!(then(&stop, exited(REBOOTED)), (Result::Success, 0));
}

#[test]
fn a_box_that_ends_of_itself_passes_its_status_on() {
    for (exit, expected) in [
        (Exit::Status(0), (Result::Success, 0)),
        (Exit::Status(3), (Result::ExitCode, 3)),
        (Exit::Status(143), (Result::ExitCode, 143)),
        (
            Exit::Signal {
                signal: libc::SIGTERM,
                dumped: false,
            },
            (Result::Signal, 143),
        ),
        (
            Exit::Signal {
                signal: libc::SIGSEGV,
                dumped: true,
            },
            (Result::CoreDump, 139),
        ),
        (SIGKILL, (Result::Signal, 137)),
        (Exit::Unknown, (Result::Unknown, 255)),
    ] {
        let events = [
            (1, Event::Exited(exit)),
            (1, Event::Empty),
            (1, Event::OutputSent),
        ];
        assert_eq!(status(&events), expected, "{exit:?}");
    }
}

#[test]
fn a_box_that_stops_as_asked_is_a_success() {
    for (exit, expected) in [
        (Exit::Status(0), (Result::Success, 0)),
        (Exit::Status(143), (Result::Success, 0)),
        (Exit::Status(1), (Result::ExitCode, 1)),
        (
            Exit::Signal {
                signal: libc::SIGTERM,
                dumped: false,
            },
            (Result::Success, 0),
        ),
        (
            Exit::Signal {
                signal: libc::SIGSEGV,
                dumped: true,
            },
            (Result::CoreDump, 139),
        ),
        (Exit::Unknown, (Result::Success, 0)),
    ] {
        let events = [
            (1, STOP),
            (2, Event::Exited(exit)),
            (2, Event::Empty),
            (2, Event::OutputSent),
        ];
        assert_eq!(status(&events), expected, "{exit:?}");
    }
}

#[test]
fn a_stop_is_told_then_signalled_then_recorded() {
    let (state, actions) = run(&[(7, STOP)]);
    assert_eq!(state.phase, Phase::Stopping { until: seconds(12) });
    assert_eq!(
        actions,
        [
            Action::TellStopping(seconds(75)),
            Action::Say(Notice::Stopping),
            Action::Signal(libc::SIGTERM),
            Action::RecordStop,
            Action::Thaw,
        ]
    );
}

#[test]
fn a_box_that_ignores_the_signal_is_killed_when_its_time_is_over() {
    let events = [
        (7, STOP),
        (12, Event::Deadline),
        (12, Event::Empty),
        (12, Event::Exited(SIGKILL)),
        (13, Event::OutputSent),
    ];
    assert_eq!(status(&events), (Result::Timeout, 137));
    let (_, actions) = run(&events);
    assert_eq!(
        actions[5..],
        [
            Action::Say(Notice::Killed(Killed::Timeout)),
            Action::RecordEnd,
            Action::KillAll,
            Action::RecordEnd,
            Action::Say(Notice::Ended(Outcome {
                result: Result::Timeout,
                exit: SIGKILL,
                failed: None,
                ready: true,
                idle: false,
                status: 137
            })),
            Action::Exit(137)
        ]
    );
}

#[test]
fn a_box_that_ends_of_itself_just_before_the_kill_has_stopped_in_time() {
    for (own, expected) in [(0, (Result::Success, 0)), (3, (Result::ExitCode, 3))] {
        let events = [
            (7, STOP),
            (12, Event::Deadline),
            (12, Event::Exited(Exit::Status(own))),
            (12, Event::Empty),
            (12, Event::OutputSent),
        ];
        assert_eq!(status(&events), expected);
    }
}

#[test]
fn a_box_deaf_to_the_signal_is_killed_at_once_and_counts_as_stopped() {
    let events = [
        (7, Event::Stop { heard: false }),
        (7, Event::Exited(SIGKILL)),
        (7, Event::Empty),
        (7, Event::OutputSent),
    ];
    assert_eq!(status(&events), (Result::Success, 0));
    assert!(!run(&events).1.contains(&Action::Signal(libc::SIGTERM)));
}

#[test]
fn a_kill_soon_after_the_kernel_killed_for_memory_is_one() {
    let oom = (5, Event::OomKill { processes: 1 });
    let rest = [(6, Event::Empty), (6, Event::OutputSent)];
    let after = |at, exit| {
        let mut events = vec![oom, (at, Event::Exited(exit))];
        events.extend(rest);
        status(&events)
    };
    assert_eq!(after(6, SIGKILL), (Result::OomKill, 137));
    assert_eq!(after(6, Exit::Unknown), (Result::OomKill, 137));
    assert_eq!(after(6, Exit::Status(1)), (Result::ExitCode, 1));
    assert_eq!(after(60, SIGKILL), (Result::Signal, 137));
}

#[test]
fn a_process_that_cannot_be_killed_does_not_hold_the_supervisor() {
    let (state, actions) = run(&[
        (1, Event::Exited(Exit::Status(0))),
        (11, Event::Deadline),
        (11, Event::OutputSent),
    ]);
    assert_eq!(state.phase, Phase::Ended);
    assert!(actions.contains(&Action::Say(Notice::Stuck)));
}

#[test]
fn a_stuck_journal_does_not_hold_the_supervisor() {
    let (_, actions) = run(&[
        (1, Event::Exited(Exit::Status(0))),
        (1, Event::Empty),
        (11, Event::Deadline),
    ]);
    assert_eq!(actions[2], Action::DropOutput);
    assert_eq!(actions.last(), Some(&Action::Exit(0)));
}

#[test]
fn a_stop_goes_on_under_another_supervisor() {
    let left = Left {
        stopping: Some(seconds(3)),
        ..Left::default()
    };
    let state = State::begin(&RULES, &left, seconds(6));
    assert_eq!(state.deadline(), Some(seconds(8)));
    let (state, actions) = state.after(Event::Deadline, seconds(8), &RULES);
    assert!(actions.contains(&Action::KillAll));
    assert!(state.requested);
}

#[test]
fn an_end_an_earlier_supervisor_saw_is_reported_by_its_heir() {
    let left = Left {
        exit: Some(Exit::Status(3)),
        ..Left::default()
    };
    let state = State::begin(&RULES, &left, seconds(6));
    let (state, _) = state.after(Event::Exited(Exit::Unknown), seconds(6), &RULES);
    let (state, _) = state.after(Event::Empty, seconds(6), &RULES);
    let (_, actions) = state.after(Event::OutputSent, seconds(6), &RULES);
    assert_eq!(actions.last(), Some(&Action::Exit(3)));
    let left = Left {
        killed: Some(Killed::Timeout),
        ..Left::default()
    };
    let state = State::begin(&RULES, &left, seconds(6));
    assert!(matches!(state.phase, Phase::Killing { .. }));
    assert_eq!(state.outcome(&RULES).result, Result::Timeout);
}

const NOTIFY: Rules = Rules {
    ready: ReadyWhen::Notify,
    ready_by: Duration::from_secs(30),
    ..RULES
};

fn run_from_start(events: &[(u64, Event)]) -> (State, Vec<Action>) {
    let mut state = State::begin(&NOTIFY, &Left::default(), Duration::ZERO);
    let mut all = Vec::new();
    for (at, event) in events {
        let actions;
        (state, actions) = state.after(*event, seconds(*at), &NOTIFY);
        all.extend(actions);
    }
    (state, all)
}

#[test]
fn a_box_is_ready_when_what_its_rules_name_says_so() {
    let by = |by| Event::Ready { by };
    let (state, actions) = run_from_start(&[(1, by(ReadyWhen::Started))]);
    assert_eq!(state.phase, Phase::Starting { until: seconds(30) });
    assert_eq!(actions, []);
    let (state, actions) =
        run_from_start(&[(1, by(ReadyWhen::Notify)), (2, by(ReadyWhen::Notify))]);
    assert_eq!(state.phase, Phase::Running);
    assert_eq!(actions, [Action::TellReady, Action::Say(Notice::Ready)]);
}

#[test]
fn a_box_that_is_not_ready_in_time_is_left_to_systemd_and_then_stopped() {
    let overdue = (30, Event::Deadline);
    let (state, actions) = run_from_start(&[overdue]);
    assert_eq!(state.phase, Phase::Overdue { until: seconds(35) });
    assert_eq!(
        actions,
        [
            Action::RecordEnd,
            Action::Say(Notice::Failed(Failure::NotReady)),
            Action::TellFailed(Failure::NotReady),
        ]
    );
    let (_, actions) = run_from_start(&[overdue, (35, Event::Deadline)]);
    assert_eq!(actions.last(), Some(&Action::Stop));
    // Too late is too late.
    let ready = Event::Ready {
        by: ReadyWhen::Notify,
    };
    for exit in [Exit::Status(0), SIGKILL] {
        let (state, actions) = run_from_start(&[
            overdue,
            (30, ready),
            (31, STOP),
            (32, Event::Exited(exit)),
            (32, Event::Empty),
            (32, Event::OutputSent),
        ]);
        assert!(actions.contains(&Action::Signal(libc::SIGTERM)));
        assert_eq!(actions.last(), Some(&Action::Exit(137)));
        assert_eq!(state.outcome(&NOTIFY).result, Result::Timeout);
    }
}

#[test]
fn more_time_is_only_ever_more() {
    let extended = |until| Event::Extended {
        until: seconds(until),
    };
    let (state, _) = run_from_start(&[(1, extended(20))]);
    assert_eq!(state.deadline(), Some(seconds(30)));
    let (state, _) = run_from_start(&[(1, extended(90))]);
    assert_eq!(state.deadline(), Some(seconds(90)));
}

#[test]
fn a_box_that_ends_before_it_is_ready_has_failed() {
    for (exit, expected) in [
        (Exit::Status(0), (Result::Protocol, 0)),
        (Exit::Status(3), (Result::ExitCode, 3)),
    ] {
        let (state, actions) = run_from_start(&[
            (1, Event::Exited(exit)),
            (1, Event::Empty),
            (1, Event::OutputSent),
        ]);
        let outcome = state.outcome(&NOTIFY);
        assert_eq!((outcome.result, outcome.status), expected);
        assert!(!outcome.ready);
        assert_eq!(actions.last(), Some(&Action::Exit(expected.1)));
    }
    let (state, actions) = run_from_start(&[
        (1, STOP),
        (1, Event::Exited(Exit::Status(0))),
        (1, Event::Empty),
        (1, Event::OutputSent),
    ]);
    assert_eq!(state.outcome(&NOTIFY).result, Result::Success);
    assert_eq!(actions.last(), Some(&Action::Exit(0)));
}

#[test]
fn a_box_whose_watchdog_starves_is_aborted_and_killed_if_that_goes_unheard() {
    let failed = |heard| Event::Failed {
        why: Failure::Watchdog,
        heard,
    };
    let (state, actions) = run(&[(1, failed(true)), (2, failed(true))]);
    assert_eq!(state.phase, Phase::Stopping { until: seconds(6) });
    assert_eq!(
        actions,
        [
            Action::RecordEnd,
            Action::Say(Notice::Failed(Failure::Watchdog)),
            Action::TellFailed(Failure::Watchdog),
            Action::Signal(libc::SIGABRT),
            Action::RecordStop,
            Action::Thaw,
        ]
    );
    let (_, actions) = run(&[(1, failed(false))]);
    assert_eq!(actions[3..], [Action::RecordEnd, Action::KillAll]);
    for exit in [Exit::Status(0), SIGKILL, Exit::Unknown] {
        let events = [
            (1, failed(true)),
            (6, Event::Deadline),
            (6, Event::Exited(exit)),
            (6, Event::Empty),
            (6, Event::OutputSent),
        ];
        assert_eq!(status(&events), (Result::Watchdog, 134));
    }
}

#[test]
fn a_box_that_says_it_ends_has_the_time_of_a_stop_for_it() {
    let (state, actions) = run(&[(1, Event::Leaving), (2, Event::Leaving)]);
    assert_eq!(state.phase, Phase::Stopping { until: seconds(6) });
    assert_eq!(
        actions,
        [
            Action::TellStopping(seconds(75)),
            Action::Say(Notice::Leaving),
            Action::RecordStop,
        ]
    );
    let (state, actions) = run(&[(1, Event::Leaving), (2, STOP)]);
    assert_eq!(state.deadline(), Some(seconds(6)));
    assert_eq!(actions.last(), Some(&Action::Signal(libc::SIGTERM)));
    let events = [
        (1, Event::Leaving),
        (2, Event::Exited(Exit::Status(3))),
        (2, Event::Empty),
        (2, Event::OutputSent),
    ];
    assert_eq!(status(&events), (Result::ExitCode, 3));
}

/// What nobody saw is what the box said of itself, where it said anything, and else no success.
#[test]
fn an_end_that_nobody_saw_is_as_the_box_said() {
    const FORETOLD: Event = Event::Foretold { status: 3 };
    let end = |exit| {
        [
            (2, Event::Exited(exit)),
            (2, Event::Empty),
            (2, Event::OutputSent),
        ]
    };
    for (before, exit, expected) in [
        (&[][..], Exit::Unknown, (Result::Unknown, 255)),
        (&[(1, FORETOLD)], Exit::Unknown, (Result::ExitCode, 3)),
        (&[(1, FORETOLD)], Exit::Status(4), (Result::ExitCode, 4)),
        (&[(1, FORETOLD)], SIGKILL, (Result::Signal, 137)),
        (
            &[(1, FORETOLD), (1, Event::OomKill { processes: 1 })],
            Exit::Unknown,
            (Result::OomKill, 137),
        ),
        (&[(1, Event::Leaving)], Exit::Unknown, (Result::Success, 0)),
        (
            &[(1, Event::Leaving), (1, FORETOLD)],
            Exit::Unknown,
            (Result::ExitCode, 3),
        ),
    ] {
        let events = [before, &end(exit)].concat();
        assert_eq!(status(&events), expected, "{events:?}");
    }
    // The next supervisor has it from the one that heard it.
    let left = Left {
        stopping: Some(Duration::ZERO),
        leaving: true,
        foretold: Some(3),
        ..Left::default()
    };
    let (state, _) = State::begin(&RULES, &left, Duration::ZERO).after(
        Event::Exited(Exit::Unknown),
        Duration::ZERO,
        &RULES,
    );
    assert!(!state.requested);
    assert_eq!(state.outcome(&RULES).result, Result::ExitCode);
}

#[test]
fn an_heir_waits_for_what_is_left_of_the_time_and_knows_a_failure() {
    let begin = |left: Left| State::begin(&NOTIFY, &left, seconds(20));
    assert_eq!(begin(Left::default()).deadline(), Some(seconds(30)));
    let extended = Left {
        ready_by: Some(seconds(90)),
        ..Left::default()
    };
    assert_eq!(begin(extended).deadline(), Some(seconds(90)));
    let ready = Left {
        ready: true,
        ..Left::default()
    };
    assert_eq!(begin(ready).phase, Phase::Running);
    let failed = Left {
        failed: Some(Failure::Watchdog),
        ..Left::default()
    };
    let state = begin(failed);
    assert!(matches!(state.phase, Phase::Killing { .. }));
    assert_eq!(state.outcome(&NOTIFY).result, Result::Watchdog);
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        prop_oneof![Just(ReadyWhen::Started), Just(ReadyWhen::Notify)]
            .prop_map(|by| Event::Ready { by }),
        Just(Event::Leaving),
        any::<u8>().prop_map(|status| Event::Foretold { status }),
        (0..200u64).prop_map(|until| Event::Extended {
            until: seconds(until)
        }),
        (
            prop_oneof![Just(Failure::NotReady), Just(Failure::Watchdog)],
            any::<bool>()
        )
            .prop_map(|(why, heard)| Event::Failed { why, heard }),
        any::<bool>().prop_map(|heard| Event::Stop { heard }),
        prop_oneof![
            any::<u8>().prop_map(Exit::Status),
            (1..65i32, any::<bool>()).prop_map(|(signal, dumped)| Exit::Signal { signal, dumped }),
            Just(Exit::Unknown),
        ]
        .prop_map(Event::Exited),
        Just(Event::Empty),
        (1..9u64).prop_map(|processes| Event::OomKill { processes }),
        Just(Event::OutputSent),
        Just(Event::Deadline),
    ]
}

/// A slow journal is no stuck one, but a box does not stay for ever because of it.
#[test]
fn output_that_is_taken_slowly_is_waited_for() {
    let begin = seconds(100);
    let mut state = State::begin(&RULES, &Left::default(), begin);
    for event in [Event::Exited(Exit::Status(0)), Event::Empty] {
        (state, _) = state.after(event, begin, &RULES);
    }
    assert_eq!(state.deadline(), Some(begin + DRAIN_WAIT));
    let mut now = begin;
    while now + DRAIN_WAIT < begin + DRAIN_MAX {
        now += DRAIN_WAIT / 2;
        (state, _) = state.after(Event::OutputTaken, now, &RULES);
        assert_eq!(
            state.deadline(),
            Some((now + DRAIN_WAIT).min(begin + DRAIN_MAX))
        );
    }
    assert_eq!(state.deadline(), Some(begin + DRAIN_MAX));
}

proptest! {
    #[test]
    fn whatever_happens_every_end_is_reached_in_bounded_time_and_once(
        events in prop::collection::vec((any_event(), 0..4_000u64), 0..40),
        stopping in any::<bool>(),
        ended in any::<bool>(),
        ready in any::<bool>(),
        rules in prop_oneof![Just(RULES), Just(NOTIFY)],
    ) {
        let mut now = seconds(100);
        let left = Left {
            ready,
            stopping: stopping.then_some(seconds(99)),
            exit: ended.then_some(Exit::Status(0)),
            ..Left::default()
        };
        let mut state = State::begin(&rules, &left, now);
        let mut exits = 0;
        // The loop kills again what is in this phase, from its begin on.
        let mut killed = ended;
        let mut step = |state: State, event, now| {
            let before = state;
            let (mut state, mut actions) = state.after(event, now, &rules);
            if actions.contains(&Action::Stop) {
                let more;
                (state, more) = state.after(STOP, now, &rules);
                actions.extend(more);
            }
            for action in &actions {
                match action {
                    Action::KillAll => killed = true,
                    Action::Exit(_) => exits += 1,
                    Action::Signal(_) => assert!(!killed, "signals a box it has killed"),
                    _ => {}
                }
            }
            if before.phase == Phase::Ended {
                assert_eq!(state, before);
                assert!(actions.is_empty());
            }
            if matches!(state.phase, Phase::Draining { .. } | Phase::Ended) {
                assert!(killed, "leaves processes behind without a kill");
            }
            assert!(!before.requested || state.requested);
            state
        };
        for (event, milliseconds) in events {
            now += Duration::from_millis(milliseconds);
            while let Some(deadline) = state.deadline()
                && deadline <= now
            {
                state = step(state, Event::Deadline, deadline);
            }
            // The loop tells a deadline when it has passed, never before.
            if event != Event::Deadline {
                state = step(state, event, now);
            }
        }
        state = step(state, Event::Stop { heard: true }, now);
        let asked = now;
        while let Some(deadline) = state.deadline() {
            now = deadline.max(now);
            state = step(state, Event::Deadline, now);
        }
        prop_assert_eq!(state.phase, Phase::Ended);
        prop_assert!(now <= asked + rules.timeout + KILL_WAIT + DRAIN_MAX);
        prop_assert_eq!(exits, 1);
    }
}

/// Whatever the first process says of its end then, it is that of a stop; one that ends badly is told so.
#[test]
fn a_box_whose_sockets_are_not_used_is_stopped_and_not_started_again() {
    let idle = |heard| (1, Event::Idle { heard });
    let end = |exit| {
        [
            (2, Event::Exited(exit)),
            (2, Event::Empty),
            (2, Event::OutputSent),
        ]
    };
    let by_term = Exit::Signal {
        signal: libc::SIGTERM,
        dumped: false,
    };
    for (heard, exit, well) in [
        (true, Exit::Status(0), true),
        (true, by_term, true),
        (false, SIGKILL, true),
        (true, Exit::Status(1), false),
    ] {
        let (state, actions) = run(&[&[idle(heard)][..], &end(exit)].concat());
        assert!(actions.contains(&Action::Say(Notice::Idle)));
        assert_eq!(state.ends_idle(&RULES), well, "{exit:?}");
    }
    // One that ends of itself, or is stopped, is not idle; nor is one that is being stopped.
    let (state, _) = run(&end(Exit::Status(0)));
    assert!(!state.ends_idle(&RULES));
    let (state, actions) = run(&[&[(0, STOP), idle(true)][..], &end(Exit::Status(0))].concat());
    assert!(!state.ends_idle(&RULES) && !actions.contains(&Action::Say(Notice::Idle)));
    // The next supervisor ends it in the same way.
    let left = Left {
        idle: true,
        stopping: Some(Duration::ZERO),
        ..Left::default()
    };
    let mut state = State::begin(&RULES, &left, Duration::ZERO);
    for (at, event) in end(Exit::Status(0)) {
        (state, _) = state.after(event, seconds(at), &RULES);
    }
    assert!(state.ends_idle(&RULES));
}
