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
//! fills it waits too. The relay holds a line of the greatest length and [`ROOM`] bytes of a stream, and the entries
//! of as many, in memory that is given back.
//!
//! What is more than the definition allows in a time is read, counted and dropped, by whole lines: see [`Gate`].
//!
//! Each line is one entry: `PRIORITY=` from the line's `<n>`, else what the definition says, else 6 (info) for both
//! streams, as `SyslogLevel=` of systemd.exec(5) has it, since much that goes to standard error is no error;
//! `SYSLOG_IDENTIFIER=` and `BOX_NAME=` the box's name; `BOX_STREAM=stdout` or `stderr`, or `tty` for a box
//! with a terminal; `BOX_LINE_BREAK=`
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

use super::gate::Gate;
use super::lines::{self, Cut, Line};
use super::native::{Delivery, Socket};
use crate::plan::Output;

/// How far a stream was relayed: the record between inlet and outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Bytes of the inlet that became entries in the outlet.
    pub taken: u64,
    /// Where the entries in the outlet end.
    pub end: u64,
    /// The last entry was cut in the midst of a line that has this priority; or, with `DROPPED`, that line is
    /// dropped.
    pub within_line: Option<u8>,
    /// Lines that were dropped for being too many.
    pub dropped_lines: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

/// The priority of a line whose rest is dropped.
const DROPPED: u8 = 8;

/// Bytes of a stream that may wait in the inlet besides a line of the greatest length, so that a line can always be
/// told.
pub const ROOM: usize = 16 * 1024;

/// Bytes that are searched for a newline at once.
const SEARCH: usize = 4 * 1024;

/// Encoding stops after so many bytes of entries, until they are sent.
const BATCH: usize = 128 * 1024;

/// Memory behind the relay is given back when it comes to so many bytes.
const BEHIND: u64 = 64 * 1024;

/// So many bytes that a terminal has shown can be had again, of more the last ones: [`Stream::shown`].
pub const SHOWN: u64 = 64 * 1024;

/// Reads from the pipe in one [`Stream::pump`]; then others get their turn.
const ROUNDS: usize = 8;

/// What is said of a stream that is the same for all its lines.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Priority of a line that names none; syslog(3).
    pub priority: u8,
    /// Whether a line may name one.
    pub prefixes: bool,
    /// Most bytes of a line that stay in one entry.
    pub line_max: usize,
    /// It comes from a terminal, which ends a line with a carriage return too; and what it showed last can be had
    /// again.
    pub terminal: bool,
}

impl Style {
    /// What a definition says of standard output, and of standard error; of a box with a terminal, which has one
    /// output, the first counts.
    pub fn of(output: &Output, terminal: bool) -> [Style; 2] {
        [output.stdout_priority, output.stderr_priority].map(|priority| Style {
            priority,
            prefixes: output.priority_prefix,
            line_max: usize::try_from(output.line_max).unwrap_or(usize::MAX),
            terminal,
        })
    }
}

