//! What launcher and child say to each other: any datagram is a message or an error with words, and every message
//! arrives as it was sent.

use std::error::Error;
use std::fmt;
use std::os::fd::AsFd;

use boxd::launch::channel::pair;
use boxd::launch::protocol::{Failure, FromChild, Status};
use rustix::net::{SendFlags, send};

use super::input::{assert_plain, texts};

/// A datagram for both sides; and, as texts with bytes 0xFF between them, what went wrong in a child.
pub fn protocol(data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let (parent, child) = pair().expect("a socket pair");
    put(&child, data);
    match parent.receive() {
        Ok(message) => {
            child.send(&message).expect("sent");
            assert_eq!(parent.receive().expect("received"), message);
        }
        Err(error) => assert_plain(&error.to_string()),
    }
    put(&parent, data);
    match child.receive() {
        Ok((message, descriptors)) => {
            assert!(descriptors.is_empty());
            parent.send(&message, &[]).expect("sent");
            assert_eq!(child.receive().expect("received").0, message);
        }
        Err(error) => assert_plain(&error.to_string()),
    }

    let texts = texts(data);
    // As long as the kernel has paths.
    let path = texts
        .first()
        .map(|text| text.chars().take(1023).collect::<String>().into());
    let Some(error) = texts.into_iter().rev().fold(None, |source, text| {
        let source = source.map(Box::new);
        Some(Link { text, source })
    }) else {
        return;
    };
    for failure in [
        Failure::of(&error, Status::NAMESPACE),
        Failure {
            path,
            ..Failure::at("mount the file systems", &error, Status::EXEC)
        },
    ] {
        let failure = FromChild::Failed(failure);
        child.send(&failure).expect("sent");
        assert_eq!(parent.receive().expect("received"), failure);
    }
}

/// Puts bytes into an end, as they are.
fn put(end: &impl AsFd, data: &[u8]) {
    let sent = send(end, data, SendFlags::NOSIGNAL).expect("sent");
    assert_eq!(sent, data.len());
}

/// An error and its causes.
#[derive(Debug)]
struct Link {
    text: String,
    source: Option<Box<Link>>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Link {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.source.as_ref()?)
    }
}
