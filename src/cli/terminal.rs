//! The terminal, or what stands in its place: colour, width, and the one way to write to it.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use unicode_width::UnicodeWidthChar;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// With colours.
    pub color: bool,
    /// Columns lines are cut to; none where lines may be as long as they like.
    pub width: Option<usize>,
}

/// A colour with a meaning, not a hue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Works.
    Good,
    /// Is on its way, or deserves a look.
    Warning,
    /// Does not work.
    Bad,
    /// A heading.
    Strong,
    /// Aside.
    Faint,
}

impl Look {
    /// The look of standard output.
    pub fn of_stdout(color: Color) -> Look {
        Look::of(color, &io::stdout())
    }

    /// The look of standard error.
    pub fn of_stderr(color: Color) -> Look {
        Look::of(color, &io::stderr())
    }

    fn of(color: Color, stream: &(impl IsTerminal + std::os::fd::AsFd)) -> Look {
        let terminal = stream.is_terminal();
        Look {
            color: colored(
                color,
                terminal,
                std::env::var_os("NO_COLOR").as_deref(),
                std::env::var_os("TERM").as_deref(),
            ),
            width: terminal.then(|| width_of(stream)).flatten(),
        }
    }

    /// The text in a colour, where there are colours.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => "1;32",
            Paint::Warning => "1;33",
            Paint::Bad => "1;31",
            Paint::Strong => "1",
            Paint::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Whether to use colours: what was asked for, then <https://no-color.org>, then the terminal.
fn colored(
    color: Color,
    terminal: bool,
    no_color: Option<&OsStr>,
    terminal_type: Option<&OsStr>,
) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            terminal
                && no_color.is_none_or(OsStr::is_empty)
                && terminal_type != Some(OsStr::new("dumb"))
        }
    }
}

fn width_of(terminal: &impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Writes to standard output. A reader that has gone (`boxctl status | head`) is no error worth a word.
pub fn say(text: &str) -> Result<(), io::Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes to standard error; there is nowhere to tell that it did not work.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Columns a text takes on a terminal.
pub fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text in at most this many columns; what does not fit is replaced by `…`.
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else {
        return String::new();
    };
    let mut used = 0;
    let mut result = String::new();
    for c in text.chars() {
        let next = c.width().unwrap_or(0);
        if used + next > room {
            break;
        }
        used += next;
        result.push(c);
    }
    result.push('…');
    result
}

/// The text broken between its words where a terminal is so wide; lines after the first begin with `indent`, for which
/// the first has room too.
pub fn wrap(text: &str, width: Option<usize>, indent: &str) -> String {
    const NARROWEST: usize = 20;
    let Some(width) = width else {
        return text.to_owned();
    };
    let room = width.saturating_sub(columns(indent)).max(NARROWEST);
    let mut result = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let wide = columns(word);
        if used > 0 && used + 1 + wide > room {
            result.push('\n');
            result.push_str(indent);
            used = 0;
        } else if used > 0 {
            result.push(' ');
            used += 1;
        }
        result.push_str(word);
        used += wide;
    }
    result
}

/// The text with every control character shown as its escape: text that came out of a box must not command
/// the operator's terminal.
pub fn harmless(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => result.push_str("    "),
            c if c.is_control() => result.extend(c.escape_default()),
            // Characters that reorder what stands around them: Unicode Standard Annex 9.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => result.extend(c.escape_unicode()),
            c => result.push(c),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_wish_then_the_environment_then_the_terminal() {
        let xterm = Some(OsStr::new("xterm"));
        assert!(colored(Color::Auto, true, None, xterm));
        assert!(colored(Color::Auto, true, Some(OsStr::new("")), xterm));
        assert!(!colored(Color::Auto, true, Some(OsStr::new("1")), xterm));
        assert!(!colored(Color::Auto, true, None, Some(OsStr::new("dumb"))));
        assert!(!colored(Color::Auto, false, None, xterm));
        assert!(colored(Color::Always, false, Some(OsStr::new("1")), None));
        assert!(!colored(Color::Never, true, None, xterm));
    }

    #[test]
    fn a_cut_text_fits_its_columns_whatever_its_script() {
        assert_eq!(cut("Shop front", 20), "Shop front");
        assert_eq!(cut("Shop front", 10), "Shop front");
        assert_eq!(cut("Shop front", 5), "Shop…");
        assert_eq!(cut("店頭の看板", 6), "店頭…");
        assert_eq!(cut("x", 0), "");
        for width in 0..12 {
            assert!(columns(&cut("店頭 a店頭b", width)) <= width);
        }
    }

    #[test]
    fn a_text_is_broken_between_its_words() {
        assert_eq!(wrap("one two three", None, "  "), "one two three");
        assert_eq!(
            wrap(
                "a sentence that is longer than the terminal",
                Some(22),
                "  "
            ),
            "a sentence that is\n  longer than the\n  terminal"
        );
        let long = "/a/path/that/is/longer/than/any/terminal";
        assert_eq!(
            wrap(&format!("at {long}"), Some(22), ""),
            format!("at\n{long}")
        );
    }

    #[test]
    fn text_from_a_box_cannot_command_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(harmless("line\nforged"), "line\\nforged");
        assert_eq!(harmless("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(harmless("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(harmless("grün 店"), "grün 店");
    }
}
