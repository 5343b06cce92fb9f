//! What an operator's terminal and a box's supervisor say to each other, over the socket in the box's run directory.
//!
//! ```text
//!   boxctl                          supervisor
//!   Hello(from) ──────────────────► whom it concerns, and from which byte of the output on
//!               ◄────────────────── Output(at, bytes) …
//!   Input, Size ──────────────────►
//!               ◄────────────────── Ended(status)
//! ```
//!
//! Each message is one packet of a `SOCK_SEQPACKET` socket: a byte that says what it is, numbers in the byte order of
//! the machine, then bytes. The output of a box is counted from its begin, and its supervisor holds the last part of
//! it; so who has lost the supervisor asks the next one for the rest, and who was too slow sees what he has missed.

use rustix::termios::Winsize;

/// Of this protocol. A supervisor of another number says so.
pub const VERSION: u8 = 1;

/// Most bytes of a message.
pub const MESSAGE_MAX: usize = HEADER + OUTPUT_MAX;

/// Most bytes of input in a message.
pub const INPUT_MAX: usize = 4096;

/// Most bytes of output in a message.
pub const OUTPUT_MAX: usize = 16 * 1024;

/// Output is asked for from its last part on.
pub const RECENT: u64 = u64::MAX;

/// Bytes before the output in a message: what it is, and where it stands.
const HEADER: usize = 1 + size_of::<u64>();

const HELLO: u8 = b'H';
const INPUT: u8 = b'I';
const SIZE: u8 = b'S';
const OUTPUT: u8 = b'O';
const ENDED: u8 = b'E';
const REFUSED: u8 = b'R';

/// What an operator's terminal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first one.
    Hello {
        /// [`VERSION`].
        version: u8,
        /// The output's first byte that is wanted, or [`RECENT`].
        from: u64,
    },
    /// It was typed.
    Input(&'a [u8]),
    /// The window has this many rows and columns.
    Size(u16, u16),
}

impl<'a> Request<'a> {
    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Request::Hello { version, from } => {
                [&[HELLO, version][..], &from.to_ne_bytes()].concat()
            }
            Request::Input(bytes) => [&[INPUT], bytes].concat(),
            Request::Size(rows, columns) => {
                [&[SIZE][..], &rows.to_ne_bytes(), &columns.to_ne_bytes()].concat()
            }
        }
    }

    /// Of a packet; none if it is no such message.
    pub fn decode(packet: &'a [u8]) -> Option<Request<'a>> {
        match packet {
            [HELLO, version, from @ ..] => Some(Request::Hello {
                version: *version,
                // One of another version may go on differently.
                from: from
                    .first_chunk()
                    .map_or(RECENT, |from| u64::from_ne_bytes(*from)),
            }),
            [INPUT, bytes @ ..] if bytes.len() <= INPUT_MAX => Some(Request::Input(bytes)),
            [SIZE, a, b, c, d] => Some(Request::Size(
                u16::from_ne_bytes([*a, *b]),
                u16::from_ne_bytes([*c, *d]),
            )),
            _ => None,
        }
    }

    /// A window's size, as far as a terminal has one.
    pub fn of_window(size: Winsize) -> Request<'static> {
        Request::Size(size.ws_row, size.ws_col)
    }
}

/// What a supervisor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The box has shown this.
    Output {
        /// The first of these bytes, counted from the begin of the output.
        at: u64,
        /// These.
        bytes: &'a [u8],
    },
    /// The box has ended, with this exit status.
    Ended(u8),
    /// A sentence why there is nothing to be had.
    Refused(&'a str),
}

impl<'a> Reply<'a> {
    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Reply::Output { at, bytes } => [&[OUTPUT][..], &at.to_ne_bytes(), bytes].concat(),
            Reply::Ended(status) => vec![ENDED, status],
            Reply::Refused(why) => [&[REFUSED], why.as_bytes()].concat(),
        }
    }

    /// Of a packet; none if it is no such message.
    pub fn decode(packet: &'a [u8]) -> Option<Reply<'a>> {
        match packet {
            [OUTPUT, rest @ ..] => {
                let (at, bytes) = rest.split_first_chunk()?;
                Some(Reply::Output {
                    at: u64::from_ne_bytes(*at),
                    bytes,
                })
            }
            [ENDED, status] => Some(Reply::Ended(*status)),
            [REFUSED, why @ ..] => Some(Reply::Refused(std::str::from_utf8(why).ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let longest = vec![7; INPUT_MAX];
        for request in [
            Request::Hello {
                version: VERSION,
                from: 77,
            },
            Request::Input(b"x"),
            Request::Input(&longest),
            Request::Size(24, 80),
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        let longest = vec![7; OUTPUT_MAX];
        for reply in [
            Reply::Output {
                at: u64::MAX,
                bytes: &longest,
            },
            Reply::Ended(255),
            Reply::Refused("no"),
        ] {
            let packet = reply.encode();
            assert!(packet.len() <= MESSAGE_MAX);
            assert_eq!(Reply::decode(&packet), Some(reply));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let too_long = vec![INPUT; INPUT_MAX + 2];
        for packet in [&b""[..], b"?", b"S", b"S12345", &too_long] {
            assert_eq!(Request::decode(packet), None);
        }
        for packet in [&b""[..], b"O1234567", b"E", b"E12", b"R\xff"] {
            assert_eq!(Reply::decode(packet), None);
        }
        // A hello of a later version is one.
        let later = Request::decode(b"H\x09");
        assert_eq!(
            later,
            Some(Request::Hello {
                version: 9,
                from: RECENT
            })
        );
    }

    proptest! {
        #[test]
        fn no_packet_is_too_strange(packet in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Request::decode(&packet);
            let _ = Reply::decode(&packet);
        }
    }
}
