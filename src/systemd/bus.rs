//! A connection to systemd, and the one way its jobs are waited for.
//!
//! Calls are sent as raw messages, several in one write where several are wanted: a proxy's signal stream
//! would cost three more round trips before the first call. What a proxy would have checked is checked here:
//! a `JobRemoved` counts only when it comes from the peer that answered the call which made the job.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::export::futures_core::Stream;
use zbus::message::{Flags, Type as MessageType};
use zbus::wire::{DynamicType, OwnedObjectPath, Type};
use zbus::{Connection, Message, MessageStream};

use super::Error;

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// For calls that only ask. Jobs take as long as they take.
const ANSWER: Duration = Duration::from_secs(30);

/// So long it is waited until the bus is asked again that has no room for another connection: dbus-daemon(1) has a
/// `max_connections_per_user`, 256 mostly.
const CROWDED: Duration = Duration::from_millis(100);

/// Calls of one client that wait for their answers at a time: dbus-daemon(1) has a `max_replies_per_connection`.
const AT_ONCE: usize = 32;

/// How often the runtime goes round until what the kernel has is with whom it is for: once to ask the kernel, once for
/// the task that reads, once for the one that takes; and one more.
const TURNS: u32 = 4;

const MANAGER_OBJECT: Object<'static> = Object {
    destination: DESTINATION,
    path: MANAGER_PATH,
    interface: MANAGER,
};

fn properties_at(path: &str) -> Object<'_> {
    Object {
        destination: DESTINATION,
        path,
        interface: PROPERTIES,
    }
}

/// Whose method is called.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    /// The peer's name on the bus.
    pub destination: &'a str,
    /// Which of its objects.
    pub path: &'a str,
    /// By which of the object's interfaces.
    pub interface: &'a str,
}

/// A connection with the runtime that drives it.
pub(super) struct Bus {
    // Dropped before the runtime that its tasks run on.
    connection: Connection,
    runtime: tokio::runtime::Runtime,
}

/// One call that makes a job, and the words for it.
pub(super) struct JobCall {
    pub attempt: String,
    pub unit: String,
    pub message: Message,
}

/// Calls whose answers are looked at later.
pub(super) struct Posted {
    attempt: String,
    serials: Vec<NonZeroU32>,
    answers: Vec<Option<Message>>,
    stream: MessageStream,
}

/// Calls that are on their way.
pub(super) struct Jobs {
    calls: Vec<JobCall>,
    stream: MessageStream,
}

