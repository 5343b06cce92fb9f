//! The relay between pipes and a socket in the place of journald.

use std::io::{PipeWriter, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use proptest::prelude::*;

use std::time::Duration;

use super::*;
use crate::handover;
use crate::plan::Rate;

const LINE_MAX: usize = 48 * 1024;

const STYLE: Style = Style {
    priority: 6,
    prefixes: true,
    line_max: LINE_MAX,
    terminal: false,
};

/// A stream with both its ends, and a socket in journald's place.
struct Bench {
    _directory: tempfile::TempDir,
    path: PathBuf,
    journal: UnixDatagram,
    payload: Option<PipeWriter>,
    style: Style,
    gate: Gate,
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
            style: STYLE,
            gate: Gate::new(None),
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
            self.style,
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
            .pump(
                socket,
                &mut Buffers::default(),
                &mut self.gate,
                &mut |sent| {
                    *kept = sent;
                    Ok(())
                },
            )
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
fn what_the_definition_says_of_lines_counts() {
    let mut bench = Bench::new();
    bench.style = Style {
        priority: 4,
        prefixes: false,
        line_max: 1 << 20,
        terminal: false,
    };
    // It comes in parts that are smaller than it, and goes as a memfd.
    let long = vec![b'x'; 300_000];
    bench.write(b"<3>literal\n");
    let mut entries = Vec::new();
    let (mut stream, mut socket) = (bench.stream(), Socket::to(&bench.path));
    for part in long.chunks(50_000) {
        bench.write(part);
        entries.extend(bench.all(&mut stream, &mut socket));
        stream = bench.stream();
    }
    assert_eq!(entries.len(), 1);
    assert!(entries[0].starts_with(b"PRIORITY=4\n"));
    assert_eq!(message(&entries[0]), b"<3>literal");
    bench.write(b"\n");
    // An entry that is too long for a datagram comes as a memfd, and the datagram is empty.
    assert_eq!(bench.all(&mut stream, &mut socket), [b""]);
    assert_eq!(stream.unsent(), 0);
}

#[test]
fn what_is_too_much_is_dropped_by_whole_lines_and_counted_for_the_heir() {
    let mut bench = Bench::new();
    let rate = |lines, bytes| Rate {
        interval: Duration::from_secs(10),
        lines,
        bytes,
    };
    let said = |bench: &mut Bench| -> Vec<Vec<u8>> {
        let (mut stream, mut socket) = (bench.stream(), Socket::to(&bench.path));
        let entries = bench.all(&mut stream, &mut socket);
        entries
            .iter()
            .map(|entry| message(entry).to_vec())
            .collect()
    };
    bench.gate = Gate::new(Some(rate(Some(2), None)));
    bench.gate.tell_time(Duration::from_secs(1));
    bench.write(b"1\n2\n3\n");
    assert_eq!(said(&mut bench), [b"1", b"2"]);
    // The rest of a line that is dropped is dropped, by an heir too.
    bench.write(&[b'x'; LINE_MAX + 1]);
    assert_eq!(said(&mut bench), [b""; 0]);
    bench.gate.tell_time(Duration::from_secs(11));
    bench.write(b"x\n4\n");
    assert_eq!(said(&mut bench), [b"4"]);
    assert_eq!(bench.kept.dropped_lines, 2);
    assert_eq!(bench.kept.dropped_bytes, 2 + LINE_MAX as u64 + 3);
    // A line that has begun to pass passes whole.
    bench.gate = Gate::new(Some(rate(None, Some(10))));
    bench.write(&[b'y'; LINE_MAX + 1]);
    bench.write(b"y\n5\n");
    let lengths: Vec<usize> = said(&mut bench).iter().map(Vec::len).collect();
    assert_eq!(lengths, [LINE_MAX, 2]);
    assert_eq!(bench.kept.dropped_lines, 3);
    bench.gate.tell_time(Duration::from_secs(30));
    bench.write(b"6\n");
    assert_eq!(said(&mut bench), [b"6"]);
}

#[test]
fn a_flood_that_is_dropped_costs_neither_memory_nor_entries() {
    let mut bench = Bench::new();
    bench.gate = Gate::new(Some(Rate {
        interval: Duration::from_secs(10),
        lines: Some(1),
        bytes: None,
    }));
    let (mut stream, mut socket) = (bench.stream(), Socket::to(&bench.path));
    let line = [&[b'a'; 999][..], b"\n"].concat();
    let mut entries = 0;
    for _ in 0..100 {
        bench.write(&line.repeat(50));
        entries += bench.all(&mut stream, &mut socket).len();
    }
    assert_eq!((entries, bench.kept.dropped_lines), (1, 4_999));
    use std::os::unix::fs::MetadataExt;
    let blocks = stream.inlet.metadata().expect("stats").blocks();
    assert!(blocks * 512 <= 256 * 1024, "{blocks} blocks");
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
    assert!(stream.head <= (LINE_MAX + ROOM) as u64);
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
            let gate = &mut bench.gate;
            let _ = stream.pump(&mut socket, &mut Buffers::default(), gate, &mut |sent| {
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

#[test]
fn lines_of_a_terminal_are_told_without_its_returns_and_what_it_showed_last_is_held() {
    let mut bench = Bench::new();
    bench.style.terminal = true;
    let text = b"\x1b[1mbold\x1b[0m\r\n10%\r20%\r\r\n\r\nlogin: ";
    bench.write(text);
    let (mut stream, mut socket) = (bench.stream(), Socket::to(&bench.path));
    let messages: Vec<Vec<u8>> = bench
        .all(&mut stream, &mut socket)
        .iter()
        .map(|entry| message(entry).to_vec())
        .collect();
    assert_eq!(messages, [&b"\x1b[1mbold\x1b[0m"[..], b"10%\r20%", b""]);
    let mut buffer = vec![0; 8];
    assert_eq!(stream.head(), text.len() as u64);
    assert_eq!(stream.shown(0, &mut buffer).expect("reads"), (0, 8));
    assert_eq!(&buffer, &text[..8]);
    let end = stream.head();
    assert_eq!(
        stream.shown(end - 7, &mut buffer).expect("reads"),
        (end - 7, 7)
    );
    assert_eq!(&buffer[..7], b"login: ");
    assert_eq!(stream.shown(end + 9, &mut buffer).expect("reads"), (end, 0));

    // Of much the last part is there, for an heir too.
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    for _ in 0..4000 {
        bench.write(&line);
        bench.all(&mut stream, &mut socket);
    }
    drop(stream);
    let stream = bench.stream();
    let mut buffer = vec![0; 2 * SHOWN as usize];
    let (from, length) = stream.shown(0, &mut buffer).expect("reads");
    assert_eq!(from + length as u64, stream.head());
    assert_eq!(length as u64, SHOWN);
    assert!(
        buffer[..length]
            .split(|byte| *byte == b'\n')
            .all(|line| line.iter().all(|byte| *byte == b'x'))
    );
    let held = stream.inlet.metadata().expect("measured");
    let blocks = std::os::unix::fs::MetadataExt::blocks(&held);
    assert!(blocks * 512 <= 3 * SHOWN, "{blocks} blocks are held");
}
