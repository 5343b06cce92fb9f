//! One loop that stands between systemd and a running box.
//!
//! `box-supervisor` starts from the descriptors of the [hand-over](crate::handover) alone, takes over the box
//! they belong to, and stays until the box is gone: it relays output to the journal, tells systemd when the
//! box is ready and what it does, passes on a stop, and reports the end as an exit status.
//!
//! **It can be killed at any instant.** The box does not notice: nothing here is bound to its life, no
//! destructor ends it, and all that is needed to go on lies in systemd's file descriptor store. systemd starts
//! the next supervisor, which goes on where this one stood; see [`crate::journal::relay`] for what that means
//! for output. Where this program cannot go on itself, it aborts, which systemd answers likewise; an exit
//! status is always the box's.
//!
//! **It is small.** One thread, one epoll loop, no D-Bus, no asynchronous runtime, no buffer while idle, and no
//! wakeup without a cause.
//!
//! **It can do little.** Before it reads the first byte of its box it gives up what it does not need; see `walls`. Where
//! the box is asked how it is, that is done by a process of its own, which reads nothing of the box; see
//! `health::asker`.
//!
//! | signal | |
//! |---|---|
//! | SIGTERM, SIGINT | stop the box, then exit |
//! | SIGUSR1 | become the `box-supervisor` that is installed now, under the running box: after an upgrade |
//! | SIGHUP | ignored |
//!
//! Exit status: that of the box's first process; 128+n if signal n ended it; 0 if it was asked to stop and
//! ended by the stop signal or with 128 + its number; 137 if it had to be killed, for time or for memory; 255
//! if nobody knows. A box that is stopped because nobody uses its sockets is reported by the supervisor's own end by
//! SIGTERM. 1 without any effect on a box if there is none to supervise.
//!
//! A stop signal the first process neither handles, blocks nor ignores would have no effect at all, since the
//! kernel spares pid 1 of a namespace the default actions of signals. Everywhere else that program would end,
//! so here it is killed at once instead of when its time is over.

use std::io::Write;

mod attached;
mod descriptors;
mod event_loop;
mod health;
mod idle;
pub mod kept;
mod message;
pub mod notification;
mod notify_socket;
pub mod policy;
pub mod process;
mod scope;
mod terminal;
mod walls;

use event_loop::EventLoop;
use policy::Farewell;

/// There was no box to supervise.
const NO_BOX: u8 = 1;

/// Where this program has its libraries. Only the program itself knows: this crate is built once for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libraries {
    /// In itself.
    Within,
    /// Below `/usr`, from where they are loaded when it begins.
    Shared,
}

/// The whole of `box-supervisor`; its exit status.
pub fn main(libraries: Libraries) -> u8 {
    // First of all: a stop that comes now must be a stop of the box, not of this process.
    if let Err(error) = event_loop::block_signals() {
        complain(&error);
        std::process::abort();
    }
    crate::sys::ignore_sigpipe();
    crate::sys::give_memory_back_early();
    let Some(event_loop) = take_over() else {
        return NO_BOX;
    };
    match event_loop.run(libraries) {
        Ok(Farewell::Status(status)) => status,
        // The exit status is for a kernel that does not let a process end so.
        Ok(Farewell::Idle) => {
            crate::sys::end_by_sigterm();
            0
        }
        Err(error) => {
            complain(&error);
            std::process::abort();
        }
    }
}

/// The box that was passed, if there is one.
// In a frame of its own: what it needs on the stack would stay with `main` as long as the box lives.
#[inline(never)]
fn take_over() -> Option<Box<EventLoop>> {
    let received = match descriptors::receive() {
        Ok(received) => received,
        Err(error) => {
            complain(&error);
            if error.is_passing() {
                // The box runs on, and the next supervisor may have better luck.
                std::process::abort();
            }
            return None;
        }
    };
    match EventLoop::new(received) {
        Ok(event_loop) => Some(Box::new(event_loop)),
        Err(error) => {
            complain(&error);
            std::process::abort();
        }
    }
}

/// Standard error of the service is the journal.
fn complain(error: &dyn std::error::Error) {
    let text = ["box-supervisor: ", &chain(error), "\n"].concat();
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// An error and its causes, the outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
