//! What launcher and child say to each other over their socket, one message a step.
//!
//! The child is a clone of the launcher and has the plan in its memory, so the messages are few. Each is one
//! datagram of a `SOCK_SEQPACKET` pair, so a message is whole or absent; the end of the other side is an
//! error with words.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// From the launcher to the child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToChild {
    /// The ids are mapped; the descriptors that come with this are the host's mounts, one for each step of
    /// the plan that names a `Tree` or an `Overlay`, in their order.
    Mounts,
    /// The child stands in its cgroup and its limits are in force: become the payload.
    Go(Lifetime),
}

/// How long a box lives at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// As long as it likes: whoever launched it may go.
    Own,
    /// It is killed when the process that launched it dies. Executing a program with set-user-ID or file
    /// capabilities ends that, see `PR_SET_PDEATHSIG` of prctl(2).
    Launchers,
}

/// From the child to the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromChild {
    /// The root stands; only `Go` is waited for. The master of the box's terminal comes with this if it has one.
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

/// Most bytes of one text in a failure, as JSON has it, so that every failure fits into a message.
const TEXT_MAX: usize = 4096;

/// Most causes in a failure.
const CAUSES_MAX: usize = 8;

/// An exit status for a step of the launch that failed; "Process Exit Codes" in systemd.exec(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// `EX_CONFIG`.
    pub const CONFIGURATION: Self = Status(78);
    /// `EXIT_CHDIR`.
    pub const DIRECTORY: Self = Status(200);
    /// `EXIT_EXEC`.
    pub const EXEC: Self = Status(203);
    /// `EXIT_LIMITS`.
    pub const LIMITS: Self = Status(205);
    /// `EXIT_SIGNAL_MASK`.
    pub const SIGNALS: Self = Status(207);
    /// `EXIT_STDOUT`.
    pub const STREAMS: Self = Status(209);
    /// `EXIT_GROUP`.
    pub const GROUP: Self = Status(216);
    /// `EXIT_USER`.
    pub const USER: Self = Status(217);
    /// `EXIT_CAPABILITIES`.
    pub const CAPABILITIES: Self = Status(218);
    /// `EXIT_SETSID`.
    pub const SESSION: Self = Status(220);
    /// `EXIT_NETWORK`.
    pub const NETWORK: Self = Status(225);
    /// `EXIT_NAMESPACE`.
    pub const NAMESPACE: Self = Status(226);
    /// `EXIT_NO_NEW_PRIVILEGES`.
    pub const NO_NEW_PRIVILEGES: Self = Status(227);
    /// `EXIT_SECCOMP`.
    pub const SECCOMP: Self = Status(228);
    /// `EXIT_SELINUX_CONTEXT`, for the label of any security module.
    pub const LABEL: Self = Status(229);
    /// `EXIT_KEYRING`.
    pub const KEYRING: Self = Status(237);
}

impl Failure {
    /// From an error whose sentence begins with "cannot".
    pub fn of(error: &dyn Error, status: Status) -> Self {
        let sentence = error.to_string();
        let attempt = sentence.strip_prefix("cannot ").unwrap_or(&sentence);
        Failure {
            attempt: shortened(attempt),
            causes: causes(error.source()),
            path: None,
            status: status.0,
        }
    }

    /// From an error that is the cause of failing at something.
    pub fn at(attempt: &str, cause: &(dyn Error + 'static), status: Status) -> Self {
        Failure {
            attempt: attempt.to_owned(),
            causes: causes(Some(cause)),
            path: None,
            status: status.0,
        }
    }
}

impl fmt::Display for Failure {
    /// One sentence: "cannot mount proc at "/proc": fsmount(…): EPERM: Operation not permitted".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.attempt)?;
        self.causes
            .iter()
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Error for Failure {}

fn causes<'a>(first: Option<&'a (dyn Error + 'static)>) -> Vec<String> {
    std::iter::successors(first, |error| (*error).source())
        .take(CAUSES_MAX)
        .map(|error| shortened(&error.to_string()))
        .collect()
}

fn shortened(text: &str) -> String {
    let written = |character: char| match character {
        '"' | '\\' => 2,
        // \u001b
        '\0'..' ' => 6,
        _ => character.len_utf8(),
    };
    let mut length = 0;
    let cut = text.char_indices().find(|(_, character)| {
        length += written(*character);
        length > TEXT_MAX
    });
    match cut {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_not_longer_for_what_its_texts_hold() {
        for text in ["x", "\u{1}", "\"", "\\", "\u{1f4e6}"] {
            let error = std::io::Error::other(text.repeat(10_000));
            let failure = Failure::at("mount /proc", &error, Status::NAMESPACE);
            let json = serde_json::to_vec(&failure).expect("JSON");
            assert!(
                (TEXT_MAX..TEXT_MAX + 200).contains(&json.len()),
                "{}",
                json.len()
            );
            assert!(failure.causes[0].ends_with('…'));
        }
        let error = std::io::Error::other("no such file");
        let failure = Failure::at("mount /proc", &error, Status::NAMESPACE);
        assert_eq!(failure.causes, ["no such file"]);
    }
}
