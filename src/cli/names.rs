//! Which boxes are meant.

use std::path::Path;

use crate::definition::{self, Layers};
use crate::name::{Name, NameError};
use crate::running;

/// Why it is not known which box is meant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text cannot be a box's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The box is not a unit's, so the unit can do nothing for it.
    #[error(
        "cannot {operation} box {name}: `boxctl run` holds it in the foreground (its first process is {pid}); end it there with Ctrl-C, or with `boxctl kill {name}`"
    )]
    Foreground {
        /// What was to be done.
        operation: &'static str,
        /// The box.
        name: Name,
        /// On the host.
        pid: i32,
    },
    /// Only a running box can do this.
    #[error(
        "cannot {operation} box {name}: it is not running; start it with `systemctl start box@{name}`"
    )]
    NotRunning {
        /// What was to be done.
        operation: &'static str,
        /// The box.
        name: Name,
    },
    /// There is no such box.
    #[error(
        "there is no box {name}: no definition in {} and nothing of that name runs{}",
        list(directories),
        hint(similar)
    )]
    Unknown {
        /// What was asked for.
        name: Name,
        /// Where definitions are looked for.
        directories: Vec<String>,
        /// A box of a similar name.
        similar: Option<String>,
    },
}

/// What a command works on: `FILE|NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source<'text> {
    /// A definition file wherever it lies.
    File(&'text Path),
    /// The box of this name, in the layers.
    Name(Name),
}

/// A file if the text has a `/` or ends in `.toml`, else a name: a file of that name in the current directory
/// never changes what a name means. `box@NAME.service` is a name, too.
pub fn source(text: &str) -> Result<Source<'_>, Error> {
    if text.contains('/') || text.ends_with(".toml") {
        Ok(Source::File(Path::new(text)))
    } else {
        Ok(Source::Name(parse(text)?))
    }
}

/// A name, also when it is written as its unit.
pub fn parse(text: &str) -> Result<Name, Error> {
    let name = text.strip_prefix("box@").unwrap_or(text);
    let name = name.strip_suffix(".service").unwrap_or(name);
    Ok(name.parse()?)
}

/// The error for a name nothing is known of.
pub fn unknown(name: Name, layers: &Layers) -> Error {
    let mut known: Vec<String> = running::names()
        .unwrap_or_default()
        .into_iter()
        .map(String::from)
        .collect();
    let listed = definition::list(layers).unwrap_or_default();
    known.extend(
        listed
            .into_iter()
            .filter_map(|listed| listed.name.ok())
            .map(String::from),
    );
    Error::Unknown {
        similar: similar(name.as_str(), &known),
        directories: layers
            .directories()
            .iter()
            .map(|directory| directory.display().to_string())
            .collect(),
        name,
    }
}

/// The nearest of the known names, if it is near enough to be what was meant.
fn similar(name: &str, known: &[String]) -> Option<String> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        // The name itself is there when a box was killed together with who ran it.
        .filter(|(distance, _)| (1..=(name.len() / 3).max(1)).contains(distance))
        .min()
        .map(|(_, candidate)| candidate.clone())
}

fn hint(similar: &Option<String>) -> String {
    match similar {
        Some(similar) => format!("; did you mean {similar}?"),
        None => "; `boxctl list` shows all".to_owned(),
    }
}

fn list(directories: &[String]) -> String {
    match directories {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_name_by_how_it_is_written() {
        assert_eq!(
            source("./web").expect("a file"),
            Source::File(Path::new("./web"))
        );
        assert_eq!(
            source("web.toml").expect("a file"),
            Source::File(Path::new("web.toml"))
        );
        let web = Source::Name("web".parse().expect("a name"));
        for text in ["web", "box@web", "box@web.service"] {
            assert_eq!(source(text).expect("a name"), web);
        }
        assert!(source("Web").is_err());
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = ["web", "database", "mail"].map(str::to_owned);
        assert_eq!(similar("wbe", &known).as_deref(), Some("web"));
        assert_eq!(similar("databse", &known).as_deref(), Some("database"));
        assert_eq!(similar("proxy", &known), None);
    }
}
