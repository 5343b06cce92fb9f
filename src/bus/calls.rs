//! What a call is answered: who it is from, what it is about, whether they may, and what comes of it.

use serde::Serialize;
use zbus::Message;
use zbus::message::Flags;
use zbus::wire::{DynamicType, ObjectPath};

use super::authority::{self, Question};
use super::boxes::{Values, Which};
use super::caller::Caller;
use super::errand;
use super::interface::{Errand, How, Need, Object, Tells, Value, introspection, path_of};
use super::refusal::Refusal;
use super::server::{Server, locked, variants};
use crate::name::Name;

/// What was asked, and by whom.
struct Call<'a> {
    message: &'a Message,
    sender: &'a str,
    caller: Caller,
    object: &'a Object,
}

impl Server {
    /// What is answered to a call.
    pub async fn respond(&self, message: &Message) -> Result<Message, Refusal> {
        let header = message.header();
        let (Some(sender), Some(path), Some(member)) =
            (header.sender(), header.path(), header.member())
        else {
            return Err(Refusal::arguments("no sender, object or method is named"));
        };
        let caller = Caller::of(&self.connection, sender.as_str()).await?;
        let _of_user = self.turns.one_more_of(caller.uid)?;
        let object = Object::at(path.as_str()).ok_or_else(|| {
            Refusal::new(
                "org.freedesktop.DBus.Error.UnknownObject",
                format!("there is no object {path}"),
            )
        })?;
        let interface = header.interface().map(|interface| interface.as_str());
        let method = object.method(interface, member.as_str()).ok_or_else(|| {
            let known = interface.is_none_or(|interface| object.has(interface));
            let (error, what) = match known {
                true => ("org.freedesktop.DBus.Error.UnknownMethod", "method"),
                false => ("org.freedesktop.DBus.Error.UnknownInterface", "interface"),
            };
            Refusal::new(error, format!("{path} has no such {what}"))
        })?;
        let takes: String = method
            .takes
            .iter()
            .map(|(_, signature)| *signature)
            .collect();
        let given = header.signature().to_string_no_parens();
        if given != takes {
            return Err(Refusal::arguments(format!(
                "{member} takes ({takes}), and was given ({given})"
            )));
        }
        let need = object.need(method);
        let name = match &object {
            Object::Box(name) => Some(name.as_str()),
            _ => None,
        };
        let question = Question {
            sender: sender.as_str(),
            need,
            method: method.name,
            name,
            may_ask: message
                .primary_header()
                .flags()
                .contains(Flags::ALLOW_INTERACTIVE_AUTH),
        };
        authority::check(&self.connection, caller, &question).await?;
        let call = Call {
            message,
            sender: sender.as_str(),
            caller,
            object: &object,
        };
        tracing::debug!("{} of {} for {}", method.name, path, call.sender);
        self.carry_out(&call, &method.how, need).await
    }

