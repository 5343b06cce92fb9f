//! What launcher and child say to each other over their socket, one message a step.
//!
//! The child is a clone of the launcher and has the plan in its memory, so the messages are few. Each is one
//! datagram of a `SOCK_SEQPACKET` pair, so a message is whole or absent; the end of the other side is an
//! error with words.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// From the launcher to the child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToChild {
    /// The ids are mapped; the descriptors that come with this are the host's mounts, one for each step of
    /// the plan that names a `Tree` or an `Overlay`, in their order.
    Mounts,
    /// The child stands in its cgroup and its limits are in force: become the payload.
    Go,
}

/// From the child to the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromChild {
    /// The root stands; only `Go` is waited for.
    Built,
    /// The last message before execve(2). Its success closes the socket.
    Executing,
    /// It went no further.
    Failed(Failure),
}

/// Where and why the child stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done, as a phrase after "cannot": `mount /proc`, `find user "www-data"`.
    pub attempt: String,
    /// The chain of causes, outermost first: `fsconfig(fd, "source", "tmpfs"): EPERM: Operation not permitted`.
    pub causes: Vec<String>,
    /// Path inside the box this is about, where there is one.
    pub path: Option<PathBuf>,
    /// Exit status the unit gets: systemd's numbers, `EXIT_*` of systemd.exec(5).
    pub status: u8,
}
