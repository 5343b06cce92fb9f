//! Everything that is wrong with a definition, each with its place, and how that is shown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::{Deserialize, Serialize, Serializer};

/// Most problems that are shown: beyond these the file is something else than a definition.
pub(super) const SHOWN_MAX: usize = 50;

/// Longest line that is shown, in bytes: of a longer one only the place is named.
const LINE_MAX: usize = 4096;

/// The text of one file of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceText {
    /// Where it was read, as shown to the operator.
    #[serde(serialize_with = "path_as_text")]
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// JSON has no other bytes than text; the path is only shown.
fn path_as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// What is wrong with a definition: at least one problem, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    sources: Vec<SourceText>,
    problems: Vec<Problem>,
}

/// Bytes of one of the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Index into the sources.
    pub file: usize,
    /// Bytes of that file's text.
    pub span: Range<usize>,
}

/// One problem and the place it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Absent for what should stand somewhere and does not.
    place: Option<Place>,
    /// What is wrong.
    title: String,
    /// What was expected; stands at the underline.
    label: String,
    absence: bool,
    /// Another place this one is at odds with, and what stands there.
    related: Option<(Place, &'static str)>,
    /// Said below.
    note: Option<String>,
}

impl Problem {
    pub fn at(place: &Place, title: impl Into<String>, label: impl Into<String>) -> Self {
        Problem {
            place: Some(place.clone()),
            title: title.into(),
            label: label.into(),
            absence: false,
            related: None,
            note: None,
        }
    }

    /// Something should stand in this table, or somewhere in the definition, and does not.
    pub fn absent(
        place: Option<&Place>,
        title: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Problem {
            place: place.cloned(),
            title: title.into(),
            label: label.into(),
            absence: true,
            related: None,
            note: None,
        }
    }

    /// Whether this is about what does not stand there.
    pub fn is_absence(&self) -> bool {
        self.absence
    }

    pub fn related(mut self, place: &Place, label: &'static str) -> Self {
        self.related = Some((place.clone(), label));
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
}

/// How diagnostics are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// With ANSI colours.
    pub color: bool,
    /// Columns of the terminal.
    pub width: usize,
}

impl Style {
    /// Without colours, for logs and files.
    pub const PLAIN: Style = Style {
        color: false,
        width: 140,
    };
}

