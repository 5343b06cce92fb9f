//! What a supervisor leaves to the next: any bytes are understood or refused with a sentence, and what was understood
//! is written as it was.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use boxd::handover::{Document, Error, memfd, read, seal, understand};
use boxd::journal::gate::Gate;
use boxd::journal::native::Socket;
use boxd::journal::relay::{Buffers, Descriptors, Sent, Stream, Style};
use boxd::supervisor::kept::Record;
use boxd::supervisor::policy::{Left, Rules, State};

use super::input::{Choices, assert_plain};

/// A document; or a record, or the files of a stream, after a byte 0xFF or 0xFE.
pub fn handover(data: &[u8]) {
    match data.split_first() {
        Some((0xFF, rest)) => record(rest),
        Some((0xFE, rest)) => stream(rest),
        _ => document(data),
    }
}

fn refused(error: &Error) {
    let mut error: &dyn std::error::Error = error;
    assert_plain(&error.to_string());
    while let Some(source) = error.source() {
        assert!(!source.to_string().is_empty());
        error = source;
    }
}

fn document(json: &[u8]) {
    let document = match understand(json) {
        Ok(document) => document,
        Err(error) => return refused(&error),
    };
    let sealed = seal(&document).expect("sealed");
    assert_eq!(read(sealed.as_fd()).expect("read"), document);
    lived_by(&document);
}

/// A supervisor can count with every number in it.
fn lived_by(document: &Document) {
    let rules = Rules {
        ready: document.ready,
        ready_by: Duration::from_micros(document.ready_by),
        signal: document.stop_signal,
        timeout: document.stop_timeout,
    };
    let now = Duration::from_secs(10);
    let stopping = Left {
        stopping: Some(now),
        ..Left::default()
    };
    for left in [Left::default(), stopping] {
        assert!(State::begin(&rules, &left, now).deadline() >= None);
    }
    assert!(rules.time_to_end(true) >= document.stop_timeout);
    for style in Style::of(&document.output, false) {
        assert!(style.priority < 8);
        let (pipe, mut payload) = std::io::pipe().expect("a pipe");
        payload.write_all(b"written\n").expect("written");
        let descriptors = Descriptors {
            pipe: pipe.into(),
            inlet: memory(&[]),
            outlet: memory(&[]),
        };
        let stream = Stream::adopt(
            document.name.as_str(),
            "stdout",
            style,
            descriptors,
            Sent::default(),
        );
        pumped(stream.expect("adopted"));
    }
}

fn record(bytes: &[u8]) {
    let file = File::from(memory(bytes));
    let record = Record::adopt(file.try_clone().expect("a copy").into());
    let kept = match record.load() {
        Ok(kept) => kept,
        Err(error) => return refused(&error),
    };
    record.save(&kept).expect("saved");
    assert_eq!(record.load().expect("loaded"), kept);
}

/// How far a stream was relayed, in five numbers, and what is in its two files, which need not fit together.
fn stream(data: &[u8]) {
    let mut choices = Choices(data);
    let mut number = || match choices.byte() % 8 {
        0 => u64::MAX,
        1 => i64::MAX as u64,
        _ => choices.below(1 << 12) as u64,
    };
    let sent = Sent {
        taken: number(),
        end: number(),
        within_line: Some(number() as u8 & 15).filter(|priority| *priority < 9),
        dropped_lines: number(),
        dropped_bytes: number(),
    };
    let offset = choices.below(1 << 12) as u64;
    let (first, second) = choices.0.split_at(choices.0.len() / 2);
    let (pipe, payload) = std::io::pipe().expect("a pipe");
    drop(payload);
    let mut outlet = File::from(memory(second));
    outlet.seek(SeekFrom::Start(offset)).expect("set");
    let descriptors = Descriptors {
        pipe: pipe.into(),
        inlet: memory(first),
        outlet: outlet.into(),
    };
    let style = Style {
        priority: 6,
        prefixes: true,
        line_max: 64,
        terminal: true,
    };
    match Stream::adopt("web", "stdout", style, descriptors, sent) {
        Ok(stream) => pumped(stream),
        Err(error) => assert_plain(&error.to_string()),
    }
}

/// Nobody listens: the stream has lines to send, or has none.
fn pumped(mut stream: Stream) {
    let mut nobody = Socket::to("/nonexistent/journal");
    let mut gate = Gate::new(None);
    let result = stream.pump(&mut nobody, &mut Buffers::default(), &mut gate, &mut |_| {
        Ok(())
    });
    if let Err(error) = result {
        assert_plain(&error.to_string());
    }
    stream.unsent();
}

fn memory(content: &[u8]) -> OwnedFd {
    let mut file = File::from(memfd("test", c"test").expect("a memfd"));
    file.write_all(content).expect("written");
    file.seek(SeekFrom::Start(0)).expect("set");
    file.into()
}
