//! Whether anybody uses the sockets of a box: `idle-stop`.
//!
//! A box is idle when no connection of its sockets exists or waits, and none has since the last look. What exists is
//! asked of the kernel, sock_diag(7), a few times in the time after which a box counts as idle, and never else. What
//! came and went between two looks leaves a trace that nobody is woken by:
//!
//! - TCP connections: the kernel tells of each that ends to whoever wants to hear, and a filter lets those of the
//!   sockets' ports into the buffer of a descriptor. Nobody waits for it; the next look finds it empty or not.
//! - Paths: connect(2) sets the time of the last access of the path, which every look that found it changed sets
//!   back. On a file system mounted `noatime` connections are seen only while they exist.
//!
//! This process has the host's network namespace, and in it the sockets are. A connection that comes while the box
//! is stopped waits in the socket, which systemd has, and starts the box again.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, statat, utimensat};

use super::policy::Phase;
use crate::handover::{Idle as Rule, Listener};
use crate::sys::{self, Called as _, Instruction};

/// Looks in the time after which a box counts as idle.
const LOOKS: u32 = 4;

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;

/// The groups in which the kernel tells of TCP connections that end, as bits: `SKNLGRP_INET_TCP_DESTROY` and
/// `SKNLGRP_INET6_TCP_DESTROY` of linux/sock_diag.h.
const TCP_ENDS: u32 = 1 << 0 | 1 << 2;

/// `struct nlmsghdr` of netlink(7), `struct inet_diag_msg` and `struct unix_diag_msg` of sock_diag(7): their lengths,
/// and where in them things are.
const HEADER: usize = 16;
const INET_MESSAGE: usize = 72;
const INET_SOURCE_PORT: usize = 4;
const INET_SOURCE: usize = 8;
const INET_INODE: usize = 68;
const UNIX_MESSAGE: usize = 16;

/// States of a TCP connection; `ss` has the same order. Those without a process that could use them are left out.
const ESTABLISHED: u32 = 1;
const FIN_WAIT_1: u32 = 4;
const FIN_WAIT_2: u32 = 5;
const CLOSE_WAIT: u32 = 8;

/// Room for one answer of the kernel, which is never larger; netlink(7).
const ANSWER: usize = 32 * 1024;

/// How long the sockets have not been used.
#[derive(Debug)]
pub struct Idle {
    rule: Rule,
    ended: Option<OwnedFd>,
    used: Duration,
    next: Duration,
}

impl Idle {
    /// From now on. What was before is not known, so it begins as if the sockets had been used.
    pub fn begin(rule: Rule, now: Duration) -> Idle {
        let ports: Vec<u16> = rule.listeners.iter().filter_map(port).collect();
        let mut idle = Idle {
            // Without it, what exists at a look is all that is known.
            ended: hear_of_ends(&ports).ok(),
            used: now,
            next: now,
            rule,
        };
        idle.is_path_used();
        idle.next = idle.next_after(now);
        idle
    }

    /// When [`Idle::look`] is due.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Looks, and says whether the time is over in which nobody used the sockets.
    ///
    /// # Errors
    ///
    /// The kernel does not say; then they count as used.
    pub fn look(&mut self, now: Duration) -> Result<bool, sys::Error> {
        // Each of these is asked, for each resets what it has seen.
        let traces = self.is_path_used() | self.has_heard_of_ends();
        let used = match self.is_connected() {
            Ok(connected) => traces || connected,
            Err(error) => {
                self.used = now;
                self.next = self.next_after(now);
                return Err(error);
            }
        };
        if used {
            self.used = now;
        }
        let over = now >= self.used + self.rule.after;
        self.next = self.next_after(now);
        Ok(over)
    }

    fn next_after(&self, now: Duration) -> Duration {
        let over = self.used + self.rule.after;
        let step = now + self.rule.after / LOOKS;
        if over > now { step.min(over) } else { step }
    }

