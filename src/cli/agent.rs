//! What `boxctl` has the agent do where its own user is not root: over the bus, with what polkit grants.

use std::process::ExitCode;

use serde::de::DeserializeOwned;

use super::arguments::Command;
use super::terminal::{Look, Paint, complain, say};
use super::{Error, look, names, stats};
use crate::bus::client::{self, Arguments, Client};
use crate::bus::interface::Need;
use crate::definition::Layers;
use crate::name::Name;
use crate::systemd;

/// Has the agent do it; none if that is nothing for it, or there is no agent: then it is tried without it.
pub fn instead(command: &Command, out: Look, err: Look) -> Option<Result<ExitCode, Error>> {
    if rustix::process::geteuid().is_root() || !systemd::is_running() {
        return None;
    }
    let need = need(command)?;
    match Client::connect().and_then(|client| Asker { client, out, err }.have(command)) {
        Ok(result) => Some(result),
        Err(client::Error::Absent(_)) => None,
        Err(client::Error::Denied(reason)) => Some(Err(Error::Denied {
            reason,
            remedy: remedy(need),
        })),
        Err(error) => Some(Err(error.into())),
    }
}

/// What of polkit's it takes; none for what is not asked for over the bus.
fn need(command: &Command) -> Option<Need> {
    Some(match command {
        Command::Status { .. }
        | Command::Stats { .. }
        | Command::Plan { source: None, .. }
        | Command::Apply { dry_run: true }
        | Command::History { .. }
        | Command::Diff { .. } => Need::Look,
        Command::Start(_)
        | Command::Stop(_)
        | Command::Restart(_)
        | Command::Reload(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Kill { .. } => Need::Manage,
        Command::Apply { dry_run: false }
        | Command::Rollback { .. }
        | Command::Set { .. }
        | Command::Enable { .. }
        | Command::Disable { .. } => Need::Configure,
        _ => return None,
    })
}

fn remedy(need: Need) -> &'static str {
    match need {
        Need::Configure => "run this as root",
        _ => "run this as root, or as a member of the group boxd",
    }
}

struct Asker {
    client: Client,
    out: Look,
    err: Look,
}

/// What became of a command, or that the agent did not take it.
type Taken = Result<Result<ExitCode, Error>, client::Error>;

impl Asker {
    fn have(&self, command: &Command) -> Taken {
        match command {
            Command::Status { names, json, lines } => {
                self.seen("Status", names, |report, names| {
                    look::shown(report, !names.is_empty(), *json, *lines, self.out)
                })
            }
            Command::Stats { names, json } => self.seen("Stats", names, |usage, _| {
                stats::shown(usage, *json, self.out)
            }),
            Command::Plan { json, .. } => self.printed("Plan", &(json,)),
            Command::Apply { dry_run: true } => self.printed("Plan", &(false,)),
            Command::History { json } => self.printed("History", &(json,)),
            Command::Diff { from, to } => {
                self.printed("Diff", &(from.unwrap_or(0), to.unwrap_or(0)))
            }
            Command::Apply { dry_run: false } => self.printed("Apply", &()),
            Command::Rollback { generation } => {
                self.printed("Rollback", &(generation.unwrap_or(0),))
            }
            Command::Start(names) => self.each(&names.names, "Start", &()),
            Command::Stop(names) => self.each(&names.names, "Stop", &()),
            Command::Restart(names) => self.each(&names.names, "Restart", &()),
            Command::Reload(names) => self.each(&names.names, "Reload", &()),
            Command::Pause(names) => self.each(&names.names, "Pause", &()),
            Command::Resume(names) => self.each(&names.names, "Resume", &()),
            Command::Kill { all, signal, names } => self.each(names, "Kill", &(signal, all)),
            Command::Set {
                runtime,
                name,
                settings,
            } => self.each(std::slice::from_ref(name), "Set", &(settings, runtime)),
            Command::Enable { now, names } => self.each(names, "Enable", &(now,)),
            Command::Disable { now, names } => self.each(names, "Disable", &(now,)),
            _ => Err(client::Error::Absent(None)),
        }
    }

    /// What is for people, or programs, as it comes.
    fn printed(&self, method: &'static str, given: &impl Arguments) -> Taken {
        let text = self.client.of_host(method, given)?;
        Ok(said(&text))
    }

    /// What is shown as if it had been seen from here.
    fn seen<T: DeserializeOwned>(
        &self,
        method: &'static str,
        texts: &[String],
        show: impl FnOnce(&T, &[Name]) -> Result<ExitCode, Error>,
    ) -> Taken {
        let names = match parsed(texts) {
            Ok(names) => names,
            Err(error) => return Ok(Err(error)),
        };
        let texts: Vec<&str> = names.iter().map(Name::as_str).collect();
        let json = self.client.of_host(method, &(texts,))?;
        Ok(match serde_json::from_str(&json) {
            Ok(seen) => show(&seen, &names),
            Err(error) => Err(error.into()),
        })
    }

    /// Done to one box after the other; one for which it does not work is named, and the others go on.
    fn each(&self, texts: &[String], method: &'static str, given: &impl Arguments) -> Taken {
        let names = match names::each(texts, &Layers::system(), names::defined) {
            Ok(names) => names,
            Err(error) => return Ok(Err(error.into())),
        };
        let mut result = ExitCode::SUCCESS;
        for name in names {
            match self.client.of_box(&name, method, given) {
                Ok(text) => {
                    if let Err(error) = say(&text) {
                        return Ok(Err(error.into()));
                    }
                }
                Err(client::Error::Failed(text)) => {
                    result = ExitCode::FAILURE;
                    let word = self.err.paint(Paint::Bad, "boxctl:");
                    complain(&format!("{word} {}\n", text.trim_end()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Ok(result))
    }
}

fn parsed(texts: &[String]) -> Result<Vec<Name>, Error> {
    let mut names = Vec::new();
    for text in texts {
        let name = names::parse(text)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn said(text: &str) -> Result<ExitCode, Error> {
    say(text)?;
    Ok(ExitCode::SUCCESS)
}
