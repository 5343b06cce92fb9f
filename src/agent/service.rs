//! `boxd agent`: `ExecStart=` of boxd.service. Applies definitions as they are edited.
//!
//! It holds nothing that a box needs, and no connection while it waits. A signal ends it at any moment: what it was
//! about is finished by the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::apply::{self, Outcome, Wanted};
use super::diff::{Asked, What};
use super::metrics::{self, Metrics};
use super::watch::Watch;
use super::{Error, intend};
use crate::definition::agent::{Apply, SETTINGS, Settings, settings};
use crate::definition::{Layers, LoadError};
use crate::generation::{Generation, State, Store};
use crate::journal::chain;
use crate::name::Name;
use crate::sys::{give_heap_back, ignore_sigio};
use crate::systemd::{Manager, notify};

/// Who has generations applied that nobody asked for.
const AUTHOR: &str = "boxd";

/// After so long it is tried again what did not work for a reason outside of the definitions.
const AGAIN: Duration = Duration::from_secs(15);

/// What has been said already.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    settings: Option<String>,
    problems: BTreeMap<String, String>,
    held: BTreeMap<Name, String>,
    plan: Vec<String>,
    /// Why metrics are not served as they should be.
    metrics: Option<String>,
    error: Option<String>,
}

/// So often it is tried to take the definitions as they are, before others who wait for that go on.
const FIRST_TRIES: u32 = 3;

/// As many characters of how things stand as are told to systemd.
const STATUS_MAX: usize = 1000;

/// Watches and applies, for ever. After each look at the definitions `looked` is called.
pub fn run(looked: &dyn Fn()) -> ! {
    let layers = Layers::system();
    let store = Store::system();
    let mut said = Said::default();
    let mut metrics = Metrics::default();
    ignore_sigio();
    let ready = || {
        let _ = notify::ready("looking at the definitions");
    };
    // Nobody waits for boxes that take their time. But what is edited after a first start is a change.
    let mut tries = match store.newest() {
        Ok(None) => FIRST_TRIES,
        _ => 0,
    };
    if tries == 0 {
        ready();
    }
    let mut tried = |is_done: bool| {
        if tries > 0 {
            tries = if is_done { 0 } else { tries - 1 };
            if tries == 0 {
                ready();
            }
        }
    };
    loop {
        let watched = Watch::begin(&layers).and_then(|mut watch| {
            let done = round(&layers, &store, &mut metrics, &mut said, &mut watch);
            tried(done.is_ok());
            let again = said.done(done);
            looked();
            give_heap_back();
            watch.wait(again)
        });
        if let Err(error) = watched {
            tried(false);
            said.fails(&format!("cannot watch the definitions: {}", chain(&error)));
            std::thread::sleep(AGAIN);
        }
    }
}

fn shortened(status: &str) -> String {
    match status.char_indices().nth(STATUS_MAX) {
        None => status.to_owned(),
        Some((end, _)) => format!("{} … `boxctl status` has the rest", &status[..end]),
    }
}

/// Does what follows from the definitions as they are, and says in a line how things stand.
fn round(
    layers: &Layers,
    store: &Store,
    metrics: &mut Metrics,
    said: &mut Said,
    watch: &mut Watch,
) -> Result<String, Error> {
    let settings = said.settings(settings());
    let wanted = said.settings.is_none().then_some(&settings.metrics);
    said.tell_of_metrics(metrics.follow(wanted));
    // What cannot be seen here is told when it is waited for.
    let mut edited = || watch.has_changed().unwrap_or(false);
    match settings.apply {
        Apply::Auto => {
            let mut say = |text: &str| {
                tracing::info!("{text}");
                let _ = notify::status(&shortened(text));
            };
            let wanted = Wanted::Files(Asked::ByChange);
            let outcome =
                apply::apply_unless(&mut edited, wanted, layers, store, AUTHOR, &mut say)?;
            tell(&outcome);
            let held = outcome.held.into_iter();
            let held = held.map(|(name, held)| (name, held.reason)).collect();
            said.tell(outcome.problems, held);
            said.plan = Vec::new();
        }
        Apply::Plan => {
            let manager = Manager::connect()?;
            let intention = intend::files(layers, store, &manager, Asked::ByPerson)?;
            if edited() {
                return Err(Error::Edited);
            }
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
                let why = match &said.settings {
                    Some(_) => format!("{SETTINGS} cannot be used"),
                    None => format!("{SETTINGS} says apply = \"plan\""),
                };
                tracing::info!("{why}: `boxctl apply` would {}", plan.join(", "));
            }
            said.plan = plan;
        }
    }
    said.status(store)
}

