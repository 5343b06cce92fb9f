//! Typed reading of one table: every key is asked for once, what nobody asked for is unknown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use super::diagnostics::{Place, Problem, SHOWN_MAX};
use super::quantity::nearest;
use super::tree::{Entry, Located, Table, Value};

/// Longest path of the kernel, `PATH_MAX` with its NUL.
const PATH_MAX: usize = 4096;
/// Longest file name, `NAME_MAX`.
const FILE_NAME_MAX: usize = 255;
/// Characters of a value that are repeated in a message.
const QUOTED_MAX: usize = 60;

/// Where readers report; reading goes on after each.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub fn report(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    /// More than are shown: nobody reads what could be said of further ones.
    pub fn are_many(&self) -> bool {
        self.0.borrow().len() >= SHOWN_MAX
    }

    pub fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A table of the format while it is read.
pub(super) struct Section<'p> {
    /// Dotted, empty for the whole file.
    name: &'static str,
    /// As written in a file: `[resources]`.
    header: &'static str,
    /// What introduced it; absent if it is not written.
    place: Option<Place>,
    table: Table,
    known: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    /// The whole file.
    pub fn whole(table: Table, problems: &'p Problems) -> Self {
        Section {
            name: "",
            header: "",
            place: None,
            table,
            known: Vec::new(),
            problems,
        }
    }

    /// One table of an array of tables.
    pub fn element(
        name: &'static str,
        header: &'static str,
        element: &Located,
        problems: &'p Problems,
    ) -> Option<Self> {
        let Value::Table(table) = &element.value else {
            problems.report(Problem::at(
                &element.place,
                format!("`{name}` holds {}", element.value.kind()),
                format!("expected a table, written below a line {header}"),
            ));
            return None;
        };
        Some(Section {
            name,
            header,
            place: Some(element.place.clone()),
            table: table.clone(),
            known: Vec::new(),
            problems,
        })
    }

    /// A table of this one; empty if it is not written.
    pub fn section(&mut self, name: &'static str, header: &'static str) -> Section<'p> {
        let mut section = Section {
            name,
            header,
            place: None,
            table: Table::new(),
            known: Vec::new(),
            problems: self.problems,
        };
        match self.take(name) {
            None => {}
            Some(Entry {
                key,
                value:
                    Located {
                        value: Value::Table(table),
                        ..
                    },
            }) => {
                section.place = Some(key);
                section.table = table;
            }
            Some(entry) => self.problems.report(Problem::at(
                &entry.value.place,
                format!("`{name}` is {}", entry.value.value.kind()),
                format!("expected a table, written below a line {header}"),
            )),
        }
        section
    }

    /// What stands at a key as the reader makes it; nothing if it is not written or was reported.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'_>) -> Option<T>,
    ) -> Option<T> {
        let entry = self.take(key)?;
        let name = match self.name {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        };
        read(Item {
            key: &name,
            at: &entry.value,
            element: false,
            problems: self.problems,
        })
    }

    /// The same, with the place of the value for checks across keys.
    pub fn read_placed<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'_>) -> Option<T>,
    ) -> Option<(T, Place)> {
        self.read(key, |item| {
            let place = item.at.place.clone();
            Some((read(item)?, place))
        })
    }

    /// Where this key stands, if it is written; it stays to be read.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        self.table.get(key).map(|entry| entry.key.clone())
    }

    /// Where problems across keys are reported.
    pub fn problems(&self) -> &'p Problems {
        self.problems
    }

    /// Where the table begins, if it is written.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Reports every key that was not asked for.
    pub fn finish(self) {
        let Section {
            header,
            table,
            mut known,
            problems,
            ..
        } = self;
        known.sort_unstable();
        for (index, (key, entry)) in table.into_iter().enumerate() {
            let place = match header {
                "" => String::new(),
                header => format!(" in {header}"),
            };
            let title = format!("unknown key {}{place}", code(&key));
            // Nobody reads more of them, and comparing takes its time.
            let near = (index < SHOWN_MAX)
                .then(|| nearest(&key, known.iter().copied()))
                .flatten();
            problems.report(match near {
                Some(near) => Problem::at(&entry.key, title, format!("did you mean `{near}`?")),
                None => Problem::at(&entry.key, title, "no such key")
                    .note(format!("known are {}", known.join(", "))),
            });
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Entry> {
        self.known.push(key);
        self.table.remove(key)
    }
}

/// A value to be read.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    /// Dotted key it stands at.
    pub key: &'a str,
    pub at: &'a Located,
    /// One of a list's elements, or a key of a table whose keys are free.
    pub element: bool,
    pub problems: &'a Problems,
}

impl<'a> Item<'a> {
    /// An element of this value.
    pub fn element(&self, at: &'a Located) -> Self {
        Item {
            at,
            element: true,
            ..*self
        }
    }

    /// Reports that the value is not what belongs here.
    pub fn refuse<T>(&self, expected: impl Into<String>) -> Option<T> {
        let value = match &self.at.value {
            Value::String(text) => quoted(text),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(boolean) => boolean.to_string(),
            other => other.kind().to_owned(),
        };
        let verb = if self.element {
            "cannot hold"
        } else {
            "cannot be"
        };
        let title = format!("`{}` {verb} {value}", self.key);
        self.report(title, expected)
    }

