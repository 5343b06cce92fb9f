//! What the payload writes, relayed to journald: nothing lost, nothing doubled, and nothing piled up.
//!
//! ```text
//!   payload ─► pipe ──splice──► inlet ──encode──► outlet ──sendfile──► journald
//!                                size     record         offset
//! ```
//!
//! A relay may be killed between any two instructions, and its heir goes on with the same descriptors. So the
//! kernel keeps the books, each in the call that moves the bytes:
//!
//! - The *inlet* is a memfd. splice(2) moves bytes from the pipe to its end: **its size is what was read**.
//! - The *outlet* is a memfd of ready entries. sendfile(2) sends one from the offset of the open file:
//!   **its offset is what was sent**.
//! - Between them stands one [`Sent`] record, replaced as a whole: so many bytes of the inlet have become
//!   entries, and the entries end there. What an encoder wrote beyond that end when it was killed is written
//!   over.
//!
//! Hence a line is sent exactly once, whenever the relay dies; the exceptions are named at
//! [`Socket::send_file`]. A journald that is killed with entries in its queue loses none either, as systemd
//! holds its socket; what it took from the queue and did not write yet is its own affair.
//!
//! While journald is slow, full or away, nothing more is read: output waits in the pipe, and a payload that
//! fills it waits too. The relay holds [`WINDOW`] bytes of a stream and the entries of as many, in memory that
//! is given back.
//!
//! Each line is one entry: `PRIORITY=` from the line's `<n>`, else 6 (info) for both streams, as
//! `SyslogLevel=` of systemd.exec(5) has it, since much that goes to standard error is no error;
//! `SYSLOG_IDENTIFIER=` and `BOX_NAME=` the box's name; `BOX_STREAM=stdout` or `stderr`; `BOX_LINE_BREAK=`
//! where a line was cut, see [`Cut`]; `OBJECT_SYSTEMD_UNIT=` the unit, by which `journalctl -u` finds what came
//! from a process that was gone when journald asked for its cgroup. `MESSAGE=` comes last and holds no newline, so an
//! entry in the outlet ends with the line that begins so.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::pipe::SpliceFlags;

use super::lines::{self, Cut, Line};
use super::native::{Delivery, Socket};

/// How far a stream was relayed: the record between inlet and outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Bytes of the inlet that became entries in the outlet.
    pub taken: u64,
    /// Where the entries in the outlet end.
    pub end: u64,
    /// The last entry was cut in the midst of a line that has this priority.
    pub within_line: Option<u8>,
}

/// Most bytes of a stream that wait in the inlet. It holds more than one line of the greatest length, so a line
/// can always be told.
pub const WINDOW: usize = 64 * 1024;

/// Encoding stops after so many bytes of entries, until they are sent.
const BATCH: usize = 128 * 1024;

/// Memory behind the relay is given back when it comes to so many bytes.
const BEHIND: u64 = 64 * 1024;

/// Priority of a line that names none: info.
const PRIORITY: u8 = 6;

/// Reads from the pipe in one [`Stream::pump`]; then others get their turn.
const ROUNDS: usize = 8;

/// One of the payload's streams.
#[derive(Debug)]
pub struct Stream {
    pipe: OwnedFd,
    inlet: File,
    outlet: File,
    /// Fields that are the same in all entries.
    header: Vec<u8>,
    /// Size of the inlet.
    head: u64,
    sent: Sent,
    /// Offset of the outlet.
    offset: u64,
    /// Lengths of the entries from there on.
    entries: VecDeque<usize>,
    /// Up to here memory was given back, of inlet and outlet.
    freed: (u64, u64),
    ended: bool,
}

/// How a [`Stream::pump`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    /// The pipe is empty.
    Empty,
    /// There may be more: it was somebody else's turn.
    More,
    /// The entry at hand was not taken.
    Waiting(Delivery),
    /// The stream has ended and all of it is sent.
    Ended,
}

