//! One question and one answer of HTTP/1.1 (RFC 9112), as far as whoever collects metrics needs them.
//!
//! The question comes from anybody on this host and may be anything. It is read up to a bound, and nothing in it makes
//! this program keep more. Each connection carries one.

/// Most bytes of a question that are read.
pub const HEAD_MAX: usize = 8 << 10;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text of Prometheus before that, which every collector reads: for one that asks for nothing else.
    Text,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Metrics are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How they are wanted.
    pub format: Format,
    /// Only what comes before them: `HEAD`.
    pub head_alone: bool,
}

/// Why a question has no other answer than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no question of HTTP/1.1.
    Malformed,
    /// It does not end within [`HEAD_MAX`] bytes.
    TooLong,
    /// Something else than reading is asked for.
    Method,
    /// Something else than metrics is asked for.
    Path,
    /// There is nothing to say at the moment.
    Unavailable,
}

/// The question in what was received so far; none while it is not complete.
///
/// # Errors
///
/// What is no question that could be answered.
pub fn request(received: &[u8]) -> Result<Option<Request>, Refusal> {
    let Some(head) = head(received) else {
        return match received.len() < HEAD_MAX {
            true => Ok(None),
            false => Err(Refusal::TooLong),
        };
    };
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(Refusal::Malformed);
    }
    let head_alone = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Refusal::Method),
    };
    if path(target) != "/metrics" {
        return Err(Refusal::Path);
    }
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("accept"))
        .flat_map(|(_, value)| value.split(','));
    let (mut open, mut text) = (0.0, 0.0);
    for range in accepted {
        let (media_type, quality) = media_range(range);
        if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
            open = quality.max(open);
        } else if media_type.eq_ignore_ascii_case("text/plain") {
            text = quality.max(text);
        }
    }
    Ok(Some(Request {
        format: match open > 0.0 && open >= text {
            true => Format::OpenMetrics,
            false => Format::Text,
        },
        head_alone,
    }))
}

/// Everything before the empty line. Lines may end without a carriage return, RFC 9112, 2.2.
fn head(received: &[u8]) -> Option<&[u8]> {
    let received = &received[..received.len().min(HEAD_MAX)];
    let ends = [&b"\n\r\n"[..], &b"\n\n"[..]]
        .map(|end| received.windows(end.len()).position(|window| window == end));
    let end = ends.into_iter().flatten().min()?;
    Some(&received[..end])
}

/// The path that is asked for, without a query; a proxy names the host before it.
fn path(target: &str) -> &str {
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |begin| &rest[begin..]),
        None => target,
    };
    target.split('?').next().unwrap_or_default()
}

/// What is accepted, and how much it is liked: RFC 9110, 12.5.1.
fn media_range(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q="));
    let quality = quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
    (media_type, quality)
}

/// What precedes metrics of this length.
pub fn preface(format: Format, length: usize) -> String {
    begin("200 OK", format.media_type(), length, "Vary: Accept\r\n")
}

/// Why there are none, with a sentence for people.
pub fn refusal(refusal: Refusal, sentence: &str) -> String {
    let (status, more) = match refusal {
        Refusal::Malformed => ("400 Bad Request", ""),
        Refusal::TooLong => ("431 Request Header Fields Too Large", ""),
        Refusal::Method => ("405 Method Not Allowed", "Allow: GET, HEAD\r\n"),
        Refusal::Path => ("404 Not Found", ""),
        Refusal::Unavailable => ("503 Service Unavailable", ""),
    };
    let body = format!("{sentence}\n");
    begin(status, "text/plain; charset=utf-8", body.len(), more) + &body
}

fn begin(status: &str, media_type: &str, length: usize, more: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n{more}Connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(line: &str, accept: &str) -> Result<Option<Request>, Refusal> {
        request(format!("{line}\r\nHost: localhost\r\n{accept}\r\n").as_bytes())
    }

    #[test]
    fn who_asks_for_openmetrics_gets_them_and_others_the_text_that_all_can_read() {
        // As Prometheus 2.53 and curl ask.
        let prometheus = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                          version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("Accept: */*\r\n", Format::Text),
            ("", Format::Text),
            (
                "accept: Application/OpenMetrics-Text\r\n",
                Format::OpenMetrics,
            ),
            ("Accept: application/openmetrics-text;q=0\r\n", Format::Text),
            (
                "Accept: application/openmetrics-text; q=0.2, text/plain\r\n",
                Format::Text,
            ),
            (
                "Accept: text/plain;q=x\r\nAccept: application/openmetrics-text\r\n",
                Format::OpenMetrics,
            ),
        ] {
            let request = of("GET /metrics HTTP/1.1", accept).expect("a question");
            assert_eq!(request.expect("complete").format, format, "{accept}");
        }
        let head = of("HEAD http://localhost:9400/metrics?x=1 HTTP/1.0", "");
        assert!(head.expect("a question").expect("complete").head_alone);
    }

    #[test]
    fn what_is_no_such_question_is_refused() {
        for (line, refusal) in [
            ("GET / HTTP/1.1", Refusal::Path),
            ("GET /metrics/ HTTP/1.1", Refusal::Path),
            ("POST /metrics HTTP/1.1", Refusal::Method),
            ("GET /metrics", Refusal::Malformed),
            ("GET /metrics HTTP/2", Refusal::Malformed),
            ("GET  /metrics HTTP/1.1", Refusal::Malformed),
            ("", Refusal::Malformed),
        ] {
            assert_eq!(of(line, ""), Err(refusal), "{line:?}");
        }
        let long = [b'a'; HEAD_MAX];
        assert_eq!(request(&long), Err(Refusal::TooLong));
        assert_eq!(request(&long[1..]), Ok(None));
        assert_eq!(request(b"GET /metrics HTTP/1.1\r\n"), Ok(None));
        assert!(
            request(b"GET /metrics HTTP/1.1\n\n")
                .expect("a question")
                .is_some()
        );
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_that_it_is_the_last() {
        let said = refusal(Refusal::Path, "they are at /metrics");
        assert!(said.starts_with("HTTP/1.1 404 Not Found\r\n"), "{said}");
        assert!(said.contains("\r\nContent-Length: 21\r\n"), "{said}");
        assert!(
            said.ends_with("\r\nConnection: close\r\n\r\nthey are at /metrics\n"),
            "{said}"
        );
        let said = preface(Format::OpenMetrics, 4711);
        assert!(said.contains("\r\nContent-Length: 4711\r\n"), "{said}");
        assert!(said.ends_with("\r\n\r\n"), "{said}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is received, it is judged; and what has an answer has the same one when more follows.
        #[test]
        fn any_bytes_are_judged(
            received in prop::collection::vec(prop::sample::select(&b"GET /metrics HTTP/1.1\r\nAccept:text;q=0,\xff\0"[..]), 0..200),
            more in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let first = request(&received);
            if first != Ok(None) {
                let longer = [received, more].concat();
                prop_assert_eq!(request(&longer), first);
            }
        }
    }
}
