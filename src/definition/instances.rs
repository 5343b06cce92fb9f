//! `instances`: several boxes of one definition, and the values that differ from one to the next.
//!
//! What differs is written as a table that names what of the instance is meant, `{ instance = "index" }`, or as a list
//! of texts and such tables. It is put together here, once, for the box the definition is read for; no text is searched
//! for anything that would stand for something else.

use super::diagnostics::{Place, Problem};
use super::section::{Item, Problems, Section};
use super::tree::{Located, Value};
use crate::name::{INSTANCES_MAX, Name};

/// Longest host name in bytes, `HOST_NAME_MAX`.
const HOST_NAME_MAX: usize = 64;

const PART: &str = "expected a text or { instance = \"index\" }";

/// The box that a definition is read for, among the others that it describes.
pub(super) struct Instances {
    /// That box. Of all together it is the last one: its number is the longest, and what is right for it is so for all.
    name: Name,
    /// How many there are.
    pub count: Option<u16>,
    /// Where that is said, right or wrong.
    place: Option<Place>,
}

/// What of an instance is meant.
#[derive(Clone, Copy)]
enum Field {
    Index,
    Name,
}

/// Reads how many there are, and whether there is one of this name.
pub(super) fn instances(whole: &mut Section<'_>, name: &Name) -> Instances {
    let place = whole.place_of("instances");
    let count = whole.read("instances", |item| {
        let count = item.integer(1..=u64::from(INSTANCES_MAX))?;
        u16::try_from(count).ok()
    });
    let base = name.base();
    match (name.instance(), count, &place) {
        (Some(index), Some(count), Some(place)) if index > count => {
            whole.problems().report(Problem::at(
                place,
                format!("there is no instance {index}"),
                format!(
                    "the instances are {} to {}",
                    base.with_instance(1),
                    base.with_instance(count)
                ),
            ));
        }
        (Some(_), None, None) => whole.problems().report(Problem::absent(
            None,
            format!("box {base} has no instances"),
            "add a line such as `instances = 3`",
        )),
        _ => {}
    }
    let name = match name.instance() {
        Some(_) => name.clone(),
        None => base.with_instance(count.unwrap_or(1)),
    };
    Instances { name, count, place }
}

impl Instances {
    /// The number of the box, from 1.
    pub fn index(&self) -> u16 {
        self.name.instance().unwrap_or(1)
    }

    /// Whether there is more than one box.
    pub fn are_several(&self) -> bool {
        self.count.is_some_and(|count| count > 1)
    }

    /// Reads a value that may differ from one instance to the next.
    pub fn read<T>(&self, item: Item<'_>, read: impl FnOnce(Item<'_>) -> Option<T>) -> Option<T> {
        if !self.is_put_together(item.at) {
            return read(item);
        }
        let at = Located {
            place: item.at.place.clone(),
            value: Value::String(self.text(item)?),
        };
        read(Item { at: &at, ..item })
    }

    /// Whether this is to be put together. Where nothing is said of instances, a list of texts is what it always was.
    fn is_put_together(&self, at: &Located) -> bool {
        match &at.value {
            Value::Table(table) => self.place.is_some() || table.contains_key("instance"),
            Value::Array(parts) => self.place.is_some() || parts.iter().any(differs),
            _ => false,
        }
    }

    fn text(&self, item: Item<'_>) -> Option<String> {
        let parts = match &item.at.value {
            Value::Array(parts) if parts.is_empty() => return item.refuse(PART),
            Value::Array(parts) => parts,
            _ => std::slice::from_ref(item.at),
        };
        let part = |at| {
            let item = item.element(at);
            match &item.at.value {
                Value::Table(_) => self.field(item),
                _ => item.string(PART).map(str::to_owned),
            }
        };
        // All of them, for every problem to be told.
        let texts: Vec<Option<String>> = parts.iter().map(part).collect();
        texts.into_iter().collect()
    }

    fn field(&self, item: Item<'_>) -> Option<String> {
        let mut section = Section::element("", "{ instance = … }", item.at, item.problems)?;
        let is_written = section.place_of("instance").is_some();
        let field = section.read("instance", |item| {
            item.choice(&[("index", Field::Index), ("name", Field::Name)])
        });
        section.finish();
        if !is_written {
            item.problems.report(Problem::absent(
                Some(&item.at.place),
                format!("`{}` holds a table without `instance`", item.key),
                "expected { instance = \"index\" } or { instance = \"name\" }",
            ));
        }
        if !self.are_there(&item.at.place, item.problems) {
            return None;
        }
        Some(match field? {
            Field::Index => self.index().to_string(),
            Field::Name => self.name.to_string(),
        })
    }

    /// Whether there are instances; that there are none is a problem of what stands here.
    pub fn are_there(&self, place: &Place, problems: &Problems) -> bool {
        if self.place.is_none() {
            problems.report(Problem::at(
                place,
                "this box has no instances",
                "there is nothing that differs from one to the next: add a line such as `instances = 3`",
            ));
        }
        self.place.is_some()
    }

    /// What is wrong with the host names that the boxes have where none is written.
    pub fn check_hostnames(&self, problems: &Problems) {
        if let Some(place) = &self.place
            && self.count.is_some()
            && self.name.hostname().len() > HOST_NAME_MAX
        {
            problems.report(Problem::at(
                place,
                format!(
                    "the host name {} would have more than {HOST_NAME_MAX} characters",
                    self.name.hostname()
                ),
                "expected a shorter name of the box, or `hostname` as in [\"web-\", { instance = \"index\" }]",
            ));
        }
    }
}

/// Whether a value has a part that differs from one instance to the next.
pub(super) fn differs(at: &Located) -> bool {
    match &at.value {
        Value::Table(table) => table.contains_key("instance"),
        Value::Array(parts) => parts.iter().any(differs),
        _ => false,
    }
}
