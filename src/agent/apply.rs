//! Carrying out what was decided, so that whoever does it can be killed at any moment.
//!
//! The new generation is written down first. What systemd was asked for it goes on with by itself; and the next one
//! who applies anything finds the generation half applied, compares it with what runs, and does the rest. A box that
//! does not become ready is put back: another generation is written that keeps its last good definition, and the box
//! is started by that.

mod back;
mod finish;

use std::collections::{BTreeMap, BTreeSet};

use back::put_back;

use super::diff::{Action, Asked, Runs, Service, What, steps};
use super::intend::{self, Intention, definitions, runs};
use super::{Error, live};
use crate::definition::{Definition, Layers, SourceText, parse};
use crate::generation::{
    Cause, Entry, Generation, Held, Lock, Reserve, State, Store, Task, Why, Work, changed,
};
use crate::generator;
use crate::journal::chain;
use crate::name::Name;
use crate::running;
use crate::systemd::manager::Operation;
use crate::systemd::{self, Manager};

/// What became of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The generation that was applied; none if all was as it is to be.
    pub generation: Option<Generation>,
    /// What was done.
    pub actions: Vec<Action>,
    /// Boxes that did not become ready or were not changed, and why.
    pub failures: BTreeMap<Name, String>,
    /// The generation that keeps their last good definitions.
    pub put_back: Option<Generation>,
    /// Boxes that run by their last good definition again.
    pub restored: BTreeSet<Name>,
    /// Boxes whose definition in force is not what their files say.
    pub held: BTreeMap<Name, Held>,
    /// Everything wrong with definitions.
    pub problems: BTreeMap<String, String>,
}

impl Outcome {
    /// The boxes that failed, with a sentence for each. Words of the box may be in it.
    pub fn failed(&self) -> impl Iterator<Item = (&Name, String)> {
        self.failures.iter().map(|(name, reason)| {
            let back = match self.restored.contains(name) {
                true => "; it runs by its last good definition again",
                false => "",
            };
            (name, format!("box {name} {reason}{back}"))
        })
    }
}

/// What is to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What the files say.
    Files(Asked),
    /// An earlier generation.
    Generation(u64),
}

/// Applies definitions: returns when every box is ready, or was put back.
///
/// What is done is told to `say` in a few words, before it is done; and what has failed of an earlier generation, where
/// that is not told by what is returned. Words of a box may be in it.
///
/// # Errors
///
/// Nothing was applied, or not all of it: the next call finishes it.
pub fn apply(
    wanted: Wanted,
    layers: &Layers,
    store: &Store,
    author: &str,
    say: &mut dyn FnMut(&str),
) -> Result<Outcome, Error> {
    apply_unless(&mut || false, wanted, layers, store, author, say)
}

/// The same, but nothing new is begun if the definitions were `edited` while they were read.
///
/// # Errors
///
/// As [`apply`]; [`Error::Edited`].
pub fn apply_unless(
    edited: &mut dyn FnMut() -> bool,
    wanted: Wanted,
    layers: &Layers,
    store: &Store,
    author: &str,
    say: &mut dyn FnMut(&str),
) -> Result<Outcome, Error> {
    let lock = store.lock()?;
    let manager = Manager::connect()?;
    let mut work = Applier {
        layers,
        store,
        reserve: None,
        lock,
        manager,
        author,
        say,
        edited,
    };
    let mut earlier = work.finish_what_was_begun()?;
    let mut outcome = match work.bring_about(wanted) {
        Ok(outcome) => outcome,
        Err(error) => {
            // Else nobody is told.
            for (_, failed) in earlier.failed() {
                (work.say)(&failed);
            }
            return Err(error);
        }
    };
    earlier.failures.append(&mut outcome.failures);
    outcome.failures = earlier.failures;
    earlier.restored.append(&mut outcome.restored);
    outcome.restored = earlier.restored;
    earlier.actions.append(&mut outcome.actions);
    outcome.actions = earlier.actions;
    outcome.generation = outcome.generation.or(earlier.generation);
    outcome.put_back = outcome.put_back.or(earlier.put_back);
    Ok(outcome)
}

