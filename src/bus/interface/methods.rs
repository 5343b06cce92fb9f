//! The methods, a row each.

use zbus::Message;

use super::{
    Argument, BOX, Errand, How, INTROSPECTABLE, MANAGER, Method, Need, PEER, PROPERTIES, Tells,
    Unfit,
};
use crate::name::Name;

/// Every method.
pub const METHODS: &[Method] = &[
    method(
        INTROSPECTABLE,
        "Introspect",
        &[],
        &[("xml", "s")],
        Need::Nothing,
        How::Introspect,
    ),
    method(PEER, "Ping", &[], &[], Need::Nothing, How::Ping),
    method(
        PEER,
        "GetMachineId",
        &[],
        &[("machine_uuid", "s")],
        Need::Nothing,
        How::MachineId,
    ),
    method(
        PROPERTIES,
        "Get",
        &[("interface", "s"), ("property", "s")],
        &[("value", "v")],
        Need::Look,
        How::Get,
    ),
    method(
        PROPERTIES,
        "GetAll",
        &[("interface", "s")],
        &[("properties", "a{sv}")],
        Need::Look,
        How::GetAll,
    ),
    method(
        PROPERTIES,
        "Set",
        &[("interface", "s"), ("property", "s"), ("value", "v")],
        &[],
        Need::Look,
        How::Set,
    ),
    method(
        MANAGER,
        "ListBoxes",
        &[],
        &[("boxes", "a(sso)")],
        Need::Look,
        How::ListBoxes,
    ),
    method(
        MANAGER,
        "GetBox",
        &[("name", "s")],
        &[("object", "o")],
        Need::Look,
        How::GetBox,
    ),
    method(
        MANAGER,
        "Status",
        &[("names", "as")],
        &[("json", "s")],
        Need::Look,
        tolerant(
            |message, _| with_names(&["status", "--json"], message),
            Tells::Output,
            &[0, 3],
        ),
    ),
    method(
        MANAGER,
        "List",
        &[],
        &[("json", "s")],
        Need::Look,
        tell(|_, _| just(&["list", "--json"])),
    ),
    method(
        MANAGER,
        "Stats",
        &[("names", "as")],
        &[("json", "s")],
        Need::Look,
        tell(|message, _| with_names(&["stats", "--json"], message)),
    ),
    method(
        MANAGER,
        "Check",
        &[],
        &[("problems", "s")],
        Need::Look,
        tolerant(|_, _| just(&["check"]), Tells::Complaints, &[0, 1]),
    ),
    method(
        MANAGER,
        "Doctor",
        &[],
        &[("json", "s")],
        Need::Look,
        tolerant(
            |_, _| just(&["doctor", "--all", "--json"]),
            Tells::Output,
            &[0, 1],
        ),
    ),
    method(
        MANAGER,
        "Plan",
        &[("json", "b")],
        &[("text", "s")],
        Need::Look,
        tell(|message, _| maybe_json("plan", message)),
    ),
    method(
        MANAGER,
        "History",
        &[("json", "b")],
        &[("text", "s")],
        Need::Look,
        tell(|message, _| maybe_json("history", message)),
    ),
    method(
        MANAGER,
        "Diff",
        &[("from", "t"), ("to", "t")],
        &[("text", "s")],
        Need::Look,
        tell(diff),
    ),
    method(
        MANAGER,
        "Apply",
        &[],
        &[("text", "s")],
        Need::Configure,
        tell(|_, _| just(&["apply"])),
    ),
    method(
        MANAGER,
        "Rollback",
        &[("generation", "t")],
        &[("text", "s")],
        Need::Configure,
        tell(rollback),
    ),
    method(
        BOX,
        "Inspect",
        &[],
        &[("json", "s")],
        Need::Look,
        tell(|_, name| of_box(&["inspect", "--json"], name)),
    ),
    method(
        BOX,
        "Plan",
        &[],
        &[("json", "s")],
        Need::Look,
        tell(|_, name| of_box(&["plan", "--json"], name)),
    ),
    method(
        BOX,
        "Security",
        &[],
        &[("json", "s")],
        Need::Look,
        tell(|_, name| of_box(&["security", "--json"], name)),
    ),
    method(
        BOX,
        "Explain",
        &[("key", "s")],
        &[("json", "s")],
        Need::Look,
        tell(explain),
    ),
    method(
        BOX,
        "Start",
        &[],
        &[],
        Need::Manage,
        act(|_, name| of_box(&["start"], name)),
    ),
    method(
        BOX,
        "Stop",
        &[],
        &[],
        Need::Manage,
        act(|_, name| of_box(&["stop"], name)),
    ),
    method(
        BOX,
        "Restart",
        &[],
        &[],
        Need::Manage,
        act(|_, name| of_box(&["restart"], name)),
    ),
    method(
        BOX,
        "Reload",
        &[],
        &[],
        Need::Manage,
        act(|_, name| of_box(&["reload"], name)),
    ),
    method(
        BOX,
        "Pause",
        &[],
        &[],
        Need::Manage,
        act(|_, name| of_box(&["pause"], name)),
    ),
    method(
        BOX,
        "Resume",
        &[],
        &[],
        Need::Manage,
        act(|_, name| of_box(&["resume"], name)),
    ),
    method(
        BOX,
        "Kill",
        &[("signal", "i"), ("all", "b")],
        &[],
        Need::Manage,
        act(kill),
    ),
    method(
        BOX,
        "Set",
        &[("settings", "as"), ("runtime", "b")],
        &[("text", "s")],
        Need::Configure,
        tell(set),
    ),
    method(
        BOX,
        "Enable",
        &[("now", "b")],
        &[("text", "s")],
        Need::Configure,
        tell(|message, name| at_boot("enable", message, name)),
    ),
    method(
        BOX,
        "Disable",
        &[("now", "b")],
        &[("text", "s")],
        Need::Configure,
        tell(|message, name| at_boot("disable", message, name)),
    ),
];

