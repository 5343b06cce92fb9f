//! `[health]`: how a box is asked whether it does what it is there for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::diagnostics::Problem;
use super::quantity::whole;
use super::section::{Item, Section};
use super::tree::Value;
use super::values::{command, time};

/// `[health]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// From the end of a probe to the next. Absent: 30 s.
    pub interval: Option<Duration>,
    /// How long a probe may take. Absent: 10 s.
    pub timeout: Option<Duration>,
    /// Failures in a row that make the box unhealthy. Absent: 3.
    pub retries: Option<u32>,
    /// For how long after the start failures do not count. Absent: 30 s, or what the start may take when the box
    /// is ready once healthy.
    pub start_period: Option<Duration>,
    /// From the end of a probe to the next during the start period, until one succeeds. Absent: 1 s.
    pub start_interval: Option<Duration>,
    /// What becomes of an unhealthy box.
    pub on_failure: OnFailure,
}

/// The exit status of the service of a box that was stopped because it was unhealthy. Its unit says by it whether the
/// box is started again. None of systemd's own, and none a shell makes of a signal it knows.
pub const UNHEALTHY: u8 = 254;

/// What a box is asked for its health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// A program of the box with its arguments, run inside it: healthy if it exits with status 0.
    Command(Vec<String>),
    /// Healthy if a connection is accepted at one of these addresses inside the box.
    Tcp(Vec<SocketAddr>),
    /// Healthy if the answer to an HTTP/1.1 GET is as expected.
    Http {
        /// Inside the box, tried in order.
        addresses: Vec<SocketAddr>,
        /// As the URL has it, sent as `Host:`.
        host: String,
        /// Path and query.
        target: String,
        /// Ranges of good status codes, both ends included.
        status: Vec<(u16, u16)>,
        /// Contained in the body.
        body: Option<String>,
    },
}

/// `[health] on-failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It is said, and the box runs on.
    #[default]
    Report,
    /// The box is stopped and started again, whatever `restart.policy` says.
    Restart,
    /// The box is stopped, and not started again, whatever `restart.policy` says.
    Stop,
}

/// Shortest time between two probes: a shorter one would keep the host busy with nothing else.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Failures in a row that make a box unhealthy, at most.
const RETRIES_MAX: u64 = 1000;

/// Longest text that is looked for in an answer, far less than what is read of one.
const BODY_MAX: usize = 1024;

/// The keys that say what is asked, of which exactly one is written.
const KINDS: [&str; 3] = ["command", "tcp", "http"];

const COMMAND: &str =
    "expected a list of a program of the box and its arguments, as in [\"/usr/bin/pg_isready\"]";

const ADDRESS: &str = "expected an address inside the box and a port, as in \"127.0.0.1:80\", \"[::1]:80\" or \"localhost:80\"; other names are not looked up";

const URL: &str = "expected a URL without TLS at an address inside the box, as in \"http://127.0.0.1:80/healthz\"";

const STATUS: &str = "expected status codes and ranges from 100 to 599, as in \"200-299,304\"";

pub(super) fn health(mut section: Section<'_>) -> Option<Health> {
    let written = section.place().cloned();
    let kinds: Vec<_> = KINDS
        .iter()
        .filter_map(|key| section.place_of(key))
        .collect();
    if written.is_some() && kinds.is_empty() {
        section.problems().report(Problem::absent(
            section.place(),
            "a health check that asks nothing",
            "say what is asked: `command = [\"/usr/bin/check\"]`, `tcp = \"127.0.0.1:80\"` or \
             `http = \"http://127.0.0.1:80/\"`",
        ));
    }
    if let [first, second, ..] = &*kinds {
        section.problems().report(
            Problem::at(
                second,
                "a health check that asks two things",
                "expected one of command, tcp and http",
            )
            .related(first, "given here already"),
        );
    }
    if section.place_of("http").is_none() {
        for key in ["http-status", "http-body"] {
            if let Some(place) = section.place_of(key) {
                section.problems().report(Problem::at(
                    &place,
                    format!("`health.{key}` goes with `http` alone"),
                    "expected `http = \"http://127.0.0.1:80/\"` beside it",
                ));
            }
        }
    }
    let command = section.read("command", |item| command(item, COMMAND));
    let tcp = section.read("tcp", |item| item.parsed(ADDRESS, address));
    let http = section.read("http", |item| item.parsed(URL, url));
    let status = section.read("http-status", status);
    let body = section.read("http-body", |item| {
        let text = item.string("expected a text that the answer contains")?;
        match text.len() {
            1..=BODY_MAX => Some(text.to_owned()),
            _ => item.refuse(format!("expected a text of 1 to {BODY_MAX} bytes")),
        }
    });
    let interval = section.read("interval", self::interval);
    let timeout = section.read("timeout", |item| time(item, Duration::from_millis(1)));
    let retries = section.read("retries", |item| {
        u32::try_from(item.integer(1..=RETRIES_MAX)?).ok()
    });
    let start_period = section.read("start-period", |item| time(item, Duration::ZERO));
    let start_interval = section.read("start-interval", self::interval);
    let on_failure = section.read("on-failure", |item| {
        item.choice(&[
            ("report", OnFailure::Report),
            ("restart", OnFailure::Restart),
            ("stop", OnFailure::Stop),
        ])
    });
    section.finish();
    let probe = match (command, tcp, http) {
        (Some(command), _, _) => Probe::Command(command),
        (None, Some(addresses), _) => Probe::Tcp(addresses),
        (None, None, Some(url)) => Probe::Http {
            addresses: url.addresses,
            host: url.host,
            target: url.target,
            status: status.unwrap_or_else(|| vec![(200, 399)]),
            body,
        },
        (None, None, None) => return None,
    };
    Some(Health {
        probe,
        interval,
        timeout,
        retries,
        start_period,
        start_interval,
        on_failure: on_failure.unwrap_or_default(),
    })
}

