//! `boxd probe NAME`: asks a box once how it is, as its `[health]` says. The supervisor calls it for each probe, so
//! that nothing of this is in the process that stays.
//!
//! A command runs as `boxctl exec` runs one: in the box's namespaces and cgroup, with its privileges and filter. Its
//! cgroup is one of its own below the box's, [`CGROUP`](crate::health::CGROUP), which the supervisor kills when the probe is over: whatever
//! the command left behind ends with it. For the others this process joins the box's network namespace, gives up
//! being root, and connects.
//!
//! All it says, on standard output, is for people, and at most [`OUTPUT_MAX`] bytes; the answer is the exit status.
//! It dies with the supervisor.

pub mod http;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Uid};

use crate::enter::{self, Errand, Input, Options, What};
use crate::health::{Answer, OUTPUT_MAX};
use crate::name::Name;
use crate::plan::{Health, Probe};
use crate::running::{self, Running};
use crate::sandbox::namespaces;
use crate::sys::{self, Called as _};

/// Why a box could not be asked, for which it is not to blame.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("box {0} has ended")]
    Ended(Name),
    #[error("box {0} was launched without [health] in its definition")]
    NoHealth(Name),
    #[error(transparent)]
    Running(#[from] running::Error),
    #[error(transparent)]
    Enter(#[from] enter::Error),
    #[error(transparent)]
    Network(#[from] namespaces::Error),
    #[error("cannot give up being root")]
    Privileges(#[source] sys::Error),
    #[error("cannot have this probe end with the supervisor")]
    Parent(#[source] sys::Error),
}

/// Asks, says what the answer was, and returns the exit status for it.
pub fn run(name: &Name) -> u8 {
    let (answer, output) = match ask(name) {
        Ok(asked) => asked,
        Err(error) => (Answer::Error, crate::journal::chain(&error).into_bytes()),
    };
    let begin = output.len().saturating_sub(OUTPUT_MAX);
    // A supervisor that does not listen any more has no use for it.
    let _ = std::io::stdout().write_all(&output[begin..]);
    answer.exit_status()
}

/// How the box answered, and with what words.
type Asked = (Answer, Vec<u8>);

fn ask(name: &Name) -> Result<Asked, Error> {
    die_with_the_supervisor()?;
    let running = running::find(name)?.ok_or_else(|| Error::Ended(name.clone()))?;
    let health = running.plan.health.clone();
    let Health { probe, rules } = health.ok_or_else(|| Error::NoHealth(name.clone()))?;
    let deadline = Instant::now() + rules.timeout;
    match probe {
        Probe::Command(command) => execute(&running, command, deadline, rules.timeout),
        Probe::Tcp(addresses) => {
            enter_network(&running)?;
            Ok(match connect(&addresses, deadline) {
                Ok((_, to)) => (Answer::Success, format!("connected to {to}").into_bytes()),
                Err(failed) => failed,
            })
        }
        Probe::Http {
            addresses,
            host,
            target,
            status,
            body,
        } => {
            enter_network(&running)?;
            let request = http::request(&host, &target);
            let expected = Expected {
                status: &status,
                body: body.as_deref(),
            };
            Ok(get(
                &addresses,
                &request,
                &expected,
                deadline,
                rules.timeout,
            ))
        }
    }
}

/// The supervisor may be killed, and its heir asks anew.
fn die_with_the_supervisor() -> Result<(), Error> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .called(|| "prctl(PR_SET_PDEATHSIG, SIGKILL)".to_owned())
        .map_err(Error::Parent)
}

fn execute(
    running: &Running,
    command: Vec<String>,
    deadline: Instant,
    timeout: Duration,
) -> Result<Asked, Error> {
    let options = Options {
        what: What::Command(command),
        user: None,
        working_directory: None,
        terminal: false,
        input: Input::Empty,
        errand: Errand::Probe,
    };
    match enter::collect(running, &options, deadline, OUTPUT_MAX) {
        Ok(collected) => Ok(match collected.status {
            Some(0) => (Answer::Success, collected.output),
            Some(status) => (
                Answer::Failure,
                with_last_line(collected.output, &format!("exit status {status}")),
            ),
            None => (
                Answer::Timeout,
                with_last_line(collected.output, &too_late(timeout)),
            ),
        }),
        // The box lacks the program, or the room for a process.
        Err(error @ enter::Error::Failed { .. }) => {
            Ok((Answer::Failure, crate::journal::chain(&error).into_bytes()))
        }
        Err(error) => Err(error.into()),
    }
}

fn too_late(timeout: Duration) -> String {
    format!("no answer within {timeout:?}")
}

/// Room is made for the line: it is what counts.
fn with_last_line(mut output: Vec<u8>, line: &str) -> Vec<u8> {
    if !output.is_empty() && !output.ends_with(b"\n") {
        output.push(b'\n');
    }
    output.extend_from_slice(line.as_bytes());
    output
}

/// From here on sockets are the box's, and this process can do nothing but use them.
fn enter_network(running: &Running) -> Result<(), Error> {
    const NOBODY: u32 = 65534;
    namespaces::join_network(running.process.as_fd())?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[])
        .called(|| "setgroups([])".to_owned())
        .map_err(Error::Privileges)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .called(|| format!("setresgid({NOBODY}, {NOBODY}, {NOBODY})"))
        .map_err(Error::Privileges)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .called(|| format!("setresuid({NOBODY}, {NOBODY}, {NOBODY})"))
        .map_err(Error::Privileges)?;
    // A change of ids takes it back.
    die_with_the_supervisor()
}

fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<(TcpStream, SocketAddr), Asked> {
    let mut said = Vec::new();
    let mut answer = Answer::Failure;
    for address in addresses {
        let left = left_until(deadline);
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => return Ok((stream, *address)),
            Err(error) => {
                answer = match error.kind() {
                    ErrorKind::TimedOut | ErrorKind::WouldBlock => Answer::Timeout,
                    _ => Answer::Failure,
                };
                said = with_last_line(said, &format!("cannot connect to {address}: {error}"));
            }
        }
    }
    Err((answer, said))
}

/// Zero means "for ever" to the calls that take it.
fn left_until(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

/// What a good answer is.
struct Expected<'a> {
    status: &'a [(u16, u16)],
    body: Option<&'a str>,
}

fn get(
    addresses: &[SocketAddr],
    request: &[u8],
    expected: &Expected<'_>,
    deadline: Instant,
    timeout: Duration,
) -> Asked {
    let (mut stream, address) = match connect(addresses, deadline) {
        Ok(connected) => connected,
        Err(failed) => return failed,
    };
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            (Answer::Timeout, too_late(timeout).into_bytes())
        }
        _ => (
            Answer::Failure,
            format!("lost the connection to {address}: {error}").into_bytes(),
        ),
    };
    let sent = stream
        .set_write_timeout(Some(left_until(deadline)))
        .and_then(|()| stream.write_all(request));
    if let Err(error) = sent {
        return failed(error);
    }
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if Instant::now() >= deadline {
            return (Answer::Timeout, too_late(timeout).into_bytes());
        }
        let read = stream
            .set_read_timeout(Some(left_until(deadline)))
            .and_then(|()| stream.read(&mut buffer));
        let length = match read {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // It may close a connection rudely that it has answered on.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !received.is_empty() => 0,
            Err(error) => return failed(error),
        };
        received.extend_from_slice(&buffer[..length]);
        let ended = length == 0 || received.len() >= http::ANSWER_MAX;
        match http::answer(&received, ended) {
            Ok(None) => {}
            Ok(Some(answer)) => {
                if let Some(asked) = expected.judge(&answer) {
                    return asked;
                }
            }
            Err(error) => {
                let text = format!("the answer of {address} is no HTTP: {error}");
                return (Answer::Failure, text.into_bytes());
            }
        }
    }
}

