//! The other end: asking the agent for something.

use std::future::poll_fn;
use std::io::{self, IsTerminal as _};
use std::num::NonZeroU32;
use std::pin::Pin;

use serde::Serialize;
use zbus::export::futures_core::Stream;
use zbus::message::{Flags, Type as MessageType};
use zbus::wire::DynamicType;
use zbus::{Connection, Message, MessageStream};

use super::interface::{BOX, HOST, MANAGER, path_of};
use super::{ANSWER, NAME};
use crate::name::Name;

/// Why the agent has not done it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none, so nothing has been asked.
    #[error("boxd.service does not answer on the system bus")]
    Absent(#[source] Option<Box<zbus::Error>>),
    /// It may have done it, or some of it.
    #[error("boxd.service went away while it was at work; see `boxctl status`")]
    Gone(#[source] Option<Box<zbus::Error>>),
    /// The caller may not.
    #[error("{0}")]
    Denied(String),
    /// It was tried.
    #[error("{0}")]
    Failed(String),
    /// An answer of another shape.
    #[error("boxd.service is of another version: the answer to {method} has another form")]
    Form {
        /// What was asked.
        method: &'static str,
        /// What zbus says.
        source: Box<zbus::Error>,
    },
}

/// What a method is given.
pub trait Arguments: Serialize + DynamicType {}

impl<T: Serialize + DynamicType> Arguments for T {}

/// A connection to the agent.
pub struct Client {
    // Dropped before the runtime that its tasks run on.
    connection: Connection,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Connects to the system bus.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`].
    pub fn connect() -> Result<Client, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| absent(error.into()))?;
        let connection = runtime
            .block_on(async { tokio::time::timeout(ANSWER, Connection::system()).await })
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(absent)?;
        Ok(Client {
            connection,
            runtime,
        })
    }

    /// Calls a method of the host's object; the text it answers.
    ///
    /// # Errors
    ///
    /// All of [`Error`].
    pub fn of_host(&self, method: &'static str, given: &impl Arguments) -> Result<String, Error> {
        self.call(HOST, MANAGER, method, given)
    }

    /// Calls a method of a box's object; the text it answers, empty if it answers none.
    ///
    /// # Errors
    ///
    /// All of [`Error`].
    pub fn of_box(
        &self,
        name: &Name,
        method: &'static str,
        given: &impl Arguments,
    ) -> Result<String, Error> {
        self.call(&path_of(name), BOX, method, given)
    }

    fn call(
        &self,
        path: &str,
        interface: &str,
        method: &'static str,
        given: &impl Arguments,
    ) -> Result<String, Error> {
        let form = |source| Error::Form {
            method,
            source: Box::new(source),
        };
        // Who sits at a terminal can be asked for a password.
        let flags = match io::stdin().is_terminal() {
            true => Flags::ALLOW_INTERACTIVE_AUTH,
            false => Flags::empty(),
        };
        let call = Message::method_call(path, method)
            .destination(NAME)
            .interface(interface)
            .with_flags(flags)
            .build(given)
            .map_err(form)?;
        let reply = self.runtime.block_on(async {
            let mut stream = MessageStream::from(&self.connection);
            self.connection.send(&call).await.map_err(gone)?;
            // It takes as long as it takes: a box may be started by it.
            reply_to(&mut stream, call.primary_header().serial_num()).await
        })?;
        match reply.message_type() {
            MessageType::Error => Err(refusal(&reply)),
            _ if reply.body().is_empty() => Ok(String::new()),
            _ => reply.body().deserialize().map_err(form),
        }
    }
}

async fn reply_to(stream: &mut MessageStream, serial: NonZeroU32) -> Result<Message, Error> {
    loop {
        match poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await {
            Some(Ok(message)) if message.header().reply_serial() == Some(serial) => {
                return Ok(message);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(gone(error)),
            None => return Err(Error::Gone(None)),
        }
    }
}

fn absent(error: zbus::Error) -> Error {
    Error::Absent(Some(Box::new(error)))
}

fn gone(error: zbus::Error) -> Error {
    Error::Gone(Some(Box::new(error)))
}

fn refusal(reply: &Message) -> Error {
    let header = reply.header();
    let name = header.error_name().map_or("", |name| name.as_str());
    let text = reply.body().deserialize::<String>().unwrap_or_default();
    understood(name, text)
}

fn understood(name: &str, text: String) -> Error {
    let last = name.rsplit('.').next().unwrap_or_default();
    match last {
        _ if name.starts_with("org.boxd1.") => Error::Failed(text),
        "AccessDenied" | "InteractiveAuthorizationRequired" => Error::Denied(text),
        // What a bus says of a name that nobody has.
        "ServiceUnknown" | "NameHasNoOwner" => Error::Absent(None),
        // And of one who had it when it was asked.
        "NoReply" | "Disconnected" | "TimedOut" | "Timeout" => Error::Gone(None),
        _ => Error::Failed(format!("{text} ({name})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_was_asked_for_may_be_tried_otherwise() {
        let is_absent = |name: &str| {
            let name = format!("org.freedesktop.DBus.Error.{name}");
            matches!(understood(&name, String::new()), Error::Absent(_))
        };
        for name in ["ServiceUnknown", "NameHasNoOwner"] {
            assert!(is_absent(name), "{name}");
        }
        for name in ["NoReply", "Disconnected", "TimedOut", "LimitsExceeded"] {
            assert!(!is_absent(name), "{name}");
        }
    }
}