/// A call on the relay's files that failed. Nothing is lost by it, and the next attempt may succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} of the output")]
pub struct Error {
    attempt: &'static str,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(attempt: &'static str) -> impl Fn(E) -> Error {
    move |source| Error {
        attempt,
        source: source.into(),
    }
}

/// Buffers that all streams share. They grow with what they hold; dropped, they cost nothing while idle.
#[derive(Debug, Default)]
pub struct Buffers {
    window: Vec<u8>,
    batch: Vec<u8>,
}

/// A stream's descriptors.
#[derive(Debug)]
pub struct Descriptors {
    /// Read end of the payload's pipe.
    pub pipe: OwnedFd,
    /// Memfd for what is read.
    pub inlet: OwnedFd,
    /// Memfd for what is sent.
    pub outlet: OwnedFd,
}

impl Stream {
    /// Goes on where these descriptors and the record stand.
    ///
    /// A memfd that lags behind the record is a new one: the store did not keep the old. What was in that is
    /// lost, and no more.
    pub fn adopt(
        box_name: &str,
        stream_name: &str,
        descriptors: Descriptors,
        sent: Sent,
    ) -> Result<Stream, Error> {
        let inlet = File::from(descriptors.inlet);
        let mut outlet = File::from(descriptors.outlet);
        let size = |file: &File| file.metadata().map(|metadata| metadata.len());
        let mut head = size(&inlet).map_err(failed("measure the inlet"))?;
        if head < sent.taken {
            inlet
                .set_len(sent.taken)
                .map_err(failed("size the inlet"))?;
            head = sent.taken;
        }
        let mut offset = outlet
            .stream_position()
            .map_err(failed("tell the offset in the outlet"))?;
        let written = size(&outlet).map_err(failed("measure the outlet"))?;
        if offset > sent.end || (offset < sent.end && written < sent.end) {
            offset = sent.end;
            outlet
                .seek(SeekFrom::Start(offset))
                .map_err(failed("set the offset in the outlet"))?;
        }
        let mut header = Vec::with_capacity(96 + 3 * box_name.len());
        for part in [
            "SYSLOG_IDENTIFIER=",
            box_name,
            "\nBOX_NAME=",
            box_name,
            "\nBOX_STREAM=",
            stream_name,
            "\nOBJECT_SYSTEMD_UNIT=box@",
            box_name,
            ".service\n",
        ] {
            header.extend_from_slice(part.as_bytes());
        }
        let mut stream = Stream {
            pipe: descriptors.pipe,
            inlet,
            outlet,
            header,
            head,
            sent,
            offset,
            entries: VecDeque::new(),
            freed: (0, 0),
            ended: false,
        };
        stream.entries = entry_lengths(&stream.unsent_entries()?);
        Ok(stream)
    }

