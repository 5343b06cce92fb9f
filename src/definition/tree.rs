//! TOML as a tree in which every value knows the file and the bytes it came from, and how trees are merged.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Place, Problem};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub place: Place,
    pub value: Value,
}

/// A value of TOML.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    /// Wider than anything the format has, so that the range is judged by whoever knows it.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Located>),
    Table(Table),
}

/// Keys with the place of the key and the value.
pub(super) type Table = BTreeMap<String, Entry>;

/// One key of a table.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: Place,
    pub value: Located,
}

impl Value {
    /// What this is, for "found …".
    pub fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number with a fraction",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date or time",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// The tree of one text, as far as it can be read, and what is wrong with its syntax: one problem for a line.
pub(super) fn parse(file: usize, text: &str) -> (Table, Vec<Problem>) {
    let (table, mut errors) = DeTable::parse_recoverable(text);
    // Values are decoded after the structure is known: the parser reports in another order than that of lines.
    errors.sort_by_key(|error| error.span().map_or(text.len(), |span| span.start));
    let mut problems = Vec::new();
    let lines = Lines::of(text);
    let mut last_line = None;
    // A list that is not closed swallows the lines after it, and each of those is an error of its own to the
    // parser: the first of them is where the list should have ended.
    let swallowed =
        |message: &str| message.contains("array element") || message.contains("in array");
    let unclosed = errors
        .iter()
        .any(|error| error.message().contains("unclosed array,"));
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let span = beyond_blanks(text, span);
        let line = lines.line(span.start);
        if last_line.replace(line) == Some(line) {
            continue;
        }
        let place = Place { file, span };
        if unclosed && swallowed(error.message()) {
            let title = "this stands in a list that is not closed";
            problems.push(Problem::at(&place, title, "expected `]` before this"));
            break;
        }
        let (title, label) = match error.message().split_once(", expected ") {
            Some((title, "literal string")) => {
                (title, "expected a value, text in quotes".to_owned())
            }
            Some((title, expected)) => (title, format!("expected {expected}")),
            None => (error.message(), String::new()),
        };
        problems.push(Problem::at(&place, title, label));
    }
    (convert_table(file, table.into_inner()), problems)
}

/// Where the lines of a text begin: a file can have as many errors as bytes, and each asks for its line.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub fn of(text: &str) -> Self {
        Lines(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line this byte is in, from 0.
    pub fn line(&self, byte: usize) -> usize {
        self.0.partition_point(|newline| *newline < byte)
    }
}

/// An error with no extent before blanks is about what follows them.
fn beyond_blanks(text: &str, span: Range<usize>) -> Range<usize> {
    let start = (0..=span.start.min(text.len()))
        .rev()
        .find(|byte| text.is_char_boundary(*byte))
        .unwrap_or(0);
    let rest = text[start..].trim_start_matches([' ', '\t']);
    if span.is_empty() && !rest.is_empty() && !rest.starts_with(['\r', '\n']) {
        let start = text.len() - rest.len();
        start..start
    } else {
        start..span.end.max(start)
    }
}

fn convert_table(file: usize, table: DeTable<'_>) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let place = place(file, key.span());
            let entry = Entry {
                key: place,
                value: convert(file, value),
            };
            (key.into_inner().into_owned(), entry)
        })
        .collect()
}

fn convert(file: usize, value: Spanned<DeValue<'_>>) -> Located {
    let place = place(file, value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(integer) => {
            let text = integer.as_str();
            let beyond = if text.starts_with('-') {
                i128::MIN
            } else {
                i128::MAX
            };
            Value::Integer(i128::from_str_radix(text, integer.radix()).unwrap_or(beyond))
        }
        DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => {
            Value::Array(items.into_iter().map(|item| convert(file, item)).collect())
        }
        DeValue::Table(table) => Value::Table(convert_table(file, table)),
    };
    Located { place, value }
}

fn place(file: usize, span: Range<usize>) -> Place {
    Place { file, span }
}

/// Lays a drop-in over what stands: its tables are merged, its `[[mount]]`s come after those there are, and
/// all else that it names is replaced by what it says.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (name, entry) in over {
        let appended = name == "mount";
        let replaces_root = name == "root";
        let Some(present) = base.get_mut(&name) else {
            base.insert(name, entry);
            continue;
        };
        match (&mut present.value.value, entry.value.value) {
            (Value::Array(there), Value::Array(more)) if appended => there.extend(more),
            (Value::Table(there), Value::Table(more)) => {
                if replaces_root {
                    forget_other_source(there, &more);
                }
                merge_entries(there, more);
            }
            (_, value) => {
                let value = Located {
                    place: entry.value.place,
                    value,
                };
                *present = Entry {
                    key: entry.key,
                    value,
                };
            }
        }
    }
}

/// Tables within a section: `environment`, `io-read` and their like.
fn merge_entries(base: &mut Table, over: Table) {
    for (name, mut entry) in over {
        if let (Some(present), Value::Table(more)) = (base.get_mut(&name), &mut entry.value.value)
            && let Value::Table(there) = &mut present.value.value
        {
            merge_entries(there, std::mem::take(more));
            continue;
        }
        base.insert(name, entry);
    }
}

/// A drop-in that names a root means that one instead of the one named before, of whatever kind.
fn forget_other_source(there: &mut Table, more: &Table) {
    const SOURCES: [&str; 2] = ["directory", "host"];
    if SOURCES.iter().any(|source| more.contains_key(*source)) {
        there.retain(|key, _| !SOURCES.contains(&key.as_str()));
    }
}
