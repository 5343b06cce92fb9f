//! What a box writes: every byte is in the message of one entry, once, and in no other field, however often the
//! supervisor is followed by another meanwhile.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use boxd::handover::memfd;
use boxd::journal::gate::Gate;
use boxd::journal::native::{Delivery, Socket, field};
use boxd::journal::relay::{Buffers, Descriptors, Pumped, Sent, Stream, Style};

use super::input::Choices;
use super::journal::fields;

/// A socket in journald's place.
struct Journal {
    _directory: tempfile::TempDir,
    path: PathBuf,
    socket: UnixDatagram,
}

thread_local! {
    static JOURNAL: Journal = {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("set");
        Journal { _directory: directory, path, socket }
    };
}

/// How lines are read, in five bytes, and what is written.
pub fn output(data: &[u8]) {
    let Some((decisions, written)) = data.split_first_chunk::<5>() else {
        return;
    };
    // As much as a pipe holds.
    let written = &written[..written.len().min(60_000)];
    let mut choices = Choices(decisions);
    let style = Style {
        priority: choices.byte() % 8,
        prefixes: choices.byte() & 1 != 0,
        // Less than a definition can ask for, but enough that no priority is cut.
        line_max: 8 + choices.below(1 << 12),
        terminal: false,
    };
    let heirs = choices.byte() & 1 != 0;
    let entries = JOURNAL.with(|journal| relayed(written, style, heirs, journal));
    assert_written(written, &entries, style);
    one_field(written);
}

/// All entries that come of this.
fn relayed(written: &[u8], style: Style, heirs: bool, journal: &Journal) -> Vec<Vec<u8>> {
    let (pipe, mut payload) = io::pipe().expect("a pipe");
    payload.write_all(written).expect("room in the pipe");
    drop(payload);
    let pipe = OwnedFd::from(pipe);
    let (inlet, outlet) = (memory(), memory());
    let mut kept = Sent::default();
    let adopt = |kept| {
        let copy = |fd: &OwnedFd| fd.try_clone().expect("a copy");
        let descriptors = Descriptors {
            pipe: copy(&pipe),
            inlet: copy(&inlet),
            outlet: copy(&outlet),
        };
        Stream::adopt("web", "stdout", style, descriptors, kept).expect("adopted")
    };
    let mut stream = adopt(kept);
    let mut socket = Socket::to(&journal.path);
    let mut entries = Vec::new();
    loop {
        let pumped = stream
            .pump(
                &mut socket,
                &mut Buffers::default(),
                &mut Gate::new(None),
                &mut |sent| {
                    kept = sent;
                    Ok(())
                },
            )
            .expect("relayed");
        let mut buffer = [0; 1 << 16];
        while let Ok(length) = journal.socket.recv(&mut buffer) {
            entries.push(buffer[..length].to_vec());
        }
        match pumped {
            Pumped::Ended => return entries,
            Pumped::More | Pumped::Empty | Pumped::Waiting(Delivery::Full) => {}
            other => panic!("{other:?}"),
        }
        if heirs {
            stream = adopt(kept);
        }
    }
}

fn memory() -> OwnedFd {
    memfd("test", c"test").expect("a memfd")
}

fn assert_written(written: &[u8], entries: &[Vec<u8>], style: Style) {
    let mut said: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut continued = false;
    let mut complete = true;
    for entry in entries {
        let fields = fields(entry);
        let value = |name: &str| {
            let mut values = fields.iter().filter(|(found, _)| *found == name.as_bytes());
            let value = values.next().map(|(_, value)| *value);
            assert!(values.next().is_none(), "{name} twice");
            value
        };
        let cut = value("BOX_LINE_BREAK");
        assert_eq!(fields.len(), if cut.is_some() { 7 } else { 6 });
        assert_eq!(value("SYSLOG_IDENTIFIER"), Some(&b"web"[..]));
        assert_eq!(value("BOX_NAME"), Some(&b"web"[..]));
        assert_eq!(value("BOX_STREAM"), Some(&b"stdout"[..]));
        assert_eq!(value("OBJECT_SYSTEMD_UNIT"), Some(&b"box@web.service"[..]));
        let priority = match value("PRIORITY") {
            Some([digit @ b'0'..=b'7']) => digit - b'0',
            other => panic!("{other:?}"),
        };
        let message = value("MESSAGE").expect("a message");
        assert!(message.len() <= style.line_max);
        match said.last_mut().filter(|_| continued) {
            Some((begun, line)) => {
                assert_eq!(priority, *begun);
                line.extend_from_slice(message);
            }
            None => said.push((priority, message.to_vec())),
        }
        assert!(complete, "an entry after the end");
        continued = cut == Some(b"line-max");
        complete = cut != Some(b"eof");
        assert!(cut.is_none() || continued || !complete, "{cut:?}");
    }
    let mut lines: Vec<&[u8]> = written.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
        assert!(complete || continued);
    }
    let expected: Vec<(u8, Vec<u8>)> = lines
        .into_iter()
        .map(|line| match line {
            [b'<', digit @ b'0'..=b'7', b'>', rest @ ..] if style.prefixes => {
                (digit - b'0', rest.to_vec())
            }
            _ => (style.priority, line.to_vec()),
        })
        .collect();
    assert_eq!(said, expected);
}

/// Any value of a field is read back.
fn one_field(value: &[u8]) {
    let mut entry = Vec::new();
    field(&mut entry, "FIRST", value);
    field(&mut entry, "MESSAGE", b"x");
    assert_eq!(
        fields(&entry),
        [(&b"FIRST"[..], value), (&b"MESSAGE"[..], &b"x"[..])]
    );
}
