//! Bytes into lines, as the journal wants them.
//!
//! A line ends with a newline, which is not part of it. A line longer than the most that is kept together is cut
//! into pieces, each but the last marked, and never within a character of UTF-8. A last line without a newline is kept and marked. Empty lines are lines. Any byte may be in a
//! line, NUL too.
//!
//! A line may begin with its priority, `<0>` to `<7>`, as sd-daemon(3) has it.

/// Why a line ends where it does, if not at its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is longer than the most that is kept together; the next piece continues it.
    LineMax,
    /// The stream ended.
    Eof,
}

impl Cut {
    /// As journald says it in `_LINE_BREAK=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Cut::LineMax => "line-max",
            Cut::Eof => "eof",
        }
    }
}

/// A line, or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// What it says.
    pub text: &'a [u8],
    /// Bytes of the window it used up, its newline included.
    pub length: usize,
    /// Why it ends, if not for a newline.
    pub cut: Option<Cut>,
}

/// The line at the begin of `window`, or none if more bytes are needed to tell; at most `line_max` bytes of it, and
/// those are at least four. `at_end` says that no bytes come.
pub fn first(window: &[u8], line_max: usize, at_end: bool) -> Option<Line<'_>> {
    let reach = &window[..window.len().min(line_max + 1)];
    if let Some(newline) = reach.iter().position(|byte| *byte == b'\n') {
        return Some(Line {
            text: &window[..newline],
            length: newline + 1,
            cut: None,
        });
    }
    let (length, cut) = if window.len() > line_max {
        (before_character(window, line_max), Cut::LineMax)
    } else if at_end && !window.is_empty() {
        (window.len(), Cut::Eof)
    } else {
        return None;
    };
    Some(Line {
        text: &window[..length],
        length,
        cut: Some(cut),
    })
}

/// The priority a line begins with, and the rest of it.
pub fn priority(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'<', digit @ b'0'..=b'7', b'>', rest @ ..] => Some((digit - b'0', rest)),
        _ => None,
    }
}

/// The text of a line as a terminal ends it: without carriage returns at its end.
pub fn without_returns(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r'] = text {
        text = rest;
    }
    text
}

/// The last place up to `limit` where no UTF-8 character is cut; `limit` itself if this is no UTF-8.
fn before_character(window: &[u8], limit: usize) -> usize {
    (limit - 3..=limit)
        .rev()
        .find(|at| window[*at] & 0b1100_0000 != 0b1000_0000)
        .unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE_MAX: usize = 48 * 1024;

    /// All lines of a stream that comes in these chunks, as the relay takes them.
    fn all(chunks: &[&[u8]]) -> Vec<(Vec<u8>, Option<Cut>)> {
        let mut lines = Vec::new();
        let mut window = Vec::new();
        let mut take = |window: &mut Vec<u8>, at_end| {
            let mut used = 0;
            while let Some(line) = first(&window[used..], LINE_MAX, at_end) {
                used += line.length;
                lines.push((line.text.to_vec(), line.cut));
            }
            window.drain(..used);
        };
        for chunk in chunks {
            window.extend_from_slice(chunk);
            take(&mut window, false);
        }
        take(&mut window, true);
        assert!(window.is_empty());
        lines
    }

    #[test]
    fn every_way_to_cut_a_stream_into_two_gives_the_same_lines() {
        let stream = b"one\n\n<3>two\n\0\xff\nlast";
        let expected = [
            (b"one".to_vec(), None),
            (b"".to_vec(), None),
            (b"<3>two".to_vec(), None),
            (b"\0\xff".to_vec(), None),
            (b"last".to_vec(), Some(Cut::Eof)),
        ];
        for middle in 0..=stream.len() {
            let (left, right) = stream.split_at(middle);
            assert_eq!(all(&[left, right]), expected, "cut at {middle}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(all(&single), expected);
    }

    #[test]
    fn a_line_of_the_greatest_length_is_whole_and_a_longer_one_is_marked() {
        for (length, pieces) in [
            (LINE_MAX - 1, vec![(LINE_MAX - 1, None)]),
            (LINE_MAX, vec![(LINE_MAX, None)]),
            (
                LINE_MAX + 1,
                vec![(LINE_MAX, Some(Cut::LineMax)), (1, None)],
            ),
            (
                2 * LINE_MAX,
                vec![(LINE_MAX, Some(Cut::LineMax)), (LINE_MAX, None)],
            ),
        ] {
            let mut stream = vec![b'x'; length];
            stream.push(b'\n');
            let found: Vec<_> = all(&[&stream])
                .into_iter()
                .map(|(text, cut)| (text.len(), cut))
                .collect();
            assert_eq!(found, pieces, "{length} bytes");
        }
    }

    #[test]
    fn a_long_line_is_not_cut_within_a_character() {
        let mut stream = vec![b'x'; LINE_MAX - 1];
        stream.extend_from_slice("\u{1f4e6}".as_bytes());
        stream.push(b'\n');
        let lines = all(&[&stream]);
        assert_eq!(lines[0], (vec![b'x'; LINE_MAX - 1], Some(Cut::LineMax)));
        assert_eq!(lines[1], ("\u{1f4e6}".as_bytes().to_vec(), None));
    }

    #[test]
    fn a_priority_is_one_digit_in_brackets_at_the_begin() {
        assert_eq!(priority(b"<0>panic"), Some((0, &b"panic"[..])));
        assert_eq!(priority(b"<7>"), Some((7, &b""[..])));
        for none in [
            &b"<8>x"[..],
            b"<>x",
            b"<12>x",
            b" <3>x",
            b"<3",
            b"",
            b"<x>y",
        ] {
            assert_eq!(priority(none), None);
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_chunks_do_not_matter(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    (0usize..3 * LINE_MAX, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
                    Just(b"\n".to_vec()),
                ],
                0..12,
            ),
            sizes in prop::collection::vec(1usize..70_000, 1..8),
        ) {
            let stream = pieces.concat();
            let whole = all(&[&stream]);
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(&all(&chunks), &whole);
            let mut again = Vec::new();
            for (text, cut) in &whole {
                again.extend_from_slice(text);
                if cut.is_none() {
                    again.push(b'\n');
                }
                prop_assert!(text.len() <= LINE_MAX);
            }
            prop_assert_eq!(again, stream);
        }
    }
}
