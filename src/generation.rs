//! Generations: the sets of definitions that were applied, in `/var/lib/boxd/generations`, and what they are for a
//! box whose file cannot be used.
//!
//! The last generation that was not refused is the current one. It says for each box which definition is *in force*.
//! That is what its files say, unless it is held: because they cannot be used, because the box did not become ready
//! with them, or because somebody rolled back. A held box runs and starts by the definition of its generation until
//! its files say something else; `boxd run` and the generator ask [`in_force`], and nobody needs the agent for it.

mod store;
mod work;

pub use store::{Counts, Entries, Error, KEPT, Lock, Reserve, Store, changed};
pub use work::{Runs, Service, Task, What, Work};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::definition::{self, Definition, Layers, LoadError, SourceText};
use crate::name::Name;
use crate::{host, plan};

/// One generation without its definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Generation {
    /// Counted from 1.
    pub number: u64,
    /// When it was written: microseconds since the epoch.
    pub time: u64,
    /// The boot of the host in which it was begun, as the kernel names it.
    #[serde(default)]
    pub boot: Option<String>,
    /// Who had it applied.
    pub author: String,
    /// Why it was made.
    pub cause: Cause,
    /// What became of it.
    pub state: State,
    /// What it has otherwise than the one before, by name.
    pub changed: BTreeMap<Name, Changed>,
    /// Boxes that did not become ready, and why.
    #[serde(default)]
    pub failures: BTreeMap<Name, String>,
    /// What is to be done for it, as long as it is being applied.
    #[serde(default)]
    pub to_do: Work,
}

impl Generation {
    /// Whether it says what is in force as long as there is no newer one that does. What was put back counts even
    /// where the old definition did not help either.
    pub fn counts(&self) -> bool {
        self.state != State::Failed || matches!(self.cause, Cause::PutBack(_))
    }
}

/// Why a generation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The definitions as they were found.
    Files,
    /// An earlier generation was wanted back.
    Rollback(u64),
    /// Boxes of a generation did not become ready.
    PutBack(u64),
}

/// What became of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is being applied, or who did so was killed.
    Applying,
    /// It was.
    Applied,
    /// A box of it did not become ready.
    Failed,
}

/// What became of a box from one generation to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Changed {
    /// There was none.
    Added,
    /// Its definition is another one.
    Changed,
    /// There is none any more.
    Removed,
}

/// One box of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// The definition in force; absent for a box that never had one that could be used, or is hidden by a rollback.
    pub definition: Option<Vec<SourceText>>,
    /// Why that is not what the files say.
    pub held: Option<Held>,
}

/// Why a definition is in force that is not what the files say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Held {
    /// In a word.
    pub why: Why,
    /// In words.
    pub reason: String,
    /// What the files say; absent if they cannot be read or there are none.
    pub instead_of: Option<Vec<SourceText>>,
}

/// Why a box is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its definition has problems.
    Broken,
    /// Its definition cannot be carried out on this host.
    Impossible,
    /// The directory its file was in is not there.
    Unreachable,
    /// It did not become ready with the definition.
    Rejected,
    /// Somebody wanted an earlier generation back.
    RolledBack,
}

/// What the files say of a box, and what of that is in force.
#[derive(Debug)]
pub struct InForce {
    /// By which the box is started.
    pub definition: Definition,
    /// The texts it was read from.
    pub texts: Vec<SourceText>,
    /// Why it is not what the files say, if it is not.
    pub notice: Option<Notice>,
    /// Why no generation was asked, where one should have been: the files count then.
    pub unasked: Option<Error>,
}

/// That a definition is in force which is not what the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The generation it comes from.
    pub generation: u64,
    /// In a word.
    pub why: Why,
    /// In words.
    pub reason: String,
}

impl Notice {
    /// As a sentence without its subject, which is a box.
    pub fn sentence(&self) -> String {
        format!(
            "has the definition of generation {}: {}",
            self.generation, self.reason
        )
    }
}

