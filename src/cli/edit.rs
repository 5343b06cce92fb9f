//! `boxctl edit`: a definition is changed in a draft, judged, and only then put in its place.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::files::{self, Draft};
use super::terminal::{Look, complain, harmless, say};
use super::{Error, definitions, describe, look, names};
use crate::definition::{self, Layers, LoadError};
use crate::name::Name;
use crate::running;

/// What applies definitions that are written, where it runs.
const AGENT: &str = "boxd.service";

/// The name of a drop-in that is given none.
pub const DROP_IN: &str = "50-local";

/// Where an editor is named, the first that is counts; as systemctl(1) has it.
const VARIABLES: [&str; 3] = ["SYSTEMD_EDITOR", "VISUAL", "EDITOR"];

/// Editors that are tried else.
const EDITORS: [&str; 4] = ["editor", "nano", "vim", "vi"];

/// Why a definition was not edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The name of a drop-in is not one.
    #[error(
        "{name:?} cannot be the name of a drop-in: it is letters, digits, \"-\", \"_\" and \".\", and does not begin with \".\""
    )]
    DropIn {
        /// What was given.
        name: String,
    },
    /// No editor is there.
    #[error("there is no editor: name one in $EDITOR, or install one of {}", EDITORS.join(", "))]
    NoEditor,
    /// The editor did not do its work.
    #[error("the editor {editor:?} ended with {status}; {}", left(kept.as_deref()))]
    Editor {
        /// Its command line.
        editor: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Where what it wrote lies.
        kept: Option<PathBuf>,
    },
    /// What was written is no definition.
    #[error("{} is left as it was; what you wrote is in {}", path.display(), kept.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Where what was written lies.
        kept: PathBuf,
    },
    /// Somebody else wrote the file meanwhile.
    #[error(
        "{} was changed by somebody else while it was edited, and is left as it is; what you wrote is in {}",
        path.display(), kept.display()
    )]
    Meanwhile {
        /// The file.
        path: PathBuf,
        /// Where what was written lies.
        kept: PathBuf,
    },
    /// Everything was deleted.
    #[error(
        "{} is left as it was, as nothing was written: an empty file would switch the box off", path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

fn left(kept: Option<&Path>) -> String {
    match kept {
        Some(kept) => format!(
            "nothing is changed, and what it wrote is in {}",
            kept.display()
        ),
        None => "nothing is changed".to_owned(),
    }
}