const fn method(
    interface: &'static str,
    name: &'static str,
    takes: &'static [Argument],
    gives: &'static [Argument],
    need: Need,
    how: How,
) -> Method {
    Method {
        interface,
        name,
        takes,
        gives,
        need,
        how,
    }
}

/// Writes what `boxctl` is called with.
type Words = fn(&Message, Option<&Name>) -> Result<Vec<String>, Unfit>;

/// Done by `boxctl`, and there is nothing to say of it.
const fn act(words: Words) -> How {
    tolerant(words, Tells::Nothing, &[0])
}

/// Done by `boxctl`, and answered what it prints.
const fn tell(words: Words) -> How {
    tolerant(words, Tells::Output, &[0])
}

/// The same where other exit statuses are none of a failure.
const fn tolerant(words: Words, tells: Tells, fine: &'static [i32]) -> How {
    How::Boxctl(Errand { words, tells, fine })
}

fn just(words: &[&str]) -> Result<Vec<String>, Unfit> {
    Ok(words.iter().map(|word| (*word).to_owned()).collect())
}

fn with_names(words: &[&str], message: &Message) -> Result<Vec<String>, Unfit> {
    let names: Vec<String> = message.body().deserialize()?;
    let mut words = just(words)?;
    for name in names {
        words.push(name.parse::<Name>()?.to_string());
    }
    Ok(words)
}

/// Options, and the box behind them. `--` ends the options, so nothing that a caller gives is one.
fn of_box(words: &[&str], name: Option<&Name>) -> Result<Vec<String>, Unfit> {
    let mut words = just(words)?;
    words.push("--".to_owned());
    words.extend(name.map(Name::to_string));
    Ok(words)
}

fn maybe_json(command: &str, message: &Message) -> Result<Vec<String>, Unfit> {
    match message.body().deserialize()? {
        true => just(&[command, "--json"]),
        false => just(&[command]),
    }
}

/// 0 is no generation, and without the first one there is no second.
fn diff(message: &Message, _: Option<&Name>) -> Result<Vec<String>, Unfit> {
    let (from, to) = message.body().deserialize::<(u64, u64)>()?;
    let given = [from, to].into_iter().take_while(|number| *number > 0);
    let mut words = just(&["diff"])?;
    words.extend(given.map(|number| number.to_string()));
    Ok(words)
}

/// 0 is the one before that in force.
fn rollback(message: &Message, _: Option<&Name>) -> Result<Vec<String>, Unfit> {
    let number: u64 = message.body().deserialize()?;
    let mut words = just(&["rollback"])?;
    words.extend((number > 0).then(|| number.to_string()));
    Ok(words)
}

/// The empty key is all of them.
fn explain(message: &Message, name: Option<&Name>) -> Result<Vec<String>, Unfit> {
    let key: String = message.body().deserialize()?;
    let mut words = just(&["explain", "--json", "--"])?;
    if !key.is_empty() {
        words.push(key);
        words.extend(name.map(Name::to_string));
    }
    Ok(words)
}

fn kill(message: &Message, name: Option<&Name>) -> Result<Vec<String>, Unfit> {
    let (signal, all) = message.body().deserialize::<(i32, bool)>()?;
    let signal = format!("--signal={signal}");
    match all {
        true => of_box(&["kill", &signal, "--all"], name),
        false => of_box(&["kill", &signal], name),
    }
}

fn set(message: &Message, name: Option<&Name>) -> Result<Vec<String>, Unfit> {
    let (settings, runtime) = message.body().deserialize::<(Vec<String>, bool)>()?;
    let mut words = match runtime {
        true => of_box(&["set", "--runtime"], name)?,
        false => of_box(&["set"], name)?,
    };
    words.extend(settings);
    Ok(words)
}

fn at_boot(verb: &str, message: &Message, name: Option<&Name>) -> Result<Vec<String>, Unfit> {
    match message.body().deserialize()? {
        true => of_box(&[verb, "--now"], name),
        false => of_box(&[verb], name),
    }
}
