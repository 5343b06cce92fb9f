//! What a launcher hands to the supervisor, and a supervisor to the one after it: named file descriptors and a
//! sealed document.
//!
//! `boxd run` puts the set into systemd's file descriptor store before the payload begins, and the supervisor
//! starts from that set alone: after the launch, after its own death, after an upgrade. Normal start and
//! recovery are one path. The names are those of `FDNAME=` (sd_notify(3)) and `LISTEN_FDNAMES`
//! (sd_listen_fds(3)).
//!
//! The launcher hands over the document, the pidfd, the read ends of the two pipes and, where the box is to speak
//! for itself, the socket it speaks through. The rest the supervisor
//! makes at its first start, and puts into the store itself before it reads the first byte. Every entry is
//! stored with `FDPOLL=0`: systemd would otherwise throw away a pipe whose writers are gone, with all that is
//! still in it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::identity::IdRange;
use crate::name::Name;
use crate::plan::{HealthRules, Output, ReadyWhen};

/// Version of [`Document`], and of what the supervisor keeps, that this program writes and understands. A change that an older or newer
/// program would misread gets another number; a document of another number is refused with a sentence. A new
/// field that may be absent needs no new number.
pub const VERSION: u32 = 1;

/// Name of the descriptor of the sealed memfd that holds the [`Document`] as JSON.
pub const FD_DOCUMENT: &str = "box-document";
/// Name of the pidfd of the box's first process.
pub const FD_PROCESS: &str = "box-process";
/// Name of the read end of the payload's standard output.
pub const FD_STDOUT: &str = "box-stdout";
/// Name of the read end of the payload's standard error.
pub const FD_STDERR: &str = "box-stderr";
/// Name of the socket through which the box says how it does; only if its definition asks for that.
pub const FD_NOTIFY: &str = "box-notify";
/// Name of the memfd in which the supervisor keeps what changes while the box lives.
pub const FD_KEPT: &str = "box-kept";
/// Name of the memfd that takes what is read of standard output: see [`journal::relay`](crate::journal::relay).
pub const FD_STDOUT_INLET: &str = "box-stdout-inlet";
/// Name of the memfd from which the entries of standard output are sent.
pub const FD_STDOUT_OUTLET: &str = "box-stdout-outlet";
/// Name of the memfd that takes what is read of standard error.
pub const FD_STDERR_INLET: &str = "box-stderr-inlet";
/// Name of the memfd from which the entries of standard error are sent.
pub const FD_STDERR_OUTLET: &str = "box-stderr-outlet";

/// Name of the master of the box's terminal; only if it has one. Then there is no standard error, and what is read
/// as standard output is a pipe that the supervisor fills from here: splice(2) moves bytes from the terminal to it, so
/// that none is lost with a supervisor that is killed.
pub const FD_TERMINAL: &str = "box-terminal";
/// Name of the write end of that pipe.
pub const FD_TERMINAL_PIPE: &str = "box-terminal-pipe";
/// Name of the other side of the terminal, which is held open: a program that closes it, as a getty does, would look
/// like the end of the output. The supervisor takes it from the master at its first start.
pub const FD_TERMINAL_PEER: &str = "box-terminal-peer";
/// Name of the socket at which operators ask for the terminal.
pub const FD_ATTACH: &str = "box-attach";

/// Every name a box has in the store: `FileDescriptorStoreMax=` must not be less, and a supervisor that ends
/// for good removes them all, in this order. As long as the document is there, so is the record of how the box
/// ended, and an heir can tell it.
pub const NAMES: [&str; 14] = [
    FD_ATTACH,
    FD_TERMINAL,
    FD_TERMINAL_PIPE,
    FD_TERMINAL_PEER,
    FD_STDOUT,
    FD_STDOUT_INLET,
    FD_STDOUT_OUTLET,
    FD_STDERR,
    FD_STDERR_INLET,
    FD_STDERR_OUTLET,
    FD_NOTIFY,
    FD_PROCESS,
    FD_DOCUMENT,
    FD_KEPT,
];

/// Most bytes of a document that are read.
const DOCUMENT_MAX: u64 = 1 << 20;