    async fn carry_out(
        &self,
        call: &Call<'_>,
        how: &'static How,
        need: Need,
    ) -> Result<Message, Refusal> {
        let form = |_| Refusal::arguments("the arguments have another form");
        let body = call.message.body();
        match how {
            How::Introspect => {
                let children = match call.object {
                    Object::Above(child) => vec![(*child).to_owned()],
                    Object::Host => vec!["box".to_owned()],
                    Object::Boxes => {
                        let known = locked(&self.known);
                        let paths = known.boxes.keys().map(path_of);
                        let elements =
                            paths.filter_map(|path| path.rsplit('/').next().map(str::to_owned));
                        elements.collect()
                    }
                    Object::Box(name) => {
                        self.be_there(call, name).await?;
                        Vec::new()
                    }
                };
                answer(call, &(introspection(call.object, &children),))
            }
            How::Ping => answer(call, &()),
            How::MachineId => match std::fs::read_to_string("/etc/machine-id") {
                Ok(id) => answer(call, &(id.trim(),)),
                Err(error) => Err(Refusal::failed(format!("/etc/machine-id: {error}"))),
            },
            How::Get => {
                let (interface, property): (&str, &str) = body.deserialize().map_err(form)?;
                let values = self.values(call, interface).await?;
                let value = values.get(property).ok_or_else(|| {
                    Refusal::new(
                        "org.freedesktop.DBus.Error.UnknownProperty",
                        format!("there is no property {property}"),
                    )
                })?;
                answer(call, &(value.variant(),))
            }
            How::GetAll => {
                let interface: &str = body.deserialize().map_err(form)?;
                let values = self.values(call, interface).await?;
                answer(call, &(variants(&values),))
            }
            How::Set => Err(Refusal::new(
                "org.freedesktop.DBus.Error.PropertyReadOnly",
                "no property can be set; methods change what they show",
            )),
            How::ListBoxes => {
                let names: Vec<(Name, String)> = {
                    let known = locked(&self.known);
                    let boxes = known.boxes.iter();
                    boxes
                        .map(|(name, values)| (name.clone(), state(values)))
                        .collect()
                };
                let paths: Vec<String> = names.iter().map(|(name, _)| path_of(name)).collect();
                let rows: Vec<(&str, &str, ObjectPath<'_>)> = names
                    .iter()
                    .zip(&paths)
                    .filter_map(|((name, state), path)| {
                        Some((
                            name.as_str(),
                            state.as_str(),
                            path.as_str().try_into().ok()?,
                        ))
                    })
                    .collect();
                answer(call, &(rows,))
            }
            How::GetBox => {
                let text: &str = body.deserialize().map_err(form)?;
                let name: Name = text.parse().map_err(|_| Refusal::no_such_box(text))?;
                self.be_there(call, &name).await?;
                let path = path_of(&name);
                let path = ObjectPath::try_from(path.as_str())
                    .map_err(|error| Refusal::failed(error.to_string()))?;
                answer(call, &(path,))
            }
            How::Boxctl(errand) => self.run(call, errand, need).await,
        }
    }

    /// The box has an object if it is there now.
    async fn be_there(&self, call: &Call<'_>, name: &Name) -> Result<(), Refusal> {
        self.look_for(call, Which::These([name.clone()].into()))
            .await?;
        match locked(&self.known).boxes.contains_key(name) {
            true => Ok(()),
            false => Err(Refusal::no_such_box(name.as_str())),
        }
    }

    /// The properties as they are now.
    async fn values(&self, call: &Call<'_>, interface: &str) -> Result<Values, Refusal> {
        // The empty one is any.
        if !interface.is_empty() && !call.object.has(interface) {
            return Err(Refusal::new(
                "org.freedesktop.DBus.Error.UnknownInterface",
                format!("there is no interface {interface} here"),
            ));
        }
        let own = interface.is_empty() || Some(interface) == call.object.interface();
        match call.object {
            Object::Box(name) => {
                self.be_there(call, name).await?;
                let known = locked(&self.known);
                let values = known.boxes.get(name);
                Ok(values.filter(|_| own).cloned().unwrap_or_default())
            }
            Object::Host if own => {
                self.look_for(call, Which::none()).await?;
                Ok(locked(&self.known).whole.clone())
            }
            Object::Host | Object::Above(_) | Object::Boxes => Ok(Values::new()),
        }
    }

    async fn look_for(&self, call: &Call<'_>, which: Which) -> Result<(), Refusal> {
        let _turn = self.turns.look(call.caller).await;
        self.look(which).await.map_err(Refusal::failed)
    }

    async fn run(
        &self,
        call: &Call<'_>,
        errand: &'static Errand,
        need: Need,
    ) -> Result<Message, Refusal> {
        let name = match call.object {
            Object::Box(name) => Some(name),
            _ => None,
        };
        let words = (errand.words)(call.message, name)
            .map_err(|error| Refusal::arguments(error.to_string()))?;
        if let Some(name) = name {
            self.be_there(call, name).await?;
        }
        let _turn = match need {
            Need::Nothing | Need::Look => self.turns.look(call.caller).await,
            Need::Manage | Need::Configure => self.turns.change(call.caller).await,
        };
        let author = call.caller.author();
        let said = tokio::task::spawn_blocking(move || errand::run(errand, &words, author)).await;
        if !matches!(need, Need::Nothing | Need::Look) {
            // Not all of it is told by systemd.
            self.is_stale(match (need, name) {
                (Need::Manage, Some(name)) => Which::These([name.clone()].into()),
                _ => Which::All,
            });
        }
        let said = said
            .map_err(|error| Refusal::failed(error.to_string()))?
            .map_err(Refusal::failed)?;
        match errand.tells {
            Tells::Nothing => answer(call, &()),
            _ => answer(call, &(said,)),
        }
    }
}

fn answer<B>(call: &Call<'_>, body: &B) -> Result<Message, Refusal>
where
    B: Serialize + DynamicType,
{
    Message::method_return(&call.message.header())
        .build(body)
        .map_err(|error| Refusal::failed(error.to_string()))
}

fn state(values: &Values) -> String {
    match values.get("State") {
        Some(Value::Text(state)) => state.clone(),
        _ => String::new(),
    }
}
