//! The one loop: it waits for the kernel, tells the policy, and does what the policy says.

mod notifications;
mod output;
mod terminal;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use notifications::Notifications;

use super::descriptors::{self, Received};
use super::health::{self, AskerError, Check};
use super::idle::{self, Idle};
use super::kept::Kept;
use super::message::{self, Message, Subject};
use super::policy::{Action, Event, Farewell, Left, Notice, Phase, Rules, State};
use super::scope::Scope;
use super::terminal::Terminal;
use super::walls;
use super::{Libraries, chain};
use crate::handover::now;
use crate::journal::gate::Gate;
use crate::journal::native::{self, Socket};
use crate::journal::relay::Buffers;
use crate::sys;
use crate::systemd::notify;

mod asking;

/// What the journal did not take is tried again after so long, if nothing tells earlier that it would.
const RETRY: Duration = Duration::from_secs(1);

/// While a killed box is waited for, it is killed again: a process may have been moved in meanwhile.
const KILL_AGAIN: Duration = Duration::from_millis(500);

/// How long the wait status of somebody else's child is looked for between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Nothing is to be done for so long.
const LONG: Duration = Duration::from_secs(5);

/// Between two times that free memory is given back: a supervisor that passes on line by line needs the same again.
const GIVE_BACK_AGAIN: Duration = Duration::from_secs(1);

/// How often it is looked whether a reload is still waited for that an upgrade waits for.
const RELOAD_LOOK: Duration = Duration::from_secs(1);

/// systemd's time for the start ends so much later than that of the box: what was waited for is said first.
const AFTER_US: Duration = Duration::from_millis(500);

/// For the last entry, when everything else is done.
const LAST_WORD: Duration = Duration::from_secs(10);

/// Own entries that wait for the journal; older ones give way.
const OUTBOX: usize = 32;

/// What the loop waits for, in the order in which it is looked at.
///
/// A kill for want of memory comes before the exit it causes, and so does what the box said before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Memory,
    Notifications,
    Cgroup,
    Process,
    Signals,
    Stdout,
    Stderr,
    Journal,
    Asker,
    Attached,
}

const SOURCES: [Source; 10] = [
    Source::Memory,
    Source::Notifications,
    Source::Cgroup,
    Source::Process,
    Source::Signals,
    Source::Stdout,
    Source::Stderr,
    Source::Journal,
    Source::Asker,
    Source::Attached,
];

/// Which of the two streams a flow is about.
const STREAMS: [Source; 2] = [Source::Stdout, Source::Stderr];

/// What a stream waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// The payload to write.
    Payload,
    /// Its turn.
    Turn,
    /// The journal to take more.
    Journal,
    /// Nothing: it has ended.
    Nothing,
}

