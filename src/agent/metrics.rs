//! What boxes use and how they are, for whoever collects metrics: OpenMetrics at [`SOCKET`], and at a loopback address
//! where the settings have one.
//!
//! A thread of its own serves them: who is slow to ask, or never takes the answer, holds up neither the agent nor
//! others. The agent makes the sockets, so that it can say why one could not be made, and hands them over.
//!
//! Root alone may connect to the socket, and the group in the settings. No unit of systemd listens there for the agent:
//! a collector that asks every few seconds would start an agent that somebody has stopped, and the agent applies what
//! is edited.

mod exposition;
mod facts;
mod http;
mod server;

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use crate::definition::agent as settings;
use crate::host::accounts::database_entry;
use crate::journal::chain;
use server::{Place, Server};

/// Where metrics are served.
pub const SOCKET: &str = "/run/boxd/metrics.sock";

/// Its name until it is what it should be.
const UNFINISHED: &str = "/run/boxd/.metrics.sock";

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nobody to serve them.
    #[error("cannot begin to serve metrics")]
    Begin(#[source] io::Error),
    /// The socket cannot be made.
    #[error("cannot {attempt} the socket {SOCKET}")]
    Socket {
        /// `make`, `give to its group` …
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The group in the settings is unknown here.
    #[error(
        "{} gives the metrics to the group {group:?}, which this host does not have: name another one, or make it: groupadd --system {group}",
        settings::SETTINGS
    )]
    Group {
        /// By its name.
        group: String,
    },
    /// The address in the settings cannot be had.
    #[error("cannot serve metrics at {address}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why: somebody else listens there, above all.
        source: io::Error,
    },
}

/// Metrics, served wherever the settings say.
#[derive(Debug, Default)]
pub struct Metrics {
    /// None before somebody serves.
    server: Option<Orders>,
    /// The group of the socket that is served, if one is.
    socket: Option<Option<String>>,
    address: Option<SocketAddr>,
}

/// What the thread is told.
#[derive(Debug)]
struct Orders {
    sender: Sender<Order>,
    wake: Arc<OwnedFd>,
}

/// It is to be listened there by this socket, or not any more.
type Order = (Place, Option<OwnedFd>);

impl Orders {
    /// Begins the thread, which serves nowhere yet.
    fn begin() -> Result<Orders, Error> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(|errno| Error::Begin(errno.into()))?);
        let (sender, receiver) = mpsc::channel();
        let woken = Arc::clone(&wake);
        thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || serve(&receiver, &woken))
            .map_err(Error::Begin)?;
        Ok(Orders { sender, wake })
    }
}

impl Metrics {
    /// Serves where the settings say; where they say nothing that can be understood, as before, and at least at the
    /// socket. What cannot be had is tried again when this is called again.
    ///
    /// # Errors
    ///
    /// The first of the places that cannot be had. It is served at the other one all the same.
    pub fn follow(&mut self, settings: Option<&settings::Metrics>) -> Result<(), Error> {
        if self.server.is_none() {
            self.server = Some(Orders::begin()?);
        }
        let Some(settings) = settings else {
            return match self.socket {
                None => self.follow_group(None),
                Some(_) => Ok(()),
            };
        };
        let socket = self.follow_group(settings.group.as_ref());
        let address = self.follow_address(settings.address);
        socket.and(address)
    }

    fn follow_group(&mut self, group: Option<&String>) -> Result<(), Error> {
        let is_there = fs::symlink_metadata(SOCKET).is_ok();
        if is_there && self.socket.as_ref().map(Option::as_ref) == Some(group) {
            return Ok(());
        }
        // Whoever was in the group before may be in none now.
        self.socket = None;
        self.order(Place::Socket, None);
        let socket = socket(group.map(String::as_str))?;
        self.order(Place::Socket, Some(socket));
        self.socket = Some(group.cloned());
        Ok(())
    }

    fn follow_address(&mut self, address: Option<SocketAddr>) -> Result<(), Error> {
        if self.address == address {
            return Ok(());
        }
        self.address = None;
        self.order(Place::Address, None);
        let Some(address) = address else {
            return Ok(());
        };
        let failed = |source| Error::Address { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        self.order(Place::Address, Some(listener.into()));
        self.address = Some(address);
        Ok(())
    }

    fn order(&self, place: Place, socket: Option<OwnedFd>) {
        if let Some(orders) = &self.server {
            // The thread ends with this process.
            let _ = orders.sender.send((place, socket));
            let _ = rustix::io::write(&orders.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// The listening socket, of root and the group alone from the first moment on.
fn socket(group: Option<&str>) -> Result<OwnedFd, Error> {
    let failed = |attempt| move |source| Error::Socket { attempt, source };
    let gid = match group {
        None => None,
        Some(name) => Some(gid(name)?),
    };
    let unfinished = Path::new(UNFINISHED);
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("make")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(unfinished).map_err(failed("make"))?;
    let mode = match gid {
        None => 0o600,
        Some(_) => 0o660,
    };
    const OWNER_AS_IT_IS: Option<u32> = None;
    chown(unfinished, OWNER_AS_IT_IS, gid.or(Some(0))).map_err(failed("give to its group"))?;
    fs::set_permissions(unfinished, Permissions::from_mode(mode))
        .map_err(failed("set the permissions of"))?;
    // An agent that was killed has left one.
    fs::rename(unfinished, SOCKET).map_err(failed("put in its place"))?;
    listener.set_nonblocking(true).map_err(failed("make"))?;
    Ok(listener.into())
}

fn gid(name: &str) -> Result<u32, Error> {
    // NAME:PASSWORD:GID:…
    database_entry("group", name)
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| Error::Group {
            group: name.to_owned(),
        })
}

/// The thread.
fn serve(orders: &Receiver<Order>, wake: &OwnedFd) {
    let mut server = Server::new(|| {
        let facts = facts::facts().map_err(|error| chain(&error))?;
        exposition::openmetrics(facts).map_err(|error| chain(&error))
    });
    loop {
        match server.turn(wake.as_fd()) {
            Ok(false) => {}
            Ok(true) => {
                let mut count = [0; 8];
                let _ = rustix::io::read(wake, &mut count);
                for (place, socket) in orders.try_iter() {
                    server.listen(place, socket);
                }
            }
            Err(error) => {
                tracing::error!(
                    "cannot wait for those who collect metrics: {}",
                    chain(&error)
                );
                // Started anew by systemd, the agent serves them again.
                process::exit(1);
            }
        }
    }
}
