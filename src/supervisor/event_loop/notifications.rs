//! What the loop does about what a box says, and about one that says nothing.
//!
//! A box can say a lot. No more than some messages are taken at a wakeup and in a second, the rest waits in the
//! socket, and its senders with it; a status that changes often is passed on now and then, the last one in any
//! case; the journal hears of strangers once a minute.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{AFTER_US, EventLoop, Source, blocked, now};
use crate::plan::ReadyWhen;
use crate::supervisor::chain;
use crate::supervisor::message::{self, Message};
use crate::supervisor::notification::{Notification, Watchdog};
use crate::supervisor::notify_socket::Received;
use crate::supervisor::policy::{Event, Failure, Phase};
use crate::systemd::notify;

/// Messages taken at a wakeup, before the box's output has its turn again.
const AT_ONCE: u32 = 32;

/// Messages taken in a [`WINDOW`].
const AT_MOST: u32 = 64;

/// After so long a box that has said too much is listened to again.
const WINDOW: Duration = Duration::from_secs(1);

/// Reloads that wait at the same time. systemd has one; one that has given up is mostly not noticed, and makes room.
const WAITING_MAX: usize = 8;

/// Between two changes of the status.
const STATUS_PAUSE: Duration = Duration::from_millis(250);

/// Between two entries about strangers.
const STRANGERS_PAUSE: Duration = Duration::from_secs(60);

/// What is known of the box by its own words.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    status: String,
    status_told: Duration,
    status_due: Option<Duration>,
    window: Duration,
    in_window: u32,
    listen_again: Option<Duration>,
    reloading: bool,
    waiting: Vec<Waiting>,
    /// How often the watchdog wants to be fed.
    interval: Option<Duration>,
    starves: Option<Duration>,
    strangers: Option<Duration>,
}

/// A `boxd reload` that waits for the box to say that it is done.
#[derive(Debug)]
struct Waiting {
    pipe: File,
    begun: bool,
}

impl Notifications {
    /// Of a box with this status of its own, whose watchdog wants to be fed so often, never, if that is zero; and which
    /// has said that it reloads, and not yet that it is done.
    pub(super) fn of(status: String, interval: Option<Duration>, reloading: bool) -> Notifications {
        Notifications {
            status,
            reloading,
            interval: interval.filter(|interval| !interval.is_zero()),
            ..Notifications::default()
        }
    }
}

impl EventLoop {
    /// When [`Self::listen_on_time`] has something to do.
    pub(super) fn next_of_notifications(&self) -> [Option<Duration>; 3] {
        let Notifications {
            status_due,
            listen_again,
            starves,
            ..
        } = self.notifications;
        let fed = matches!(self.state.phase, Phase::Running);
        [status_due, listen_again, starves.filter(|_| fed)]
    }