/// Why a box is not as it is to be.
#[derive(Debug)]
struct Failure {
    reason: String,
    blame: Blame,
}

/// What a failure comes from, as far as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The definition.
    Definition,
    /// A box, or another unit, that it requires.
    Requirement,
    /// Whoever has stopped it meanwhile, or systemd.
    Others,
}

/// How far instances are changed or restarted one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Roll {
    /// What one has failed by is not tried on the next.
    UntilOneFails,
    /// There is nothing better.
    ToTheEnd,
}

type Failures = BTreeMap<Name, Failure>;

struct Applier<'a> {
    layers: &'a Layers,
    store: &'a Store,
    /// Before the lock, as fields are dropped in this order: whoever waits for that makes a reserve of his own.
    reserve: Option<Reserve>,
    lock: Lock,
    manager: Manager,
    author: &'a str,
    say: &'a mut dyn FnMut(&str),
    edited: &'a mut dyn FnMut() -> bool,
}

impl Applier<'_> {
    fn bring_about(&mut self, wanted: Wanted) -> Result<Outcome, Error> {
        let (layers, store, manager) = (self.layers, self.store, &self.manager);
        let (intention, cause) = match wanted {
            Wanted::Files(asked) => (intend::files(layers, store, manager, asked)?, Cause::Files),
            Wanted::Generation(number) => (
                intend::back_to(number, layers, store, manager)?,
                Cause::Rollback(number),
            ),
        };
        if (self.edited)() {
            return Err(Error::Edited);
        }
        self.begin(intention, cause)
    }

    fn begin(&mut self, intention: Intention, cause: Cause) -> Result<Outcome, Error> {
        let held: Vec<(Name, Held)> = intention
            .held()
            .map(|(name, _, held)| (name.clone(), held.clone()))
            .collect();
        let nothing = intention.is_nothing();
        let Intention {
            before,
            boxes,
            runs,
            actions,
            problems,
            ..
        } = intention;
        let mut outcome = if nothing {
            // systemd may have been told less, by a reload in the midst of an edit.
            self.reload_if_stale()?;
            Outcome::default()
        } else {
            let to_do = work(&actions, &runs);
            self.reserve = None;
            self.reserve = Some(self.reserve(&before, &boxes, &to_do)?);
            let generation = self.write(cause, &before, &boxes, to_do)?;
            self.carry_through(generation, &before, boxes, &runs, actions)?
        };
        outcome.held.extend(held);
        outcome.problems = problems;
        Ok(outcome)
    }

    /// Room for the generation that would put boxes back.
    fn reserve(
        &self,
        before: &BTreeMap<Name, Entry>,
        boxes: &BTreeMap<Name, Entry>,
        to_do: &Work,
    ) -> Result<Reserve, Error> {
        let size = |texts: Option<&Vec<SourceText>>| -> usize {
            let texts = texts.into_iter().flatten();
            // As JSON escapes them at worst.
            texts.map(|text| 6 * text.text.len() + 4096).sum()
        };
        let sizes = to_do
            .iter()
            .map(|(name, task)| {
                let of = |set| size(texts_of(set, name));
                let size = of(before) + of(boxes) + size(task.ran.definition.as_ref());
                (name.clone(), size + 4096)
            })
            .collect();
        Ok(self.store.reserve(&self.lock, &sizes)?)
    }

    fn write(
        &self,
        cause: Cause,
        before: &BTreeMap<Name, Entry>,
        boxes: &BTreeMap<Name, Entry>,
        to_do: Work,
    ) -> Result<Generation, Error> {
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default();
        let generation = Generation {
            number: 0,
            time: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            boot: boot(),
            author: self.author.to_owned(),
            cause,
            state: State::Applying,
            changed: changed(before, boxes),
            failures: BTreeMap::new(),
            to_do,
        };
        Ok(self.store.write(&self.lock, generation, boxes)?)
    }

    /// From a generation that is written down to one that is applied, or to what is put back of it.
    fn carry_through(
        &mut self,
        mut generation: Generation,
        before: &BTreeMap<Name, Entry>,
        boxes: BTreeMap<Name, Entry>,
        runs: &BTreeMap<Name, Runs>,
        actions: Vec<Action>,
    ) -> Result<Outcome, Error> {
        let roll = match generation.cause {
            Cause::PutBack(_) => Roll::ToTheEnd,
            Cause::Files | Cause::Rollback(_) => Roll::UntilOneFails,
        };
        let mut failures = self.carry_out(&boxes, runs, &actions, roll)?;
        if failures
            .values()
            .any(|failure| failure.blame == Blame::Requirement)
        {
            self.blame_required(&actions, &mut failures)?;
        }
        let mut outcome = Outcome {
            failures: reasons(&failures),
            ..Outcome::default()
        };
        self.reserve = None;
        if failures.is_empty() || matches!(generation.cause, Cause::PutBack(_)) {
            self.conclude(&mut generation, &failures)?;
        } else {
            let now = intend::runs(&self.manager)?;
            let (boxes, back) = put_back(before, boxes, runs, &now, &actions, &failures);
            let cause = Cause::PutBack(generation.number);
            let mut last = self.write(cause, before, &boxes, work(&back, &now))?;
            // From here on whoever is next puts them back. The other one is concluded after that is certain, and if it
            // is not, because the disk is full, the boxes come first.
            let concluded = self.conclude(&mut generation, &failures);
            let keeps_another = |name: &Name| {
                let held = boxes
                    .get(&name.base())
                    .and_then(|entry| entry.held.as_ref());
                let refused = held.is_some_and(|held| held.why == Why::Rejected);
                refused && (failures.contains_key(name) || is_held_up(name, &failures))
            };
            for action in back.iter().filter(|action| keeps_another(&action.name)) {
                (self.say)(&format!(
                    "putting box {} back to its last good definition",
                    action.name
                ));
            }
            let worse = self.carry_out(&boxes, &now, &back, Roll::ToTheEnd)?;
            concluded?;
            self.conclude(&mut last, &worse)?;
            for (name, failure) in &worse {
                let reason = match outcome.failures.get(name) {
                    Some(first) => format!("{first}; put back, it {} either", failure.reason),
                    None => failure.reason.clone(),
                };
                outcome.failures.insert(name.clone(), reason);
            }
            outcome.restored = back
                .iter()
                .filter(|action| !worse.contains_key(&action.name))
                .filter(|action| {
                    failures
                        .get(&action.name)
                        .is_some_and(|failure| failure.blame == Blame::Definition)
                })
                .filter(|action| action.what != What::Stop)
                .map(|action| action.name.clone())
                .collect();
            outcome.held = boxes
                .iter()
                .filter_map(|(name, entry)| Some((name.clone(), entry.held.clone()?)))
                .collect();
            outcome.put_back = Some(last);
        }
        outcome.generation = Some(generation);
        outcome.actions = actions;
        Ok(outcome)
    }

    /// A box that did not run, and was started because another one requires it, may be why that one failed.
    fn blame_required(&self, actions: &[Action], failures: &mut Failures) -> Result<(), Error> {
        let now = runs(&self.manager)?;
        for action in actions.iter().filter(|action| action.what == What::Read) {
            let failed = |runs: &Runs| runs.service == Service::Failed;
            if now.get(&action.name).is_some_and(failed) {
                let failure = Failure {
                    reason: "did not start for a box that requires it".to_owned(),
                    blame: Blame::Definition,
                };
                failures.insert(action.name.clone(), failure);
            }
        }
        Ok(())
    }

    fn conclude(&self, generation: &mut Generation, failures: &Failures) -> Result<(), Error> {
        generation.state = match failures.is_empty() {
            true => State::Applied,
            false => State::Failed,
        };
        generation.failures = reasons(failures);
        generation.to_do = Work::new();
        Ok(self.store.rewrite(&self.lock, generation)?)
    }

    fn reload_if_stale(&self) -> Result<(), Error> {
        if generator::is_stale(self.layers, self.store).map_err(Error::Units)? {
            self.manager.daemon_reload()?;
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        boxes: &BTreeMap<Name, Entry>,
        runs: &BTreeMap<Name, Runs>,
        actions: &[Action],
        roll: Roll,
    ) -> Result<Failures, Error> {
        let is_held_up = |name: &Name, failures: &Failures| {
            roll == Roll::UntilOneFails && is_held_up(name, failures)
        };
        let mut failures = Failures::new();
        let sockets = |name: &Name| runs.get(name).map_or(&[][..], |runs| &runs.sockets[..]);
        // Sooner than systemd forgets how they are stopped.
        let mut stopped = Vec::new();
        for action in actions.iter().filter(|action| action.what == What::Stop) {
            (self.say)(&format!("stopping box {}", action.name));
            stopped.extend(
                sockets(&action.name)
                    .iter()
                    .map(|unit| (action.name.clone(), unit.clone())),
            );
            stopped.push((action.name.clone(), action.name.unit()));
        }
        let touched: BTreeSet<Name> = actions.iter().map(|action| action.name.base()).collect();
        let described = definitions(boxes.iter().filter(|(name, _)| touched.contains(*name)));
        let has_instances = |name: &Name| described.get(name).is_some_and(Definition::is_of_all);
        let instances: BTreeSet<Name> = stopped
            .iter()
            .filter(|(name, _)| name.instance().is_some())
            .map(|(name, _)| name.base())
            .collect();
        for name in instances.iter().filter(|name| !has_instances(name)) {
            // What depends on them all must not go on as if they were there. It may not have been started.
            let _ = self.manager.stop_unit(&name.target());
        }
        self.change(Operation::Stop, stopped, &mut failures)?;
        self.reload_if_stale()?;
        for action in actions.iter().filter(|action| action.what == What::Change) {
            let name = &action.name;
            let Some(texts) = texts_of(boxes, name).filter(|_| !is_held_up(name, &failures)) else {
                continue;
            };
            (self.say)(&format!("changing box {name} while it runs"));
            if let Err(error) = live::change(&self.manager, name, texts) {
                let failure = Failure {
                    reason: format!("was not changed: {}", chain(&error)),
                    blame: Blame::Definition,
                };
                failures.insert(name.clone(), failure);
            }
        }
        let starts: BTreeMap<&Name, What> = actions
            .iter()
            .filter(|action| matches!(action.what, What::Start | What::Restart { .. }))
            .map(|action| (&action.name, action.what))
            .collect();
        let definitions: Vec<Definition> = starts
            .keys()
            .filter_map(|name| parse(name, texts_of(boxes, name)?).ok())
            .collect();
        // One that systemd has stopped along with what it requires is not kept waiting.
        let rolls = |name: &Name| {
            let restarts = matches!(starts.get(name), Some(What::Restart { .. }));
            restarts && name.instance().is_some() && !as_before(name, boxes, runs)
        };
        for step in steps(&definitions) {
            for mut round in rounds(step, rolls) {
                round.retain(|name| !is_held_up(name, &failures));
                self.start(&round, &definitions, &starts, boxes, runs, &mut failures)?;
            }
        }
        for all in described.values().filter(|all| all.is_of_all()) {
            let boxes = all.boxes();
            let is_up = |name: &Name| {
                starts.contains_key(name)
                    || runs
                        .get(name)
                        .is_some_and(|runs| runs.service == Service::Up)
            };
            if boxes.iter().any(|name| starts.contains_key(name))
                && boxes.iter().all(is_up)
                && !boxes.iter().any(|name| failures.contains_key(name))
            {
                // That is what it stands for, and starts nothing more.
                let _ = self.manager.start_unit(&all.name.target());
            }
        }
        Ok(failures)
    }

    /// Starts or restarts boxes that do not wait for each other.
    fn start(
        &mut self,
        step: &[Name],
        definitions: &[Definition],
        starts: &BTreeMap<&Name, What>,
        boxes: &BTreeMap<Name, Entry>,
        runs: &BTreeMap<Name, Runs>,
        failures: &mut Failures,
    ) -> Result<(), Error> {
        let mut closed = Vec::new();
        let (mut opened, mut started, mut restarted) = (Vec::new(), Vec::new(), Vec::new());
        for name in step {
            let Some(what) = starts.get(name) else {
                continue;
            };
            let definition = definitions
                .iter()
                .find(|definition| definition.name == *name);
            let sockets: Vec<(Name, String)> = definition
                .map(Definition::socket_units)
                .unwrap_or_default()
                .into_iter()
                .map(|unit| (name.clone(), unit))
                .collect();
            let service = (name.clone(), name.unit());
            (self.say)(&format!("{}ing box {name}", what.verb()));
            match *what {
                What::Start if !sockets.is_empty() => opened.extend(sockets),
                What::Restart {
                    sockets: true,
                    service: true,
                } if self.is_done(name, boxes)? => started.push(service),
                What::Restart {
                    sockets: true,
                    service: runs_too,
                } => {
                    // A socket cannot be opened while its service runs.
                    let open = runs.get(name).map_or(&[][..], |runs| &runs.sockets[..]);
                    closed.extend(open.iter().map(|unit| (name.clone(), unit.clone())));
                    closed.push(service.clone());
                    opened.extend(sockets);
                    if runs_too {
                        started.push(service);
                    }
                }
                // It is restarted for the sake of one that it requires, and that was restarted or stopped: systemd has
                // stopped it then, and may have begun to start it again.
                What::Restart { .. } if as_before(name, boxes, runs) => started.push(service),
                What::Restart { .. } if !self.is_done(name, boxes)? => restarted.push(service),
                _ => started.push(service),
            }
            // Else the limit of starts, which is about starts by themselves, would count against the definition.
            let _ = self.manager.reset_failed(&name.unit());
        }
        self.change(Operation::Stop, closed, failures)?;
        self.change(Operation::Start, opened, failures)?;
        self.change(Operation::Restart, restarted, failures)?;
        self.change(Operation::Start, started, failures)
    }

    /// Whether a box runs, or comes up, by its definition already.
    fn is_done(&self, name: &Name, boxes: &BTreeMap<Name, Entry>) -> Result<bool, Error> {
        if running::definition(name).as_ref() != texts_of(boxes, name) {
            return Ok(false);
        }
        let state = self.manager.unit(&name.unit())?.active_state;
        Ok(matches!(state.as_str(), "active" | "activating"))
    }

    fn change(
        &self,
        operation: Operation,
        units: Vec<(Name, String)>,
        failures: &mut Failures,
    ) -> Result<(), Error> {
        if units.is_empty() {
            return Ok(());
        }
        let (names, units): (Vec<Name>, Vec<String>) = units.into_iter().unzip();
        let results = self.manager.change_units(operation, &units)?;
        for ((name, unit), result) in names.into_iter().zip(units).zip(results) {
            let Err(error) = result else { continue };
            if let systemd::Error::Lost { .. } = error {
                return Err(error.into());
            }
            let failure = self.failure(operation, &unit, &error);
            failures.entry(name).or_insert(failure);
        }
        Ok(())
    }

    fn failure(&self, operation: Operation, unit: &str, error: &systemd::Error) -> Failure {
        let verb = operation.verb();
        let blame = match error {
            _ if operation == Operation::Stop => Blame::Others,
            systemd::Error::Job { result, .. } => match &**result {
                "canceled" => Blame::Others,
                "dependency" => Blame::Requirement,
                _ => Blame::Definition,
            },
            _ => Blame::Others,
        };
        let status = self.manager.unit(unit).ok();
        let status = status.filter(|_| blame == Blame::Definition);
        let reason = match status {
            Some(status) if status.result != "success" => {
                let said = match status.status_text.as_str() {
                    "" => String::new(),
                    text => format!(": {text}"),
                };
                format!("did not {verb} ({}){said}", status.result)
            }
            _ => format!("did not {verb}: {}", chain(error)),
        };
        Failure { reason, blame }
    }
}