/// What a supervisor must know of its box; never changes while the box lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// The version of boxd that launched the box.
    pub boxd: String,
    /// The box.
    pub name: Name,
    /// For people.
    pub description: String,
    /// Pid of the box's first process on the host; the pidfd is what is acted on.
    pub pid: i32,
    /// When the payload was started: microseconds since the epoch.
    pub started: u64,
    /// Absolute path of the scope's cgroup on the host, mount point included:
    /// `/sys/fs/cgroup/box.slice/box-web.scope`.
    pub cgroup: PathBuf,
    /// The scope's unit name.
    pub scope: String,
    /// Ids of the box on the host.
    pub ids: Option<IdRange>,
    /// The root as the definition wrote it, for `boxctl status`.
    pub root: String,
    /// What makes the box ready.
    #[serde(default)]
    pub ready: ReadyWhen,
    /// When it must be ready at the latest: `CLOCK_MONOTONIC` in microseconds.
    #[serde(default)]
    pub ready_by: u64,
    /// What becomes of the lines it writes.
    #[serde(default)]
    pub output: Output,
    /// The box has failed when it is not heard of for so long.
    #[serde(default)]
    pub watchdog: Option<Duration>,
    /// When it is asked how it is, and what follows.
    #[serde(default)]
    pub health: Option<HealthRules>,
    /// Signal that asks the box to stop.
    pub stop_signal: i32,
    /// Time from the signal to the kill of all.
    pub stop_timeout: Duration,
    /// When the box is stopped because nobody uses its sockets.
    #[serde(default)]
    pub idle: Option<Idle>,
}

/// A box that is stopped when nobody uses its sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// For so long.
    pub after: Duration,
    /// Where they listen.
    pub listeners: Vec<Listener>,
}

/// Where a socket listens for connections, in the host's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listener {
    /// TCP.
    Inet {
        /// Its address; an unspecified one stands for all.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
    /// unix(7).
    Unix {
        /// Its path, as it was bound.
        path: PathBuf,
    },
}

/// Why a hand-over failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a memfd, or a call on one.
    #[error("cannot {attempt} the memfd {name}")]
    Memfd {
        /// What was tried.
        attempt: &'static str,
        /// Its name.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The document has no JSON form.
    #[error("cannot write the hand-over document as JSON")]
    Write(#[source] serde_json::Error),
    /// The document is not what a launcher writes.
    #[error("cannot understand the hand-over document")]
    Understand(#[source] serde_json::Error),
    /// Another program's document, or a file that may still change.
    #[error(
        "the descriptor {name} is not a sealed memfd: only a document that cannot change is trusted"
    )]
    NotSealed {
        /// Its name.
        name: &'static str,
    },
    /// It says what no launcher writes.
    #[error(
        "the hand-over document is damaged: its {field} cannot be what stands there; stop the box and start it anew"
    )]
    Damaged {
        /// Of the document.
        field: &'static str,
    },
    /// It is not the one that was looked for.
    #[error("the hand-over document is that of box {found}, not of box {wanted}")]
    Foreign {
        /// Whose it is.
        found: Name,
        /// Whose was looked for.
        wanted: Name,
    },
    /// Written by a boxd that counts otherwise.
    #[error(
        "the box was launched by boxd {boxd}, whose hand-over has version {found}; this is boxd {} and \
         understands version {VERSION}: install that boxd again, or stop the box and start it anew",
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// The document's version.
        found: u32,
        /// The boxd that wrote it.
        boxd: String,
    },
}

/// The clock of all times in the hand-over but [`Document::started`]: `CLOCK_MONOTONIC`, which stands still while the
/// machine sleeps.
pub fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// The document as a sealed memfd, to be stored under [`FD_DOCUMENT`].
pub fn seal(document: &Document) -> Result<OwnedFd, Error> {
    let json = serde_json::to_vec(document).map_err(Error::Write)?;
    let failed = |attempt| {
        move |source| Error::Memfd {
            attempt,
            name: FD_DOCUMENT,
            source,
        }
    };
    let memfd = memfd_create(
        c"box-document",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )
    .map_err(io::Error::from)
    .map_err(failed("make"))?;
    let mut file = File::from(memfd);
    file.write_all(&json).map_err(failed("write"))?;
    fcntl(
        &file,
        FcntlArg::F_ADD_SEALS(seals() | SealFlag::F_SEAL_SEAL),
    )
    .map_err(io::Error::from)
    .map_err(failed("seal"))?;
    Ok(file.into())
}

