//! What the loop does with the box's output, and with its own entries: both go to the journal as fast as it takes them.

use std::io;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{EventLoop, Flow, LAST_WORD, OUTBOX, RETRY, STREAMS, Source, now};
use crate::journal::native::Delivery;
use crate::journal::relay::{Buffers, Pumped};
use crate::supervisor::chain;
use crate::supervisor::descriptors::Received;
use crate::supervisor::kept::Kept;
use crate::supervisor::message::Message;
use crate::supervisor::policy::{Event, Phase};
use crate::supervisor::terminal::Terminal;

impl EventLoop {
    /// Moves output to the journal, as far as both sides go along.
    pub(super) fn relay(&mut self) {
        let draining = matches!(self.state.phase, Phase::Draining { .. });
        self.gate.tell_time(now());
        let sent = |kept: &Kept| (kept.stdout, kept.stderr);
        let before = sent(&self.received.kept);
        self.send_outbox();
        for index in 0..STREAMS.len() {
            while self.flows[index] == Flow::Turn {
                self.flows[index] = self.pump(index, draining);
                if !draining {
                    break;
                }
            }
        }
        if !self.flows.contains(&Flow::Turn) {
            // An idle supervisor holds no buffers.
            self.buffers = Buffers::default();
        }
        if sent(&self.received.kept) != before {
            self.event(Event::OutputTaken);
        }
        if draining && self.flows == [Flow::Nothing; 2] {
            self.report_dropped();
        }
        if draining && self.flows == [Flow::Nothing; 2] && self.outbox.is_empty() {
            self.event(Event::OutputSent);
        }
    }

    fn pump(&mut self, index: usize, draining: bool) -> Flow {
        let Received {
            streams,
            terminal,
            record,
            kept,
            ..
        } = &mut self.received;
        let Some(stream) = &mut streams[index] else {
            return Flow::Nothing;
        };
        let terminal = terminal.as_ref();
        let mut moved = terminal.map_or(Ok(false), Terminal::move_output);
        let mut keep = |sent| {
            match STREAMS[index] {
                Source::Stderr => kept.stderr = sent,
                _ => kept.stdout = sent,
            }
            record.save(kept).map_err(io::Error::other)
        };
        let pumped = stream.pump(
            &mut self.socket,
            &mut self.buffers,
            &mut self.gate,
            &mut keep,
        );
        if let (Ok(Pumped::Empty), Ok(_)) = (&pumped, &moved) {
            // The pipe may have been full before.
            moved = terminal.map_or(Ok(false), Terminal::move_output);
        }
        let flow = match pumped {
            Ok(Pumped::More) => Flow::Turn,
            Ok(Pumped::Empty) if matches!(moved, Ok(true)) => Flow::Turn,
            Ok(Pumped::Empty) if moved.is_err() && !draining => Flow::Journal,
            Ok(Pumped::Empty) if draining => {
                // The box is gone. Who else may hold the other end of the pipe does not count.
                stream.close();
                Flow::Turn
            }
            Ok(Pumped::Empty) => Flow::Payload,
            Ok(Pumped::Waiting(_)) | Err(_) => Flow::Journal,
            Ok(Pumped::Ended) => Flow::Nothing,
        };
        // A pipe with bytes in it, or without writers, is readable all the time: it is watched only while its
        // payload is waited for.
        let pipe = terminal.map_or(stream.pipe(), Terminal::exit);
        match flow {
            Flow::Journal | Flow::Nothing => {
                let _ = self.epoll.delete(pipe);
            }
            Flow::Payload => {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, STREAMS[index] as u64);
                let _ = self.epoll.add(pipe, event);
            }
            Flow::Turn => {}
        }
        if let Err(error) = moved {
            self.retry = Some(now() + RETRY);
            self.trouble(["its terminal cannot be read: ", &error.to_string()].concat());
        }
        match pumped {
            Ok(Pumped::Waiting(delivery)) => self.wait_for_journal(delivery),
            Err(error) => {
                self.retry = Some(now() + RETRY);
                self.trouble(chain(&error));
            }
            Ok(_) => {}
        }
        flow
    }

    /// Lines and bytes of output that were dropped and not reported yet.
    pub(super) fn unreported(&self) -> (u64, u64) {
        let Kept {
            stdout,
            stderr,
            reported,
            ..
        } = &self.received.kept;
        let lines = stdout.dropped_lines.saturating_add(stderr.dropped_lines);
        let bytes = stdout.dropped_bytes.saturating_add(stderr.dropped_bytes);
        (
            lines.saturating_sub(reported.0),
            bytes.saturating_sub(reported.1),
        )
    }

    /// Says how much output was too much. An heir that was not told says it again rather than never.
    pub(super) fn report_dropped(&mut self) {
        let (lines, bytes) = self.unreported();
        let Some(rate) = self.received.document.output.rate else {
            return;
        };
        if (lines, bytes) == (0, 0) {
            return;
        }
        let message = Message::too_much(&self.subject(), lines, bytes, &rate);
        self.say(&message);
        self.keep(|kept| {
            kept.reported.0 += lines;
            kept.reported.1 += bytes;
        });
    }

    fn wait_for_journal(&mut self, delivery: Delivery) {
        self.retry = Some(now() + RETRY);
        if delivery == Delivery::Full
            && let Some(connection) = self.socket.connection()
        {
            let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
            let mut event = EpollEvent::new(flags, Source::Journal as u64);
            if self.epoll.modify(connection, &mut event) == Err(Errno::ENOENT) {
                let _ = self.epoll.add(connection, event);
            }
        }
    }

    pub(super) fn try_journal_again(&mut self) {
        self.retry = None;
        for flow in &mut self.flows {
            if *flow == Flow::Journal {
                *flow = Flow::Turn;
            }
        }
        self.send_outbox();
    }

    pub(super) fn say(&mut self, message: &Message) {
        if self.outbox.len() == OUTBOX {
            self.outbox.pop_front();
        }
        let entry = message.entry(self.received.document.name.as_str());
        self.outbox.push_back(entry);
        self.send_outbox();
    }

    fn send_outbox(&mut self) {
        if self.retry.is_some() {
            return;
        }
        while let Some(entry) = self.outbox.front() {
            match self.socket.send(entry) {
                Delivery::Sent => {
                    self.outbox.pop_front();
                }
                waiting => return self.wait_for_journal(waiting),
            }
        }
    }

    /// A journal that is merely busy still gets the last entry.
    pub(super) fn last_word(&mut self) {
        let end = now() + LAST_WORD;
        while !self.outbox.is_empty() {
            self.retry = None;
            self.send_outbox();
            let left = end.saturating_sub(now());
            let Some(connection) = self.socket.connection().filter(|_| !left.is_zero()) else {
                return;
            };
            let timeout = Timespec::try_from(left).ok();
            let _ = poll(
                &mut [PollFd::new(&connection, PollFlags::OUT)],
                timeout.as_ref(),
            );
        }
    }
}
