//! What the objects say: read from where `boxctl status` reads it, and kept to tell what has changed.

use std::collections::{BTreeMap, BTreeSet};

use super::interface::{Of, PROPERTY, Value};
use crate::definition::Layers;
use crate::generation::{self, Store};
use crate::name::Name;
use crate::status::{Status, collect};
use crate::systemd::{self, Manager};

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The boxes.
    #[error(transparent)]
    Boxes(#[from] collect::Error),
    /// systemd does not answer.
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    /// The generations.
    #[error(transparent)]
    Generations(#[from] generation::Error),
}

/// What is known of the host as a whole.
#[derive(Debug, Default)]
pub struct Whole {
    /// The number of the generation in force; 0 for none.
    pub generation: u64,
}

/// The properties of an object by name.
pub type Values = BTreeMap<&'static str, Value>;

/// Which boxes are to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// These, whether they are there or not.
    These(BTreeSet<Name>),
    /// All there are.
    All,
}

impl Which {
    /// None yet.
    pub fn none() -> Which {
        Which::These(BTreeSet::new())
    }

    /// Whether there is nothing to look at.
    pub fn is_none(&self) -> bool {
        matches!(self, Which::These(names) if names.is_empty())
    }

    /// These too.
    pub fn and(&mut self, other: Which) {
        match (&mut *self, other) {
            (Which::All, _) => {}
            (Which::These(names), Which::These(more)) => names.extend(more),
            (Which::These(_), Which::All) => *self = Which::All,
        }
    }
}

/// What was seen at one look.
#[derive(Debug)]
pub struct Seen {
    /// Of the host.
    pub whole: Values,
    /// Of each box that was looked at; none where there is none of that name.
    pub boxes: BTreeMap<Name, Option<Values>>,
}

/// Looks at boxes. Blocks.
///
/// # Errors
///
/// What keeps it from saying anything.
pub fn look(which: &Which) -> Result<Seen, Error> {
    let layers = Layers::system();
    let mut boxes = BTreeMap::new();
    match which {
        Which::All => {
            let manager = Manager::connect()?;
            let units = Some(collect::loaded_units(&manager)?);
            for status in collect::all(&layers, &units)?.boxes {
                // A file whose name is no box's is a problem for whoever checks definitions.
                if let Ok(name) = status.name.parse() {
                    boxes.insert(name, Some(values_of(&status)));
                }
            }
        }
        Which::These(names) if names.is_empty() => {}
        Which::These(names) => {
            let manager = Manager::connect()?;
            for name in names {
                let seen = collect::unit(&manager, name)?;
                let units = Some(BTreeMap::from([(name.clone(), seen)]));
                let status = collect::one(name, &layers, &units)?;
                boxes.insert(name.clone(), status.exists().then(|| values_of(&status)));
            }
        }
    }
    let whole = Whole {
        generation: Store::system()
            .current()?
            .map_or(0, |current| current.number),
    };
    let of_host = PROPERTY.iter().filter_map(|property| match property.of {
        Of::Host(of) => Some((property.name, of(&whole))),
        Of::Box(_) => None,
    });
    Ok(Seen {
        whole: of_host.collect(),
        boxes,
    })
}

fn values_of(status: &Status) -> Values {
    let of_box = PROPERTY.iter().filter_map(|property| match property.of {
        Of::Box(of) => Some((property.name, of(status))),
        Of::Host(_) => None,
    });
    of_box.collect()
}

/// What is known, as it was told last.
#[derive(Debug, Default)]
pub struct Known {
    /// Of the host.
    pub whole: Values,
    /// Of each box.
    pub boxes: BTreeMap<Name, Values>,
}

/// Something to tell.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// The host has other properties.
    Host(Values),
    /// A box has.
    Box(Name, Values),
    /// There is another box.
    New(Name),
    /// There is one less.
    Removed(Name),
}

impl Known {
    /// Takes in what was seen, and says what is new of it.
    pub fn take(&mut self, seen: Seen, all: bool) -> Vec<News> {
        let mut news = Vec::new();
        let changed = difference(&self.whole, &seen.whole);
        // At the first look nobody has seen anything else.
        if !self.whole.is_empty() && !changed.is_empty() {
            news.push(News::Host(changed));
        }
        self.whole = seen.whole;
        if all {
            let gone = self
                .boxes
                .keys()
                .filter(|name| !seen.boxes.contains_key(*name));
            for name in gone.cloned().collect::<Vec<_>>() {
                self.boxes.remove(&name);
                news.push(News::Removed(name));
            }
        }
        for (name, values) in seen.boxes {
            match (self.boxes.get(&name), values) {
                (None, None) => {}
                (None, Some(values)) => {
                    self.boxes.insert(name.clone(), values);
                    news.push(News::New(name));
                }
                (Some(_), None) => {
                    self.boxes.remove(&name);
                    news.push(News::Removed(name));
                }
                (Some(known), Some(values)) => {
                    let changed = difference(known, &values);
                    self.boxes.insert(name.clone(), values);
                    if !changed.is_empty() {
                        news.push(News::Box(name, changed));
                    }
                }
            }
        }
        news
    }
}

fn difference(before: &Values, now: &Values) -> Values {
    now.iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, value)| (*name, value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn seen(generation: u64, boxes: &[(&str, Option<&str>)]) -> Seen {
        let values = |state: &str| Values::from([("State", Value::Text(state.to_owned()))]);
        Seen {
            whole: Values::from([("Generation", Value::Large(generation))]),
            boxes: boxes
                .iter()
                .map(|(text, state)| (name(text), state.map(values)))
                .collect(),
        }
    }

    #[test]
    fn what_is_new_is_told_once() {
        let mut known = Known::default();
        let first = seen(3, &[("db", Some("stopped")), ("web", Some("running"))]);
        assert_eq!(
            known.take(first, true),
            [News::New(name("db")), News::New(name("web"))]
        );
        let same = seen(3, &[("web", Some("running")), ("none", None)]);
        assert_eq!(known.take(same, false), []);
        let other = seen(4, &[("db", None), ("web", Some("failed"))]);
        let state = Values::from([("State", Value::Text("failed".to_owned()))]);
        let generation = Values::from([("Generation", Value::Large(4))]);
        assert_eq!(
            known.take(other, false),
            [
                News::Host(generation),
                News::Removed(name("db")),
                News::Box(name("web"), state)
            ]
        );
        assert_eq!(known.take(seen(4, &[]), true), [News::Removed(name("web"))]);
        assert!(known.boxes.is_empty());
    }

    #[test]
    fn what_is_to_be_looked_at_adds_up() {
        let these = |text| Which::These([name(text)].into());
        let mut which = Which::none();
        assert!(which.is_none());
        which.and(these("web"));
        which.and(these("db"));
        assert_eq!(which, Which::These([name("db"), name("web")].into()));
        which.and(Which::All);
        which.and(these("web"));
        assert_eq!(which, Which::All);
    }
}