impl Expected<'_> {
    /// None while what is still to come may decide.
    fn judge(&self, answer: &http::Answer) -> Option<Asked> {
        let mut said = format!("HTTP {} ", answer.status).into_bytes();
        said.extend_from_slice(&answer.reason);
        let within = |(first, last): &(u16, u16)| (*first..=*last).contains(&answer.status);
        if !self.status.iter().any(within) {
            return Some((Answer::Failure, said));
        }
        let Some(wanted) = self.body else {
            return Some((Answer::Success, said));
        };
        if contains(&answer.body, wanted.as_bytes()) {
            return Some((Answer::Success, said));
        }
        if !answer.complete {
            return None;
        }
        said = with_last_line(said, &format!("its body does not contain {wanted:?}:\n"));
        let shown = answer.body.len().min(OUTPUT_MAX / 2);
        said.extend_from_slice(&answer.body[..shown]);
        Some((Answer::Failure, said))
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(20);

    /// Asks a server that sends these bytes, at intervals, and then closes or not.
    fn asked(
        parts: &'static [&'static [u8]],
        close: bool,
        expected: &Expected<'_>,
        timeout: Duration,
    ) -> Asked {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("a request");
            for part in parts {
                // It may have heard enough.
                let _ = stream.write_all(part);
                std::thread::sleep(Duration::from_millis(5));
            }
            if !close {
                let _ = stream.read(&mut request);
            }
            request[..length].to_vec()
        });
        let request = http::request("localhost", "/");
        let asked = get(
            &[address],
            &request,
            expected,
            Instant::now() + timeout,
            timeout,
        );
        assert_eq!(server.join().expect("served"), request);
        asked
    }

    #[test]
    fn status_and_body_decide() {
        let plain = Expected {
            status: &[(200, 399)],
            body: None,
        };
        let body = Expected {
            status: &[(200, 200)],
            body: Some("all well"),
        };
        let good: &[&[u8]] = &[b"HTTP/1.1 200 O", b"K\r\n\r\nit is all", b" well here"];
        let chunked: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n",
            b"5\r\n well\r\n0\r\n\r\n",
        ];
        assert_eq!(asked(good, false, &plain, SECOND).0, Answer::Success);
        assert_eq!(
            asked(good, true, &body, SECOND),
            (Answer::Success, b"HTTP 200 OK".to_vec())
        );
        assert_eq!(asked(chunked, false, &body, SECOND).0, Answer::Success);
        let (answer, said) = asked(&[b"HTTP/1.1 503 Not now\r\n\r\n"], false, &plain, SECOND);
        assert_eq!(
            (answer, &*said),
            (Answer::Failure, &b"HTTP 503 Not now"[..])
        );
        let (answer, said) = asked(&[b"HTTP/1.1 200 OK\r\n\r\nill"], true, &body, SECOND);
        assert_eq!(answer, Answer::Failure);
        assert_eq!(
            String::from_utf8_lossy(&said),
            "HTTP 200 OK\nits body does not contain \"all well\":\nill"
        );
        let (answer, said) = asked(&[b"SSH-2.0\r\n"], false, &plain, SECOND);
        assert_eq!(answer, Answer::Failure);
        assert!(String::from_utf8_lossy(&said).contains("is no HTTP"));
        let (answer, _) = asked(&[], true, &plain, SECOND);
        assert_eq!(answer, Answer::Failure);
    }

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for_longer_than_said() {
        let plain = Expected {
            status: &[(200, 399)],
            body: None,
        };
        let timeout = Duration::from_millis(50);
        let (answer, said) = asked(&[b"HTTP/1.1 200 OK\r\n"], false, &plain, timeout);
        assert_eq!(
            (answer, &*said),
            (Answer::Timeout, &b"no answer within 50ms"[..])
        );
    }

    #[test]
    fn nobody_who_listens_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let (answer, said) = connect(&[address], Instant::now() + SECOND).expect_err("nobody");
        assert_eq!(answer, Answer::Failure);
        assert!(String::from_utf8_lossy(&said).contains("refused"));
    }
}