    /// The pipe, to be polled for reading.
    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Pipe, inlet and outlet, as [`Stream::adopt`] got them.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.pipe.as_fd(), self.inlet.as_fd(), self.outlet.as_fd()]
    }

    /// Nothing more is read: what is in the relay is all there is, and the last line may lack its newline.
    pub fn close(&mut self) {
        self.ended = true;
    }

    /// Moves what can be moved. `record` keeps a [`Sent`]; until it has, nothing of it is sent.
    pub fn pump(
        &mut self,
        socket: &mut Socket,
        buffers: &mut Buffers,
        record: &mut dyn FnMut(Sent) -> io::Result<()>,
    ) -> Result<Pumped, Error> {
        for _ in 0..ROUNDS {
            loop {
                while let Some(length) = self.entries.front() {
                    match socket.send_file(&self.outlet, self.offset, *length) {
                        Delivery::Sent => {
                            self.offset += *length as u64;
                            self.entries.pop_front();
                        }
                        waiting => return Ok(Pumped::Waiting(waiting)),
                    }
                }
                self.give_back_memory();
                if !self.encode(buffers, record)? {
                    break;
                }
            }
            if self.ended {
                return Ok(Pumped::Ended);
            }
            match self.read()? {
                Read::Bytes => {}
                Read::Nothing => return Ok(Pumped::Empty),
                Read::End => self.ended = true,
            }
        }
        Ok(Pumped::More)
    }

    /// Bytes of output that are not yet sent, those in the pipe included.
    pub fn unsent(&self) -> u64 {
        let entries = self.unsent_entries().unwrap_or_default();
        let said: usize = entry_lengths(&entries)
            .into_iter()
            .scan(0, |at, length| {
                let entry = &entries[*at..*at + length];
                *at += length;
                Some(message_length(entry))
            })
            .sum();
        let in_pipe = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0);
        said as u64 + (self.head - self.sent.taken) + in_pipe
    }

    fn read(&mut self) -> Result<Read, Error> {
        let room = WINDOW.saturating_sub((self.head - self.sent.taken) as usize);
        let mut end = self.head;
        match rustix::pipe::splice(
            &self.pipe,
            None,
            &self.inlet,
            Some(&mut end),
            room,
            SpliceFlags::NONBLOCK,
        ) {
            Ok(0) => Ok(Read::End),
            Ok(length) => {
                self.head += length as u64;
                Ok(Read::Bytes)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Read::Nothing),
            Err(errno) => Err(failed("read more")(errno)),
        }
    }

    /// Turns lines of the inlet into entries of the outlet. False: there is no line to be told.
    fn encode(
        &mut self,
        buffers: &mut Buffers,
        record: &mut dyn FnMut(Sent) -> io::Result<()>,
    ) -> Result<bool, Error> {
        let Buffers { window, batch } = buffers;
        window.resize(WINDOW.min((self.head - self.sent.taken) as usize), 0);
        self.inlet
            .read_exact_at(window, self.sent.taken)
            .map_err(failed("read back a part"))?;
        batch.clear();
        // In one piece, which goes back to the kernel whole.
        batch.reserve(window.len() + window.len() / 2);
        let mut lengths = VecDeque::new();
        let mut sent = self.sent;
        let mut used = 0;
        while batch.len() < BATCH
            && let Some(line) = lines::first(&window[used..], self.ended)
        {
            let begin = batch.len();
            sent.within_line = self.entry(batch, line, sent.within_line);
            lengths.push_back(batch.len() - begin);
            used += line.length;
        }
        if lengths.is_empty() {
            return Ok(false);
        }
        self.outlet
            .write_all_at(batch, sent.end)
            .map_err(failed("write entries"))?;
        sent.taken += used as u64;
        sent.end += batch.len() as u64;
        record(sent).map_err(failed("record the progress"))?;
        self.sent = sent;
        self.entries = lengths;
        Ok(true)
    }

    /// Appends the entry of a line; the priority, if the line goes on in the next entry.
    fn entry(&self, batch: &mut Vec<u8>, line: Line<'_>, within: Option<u8>) -> Option<u8> {
        let (priority, text) = match within {
            Some(priority) => (priority, line.text),
            None => lines::priority(line.text).unwrap_or((PRIORITY, line.text)),
        };
        batch.extend_from_slice(b"PRIORITY=");
        batch.extend_from_slice(&[b'0' + priority, b'\n']);
        batch.extend_from_slice(&self.header);
        if let Some(cut) = line.cut {
            batch.extend_from_slice(b"BOX_LINE_BREAK=");
            batch.extend_from_slice(cut.as_str().as_bytes());
            batch.push(b'\n');
        }
        batch.extend_from_slice(MESSAGE);
        batch.extend_from_slice(text);
        batch.push(b'\n');
        (line.cut == Some(Cut::LineMax)).then_some(priority)
    }

    /// Memory that could not be given back now is given back later: nothing depends on it.
    fn give_back_memory(&mut self) {
        if self.sent.end - self.freed.1 >= BEHIND && self.outlet.set_len(0).is_ok() {
            self.freed.1 = self.sent.end;
        }
        let pages = self.sent.taken & !4095;
        if pages - self.freed.0 >= BEHIND
            && rustix::fs::fallocate(
                &self.inlet,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                0,
                pages,
            )
            .is_ok()
        {
            self.freed.0 = pages;
        }
    }

    fn unsent_entries(&self) -> Result<Vec<u8>, Error> {
        let mut entries = vec![0; (self.sent.end - self.offset) as usize];
        self.outlet
            .read_exact_at(&mut entries, self.offset)
            .map_err(failed("read back entries"))?;
        Ok(entries)
    }
}