impl Bus {
    /// Connects to the system bus.
    pub fn connect() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(Error::Client)?;
        let connection = runtime
            .block_on(reach())
            .map_err(|error| Error::Connect(Box::new(error)))?;
        Ok(Bus {
            connection,
            runtime,
        })
    }

    /// Sends calls in one go, whoever they are for, and waits for none of them.
    pub fn post(&self, attempt: &str, calls: &[Message]) -> Result<Posted, Error> {
        let posted = Posted {
            attempt: attempt.to_owned(),
            serials: calls
                .iter()
                .map(|call| call.primary_header().serial_num())
                .collect(),
            answers: calls.iter().map(|_| None).collect(),
            // Everything that arrives from now on is kept until it is looked at.
            stream: MessageStream::from(&self.connection),
        };
        self.runtime
            .block_on(self.connection.send_all(calls))
            .map_err(|error| lost(attempt, error))?;
        Ok(posted)
    }

    /// Takes what has arrived by now, without waiting; whether that are all answers.
    pub fn look_for_answers(&self, posted: &mut Posted) -> Result<bool, Error> {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                posted.take_what_is_there().await?;
                if posted.is_answered() {
                    break;
                }
                // The runtime asks the kernel what has arrived, and does not wait for it.
                tokio::task::yield_now().await;
            }
            Ok(posted.is_answered())
        })
    }

    /// Waits for all answers, in the order of the calls.
    pub fn answers(
        &self,
        mut posted: Posted,
        within: Duration,
    ) -> Result<Vec<Result<Message, Error>>, Error> {
        self.runtime.block_on(async {
            tokio::time::timeout(within, posted.all())
                .await
                .unwrap_or_else(|_| {
                    Err(Error::Timeout {
                        attempt: posted.attempt.clone(),
                        waited: within,
                    })
                })
        })?;
        let answers = posted.answers.into_iter().flatten();
        Ok(answers
            .map(|answer| match answer.message_type() {
                MessageType::Error => Err(refusal(&posted.attempt, "", &answer)),
                _ => Ok(answer),
            })
            .collect())
    }

    /// A message that calls a method of systemd's manager object.
    pub fn message<B>(&self, attempt: &str, member: &str, body: &B) -> Result<Message, Error>
    where
        B: Serialize + DynamicType,
    {
        self.message_to(MANAGER_OBJECT, attempt, member, body)
    }

    /// A message that calls a method of any object.
    pub fn message_to<B>(
        &self,
        object: Object<'_>,
        attempt: &str,
        member: &str,
        body: &B,
    ) -> Result<Message, Error>
    where
        B: Serialize + DynamicType,
    {
        Message::method_call(object.path, member)
            .destination(object.destination)
            .interface(object.interface)
            .build(body)
            .map_err(|error| form(attempt, error))
    }

    /// Calls a method of the manager and waits for the answer.
    pub fn call<B, R>(&self, attempt: &str, member: &str, body: &B) -> Result<R, Error>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        self.call_within(ANSWER, attempt, member, body)
    }

    /// The same, for a call that may take longer than others.
    pub fn call_within<B, R>(
        &self,
        within: Duration,
        attempt: &str,
        member: &str,
        body: &B,
    ) -> Result<R, Error>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let message = self.message(attempt, member, body)?;
        self.ask(within, attempt, message)
    }

    /// All properties of an object, of every interface it has.
    pub fn properties(&self, attempt: &str, path: &str) -> Result<Properties, Error> {
        let message = self.message_to(properties_at(path), attempt, "GetAll", &("",))?;
        Ok(Properties(self.ask(ANSWER, attempt, message)?))
    }

    /// The same of several objects, in their order. As many calls are on their way at a time as the bus takes of one
    /// client.
    pub fn properties_of(&self, attempt: &str, paths: &[String]) -> Result<Vec<Properties>, Error> {
        let calls = paths
            .iter()
            .map(|path| self.message_to(properties_at(path), attempt, "GetAll", &("",)))
            .collect::<Result<Vec<_>, Error>>()?;
        self.ask_all(attempt, &calls, |reply| {
            Ok(Properties(reply.body().deserialize()?))
        })
    }

    /// One property of each of these objects: path, interface and name. It takes a fraction of what all of them take.
    pub fn each<T>(&self, attempt: &str, wanted: &[(String, &str, &str)]) -> Result<Vec<T>, Error>
    where
        T: Default + TryFrom<zbus::wire::OwnedVariant>,
    {
        let calls = wanted
            .iter()
            .map(|(path, of, name)| {
                self.message_to(properties_at(path), attempt, "Get", &(of, name))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        self.ask_all(attempt, &calls, |reply| {
            let value: zbus::wire::OwnedVariant = reply.body().deserialize()?;
            Ok(T::try_from(value).unwrap_or_default())
        })
    }

    /// What is read from the replies to these calls, in their order.
    fn ask_all<T>(
        &self,
        attempt: &str,
        calls: &[Message],
        read: impl Fn(&Message) -> Result<T, zbus::Error>,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::with_capacity(calls.len());
        for calls in calls.chunks(AT_ONCE) {
            let mut replies = self.runtime.block_on(async {
                let mut stream = MessageStream::from(&self.connection);
                self.connection
                    .send_all(calls)
                    .await
                    .map_err(|error| lost(attempt, error))?;
                tokio::time::timeout(ANSWER, replies_to(&mut stream, calls, attempt))
                    .await
                    .unwrap_or_else(|_| {
                        Err(Error::Timeout {
                            attempt: attempt.to_owned(),
                            waited: ANSWER,
                        })
                    })
            })?;
            for call in calls {
                let serial = call.primary_header().serial_num();
                let reply = replies.remove(&serial).ok_or_else(|| Error::Lost {
                    attempt: attempt.to_owned(),
                    source: None,
                })?;
                if reply.message_type() == MessageType::Error {
                    return Err(refusal(attempt, "", &reply));
                }
                all.push(read(&reply).map_err(|error| form(attempt, error))?);
            }
        }
        Ok(all)
    }

    /// Sends calls that make jobs; [`Bus::finish`] waits for them.
    pub fn begin(&self, calls: Vec<JobCall>) -> Result<Jobs, Error> {
        let attempt = calls.first().map_or("", |call| &call.attempt).to_owned();
        // Everything that arrives from now on is kept until it is looked at, replies and signals alike.
        let stream = MessageStream::from(&self.connection);
        let mut messages = vec![subscription(&calls).map_err(|error| form(&attempt, error))?];
        messages.extend(calls.iter().map(|call| call.message.clone()));
        self.runtime
            .block_on(self.connection.send_all(&messages))
            .map_err(|error| lost(&attempt, error))?;
        Ok(Jobs { calls, stream })
    }

    /// Waits until every job has ended, for each call what became of it.
    pub fn finish(&self, jobs: Jobs, timeout: Option<Duration>) -> Vec<Result<(), Error>> {
        let Jobs { calls, stream } = jobs;
        let mut wait = JobWait::new(calls);
        self.runtime.block_on(async {
            let all = wait.all(stream);
            match timeout {
                None => all.await,
                // Whatever has no outcome when the time is over is reported so below.
                Some(limit) => drop(tokio::time::timeout(limit, all).await),
            }
        });
        wait.outcomes(timeout.unwrap_or_default())
    }

    fn ask<R>(&self, within: Duration, attempt: &str, message: Message) -> Result<R, Error>
    where
        R: DeserializeOwned + Type,
    {
        let reply = self.runtime.block_on(async {
            let mut stream = MessageStream::from(&self.connection);
            let serial = message.primary_header().serial_num();
            self.connection
                .send(&message)
                .await
                .map_err(|error| lost(attempt, error))?;
            tokio::time::timeout(within, reply_to(&mut stream, serial, attempt))
                .await
                .unwrap_or_else(|_| {
                    Err(Error::Timeout {
                        attempt: attempt.to_owned(),
                        waited: within,
                    })
                })
        })?;
        if reply.message_type() == MessageType::Error {
            return Err(refusal(attempt, "", &reply));
        }
        reply
            .body()
            .deserialize()
            .map_err(|error| form(attempt, error))
    }
}

impl Posted {
    async fn all(&mut self) -> Result<(), Error> {
        while !self.is_answered() {
            match next(&mut self.stream).await {
                Some(message) => self.take(message)?,
                None => return Err(self.broke_off()),
            }
        }
        Ok(())
    }

    async fn take_what_is_there(&mut self) -> Result<(), Error> {
        while !self.is_answered() {
            let stream = &mut self.stream;
            let there =
                poll_fn(|context| Poll::Ready(Pin::new(&mut *stream).poll_next(context))).await;
            match there {
                Poll::Pending => break,
                Poll::Ready(Some(message)) => self.take(message)?,
                Poll::Ready(None) => return Err(self.broke_off()),
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Result<Message, zbus::Error>) -> Result<(), Error> {
        let message = message.map_err(|error| lost(&self.attempt, error))?;
        let Some(serial) = message.header().reply_serial() else {
            return Ok(());
        };
        if let Some(index) = self.serials.iter().position(|known| *known == serial) {
            self.answers[index] = Some(message);
        }
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }

    fn broke_off(&self) -> Error {
        Error::Lost {
            attempt: self.attempt.clone(),
            source: None,
        }
    }
}

/// The system bus. systemd's private socket would be a hop shorter, and there before D-Bus is, but systemd
/// signs what it says there with a name that D-Bus does not allow for a sender, and zbus hangs up on that.
async fn reach() -> Result<Connection, zbus::Error> {
    let begin = Instant::now();
    loop {
        let attempt = tokio::time::timeout(ANSWER, Connection::system())
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        match attempt {
            // Hundreds of boxes start at once, and each is done with the bus in a moment.
            Err(zbus::Error::MethodError(ref name, ..))
                if name.as_str() == "org.freedesktop.DBus.Error.LimitsExceeded"
                    && begin.elapsed() < ANSWER =>
            {
                tokio::time::sleep(CROWDED).await;
            }
            attempt => return attempt,
        }
    }
}

/// Properties of one object by name.
pub(super) struct Properties(HashMap<String, zbus::wire::OwnedVariant>);

impl Properties {
    /// The property, if it is there and of that type; else the type's empty value, as an unset property has.
    pub fn get<T>(&self, name: &str) -> T
    where
        T: Default + TryFrom<zbus::wire::OwnedVariant>,
    {
        self.0
            .get(name)
            .and_then(|value| value.try_clone().ok())
            .and_then(|value| T::try_from(value).ok())
            .unwrap_or_default()
    }

    /// The property `Job` of a unit: its number, 0 for none, and its path.
    pub fn job(&self) -> Option<(u32, OwnedObjectPath)> {
        let value = self.0.get("Job")?.try_clone().ok()?;
        let (id, path) = <(u32, OwnedObjectPath)>::try_from(value).ok()?;
        (id != 0).then_some((id, path))
    }
}

/// The object path of a unit: every byte but letters and digits is written as `_` and two digits.
pub(super) fn unit_path(unit: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (index, byte) in unit.bytes().enumerate() {
        let plain = byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && index > 0);
        if plain {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// What is known of a set of calls while their jobs run.
struct JobWait {
    calls: Vec<JobCall>,
    outcomes: Vec<Option<Result<(), Error>>>,
    serials: HashMap<NonZeroU32, usize>,
    /// Jobs by path and by the name of the peer that made them.
    jobs: HashMap<(OwnedObjectPath, Option<String>), usize>,
}

impl JobWait {
    fn new(calls: Vec<JobCall>) -> Self {
        JobWait {
            outcomes: calls.iter().map(|_| None).collect(),
            serials: calls
                .iter()
                .enumerate()
                .map(|(index, call)| (call.message.primary_header().serial_num(), index))
                .collect(),
            jobs: HashMap::new(),
            calls,
        }
    }

    async fn all(&mut self, mut stream: MessageStream) {
        while self.outcomes.iter().any(Option::is_none) {
            match next(&mut stream).await {
                Some(Ok(message)) => self.look_at(&message),
                Some(Err(error)) => return self.broke_off(Some(error)),
                None => return self.broke_off(None),
            }
        }
    }

    fn look_at(&mut self, message: &Message) {
        let header = message.header();
        let sender = header.sender().map(ToString::to_string);
        match message.message_type() {
            MessageType::MethodReturn => {
                let Some(index) = self.take_call(message) else {
                    return;
                };
                match message.body().deserialize::<OwnedObjectPath>() {
                    Ok(job) => drop(self.jobs.insert((job, sender), index)),
                    Err(error) => {
                        self.outcomes[index] = Some(Err(form(&self.calls[index].attempt, error)));
                    }
                }
            }
            MessageType::Error => {
                if let Some(index) = self.take_call(message) {
                    let call = &self.calls[index];
                    self.outcomes[index] = Some(Err(refusal(&call.attempt, &call.unit, message)));
                }
            }
            MessageType::Signal if is_job_removed(message) => {
                // A job ends after systemd has answered the call that made it, so it is known by now.
                let Ok((_, job, _, result)) = message
                    .body()
                    .deserialize::<(u32, OwnedObjectPath, String, String)>()
                else {
                    return;
                };
                if let Some(index) = self.jobs.remove(&(job, sender)) {
                    self.outcomes[index] = Some(self.ended(index, result));
                }
            }
            MessageType::Signal | MessageType::MethodCall => {}
        }
    }

    fn take_call(&mut self, message: &Message) -> Option<usize> {
        let serial = message.header().reply_serial()?;
        self.serials.remove(&serial)
    }

    fn ended(&self, index: usize, result: String) -> Result<(), Error> {
        // "skipped" is what a reload of an inactive unit, or the start of an active one, comes to.
        if result == "done" {
            return Ok(());
        }
        let call = &self.calls[index];
        Err(Error::Job {
            attempt: call.attempt.clone(),
            unit: call.unit.clone(),
            result,
        })
    }

    fn broke_off(&mut self, error: Option<zbus::Error>) {
        for (call, outcome) in self.calls.iter().zip(&mut self.outcomes) {
            if outcome.is_none() {
                *outcome = Some(Err(Error::Lost {
                    attempt: call.attempt.clone(),
                    source: error.clone().map(Box::new),
                }));
            }
        }
    }

    fn outcomes(self, waited: Duration) -> Vec<Result<(), Error>> {
        self.outcomes
            .into_iter()
            .zip(self.calls)
            .map(|(outcome, call)| {
                outcome.unwrap_or(Err(Error::Timeout {
                    attempt: call.attempt,
                    waited,
                }))
            })
            .collect()
    }
}

/// Asks the bus for the `JobRemoved` of these units. systemd sends it because one of its clients made the job;
/// `Subscribe` is not needed.
fn subscription(calls: &[JobCall]) -> Result<Message, zbus::Error> {
    let unit = match calls {
        // So that the jobs of a whole boot do not come our way.
        [call] => format!(",arg2='{}'", call.unit),
        _ => String::new(),
    };
    let rule = format!(
        "type='signal',sender='{DESTINATION}',path='{MANAGER_PATH}',interface='{MANAGER}',member='JobRemoved'{unit}"
    );
    Message::method_call("/org/freedesktop/DBus", "AddMatch")
        .destination("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .with_flags(Flags::NO_REPLY_EXPECTED)
        .build(&(rule,))
}

fn is_job_removed(message: &Message) -> bool {
    let header = message.header();
    header.member().is_some_and(|member| member == "JobRemoved")
        && header
            .interface()
            .is_some_and(|interface| interface == MANAGER)
}

async fn next(stream: &mut MessageStream) -> Option<Result<Message, zbus::Error>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

async fn reply_to(
    stream: &mut MessageStream,
    serial: NonZeroU32,
    attempt: &str,
) -> Result<Message, Error> {
    loop {
        match next(stream).await {
            Some(Ok(message)) if message.header().reply_serial() == Some(serial) => {
                return Ok(message);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(attempt, error)),
            None => {
                return Err(Error::Lost {
                    attempt: attempt.to_owned(),
                    source: None,
                });
            }
        }
    }
}

/// The replies to all these calls, by the serial of the call.
async fn replies_to(
    stream: &mut MessageStream,
    calls: &[Message],
    attempt: &str,
) -> Result<HashMap<NonZeroU32, Message>, Error> {
    let mut replies = HashMap::with_capacity(calls.len());
    let serials: HashSet<NonZeroU32> = calls
        .iter()
        .map(|call| call.primary_header().serial_num())
        .collect();
    while replies.len() < serials.len() {
        match next(stream).await {
            Some(Ok(message)) => {
                let serial = message.header().reply_serial();
                if let Some(serial) = serial.filter(|serial| serials.contains(serial)) {
                    replies.insert(serial, message);
                }
            }
            Some(Err(error)) => return Err(lost(attempt, error)),
            None => {
                return Err(Error::Lost {
                    attempt: attempt.to_owned(),
                    source: None,
                });
            }
        }
    }
    Ok(replies)
}

/// An error reply in our words.
fn refusal(attempt: &str, unit: &str, reply: &Message) -> Error {
    let attempt = attempt.to_owned();
    let name = reply
        .header()
        .error_name()
        .map(ToString::to_string)
        .unwrap_or_default();
    let reason = reply
        .body()
        .deserialize::<String>()
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| name.clone());
    let reason = reason.trim_end_matches('.').to_owned();
    match name.as_str() {
        "org.freedesktop.systemd1.UnitExists" => Error::Exists {
            attempt,
            unit: unit.to_owned(),
        },
        "org.freedesktop.systemd1.NoSuchUnit" => Error::NoSuchUnit { attempt },
        "org.freedesktop.DBus.Error.AccessDenied"
        | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
            Error::Denied { attempt, reason }
        }
        _ => Error::Refused {
            attempt,
            name,
            reason,
        },
    }
}

fn form(attempt: &str, error: zbus::Error) -> Error {
    Error::Form {
        attempt: attempt.to_owned(),
        source: Box::new(error),
    }
}

fn lost(attempt: &str, error: zbus::Error) -> Error {
    Error::Lost {
        attempt: attempt.to_owned(),
        source: Some(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_units_path_escapes_all_but_letters_and_digits() {
        assert_eq!(
            unit_path("box@web-1.service"),
            "/org/freedesktop/systemd1/unit/box_40web_2d1_2eservice"
        );
        assert_eq!(unit_path("0a"), "/org/freedesktop/systemd1/unit/_30a");
    }
}
