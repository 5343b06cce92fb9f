//! What is known before it is decided: the definitions, the current generation, and what runs.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::diff::{Action, Asked, Requirements, Runs, Service, Subject, actions, along};
use crate::definition::{self, Definition, Layers, SourceText, parse};
use crate::generation::{Entry, Found, Generation, Held, Store, Why, possible};
use crate::name::Name;
use crate::running;
use crate::systemd::Manager;

/// What is to be applied.
#[derive(Debug)]
pub struct Intention {
    /// The generation in force until now.
    pub current: Option<Generation>,
    /// Its boxes.
    pub before: BTreeMap<Name, Entry>,
    /// The boxes as they are to be.
    pub boxes: BTreeMap<Name, Entry>,
    /// What runs.
    pub runs: BTreeMap<Name, Runs>,
    /// What is done for it.
    pub actions: Vec<Action>,
    /// Everything wrong with definitions, as `boxctl check` shows it: by the name of the box or file.
    pub problems: BTreeMap<String, String>,
}

impl Intention {
    /// Whether all is as it is to be.
    pub fn is_nothing(&self) -> bool {
        self.actions.is_empty() && self.boxes == self.before && self.current.is_some()
    }

    /// The boxes whose definition in force is not what their files say.
    pub fn held(&self) -> impl Iterator<Item = (&Name, &Entry, &Held)> {
        self.boxes
            .iter()
            .filter_map(|(name, entry)| Some((name, entry, entry.held.as_ref()?)))
    }
}

/// What is to be done so that all is as the files say.
///
/// # Errors
///
/// What is needed for that cannot be read. A definition with problems is no error.
pub fn files(
    layers: &Layers,
    store: &Store,
    manager: &Manager,
    asked: Asked,
) -> Result<Intention, Error> {
    let (current, before) = current(store)?;
    let runs = runs(manager)?;
    let mut boxes = BTreeMap::new();
    let mut problems = BTreeMap::new();
    for listed in definition::list(layers).map_err(Error::List)? {
        if let Err(error) = listed.name {
            problems.insert(listed.path.display().to_string(), error.to_string());
        }
    }
    for name in names(layers, &before)? {
        let found = Found::read(&name, layers);
        let mut was = before.get(&name).cloned().unwrap_or(Entry {
            definition: None,
            held: None,
        });
        let of_name = || {
            let from = runs.range(&name..);
            let all = from.take_while(|(other, _)| other.base() == name);
            all.map(|(_, runs)| runs)
        };
        let running = of_name().find(|runs| runs.service == Service::Up);
        let ran = running.or(of_name().next());
        let ran = ran.and_then(|runs| runs.definition.clone());
        if was.definition.is_none() {
            // Nobody knows a better one than that by which it runs.
            was.definition = ran.clone();
        }
        if let Found::Broken(error) = &found {
            problems.insert(name.to_string(), error.to_string());
            if let Some(ran) = ran.filter(|_| running.is_some()) {
                // Somebody has started it by a later one than was applied, and it runs.
                was.definition = Some(ran);
            }
        }
        if let Some(entry) = entry(&name, found, was, asked) {
            boxes.insert(name, entry);
        }
    }
    let actions = match (&current, asked) {
        // The first look at a host: nothing is known to have changed.
        (None, Asked::ByChange) => Vec::new(),
        _ => decide(&before, &boxes, &runs, asked),
    };
    Ok(Intention {
        current,
        before,
        boxes,
        runs,
        actions,
        problems,
    })
}

/// What is to be done so that all is as an earlier generation says.
///
/// # Errors
///
/// As [`files`]; there is no such generation.
pub fn back_to(
    number: u64,
    layers: &Layers,
    store: &Store,
    manager: &Manager,
) -> Result<Intention, Error> {
    let wanted = store.boxes(number)?;
    let (current, before) = current(store)?;
    let runs = runs(manager)?;
    let all: BTreeSet<Name> = names(layers, &before)?
        .into_iter()
        .chain(wanted.keys().cloned())
        .collect();
    let mut boxes = BTreeMap::new();
    for name in all {
        let definition = wanted.get(&name).and_then(|entry| entry.definition.clone());
        let found = Found::read(&name, layers);
        let instead_of = found.texts().map(<[SourceText]>::to_vec);
        if definition.is_none() && matches!(found, Found::Nothing(_)) {
            continue;
        }
        let held = (definition != instead_of).then(|| Held {
            why: Why::RolledBack,
            reason: format!("rolled back to generation {number}"),
            instead_of,
        });
        boxes.insert(name, Entry { definition, held });
    }
    let actions = decide(&before, &boxes, &runs, Asked::ByPerson);
    Ok(Intention {
        current,
        before,
        boxes,
        runs,
        actions,
        problems: BTreeMap::new(),
    })
}

