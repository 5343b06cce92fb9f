//! TOML as a tree in which every value knows the file and the bytes it came from, and how trees are merged.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Place, Problem, SHOWN_MAX};

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

/// What a text says, as far as it can be read.
pub(super) struct Parsed {
    pub table: Table,
    /// What is wrong with its syntax: one problem for a line.
    pub problems: Vec<Problem>,
}

/// Most bytes that are parsed again and again for the sake of the problems after a problem.
const REPEATED_MAX: usize = 4 << 20;

/// Reads one text, the lines that are wrong left out.
///
/// The parser gives up at some errors. So that one of them does not hide what is wrong further down, its line
/// is blanked and the text is read again, until what is left is clean.
pub(super) fn parse(file: usize, text: &str) -> Parsed {
    let mut problems = Vec::new();
    let mut rest = text.to_owned();
    let lines = Lines::of(text);
    let mut blanked = BTreeSet::new();
    let rounds = (REPEATED_MAX / text.len().max(1)).clamp(1, SHOWN_MAX);
    for _ in 0..rounds {
        let (table, errors) = DeTable::parse_recoverable(&rest);
        if errors.is_empty() {
            let table = convert_table(file, table.into_inner());
            return Parsed { table, problems };
        }
        let found = syntax_problems(file, &rest, &lines, errors);
        let mut progress = false;
        for (span, problem) in found {
            if blanked.contains(&lines.line(span.start)) {
                continue;
            }
            let first = lines.line(span.start);
            let last = lines.line(span.end.saturating_sub(1).max(span.start));
            let (first, last) = match problem.place() {
                // From the line of the list's opening, so that it is open no more.
                Some(place) if span.end > place.span.end => (opening(&rest, &lines, first), last),
                _ => (first, end_of_table(&rest, &lines, first)),
            };
            blank(&mut rest, &lines, first..=last);
            blanked.extend(first..=last);
            problems.push(problem);
            progress = true;
        }
        if !progress {
            break;
        }
    }
    // Too broken to be believed.
    Parsed {
        table: Table::new(),
        problems,
    }
}

/// The first error of each line as a problem, with the bytes that are unreadable for it.
fn syntax_problems(
    file: usize,
    text: &str,
    lines: &Lines,
    mut errors: Vec<toml::de::Error>,
) -> Vec<(Range<usize>, Problem)> {
    // Values are decoded after the structure is known: the parser reports in another order than that of lines.
    errors.sort_by_key(|error| error.span().map_or(text.len(), |span| span.start));
    // A list that is not closed swallows the lines after it, and each of those is an error of its own to the
    // parser: the first of them is where the list should have ended.
    let unclosed = errors
        .iter()
        .any(|error| error.message().starts_with("unclosed array,"));
    let swallowed =
        |message: &str| message.contains("array element") || message.contains("in array");
    let mut problems: Vec<(Range<usize>, Problem)> = Vec::new();
    let mut last_line = None;
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let span = beyond_blanks(text, span);
        let line = lines.line(span.start);
        if last_line.replace(line) == Some(line) {
            continue;
        }
        let place = Place {
            file,
            span: span.clone(),
        };
        if unclosed && swallowed(error.message()) {
            let title = "this stands in a list that is not closed";
            let problem = Problem::at(&place, title, "expected `]` before this");
            problems.push((span.start..text.len() + 1, problem));
            break;
        }
        let (title, label) = match error.message().split_once(", expected ") {
            Some((title, "literal string")) => {
                (title, "expected a value, text in quotes".to_owned())
            }
            Some((title, expected)) => (title, format!("expected {expected}")),
            None if error.message() == "duplicate key" => {
                (error.message(), "written before in this file".to_owned())
            }
            None => (error.message(), String::new()),
        };
        let problem = Problem::at(&place, title, label);
        problems.push((span, problem));
    }
    problems
}

/// The line in which the list that this line stands in was opened, as far as can be told.
fn opening(text: &str, lines: &Lines, line: usize) -> usize {
    let opens = |line: &usize| {
        let text = &text[lines.bytes(*line, text)];
        text.split_once('=')
            .is_some_and(|(_, value)| value.trim_start().starts_with('['))
    };
    (0..line).rev().find(opens).unwrap_or(line)
}

/// The last line that goes with this one: what stands below a header that cannot be read belongs to no table.
fn end_of_table(text: &str, lines: &Lines, line: usize) -> usize {
    let is_header = |line: usize| text[lines.bytes(line, text)].trim_start().starts_with('[');
    if is_header(line) {
        let next = (line + 1..lines.count()).find(|line| is_header(*line));
        next.unwrap_or(lines.count()) - 1
    } else {
        line
    }
}

/// Overwrites lines with spaces: everything else stays where it is.
fn blank(text: &mut String, lines: &Lines, range: RangeInclusive<usize>) {
    let bytes = lines.bytes(*range.start(), text).start..lines.bytes(*range.end(), text).end;
    let blanks: String = text[bytes.clone()]
        .bytes()
        .map(|byte| {
            if matches!(byte, b'\n' | b'\r') {
                byte as char
            } else {
                ' '
            }
        })
        .collect();
    text.replace_range(bytes, &blanks);
}

/// Where the lines of a text begin: a file can have as many errors as bytes, and each asks for its line.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Lines(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The bytes of a line without its end.
    fn bytes(&self, line: usize, text: &str) -> Range<usize> {
        let start = match line {
            0 => 0,
            line => self
                .0
                .get(line - 1)
                .map_or(text.len(), |newline| newline + 1),
        };
        start..self.0.get(line).copied().unwrap_or(text.len())
    }

    fn count(&self) -> usize {
        self.0.len() + 1
    }

    /// The line this byte is in, from 0.
    fn line(&self, byte: usize) -> usize {
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

/// What a drop-in adds to: tables of which a definition has as many as it likes.
const APPENDED: [&str; 3] = ["device", "mount", "socket"];

/// Lays a drop-in over what stands: its tables are merged, those of which there may be many come after those there are,
/// and all else that it names is replaced by what it says.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (name, entry) in over {
        let appended = APPENDED.contains(&name.as_str());
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