/// What was done, in the journal.
fn tell(outcome: &Outcome) {
    for (name, failed) in outcome.failed() {
        tracing::error!(BOX_NAME = %name, OBJECT_SYSTEMD_UNIT = %name.unit(), "{failed}");
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
    /// What is the case after a round; when it is to be tried again, if nothing changes before.
    fn done(&mut self, done: Result<String, Error>) -> Option<Duration> {
        match done {
            Ok(status) => {
                self.error = None;
                let _ = notify::status(&shortened(&status));
                self.metrics.is_some().then_some(AGAIN)
            }
            // The next round comes when that has ended.
            Err(Error::Edited) => None,
            Err(error) => {
                self.fails(&chain(&error));
                Some(AGAIN)
            }
        }
    }

    fn fails(&mut self, sentence: &str) {
        if self.error.as_deref() != Some(sentence) {
            tracing::error!("{sentence}");
        }
        let _ = notify::status(&shortened(sentence));
        self.error = Some(sentence.to_owned());
    }

    /// The settings, or such that nothing is done that their author may not have wanted.
    fn settings(&mut self, settings: Result<Settings, LoadError>) -> Settings {
        let (settings, problem) = match settings {
            Ok(settings) => (settings, None),
            Err(error) => {
                let settings = Settings {
                    apply: Apply::Plan,
                    ..Settings::default()
                };
                (settings, Some(error.to_string()))
            }
        };
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.settings) {
            tracing::error!("nothing is applied, as {SETTINGS} cannot be used:\n{problem}");
        }
        self.settings = problem;
        settings
    }

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

    fn tell_of_metrics(&mut self, served: Result<(), metrics::Error>) {
        let trouble = served.err().map(|error| chain(&error));
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.metrics) {
            tracing::error!("{trouble}");
        }
        self.metrics = trouble;
    }

    /// How things stand, for `systemctl status boxd`.
    fn status(&self, store: &Store) -> Result<String, Error> {
        let mut parts = Vec::new();
        if let Some(problem) = &self.settings {
            let first = problem.lines().next().unwrap_or_default();
            let first = first.trim_start_matches("error: ");
            parts.push(format!(
                "nothing is applied, as {SETTINGS} cannot be used: {first}"
            ));
        }
        parts.push(match store.current()? {
            Some(Generation { number, state, .. }) => match state {
                State::Applying => {
                    format!("generation {number} is half applied: `boxctl apply` does the rest")
                }
                _ => format!("generation {number} is in force"),
            },
            None => "nothing was applied yet".to_owned(),
        });
        if !self.plan.is_empty() {
            parts.push(format!("`boxctl apply` would {}", self.plan.join(", ")));
        }
        parts.extend(self.metrics.clone());
        for (name, reason) in &self.held {
            parts.push(format!("box {name} is held: {reason}"));
        }
        for (name, problem) in &self.problems {
            let known = self.held.keys().any(|held| held.as_str() == name);
            if !known {
                // What is wrong, and where.
                let first: Vec<&str> = problem.lines().take(2).map(str::trim).collect();
                parts.push(format!("{name} has problems: {}", first.join(" ")));
            }
        }
        Ok(parts.join("; "))
    }
}