fn decide(
    before: &BTreeMap<Name, Entry>,
    boxes: &BTreeMap<Name, Entry>,
    runs: &BTreeMap<Name, Runs>,
    asked: Asked,
) -> Vec<Action> {
    let (old, new) = (definitions(before), definitions(boxes));
    let before = Side {
        boxes: before,
        definitions: &old,
    };
    let after = Side {
        boxes,
        definitions: &new,
    };
    let mut actions = actions(&subjects(&before, &after, runs), asked);
    let gone = gone(&old, &new);
    let (old, new) = (requirements(&old), requirements(&new));
    let up = |name: &Name| {
        runs.get(name)
            .is_some_and(|runs| runs.service == Service::Up)
    };
    along(&mut actions, &old, &new, &gone, up);
    actions
}

/// The definitions of these boxes, those of instances as of all.
pub(super) fn definitions<'a>(
    boxes: impl IntoIterator<Item = (&'a Name, &'a Entry)>,
) -> BTreeMap<Name, Definition> {
    boxes
        .into_iter()
        .filter_map(|(name, entry)| {
            let definition = parse(name, entry.definition.as_ref()?).ok()?;
            Some((name.clone(), definition))
        })
        .collect()
}

/// The units that each box requires.
pub(super) fn requirements(definitions: &BTreeMap<Name, Definition>) -> Requirements {
    let has_instances = |name: &Name| definitions.get(name).is_some_and(Definition::is_of_all);
    let mut requirements = Requirements::new();
    for definition in definitions.values() {
        let required = definition.requires.iter();
        let units: BTreeSet<String> = required.map(|one| one.unit(&has_instances)).collect();
        let boxes = definition.boxes().into_iter();
        requirements.extend(boxes.map(|name| (name, units.clone())));
    }
    requirements
}

/// Targets of instances that are no more, and the unit by which such a box would be required that has no definition
/// any more.
pub(super) fn gone(
    old: &BTreeMap<Name, Definition>,
    new: &BTreeMap<Name, Definition>,
) -> BTreeSet<String> {
    let mut units = BTreeSet::new();
    for name in old.values().filter(|it| it.is_of_all()).map(|it| &it.name) {
        match new.get(name) {
            Some(definition) if definition.is_of_all() => {}
            Some(_) => drop(units.insert(name.target())),
            None => units.extend([name.target(), name.unit()]),
        }
    }
    units
}

/// The boxes before or after.
struct Side<'a> {
    boxes: &'a BTreeMap<Name, Entry>,
    definitions: &'a BTreeMap<Name, Definition>,
}

impl Side<'_> {
    fn texts(&self, name: &Name) -> Option<&Vec<SourceText>> {
        self.boxes.get(name)?.definition.as_ref()
    }

    /// The boxes that the definition of this name describes.
    fn members(&self, name: &Name) -> Vec<Name> {
        match (self.definitions.get(name), self.texts(name)) {
            (Some(definition), _) => definition.boxes(),
            (None, Some(_)) => vec![name.clone()],
            (None, None) => Vec::new(),
        }
    }
}

/// What is known of each box of either set.
fn subjects(before: &Side<'_>, after: &Side<'_>, runs: &BTreeMap<Name, Runs>) -> Vec<Subject> {
    let names: BTreeSet<&Name> = before.boxes.keys().chain(after.boxes.keys()).collect();
    let mut subjects = Vec::new();
    for name in names {
        let old: BTreeSet<Name> = before.members(name).into_iter().collect();
        let new: BTreeSet<Name> = after.members(name).into_iter().collect();
        let runs_or_waits = |name: &&Name| {
            let runs = runs.get(*name);
            runs.is_some_and(|runs| runs.service == Service::Up || !runs.sockets.is_empty())
        };
        let others_run = old.iter().any(|name| runs_or_waits(&name));
        subjects.extend(old.union(&new).map(|one| Subject {
            before: before.texts(name).filter(|_| old.contains(one)).cloned(),
            after: after.texts(name).filter(|_| new.contains(one)).cloned(),
            held: after.boxes.get(name).and_then(|entry| entry.held.clone()),
            runs: runs.get(one).cloned().unwrap_or_default(),
            others_run,
            is_defined: !new.is_empty(),
            name: one.clone(),
        }));
    }
    subjects
}

/// What runs of each box, as systemd and the boxes' own files have it.
///
/// # Errors
///
/// [`Error::Systemd`], [`Error::Running`].
pub fn runs(manager: &Manager) -> Result<BTreeMap<Name, Runs>, Error> {
    let mut boxes: BTreeMap<Name, Runs> = BTreeMap::new();
    for unit in manager.list_units(&["box@*.service"])? {
        let Some(name) = of_service(&unit.unit) else {
            continue;
        };
        let service = match unit.active_state.as_str() {
            "active" | "reloading" | "refreshing" | "activating" => Service::Up,
            "failed" => Service::Failed,
            _ => Service::AtRest,
        };
        boxes.entry(name).or_default().service = service;
    }
    for unit in manager.list_units(&["box@*.socket"])? {
        let open = matches!(unit.active_state.as_str(), "active" | "activating");
        let Some(mut name) = of_socket(&unit.unit).filter(|_| open) else {
            continue;
        };
        // The first one of an instance, or one of another box that has a number for a name.
        if name.instance().is_some()
            && unit.unit == name.socket()
            && !manager
                .unit(&name.unit())?
                .triggered_by
                .contains(&unit.unit)
        {
            name = name.base();
        }
        boxes.entry(name).or_default().sockets.push(unit.unit);
    }
    for name in running::names()? {
        let runs = boxes.entry(name.clone()).or_default();
        if runs.service != Service::Up
            && running::find(&name)?.is_some_and(|running| running.plan.scope.before.is_none())
        {
            runs.service = Service::Foreground;
        }
        runs.definition = running::definition(&name);
    }
    Ok(boxes)
}