/// The definition of a box: of an instance that of all.
fn texts_of<'a>(boxes: &'a BTreeMap<Name, Entry>, name: &Name) -> Option<&'a Vec<SourceText>> {
    boxes.get(&name.base())?.definition.as_ref()
}

/// Whether a box ran by the definition that it is to have.
fn as_before(name: &Name, boxes: &BTreeMap<Name, Entry>, runs: &BTreeMap<Name, Runs>) -> bool {
    let wanted = texts_of(boxes, name);
    let ran = runs.get(name).filter(|runs| runs.service == Service::Up);
    ran.is_some_and(|runs| runs.definition.as_ref() == wanted)
}

/// The boxes of a step by the order in which they are touched: instances that are restarted come one after the other,
/// when all else has been.
fn rounds(step: Vec<Name>, rolls: impl Fn(&Name) -> bool) -> Vec<Vec<Name>> {
    let (rolling, at_once): (Vec<Name>, Vec<Name>) = step.into_iter().partition(|it| rolls(it));
    let mut rounds = vec![at_once];
    let mut reached: BTreeMap<Name, usize> = BTreeMap::new();
    for name in rolling {
        let round = reached.entry(name.base()).or_default();
        *round += 1;
        match rounds.get_mut(*round) {
            Some(round) => round.push(name),
            None => rounds.push(vec![name]),
        }
    }
    rounds
}

