//! `boxd agent`: `ExecStart=` of boxd.service. Applies definitions as they are edited.
//!
//! It holds nothing that a box needs, and no connection while it waits. A signal ends it at any moment: what it was
//! about is finished by the next one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use super::apply::{self, Outcome, Wanted};
use super::diff::{Asked, What};
use super::watch::Watch;
use super::{Error, intend};
use crate::definition::Layers;
use crate::definition::agent::{Apply, SETTINGS, Settings, settings};
use crate::generation::Store;
use crate::journal::chain;
use crate::name::Name;
use crate::systemd::{Manager, notify};

/// Who has generations applied that nobody asked for.
const AUTHOR: &str = "boxd";

/// After so long it is tried again what did not work for a reason outside of the definitions.
const AGAIN: Duration = Duration::from_secs(15);

/// What has been said already.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    problems: BTreeMap<String, String>,
    held: BTreeMap<Name, String>,
    plan: Vec<String>,
    error: Option<String>,
}

/// As many characters of how things stand as are told to systemd.
const STATUS_MAX: usize = 1000;

/// Watches and applies, for ever.
///
/// # Errors
///
/// The definitions cannot be watched.
pub fn run() -> Result<Infallible, io::Error> {
    let layers = Layers::system();
    let store = Store::system();
    let mut said = Said::default();
    let mut ready = false;
    loop {
        let mut watch = Watch::begin(&layers)?;
        if !ready {
            // Nobody waits for boxes that take their time.
            let _ = notify::ready("looking at the definitions");
            ready = true;
        }
        let again = match round(&layers, &store, &mut said) {
            Ok(status) => {
                said.error = None;
                let _ = notify::status(&shortened(&status));
                None
            }
            Err(error) => {
                let sentence = chain(&error);
                if said.error.as_ref() != Some(&sentence) {
                    tracing::error!("{sentence}");
                }
                let _ = notify::status(&shortened(&sentence));
                said.error = Some(sentence);
                Some(AGAIN)
            }
        };
        watch.wait(again)?;
    }
}

fn shortened(status: &str) -> String {
    match status.char_indices().nth(STATUS_MAX) {
        None => status.to_owned(),
        Some((end, _)) => format!("{} … `boxctl status` has the rest", &status[..end]),
    }
}

/// Does what follows from the definitions as they are, and says in a line how things stand.
fn round(layers: &Layers, store: &Store, said: &mut Said) -> Result<String, Error> {
    let settings = settings().unwrap_or_else(|error| {
        tracing::error!("{error}");
        // Nothing is done that its author may not have wanted.
        Settings { apply: Apply::Plan }
    });
    match settings.apply {
        Apply::Auto => {
            let mut say = |text: &str| {
                tracing::info!("{text}");
                let _ = notify::status(text);
            };
            let wanted = Wanted::Files(Asked::ByChange);
            let outcome = apply::apply(wanted, layers, store, AUTHOR, &mut say)?;
            tell(&outcome);
            let held = outcome.held.into_iter();
            let held = held.map(|(name, held)| (name, held.reason)).collect();
            said.tell(outcome.problems, held);
            said.plan = Vec::new();
        }
        Apply::Plan => {
            let manager = Manager::connect()?;
            let intention = intend::files(layers, store, &manager, Asked::ByPerson)?;
            let held = intention
                .held()
                .map(|(name, _, held)| (name.clone(), held.reason.clone()));
            said.tell(intention.problems.clone(), held.collect());
            let plan: Vec<String> = intention
                .actions
                .iter()
                .filter(|action| action.what != What::Read)
                .map(|action| format!("{} {}", action.what.verb(), action.name))
                .collect();
            if !plan.is_empty() && plan != said.plan {
                tracing::info!(
                    "{SETTINGS} says apply = \"plan\": `boxctl apply` would {}",
                    plan.join(", ")
                );
            }
            said.plan = plan;
        }
    }
    said.status(store)
}

/// What was done, in the journal.
fn tell(outcome: &Outcome) {
    for (name, reason) in &outcome.failures {
        let back = match outcome.restored.contains(name) {
            true => "; it runs by its last good definition again",
            false => "",
        };
        tracing::error!(
            BOX_NAME = %name,
            OBJECT_SYSTEMD_UNIT = %name.unit(),
            "box {name} {reason}{back}"
        );
    }
    if let Some(generation) = &outcome.generation {
        match &outcome.put_back {
            None => tracing::info!("generation {} is applied", generation.number),
            Some(back) => tracing::error!(
                "generation {} failed; generation {} is in force",
                generation.number,
                back.number
            ),
        }
    }
}

impl Said {
    /// Says what has not been said yet.
    fn tell(&mut self, problems: BTreeMap<String, String>, held: BTreeMap<Name, String>) {
        for (name, problem) in &problems {
            if self.problems.get(name) != Some(problem) {
                tracing::error!("the definition of {name} has problems:\n{problem}");
            }
        }
        for (name, reason) in &held {
            if self.held.get(name) != Some(reason) {
                tracing::warn!(
                    BOX_NAME = %name,
                    OBJECT_SYSTEMD_UNIT = %name.unit(),
                    "box {name} is not as its files say: {reason}"
                );
            }
        }
        for name in self.problems.keys() {
            if !problems.contains_key(name) {
                tracing::info!("the definition of {name} has no problems any more");
            }
        }
        self.problems = problems;
        self.held = held;
    }

    /// How things stand, for `systemctl status boxd`.
    fn status(&self, store: &Store) -> Result<String, Error> {
        let mut parts = Vec::new();
        parts.push(match store.current()? {
            Some(current) => format!("generation {} is in force", current.number),
            None => "nothing was applied yet".to_owned(),
        });
        if !self.plan.is_empty() {
            parts.push(format!("`boxctl apply` would {}", self.plan.join(", ")));
        }
        for (name, reason) in &self.held {
            parts.push(format!("box {name} is held: {reason}"));
        }
        for name in self.problems.keys() {
            let known = self.held.keys().any(|held| held.as_str() == name);
            if !known {
                parts.push(format!("{name} has problems: `boxctl check`"));
            }
        }
        Ok(parts.join("; "))
    }
}