fn of_service(unit: &str) -> Option<Name> {
    unit.strip_prefix("box@")?
        .strip_suffix(".service")?
        .parse()
        .ok()
}

/// Whose socket this is, as far as its name tells.
fn of_socket(unit: &str) -> Option<Name> {
    let instance = unit.strip_prefix("box@")?.strip_suffix(".socket")?;
    let mut parts = instance.splitn(3, ':');
    let base = parts.next().unwrap_or(instance);
    let numbered = parts.next().map(|part| format!("{base}:{part}"));
    let numbered = numbered.and_then(|name| name.parse().ok());
    numbered.or_else(|| base.parse().ok())
}

fn current(store: &Store) -> Result<(Option<Generation>, BTreeMap<Name, Entry>), Error> {
    let current = store.current()?;
    let boxes = match &current {
        Some(current) => store.boxes(current.number)?,
        None => BTreeMap::new(),
    };
    Ok((current, boxes))
}

fn names(layers: &Layers, before: &BTreeMap<Name, Entry>) -> Result<BTreeSet<Name>, Error> {
    let listed = definition::list(layers).map_err(Error::List)?;
    let names = listed.into_iter().filter_map(|listed| listed.name.ok());
    Ok(names.chain(before.keys().cloned()).collect())
}

/// The box as it is to be, from what its files say and what it was.
fn entry(name: &Name, found: Found, was: Entry, asked: Asked) -> Option<Entry> {
    let held = found.held_by(&was).filter(|held| match held.why {
        Why::Broken | Why::Unreachable => true,
        Why::Rejected | Why::RolledBack => asked == Asked::ByChange,
        // The host may have what it takes by now.
        Why::Impossible => false,
    });
    if held.is_some() {
        return Some(Entry {
            definition: was.definition,
            held,
        });
    }
    let Found::Good(texts, definition) = found else {
        return None;
    };
    if was.definition.as_ref() != Some(&texts)
        && let Err(reason) = possible(&definition, &texts)
    {
        tracing::debug!("box {name}: {reason}");
        return Some(Entry {
            definition: was.definition,
            held: Some(Held {
                why: Why::Impossible,
                reason,
                instead_of: Some(texts),
            }),
        });
    }
    Some(Entry {
        definition: Some(texts),
        held: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::LoadError;

    #[test]
    fn units_are_told_apart_by_their_names() {
        let service = |unit| of_service(unit).map(String::from);
        assert_eq!(service("box@web.service").as_deref(), Some("web"));
        assert_eq!(service("box@web:2.service").as_deref(), Some("web:2"));
        assert_eq!(service("box@web.socket"), None);
        assert_eq!(service("box@.service"), None);
        let socket = |unit| of_socket(unit).map(String::from);
        assert_eq!(socket("box@web.socket").as_deref(), Some("web"));
        assert_eq!(socket("box@web:admin.socket").as_deref(), Some("web"));
        assert_eq!(socket("box@web:2.socket").as_deref(), Some("web:2"));
        assert_eq!(socket("box@web:2:admin.socket").as_deref(), Some("web:2"));
        assert_eq!(socket("box@web:2:2.socket").as_deref(), Some("web:2"));
        assert_eq!(socket("box@web.service"), None);
    }

    #[test]
    fn a_broken_definition_keeps_what_runs() {
        let name: Name = "web".parse().expect("a name");
        let texts = |text: &str| {
            Some(vec![SourceText {
                path: "/etc/boxd/web.toml".into(),
                text: text.to_owned(),
            }])
        };
        let broken = || {
            let source = std::io::Error::other("no");
            Found::Broken(LoadError::Read {
                path: "/etc/boxd/web.toml".into(),
                source,
            })
        };
        let was = Entry {
            definition: texts("command = ['/bin/a']"),
            held: None,
        };
        for asked in [Asked::ByChange, Asked::ByPerson] {
            let entry = entry(&name, broken(), was.clone(), asked).expect("a box");
            assert_eq!(entry.definition, was.definition);
            assert_eq!(entry.held.expect("held").why, Why::Broken);
        }
        let gone = Found::Nothing(LoadError::Masked {
            name: name.clone(),
            path: "x".into(),
        });
        assert_eq!(entry(&name, gone, was, Asked::ByChange), None);
    }
}