/// Why a box has no definition in force.
#[derive(Debug, thiserror::Error)]
pub enum NotInForce {
    /// The files give none, and no generation does.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It came after the generation that was wanted back.
    #[error(
        "box {name} is not part of generation {generation}, to which this host was rolled back; `boxctl apply` brings it back"
    )]
    Hidden {
        /// The box.
        name: Name,
        /// The generation in force.
        generation: u64,
    },
}

/// The definition by which a box is started: what its files say, or what its generation keeps for it.
///
/// # Errors
///
/// There is none.
pub fn in_force(name: &Name, layers: &Layers) -> Result<InForce, NotInForce> {
    in_force_by(name, layers, &Store::system())
}

fn in_force_by(name: &Name, layers: &Layers, store: &Store) -> Result<InForce, NotInForce> {
    let found = Found::read(name, layers);
    let (entry, unasked) = match store.entry(name) {
        Ok(entry) => (entry, None),
        Err(error) => (None, Some(error)),
    };
    let entry = entry.as_ref().map(|(counts, entry)| (*counts, entry));
    Ok(InForce {
        unasked,
        ..found.in_force(name, entry)?
    })
}

/// What the files of a box say.
#[derive(Debug)]
pub enum Found {
    /// A definition.
    Good(Vec<SourceText>, Box<Definition>),
    /// Nothing that can be used.
    Broken(LoadError),
    /// Nothing: no file, or a mask.
    Nothing(LoadError),
}

impl Found {
    /// Reads them: of an instance what all have in common.
    pub fn read(name: &Name, layers: &Layers) -> Found {
        let name = &name.base();
        let texts = match definition::texts(name, layers) {
            Ok(texts) => texts,
            Err(error @ (LoadError::Find { .. } | LoadError::Masked { .. })) => {
                return Found::Nothing(error);
            }
            Err(error) => return Found::Broken(error),
        };
        match definition::parse(name, &texts) {
            Ok(definition) => Found::Good(texts, Box::new(definition)),
            Err(diagnostics) => Found::Broken(diagnostics.into()),
        }
    }

    /// What they say, if it can be used.
    pub fn texts(&self) -> Option<&[SourceText]> {
        match self {
            Found::Good(texts, _) => Some(texts),
            Found::Broken(_) | Found::Nothing(_) => None,
        }
    }

    /// Decides what is in force, by the entry of the current generation.
    ///
    /// # Errors
    ///
    /// Nothing is.
    pub fn in_force(
        self,
        name: &Name,
        entry: Option<(Counts, &Entry)>,
    ) -> Result<InForce, NotInForce> {
        if let Some((counts, entry)) = entry {
            let held = match counts.applying {
                // A file that is edited meanwhile is the next one's.
                true => entry.held.clone(),
                false => self
                    .held_by(entry)
                    .filter(|held| !self.is_possible(held, name, entry)),
            };
            let kept = entry
                .definition
                .as_ref()
                .filter(|_| held.is_some() || counts.applying)
                .and_then(|texts| {
                    // Of one that cannot be used nothing better is known than the files.
                    definition::parse(&name.base(), texts).ok()?;
                    Some(texts.clone())
                });
            if let Some(texts) = kept {
                let notice = held.map(|held| Notice {
                    generation: counts.generation,
                    why: held.why,
                    reason: held.reason,
                });
                return Ok(InForce {
                    definition: definition::of_texts(name, &texts)?,
                    texts,
                    notice,
                    unasked: None,
                });
            }
            if entry.definition.is_none() && held.is_some_and(|held| held.why == Why::RolledBack) {
                return Err(NotInForce::Hidden {
                    name: name.clone(),
                    generation: counts.generation,
                });
            }
            // Nothing better is known.
        }
        match self {
            Found::Good(texts, definition) => Ok(InForce {
                definition: match name.instance() {
                    None => *definition,
                    Some(_) => definition::of_texts(name, &texts)?,
                },
                texts,
                notice: None,
                unasked: None,
            }),
            Found::Broken(error) | Found::Nothing(error) => Err(error.into()),
        }
    }