/// The document in a memfd made by [`seal`], wherever its offset stands.
pub fn read(fd: BorrowedFd<'_>) -> Result<Document, Error> {
    let failed = |attempt| {
        move |source| Error::Memfd {
            attempt,
            name: FD_DOCUMENT,
            source,
        }
    };
    match fcntl(fd, FcntlArg::F_GET_SEALS) {
        Ok(found) if SealFlag::from_bits_truncate(found).contains(seals()) => {}
        // What the kernel says of a file that cannot be sealed at all.
        Ok(_) | Err(Errno::EINVAL) => return Err(Error::NotSealed { name: FD_DOCUMENT }),
        Err(errno) => return Err(failed("look at the seals of")(errno.into())),
    }
    let mut file = File::from(fd.try_clone_to_owned().map_err(failed("duplicate"))?);
    file.seek(SeekFrom::Start(0)).map_err(failed("rewind"))?;
    let mut json = Vec::new();
    file.take(DOCUMENT_MAX)
        .read_to_end(&mut json)
        .map_err(failed("read"))?;
    understand(&json)
}

/// The document in this JSON; the version is looked at before anything else is believed.
pub fn understand(json: &[u8]) -> Result<Document, Error> {
    #[derive(Deserialize)]
    struct Header {
        version: u32,
        #[serde(default)]
        boxd: String,
    }
    let header: Header = serde_json::from_slice(json).map_err(Error::Understand)?;
    if header.version != VERSION {
        return Err(Error::Version {
            found: header.version,
            boxd: version_shown(&header.boxd),
        });
    }
    let document: Document = serde_json::from_slice(json).map_err(Error::Understand)?;
    match document.damaged_field() {
        Some(field) => Err(Error::Damaged { field }),
        None => Ok(document),
    }
}

/// A version as another program wrote it: short, and without anything a terminal would obey.
fn version_shown(version: &str) -> String {
    const SHOWN_MAX: usize = 64;
    let short: String = version.chars().take(SHOWN_MAX).collect();
    short.escape_debug().to_string()
}

/// The same, for a file that is known by the name of its box.
pub fn understand_of(name: &Name, json: &[u8]) -> Result<Document, Error> {
    let document = understand(json)?;
    match document.name == *name {
        true => Ok(document),
        false => Err(Error::Foreign {
            found: document.name,
            wanted: name.clone(),
        }),
    }
}

/// Longest time in a document: what is added to a clock stays far from any overflow. A definition has no more than
/// ten years.
const TIME_MAX: Duration = Duration::from_secs(100 * 31_557_600);

/// Bytes of a line that stay together: as many as a character has, and more than a definition can ask for.
const LINE: RangeInclusive<u64> = 4..=1 << 30;

impl Document {
    /// The first field a supervisor could not count with.
    fn damaged_field(&self) -> Option<&'static str> {
        let long = |time: Duration| time > TIME_MAX;
        let rate = self.output.rate.map(|rate| rate.interval);
        let idle = self.idle.as_ref().map(|idle| idle.after);
        let health = self.health.is_some_and(|rules| {
            let times = [
                rules.interval,
                rules.timeout,
                rules.start_period,
                rules.start_interval,
            ];
            times.into_iter().any(long) || rules.retries == 0
        });
        let ids = 0..=u32::MAX - (IdRange::SIZE - 1);
        let priorities = [self.output.stdout_priority, self.output.stderr_priority];
        let fields = [
            ("pid", self.pid <= 0),
            ("cgroup", !self.cgroup.is_absolute()),
            (
                "ids",
                self.ids.is_some_and(|range| !ids.contains(&range.base)),
            ),
            (
                "output",
                priorities.into_iter().any(|priority| priority > 7)
                    || !LINE.contains(&self.output.line_max)
                    || rate.is_some_and(long),
            ),
            ("watchdog", self.watchdog.is_some_and(long)),
            ("health", health),
            ("stop_signal", !(1..=64).contains(&self.stop_signal)),
            ("stop_timeout", long(self.stop_timeout)),
            ("idle", idle.is_some_and(long)),
        ];
        fields
            .into_iter()
            .find_map(|(field, is_damaged)| is_damaged.then_some(field))
    }
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// Where in the memfd [`FD_KEPT`] the supervisor that runs says of which version it is: a number of bytes, in eight
/// bytes, then the text.
const SIGNED_AT: u64 = 1024;

/// What /proc calls that memfd.
const KEPT_LINK: &str = "/memfd:box-kept (deleted)";

/// Says in the memfd [`FD_KEPT`] which boxd this is.
pub fn sign(kept: &File) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    let length = version.len() as u64;
    kept.write_all_at(&[&length.to_ne_bytes(), version].concat(), SIGNED_AT)
}

