//! What the loop does with the terminal of a box, and for those who have attached to it.

use std::io;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Error, EventLoop, Source};
use crate::supervisor::descriptors::Received;

impl EventLoop {
    /// Lets in whoever attaches, from now on.
    pub(super) fn watch_attached(&self) -> Result<(), Error> {
        let Some(attached) = &self.received.attached else {
            return Ok(());
        };
        let event = EpollEvent::new(
            EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
            Source::Attached as u64,
        );
        self.epoll
            .add(attached.listener(), event)
            .map_err(|source| Error::Watch {
                what: "those who attach to the terminal",
                source,
            })
    }

    /// Somebody came, or has something to say, or can be shown more; or the box takes input again.
    pub(super) fn accept(&mut self) {
        let Some(attached) = &mut self.received.attached else {
            return;
        };
        let epoll = &self.epoll;
        attached.accept(&|socket| {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            let event = EpollEvent::new(flags, Source::Attached as u64);
            epoll.add(socket, event).map_err(io::Error::from)
        });
    }

    /// Gives those who have attached their turn, as often as anything has happened.
    pub(super) fn tend_attached(&mut self) {
        let Received {
            attached: Some(attached),
            terminal: Some(terminal),
            streams: [Some(stream), _],
            ..
        } = &mut self.received
        else {
            return;
        };
        if attached.is_empty() {
            self.attached_wait = false;
            return;
        }
        let tended = attached.tend(terminal, stream);
        self.attached_wait = tended.more;
        if tended.input_waits {
            let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
            let mut event = EpollEvent::new(flags, Source::Attached as u64);
            if self.epoll.modify(terminal.entrance(), &mut event) == Err(Errno::ENOENT) {
                let _ = self.epoll.add(terminal.entrance(), event);
            }
        }
    }

    /// The box has ended with this status.
    pub(super) fn part_from_attached(&mut self, status: u8) {
        if let Received {
            attached: Some(attached),
            streams: [Some(stream), _],
            ..
        } = &mut self.received
        {
            attached.part(stream, status);
        }
    }
}
