//! The socket between launcher and child: typed datagrams that can carry descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{FromChild, ToChild};
use crate::sys::{self, Called as _};

/// Longest message in bytes: a failure names a path and a few calls, each shorter than this by far.
const MESSAGE_MAX: usize = 64 * 1024;

/// Most descriptors one datagram carries: `SCM_MAX_FD` of unix(7).
const DESCRIPTORS_MAX: usize = 253;

/// What one side could not say or did not hear.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side closed its end, by ending or, in the child's case, by execve(2).
    #[error("{0} ended without a further word")]
    Ended(&'static str),
    /// The socket itself failed.
    #[error("cannot talk to {peer}")]
    Socket {
        /// The other side.
        peer: &'static str,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A message came that is none: the other side is not what we think it is.
    #[error("{peer} said what is not a message of this version of boxd")]
    Message {
        /// The other side.
        peer: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A message was longer than any is.
    #[error("{0} said more than {MESSAGE_MAX} bytes or {DESCRIPTORS_MAX} descriptors at once")]
    TooLong(&'static str),
}

/// The launcher's end.
#[derive(Debug)]
pub struct ParentEnd(Socket);

/// The child's end.
#[derive(Debug)]
pub struct ChildEnd(Socket);

/// Both ends, close-on-exec. After the clone each side keeps its own.
pub fn pair() -> Result<(ParentEnd, ChildEnd), sys::Error> {
    let (parent, child) = sockets("the box's first process", "the launcher")?;
    Ok((ParentEnd(parent), ChildEnd(child)))
}

/// Two connected ends, close-on-exec: the first talks to `child`, the second to `parent`.
pub(crate) fn sockets(
    child: &'static str,
    parent: &'static str,
) -> Result<(Socket, Socket), sys::Error> {
    let (first, second) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .called(|| "socketpair(AF_UNIX, SOCK_SEQPACKET)".to_owned())?;
    let first = Socket {
        fd: first,
        peer: child,
    };
    let second = Socket {
        fd: second,
        peer: parent,
    };
    Ok((first, second))
}

impl ParentEnd {
    /// Sends a message with descriptors. More descriptors than a datagram carries go in several messages of
    /// the same kind, which the child puts together.
    pub fn send(&self, message: &ToChild, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let mut groups = descriptors.chunks(DESCRIPTORS_MAX);
        self.0.send(message, groups.next().unwrap_or(&[]))?;
        groups.try_for_each(|group| self.0.send(message, group))
    }

    /// Waits for the child's next message. [`Error::Ended`] after [`FromChild::Executing`] means that the
    /// payload runs.
    pub fn receive(&self) -> Result<FromChild, Error> {
        self.receive_all().map(|(message, _)| message)
    }

    /// The same, with what comes along.
    pub fn receive_all(&self) -> Result<(FromChild, Vec<OwnedFd>), Error> {
        self.0.receive()
    }
}

impl AsFd for ParentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl ChildEnd {
    /// Tells the launcher.
    pub fn send(&self, message: &FromChild) -> Result<(), Error> {
        self.send_with(message, &[])
    }

    /// Tells the launcher, and gives it descriptors.
    pub fn send_with(
        &self,
        message: &FromChild,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        self.0.send(message, descriptors)
    }

    /// Waits for the launcher's next message.
    pub fn receive(&self) -> Result<(ToChild, Vec<OwnedFd>), Error> {
        self.0.receive()
    }

    /// The same end at a number that is at least `least`.
    pub fn moved(self, least: i32) -> Result<ChildEnd, (ChildEnd, sys::Error)> {
        match rustix::io::fcntl_dupfd_cloexec(&self.0.fd, least) {
            Ok(fd) => Ok(ChildEnd(Socket {
                fd,
                peer: self.0.peer,
            })),
            Err(errno) => {
                let call = format!("fcntl(channel, F_DUPFD_CLOEXEC, {least})");
                Err((self, sys::Error::new(call, errno)))
            }
        }
    }

    /// Whether the launcher has closed its end.
    pub fn is_abandoned(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut descriptors = [PollFd::new(&self.0.fd, PollFlags::empty())];
        let at_once = Timespec::default();
        poll(&mut descriptors, Some(&at_once)).is_ok()
            && descriptors[0].revents().contains(PollFlags::HUP)
    }
}

impl AsFd for ChildEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// One end, of whatever messages.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    peer: &'static str,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Sends a message with at most [`DESCRIPTORS_MAX`] descriptors.
    pub(crate) fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let text = serde_json::to_vec(message).map_err(|source| Error::Message {
            peer: "this side",
            source,
        })?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        // Without a SIGPIPE an end that is gone is an error like any other.
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.fd,
                &[IoSlice::new(&text)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
        });
        match sent {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                Err(Error::Ended(self.peer))
            }
            Err(errno) => Err(self.failed(
                format!(
                    "sendmsg(fd {}, {} bytes, {} descriptors)",
                    self.fd.as_raw_fd(),
                    text.len(),
                    descriptors.len()
                ),
                errno,
            )),
        }
    }

    /// Waits for the next message.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), Error> {
        let mut text = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            rustix::io::retry_on_intr(|| {
                rustix::net::recvmsg(
                    &self.fd,
                    &mut [IoSliceMut::new(&mut text)],
                    &mut ancillary,
                    RecvFlags::CMSG_CLOEXEC,
                )
            })
        };
        // An end that closes with messages unread resets the connection, once: the error comes before what
        // that end has said, which is still there.
        let received = match receive() {
            Err(rustix::io::Errno::CONNRESET) => receive(),
            received => received,
        };
        let received = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Err(Error::Ended(self.peer)),
            Err(errno) => {
                return Err(self.failed(format!("recvmsg(fd {})", self.fd.as_raw_fd()), errno));
            }
        };
        if received.bytes == 0 {
            return Err(Error::Ended(self.peer));
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(Error::TooLong(self.peer));
        }
        let descriptors = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let message =
            serde_json::from_slice(&text[..received.bytes]).map_err(|source| Error::Message {
                peer: self.peer,
                source,
            })?;
        Ok((message, descriptors))
    }

    fn failed(&self, call: String, errno: rustix::io::Errno) -> Error {
        Error::Socket {
            peer: self.peer,
            source: sys::Error::new(call, errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::protocol::{Failure, Lifetime};

    #[test]
    fn messages_arrive_whole_and_with_their_descriptors() {
        let (parent, child) = pair().expect("a socket pair");
        let descriptors = vec![parent.as_fd(); DESCRIPTORS_MAX + 1];
        parent.send(&ToChild::Mounts, &descriptors).expect("sent");
        let (message, first) = child.receive().expect("received");
        assert_eq!((message, first.len()), (ToChild::Mounts, DESCRIPTORS_MAX));
        let (message, second) = child.receive().expect("received");
        assert_eq!((message, second.len()), (ToChild::Mounts, 1));

        let failure = FromChild::Failed(Failure {
            attempt: "mount /proc".to_owned(),
            causes: vec!["because".to_owned()],
            path: None,
            status: 226,
        });
        child.send(&failure).expect("sent");
        assert_eq!(parent.receive().expect("received"), failure);
    }

    #[test]
    fn the_end_of_the_other_side_is_an_error_with_words() {
        let (parent, child) = pair().expect("a socket pair");
        assert!(!child.is_abandoned());
        drop(child);
        let ended = parent.receive().expect_err("the child is gone");
        assert_eq!(
            ended.to_string(),
            "the box's first process ended without a further word"
        );
        assert!(matches!(
            parent.send(&ToChild::Go(Lifetime::Own), &[]),
            Err(Error::Ended(_))
        ));

        let (parent, child) = pair().expect("a socket pair");
        parent.send(&ToChild::Mounts, &[]).expect("sent");
        child.send(&FromChild::Built).expect("sent");
        drop(child);
        assert_eq!(
            parent.receive().expect("said before the end"),
            FromChild::Built
        );
        assert!(matches!(parent.receive(), Err(Error::Ended(_))));

        let (parent, child) = pair().expect("a socket pair");
        drop(parent);
        assert!(child.is_abandoned());
        assert!(matches!(child.receive(), Err(Error::Ended("the launcher"))));
    }
}