    /// Takes what the box has said.
    pub(super) fn listen(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(socket) = &self.received.notify else {
                return;
            };
            match socket.receive() {
                Ok(None) => return,
                Ok(Some(received)) => self.heard(received),
                Err(error) => {
                    self.trouble(["its messages cannot be read: ", &error.to_string()].concat());
                    return self.be_deaf(now() + WINDOW);
                }
            }
            let now = now();
            let notifications = &mut self.notifications;
            if now >= notifications.window + WINDOW {
                notifications.window = now;
                notifications.in_window = 0;
            }
            notifications.in_window += 1;
            if notifications.in_window == AT_MOST {
                let end = notifications.window + WINDOW;
                return self.be_deaf(end);
            }
        }
    }

    fn be_deaf(&mut self, until: Duration) {
        if let Some(socket) = &self.received.notify {
            let _ = self.epoll.delete(socket);
            self.notifications.listen_again = Some(until);
        }
    }

    fn heard(&mut self, received: Received) {
        match received {
            Received::Box(notification, descriptors) => {
                self.obey(notification);
                // A barrier, whose descriptor is closed when all before it has been passed on.
                if !descriptors.is_empty() && self.notifications.status_due.is_some() {
                    self.tell_status();
                }
            }
            Received::Request(pipe) => {
                let mut pipe = File::from(pipe);
                // A pipe that is closed says that nobody is waited for.
                if self.state.phase == Phase::Running && pipe.write_all(b"1").is_ok() {
                    let waiting = &mut self.notifications.waiting;
                    if waiting.len() == WAITING_MAX {
                        waiting.remove(0);
                    }
                    waiting.push(Waiting { pipe, begun: false });
                }
            }
            Received::TooLong => {
                self.trouble("a message of it was ignored: it is longer than 4096 bytes".into());
            }
            Received::Foreign(sender) => {
                let now = now();
                if self
                    .notifications
                    .strangers
                    .is_some_and(|again| now < again)
                {
                    return;
                }
                self.notifications.strangers = Some(now + STRANGERS_PAUSE);
                let who = match sender {
                    Some(sender) => format!("process {} of user {}", sender.pid, sender.uid),
                    None => "an unknown process".to_owned(),
                };
                self.trouble(
                    [
                        "a message in its name was ignored: it comes from ",
                        &who,
                        ", which is not in the box, or has ended",
                    ]
                    .concat(),
                );
            }
        }
    }

    fn obey(&mut self, said: Notification) {
        let now = now();
        if said.errno.is_some() || said.exit_status.is_some() {
            self.keep(|kept| {
                kept.errno = said.errno.or(kept.errno);
                kept.exit_status = said.exit_status.or(kept.exit_status);
            });
            if let Some(status) = said.exit_status {
                self.event(Event::Foretold { status });
            }
            self.told(notify::failing(said.errno, said.exit_status));
        }
        if let Some(status) = said.status
            && status != self.notifications.status
        {
            if let Err(error) = self.received.record.save_status(&status) {
                self.trouble(chain(&error));
            }
            self.notifications.status = status;
            let due = self.notifications.status_told + STATUS_PAUSE;
            // With READY=1 it goes along.
            self.notifications.status_due = Some(due.max(now));
        }
        if let Some(interval) = said.watchdog_interval
            && self.received.document.watchdog.is_some()
        {
            self.notifications.interval = Some(interval).filter(|interval| !interval.is_zero());
            self.feed();
            self.keep(|kept| kept.watchdog = Some(interval.as_micros() as u64));
        }
        if said.reloading && self.state.phase == Phase::Running {
            for waiting in &mut self.notifications.waiting {
                waiting.begun = true;
            }
            if !std::mem::replace(&mut self.notifications.reloading, true) {
                self.keep(|kept| kept.reloading = true);
                self.told(notify::reloading(now));
            }
        }
        if said.ready {
            self.event(Event::Ready {
                by: ReadyWhen::Notify,
            });
            if std::mem::take(&mut self.notifications.reloading) {
                self.keep(|kept| kept.reloading = false);
                self.tell_ready();
                let waiting = std::mem::take(&mut self.notifications.waiting);
                let (done, waiting): (Vec<_>, Vec<_>) =
                    waiting.into_iter().partition(|waiting| waiting.begun);
                self.notifications.waiting = waiting;
                for mut done in done {
                    // One that has given up is told nothing.
                    let _ = done.pipe.write_all(b"1");
                }
            }
        }
        if let Some(more) = said.extend {
            let until = now + more;
            self.event(Event::Extended { until });
            if let Phase::Starting { until } = self.state.phase {
                let ready_by = u64::try_from(until.as_micros()).unwrap_or(u64::MAX - 1);
                self.keep(|kept| kept.ready_by = Some(ready_by));
                self.told(notify::extend_timeout(until.saturating_sub(now) + AFTER_US));
            } else if self.notifications.reloading {
                self.told(notify::extend_timeout(more));
            }
        }
        match said.watchdog {
            Some(Watchdog::Alive) => self.feed(),
            Some(Watchdog::Trigger) => self.starved(),
            None => {}
        }
        if said.stopping {
            self.event(Event::Leaving);
        }
        if self.notifications.status_due.is_some_and(|due| due <= now) {
            self.tell_status();
        }
    }

    /// Whether a `boxd reload` waits for the box to be done, and has not given up.
    pub(super) fn is_reload_waited_for(&mut self) -> bool {
        let waiting = &mut self.notifications.waiting;
        waiting.retain(|waiting| has_reader(&waiting.pipe));
        !waiting.is_empty()
    }

    pub(super) fn tell_ready(&mut self) {
        self.status_told();
        let status = self.status();
        self.told(notify::ready(&status));
        self.feed();
        if !self.received.kept.ready {
            self.keep(|kept| kept.ready = true);
        }
    }

    pub(super) fn tell_failed(&mut self, why: Failure) {
        match why {
            // Its own time for the start is over too.
            Failure::NotReady => {}
            Failure::Unhealthy => {
                self.told(notify::stopping("stopping: it was unhealthy"));
                self.told(notify::extend_timeout(self.rules.time_to_end(true)));
            }
            Failure::Watchdog => {
                // systemd answers with the signal by which it ends a supervisor that hangs. It is blocked only
                // now, so that one which hangs has not blocked it.
                let mask = blocked().chain([Signal::SIGABRT]);
                let mask = SigSet::from_iter(mask);
                let blocked = mask
                    .thread_block()
                    .and_then(|()| self.signals.set_mask(&mask));
                if let Err(errno) = blocked {
                    return self.trouble(["SIGABRT cannot be blocked: ", errno.desc()].concat());
                }
                self.told(notify::watchdog_trigger());
                self.told(notify::extend_timeout(self.rules.time_to_end(true)));
            }
        }
    }

    /// Somebody has frozen the cgroup, or thawed it. A box that is being stopped is thawed for that.
    pub(super) fn tell_paused(&mut self) {
        if !matches!(self.state.phase, Phase::Starting { .. } | Phase::Running) {
            return;
        }
        let message = Message::paused(&self.subject(), self.paused);
        // Of a paused box nobody expects to be heard.
        self.feed();
        self.tell_status();
        self.say(&message);
    }

    /// The line in `systemctl status`: the box's own if it has one, and its health where that is bad.
    pub(super) fn status(&self) -> String {
        [&self.status_without_health(), &*self.bad_health()].concat()
    }

    fn status_without_health(&self) -> String {
        let own = &self.notifications.status;
        match self.state.phase {
            _ if self.paused => message::paused(&self.subject()),
            Phase::Starting { until } => {
                let left = until.saturating_sub(now());
                let waiting = message::waiting(self.rules.ready, left);
                match own.is_empty() {
                    true => waiting,
                    false => [&waiting, "; it says: ", own].concat(),
                }
            }
            _ if own.is_empty() => message::running(&self.subject()),
            _ => own.clone(),
        }
    }

    /// The status has been, or is being, told.
    pub(super) fn status_told(&mut self) {
        self.notifications.status_due = None;
        self.notifications.status_told = now();
    }

    pub(super) fn tell_status(&mut self) {
        self.status_told();
        let status = self.status();
        self.told(notify::status(&status));
    }

    /// The watchdog begins to wait anew.
    pub(super) fn feed(&mut self) {
        self.notifications.starves = self.notifications.interval.map(|interval| now() + interval);
    }

    fn starved(&mut self) {
        let heard = self
            .received
            .process
            .hears(Failure::Watchdog.signal(&self.rules));
        self.event(Event::Failed {
            why: Failure::Watchdog,
            heard,
        });
    }

    /// What is due by the clock.
    pub(super) fn listen_on_time(&mut self, now: Duration) {
        let [status, listen, starves] = self.next_of_notifications();
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if due(status) {
            self.tell_status();
        }
        if due(listen) {
            self.notifications.listen_again = None;
            if let Some(socket) = &self.received.notify {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Notifications as u64);
                let _ = self.epoll.add(socket, event);
            }
        }
        if due(starves) {
            // It may have been paused just now.
            match self.scope.is_frozen() {
                true => self.feed(),
                false => self.starved(),
            }
        }
    }
}

/// Whether somebody holds the other end of a pipe.
fn has_reader(pipe: &File) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    let at_once = Timespec::default();
    !matches!(poll(&mut fds, Some(&at_once)), Ok(1)) || !fds[0].revents().contains(PollFlags::ERR)
}