impl Diagnostics {
    pub(super) fn new(sources: Vec<SourceText>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| match &problem.place {
            Some(place) => (place.file, place.span.start),
            None => (0, usize::MAX),
        });
        Diagnostics { sources, problems }
    }

    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// Where each problem is, as the file it stands in and bytes of its text; none of what should stand somewhere and
    /// does not.
    pub fn places(&self) -> impl Iterator<Item = Option<(&SourceText, Range<usize>)>> {
        self.problems.iter().map(|problem| {
            let place = problem.place.as_ref()?;
            Some((&self.sources[place.file], place.span.clone()))
        })
    }

    /// The first problem in one line: `FILE:LINE:COLUMN: what is wrong`.
    pub fn first(&self) -> String {
        let Some(problem) = self.problems.first() else {
            return String::new();
        };
        let beginning = Place {
            file: 0,
            span: 0..0,
        };
        let place = problem.place.as_ref().unwrap_or(&beginning);
        let Some(source) = self.sources.get(place.file) else {
            return problem.title.clone();
        };
        let before = &source.text[self.lines(place).start..floor(&source.text, place.span.start)];
        let line = match &problem.place {
            Some(place) => format!(
                ":{}:{}",
                self.line_number(place),
                before.chars().count() + 1
            ),
            None => String::new(),
        };
        let title: String = problem
            .title
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        format!("{}{line}: {title}", shown(&source.path))
    }

    /// Every problem with its file, line, column and the line itself, as rustc shows them.
    pub fn render(&self, style: Style) -> String {
        let renderer = if style.color {
            Renderer::styled()
        } else {
            Renderer::plain()
        }
        .term_width(style.width);
        let mut text = String::new();
        for problem in self.problems.iter().take(SHOWN_MAX) {
            text.push_str(&renderer.render(&[self.group(problem)]));
            text.push_str("\n\n");
        }
        match self.count().saturating_sub(SHOWN_MAX) {
            0 => text.truncate(text.trim_end().len() + 1),
            more => text.push_str(&format!("error: {more} more problems are not shown\n")),
        }
        text
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(&*problem.title));
        match &problem.place {
            None => {
                let beginning = Place {
                    file: 0,
                    span: 0..0,
                };
                group = group
                    .element(self.origin(&beginning))
                    .element(Level::HELP.message(&*problem.label));
            }
            Some(place) => group = self.point(group, problem, place),
        }
        match &problem.note {
            Some(note) => group.element(Level::HELP.message(&**note)),
            None => group,
        }
    }

    /// The lines concerned with their underlines.
    fn point<'a>(&'a self, group: Group<'a>, problem: &'a Problem, place: &Place) -> Group<'a> {
        let label = Some(&*problem.label).filter(|label| !label.is_empty());
        let lines = self.lines(place);
        let related = problem.related.as_ref();
        let too_long = |place: &Place| self.lines(place).len() > LINE_MAX;
        if too_long(place) || related.is_some_and(|(other, _)| too_long(other)) {
            let group = group.element(self.origin(place));
            return match label {
                Some(label) => group.element(Level::HELP.message(label)),
                None => group,
            };
        }
        let primary = |from| {
            let span = self.within(place, from);
            AnnotationKind::Primary.span(span).label(label)
        };
        let context = |other, from, label| {
            let span = self.within(other, from);
            AnnotationKind::Context.span(span).label(label)
        };
        match related {
            None => group.element(
                self.snippet(place.file, lines.clone())
                    .annotation(primary(lines.start)),
            ),
            Some((other, label)) if other.file == place.file => {
                let more = self.lines(other);
                let both = lines.start.min(more.start)..lines.end.max(more.end);
                group.element(
                    self.snippet(place.file, both.clone())
                        .annotation(primary(both.start))
                        .annotation(context(other, both.start, *label)),
                )
            }
            Some((other, label)) => {
                let more = self.lines(other);
                group
                    .element(
                        self.snippet(place.file, lines.clone())
                            .annotation(primary(lines.start)),
                    )
                    .element(
                        self.snippet(other.file, more.clone())
                            .annotation(context(other, more.start, *label)),
                    )
            }
        }
    }

    /// File, line and column without the line.
    fn origin(&self, place: &Place) -> Origin<'static> {
        let Some(source) = self.sources.get(place.file) else {
            return Origin::path("");
        };
        let before = &source.text[self.lines(place).start..floor(&source.text, place.span.start)];
        Origin::path(shown(&source.path))
            .line(self.line_number(place))
            .char_column(before.chars().count() + 1)
    }

    fn line_number(&self, place: &Place) -> usize {
        let text = &self.sources[place.file].text;
        text[..self.lines(place).start].matches('\n').count() + 1
    }

    /// Only the lines concerned: the file around them may be a megabyte.
    fn snippet(
        &self,
        file: usize,
        lines: Range<usize>,
    ) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
        let source = &self.sources[file];
        let number = source.text[..lines.start].matches('\n').count() + 1;
        Snippet::source(without_c1(&source.text[lines]))
            .path(shown(&source.path))
            .line_start(number)
            .fold(true)
    }

    /// The bytes of the line this place begins in.
    fn lines(&self, place: &Place) -> Range<usize> {
        let text = &self.sources[place.file].text;
        let start = floor(text, place.span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..]
            .find('\n')
            .map_or(text.len(), |newline| start + newline);
        line_start..line_end
    }

    /// The part of this place that lies in its first line, counted from `from`.
    fn within(&self, place: &Place, from: usize) -> Range<usize> {
        let text = &self.sources[place.file].text;
        let line = self.lines(place);
        let start = floor(text, place.span.start).min(line.end);
        let end = floor(text, place.span.end).clamp(start, line.end);
        start - from..end - from
    }
}

/// The renderer shows the control characters of ASCII as pictures, but not those of C1, which terminals obey as
/// well. Their stand-in has as many bytes, so that places stay right.
fn without_c1(text: &str) -> String {
    text.replace(|c| matches!(c, '\u{80}'..='\u{9f}'), "\u{b7}")
}

/// The nearest boundary of a character at or before this byte.
fn floor(text: &str, byte: usize) -> usize {
    let byte = byte.min(text.len());
    (0..=byte)
        .rev()
        .find(|byte| text.is_char_boundary(*byte))
        .unwrap_or(0)
}

/// A path without anything a terminal would obey.
pub(super) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains(char::is_control) {
        text.escape_debug().to_string()
    } else {
        text
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Style::PLAIN).trim_end())
    }
}

impl std::error::Error for Diagnostics {}
