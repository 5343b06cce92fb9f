//! The sockets of a box in the foreground, opened as systemd opens those of a socket unit: systemd.socket(5).
//!
//! There is nothing to wait for: the box begins at once, and its sockets end with it, their paths too.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{SetSockOpt, setsockopt, sockopt};
use nix::unistd::{Gid, Uid};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt as rustix_sockopt,
};

use crate::host::accounts::database_entry;
use crate::launch;
use crate::name::Name;
use crate::plan::{Address, BindIpv6Only, Listen, Socket, SocketKind, SocketOptions};

/// `SocketMode=` where nothing else is said.
const MODE: u32 = 0o666;

/// `DirectoryMode=` where nothing else is said.
const DIRECTORY_MODE: u32 = 0o755;

/// Why a socket is not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has the address.
    #[error(
        "box {name} cannot listen at {address}: somebody does already; if it is the unit of this box: \
         systemctl stop {unit}"
    )]
    Taken {
        /// The box.
        name: Name,
        /// As systemd.socket(5) has it.
        address: String,
        /// The unit that has this socket when systemd opens it.
        unit: String,
    },
    /// A user or group of the host is not there.
    #[error("box {name} cannot listen at {address}: this host has no {what} {account:?}")]
    Account {
        /// The box.
        name: Name,
        /// As systemd.socket(5) has it.
        address: String,
        /// `user` or `group`.
        what: &'static str,
        /// As it is written.
        account: String,
    },
    /// The kernel refused a step.
    #[error("box {name} cannot listen at {address}: cannot {attempt}")]
    Open {
        /// The box.
        name: Name,
        /// As systemd.socket(5) has it.
        address: String,
        /// What was tried.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The paths at which sockets listen; removed when this is dropped, unless they are another's by then.
#[derive(Debug, Default)]
pub struct Paths(Vec<(PathBuf, (u64, u64))>);

impl Drop for Paths {
    fn drop(&mut self) {
        for (path, identity) in &self.0 {
            if identity_of(path).is_ok_and(|found| found == *identity) {
                // Nobody answers there any more; one that stays is removed by who listens next.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Opens all sockets of a plan, in their order.
///
/// # Errors
///
/// One cannot be opened; then none is.
pub fn open(name: &Name, sockets: &[Socket]) -> Result<(launch::Sockets, Paths), Error> {
    let mut opened = launch::Sockets::new();
    let mut paths = Paths::default();
    for socket in sockets {
        for listen in &socket.listen {
            let attempt = Attempt {
                name,
                unit: &socket.unit,
                listen,
                options: &socket.options,
            };
            opened.push((socket.name.clone(), attempt.open(&mut paths)?));
        }
    }
    Ok((opened, paths))
}

/// One socket on its way.
struct Attempt<'a> {
    name: &'a Name,
    unit: &'a str,
    listen: &'a Listen,
    options: &'a SocketOptions,
}

impl Attempt<'_> {
    fn open(&self, paths: &mut Paths) -> Result<OwnedFd, Error> {
        let fd = match &self.listen.address {
            Address::Unix(path) => self.unix(path, paths)?,
            Address::Inet(address) => self.internet(*address)?,
            Address::Port(port) => {
                let all = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port);
                match self.internet(all) {
                    Err(Error::Open { source, .. })
                        if source.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
                    {
                        self.internet(SocketAddr::new([0, 0, 0, 0].into(), *port))?
                    }
                    other => other?,
                }
            }
        };
        if self.listen.kind != SocketKind::Datagram {
            // The kernel cuts it to net.core.somaxconn.
            let backlog = self
                .options
                .backlog
                .and_then(|wanted| i32::try_from(wanted).ok());
            rustix::net::listen(&fd, backlog.unwrap_or(i32::MAX)).map_err(self.bound("listen"))?;
        }
        Ok(fd)
    }

    fn socket(&self, family: AddressFamily) -> Result<OwnedFd, Error> {
        let kind = match self.listen.kind {
            SocketKind::Stream => SocketType::STREAM,
            SocketKind::Datagram => SocketType::DGRAM,
            SocketKind::SequentialPacket => SocketType::SEQPACKET,
        };
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
            .map_err(|errno| self.failed("make a socket", errno.into()))
    }

    fn internet(&self, address: SocketAddr) -> Result<OwnedFd, Error> {
        let options = self.options;
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let fd = self.socket(family)?;
        self.set(&fd, "reuse the address", sockopt::ReuseAddr, Some(true))?;
        if family == AddressFamily::INET6 {
            let only = match options.bind_ipv6_only {
                None | Some(BindIpv6Only::Default) => None,
                Some(BindIpv6Only::Both) => Some(false),
                Some(BindIpv6Only::Ipv6Only) => Some(true),
            };
            self.set(&fd, "set bind-ipv6-only", sockopt::Ipv6V6Only, only)?;
        }
        let device = options.bind_to_device.as_ref().map(Into::into);
        self.set(&fd, "set bind-to-device", sockopt::BindToDevice, device)?;
        self.set(
            &fd,
            "set reuse-port",
            sockopt::ReusePort,
            options.reuse_port,
        )?;
        // The options of IPv4 are those of a socket of IPv6, too.
        self.set(&fd, "set free-bind", sockopt::IpFreebind, options.free_bind)?;
        self.set(
            &fd,
            "set transparent",
            sockopt::IpTransparent,
            options.transparent,
        )?;
        if self.listen.kind == SocketKind::Stream {
            self.set(
                &fd,
                "set keep-alive",
                sockopt::KeepAlive,
                options.keep_alive,
            )?;
            self.set(&fd, "set no-delay", sockopt::TcpNoDelay, options.no_delay)?;
        } else {
            self.set(&fd, "set broadcast", sockopt::Broadcast, options.broadcast)?;
        }
        if let Some(tos) = options.ip_tos {
            rustix_sockopt::set_ip_tos(&fd, tos)
                .map_err(|errno| self.failed("set ip-tos", errno.into()))?;
        }
        if let Some(ttl) = options.ip_ttl {
            let set = match family {
                AddressFamily::INET6 => {
                    let hops = u8::try_from(ttl).ok();
                    rustix_sockopt::set_ipv6_unicast_hops(&fd, hops)
                }
                _ => rustix_sockopt::set_ip_ttl(&fd, ttl),
            };
            set.map_err(|errno| self.failed("set ip-ttl", errno.into()))?;
        }
        self.general(&fd)?;
        rustix::net::bind(&fd, &address).map_err(self.bound("bind it"))?;
        Ok(fd)
    }

    /// As systemd does it: parents are made, and a path at which nobody listens is taken.
    fn unix(&self, path: &Path, paths: &mut Paths) -> Result<OwnedFd, Error> {
        let options = self.options;
        let fd = self.socket(AddressFamily::UNIX)?;
        self.general(&fd)?;
        let address = SocketAddrUnix::new(path)
            .map_err(|errno| self.failed("use such a path", errno.into()))?;
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(options.directory_mode.unwrap_or(DIRECTORY_MODE))
                .create(parent)
                .map_err(|source| self.failed("make its directory", source))?;
        }
        self.clear(path)?;
        // Right from the beginning: a mode that is set later could be too late.
        let mode = Mode::from_raw_mode(options.mode.unwrap_or(MODE));
        let before = rustix::process::umask(!mode & Mode::from_raw_mode(0o777));
        let bound = rustix::net::bind(&fd, &address);
        rustix::process::umask(before);
        bound.map_err(self.bound("bind it"))?;
        let identity =
            identity_of(path).map_err(|source| self.failed("look at what was made", source))?;
        paths.0.push((path.to_owned(), identity));
        self.give(path)?;
        Ok(fd)
    }

    /// Removes a socket that nobody listens at.
    fn clear(&self, path: &Path) -> Result<(), Error> {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        if !is_socket {
            // Nothing, or what bind(2) will not take for a free place.
            return Ok(());
        }
        let failed = |errno: Errno| self.failed("see whether somebody listens there", errno.into());
        let probe = self.socket(AddressFamily::UNIX)?;
        rustix::io::ioctl_fionbio(&probe, true).map_err(failed)?;
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        match rustix::net::connect(&probe, &address) {
            Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(self.failed("remove what an earlier one has left", error))
                }
                _ => Ok(()),
            },
            Err(Errno::NOENT) => Ok(()),
            // One of another type, or whose queue is full, has somebody as well.
            Ok(()) | Err(Errno::PROTOTYPE | Errno::AGAIN) => Err(self.taken()),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn give(&self, path: &Path) -> Result<(), Error> {
        let user = self.options.user.as_ref();
        let user = user.map(|user| self.user(user)).transpose()?;
        let group = self.options.group.as_ref();
        let group = group.map(|group| self.group(group)).transpose()?;
        if user.is_none() && group.is_none() {
            return Ok(());
        }
        // A user without a group brings its own, as with systemd.
        let (uid, of_user) = user.unzip();
        let gid = group.or(of_user.flatten());
        std::os::unix::fs::lchown(path, uid.map(Uid::as_raw), gid.map(Gid::as_raw))
            .map_err(|source| self.failed("give it to its owner", source))
    }

    fn user(&self, account: &str) -> Result<(Uid, Option<Gid>), Error> {
        // NAME:PASSWORD:UID:GID:…
        let found = database_entry("passwd", account);
        let number = |field: usize| found.as_ref()?.get(field)?.parse().ok();
        let group = number(3).map(Gid::from_raw);
        account
            .parse()
            .ok()
            .or_else(|| number(2))
            .map(|user| (Uid::from_raw(user), group))
            .ok_or_else(|| self.no_account("user", account))
    }

    fn group(&self, account: &str) -> Result<Gid, Error> {
        // NAME:PASSWORD:GID:…
        let number = || database_entry("group", account)?.get(2)?.parse().ok();
        account
            .parse()
            .ok()
            .or_else(number)
            .map(Gid::from_raw)
            .ok_or_else(|| self.no_account("group", account))
    }

    /// What a socket of any family has.
    fn general(&self, fd: &OwnedFd) -> Result<(), Error> {
        let options = self.options;
        self.set(
            fd,
            "set pass-credentials",
            sockopt::PassCred,
            options.pass_credentials,
        )?;
        let number = |value: Option<u32>| value.and_then(|value| i32::try_from(value).ok());
        self.set(
            fd,
            "set priority",
            sockopt::Priority,
            number(options.priority),
        )?;
        self.set(fd, "set mark", sockopt::Mark, options.mark)?;
        if let Some(bytes) = options.receive_buffer.map(buffer) {
            rustix_sockopt::set_socket_recv_buffer_size_force(fd, bytes)
                .or_else(|_| rustix_sockopt::set_socket_recv_buffer_size(fd, bytes))
                .map_err(|errno| self.failed("set receive-buffer", errno.into()))?;
        }
        if let Some(bytes) = options.send_buffer.map(buffer) {
            rustix_sockopt::set_socket_send_buffer_size_force(fd, bytes)
                .or_else(|_| rustix_sockopt::set_socket_send_buffer_size(fd, bytes))
                .map_err(|errno| self.failed("set send-buffer", errno.into()))?;
        }
        Ok(())
    }

    fn set<O: SetSockOpt>(
        &self,
        fd: &OwnedFd,
        attempt: &'static str,
        option: O,
        value: Option<O::Val>,
    ) -> Result<(), Error>
    where
        O::Val: Sized,
    {
        let Some(value) = value else {
            return Ok(());
        };
        setsockopt(&borrowed(fd), option, &value)
            .map_err(|errno| self.failed(attempt, errno.into()))
    }

    fn bound(&self, attempt: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| match errno {
            Errno::ADDRINUSE => self.taken(),
            errno => self.failed(attempt, errno.into()),
        }
    }

    fn taken(&self) -> Error {
        Error::Taken {
            name: self.name.clone(),
            address: self.listen.address.to_string(),
            unit: self.unit.to_owned(),
        }
    }

    fn no_account(&self, what: &'static str, account: &str) -> Error {
        Error::Account {
            name: self.name.clone(),
            address: self.listen.address.to_string(),
            what,
            account: account.to_owned(),
        }
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> Error {
        Error::Open {
            name: self.name.clone(),
            address: self.listen.address.to_string(),
            attempt,
            source,
        }
    }
}

fn borrowed(fd: &OwnedFd) -> BorrowedFd<'_> {
    fd.as_fd()
}

/// The kernel takes no more than an int.
fn buffer(bytes: u64) -> usize {
    bytes.min(i32::MAX as u64) as usize
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn socket(address: Address, kind: SocketKind, options: SocketOptions) -> Socket {
        Socket {
            unit: "box@web.socket".to_owned(),
            name: "http".to_owned(),
            listen: vec![Listen { kind, address }],
            options,
        }
    }

    fn name() -> Name {
        "web".parse().expect("a name")
    }

    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    }

    #[test]
    fn a_path_is_made_with_its_mode_taken_from_the_dead_and_removed_in_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/b/socket");
        let options = SocketOptions {
            mode: Some(0o640),
            directory_mode: Some(0o750),
            backlog: Some(3),
            receive_buffer: Some(8192),
            pass_credentials: Some(true),
            user: Some("root".to_owned()),
            group: Some("0".to_owned()),
            ..SocketOptions::default()
        };
        let wanted = [socket(
            Address::Unix(path.clone()),
            SocketKind::Stream,
            options,
        )];
        let (sockets, paths) = open(&name(), &wanted).expect("opened");
        assert_eq!(sockets[0].0, "http");
        let mode = |path: &Path| {
            let found = fs::symlink_metadata(path).expect("it is there");
            found.permissions().mode() & 0o7777
        };
        assert_eq!(mode(&path), 0o640);
        assert_eq!(mode(&directory.path().join("a")), 0o750);
        UnixStream::connect(&path).expect("somebody listens");
        let taken = open(&name(), &wanted).expect_err("one at a time");
        assert!(matches!(taken, Error::Taken { .. }), "{taken}");
        assert!(path.exists(), "what is another's stays");
        drop((sockets, paths));
        assert!(!path.exists());

        drop(UnixListener::bind(&path).expect("bound"));
        let (sockets, paths) = open(&name(), &wanted).expect("nobody listens there");
        // Replaced behind our back: not ours to remove.
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "mine").expect("written");
        drop((sockets, paths));
        assert!(path.exists());
        let refused = open(&name(), &wanted).expect_err("a file is no place to listen");
        assert!(matches!(refused, Error::Taken { .. }), "{refused}");
        assert!(path.exists());
    }

    #[test]
    fn options_are_set_on_every_kind_of_address() {
        let port = free_port();
        let options = SocketOptions {
            keep_alive: Some(true),
            no_delay: Some(true),
            reuse_port: Some(true),
            free_bind: Some(true),
            transparent: Some(true),
            broadcast: Some(true),
            bind_ipv6_only: Some(BindIpv6Only::Both),
            send_buffer: Some(1 << 20),
            ip_tos: Some(0x10),
            ip_ttl: Some(7),
            priority: Some(3),
            mark: Some(5),
            bind_to_device: Some("lo".to_owned()),
            ..SocketOptions::default()
        };
        let local = Address::Inet(SocketAddr::new([127, 0, 0, 1].into(), port));
        let (sockets, _paths) = open(
            &name(),
            &[
                socket(local.clone(), SocketKind::Stream, options.clone()),
                socket(local, SocketKind::Datagram, options.clone()),
                socket(Address::Port(port), SocketKind::Stream, options),
            ],
        )
        .expect("opened");
        for (_, fd) in &sockets {
            assert!(rustix_sockopt::socket_reuseport(fd).expect("asked"));
            assert!(rustix_sockopt::ip_freebind(fd).expect("asked"));
            assert_eq!(rustix_sockopt::ip_tos(fd).expect("asked"), 0x10);
        }
        assert!(rustix_sockopt::socket_keepalive(&sockets[0].1).expect("asked"));
        assert!(rustix_sockopt::tcp_nodelay(&sockets[0].1).expect("asked"));
        assert!(rustix_sockopt::socket_broadcast(&sockets[1].1).expect("asked"));
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    }

    #[test]
    fn a_port_is_one_s_alone() {
        let port = free_port();
        let wanted = [socket(
            Address::Inet(SocketAddr::new([127, 0, 0, 1].into(), port)),
            SocketKind::Stream,
            SocketOptions::default(),
        )];
        let _first = open(&name(), &wanted).expect("opened");
        let taken = open(&name(), &wanted).expect_err("taken");
        assert_eq!(
            taken.to_string(),
            format!(
                "box web cannot listen at 127.0.0.1:{port}: somebody does already; if it is the unit of this \
                 box: systemctl stop box@web.socket"
            )
        );
    }

    #[test]
    fn an_account_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let options = SocketOptions {
            group: Some("no-such-group".to_owned()),
            ..SocketOptions::default()
        };
        let wanted = [socket(
            Address::Unix(path.clone()),
            SocketKind::Datagram,
            options,
        )];
        let error = open(&name(), &wanted).expect_err("no such group");
        assert!(
            matches!(error, Error::Account { what: "group", .. }),
            "{error}"
        );
        assert!(!path.exists(), "nothing is left of it");
    }
}