enum Read {
    Bytes,
    Nothing,
    End,
}

const MESSAGE: &[u8] = b"MESSAGE=";

/// The lengths of the entries that stand here one after the other.
fn entry_lengths(entries: &[u8]) -> VecDeque<usize> {
    let mut lengths = VecDeque::new();
    let mut length = 0;
    for field in entries.split_inclusive(|byte| *byte == b'\n') {
        length += field.len();
        if field.starts_with(MESSAGE) {
            lengths.push_back(length);
            length = 0;
        }
    }
    lengths
}

/// Bytes the payload wrote for this entry, its newline included.
fn message_length(entry: &[u8]) -> usize {
    entry
        .split_inclusive(|byte| *byte == b'\n')
        .find(|field| field.starts_with(MESSAGE))
        .map_or(0, |field| field.len() - MESSAGE.len())
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Write};
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::handover;
    use crate::journal::lines::LINE_MAX;

    /// A stream with both its ends, and a socket in journald's place.
    struct Bench {
        _directory: tempfile::TempDir,
        path: PathBuf,
        journal: UnixDatagram,
        payload: Option<PipeWriter>,
        descriptors: Descriptors,
        kept: Sent,
    }

    impl Bench {
        fn new() -> Bench {
            let directory = tempfile::tempdir().expect("makes a directory");
            let path = directory.path().join("socket");
            let journal = UnixDatagram::bind(&path).expect("binds");
            journal.set_nonblocking(true).expect("sets");
            let (pipe, payload) = io::pipe().expect("makes a pipe");
            let memfd = || handover::memfd("test", c"test").expect("makes a memfd");
            Bench {
                _directory: directory,
                path,
                journal,
                payload: Some(payload),
                descriptors: Descriptors {
                    pipe: pipe.into(),
                    inlet: memfd(),
                    outlet: memfd(),
                },
                kept: Sent::default(),
            }
        }

        fn write(&mut self, bytes: &[u8]) {
            self.payload
                .as_mut()
                .expect("is open")
                .write_all(bytes)
                .expect("writes");
        }

        /// The stream as a new supervisor finds it.
        fn stream(&self) -> Stream {
            let clone = |fd: &OwnedFd| fd.try_clone().expect("duplicates");
            Stream::adopt(
                "web",
                "stdout",
                Descriptors {
                    pipe: clone(&self.descriptors.pipe),
                    inlet: clone(&self.descriptors.inlet),
                    outlet: clone(&self.descriptors.outlet),
                },
                self.kept,
            )
            .expect("adopts")
        }

        fn pump(&mut self, stream: &mut Stream, socket: &mut Socket) -> Pumped {
            let kept = &mut self.kept;
            stream
                .pump(socket, &mut Buffers::default(), &mut |sent| {
                    *kept = sent;
                    Ok(())
                })
                .expect("pumps")
        }

        fn receive(&self) -> Option<Vec<u8>> {
            let mut buffer = vec![0; 1 << 17];
            let length = self.journal.recv(&mut buffer).ok()?;
            buffer.truncate(length);
            Some(buffer)
        }

        /// Pumps and receives until the stream waits for the payload, or has ended.
        fn all(&mut self, stream: &mut Stream, socket: &mut Socket) -> Vec<Vec<u8>> {
            let mut entries = Vec::new();
            loop {
                let pumped = self.pump(stream, socket);
                entries.extend(std::iter::from_fn(|| self.receive()));
                match pumped {
                    Pumped::Empty | Pumped::Ended => return entries,
                    Pumped::More | Pumped::Waiting(Delivery::Full) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn message(entry: &[u8]) -> &[u8] {
        let at = entry
            .windows(MESSAGE.len())
            .position(|window| window == MESSAGE)
            .expect("has a message");
        &entry[at + MESSAGE.len()..entry.len() - 1]
    }

    #[test]
    fn a_line_is_an_entry_with_its_priority_and_stream() {
        let mut bench = Bench::new();
        bench.write(b"hello\n<3>wrong\n\nhalf");
        let (mut stream, mut socket) = (bench.stream(), Socket::to(&bench.path));
        let entries = bench.all(&mut stream, &mut socket);
        let header = "SYSLOG_IDENTIFIER=web\nBOX_NAME=web\nBOX_STREAM=stdout\nOBJECT_SYSTEMD_UNIT=box@web.service\n";
        let expected = [
            format!("PRIORITY=6\n{header}MESSAGE=hello\n"),
            format!("PRIORITY=3\n{header}MESSAGE=wrong\n"),
            format!("PRIORITY=6\n{header}MESSAGE=\n"),
        ];
        assert_eq!(entries, expected.map(String::into_bytes));
        assert_eq!(stream.unsent(), 4);
        bench.payload = None;
        let entries = bench.all(&mut stream, &mut socket);
        let expected = format!("PRIORITY=6\n{header}BOX_LINE_BREAK=eof\nMESSAGE=half\n");
        assert_eq!(entries, [expected.into_bytes()]);
        assert_eq!(stream.unsent(), 0);
    }

    #[test]
    fn the_pieces_of_a_long_line_have_its_priority_even_across_a_death() {
        let mut bench = Bench::new();
        let mut line = b"<2>".to_vec();
        line.extend_from_slice(&[b'x'; LINE_MAX]);
        bench.write(&line);
        let entries = bench.all(&mut bench.stream(), &mut Socket::to(&bench.path));
        assert_eq!(entries.len(), 1);
        assert!(entries[0].starts_with(b"PRIORITY=2\n"));
        bench.write(b"<7>y\n<5>z\n");
        let entries = bench.all(&mut bench.stream(), &mut Socket::to(&bench.path));
        assert!(entries[0].starts_with(b"PRIORITY=2\n"));
        assert_eq!(message(&entries[0]), b"xxx<7>y");
        assert!(entries[1].starts_with(b"PRIORITY=5\n"));
    }

    #[test]
    fn while_the_journal_does_not_read_output_waits_in_the_pipe() {
        let mut bench = Bench::new();
        rustix::pipe::fcntl_setpipe_size(&bench.descriptors.pipe, 1 << 20).expect("sizes");
        let line = [&[b'a'; 99][..], b"\n"].concat();
        let stream_bytes = line.repeat(8_000);
        bench.write(&stream_bytes);
        let (mut stream, mut socket) = (bench.stream(), Socket::to(&bench.path));
        assert_eq!(
            bench.pump(&mut stream, &mut socket),
            Pumped::Waiting(Delivery::Full)
        );
        assert!(stream.head <= WINDOW as u64);
        let in_queue = std::iter::from_fn(|| bench.receive()).count();
        let sent = in_queue * line.len();
        assert_eq!(stream.unsent(), (stream_bytes.len() - sent) as u64);
        let rest = bench.all(&mut stream, &mut socket);
        assert_eq!(in_queue + rest.len(), 8_000);
    }

    #[test]
    fn while_there_is_no_journal_nothing_is_lost() {
        let mut bench = Bench::new();
        bench.write(b"one\ntwo\n");
        let (mut stream, mut socket) = (bench.stream(), Socket::to(&bench.path));
        std::fs::remove_file(&bench.path).expect("removes");
        assert_eq!(
            bench.pump(&mut stream, &mut socket),
            Pumped::Waiting(Delivery::Absent)
        );
        bench.journal = UnixDatagram::bind(&bench.path).expect("binds");
        bench.journal.set_nonblocking(true).expect("sets");
        let entries = bench.all(&mut stream, &mut socket);
        assert_eq!(
            entries
                .iter()
                .map(|entry| message(entry))
                .collect::<Vec<_>>(),
            [b"one", b"two"]
        );
    }

    #[test]
    fn memory_is_given_back_after_a_flood() {
        let mut bench = Bench::new();
        let (mut stream, mut socket) = (bench.stream(), Socket::to(&bench.path));
        let line = [&[b'a'; 999][..], b"\n"].concat();
        for _ in 0..100 {
            bench.write(&line.repeat(50));
            assert_eq!(bench.all(&mut stream, &mut socket).len(), 50);
        }
        use std::os::unix::fs::MetadataExt;
        for file in [&stream.inlet, &stream.outlet] {
            let blocks = file.metadata().expect("stats").blocks();
            assert!(blocks * 512 <= 256 * 1024, "{blocks} blocks");
        }
    }

    #[test]
    fn a_store_that_lost_the_memfds_costs_what_was_in_them_and_no_more() {
        let mut bench = Bench::new();
        bench.write(b"one\ntw");
        bench.all(&mut bench.stream(), &mut Socket::to(&bench.path));
        bench.descriptors.inlet = handover::memfd("test", c"test").expect("makes a memfd");
        bench.descriptors.outlet = handover::memfd("test", c"test").expect("makes a memfd");
        bench.write(b"o\nthree\n");
        let entries = bench.all(&mut bench.stream(), &mut Socket::to(&bench.path));
        assert_eq!(
            entries
                .iter()
                .map(|entry| message(entry))
                .collect::<Vec<_>>(),
            [&b"o"[..], b"three"]
        );
    }

    /// What a supervisor that is killed leaves undone.
    #[derive(Debug, Clone, Copy)]
    enum Death {
        /// Between two pumps.
        Idle,
        /// After entries were written, before they were recorded.
        BeforeRecord,
        /// After the record, before anything was sent.
        AfterRecord,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_line_comes_once_and_in_order_whenever_the_relay_dies(
            steps in prop::collection::vec(
                (
                    prop::collection::vec(0usize..200, 0..30),
                    prop_oneof![Just(Death::Idle), Just(Death::BeforeRecord), Just(Death::AfterRecord)],
                    0usize..20,
                ),
                1..12,
            ),
        ) {
            let mut bench = Bench::new();
            let mut written = Vec::new();
            let mut received = Vec::new();
            for (lengths, death, reads) in steps {
                for length in lengths {
                    let line = format!("{}:{}", written.len(), "x".repeat(length));
                    bench.write(line.as_bytes());
                    bench.write(b"\n");
                    written.push(line.into_bytes());
                }
                let mut stream = bench.stream();
                let mut socket = Socket::to(&bench.path);
                let kept = &mut bench.kept;
                // The stream of this step is dropped in the midst of its work and never asked again.
                let _ = stream.pump(&mut socket, &mut Buffers::default(), &mut |sent| {
                    match death {
                        Death::Idle => {
                            *kept = sent;
                            Ok(())
                        }
                        Death::BeforeRecord => Err(io::ErrorKind::Interrupted.into()),
                        Death::AfterRecord => {
                            *kept = sent;
                            Err(io::ErrorKind::Interrupted.into())
                        }
                    }
                });
                for _ in 0..reads {
                    received.extend(bench.receive());
                }
            }
            bench.payload = None;
            let mut stream = bench.stream();
            let mut socket = Socket::to(&bench.path);
            received.extend(std::iter::from_fn(|| bench.receive()));
            received.extend(bench.all(&mut stream, &mut socket));
            let said: Vec<Vec<u8>> = received.iter().map(|entry| message(entry).to_vec()).collect();
            prop_assert_eq!(said, written);
        }
    }
}
