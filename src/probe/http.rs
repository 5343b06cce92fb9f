//! One question and one answer of HTTP/1.1 (RFC 9112), as far as a probe needs them.
//!
//! The answer comes from the box and may be anything. It is read up to a bound, nothing in it makes this program
//! keep more, and what is no HTTP is called so.

/// Most bytes of status line and header fields, those of interim answers included.
pub const HEAD_MAX: usize = 16 << 10;
/// Most bytes of a body that are looked at.
pub const BODY_MAX: usize = 64 << 10;
/// Most bytes of an answer that are read: a body may come in chunks, whose sizes are written between them.
pub const ANSWER_MAX: usize = HEAD_MAX + 2 * BODY_MAX;

/// What is not HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It does not begin with `HTTP/1.x NNN`.
    #[error("it does not begin as an answer of HTTP/1.1 does")]
    StatusLine,
    /// No end of the header fields.
    #[error("its header does not end within {HEAD_MAX} bytes")]
    Head,
    /// It ended within the header.
    #[error("it ends within its header")]
    Short,
    /// A length or a chunk's size that is none.
    #[error("the length of its body is not a number")]
    Length,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 100 to 999.
    pub status: u16,
    /// The words after it, of any bytes.
    pub reason: Vec<u8>,
    /// As much of the body as was looked at.
    pub body: Vec<u8>,
    /// There is nothing more to come that would be looked at.
    pub complete: bool,
}

/// The question: a path and query of a host. The answer is to end with the connection.
pub fn request(host: &str, target: &str) -> Vec<u8> {
    [
        "GET ",
        target,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nUser-Agent: boxd/",
        env!("CARGO_PKG_VERSION"),
        "\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    ]
    .concat()
    .into_bytes()
}

/// The answer in what was received so far, or none while its header is not complete. `ended`: no more will come.
pub fn answer(mut received: &[u8], ended: bool) -> Result<Option<Answer>, Malformed> {
    let whole = received.len();
    loop {
        if !could_begin(received) {
            return Err(Malformed::StatusLine);
        }
        let Some((head, rest)) = split_head(received) else {
            return match ended {
                true => Err(Malformed::Short),
                false if whole >= HEAD_MAX => Err(Malformed::Head),
                false => Ok(None),
            };
        };
        if whole - rest.len() > HEAD_MAX {
            return Err(Malformed::Head);
        }
        let mut lines = head.split(|byte| *byte == b'\n').map(without_return);
        let (status, reason) = status_line(lines.next().unwrap_or_default())?;
        // Interim answers come before the one that counts.
        if (100..200).contains(&status) && status != 101 {
            received = rest;
            continue;
        }
        let (body, complete) = match framing(status, lines)? {
            Framing::Nothing => (Vec::new(), true),
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let body = &rest[..rest.len().min(length).min(BODY_MAX)];
                (
                    body.to_vec(),
                    body.len() == length || body.len() == BODY_MAX,
                )
            }
            Framing::Chunks => chunks(rest)?,
            Framing::ToTheEnd => {
                let body = &rest[..rest.len().min(BODY_MAX)];
                (body.to_vec(), body.len() == BODY_MAX)
            }
        };
        return Ok(Some(Answer {
            status,
            reason: reason.to_vec(),
            body,
            complete: complete || ended,
        }));
    }
}

/// Whether this can become an answer: one that cannot need not be waited for.
fn could_begin(received: &[u8]) -> bool {
    const BEGIN: &[u8] = b"HTTP/1.";
    let length = received.len().min(BEGIN.len());
    received[..length] == BEGIN[..length]
}

/// The header without the empty line, and what follows. Lines may end without a carriage return, RFC 9112, 2.2.
fn split_head(received: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut begin = 0;
    while let Some(length) = received[begin..].iter().position(|byte| *byte == b'\n') {
        let line = without_return(&received[begin..begin + length]);
        if line.is_empty() {
            return Some((&received[..begin], &received[begin + length + 1..]));
        }
        begin += length + 1;
    }
    None
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn status_line(line: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let rest = line
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.split_first())
        .filter(|(minor, _)| minor.is_ascii_digit())
        .and_then(|(_, rest)| rest.strip_prefix(b" "))
        .ok_or(Malformed::StatusLine)?;
    let (number, reason) = rest.split_at_checked(3).ok_or(Malformed::StatusLine)?;
    let status = decimal(number)
        .filter(|status| (100..1000).contains(status))
        .ok_or(Malformed::StatusLine)?;
    match reason.split_first() {
        None => Ok((status as u16, reason)),
        Some((b' ', reason)) => Ok((status as u16, reason)),
        Some(_) => Err(Malformed::StatusLine),
    }
}

/// How the end of a body is known.
enum Framing {
    Nothing,
    Length(u64),
    Chunks,
    ToTheEnd,
}

/// RFC 9112, 6.3.
fn framing<'a>(status: u16, fields: impl Iterator<Item = &'a [u8]>) -> Result<Framing, Malformed> {
    if matches!(status, 101 | 204 | 304) {
        return Ok(Framing::Nothing);
    }
    let mut framing = Framing::ToTheEnd;
    for field in fields {
        let Some(colon) = field.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // Whatever else was done to the body, chunks are what is around it.
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or(value);
            if last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Ok(Framing::Chunks);
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            framing = Framing::Length(decimal(value).ok_or(Malformed::Length)?);
        }
    }
    Ok(framing)
}