/// Whether an instance is left as it is, since another one has failed by the same definition.
fn is_held_up(name: &Name, failures: &Failures) -> bool {
    let of_same = |(other, failure): (&Name, &Failure)| {
        other.base() == name.base() && failure.blame == Blame::Definition
    };
    name.instance().is_some() && failures.iter().any(of_same)
}

/// Which boot of the host this is.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// What is to be done, with what runs of each box: for whoever finishes it.
fn work(actions: &[Action], runs: &BTreeMap<Name, Runs>) -> Work {
    let task = |action: &Action| {
        let ran = runs.get(&action.name).cloned().unwrap_or_default();
        let what = action.what;
        (action.name.clone(), Task { what, ran })
    };
    actions.iter().map(task).collect()
}

fn reasons(failures: &Failures) -> BTreeMap<Name, String> {
    failures
        .iter()
        .map(|(name, failure)| (name.clone(), failure.reason.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn name(name: &str) -> Name {
        name.parse().expect("a name")
    }

    /// A definition with these keys beside its command.
    pub fn texts(more: &str) -> Option<Vec<SourceText>> {
        Some(vec![SourceText {
            path: "/etc/boxd/x.toml".into(),
            text: format!("command = ['/bin/a']\n{more}"),
        }])
    }

    #[test]
    fn instances_are_restarted_one_after_the_other_until_one_fails() {
        let step = [
            "web:1", "web:2", "web:3", "db", "app:1", "app:2", "new:1", "new:2",
        ];
        let rolls = |name: &Name| ["web", "app"].contains(&name.base().as_str());
        let rounds: Vec<String> = rounds(step.map(name).into(), rolls)
            .into_iter()
            .map(|round| {
                round
                    .into_iter()
                    .map(String::from)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        let expected = ["db new:1 new:2", "web:1 app:1", "web:2 app:2", "web:3"];
        assert_eq!(rounds, expected);
        let failure = |blame| Failure {
            reason: "did not start".to_owned(),
            blame,
        };
        let mut failures = Failures::from([(name("app:1"), failure(Blame::Others))]);
        assert!(!is_held_up(&name("app:2"), &failures));
        failures.insert(name("web:2"), failure(Blame::Definition));
        assert!(is_held_up(&name("web:3"), &failures));
        assert!(!is_held_up(&name("web"), &failures) && !is_held_up(&name("db"), &failures));
    }
}
