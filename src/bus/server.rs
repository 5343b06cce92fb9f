//! The connection: what comes over it, and what is told on it.
//!
//! One thread waits for messages, and never for anything else: each call is a task of its own, so that one who waits
//! for polkit, or for a box, keeps nobody waiting. What blocks is done on threads that end when nothing is left to do.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use zbus::export::futures_core::Stream;
use zbus::message::{Flags, Type as MessageType};
use zbus::wire::{DynamicType, ObjectPath, Variant};
use zbus::{Connection, Message, MessageStream};

use super::boxes::{self, Known, News, Values, Which};
use super::interface::{BOX, HOST, MANAGER, PROPERTIES, path_of, unescaped};
use super::refusal::Refusal;
use super::turns::{BLOCKING, Counted, Turns};
use super::{ANSWER, NAME};
use crate::name::Name;

/// Most bytes of the arguments of a call.
const ARGUMENTS_MAX: usize = 64 << 10;

/// So long it is gathered what has changed before it is looked at.
const GATHER: Duration = Duration::from_millis(100);

/// After so long it is tried again to look, where that did not work.
const AGAIN: Duration = Duration::from_secs(15);

/// After so long the bus is tried again: at first, and at most.
const RECONNECT: Duration = Duration::from_secs(1);
const RECONNECT_MAX: Duration = Duration::from_secs(60);

const DBUS: &str = "org.freedesktop.DBus";
const DBUS_PATH: &str = "/org/freedesktop/DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const UNITS: &str = "/org/freedesktop/systemd1/unit/";

/// The bus beside whatever else the agent does.
#[derive(Debug, Clone)]
pub struct Bus {
    again: Arc<Notify>,
}

impl Bus {
    /// Definitions, or what is in force of them, may have changed.
    pub fn look_again(&self) {
        self.again.notify_one();
    }
}

/// Serves for as long as the process lives, whatever becomes of the bus.
///
/// # Errors
///
/// There is no thread for it.
pub fn serve() -> io::Result<Bus> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING + 1)
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    let bus = Bus {
        again: Arc::new(Notify::new()),
    };
    let again = bus.again.clone();
    thread::Builder::new()
        .name("bus".to_owned())
        .spawn(move || runtime.block_on(for_ever(&again)))?;
    Ok(bus)
}