    /// Whether a connection exists or waits.
    fn is_connected(&self) -> Result<bool, sys::Error> {
        for listener in &self.rule.listeners {
            let connected = match listener {
                Listener::Inet { address, port } => {
                    any(&inet_request(*address, *port), &|message| {
                        is_connection(message, *address, *port)
                    })?
                }
                Listener::Unix { path } => {
                    any(&unix_request(), &|message| has_path(message, path))?
                }
            };
            if connected {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a TCP connection has ended since the last look.
    fn has_heard_of_ends(&self) -> bool {
        let Some(ended) = &self.ended else {
            return false;
        };
        let mut heard = false;
        let mut start = [0; HEADER];
        loop {
            match recv(ended.as_raw_fd(), &mut start, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(nix::errno::Errno::EAGAIN) => return heard,
                Err(nix::errno::Errno::EINTR) => {}
                // More of them than there is room for.
                Ok(_) | Err(nix::errno::Errno::ENOBUFS) => heard = true,
                Err(_) => return heard,
            }
        }
    }

    /// Whether anybody has connected to a path since the last look.
    fn is_path_used(&self) -> bool {
        let mut used = false;
        for listener in &self.rule.listeners {
            let Listener::Unix { path } = listener else {
                continue;
            };
            let Ok(status) = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if (status.st_atime, status.st_atime_nsec) != (0, 0) {
                used = true;
                let _ = forget_access(path);
            }
        }
        used
    }
}

/// Looks if it is time to, and says whether nobody has used the sockets for the time of the rule. Only a box that is
/// ready is idle.
///
/// # Errors
///
/// As [`Idle::look`].
pub fn is_over(
    idle: &mut Option<Idle>,
    rule: Option<&Rule>,
    phase: Phase,
    now: Duration,
) -> Result<bool, sys::Error> {
    let Some(rule) = rule.filter(|_| phase == Phase::Running) else {
        *idle = None;
        return Ok(false);
    };
    let idle = idle.get_or_insert_with(|| Idle::begin(rule.clone(), now));
    if idle.next > now {
        return Ok(false);
    }
    idle.look(now)
}

fn port(listener: &Listener) -> Option<u16> {
    match listener {
        Listener::Inet { port, .. } => Some(*port),
        Listener::Unix { .. } => None,
    }
}

/// Sets the time of the last access to the beginning of all time: one that is older than the last change is set by
/// the next access, on a file system mounted `relatime` too.
fn forget_access(path: &Path) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access: Timespec::default(),
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// A socket to which the kernel writes of every TCP connection with one of these ports that ends.
fn hear_of_ends(ports: &[u16]) -> Result<OwnedFd, sys::Error> {
    let socket = diagnosis()?;
    // The least there is: one message is as good as many.
    setsockopt(&socket, sockopt::RcvBuf, &0).called(|| "setsockopt(SO_RCVBUF, 0)".to_owned())?;
    sys::attach_filter(socket.as_fd(), &only(ports))?;
    let group = NetlinkAddr::new(0, TCP_ENDS);
    bind(socket.as_raw_fd(), &group).called(|| format!("bind(AF_NETLINK, groups {TCP_ENDS})"))?;
    Ok(socket)
}

/// Lets pass what is about one of these ports; bpf(4).
fn only(ports: &[u16]) -> Vec<Instruction> {
    let instruction = |code: u32, operand| Instruction {
        code: code as u16,
        jump_true: 0,
        jump_false: 1,
        operand,
    };
    let end = |passes: u32| instruction(libc::BPF_RET | libc::BPF_K, passes);
    let offset = (HEADER + INET_SOURCE_PORT) as u32;
    let load = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    let compare = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut program = vec![instruction(load, offset)];
    for port in ports {
        program.extend([instruction(compare, (*port).into()), end(u32::MAX)]);
    }
    program.push(end(0));
    program
}

fn diagnosis() -> Result<OwnedFd, sys::Error> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )
    .called(|| "socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)".to_owned())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: TCP connections of one family from one port of ours.
fn inet_request(address: IpAddr, port: u16) -> Vec<u8> {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let states: u32 = 1 << ESTABLISHED | 1 << FIN_WAIT_1 | 1 << FIN_WAIT_2 | 1 << CLOSE_WAIT;
    let mut body = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(port.to_be_bytes());
    // The rest of `struct inet_diag_sockid`: any.
    body.resize(body.len() + 46, 0);
    request(&body)
}

/// `struct nlmsghdr` and `struct unix_diag_req`: connections, with the paths they have.
fn unix_request() -> Vec<u8> {
    const SHOW_NAME: u32 = 1;
    let mut body = vec![libc::AF_UNIX as u8, 0, 0, 0];
    body.extend((1u32 << ESTABLISHED).to_ne_bytes());
    body.extend(0u32.to_ne_bytes());
    body.extend(SHOW_NAME.to_ne_bytes());
    body.extend([0; 8]);
    request(&body)
}

fn request(body: &[u8]) -> Vec<u8> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut request = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    request
}

/// Whether any of the answers fits.
fn any(request: &[u8], fits: &dyn Fn(&[u8]) -> bool) -> Result<bool, sys::Error> {
    let socket = diagnosis()?;
    let call = |what: &str| format!("{what}(AF_NETLINK, SOCK_DIAG_BY_FAMILY)");
    send(socket.as_raw_fd(), request, MsgFlags::empty()).called(|| call("send"))?;
    let mut room = vec![0; ANSWER];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut room, MsgFlags::empty()) {
            Err(nix::errno::Errno::EINTR) => continue,
            received => received.called(|| call("recv"))?,
        };
        for message in Messages(room.get(..length).unwrap_or_default()) {
            match message {
                Answer::Socket(message) if fits(message) => return Ok(true),
                Answer::Socket(_) => {}
                Answer::End => return Ok(false),
                Answer::Error(number) => {
                    let error = io::Error::from_raw_os_error(number);
                    return Err(sys::Error::new(call("recv"), error));
                }
            }
        }
        if length == 0 {
            return Ok(false);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    Socket(&'a [u8]),
    End,
    Error(i32),
}

/// The messages of one datagram; netlink(7).
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Answer<'a>> {
        let length = u32_at(self.0, 0)? as usize;
        let kind = u16::from_ne_bytes(*self.0.get(4..)?.first_chunk()?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(match i32::from(kind) {
            libc::NLMSG_DONE => Answer::End,
            libc::NLMSG_ERROR => Answer::Error(u32_at(body, 0)?.cast_signed().wrapping_neg()),
            _ => Answer::Socket(body),
        })
    }
}

/// Whether a `struct inet_diag_msg` is about a connection that came to this address.
fn is_connection(message: &[u8], address: IpAddr, port: u16) -> bool {
    let read = || {
        let message: &[u8; INET_MESSAGE] = message.first_chunk()?;
        let state = u32::from(message[1]);
        let its_port = u16::from_be_bytes(*message[INET_SOURCE_PORT..].first_chunk()?);
        let its_address: &[u8; 16] = message[INET_SOURCE..].first_chunk()?;
        let its_address = match address {
            IpAddr::V4(_) => IpAddr::from(*its_address.first_chunk::<4>()?),
            IpAddr::V6(_) => IpAddr::from(*its_address),
        };
        // A connection the program has closed has no inode; nor has one it has not taken yet.
        let closed = matches!(state, FIN_WAIT_1 | FIN_WAIT_2) && u32_at(message, INET_INODE)? == 0;
        let here = address.is_unspecified() || its_address == address;
        Some(its_port == port && here && !closed)
    };
    read().unwrap_or(false)
}

/// Whether a `struct unix_diag_msg` has this path: that of the listening socket is the name of every connection taken
/// from it.
fn has_path(message: &[u8], path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    const UNIX_DIAG_NAME: u16 = 0;
    let read = || {
        let mut rest = message.get(UNIX_MESSAGE..)?;
        loop {
            // `struct nlattr`.
            let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
            let value = rest.get(4..length)?;
            if kind == UNIX_DIAG_NAME {
                let value = value.strip_suffix(&[0]).unwrap_or(value);
                return Some(value == path.as_os_str().as_bytes());
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    };
    read().unwrap_or(false)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const AFTER: Duration = Duration::from_secs(8);

    fn idle(listener: Listener) -> Idle {
        let rule = Rule {
            after: AFTER,
            listeners: vec![listener],
        };
        Idle::begin(rule, Duration::ZERO)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
        let tries = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            holds()
        });
        assert!(tries, "waited in vain for {what}");
    }

    /// Ends a connection in both directions, and waits until the kernel has too.
    fn end(mut client: impl Read, server: impl Sized) {
        drop(server);
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
    }

    #[test]
    fn looks_are_few_and_the_last_one_is_in_time() {
        let mut idle = idle(Listener::Unix {
            path: "/nowhere".into(),
        });
        for now in [2, 4, 6] {
            assert_eq!(idle.next(), seconds(now));
            assert_eq!(idle.look(seconds(now)), Ok(false));
        }
        assert_eq!(idle.next(), seconds(8));
        assert_eq!(idle.look(seconds(8)), Ok(true));
        assert_eq!(idle.next(), seconds(10));
    }

    #[test]
    fn tcp_connections_are_seen_while_they_wait_live_and_when_they_are_over() {
        for address in ["127.0.0.1:0", "[::]:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let local = listener.local_addr().expect("an address");
            let mut idle = idle(Listener::Inet {
                address: local.ip(),
                port: local.port(),
            });
            // Only root may hear of ends.
            let hears = rustix::process::geteuid().is_root();
            assert_eq!(idle.ended.is_some(), hears);
            assert_eq!(idle.look(seconds(100)), Ok(true), "{address}");
            let client = match local.ip() {
                ip if ip.is_unspecified() => TcpStream::connect(("127.0.0.1", local.port())),
                _ => TcpStream::connect(local),
            };
            let client = client.expect("connects");
            assert_eq!(idle.look(seconds(200)), Ok(false), "{address}: it waits");
            let (server, _) = listener.accept().expect("accepted");
            assert_eq!(idle.look(seconds(300)), Ok(false), "{address}: it lives");
            end(client, server);
            // The kernel tells a moment later.
            if hears {
                wait_for("a trace", || idle.look(seconds(400)) == Ok(false));
            }
            wait_for("idleness", || idle.look(seconds(500)) == Ok(true));
        }
    }

    #[test]
    fn connections_to_a_path_are_seen_too() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("socket");
        let listener = UnixListener::bind(&path).expect("listens");
        let mut idle = idle(Listener::Unix { path: path.clone() });
        assert_eq!(idle.look(seconds(100)), Ok(true));
        let client = UnixStream::connect(&path).expect("connects");
        assert_eq!(idle.look(seconds(200)), Ok(false), "it waits");
        let (server, _) = listener.accept().expect("accepted");
        assert_eq!(idle.look(seconds(300)), Ok(false), "it lives");
        end(client, server);
        let _ = idle.look(seconds(400));
        assert_eq!(idle.look(seconds(500)), Ok(true), "it is over");
        // Another that is over before anybody looks.
        let client = UnixStream::connect(&path).expect("connects");
        end(client, listener.accept().expect("accepted"));
        assert_eq!(idle.look(seconds(600)), Ok(false), "it lived");
        assert_eq!(idle.look(seconds(700)), Ok(true));
    }

    #[test]
    fn half_a_message_is_none() {
        for length in 0..INET_MESSAGE {
            assert!(!is_connection(&vec![0; length], [127, 0, 0, 1].into(), 0));
        }
        assert!(!has_path(&[0; 20], Path::new("")));
        assert_eq!(Messages(&[200, 0, 0, 0, 20, 0]).next(), None);
        assert_eq!(Messages(&[0; 64]).next(), None);
    }
}