/// Which boxd this process is of, if it is a supervisor that says so: not an earlier one, nor a box in the foreground.
pub fn signed_by(pid: u32) -> Option<String> {
    let kept = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| std::fs::read_link(path).is_ok_and(|link| link == Path::new(KEPT_LINK)))?;
    let mut bytes = [0; 64];
    let length = File::open(kept).ok()?.read_at(&mut bytes, SIGNED_AT).ok()?;
    let (head, text) = bytes[..length].split_first_chunk()?;
    let text = text.get(..usize::try_from(u64::from_ne_bytes(*head)).ok()?)?;
    match text {
        [] => None,
        text => Some(version_shown(std::str::from_utf8(text).ok()?)),
    }
}

/// An empty memfd for what changes.
pub fn memfd(name: &'static str, label: &CStr) -> Result<OwnedFd, Error> {
    memfd_create(label, MFdFlags::MFD_CLOEXEC).map_err(|errno| Error::Memfd {
        attempt: "make",
        name,
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn document() -> Document {
        Document {
            version: VERSION,
            boxd: "0.1.0".into(),
            name: "web".parse().expect("a good name"),
            description: "Shop front".into(),
            pid: 4711,
            started: 1_790_000_000_000_000,
            cgroup: "/sys/fs/cgroup/box.slice/box-web.scope".into(),
            scope: "box-web.scope".into(),
            ids: None,
            root: "host".into(),
            ready: ReadyWhen::Started,
            ready_by: 1_000_000,
            output: Output::default(),
            watchdog: Some(Duration::from_secs(30)),
            health: None,
            stop_signal: 15,
            stop_timeout: Duration::from_millis(10_500),
            idle: None,
        }
    }

    #[test]
    fn a_sealed_document_is_read_again_and_again() {
        let fd = seal(&document()).expect("seals");
        assert_eq!(read(fd.as_fd()).expect("reads"), document());
        assert_eq!(read(fd.as_fd()).expect("reads"), document());
    }

    #[test]
    fn a_sealed_document_cannot_be_changed() {
        let mut file = File::from(seal(&document()).expect("seals"));
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn a_file_that_may_change_is_refused() {
        let mut file = File::from(memfd(FD_DOCUMENT, c"test").expect("makes"));
        file.write_all(&serde_json::to_vec(&document()).expect("serialises"))
            .expect("writes");
        assert!(matches!(read(file.as_fd()), Err(Error::NotSealed { .. })));
    }

    #[test]
    fn another_version_is_refused_with_a_sentence_whatever_else_it_holds() {
        let error = understand(br#"{"version":7,"boxd":"9.0","pid":"unknown"}"#)
            .expect_err("another version");
        assert_eq!(
            error.to_string(),
            format!(
                "the box was launched by boxd 9.0, whose hand-over has version 7; this is boxd {} and \
                 understands version 1: install that boxd again, or stop the box and start it anew",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    #[test]
    fn what_no_launcher_writes_is_refused_by_the_name_of_its_field() {
        let damaged = |change: fn(&mut Document)| {
            let mut document = document();
            change(&mut document);
            let json = serde_json::to_vec(&document).expect("serialises");
            understand(&json).expect_err("damaged").to_string()
        };
        for (field, change) in [
            (
                "stop_timeout",
                (|d| d.stop_timeout = Duration::MAX) as fn(&mut Document),
            ),
            ("watchdog", |d| d.watchdog = Some(Duration::MAX)),
            ("pid", |d| d.pid = -1),
            ("cgroup", |d| d.cgroup = "web".into()),
            ("ids", |d| d.ids = Some(IdRange { base: u32::MAX })),
            ("output", |d| d.output.stderr_priority = 8),
            ("output", |d| d.output.line_max = u64::MAX),
            ("stop_signal", |d| d.stop_signal = 0),
        ] {
            let said = damaged(change);
            assert!(said.contains(&format!("its {field} cannot be")), "{said}");
        }
    }

    #[test]
    fn the_document_of_another_box_is_refused() {
        let json = serde_json::to_vec(&document()).expect("serialises");
        let name = |name: &str| name.parse::<Name>().expect("a good name");
        assert_eq!(
            understand_of(&name("web"), &json).expect("its own"),
            document()
        );
        let error = understand_of(&name("db"), &json).expect_err("another's");
        assert_eq!(
            error.to_string(),
            "the hand-over document is that of box web, not of box db"
        );
    }

    #[test]
    fn a_field_of_a_later_program_does_no_harm() {
        let mut value = serde_json::to_value(document()).expect("serialises");
        value["colour"] = "blue".into();
        let json = serde_json::to_vec(&value).expect("serialises");
        assert_eq!(understand(&json).expect("understood"), document());
    }
}