async fn for_ever(again: &Arc<Notify>) -> Infallible {
    let mut pause = RECONNECT;
    let mut said = String::new();
    loop {
        let mut served = false;
        let error = serve_once(again, &mut served).await;
        if served {
            pause = RECONNECT;
            said.clear();
        }
        let error = error.to_string();
        if said != error {
            tracing::warn!("{NAME} is not on the system bus, and is tried again: {error}");
            said = error;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(RECONNECT_MAX);
    }
}

/// Why there is nothing to serve on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("it cannot be reached: {0}")]
    Reach(#[source] zbus::Error),
    #[error("it does not answer within {} s", ANSWER.as_secs())]
    Timeout,
    #[error("the connection broke off{}", .0.as_ref().map_or_else(String::new, |error| format!(": {error}")))]
    Lost(Option<zbus::Error>),
    #[error("{attempt}: {source}")]
    Refused {
        attempt: &'static str,
        source: zbus::Error,
    },
    #[error("somebody else has the name; see `busctl status {NAME}`")]
    Taken,
}

async fn serve_once(again: &Arc<Notify>, served: &mut bool) -> Error {
    let connection = match tokio::time::timeout(ANSWER, Connection::system()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Error::Reach(error),
        Err(_) => return Error::Timeout,
    };
    let mut stream = MessageStream::from(&connection);
    let server = Arc::new(Server::new(connection));
    let mut keeper = tokio::spawn(server.clone().keep_up(again.clone()));
    let error = loop {
        tokio::select! {
            message = next(&mut stream) => match message {
                Some(Ok(message)) => server.take(message).await,
                Some(Err(error)) => break Error::Lost(Some(error)),
                None => break Error::Lost(None),
            },
            ended = &mut keeper => break match ended {
                Ok(Err(error)) => error,
                Ok(Ok(never)) => match never {},
                Err(_) => Error::Lost(None),
            },
        }
    };
    keeper.abort();
    *served = server.is_named();
    error
}

async fn next(stream: &mut MessageStream) -> Option<Result<Message, zbus::Error>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// One connection to the bus.
pub(super) struct Server {
    pub(super) connection: Connection,
    pub(super) known: Mutex<Known>,
    /// What is to be looked at next.
    stale: Mutex<Which>,
    wake: Notify,
    /// One looks at a time, so that what is told is told in order.
    looking: tokio::sync::Mutex<()>,
    /// The unique name of systemd.
    systemd: Mutex<String>,
    named: Mutex<bool>,
    pub(super) turns: Turns,
}

/// A panic has left nothing half done.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    fn new(connection: Connection) -> Server {
        Server {
            connection,
            known: Mutex::default(),
            stale: Mutex::new(Which::All),
            wake: Notify::new(),
            looking: tokio::sync::Mutex::default(),
            systemd: Mutex::default(),
            named: Mutex::new(false),
            turns: Turns::new(),
        }
    }

    fn is_named(&self) -> bool {
        *locked(&self.named)
    }

    /// Takes the name, and tells what changes from then on.
    async fn keep_up(self: Arc<Self>, again: Arc<Notify>) -> Result<Infallible, Error> {
        self.listen().await?;
        self.look_at_stale().await;
        self.take_name().await?;
        *locked(&self.named) = true;
        tracing::info!("{NAME} is on the system bus");
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = again.notified() => locked(&self.stale).and(Which::All),
            }
            tokio::time::sleep(GATHER).await;
            self.look_at_stale().await;
        }
    }

    /// Hears from systemd what becomes of units, and from the bus where systemd is.
    async fn listen(&self) -> Result<(), Error> {
        let units = format!(
            "type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',\
             path_namespace='{}',arg0='{SYSTEMD}.Unit'",
            UNITS.trim_end_matches('/')
        );
        let owner = format!(
            "type='signal',sender='{DBUS}',interface='{DBUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'"
        );
        for rule in [units, owner] {
            self.ask(DBUS, DBUS_PATH, DBUS, "AddMatch", &(rule,))
                .await
                .map_err(refused("it passes on nothing"))?;
        }
        // Where systemd is not to be found now, it is told when it is.
        if let Ok(reply) = self
            .ask(DBUS, DBUS_PATH, DBUS, "GetNameOwner", &(SYSTEMD,))
            .await
            && let Ok(owner) = reply.body().deserialize()
        {
            *locked(&self.systemd) = owner;
        }
        self.subscribe().await
    }

    async fn subscribe(&self) -> Result<(), Error> {
        self.ask(
            SYSTEMD,
            SYSTEMD_PATH,
            "org.freedesktop.systemd1.Manager",
            "Subscribe",
            &(),
        )
        .await
        .map(drop)
        .map_err(refused("systemd tells nothing of its units"))
    }

    async fn take_name(&self) -> Result<(), Error> {
        const DO_NOT_QUEUE: u32 = 4;
        const OWNER: [u32; 2] = [1, 4];
        let reply = self
            .ask(DBUS, DBUS_PATH, DBUS, "RequestName", &(NAME, DO_NOT_QUEUE))
            .await
            .map_err(refused("it does not give the name"))?;
        match reply.body().deserialize::<u32>() {
            Ok(answer) if OWNER.contains(&answer) => Ok(()),
            _ => Err(Error::Taken),
        }
    }

    async fn ask<B>(
        &self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: &B,
    ) -> Result<Message, zbus::Error>
    where
        B: Serialize + DynamicType,
    {
        let call =
            self.connection
                .call_method(Some(destination), path, Some(interface), member, body);
        tokio::time::timeout(ANSWER, call)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    /// Looks at what is stale; where that does not work, it stays so for a while.
    async fn look_at_stale(&self) {
        loop {
            let which = std::mem::replace(&mut *locked(&self.stale), Which::none());
            if which.is_none() {
                return;
            }
            let Err(error) = self.look(which.clone()).await else {
                continue;
            };
            tracing::warn!("cannot see what has become of boxes: {error}");
            locked(&self.stale).and(which);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Looks at boxes, and tells what is new of them.
    pub(super) async fn look(&self, which: Which) -> Result<(), String> {
        let _one_at_a_time = self.looking.lock().await;
        let all = which == Which::All;
        let seen = tokio::task::spawn_blocking(move || boxes::look(&which))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| crate::journal::chain(&error))?;
        let news = locked(&self.known).take(seen, all);
        // Before the name is taken nobody listens.
        if self.is_named() {
            for news in news {
                if let Err(error) = self.tell(&news).await {
                    tracing::debug!("cannot tell {news:?}: {error}");
                }
            }
        }
        Ok(())
    }

    async fn tell(&self, news: &News) -> Result<(), zbus::Error> {
        let changed = |path: &str, interface: &str, values: &Values| {
            Message::signal(path, PROPERTIES, "PropertiesChanged").build(&(
                interface,
                variants(values),
                &[] as &[&str],
            ))
        };
        let counted = |name: &Name, signal: &str| {
            let path = path_of(name);
            let body = (name.as_str(), ObjectPath::try_from(path.as_str())?);
            Message::signal(HOST, MANAGER, signal).build(&body)
        };
        let message = match news {
            News::Host(values) => changed(HOST, MANAGER, values)?,
            News::Box(name, values) => changed(&path_of(name), BOX, values)?,
            News::New(name) => counted(name, "BoxNew")?,
            News::Removed(name) => counted(name, "BoxRemoved")?,
        };
        self.connection.send(&message).await
    }

    /// Takes a message, and waits for nothing but that the bus takes a refusal.
    async fn take(self: &Arc<Self>, message: Message) {
        match message.message_type() {
            MessageType::Signal => self.hear(&message),
            MessageType::MethodCall => match self.admit(&message) {
                Ok(counted) => drop(tokio::spawn(self.clone().answer(message, counted))),
                Err(refusal) => self.reply(&message, Err(refusal)).await,
            },
            MessageType::MethodReturn | MessageType::Error => {}
        }
    }

    /// Whether a call is of a size to be kept, and not one of too many of its connection.
    fn admit(&self, message: &Message) -> Result<Counted<String>, Refusal> {
        let header = message.header();
        if message.body().len() > ARGUMENTS_MAX || header.unix_fds().is_some_and(|fds| fds > 0) {
            return Err(Refusal::too_much(format!(
                "arguments are at most {ARGUMENTS_MAX} bytes and no file descriptors"
            )));
        }
        let sender = header
            .sender()
            .ok_or_else(|| Refusal::arguments("no sender is named"))?;
        self.turns.one_more_from(sender.as_str())
    }

    fn hear(self: &Arc<Self>, message: &Message) {
        let header = message.header();
        let (Some(sender), Some(member)) = (header.sender(), header.member()) else {
            return;
        };
        match member.as_str() {
            "NameOwnerChanged" if sender.as_str() == DBUS => {
                let body = message.body();
                if let Ok((name, _, now)) = body.deserialize::<(&str, &str, &str)>()
                    && name == SYSTEMD
                {
                    now.clone_into(&mut locked(&self.systemd));
                    if !now.is_empty() {
                        let server = self.clone();
                        tokio::spawn(async move {
                            if let Err(error) = server.subscribe().await {
                                tracing::warn!("{error}");
                            }
                            server.is_stale(Which::All);
                        });
                    }
                }
            }
            // Anybody could send such a signal here.
            "PropertiesChanged" if sender.as_str() == *locked(&self.systemd) => {
                let unit = header
                    .path()
                    .and_then(|path| unescaped(path.as_str().strip_prefix(UNITS)?));
                if let Some(name) = unit.as_deref().and_then(box_of) {
                    self.is_stale(Which::These(BTreeSet::from([name])));
                }
            }
            _ => {}
        }
    }

    /// These are to be looked at soon.
    pub(super) fn is_stale(&self, which: Which) {
        locked(&self.stale).and(which);
        self.wake.notify_one();
    }

    async fn answer(self: Arc<Self>, message: Message, _counted: Counted<String>) {
        let answer = self.respond(&message).await;
        self.reply(&message, answer).await;
    }

    async fn reply(&self, call: &Message, answer: Result<Message, Refusal>) {
        if call
            .primary_header()
            .flags()
            .contains(Flags::NO_REPLY_EXPECTED)
        {
            return;
        }
        let header = call.header();
        let reply = match answer {
            Ok(reply) => Ok(reply),
            Err(refusal) => Message::error(&header, refusal.error).build(&(refusal.text,)),
        };
        let sent = match reply {
            Ok(reply) => self.connection.send(&reply).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!("cannot answer a call: {error}");
        }
    }
}

fn refused(attempt: &'static str) -> impl FnOnce(zbus::Error) -> Error {
    move |source| Error::Refused { attempt, source }
}

pub(super) fn variants(values: &Values) -> HashMap<&'static str, Variant<'_>> {
    let pairs = values.iter();
    pairs
        .map(|(name, value)| (*name, value.variant()))
        .collect()
}

/// The box of a unit that is a box's service.
fn box_of(unit: &str) -> Option<Name> {
    unit.strip_prefix("box@")?
        .strip_suffix(".service")?
        .parse()
        .ok()
}
