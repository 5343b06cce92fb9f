//! The socket through which a box speaks: what comes, and whether the box sent it.
//!
//! It lies in the box's directory on the host, which only root can enter, and is bound into the box. So a message
//! is the box's, or that of root of the host. Which of the two is told by the cgroup of the sender, the box's or
//! one below it; a process that came in by `boxctl exec` is among them.
//!
//! A sender may be gone when its message is read, and then has no cgroup. If it had one of the ids that belong to
//! this box alone it was the box's. With the host's ids nothing tells, and the message is not believed:
//! systemd-notify(1) and everything else that waits for a barrier is there until it is read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cgroup;
use crate::identity::IdRange;
use crate::sys::{self, Datagram, Sender};

use super::notification::{self, MESSAGE_MAX, Notification, REQUEST};

/// The receiving end.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    cgroup: PathBuf,
    ids: Option<IdRange>,
}

/// What came.
#[derive(Debug)]
pub enum Received {
    /// The box says this. The descriptors that came with it are to be closed when it has been dealt with.
    Box(Notification, Vec<OwnedFd>),
    /// `boxd reload` wants to be told through this when the box has reloaded.
    Request(OwnedFd),
    /// The box says more than a message holds.
    TooLong,
    /// Somebody else says something.
    Foreign(Option<Sender>),
}

impl NotifySocket {
    /// The socket of a box with this cgroup and these ids.
    pub fn new(socket: OwnedFd, cgroup: &Path, ids: Option<IdRange>) -> NotifySocket {
        NotifySocket {
            socket,
            cgroup: cgroup.to_owned(),
            ids,
        }
    }

    /// The next message; none if there is none now.
    pub fn receive(&self) -> io::Result<Option<Received>> {
        let mut buffer = [0; MESSAGE_MAX];
        let datagram = match sys::receive_datagram(self.socket.as_fd(), &mut buffer) {
            Ok(datagram) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        };
        let Datagram {
            length,
            truncated,
            sender,
            descriptors,
        } = datagram;
        if !sender.is_some_and(|sender| self.is_of_the_box(sender)) {
            let request = buffer[..length] == *REQUEST && sender.is_some_and(is_of_the_service);
            let pipe = descriptors.into_iter().next().filter(|_| request);
            return Ok(Some(match pipe {
                Some(pipe) => Received::Request(pipe),
                None => Received::Foreign(sender),
            }));
        }
        Ok(Some(if truncated {
            Received::TooLong
        } else {
            Received::Box(notification::parse(&buffer[..length]), descriptors)
        }))
    }

    fn is_of_the_box(&self, sender: Sender) -> bool {
        match cgroup_of(sender.pid) {
            Some(cgroup) => cgroup.starts_with(&self.cgroup),
            None => self
                .ids
                .is_some_and(|ids| (ids.base..=ids.last()).contains(&sender.uid)),
        }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether it is a process that systemd started in this process' own service.
fn is_of_the_service(sender: Sender) -> bool {
    let own = cgroup::of_self().ok();
    own.is_some() && cgroup_of(sender.pid) == own && sender.uid == 0
}

/// The cgroup of a process; none if it has ended.
fn cgroup_of(pid: i32) -> Option<PathBuf> {
    // Of a process that has ended and was not waited for, the kernel still has the file.
    let found = cgroup::of_process(pid).ok()?;
    // Its cgroup may have been removed since.
    match found.to_str()?.strip_suffix(" (deleted)") {
        Some(_) => None,
        None => Some(found),
    }
}