    /// Whether it was held because this host could not carry it out, and can by now. With other sockets it waits for
    /// whoever applies it: the units have those of the definition that was kept.
    fn is_possible(&self, held: &Held, name: &Name, entry: &Entry) -> bool {
        let Found::Good(texts, definition) = self else {
            return false;
        };
        let kept = entry.definition.as_ref();
        let kept = kept.and_then(|texts| definition::parse(&name.base(), texts).ok());
        held.why == Why::Impossible
            && kept.is_none_or(|kept| {
                kept.sockets == definition.sockets && kept.instances == definition.instances
            })
            && possible(definition, texts).is_ok()
    }

    /// Why the definition of this entry counts instead of what was found, if it does.
    pub fn held_by(&self, entry: &Entry) -> Option<Held> {
        let by_choice = entry
            .held
            .as_ref()
            .filter(|held| matches!(held.why, Why::Rejected | Why::RolledBack | Why::Impossible));
        match self {
            Found::Good(texts, _) => by_choice
                .filter(|held| held.instead_of.as_ref() == Some(texts))
                .cloned(),
            Found::Broken(error) => Some(Held {
                why: Why::Broken,
                reason: broken(error),
                instead_of: None,
            }),
            Found::Nothing(LoadError::Masked { .. }) => None,
            Found::Nothing(_) => by_choice
                .filter(|held| held.why == Why::RolledBack && held.instead_of.is_none())
                .cloned()
                .or_else(|| unreachable(entry)),
        }
    }
}

/// Whether this host can carry out what these texts say; else why not.
pub(crate) fn possible(definition: &Definition, texts: &[SourceText]) -> Result<(), String> {
    let one = |definition: &Definition| match plan::resolve(definition, &host::read(definition)) {
        Ok(_) => Ok(()),
        Err(problems) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(problems.join("; "))
        }
    };
    if !definition.is_of_all() {
        return one(definition);
    }
    definition
        .boxes()
        .iter()
        .try_for_each(|name| match definition::parse(name, texts) {
            Ok(definition) => one(&definition),
            Err(wrong) => Err(broken(&wrong.into())),
        })
}

/// The problem in one line.
pub(crate) fn broken(error: &LoadError) -> String {
    match error {
        LoadError::Invalid(diagnostics) => {
            let place = diagnostics.first();
            match diagnostics.count() {
                0 | 1 => format!("its file has a problem: {place}"),
                count => format!("its files have {count} problems, the first: {place}"),
            }
        }
        error => error.to_string(),
    }
}

