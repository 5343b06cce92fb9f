//! What changes while a box lives, in a memfd that outlives the supervisor.
//!
//! The memfd holds one record of fixed length, written anew with one pwrite(2). A record lies within one page,
//! and the kernel copies a page's part of a write whole or not at all, so a supervisor that is killed leaves
//! the old record or the new one. The first word is [`VERSION`]; a later program may append
//! words, which are zero until it writes them.
//!
//! The box's own words for `systemctl status` stand behind the record, in the same page, with their length before them.
//! They are written when they change, by one write as well. Between the two stands of which version the supervisor is,
//! see [`handover::sign`].

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::health;
use super::notification::STATUS_MAX;
use super::policy::{Exit, Failure, Killed};
use crate::handover::{self, Error, FD_KEPT, VERSION, memfd};
use crate::health::State as Condition;
use crate::journal::relay::Sent;

const WORDS: usize = 29;

/// Where the status of the box stands.
const STATUS_AT: u64 = 2048;

/// Its bytes at most, its length included, so that it ends with the page.
const STATUS_BYTES: usize = 2048;
const _: () = assert!(8 + 4 * STATUS_MAX <= STATUS_BYTES && WORDS * 8 <= STATUS_AT as usize);

/// What changes while a box lives, and must survive its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// The box has been ready.
    pub ready: bool,
    /// The stop signal was sent, at this `CLOCK_MONOTONIC` in microseconds.
    pub stopping: Option<u64>,
    /// How far standard output was relayed.
    pub stdout: Sent,
    /// How far standard error was relayed.
    pub stderr: Sent,
    /// Processes of the box the kernel killed for want of memory, as far as they were reported.
    pub oom_kills: u64,
    /// The supervisor killed the box.
    pub killed: Option<Killed>,
    /// How the first process ended: only its parent is told, and only once.
    pub exit: Option<Exit>,
    /// It was killed for want of memory.
    pub oom: bool,
    /// The supervisor ends the box for this, or has.
    pub failed: Option<Failure>,
    /// The box has asked for more time to become ready: until this `CLOCK_MONOTONIC` in microseconds.
    pub ready_by: Option<u64>,
    /// The supervisor stops the box because its sockets are not used.
    pub idle: bool,
    /// Lines and bytes of output that were dropped, as far as they were reported.
    pub reported: (u64, u64),
    /// The box wants its watchdog to expire after so many microseconds, 0 for never.
    pub watchdog: Option<u64>,
    /// How the box is, once it has answered.
    pub health: Option<health::Left>,
    /// `ERRNO=`, as the box said it last.
    pub errno: Option<u32>,
    /// `EXIT_STATUS=`, likewise.
    pub exit_status: Option<u8>,
    /// It was the box that said that it ends, and nobody has asked for it.
    pub leaving: bool,
    /// The box has said `RELOADING=1`, and not yet that it is done.
    pub reloading: bool,
}

/// The memfd of a [`Kept`].
#[derive(Debug)]
pub struct Record(File);

impl Record {
    /// A new record, all default.
    pub fn create() -> Result<Record, Error> {
        memfd(FD_KEPT, c"box-kept").map(|fd| Record(fd.into()))
    }

    /// The record of an earlier supervisor.
    pub fn adopt(fd: OwnedFd) -> Record {
        Record(fd.into())
    }

    /// What was saved last; the default if nothing ever was.
    pub fn load(&self) -> Result<Kept, Error> {
        let mut bytes = [0; WORDS * 8];
        self.0
            .read_at(&mut bytes, 0)
            .map_err(|source| Error::Memfd {
                attempt: "read",
                name: FD_KEPT,
                source,
            })?;
        // What stands behind it may have been written alone.
        if bytes == [0; WORDS * 8] {
            return Ok(Kept::default());
        }
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        decode(&words)
    }

    /// Replaces the record.
    pub fn save(&self, kept: &Kept) -> Result<(), Error> {
        let mut bytes = [0; WORDS * 8];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(encode(kept)) {
            *bytes = word.to_ne_bytes();
        }
        self.0
            .write_all_at(&bytes, 0)
            .map_err(|source| Error::Memfd {
                attempt: "write",
                name: FD_KEPT,
                source,
            })
    }

