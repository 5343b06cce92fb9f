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
use crate::status::Report;
use crate::systemd;

/// Who does it.
pub enum Instead {
    /// The agent has, or cannot.
    Agent(Result<ExitCode, Error>),
    /// The agent would, and there is none.
    Absent,
    /// It is nothing for the agent.
    Boxctl,
}

/// Has the agent do it.
pub fn instead(command: &Command, out: Look, err: Look) -> Instead {
    if rustix::process::geteuid().is_root() || !systemd::is_running() {
        return Instead::Boxctl;
    }
    let Some(need) = need(command) else {
        return Instead::Boxctl;
    };
    match Client::connect().and_then(|client| Asker { client, out, err }.have(command)) {
        Ok(result) => Instead::Agent(result),
        Err(client::Error::Absent(_)) => Instead::Absent,
        Err(client::Error::Denied(reason)) => Instead::Agent(Err(Error::Denied {
            reason,
            remedy: remedy(need),
        })),
        Err(error) => Instead::Agent(Err(error.into())),
    }
}

/// What is said after a failure of what the agent would have done.
pub fn absence(err: Look) {
    let word = err.paint(Paint::Warning, "boxctl:");
    complain(&format!(
        "{word} boxd.service, which does it for users who may, does not run\n"
    ));
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
            Command::Stop(names) => self.stop(&names.names),
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
        match names::each(texts, &Layers::system(), names::defined) {
            Ok(names) => self.each_of(&names, method, given),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// What runs by a name without being defined any more is stopped too, and only the agent sees it.
    fn stop(&self, texts: &[String]) -> Taken {
        let report = self
            .client
            .of_host("Status", &(&[] as &[&str],))
            .map(|json| serde_json::from_str::<Report>(&json));
        let boxes = match report {
            Ok(Ok(report)) => report.boxes,
            Ok(Err(error)) => return Ok(Err(error.into())),
            // Who may not look may stop what is defined.
            Err(client::Error::Denied(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        let at_work: Vec<Name> = boxes
            .iter()
            .filter(|status| status.is_at_work())
            .filter_map(|status| status.name.parse().ok())
            .collect();
        let there = |text: &str, layers: &Layers| names::there_of(text, layers, &at_work);
        match names::each(texts, &Layers::system(), there) {
            Ok(names) => self.each_of(&names, "Stop", &()),
            Err(error) => Ok(Err(error.into())),
        }
    }

    fn each_of(&self, names: &[Name], method: &'static str, given: &impl Arguments) -> Taken {
        let mut result = ExitCode::SUCCESS;
        for (index, name) in names.iter().enumerate() {
            match self.client.of_box(name, method, given) {
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
                // What has been done must not be done again without it.
                Err(client::Error::Absent(source)) if index > 0 => {
                    return Err(client::Error::Gone(source));
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