/// Opens a definition, or a drop-in of it, in the operator's editor.
pub fn edit(name: &str, drop_in: Option<&str>, err: Look) -> Result<ExitCode, Error> {
    let name = names::of_definition("edit", name)?;
    let layers = Layers::system();
    let target = match drop_in {
        None => files::operators(&layers).join(format!("{name}.toml")),
        Some(drop_in) => {
            let drop_in = drop_in.strip_suffix(".toml").unwrap_or(drop_in);
            if !is_file_name(drop_in) {
                return Err(EditError::DropIn {
                    name: drop_in.to_owned(),
                }
                .into());
            }
            files::drop_in(&layers, &name, drop_in)
        }
    };
    // What a link leads to is edited, not the link replaced.
    let target = target.canonicalize().unwrap_or(target);
    let before = read(&target)?;
    let text = beginning(&name, &layers, before.as_deref(), drop_in.is_some())?;
    let editor = editor().ok_or(EditError::NoEditor)?;
    let draft = Draft::of(&target, &text)?;
    loop {
        let status = Command::new(&editor[0])
            .args(&editor[1..])
            .arg(draft.path())
            .status()
            .map_err(|source| files::Error::Read {
                path: PathBuf::from(&editor[0]),
                source,
            })?;
        let written = read(draft.path())?.unwrap_or_default();
        if !status.success() {
            let kept = (written != text).then(|| draft.keep());
            let editor = editor.join(" ");
            return Err(EditError::Editor {
                editor,
                status,
                kept,
            }
            .into());
        }
        if written == text {
            say("Nothing was changed.\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        if written.trim().is_empty() {
            return Err(EditError::Empty { path: target }.into());
        }
        match files::with(&name, &layers, &target, &written) {
            Ok(definition) => {
                if read(&target)? != before {
                    let kept = draft.keep();
                    let path = target;
                    return Err(EditError::Meanwhile { path, kept }.into());
                }
                draft.replace()?;
                say(&format!(
                    "{} is written.\n",
                    harmless(&target.display().to_string())
                ))?;
                if let Err(problem) = definitions::planned(&definition) {
                    complain("It cannot be started on this host as it is:\n");
                    complain(&describe(&problem, err));
                }
                return told(&name);
            }
            Err(problem) => {
                complain(&describe(&Error::Load(problem), err));
                if !again()? {
                    let kept = draft.keep();
                    let path = target;
                    return Err(EditError::Bad { path, kept }.into());
                }
            }
        }
    }
}

/// What is yet to be done so that a running box is as its definition says.
fn told(name: &Name) -> Result<ExitCode, Error> {
    let runs = running::find(name).is_ok_and(|running| running.is_some());
    if runs && !applies_by_itself() {
        say(&format!(
            "Box {name} runs on as it was started; put it in force with: boxctl restart {name}\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the agent runs, which applies what is written.
fn applies_by_itself() -> bool {
    look::manager()
        .ok()
        .flatten()
        .and_then(|manager| manager.unit(AGENT).ok())
        .is_some_and(|unit| unit.active_state == "active")
}

/// What the editor is given to begin with.
fn beginning(
    name: &Name,
    layers: &Layers,
    before: Option<&str>,
    drop_in: bool,
) -> Result<String, Error> {
    let texts = definition::texts(name, layers);
    match (before, texts) {
        // A mask is not edited by accident.
        (Some(""), Err(error)) if !drop_in => Err(error.into()),
        (Some(before), _) => Ok(before.to_owned()),
        (None, Err(LoadError::Find { .. })) => Err(names::unknown(name.clone(), layers).into()),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(_)) if drop_in => Ok(format!(
            "# Laid over the definition of box {name}: a key here replaces the one there; see box.toml(5).\n"
        )),
        // A package's definition: the operator's copy hides it.
        (None, Ok(texts)) => Ok(texts
            .into_iter()
            .next()
            .map_or_else(String::new, |base| base.text)),
    }
}

/// A file's text; none if there is none.
fn read(path: &Path) -> Result<Option<String>, files::Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(files::Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Whether the author goes on with a draft that has errors; nobody is asked where nobody is.
fn again() -> Result<bool, Error> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    complain("\nEdit it again? [Y/n] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    let answer = answer.trim().to_ascii_lowercase();
    Ok(!answer.starts_with('n'))
}

/// The operator's editor and its arguments, split at blanks as systemctl(1) does it: no shell has a hand in it.
fn editor() -> Option<Vec<String>> {
    let named = VARIABLES
        .iter()
        .filter_map(|variable| std::env::var(variable).ok())
        .find(|value| !value.trim().is_empty());
    match named {
        Some(named) => Some(named.split_whitespace().map(str::to_owned).collect()),
        None => EDITORS
            .iter()
            .find(|editor| is_installed(editor))
            .map(|editor| vec![(*editor).to_owned()]),
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

fn is_file_name(text: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() < 200 && !text.starts_with('.') && text.chars().all(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_has_a_name_that_is_no_path() {
        for good in ["50-local", "a.b_c"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", ".hidden", "../x", "a/b", "a b", "ä"] {
            assert!(!is_file_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_editor_begins_with_what_counts_now() {
        let root = tempfile::tempdir().expect("a folder");
        let layers = Layers::under(root.path());
        let name: Name = "web".parse().expect("a name");
        let begin = |before: Option<&str>, drop_in| beginning(&name, &layers, before, drop_in);
        assert!(matches!(begin(None, false), Err(Error::Name(_))));
        assert!(matches!(begin(None, true), Err(Error::Name(_))));
        let vendor = root.path().join("usr/lib/boxd");
        fs::create_dir_all(&vendor).expect("made");
        fs::write(vendor.join("web.toml"), "command = [\"/bin/true\"]\n").expect("written");
        assert_eq!(
            begin(None, false).expect("a text"),
            "command = [\"/bin/true\"]\n"
        );
        assert_eq!(begin(Some("own"), false).expect("a text"), "own");
        assert!(
            begin(None, true)
                .expect("a text")
                .starts_with("# Laid over")
        );
        let etc = root.path().join("etc/boxd");
        fs::create_dir_all(&etc).expect("made");
        fs::write(etc.join("web.toml"), "").expect("written");
        let masked = begin(Some(""), false);
        assert!(
            matches!(masked, Err(Error::Load(LoadError::Masked { .. }))),
            "{masked:?}"
        );
    }
}
