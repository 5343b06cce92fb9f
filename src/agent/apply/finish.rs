//! What one who was killed has not finished of a generation.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Error;
use super::super::diff::{Action, Runs, Service, What, dependents};
use super::super::intend::{definitions, requirements, runs};
use super::{Applier, Outcome, boot, texts_of};
use crate::definition::{SourceText, parse};
use crate::generation::{Cause, Counts, Entry, Found, Generation, InForce, State, Why, Work};
use crate::name::Name;

impl Applier<'_> {
    /// What one who was killed has not finished.
    pub(super) fn finish_what_was_begun(&mut self) -> Result<Outcome, Error> {
        let Some(head) = self.store.newest()? else {
            return Ok(Outcome::default());
        };
        if head.state != State::Applying {
            return Ok(Outcome::default());
        }
        (self.say)(&format!(
            "finishing generation {}, which was half applied",
            head.number
        ));
        let boxes = self.store.boxes(head.number)?;
        let concluded = match head.cause {
            Cause::PutBack(refused) => self.conclude_refused(refused, &boxes),
            _ => Ok(()),
        };
        let before = self.before(head.number)?;
        let mut runs = runs(&self.manager)?;
        let mut actions = Vec::new();
        let same_boot = head.boot == boot();
        let is_defined = |name: &Name| {
            let by_files = self.by_files(&head, name, &boxes);
            by_files.is_some_and(|it| it.definition.boxes().contains(name))
        };
        let to_stop = to_stop(&head, &boxes, is_defined);
        for (name, task) in &head.to_do {
            let starts = matches!(task.what, What::Start | What::Restart { .. });
            if starts && !same_boot && !starts_at_boot(name, &boxes) {
                // It was ended with the host, and nobody has asked for it since.
                continue;
            }
            if task.what == What::Stop && !(same_boot && to_stop.contains(name)) {
                // It has ended with the host, and what runs since, or has a file again, is somebody's wish.
                continue;
            }
            if self.runs_by_its_files(&head, name, &boxes, runs.get(name))? {
                continue;
            }
            actions.push(Action {
                name: name.clone(),
                what: task.what,
                reason: Some("it was begun, and not seen to be done".to_owned()),
                changes: Vec::new(),
            });
            // Its sockets were other ones, but those that are open now are to be closed.
            let now = runs.entry(name.clone()).or_default();
            *now = Runs {
                sockets: std::mem::take(&mut now.sockets),
                ..task.ran.clone()
            };
        }
        // If there is no room the disk was filled meanwhile, and to finish is the better try.
        self.reserve = self.reserve(&before, &boxes, &head.to_do).ok();
        let outcome = self.carry_through(head, &before, boxes, &runs, actions)?;
        concluded.map(|()| outcome)
    }

    /// What of a box is in force by its files, when nobody applies the generation that was begun.
    fn by_files(
        &self,
        head: &Generation,
        name: &Name,
        boxes: &BTreeMap<Name, Entry>,
    ) -> Option<InForce> {
        let counts = Counts {
            generation: head.number,
            applying: false,
        };
        let entry = boxes.get(&name.base()).map(|entry| (counts, entry));
        Found::read(name, self.layers).in_force(name, entry).ok()
    }

    /// Whether a box runs by its files, which are others than the generation's: somebody prefers these.
    fn runs_by_its_files(
        &self,
        head: &Generation,
        name: &Name,
        boxes: &BTreeMap<Name, Entry>,
        runs: Option<&Runs>,
    ) -> Result<bool, Error> {
        let wanted = texts_of(boxes, name);
        let ran = runs.filter(|runs| runs.service == Service::Up);
        let ran = ran.and_then(|runs| runs.definition.as_ref());
        let by_files = self.by_files(head, name, boxes);
        let by_files = by_files.filter(|in_force| in_force.notice.is_none());
        if ran.is_none() || ran == wanted || ran != by_files.map(|it| it.texts).as_ref() {
            return Ok(false);
        }
        Ok(self.manager.unit(&name.unit())?.active_state == "active")
    }

    /// Who put boxes of a generation back was killed before that was written at the generation itself.
    fn conclude_refused(&self, number: u64, boxes: &BTreeMap<Name, Entry>) -> Result<(), Error> {
        let mut refused = self.store.head(number)?;
        if refused.state != State::Applying {
            return Ok(());
        }
        refused.state = State::Failed;
        refused.failures = boxes
            .iter()
            .filter(|(name, _)| refused.to_do.keys().any(|task| task.base() == **name))
            .filter_map(|(name, entry)| Some((name.clone(), entry.held.as_ref()?)))
            .filter(|(_, held)| held.why == Why::Rejected)
            .map(|(name, held)| (name, held.reason.clone()))
            .collect();
        refused.to_do = Work::new();
        Ok(self.store.rewrite(&self.lock, &refused)?)
    }

    /// The boxes of the generation that was in force before this one.
    fn before(&self, number: u64) -> Result<BTreeMap<Name, Entry>, Error> {
        for earlier in self.store.numbers()?.into_iter().filter(|it| *it < number) {
            if self.store.head(earlier)?.counts() {
                return Ok(self.store.boxes(earlier)?);
            }
        }
        Ok(BTreeMap::new())
    }
}

