//! Which boxes are meant.

use std::collections::BTreeSet;
use std::path::Path;

use crate::definition::{self, Layers, LoadError};
use crate::generation::{self, NotInForce};
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
    /// It takes one box, and there are several of this name.
    #[error("cannot {operation} box {name}: it has instances, {first} to {last}; say which")]
    Several {
        /// What was to be done.
        operation: &'static str,
        /// The name of all.
        name: Name,
        /// The first of them.
        first: Name,
        /// The last.
        last: Name,
    },
    /// What is to be done concerns the definition, and an instance has none of its own.
    #[error(
        "cannot {operation} {name} by itself: all instances of {base} have one definition, so say {base}",
        base = name.base()
    )]
    OfAll {
        /// What was to be done.
        operation: &'static str,
        /// The instance.
        name: Name,
    },
    /// Only a running box can do this.
    #[error(
        "cannot {operation} box {name}: it is not running; start it with `boxctl start {name}`"
    )]
    NotRunning {
        /// What was to be done.
        operation: &'static str,
        /// The box.
        name: Name,
    },
    /// Its definition is one of other instances.
    #[error("{why}")]
    Instance {
        /// That, as a sentence.
        why: String,
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

/// The name of a definition, for what is done to it: never that of an instance.
///
/// # Errors
///
/// [`Error::OfAll`].
pub fn of_definition(operation: &'static str, text: &str) -> Result<Name, Error> {
    let name = parse(text)?;
    match name.instance() {
        None => Ok(name),
        Some(_) => Err(Error::OfAll { operation, name }),
    }
}

/// The boxes that a text stands for by its definition: all instances, if it does not say which.
pub fn defined(text: &str, layers: &Layers) -> Result<Vec<Name>, Error> {
    let name = parse(text)?;
    if name.instance().is_some() {
        return Ok(vec![name]);
    }
    Ok(match generation::in_force(&name, layers) {
        Ok(in_force) => in_force.definition.boxes(),
        Err(_) => vec![name],
    })
}

/// The boxes that a text stands for, and those that run by its name although the definition does not have them any
/// more.
pub fn there(text: &str, layers: &Layers) -> Result<Vec<Name>, Error> {
    there_of(text, layers, &running::names().unwrap_or_default())
}

/// The same, where these are what runs.
pub fn there_of(text: &str, layers: &Layers, running: &[Name]) -> Result<Vec<Name>, Error> {
    let name = parse(text)?;
    if name.instance().is_some() {
        return Ok(vec![name]);
    }
    let running = running.iter().filter(|running| running.base() == name);
    let mut all: BTreeSet<Name> = running.cloned().collect();
    match generation::in_force(&name, layers) {
        Ok(in_force) => all.extend(in_force.definition.boxes()),
        // They are all there is of it.
        Err(NotInForce::Load(LoadError::Find { .. })) if !all.is_empty() => {}
        Err(_) => drop(all.insert(name)),
    }
    Ok(all.into_iter().collect())
}

/// The one box that a text stands for.
///
/// # Errors
///
/// [`Error::Several`].
pub fn one(operation: &'static str, text: &str, layers: &Layers) -> Result<Name, Error> {
    match &*there(text, layers)? {
        [only] => Ok(only.clone()),
        [first, .., last] => Err(Error::Several {
            operation,
            name: first.base(),
            first: first.clone(),
            last: last.clone(),
        }),
        // Nothing is known of it, which whoever looks for it says better.
        [] => parse(text),
    }
}

/// Those of them that run; the name itself if none does, which whoever looks for it says better.
pub fn running(text: &str, layers: &Layers) -> Result<Vec<Name>, Error> {
    let mut names = there(text, layers)?;
    if names.len() > 1 {
        let running: BTreeSet<Name> = running::names().unwrap_or_default().into_iter().collect();
        names.retain(|name| running.contains(name));
    }
    match names.is_empty() {
        true => Ok(vec![parse(text)?]),
        false => Ok(names),
    }
}

/// The same of several texts, each box once.
pub fn each(
    texts: &[String],
    layers: &Layers,
    of: impl Fn(&str, &Layers) -> Result<Vec<Name>, Error>,
) -> Result<Vec<Name>, Error> {
    let mut all: Vec<Name> = Vec::new();
    for text in texts {
        for name in of(text, layers)? {
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    Ok(all)
}

/// The error for a name nothing is known of.
pub fn unknown(name: Name, layers: &Layers) -> Error {
    if let Err(NotInForce::Load(error @ LoadError::Instance { .. })) =
        generation::in_force(&name, layers)
    {
        let why = error.to_string();
        return Error::Instance { why };
    }
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
        let second = Source::Name("web:2".parse().expect("a name"));
        assert_eq!(source("box@web:2.service").expect("a name"), second);
        assert!(of_definition("edit", "web").is_ok() && of_definition("edit", "web:2").is_err());
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