/// Why the loop cannot go on. The box does, and so must supervision: under another supervisor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Waiting is impossible.
    #[error("cannot wait for events of the box")]
    Wait(#[source] Errno),
    /// A descriptor cannot be waited for.
    #[error("cannot watch {what}")]
    Watch {
        /// Which one.
        what: &'static str,
        /// Why.
        source: Errno,
    },
    /// This process was to become another program.
    #[error("cannot become the supervisor that is installed")]
    PassOn(#[source] sys::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] Errno),
    /// Who asks the box cannot be made.
    #[error("cannot make the process that asks the box")]
    MakeAsker(#[source] sys::Error),
    /// It is lost, and this process is not to be able to make another.
    #[error(transparent)]
    Asker(#[from] AskerError),
    /// This process could do more than it should.
    #[error(transparent)]
    Walls(#[from] walls::Error),
}

/// The supervisor at work.
#[derive(Debug)]
pub struct EventLoop {
    epoll: Epoll,
    signals: SignalFd,
    received: Received,
    scope: Scope,
    memory_limit: Option<u64>,
    paused: bool,
    rules: Rules,
    state: State,
    socket: Socket,
    buffers: Buffers,
    flows: [Flow; 2],
    gate: Gate,
    outbox: VecDeque<Vec<u8>>,
    trouble: String,
    retry: Option<Duration>,
    kill_again: Option<Duration>,
    look_again: Option<Duration>,
    tell_again: Option<Duration>,
    /// The supervisor that is installed is to take over then.
    pass_on: Option<Duration>,
    /// When free memory was given back last.
    gave_back: Duration,
    watchdog: Option<(Duration, Duration)>,
    idle: Option<Idle>,
    notifications: Notifications,
    check: Option<Check>,
    /// Somebody who has attached could go on at once.
    attached_wait: bool,
    finished: Option<u8>,
}

impl EventLoop {
    /// Watches everything a box can do.
    pub fn new(received: Received) -> Result<EventLoop, Error> {
        let mask = block_signals()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(Error::Signals)?;
        let scope = Scope::open(&received.document.cgroup);
        let rules = Rules {
            ready: received.document.ready,
            ready_by: Duration::from_micros(received.document.ready_by),
            signal: received.document.stop_signal,
            timeout: received.document.stop_timeout,
        };
        let now = now();
        let kept = &received.kept;
        let left = Left {
            ready: kept.ready,
            ready_by: kept.ready_by.map(Duration::from_micros),
            failed: kept.failed,
            idle: kept.idle,
            stopping: kept.stopping.map(Duration::from_micros),
            leaving: kept.leaving,
            foretold: kept.exit_status,
            killed: kept.killed,
            exit: kept.exit,
            oom: kept.oom,
        };
        let interval = match kept.watchdog {
            Some(microseconds) => Some(Duration::from_micros(microseconds)),
            None => received.document.watchdog,
        };
        let status = received.record.load_status();
        let notifications = Notifications::of(status, interval, kept.reloading);
        let event_loop = EventLoop {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::Wait)?,
            memory_limit: scope.memory_limit(),
            paused: false,
            state: State::begin(&rules, &left, now),
            flows: [0, 1].map(|index| match received.streams[index] {
                Some(_) => Flow::Turn,
                None => Flow::Nothing,
            }),
            gate: Gate::new(received.document.output.rate),
            check: received
                .document
                .health
                .map(|rules| Check::begin(&received.document.name, rules, kept.health, now)),
            signals,
            received,
            scope,
            rules,
            socket: Socket::to(native::SOCKET),
            buffers: Buffers::default(),
            outbox: VecDeque::new(),
            trouble: String::new(),
            retry: None,
            kill_again: None,
            look_again: None,
            tell_again: None,
            pass_on: None,
            gave_back: Duration::ZERO,
            watchdog: notify::watchdog_interval()
                .map(|interval| interval / 2)
                .map(|interval| (interval, now + interval)),
            idle: None,
            notifications,
            attached_wait: false,
            finished: None,
        };
        event_loop.watch(&event_loop.signals, Source::Signals, "signals")?;
        if let Some(pidfd) = event_loop.received.process.pidfd() {
            event_loop.watch(&pidfd, Source::Process, "the first process")?;
        }
        for (index, source) in STREAMS.into_iter().enumerate() {
            if let Some(output) = event_loop.received.output(index) {
                event_loop.watch(&output, source, "the output")?;
            }
        }
        event_loop.watch_attached()?;
        if let Some(socket) = &event_loop.received.notify {
            event_loop.watch(socket, Source::Notifications, "what the box says")?;
        }
        // These can be absent: the cgroup may be gone, and the memory controller missing.
        for (file, source) in [
            (event_loop.scope.events(), Source::Cgroup),
            (event_loop.scope.memory_events(), Source::Memory),
        ] {
            if let Some(file) = file {
                let event = EpollEvent::new(EpollFlags::EPOLLPRI, source as u64);
                event_loop
                    .epoll
                    .add(file, event)
                    .map_err(|source| Error::Watch {
                        what: "the cgroup",
                        source,
                    })?;
            }
        }
        Ok(event_loop)
    }

    /// Supervises until the box is gone; what says to systemd how it ended.
    pub fn run(mut self: Box<Self>, libraries: Libraries) -> Result<Farewell, Error> {
        self.make_asker()?;
        self.give_up(libraries)?;
        self.begin();
        self.begin_asking();
        self.memory_changed();
        self.cgroup_changed();
        loop {
            self.relay();
            self.tend_attached();
            self.on_time();
            self.pass_on_in_time()?;
            if let Some(status) = self.finished {
                self.part_from_attached(status);
                self.last_word();
                if let Some(asker) = &self.received.asker {
                    asker.dismiss();
                }
                descriptors::forget();
                return Ok(self.state.farewell(&self.rules, status));
            }
            let happened = self.wait()?;
            for source in SOURCES {
                if happened[source as usize] {
                    self.happened(source)?;
                }
            }
        }
    }

    /// What this process does not need.
    fn give_up(&mut self, libraries: Libraries) -> Result<(), Error> {
        match walls::put_up(&self.received, libraries)? {
            Some(Ok(())) => {}
            None => self.say(&Message::without_landlock(&self.subject())),
            Some(Err(error)) => self.trouble(
                [
                    "its supervisor can still open every file: ",
                    &error.to_string(),
                ]
                .concat(),
            ),
        }
        Ok(())
    }

    fn begin(&mut self) {
        let message = Message::running(&self.subject(), self.received.taken_over);
        self.say(&message);
        self.tell_standing();
        if let Phase::Killing { .. } = self.state.phase {
            self.kill_all();
        }
    }

    /// Where the box stands, as systemd must know it.
    fn tell_standing(&mut self) {
        if let Phase::Starting { until } = self.state.phase {
            self.status_told();
            let status = self.status();
            self.told(notify::status(&status));
            // As long as the box may take, systemd waits, and no longer.
            let left = until.saturating_sub(now());
            self.told(notify::extend_timeout(left + AFTER_US));
        } else if self.state.ready {
            self.tell_ready();
            if self.received.kept.reloading {
                self.told(notify::reloading(now()));
            }
        }
        let Kept {
            errno, exit_status, ..
        } = self.received.kept;
        if errno.is_some() || exit_status.is_some() {
            self.told(notify::failing(errno, exit_status));
        }
        if self.state.requested {
            self.told(notify::stopping("stopping"));
        }
        if let Some(why) = self.state.failed {
            self.tell_failed(why);
        }
    }

    fn wait(&mut self) -> Result<[bool; SOURCES.len()], Error> {
        let next = [
            self.state.deadline(),
            self.retry,
            self.kill_again,
            self.look_again,
            self.tell_again,
            self.pass_on,
            self.gate.until().filter(|_| self.unreported() != (0, 0)),
            self.watchdog.map(|(_, at)| at),
            self.idle.as_ref().map(Idle::next),
            self.check.as_ref().and_then(|check| check.state.deadline()),
            (self.attached_wait || self.flows.contains(&Flow::Turn)).then_some(Duration::ZERO),
        ]
        .into_iter()
        .chain(self.next_of_notifications())
        .flatten()
        .min();
        let next = self.give_memory_back(next);
        let timeout = match next {
            None => EpollTimeout::NONE,
            Some(at) => {
                // Rounded up: a deadline is told when it has passed.
                let wait = at.saturating_sub(now()).as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(wait.min(1 << 30) as i32).unwrap_or(EpollTimeout::ZERO)
            }
        };
        let mut events = [EpollEvent::empty(); SOURCES.len()];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::Wait(errno)),
        };
        let mut happened = [false; SOURCES.len()];
        for event in &events[..count] {
            happened[event.data() as usize] = true;
        }
        Ok(happened)
    }

    /// Before a sleep of some length; when to wake up. While much happens it is done now and then, and once more when
    /// it is over.
    fn give_memory_back(&mut self, next: Option<Duration>) -> Option<Duration> {
        let now = now();
        if next.is_some_and(|at| at.saturating_sub(now) < LONG) {
            return next;
        }
        let again = self.gave_back + GIVE_BACK_AGAIN;
        if now < again {
            return Some(again);
        }
        self.gave_back = now;
        sys::give_memory_back();
        next
    }

    fn happened(&mut self, source: Source) -> Result<(), Error> {
        match source {
            Source::Memory => self.memory_changed(),
            Source::Notifications => self.listen(),
            Source::Cgroup => self.cgroup_changed(),
            Source::Process => {
                if self.look_for_exit() {
                    self.look_again = None;
                } else {
                    self.look_again = Some(now() + LOOK_AGAIN);
                }
                // A process that has ended stays readable.
                if let Some(pidfd) = self.received.process.pidfd() {
                    let _ = self.epoll.delete(pidfd);
                }
            }
            Source::Signals => {
                while let Some(signal) = self.signals.read_signal().map_err(Error::Signals)? {
                    if signal.ssi_signo == Signal::SIGUSR1 as u32 {
                        self.pass_on = Some(now());
                    } else if signal.ssi_signo == Signal::SIGTERM as u32
                        || signal.ssi_signo == Signal::SIGINT as u32
                    {
                        self.stop();
                    }
                }
            }
            Source::Stdout | Source::Stderr => {
                let flow = &mut self.flows[usize::from(source == Source::Stderr)];
                if *flow == Flow::Payload {
                    *flow = Flow::Turn;
                }
            }
            Source::Journal => self.try_journal_again(),
            Source::Asker => self.hear_asker()?,
            Source::Attached => self.accept(),
        }
        Ok(())
    }

    /// What is due by the clock.
    fn on_time(&mut self) {
        let now = now();
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if due(self.state.deadline()) {
            self.event(Event::Deadline);
        }
        if due(self.gate.until()) {
            self.report_dropped();
        }
        if due(self.check.as_ref().and_then(|check| check.state.deadline())) {
            self.tend(health::Event::Deadline);
        }
        if due(self.retry) {
            self.try_journal_again();
        }
        if due(self.kill_again) {
            self.kill_all();
            self.cgroup_changed();
        }
        if due(self.look_again) {
            self.look_again = match self.look_for_exit() {
                true => None,
                false => Some(now + LOOK_AGAIN),
            };
        }
        if due(self.tell_again) {
            self.tell_again = None;
            self.tell_standing();
        }
        self.listen_on_time(now);
        if let Some((interval, at)) = self.watchdog
            && at <= now
        {
            self.watchdog = Some((interval, now + interval));
            self.told(notify::watchdog());
        }
        // A box that is paused answers nobody, and is not to be stopped behind the back of who paused it.
        let rule = self.received.document.idle.as_ref();
        let rule = rule.filter(|_| !self.paused);
        match idle::is_over(&mut self.idle, rule, self.state.phase, now) {
            Ok(false) => {}
            Ok(true) => {
                let heard = self.received.process.hears(self.rules.signal);
                self.event(Event::Idle { heard });
            }
            Err(error) => self.trouble(chain(&error)),
        }
    }

    fn event(&mut self, event: Event) {
        let (state, actions) = self.state.after(event, now(), &self.rules);
        self.state = state;
        for action in actions {
            self.act(action);
        }
        if !self.is_asked() {
            self.tend(health::Event::Ended);
        }
        match self.state.phase {
            Phase::Killing { .. } if self.kill_again.is_none() => {
                self.kill_again = Some(now() + KILL_AGAIN);
            }
            Phase::Draining { .. } => {
                self.kill_again = None;
                self.look_again = None;
                for flow in &mut self.flows {
                    if *flow == Flow::Payload {
                        *flow = Flow::Turn;
                    }
                }
            }
            _ => {}
        }
    }

    fn stop(&mut self) {
        let heard = self.received.process.hears(self.rules.signal);
        self.event(Event::Stop { heard });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::TellReady => self.tell_ready(),
            Action::TellFailed(why) => self.tell_failed(why),
            Action::Stop => self.stop(),
            Action::TellStopping(time) => {
                self.told(notify::stopping("stopping"));
                self.told(notify::extend_timeout(time));
            }
            Action::Thaw => {
                if let Err(error) = self.scope.thaw() {
                    self.trouble(["its processes cannot be thawed: ", &error.to_string()].concat());
                }
            }
            Action::Signal(signal) => {
                if let Err(error) = self.received.process.signal(signal) {
                    self.trouble(["it cannot be asked to stop: ", &error.to_string()].concat());
                }
            }
            Action::RecordStop => {
                let since = now().as_micros() as u64;
                let leaving = self.state.leaving && !self.state.requested;
                self.keep(|kept| (kept.stopping, kept.leaving) = (Some(since), leaving));
            }
            Action::RecordEnd => {
                let State {
                    failed,
                    idle,
                    killed,
                    exit,
                    oom,
                    leaving,
                    requested,
                    ..
                } = self.state;
                self.keep(|kept| {
                    (kept.failed, kept.killed, kept.exit, kept.oom) = (failed, killed, exit, oom);
                    (kept.idle, kept.leaving) = (idle, leaving && !requested);
                });
            }
            Action::KillAll => self.kill_all(),
            Action::Say(notice) => {
                let subject = self.subject();
                let status = message::status_of(notice, &subject);
                let message = Message::of(notice, &subject);
                // What the box says of itself stands already.
                if notice != Notice::Ready {
                    self.told(notify::status(&status));
                }
                if let Some(message) = message {
                    self.say(&message);
                }
            }
            Action::DropOutput => {
                let bytes = self
                    .received
                    .streams
                    .iter()
                    .flatten()
                    .map(|stream| stream.unsent())
                    .chain(self.received.terminal.iter().map(Terminal::unread))
                    .sum();
                self.report_dropped();
                let message = Message::dropped(&self.subject(), bytes);
                self.say(&message);
            }
            Action::Exit(status) => self.finished = Some(status),
        }
    }

    fn kill_all(&mut self) {
        self.kill_again = Some(now() + KILL_AGAIN);
        if let Err(error) = self.scope.kill() {
            self.trouble(["its cgroup cannot be killed: ", &error.to_string()].concat());
        }
        // For a cgroup that is gone or cannot be killed; the first process takes its namespace with it.
        if self.state.exit.is_none()
            && let Err(error) = self.received.process.signal(libc::SIGKILL)
        {
            self.trouble(["its first process cannot be killed: ", &error.to_string()].concat());
        }
    }

    /// An upgrade waits for a reload that somebody waits for: the next supervisor could not tell them of its end.
    fn pass_on_in_time(&mut self) -> Result<(), Error> {
        let now = now();
        if self.pass_on.is_none_or(|at| now < at) {
            return Ok(());
        }
        if self.is_reload_waited_for() {
            self.pass_on = Some(now + RELOAD_LOOK);
            return Ok(());
        }
        self.pass_on = None;
        self.pass_on()
    }

    /// Becomes the supervisor that is installed now. One that is about to end anyway ends.
    fn pass_on(&mut self) -> Result<(), Error> {
        if !matches!(
            self.state.phase,
            Phase::Starting { .. } | Phase::Running | Phase::Stopping { .. }
        ) {
            return Ok(());
        }
        // The new program asks anew.
        self.tend(health::Event::Frozen);
        match descriptors::pass_on(&self.received) {
            Ok(Err(error)) => Err(Error::PassOn(error)),
            Ok(Ok(never)) => match never {},
            Err(error) => {
                self.trouble(["its supervisor cannot be replaced: ", &error.to_string()].concat());
                if !self.paused {
                    self.tend(health::Event::Thawed);
                }
                Ok(())
            }
        }
    }

    fn look_for_exit(&mut self) -> bool {
        let Some(exit) = self.received.process.exit() else {
            return false;
        };
        self.memory_changed();
        self.event(Event::Exited(exit));
        self.cgroup_changed();
        true
    }

    fn memory_changed(&mut self) {
        let Some(kills) = self.scope.oom_kills() else {
            if let Some(file) = self.scope.memory_events() {
                let _ = self.epoll.delete(file);
            }
            return;
        };
        if let Some(limit) = self.scope.memory_limit() {
            self.memory_limit = Some(limit);
        }
        let processes = kills.saturating_sub(self.received.kept.oom_kills);
        if processes > 0 {
            self.event(Event::OomKill { processes });
            self.keep(|kept| kept.oom_kills = kills);
        }
    }

    fn cgroup_changed(&mut self) {
        let paused = self.scope.is_frozen();
        if paused != self.paused {
            self.paused = paused;
            self.tell_paused();
            self.pause_asking();
        }
        if !self.scope.is_populated() && !self.state.empty {
            if let Some(file) = self.scope.events() {
                let _ = self.epoll.delete(file);
            }
            self.event(Event::Empty);
        }
    }

    /// Something goes wrong that is tried again or done without; said once, not at every attempt.
    fn trouble(&mut self, what: String) {
        if self.trouble != what {
            let message = Message::trouble(&self.subject(), &what);
            self.trouble = what;
            self.say(&message);
        }
    }

    fn told(&mut self, result: Result<(), notify::Error>) {
        if let Err(error) = result {
            self.trouble(chain(&error));
            // systemd would wait for the word in vain.
            self.tell_again.get_or_insert(now() + RETRY);
        }
    }

    fn keep(&mut self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.received.kept);
        if let Err(error) = self.received.record.save(&self.received.kept) {
            self.trouble(chain(&error));
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            name: self.received.document.name.as_str(),
            pid: self.received.process.pid(),
            ready: self.rules.ready,
            stop_signal: match self.state.failed {
                Some(why) => why.signal(&self.rules),
                None => self.rules.signal,
            },
            stop_timeout: self.rules.timeout,
            idle_time: self.received.document.idle.as_ref().map(|rule| rule.after),
            memory_limit: self.memory_limit,
        }
    }

    fn watch(&self, fd: &impl AsFd, source: Source, what: &'static str) -> Result<(), Error> {
        let fd: BorrowedFd<'_> = fd.as_fd();
        self.epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, source as u64))
            .map_err(|source| Error::Watch { what, source })
    }
}

fn blocked() -> impl Iterator<Item = Signal> {
    [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
    ]
    .into_iter()
}

/// From now on these signals are events, and wait until they are looked at.
pub fn block_signals() -> Result<SigSet, Error> {
    let mask = SigSet::from_iter(blocked());
    mask.thread_block().map_err(Error::Signals)?;
    Ok(mask)
}
