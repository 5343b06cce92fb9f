//! What changes while a box lives, in a memfd that outlives the supervisor.
//!
//! The memfd holds one record of fixed length, written anew with one pwrite(2). A record lies within one page,
//! and the kernel copies a page's part of a write whole or not at all, so a supervisor that is killed leaves
//! the old record or the new one. The first word is [`VERSION`](super::VERSION); a later program may append
//! words, which are zero until it writes them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use super::{Error, FD_KEPT, VERSION};

const WORDS: usize = 10;

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
}

/// How far a stream was relayed; see [`journal::relay`](crate::journal::relay).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Bytes of the inlet that became entries in the outlet.
    pub taken: u64,
    /// Where the entries in the outlet end.
    pub end: u64,
    /// The last entry was cut in the midst of a line that has this priority.
    pub within_line: Option<u8>,
}

/// The memfd of a [`Kept`].
#[derive(Debug)]
pub struct Record(File);

impl Record {
    /// A new record, all default.
    pub fn create() -> Result<Record, Error> {
        super::memfd(FD_KEPT, c"box-kept").map(|fd| Record(fd.into()))
    }

    /// The record of an earlier supervisor.
    pub fn adopt(fd: OwnedFd) -> Record {
        Record(fd.into())
    }

    /// What was saved last; the default if nothing ever was.
    pub fn load(&self) -> Result<Kept, Error> {
        let mut bytes = [0; WORDS * 8];
        let length = self
            .0
            .read_at(&mut bytes, 0)
            .map_err(|source| Error::Memfd {
                attempt: "read",
                name: FD_KEPT,
                source,
            })?;
        if length == 0 {
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
    ]
}

fn decode(words: &[u64; WORDS]) -> Result<Kept, Error> {
    let [
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
    ] = *words;
    if version != u64::from(VERSION) {
        return Err(Error::Version {
            found: version.try_into().unwrap_or(u32::MAX),
            boxd: "of another version".into(),
        });
    }
    let sent = |taken, end, within: u64| Sent {
        taken,
        end,
        within_line: within.checked_sub(1).map(|priority| (priority & 7) as u8),
    };
    Ok(Kept {
        ready: ready != 0,
        stopping: stopping.checked_sub(1),
        stdout: sent(out_taken, out_end, out_within),
        stderr: sent(err_taken, err_end, err_within),
        oom_kills,
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
            },
            stderr: Sent {
                taken: 3,
                end: u64::MAX,
                within_line: Some(7),
            },
            oom_kills: 5,
        };
        record.save(&kept).expect("saves");
        assert_eq!(record.load().expect("loads"), kept);
        kept.stopping = None;
        kept.stdout.within_line = None;
        record.save(&kept).expect("saves");
        let heir = Record::adopt(record.0.try_clone().expect("duplicates").into());
        assert_eq!(heir.load().expect("loads"), kept);
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
