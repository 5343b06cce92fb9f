//! `/etc/boxd.toml`: how boxd itself behaves.

use std::io;
use std::path::Path;

use super::diagnostics::{Diagnostics, Problem};
use super::layers::{LoadError, read};
use super::section::{Problems, Section};
use super::tree;

/// Where they stand.
pub const SETTINGS: &str = "/etc/boxd.toml";

/// What may be set, with the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// What follows a change of a definition.
    pub apply: Apply,
}

/// `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Apply {
    /// It is applied at once.
    #[default]
    Auto,
    /// It is said what would be done, and somebody says `boxctl apply`.
    Plan,
}

/// The settings of this host. A file that is not there or empty leaves all as it is by default.
///
/// # Errors
///
/// The file cannot be read, or has problems.
pub fn settings() -> Result<Settings, LoadError> {
    settings_in(Path::new(SETTINGS))
}

fn settings_in(path: &Path) -> Result<Settings, LoadError> {
    let source = match read(path) {
        Ok(Some(source)) => source,
        Ok(None) => return Ok(Settings::default()),
        Err(LoadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Settings::default());
        }
        Err(error) => return Err(error),
    };
    let parsed = tree::parse(0, &source.text);
    let problems = Problems::default();
    let mut whole = Section::whole(parsed.table, &problems);
    let settings = Settings {
        apply: whole
            .read("apply", |item| {
                item.choice(&[("auto", Apply::Auto), ("plan", Apply::Plan)])
            })
            .unwrap_or_default(),
    };
    whole.finish();
    let problems: Vec<Problem> = parsed
        .problems
        .into_iter()
        .chain(problems.into_inner())
        .collect();
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(Diagnostics::new(vec![source], problems).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("boxd.toml");
        std::fs::write(&path, text).expect("written");
        settings_in(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_few_and_checked() {
        let none = settings_in(Path::new("/nonexistent/boxd.toml")).expect("the defaults");
        assert_eq!(none.apply, Apply::Auto);
        assert_eq!(of("").expect("the defaults"), none);
        assert_eq!(of("apply = 'plan'").expect("read").apply, Apply::Plan);
        let said = of("apply = 'later'\naply = 'auto'\n").expect_err("two problems");
        assert!(said.contains("boxd.toml:1:9"), "{said}");
        assert!(said.contains("`aply`"), "{said}");
    }
}