/// One of the payload's streams.
#[derive(Debug)]
pub struct Stream {
    pipe: OwnedFd,
    inlet: File,
    outlet: File,
    style: Style,
    /// Fields that are the same in all entries.
    header: Vec<u8>,
    /// Size of the inlet.
    head: u64,
    /// Up to here it is known to hold no newline.
    searched: u64,
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
        style: Style,
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
        let freed = match style.terminal {
            true => first_byte(&inlet, head).map_err(failed("find the begin of the inlet"))?,
            false => 0,
        };
        let mut stream = Stream {
            pipe: descriptors.pipe,
            inlet,
            outlet,
            style,
            header,
            head,
            searched: 0,
            sent,
            offset,
            entries: VecDeque::new(),
            freed: (freed, 0),
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

    /// Bytes that were read of the stream, since its begin.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// What a terminal has shown from the byte `from` on, as far as it fits; of what is not held any more, what comes
    /// after it. Returns which byte the first one is, and how many there are.
    pub fn shown(&self, from: u64, buffer: &mut [u8]) -> Result<(u64, usize), Error> {
        let oldest = self.freed.0.max(self.head.saturating_sub(SHOWN));
        let from = from.clamp(oldest.min(self.head), self.head);
        let length = buffer.len().min((self.head - from) as usize);
        self.inlet
            .read_exact_at(&mut buffer[..length], from)
            .map_err(failed("read back a part"))?;
        Ok((from, length))
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
        gate: &mut Gate,
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
                if !self.encode(buffers, gate, record)? {
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
        let room = self
            .window()
            .saturating_sub((self.head - self.sent.taken) as usize);
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

    /// Most bytes of the stream that wait in the inlet.
    fn window(&self) -> usize {
        self.style.line_max.saturating_add(ROOM)
    }

    /// Whether a line can be told from what is in the inlet. Only what is new is looked at, so that a long line which
    /// comes in small parts costs no more than others.
    fn has_line(&mut self) -> Result<bool, Error> {
        let held = self.head - self.sent.taken;
        if held > self.style.line_max as u64 || (self.ended && held > 0) {
            return Ok(true);
        }
        let mut at = self.searched.max(self.sent.taken);
        let mut part = [0; SEARCH];
        while at < self.head {
            let part = &mut part[..SEARCH.min((self.head - at) as usize)];
            self.inlet
                .read_exact_at(part, at)
                .map_err(failed("read back a part"))?;
            if part.contains(&b'\n') {
                return Ok(true);
            }
            at += part.len() as u64;
            self.searched = at;
        }
        Ok(false)
    }

    /// Turns lines of the inlet into entries of the outlet. False: there is no line to be told.
    fn encode(
        &mut self,
        buffers: &mut Buffers,
        gate: &mut Gate,
        record: &mut dyn FnMut(Sent) -> io::Result<()>,
    ) -> Result<bool, Error> {
        if !self.has_line()? {
            return Ok(false);
        }
        let Buffers { window, batch } = buffers;
        window.resize(self.window().min((self.head - self.sent.taken) as usize), 0);
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
            && let Some(line) = lines::first(&window[used..], self.style.line_max, self.ended)
        {
            used += line.length;
            if !passes(&line, &mut sent, gate) {
                continue;
            }
            let begin = batch.len();
            sent.within_line = self.entry(batch, line, sent.within_line);
            lengths.push_back(batch.len() - begin);
        }
        if used == 0 {
            return Ok(false);
        }
        if !batch.is_empty() {
            self.outlet
                .write_all_at(batch, sent.end)
                .map_err(failed("write entries"))?;
        }
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
            None => lines::priority(line.text)
                .filter(|_| self.style.prefixes)
                .unwrap_or((self.style.priority, line.text)),
        };
        batch.extend_from_slice(b"PRIORITY=");
        batch.extend_from_slice(&[b'0' + priority, b'\n']);
        batch.extend_from_slice(&self.header);
        if let Some(cut) = line.cut {
            batch.extend_from_slice(b"BOX_LINE_BREAK=");
            batch.extend_from_slice(cut.as_str().as_bytes());
            batch.push(b'\n');
        }
        let ends_in_newline = line.cut.is_none();
        let text = match self.style.terminal && ends_in_newline {
            true => lines::without_returns(text),
            false => text,
        };
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
        let shown = match self.style.terminal {
            true => SHOWN,
            false => 0,
        };
        let pages = self.sent.taken.saturating_sub(shown) & !4095;
        if pages.saturating_sub(self.freed.0) >= BEHIND
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

/// Whether a line, or a piece of one, is sent; counted if not.
fn passes(line: &Line<'_>, sent: &mut Sent, gate: &mut Gate) -> bool {
    let passes = match sent.within_line {
        Some(DROPPED) => false,
        Some(_) => {
            gate.pass(line.length);
            true
        }
        None => {
            let admitted = gate.admits(line.length);
            sent.dropped_lines = sent.dropped_lines.saturating_add(u64::from(!admitted));
            admitted
        }
    };
    if !passes {
        sent.dropped_bytes = sent.dropped_bytes.saturating_add(line.length as u64);
        sent.within_line = (line.cut == Some(Cut::LineMax)).then_some(DROPPED);
    }
    passes
}

/// Where the inlet begins to hold something.
fn first_byte(inlet: &File, head: u64) -> rustix::io::Result<u64> {
    // The offset it sets is used by nobody.
    match rustix::fs::seek(inlet, rustix::fs::SeekFrom::Data(0)) {
        Ok(first) => Ok(first.min(head)),
        // Nothing at all.
        Err(rustix::io::Errno::NXIO) => Ok(head),
        Err(errno) => Err(errno),
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
mod tests;