    /// Reports that the value is of another type than what belongs here.
    pub fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let verb = if self.element { "holds" } else { "is" };
        let title = format!("`{}` {verb} {}", self.key, self.at.value.kind());
        self.report(title, expected)
    }

    fn report<T>(&self, title: String, label: impl Into<String>) -> Option<T> {
        self.problems
            .report(Problem::at(&self.at.place, title, label));
        None
    }

    /// Any text; only NUL is refused, which no argument, variable or path can hold.
    pub fn string(&self, expected: &str) -> Option<&'a str> {
        let Value::String(text) = &self.at.value else {
            return self.wrong_type(expected);
        };
        if text.contains('\0') {
            let title = format!("`{}` holds a NUL character", self.key);
            return self.report(title, "the kernel would see the text end there");
        }
        Some(text)
    }

    /// One line of text: not empty, no control characters.
    pub fn line(&self, expected: &str) -> Option<&'a str> {
        let text = self.string(expected)?;
        if let Some(index) = text.chars().position(char::is_control) {
            let title = format!("`{}` holds a control character", self.key);
            let character = text.chars().nth(index).unwrap_or_default();
            return self.report(
                title,
                format!("character {} is {character:?}; {expected}", index + 1),
            );
        }
        if text.is_empty() {
            return self.report(format!("`{}` is empty", self.key), expected);
        }
        Some(text)
    }

    /// A line of text that the parser understands; its error is what was expected.
    pub fn parsed<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.line(expected)?) {
            Ok(value) => Some(value),
            Err(expected) => self.refuse(expected),
        }
    }

    /// An absolute path without `..`; repeated and trailing slashes and `.` are dropped as systemd does.
    pub fn path(&self, expected: &str) -> Option<PathBuf> {
        self.parsed(expected, |text| path(text, expected))
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        const EXPECTED: &str = "expected true or false, without quotes";
        match &self.at.value {
            Value::Boolean(boolean) => Some(*boolean),
            _ => self.wrong_type(EXPECTED),
        }
    }

    /// An integer of this range.
    pub fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!(
            "expected a number from {} to {}",
            range.start(),
            range.end()
        );
        match &self.at.value {
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(number) if range.contains(&number) => Some(number),
                _ => self.refuse(expected),
            },
            _ => self.wrong_type(&expected),
        }
    }

    /// One of these words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names = choices.iter().map(|(name, _)| *name);
        let list: Vec<_> = names.clone().map(|name| format!("{name:?}")).collect();
        let expected = match &*list {
            [only] => format!("expected {only}"),
            list => format!("expected one of {}", list.join(", ")),
        };
        let text = self.string(&expected)?;
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Some(*value),
            None => self.refuse(match nearest(text, names) {
                Some(near) if list.len() > 1 => format!("did you mean {near:?}? {expected}"),
                _ => expected,
            }),
        }
    }

    /// Every element as the reader makes it; those that were reported are left out.
    pub fn list<T>(&self, expected: &str, read: impl Fn(Item<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Array(elements) = &self.at.value else {
            return self.wrong_type(expected);
        };
        let items = elements.iter().map(|at| self.element(at));
        Some(items.filter_map(read).collect())
    }

    /// Every key and value as the readers make them; the key is given as a string at its place.
    pub fn map<K: Ord, T>(
        &self,
        expected: &str,
        read_key: impl Fn(Item<'_>) -> Option<K>,
        read: impl Fn(Item<'_>) -> Option<T>,
    ) -> Option<BTreeMap<K, T>> {
        let Value::Table(table) = &self.at.value else {
            return self.wrong_type(expected);
        };
        let mut map = BTreeMap::new();
        for (key, entry) in table {
            let name = format!("{}.{}", self.key, plain(key));
            let key = read_key(Item {
                at: &Located {
                    place: entry.key.clone(),
                    value: Value::String(key.clone()),
                },
                element: true,
                ..*self
            });
            let value = read(Item {
                key: &name,
                at: &entry.value,
                element: false,
                problems: self.problems,
            });
            if let (Some(key), Some(value)) = (key, value)
                && map.insert(key, value).is_some()
            {
                self.problems.report(Problem::at(
                    &entry.key,
                    format!("`{}` names this path twice", self.key),
                    "named before in another spelling",
                ));
            }
        }
        Some(map)
    }
}

/// An absolute path of the kernel's limits, without `..`.
pub(super) fn path(text: &str, expected: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') {
        return Err(expected.to_owned());
    }
    let mut path = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::ParentDir => {
                return Err("expected a path without \"..\"".to_owned());
            }
            Component::Normal(name) if name.len() > FILE_NAME_MAX => {
                return Err(format!(
                    "expected names of at most {FILE_NAME_MAX} bytes in a path"
                ));
            }
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if path.as_os_str().len() >= PATH_MAX {
        return Err(format!("expected a path of less than {PATH_MAX} bytes"));
    }
    Ok(path)
}

/// A value as it is repeated in a message: escaped, and only its beginning if it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn code(key: &str) -> String {
    format!("`{}`", plain(key))
}

/// A key as it is repeated in a message.
fn plain(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) && key.len() <= QUOTED_MAX {
        key.to_owned()
    } else {
        quoted(key)
    }
}