/// A directory that has gone away as a whole says nothing about the boxes that were in it; but what is below `/run` is
/// meant to be gone after a reboot.
fn unreachable(entry: &Entry) -> Option<Held> {
    let base = entry.definition.as_ref()?.first()?;
    let directory = base.path.parent()?;
    if directory.starts_with("/run") {
        return None;
    }
    let gone = matches!(directory.try_exists(), Ok(false));
    gone.then(|| Held {
        why: Why::Unreachable,
        reason: format!("the directory {} is not there", directory.display()),
        instead_of: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Place {
        root: tempfile::TempDir,
        layers: Layers,
    }

    impl Place {
        fn new() -> Place {
            let root = tempfile::tempdir().expect("a directory");
            fs::create_dir_all(root.path().join("etc/boxd")).expect("made");
            let layers = Layers::under(root.path());
            Place { root, layers }
        }

        fn put(&self, text: &str) {
            fs::write(self.root.path().join("etc/boxd/web.toml"), text).expect("written");
        }

        fn texts(&self, text: &str) -> Vec<SourceText> {
            vec![SourceText {
                path: self.root.path().join("etc/boxd/web.toml"),
                text: text.to_owned(),
            }]
        }

        fn command(&self, entry: Option<&Entry>) -> String {
            self.command_while(false, entry)
        }

        fn command_while(&self, applying: bool, entry: Option<&Entry>) -> String {
            let name: Name = "web".parse().expect("a name");
            let found = Found::read(&name, &self.layers);
            let counts = |entry| {
                let counts = Counts {
                    generation: 7,
                    applying,
                };
                (counts, entry)
            };
            match found.in_force(&name, entry.map(counts)) {
                Ok(in_force) => match in_force.notice {
                    Some(notice) => format!("{:?} {:?}", in_force.definition.command, notice.why),
                    None => format!("{:?}", in_force.definition.command),
                },
                Err(NotInForce::Hidden { .. }) => "hidden".to_owned(),
                Err(NotInForce::Load(error)) => match error {
                    LoadError::Find { .. } => "none".to_owned(),
                    LoadError::Masked { .. } => "masked".to_owned(),
                    _ => "broken".to_owned(),
                },
            }
        }
    }

    #[test]
    fn instances_live_by_the_definition_of_all() {
        let place = Place::new();
        let in_force = |name: &str, entry: Option<&Entry>| -> Result<String, NotInForce> {
            let name: Name = name.parse().expect("a name");
            let counts = Counts {
                generation: 7,
                applying: false,
            };
            let found = Found::read(&name, &place.layers);
            let in_force = found.in_force(&name, entry.map(|entry| (counts, entry)))?;
            Ok(format!(
                "{} of {:?}",
                in_force.definition.name, in_force.definition.instances
            ))
        };
        place.put("command = ['/bin/a']\ninstances = 3\n");
        assert_eq!(in_force("web:3", None).expect("one"), "web:3 of Some(3)");
        assert_eq!(in_force("web", None).expect("all"), "web of Some(3)");
        let none = in_force("web:4", None).expect_err("none");
        assert!(none.to_string().contains("web:1 to web:3"), "{none}");
        let kept = Entry {
            definition: Some(place.texts("command = ['/bin/a']\ninstances = 5\n")),
            held: None,
        };
        assert!(in_force("web:4", Some(&kept)).is_err(), "the files count");
        place.put("comand = ['/bin/a']\ninstances = 3\n");
        assert_eq!(
            in_force("web:4", Some(&kept)).expect("one"),
            "web:4 of Some(5)"
        );
        assert!(in_force("web:6", Some(&kept)).is_err());
        place.put("command = ['/bin/a']\n");
        let none = in_force("web:1", Some(&kept)).expect_err("one box");
        assert!(none.to_string().contains("is one box"), "{none}");
    }

    #[test]
    fn a_broken_file_leaves_the_last_good_definition_in_force() {
        let place = Place::new();
        place.put("command = ['/bin/new']\n");
        let entry = Entry {
            definition: Some(place.texts("command = ['/bin/old']\n")),
            held: None,
        };
        assert_eq!(place.command(Some(&entry)), "[\"/bin/new\"]");
        place.put("comand = ['/bin/new']\n");
        assert_eq!(place.command(None), "broken");
        assert_eq!(place.command(Some(&entry)), "[\"/bin/old\"] Broken");
        let never = Entry {
            definition: None,
            held: None,
        };
        assert_eq!(place.command(Some(&never)), "broken");
    }

    #[test]
    fn what_is_edited_while_definitions_are_applied_is_for_the_next_time() {
        let place = Place::new();
        place.put("command = ['/bin/edited']\n");
        let mut entry = Entry {
            definition: Some(place.texts("command = ['/bin/applied']\n")),
            held: None,
        };
        assert_eq!(
            place.command_while(false, Some(&entry)),
            "[\"/bin/edited\"]"
        );
        assert_eq!(
            place.command_while(true, Some(&entry)),
            "[\"/bin/applied\"]"
        );
        entry.held = Some(Held {
            why: Why::Rejected,
            reason: String::new(),
            instead_of: Some(place.texts("command = ['/bin/refused']\n")),
        });
        assert_eq!(
            place.command_while(true, Some(&entry)),
            "[\"/bin/applied\"] Rejected"
        );
        assert_eq!(
            place.command_while(false, Some(&entry)),
            "[\"/bin/edited\"]"
        );
    }

    #[test]
    fn what_was_refused_stays_so_until_it_is_changed() {
        let place = Place::new();
        let refused = "command = ['/bin/refused']\n";
        place.put(refused);
        let mut entry = Entry {
            definition: Some(place.texts("command = ['/bin/old']\n")),
            held: Some(Held {
                why: Why::Rejected,
                reason: String::new(),
                instead_of: Some(place.texts(refused)),
            }),
        };
        assert_eq!(place.command(Some(&entry)), "[\"/bin/old\"] Rejected");
        place.put("command = ['/bin/better']\n");
        assert_eq!(place.command(Some(&entry)), "[\"/bin/better\"]");
        // A box that never was ready starts by what there is.
        place.put(refused);
        entry.definition = None;
        assert_eq!(place.command(Some(&entry)), "[\"/bin/refused\"]");
    }

    #[test]
    fn what_has_become_possible_counts_unless_its_sockets_are_others() {
        let place = Place::new();
        let entry = |kept: Option<&str>, file: &str| Entry {
            definition: kept.map(|text| place.texts(text)),
            held: Some(Held {
                why: Why::Impossible,
                reason: String::new(),
                instead_of: Some(place.texts(file)),
            }),
        };
        let old = "command = ['/bin/old']\n";
        let new = "command = ['/bin/new']\n";
        let listens = "command = ['/bin/new']\n[[socket]]\nstream = '/run/x.sock'\n";
        place.put(new);
        assert_eq!(
            place.command(Some(&entry(Some(old), new))),
            "[\"/bin/new\"]"
        );
        place.put(listens);
        assert_eq!(
            place.command(Some(&entry(Some(old), listens))),
            "[\"/bin/old\"] Impossible"
        );
        assert_eq!(place.command(Some(&entry(None, listens))), "[\"/bin/new\"]");
    }

    #[test]
    fn a_rollback_hides_and_brings_back() {
        let place = Place::new();
        let file = "command = ['/bin/new']\n";
        let held = |instead_of| {
            Some(Held {
                why: Why::RolledBack,
                reason: String::new(),
                instead_of,
            })
        };
        place.put(file);
        let hidden = Entry {
            definition: None,
            held: held(Some(place.texts(file))),
        };
        assert_eq!(place.command(Some(&hidden)), "hidden");
        let back = Entry {
            definition: Some(place.texts("command = ['/bin/old']\n")),
            held: held(None),
        };
        assert_eq!(place.command(Some(&back)), "[\"/bin/new\"]");
        fs::remove_file(place.root.path().join("etc/boxd/web.toml")).expect("removed");
        assert_eq!(place.command(Some(&back)), "[\"/bin/old\"] RolledBack");
    }

    #[test]
    fn a_removed_file_is_a_removed_box_but_a_missing_directory_is_not() {
        let place = Place::new();
        let entry = Entry {
            definition: Some(place.texts("command = ['/bin/old']\n")),
            held: None,
        };
        assert_eq!(place.command(Some(&entry)), "none");
        place.put("");
        assert_eq!(place.command(Some(&entry)), "masked");
        fs::remove_dir_all(place.root.path().join("etc/boxd")).expect("removed");
        assert_eq!(place.command(Some(&entry)), "[\"/bin/old\"] Unreachable");
        // What is below /run does not outlive a reboot.
        let mut entry = entry;
        for text in entry.definition.iter_mut().flatten() {
            text.path = "/run/boxd/definitions.gone/web.toml".into();
        }
        assert_eq!(place.command(Some(&entry)), "none");
    }
}