/// What is there of a chunked body, and whether that is all that will be looked at; RFC 9112, 7.1.
fn chunks(mut rest: &[u8]) -> Result<(Vec<u8>, bool), Malformed> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            // A size has few digits, and extensions are rare.
            return match rest.len() {
                0..=1024 => Ok((body, false)),
                _ => Err(Malformed::Length),
            };
        };
        let line = without_return(&rest[..end]);
        let size = line.split(|byte| *byte == b';').next().unwrap_or(line);
        let size = hexadecimal(size.trim_ascii()).ok_or(Malformed::Length)?;
        if size == 0 {
            return Ok((body, true));
        }
        rest = &rest[end + 1..];
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let there = size.min(rest.len());
        let room = BODY_MAX - body.len();
        body.extend_from_slice(&rest[..there.min(room)]);
        if body.len() == BODY_MAX {
            return Ok((body, true));
        }
        if there < size {
            return Ok((body, false));
        }
        rest = &rest[size..];
        // The line break after a chunk.
        rest = match rest {
            [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] => after,
            [] | [b'\r'] => return Ok((body, false)),
            _ => return Err(Malformed::Length),
        };
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    number(digits, 10)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    number(digits, 16)
}

/// Digits only: `from_str_radix` takes a sign as well.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let digit = |byte: u8| char::from(byte).is_digit(radix);
    if digits.is_empty() || !digits.iter().copied().all(digit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ended(text: &[u8]) -> Answer {
        answer(text, true).expect("HTTP").expect("complete")
    }

    #[test]
    fn a_question_names_host_and_target() {
        let request = String::from_utf8(request("localhost:80", "/a?b")).expect("text");
        assert!(request.starts_with("GET /a?b HTTP/1.1\r\nHost: localhost:80\r\n"));
        assert!(request.ends_with("\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn bodies_end_by_length_by_chunks_or_with_the_connection() {
        let plain = ended(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nabc");
        assert_eq!(
            (plain.status, &*plain.reason, &*plain.body),
            (200, &b"OK"[..], &b"abc"[..])
        );
        let by_length = b"HTTP/1.0 404 Not Found\nContent-length:  2 \n\nabc";
        let found = answer(by_length, false).expect("HTTP").expect("a head");
        assert_eq!(
            (found.status, &*found.body, found.complete),
            (404, &b"ab"[..], true)
        );
        let chunked = b"HTTP/1.1 200\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let found = answer(chunked, false).expect("HTTP").expect("a head");
        assert_eq!(
            (&*found.reason, &*found.body, found.complete),
            (&b""[..], &b"abc0123456789"[..], true)
        );
        for length in chunked.len() - 30..chunked.len() - 5 {
            let found = answer(&chunked[..length], false)
                .expect("HTTP")
                .expect("a head");
            assert!(!found.complete, "{length}");
        }
        let empty = answer(b"HTTP/1.1 204 No Content\r\n\r\n", false);
        assert!(empty.expect("HTTP").expect("a head").complete);
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let found = ended(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 500 No\r\n\r\n");
        assert_eq!(found.status, 500);
    }

    #[test]
    fn what_is_no_http_is_called_so_at_once() {
        for (bytes, expected) in [
            (&b"SSH-2.0-OpenSSH\r\n"[..], Malformed::StatusLine),
            (b"HTTP/2 200\r\n\r\n", Malformed::StatusLine),
            (b"HTTP/1.1 2x0 OK\r\n\r\n", Malformed::StatusLine),
            (b"HTTP/1.1 099 OK\r\n\r\n", Malformed::StatusLine),
            (b"HTTP/1.1 2000\r\n\r\n", Malformed::StatusLine),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
                Malformed::Length,
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
                Malformed::Length,
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
                Malformed::Length,
            ),
        ] {
            assert_eq!(answer(bytes, false), Err(expected), "{bytes:?}");
        }
        assert_eq!(answer(b"", false), Ok(None));
        assert_eq!(answer(b"HTT", false), Ok(None));
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n", false), Ok(None));
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n", true), Err(Malformed::Short));
        assert_eq!(answer(b"", true), Err(Malformed::Short));
        let endless = [b"HTTP/1.1 200 OK\r\n", &[b'a'; HEAD_MAX][..]].concat();
        assert_eq!(answer(&endless, false), Err(Malformed::Head));
        let huge = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab";
        let found = answer(huge, false).expect("HTTP").expect("a head");
        assert_eq!((&*found.body, found.complete), (&b"ab"[..], false));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_are_too_strange(
            head in prop_oneof![
                Just(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..]),
                Just(&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..]),
                Just(&b"HTTP/1.1 1"[..]),
                Just(&b""[..]),
            ],
            rest in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n0123f; :HTP/."[..])], 0..200),
            ended in any::<bool>(),
        ) {
            let bytes = [head, &rest].concat();
            if let Ok(Some(answer)) = answer(&bytes, ended) {
                prop_assert!(answer.body.len() <= rest.len());
                prop_assert!((100..1000).contains(&answer.status));
            }
        }
    }
}