fn starts_at_boot(name: &Name, boxes: &BTreeMap<Name, Entry>) -> bool {
    texts_of(boxes, name)
        .and_then(|texts| parse(name, texts).ok())
        .is_some_and(|definition| definition.start_at_boot)
}

/// The boxes that a generation which was begun has to stop still: those of which there is no definition, with what
/// requires them. To put a box back is to stop it if it did not run before, whatever its files say.
fn to_stop(
    head: &Generation,
    boxes: &BTreeMap<Name, Entry>,
    is_defined: impl Fn(&Name) -> bool,
) -> BTreeSet<Name> {
    let stops = head.to_do.iter().filter(|(_, it)| it.what == What::Stop);
    let stops: BTreeSet<Name> = stops.map(|(name, _)| name.clone()).collect();
    if let Cause::PutBack(_) = head.cause {
        return stops;
    }
    let (stays, gone): (BTreeSet<Name>, BTreeSet<Name>) = stops.into_iter().partition(|name| {
        let texts = texts_of(boxes, name);
        // A definition of all instances describes none that it does not count any more, nor one without a number.
        let describes = |texts: &Vec<SourceText>| match parse(&name.base(), texts) {
            Ok(definition) => definition.boxes().contains(name),
            Err(_) => name.instance().is_none(),
        };
        texts.is_some_and(describes) || is_defined(name)
    });
    let units = gone.iter().map(Name::unit).collect();
    let along = dependents(&requirements(&definitions(boxes)), &units);
    &gone | &(&along & &stays)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{name, texts};
    use super::*;
    use crate::generation::Task;

    #[test]
    fn what_has_a_file_again_is_not_stopped_nor_what_requires_it() {
        let stop = |of: &str| {
            let task = Task {
                what: What::Stop,
                ran: Runs::default(),
            };
            (name(of), task)
        };
        let mut head = Generation {
            number: 2,
            time: 1,
            boot: None,
            author: "root".to_owned(),
            cause: Cause::Files,
            state: State::Applying,
            changed: BTreeMap::new(),
            failures: BTreeMap::new(),
            to_do: ["app", "cache", "db", "far", "web"].map(stop).into(),
        };
        // Of db and cache there is no file.
        let requires = |of: &str, other: &str| {
            let entry = Entry {
                definition: texts(&format!("requires = ['{other}']")),
                held: None,
            };
            (name(of), entry)
        };
        let boxes = [
            requires("app", "db"),
            requires("web", "app"),
            requires("far", "cache"),
        ]
        .into();
        let stopped = |head: &Generation, defined: &[&str]| {
            let is_defined = |name: &Name| defined.contains(&name.as_str());
            let stopped = to_stop(head, &boxes, is_defined).into_iter();
            stopped.map(String::from).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(stopped(&head, &[]), "app cache db far web");
        assert_eq!(stopped(&head, &["db"]), "cache far");
        assert_eq!(stopped(&head, &["db", "cache"]), "");
        head.cause = Cause::PutBack(1);
        assert_eq!(stopped(&head, &["db"]), "app cache db far web");
    }
}