    /// What the box said of itself last; empty if nothing, or nothing that is still to be read.
    pub fn load_status(&self) -> String {
        let mut bytes = [0; STATUS_BYTES];
        let length = self.0.read_at(&mut bytes, STATUS_AT).unwrap_or(0);
        let Some((head, text)) = bytes[..length].split_first_chunk() else {
            return String::new();
        };
        let length = usize::try_from(u64::from_ne_bytes(*head)).unwrap_or(0);
        let text = text.get(..length).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// Replaces what the box said of itself.
    pub fn save_status(&self, status: &str) -> Result<(), Error> {
        let text = status.as_bytes();
        let length = text.len() as u64;
        let bytes = [&length.to_ne_bytes(), text].concat();
        self.0
            .write_all_at(&bytes, STATUS_AT)
            .map_err(|source| Error::Memfd {
                attempt: "write",
                name: FD_KEPT,
                source,
            })
    }

    /// Says of which version the supervisor is that has it now. That is only shown, to whoever wants to know.
    pub fn sign(&self) {
        let _ = handover::sign(&self.0);
    }

    /// The memfd, to be stored under [`FD_KEPT`].
    pub fn file(&self) -> &File {
        &self.0
    }
}

fn encode(kept: &Kept) -> [u64; WORDS] {
    // An absent value is 0, a present one its successor.
    let optional = |value: Option<u64>| value.map_or(0, |value| value.saturating_add(1));
    let within = |sent: Sent| optional(sent.within_line.map(u64::from));
    [
        VERSION.into(),
        kept.ready.into(),
        optional(kept.stopping),
        kept.stdout.taken,
        kept.stdout.end,
        within(kept.stdout),
        kept.stderr.taken,
        kept.stderr.end,
        within(kept.stderr),
        kept.oom_kills,
        match kept.killed {
            None => 0,
            Some(Killed::Timeout) => 1,
            Some(Killed::Unheard) => 2,
        },
        // As wait(2) has it, and one more value for what is not known.
        optional(kept.exit.map(|exit| match exit {
            Exit::Status(status) => u64::from(status) << 8,
            Exit::Signal { signal, dumped } => signal as u64 & 0x7f | u64::from(dumped) << 7,
            Exit::Unknown => UNKNOWN,
        })),
        kept.oom.into(),
        match kept.failed {
            None => 0,
            Some(Failure::NotReady) => 1,
            Some(Failure::Watchdog) => 2,
            Some(Failure::Unhealthy) => 3,
        },
        optional(kept.ready_by),
        kept.idle.into(),
        kept.stdout.dropped_lines,
        kept.stdout.dropped_bytes,
        kept.stderr.dropped_lines,
        kept.stderr.dropped_bytes,
        kept.reported.0,
        kept.reported.1,
        optional(kept.watchdog),
        kept.health.map_or(0, |left| {
            let condition = match left.condition {
                Condition::Starting => 1,
                Condition::Healthy => 2,
                Condition::Unhealthy => 3,
            };
            condition | u64::from(left.failures) << 8
        }),
        kept.health
            .map_or(0, |left| left.start_until.as_micros() as u64),
        optional(kept.errno.map(u64::from)),
        optional(kept.exit_status.map(u64::from)),
        kept.leaving.into(),
        kept.reloading.into(),
    ]
}

/// No status of wait(2): it has 16 bits.
const UNKNOWN: u64 = 1 << 16;

fn decode(words: &[u64; WORDS]) -> Result<Kept, Error> {
    let &[
        version,
        ready,
        stopping,
        out_taken,
        out_end,
        out_within,
        err_taken,
        err_end,
        err_within,
        oom_kills,
        killed,
        exit,
        oom,
        failed,
        ready_by,
        idle,
        out_dropped_lines,
        out_dropped_bytes,
        err_dropped_lines,
        err_dropped_bytes,
        reported_lines,
        reported_bytes,
        watchdog,
        health,
        start_until,
        errno,
        exit_status,
        leaving,
        reloading,
    ] = words;
    if version != u64::from(VERSION) {
        return Err(Error::Version {
            found: version.try_into().unwrap_or(u32::MAX),
            boxd: "of another version".into(),
        });
    }
    let sent = |taken, end, within: u64, dropped_lines, dropped_bytes| Sent {
        taken,
        end,
        within_line: within.checked_sub(1).map(|priority| (priority & 15) as u8),
        dropped_lines,
        dropped_bytes,
    };
    Ok(Kept {
        ready: ready != 0,
        stopping: stopping.checked_sub(1),
        stdout: sent(
            out_taken,
            out_end,
            out_within,
            out_dropped_lines,
            out_dropped_bytes,
        ),
        stderr: sent(
            err_taken,
            err_end,
            err_within,
            err_dropped_lines,
            err_dropped_bytes,
        ),
        oom_kills,
        killed: match killed {
            0 => None,
            1 => Some(Killed::Timeout),
            _ => Some(Killed::Unheard),
        },
        exit: exit.checked_sub(1).map(|status| match status {
            UNKNOWN => Exit::Unknown,
            _ if status & 0x7f == 0 => Exit::Status((status >> 8) as u8),
            _ => Exit::Signal {
                signal: (status & 0x7f) as i32,
                dumped: status & 0x80 != 0,
            },
        }),
        oom: oom != 0,
        failed: match failed {
            0 => None,
            1 => Some(Failure::NotReady),
            2 => Some(Failure::Watchdog),
            _ => Some(Failure::Unhealthy),
        },
        ready_by: ready_by.checked_sub(1),
        idle: idle != 0,
        reported: (reported_lines, reported_bytes),
        watchdog: watchdog.checked_sub(1),
        health: match health & 0xff {
            0 => None,
            1 => Some(Condition::Starting),
            2 => Some(Condition::Healthy),
            _ => Some(Condition::Unhealthy),
        }
        .map(|condition| health::Left {
            condition,
            failures: (health >> 8) as u32,
            start_until: Duration::from_micros(start_until),
        }),
        errno: errno.checked_sub(1).map(|errno| errno as u32),
        exit_status: exit_status.checked_sub(1).map(|status| status as u8),
        leaving: leaving != 0,
        reloading: reloading != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_what_was_saved_last() {
        let record = Record::create().expect("makes");
        assert_eq!(record.load().expect("loads"), Kept::default());
        let mut kept = Kept {
            ready: true,
            stopping: Some(0),
            stdout: Sent {
                taken: 1,
                end: 2,
                within_line: Some(0),
                dropped_lines: 10,
                dropped_bytes: 11,
            },
            stderr: Sent {
                taken: 3,
                end: u64::MAX,
                within_line: Some(7),
                dropped_lines: 12,
                dropped_bytes: u64::MAX,
            },
            oom_kills: 5,
            killed: Some(Killed::Unheard),
            exit: Some(Exit::Signal {
                signal: 64,
                dumped: true,
            }),
            oom: true,
            failed: Some(Failure::Watchdog),
            ready_by: Some(0),
            idle: true,
            reported: (8, 9),
            watchdog: Some(0),
            health: Some(health::Left {
                condition: Condition::Unhealthy,
                failures: u32::MAX,
                start_until: Duration::from_micros(7),
            }),
            errno: Some(0),
            exit_status: Some(255),
            leaving: true,
            reloading: true,
        };
        record.save(&kept).expect("saves");
        assert_eq!(record.load().expect("loads"), kept);
        for exit in [None, Some(Exit::Status(255)), Some(Exit::Unknown)] {
            kept.exit = exit;
            record.save(&kept).expect("saves");
            assert_eq!(record.load().expect("loads"), kept);
        }
        kept.stopping = None;
        kept.failed = Some(Failure::NotReady);
        kept.health = None;
        kept.stdout.within_line = None;
        record.save(&kept).expect("saves");
        let heir = Record::adopt(record.0.try_clone().expect("duplicates").into());
        assert_eq!(heir.load().expect("loads"), kept);
    }

    #[test]
    fn the_words_of_the_box_stand_beside_the_record() {
        let record = Record::create().expect("makes");
        assert_eq!(record.load_status(), "");
        record.save(&Kept::default()).expect("saves");
        assert_eq!(record.load_status(), "");
        let kept = Kept {
            exit_status: Some(3),
            ..Kept::default()
        };
        for status in [
            "serving",
            &"\u{10ffff}".repeat(STATUS_MAX),
            "shorter",
            "",
            "again",
        ] {
            record.save_status(status).expect("saves");
            record.sign();
            record.save(&kept).expect("saves");
            assert_eq!(record.load_status(), status);
            assert_eq!(record.load().expect("loads"), kept);
        }
        let length = record.file().metadata().expect("measures").len();
        assert!(length <= 4096, "{length}");
    }

    #[test]
    fn a_supervisor_says_of_which_version_it_is() {
        assert_eq!(handover::signed_by(std::process::id()), None);
        let record = Record::create().expect("makes");
        assert_eq!(handover::signed_by(std::process::id()), None);
        record.sign();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(handover::signed_by(std::process::id()), Some(version));
        for strange in [&[255; 64][..], b"\x02\0\0\0\0\0\0\0\xff\xff", b"\x02\0"] {
            record.0.set_len(0).expect("empties");
            record.0.write_all_at(strange, 1024).expect("writes");
            assert_eq!(handover::signed_by(std::process::id()), None);
        }
    }

    #[test]
    fn a_record_that_was_signed_and_never_saved_is_the_default() {
        let record = Record::create().expect("makes");
        assert_eq!(record.load().expect("reads"), Kept::default());
        record.sign();
        assert_eq!(record.load().expect("reads"), Kept::default());
        record.save_status("starting").expect("writes");
        assert_eq!(record.load().expect("reads"), Kept::default());
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let record = Record::create().expect("makes");
        record
            .0
            .write_all_at(&9u64.to_ne_bytes(), 0)
            .expect("writes");
        assert!(matches!(
            record.load(),
            Err(Error::Version { found: 9, .. })
        ));
    }
}