fn interval(item: Item<'_>) -> Option<Duration> {
    let interval = time(item, Duration::from_millis(1))?;
    if interval < INTERVAL_MIN {
        return item.refuse(format!("expected at least {INTERVAL_MIN:?}"));
    }
    Some(interval)
}

/// Where to connect, one after the other until somebody listens.
fn address(text: &str) -> Result<Vec<SocketAddr>, String> {
    let addresses = match text.strip_prefix("localhost:") {
        Some(port) => local(port.parse().map_err(|_| ADDRESS)?),
        None => vec![text.parse::<SocketAddr>().map_err(|_| ADDRESS)?],
    };
    match addresses.iter().any(|address| address.port() == 0) {
        true => Err("expected a port from 1 to 65535".to_owned()),
        false => Ok(addresses),
    }
}

/// What the name stands for in every box, whatever its /etc/hosts says.
fn local(port: u16) -> Vec<SocketAddr> {
    [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ]
    .map(|address| SocketAddr::new(address, port))
    .into()
}

#[derive(Debug)]
struct Url {
    addresses: Vec<SocketAddr>,
    host: String,
    target: String,
}

fn url(text: &str) -> Result<Url, String> {
    if text
        .get(..8)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
    {
        return Err(
            "expected a URL that begins with http://: TLS is for `command`, as in [\"curl\", \"-fsk\", \"https://127.0.0.1/\"]"
                .to_owned(),
        );
    }
    let rest = text.strip_prefix("http://").ok_or(URL)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    let addresses = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => vec![SocketAddr::new(address.into(), 80)],
        // Without brackets its last part would be taken for a port.
        Ok(IpAddr::V6(_)) => return Err(URL.to_owned()),
        Err(_) if host == "localhost" => local(80),
        Err(_) => match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(bare) => vec![SocketAddr::new(
                bare.parse::<Ipv6Addr>().map_err(|_| URL)?.into(),
                80,
            )],
            None => address(host)?,
        },
    };
    if target.contains('#') {
        return Err("expected a URL without \"#\": that part is never sent".to_owned());
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected a path of visible ASCII, with all else as %XX".to_owned());
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok(Url {
        addresses,
        host: host.to_owned(),
        target: [slash, target].concat(),
    })
}

fn status(item: Item<'_>) -> Option<Vec<(u16, u16)>> {
    match item.at.value {
        Value::Integer(number) => match u16::try_from(number) {
            Ok(number) if is_status(number) => Some(vec![(number, number)]),
            _ => item.refuse(STATUS),
        },
        _ => item.parsed(STATUS, |text| {
            let ranges: Option<Vec<_>> = text
                .split(',')
                .map(|range| status_range(range.trim()))
                .collect();
            ranges.ok_or_else(|| STATUS.to_owned())
        }),
    }
}

fn status_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let number = u16::try_from(whole(text.trim())?).ok()?;
        is_status(number).then_some(number)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn is_status(number: u16) -> bool {
    (100..=599).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_literal_or_localhost() {
        assert_eq!(
            address("127.0.0.1:80").expect("good"),
            ["127.0.0.1:80".parse::<SocketAddr>().expect("an address")]
        );
        assert_eq!(address("localhost:1").expect("good").len(), 2);
        for bad in [
            "",
            "80",
            ":80",
            "web:80",
            "127.0.0.1",
            "127.0.0.1:0",
            "localhost:0",
            "::1:80",
            "[::1]",
            "127.0.0.1:65536",
            "localhost",
            "localhost:",
            "127.0.0.1:80/",
        ] {
            address(bad).expect_err(bad);
        }
    }

    #[test]
    fn a_url_is_a_host_header_and_a_target() {
        for (text, address, host, target) in [
            ("http://127.0.0.1", "127.0.0.1:80", "127.0.0.1", "/"),
            (
                "http://127.0.0.1:8080/a?b",
                "127.0.0.1:8080",
                "127.0.0.1:8080",
                "/a?b",
            ),
            ("http://[::1]?x", "[::1]:80", "[::1]", "/?x"),
            ("http://[::1]:81/", "[::1]:81", "[::1]:81", "/"),
            (
                "http://localhost:9/%20",
                "127.0.0.1:9",
                "localhost:9",
                "/%20",
            ),
        ] {
            let url = url(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.addresses[0], address.parse().expect("an address"));
            assert_eq!((&*url.host, &*url.target), (host, target));
        }
        for bad in [
            "127.0.0.1",
            "http://",
            "http://web/",
            "http://u@127.0.0.1/",
            "http://::1/",
            "http://[127.0.0.1]/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\u{e9}",
            "http://127.0.0.1/#a",
            "https://127.0.0.1/",
            "HTTP",
        ] {
            url(bad).expect_err(bad);
        }
    }

    #[test]
    fn statuses_are_numbers_and_ranges() {
        assert_eq!(status_range("200"), Some((200, 200)));
        assert_eq!(status_range("200 - 299"), Some((200, 299)));
        for bad in ["", "-", "200-", "99", "600", "300-200", "+200", "2e2"] {
            assert_eq!(status_range(bad), None, "{bad}");
        }
    }
}
