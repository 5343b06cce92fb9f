//! `boxctl set`: keys of a definition set by command, for the box that runs and for its next starts.
//!
//! The values go into a drop-in of ours, so whatever reads definitions knows of them: `explain` says where they come
//! from, `diff` and `apply` see a change like any other. The box is changed first, and the drop-in, which lies beside its
//! place by then, put in it after that: where the box cannot be changed, nothing is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::apply::sides;
use super::files::{self, Draft};
use super::terminal::{Look, Paint, complain, harmless, say};
use super::{Error, describe, explain, look, names};
use crate::agent::diff::{self, Need};
use crate::agent::live;
use crate::definition::changes::{Change, changes};
use crate::definition::{
    self, Definition, Key, Layers, LoadError, Setting, SourceText, edited, keys, parse,
    with_drop_in, written,
};
use crate::generation::{self, State, Store};
use crate::name::Name;
use crate::plan::{Limit, Plan};
use crate::systemd::{self, Manager};
use crate::{generator, host, plan, run, running};

/// The drop-in that holds.
const DROP_IN: &str = "90-set";

/// The one that is gone with the next boot. It stands after the other, as its name is another: of two files of one
/// name only the operator's would count.
const RUNTIME_DROP_IN: &str = "95-set-runtime";

/// Why nothing was set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// An argument is no setting.
    #[error("{text:?} is no setting: it is KEY=VALUE, or KEY= to take the setting back")]
    Form {
        /// The argument.
        text: String,
    },
    /// A key was given twice.
    #[error("{key} is set twice")]
    Twice {
        /// Which.
        key: String,
    },
    /// A key says what a box is made of.
    #[error(
        "{key} cannot be changed while a box runs: write it into the definition, as with `boxctl edit --drop-in {name}`, and let `boxctl apply` restart the box"
    )]
    Restart {
        /// The key.
        key: String,
        /// The box.
        name: Name,
    },
    /// The box runs and starts by another definition than that of its files.
    #[error(
        "cannot set anything of box {name}, which {notice}; a change of its files would put these in force, as `boxctl apply` does"
    )]
    Held {
        /// The box.
        name: Name,
        /// That, and why.
        notice: String,
    },
    /// What is set of one box is not of several.
    #[error(
        "cannot set anything of box {name}, which has instances: write it into their definition, as with `boxctl edit --drop-in {name}`, and let `boxctl apply` change them"
    )]
    Several {
        /// Of all.
        name: Name,
    },
    /// Another file comes after the drop-in, or hides it.
    #[error(
        "cannot set {key} of box {name} by {}: {} comes after it and says otherwise", path.display(), other.display()
    )]
    Overridden {
        /// The box.
        name: Name,
        /// The key.
        key: String,
        /// The drop-in.
        path: PathBuf,
        /// Who says otherwise.
        other: PathBuf,
    },
    /// The unit of the box has a limit of its own.
    #[error(
        "cannot limit box {name} so: {} has a {property} of its own, which counts for the box; change it there with `systemctl set-property`, or take it back with `systemctl revert {}`, which holds from the next start on",
        name.unit(), name.unit()
    )]
    OfTheUnit {
        /// The box.
        name: Name,
        /// As in `MemoryMax=`.
        property: &'static str,
    },
    /// Who applied definitions was killed, and what is in force is not settled.
    #[error(
        "cannot set anything of box {name}: generation {generation} is half applied; `boxctl apply` finishes it"
    )]
    HalfApplied {
        /// The box.
        name: Name,
        /// The generation.
        generation: u64,
    },
    /// It is neither at rest nor up.
    #[error("box {name} is being started: set this when it runs")]
    Starting {
        /// The box.
        name: Name,
    },
    /// A drop-in of ours was changed by hand.
    #[error("cannot read {} as TOML", path.display())]
    Understand {
        /// The drop-in.
        path: PathBuf,
        /// Where.
        source: definition::Unreadable,
    },
    /// The box that runs was not changed.
    #[error("box {name} runs on as it was, and nothing is written")]
    Live {
        /// The box.
        name: Name,
        /// Why.
        source: live::Error,
    },
    /// All is done but that systemd does not know of it.
    #[error(
        "box {name} is changed as its drop-in says now, but systemd does not know of it yet: what it does itself, as restarts and limits of time, changes with the next `systemctl daemon-reload`"
    )]
    Reload {
        /// The box.
        name: Name,
        /// Why.
        source: systemd::Error,
    },
}

/// Sets keys of a box, or takes them back.
pub fn set(name: &str, texts: &[String], runtime: bool, err: Look) -> Result<ExitCode, Error> {
    let name = names::of_definition("set anything of", name)?;
    let settings = settings(&name, texts)?;
    let layers = Layers::system();
    let store = Store::system();
    // One at a time: with another one here, and with whoever applies definitions.
    let _lock = store.lock()?;
    refuse_half_applied(&name, &store)?;
    let before = definition::texts(&name, &layers)?;
    let work = Work {
        drop_ins: DropIns::of(&name, &layers, runtime),
        name: &name,
        settings: &settings,
        manager: look::manager()?,
    };
    let (after, definition) = work.judge(&before).map_err(|source| Error::Change {
        operation: "change",
        name: name.clone(),
        keeps: "; nothing is changed",
        source: Box::new(source),
    })?;
    if definition.is_of_all() {
        return Err(SetError::Several { name }.into());
    }
    let in_force = generation::in_force(&name, &layers)?;
    if let Some(notice) = in_force.notice {
        let notice = notice.sentence();
        return Err(SetError::Held { name, notice }.into());
    }
    let drafts = work.drafts(&before, &after)?;
    let reached = work.reach(&before)?;
    let written = write(drafts);
    if let (Err(_), Reached::Changed { by, .. }) = (&written, &reached)
        && let Some(manager) = &work.manager
        && let Err(error) = live::change(manager, &name, by)
    {
        complain(&format!(
            "boxctl: box {name} has it all the same, until its next start: {}\n",
            crate::journal::chain(&error)
        ));
    }
    written?;
    let reached = match reached {
        // It may have been started meanwhile.
        Reached::Rests => work.reach(&before).unwrap_or_else(|error| {
            complain(&describe(&error, err));
            complain(&format!(
                "boxctl: box {name} may run without it; `boxctl plan` says so, and `boxctl apply` changes that\n"
            ));
            Reached::Rests
        }),
        reached => reached,
    };
    if let Some(manager) = &work.manager
        && (!generator::is_known(&definition) || settings.iter().any(is_beside_them))
    {
        let reloaded = manager.daemon_reload();
        reloaded.map_err(|source| SetError::Reload {
            name: name.clone(),
            source,
        })?;
    }
    say(&work.told(&before, &after, &reached))?;
    if let Reached::Foreground = reached {
        complain(&format!(
            "{} box {name} is run in the foreground by `boxctl run`, and goes on as it is\n",
            err.paint(Paint::Warning, "boxctl:")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A generation counts for all, whatever their files say, while it is being applied. That nobody does so any more is
/// not to be seen as long as the lock is held here.
fn refuse_half_applied(name: &Name, store: &Store) -> Result<(), SetError> {
    match store.newest() {
        Ok(Some(newest)) if newest.state == State::Applying => Err(SetError::HalfApplied {
            name: name.clone(),
            generation: newest.number,
        }),
        // Where none can be read the files count.
        _ => Ok(()),
    }
}

/// Whether the generator writes it where [`generator::is_known`] does not look.
fn is_beside_them(setting: &Setting) -> bool {
    ["description", "start-at-boot"].contains(&&*setting.key())
}

/// The settings that these arguments say.
fn settings(name: &Name, texts: &[String]) -> Result<Vec<Setting>, Error> {
    let keys = keys();
    let mut settings: Vec<Setting> = Vec::new();
    for text in texts {
        let (word, value) = text
            .split_once('=')
            .filter(|(word, _)| !word.is_empty())
            .ok_or_else(|| SetError::Form { text: text.clone() })?;
        let (key, entry) = key(&keys, word)?;
        // To come to be several boxes is to come to be others.
        if diff::need(&key.path) == Need::Restart || key.path == "instances" {
            return Err(SetError::Restart {
                key: key.path.clone(),
                name: name.clone(),
            }
            .into());
        }
        let setting = Setting::new(key, entry, value);
        if settings.iter().any(|known| known.key() == setting.key()) {
            return Err(SetError::Twice { key: setting.key() }.into());
        }
        settings.push(setting);
    }
    Ok(settings)
}

/// The key of this name, with its table or, where that is `[resources]`, without; and of a table of free names the
/// entry that is meant.
fn key<'a, 'b>(keys: &'a [Key], word: &'b str) -> Result<(&'a Key, Option<&'b str>), Error> {
    let names = |key: &'a Key| {
        let short = key.path.strip_prefix("resources.");
        [Some(&*key.path), short].into_iter().flatten()
    };
    if let Some(key) = keys.iter().find(|key| names(key).any(|name| name == word)) {
        return Ok((key, None));
    }
    for key in keys.iter().filter(|key| key.kind.starts_with("table of ")) {
        for name in names(key) {
            let entry = word
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'));
            if let Some(entry) = entry.filter(|entry| !entry.is_empty()) {
                return Ok((key, Some(entry)));
            }
        }
    }
    Err(Error::Key {
        text: word.to_owned(),
        similar: explain::similar(keys, word),
    })
}

/// Words of keys that can be set, as a completion offers them.
pub fn words() -> Vec<(String, String)> {
    keys()
        .into_iter()
        .filter(|key| diff::need(&key.path) != Need::Restart && key.path != "instances")
        .map(|key| {
            let short = key.path.strip_prefix("resources.").unwrap_or(&key.path);
            let end = match key.kind.starts_with("table of ") {
                true => '.',
                false => '=',
            };
            (format!("{short}{end}"), key.doc)
        })
        .collect()
}

/// The drop-ins that are written.
struct DropIns {
    /// The one the settings go to.
    path: PathBuf,
    /// The one that would count more, which loses them.
    other: Option<PathBuf>,
}

impl DropIns {
    fn of(name: &Name, layers: &Layers, runtime: bool) -> DropIns {
        let holds = files::drop_in(layers, name, DROP_IN);
        let directories = layers.directories();
        let passes = directories
            .get(1)
            .map_or(Path::new("/run/boxd/definitions"), |layer| layer)
            .join(format!("{name}.toml.d"))
            .join(format!("{RUNTIME_DROP_IN}.toml"));
        match runtime {
            true => DropIns {
                path: passes,
                other: None,
            },
            false => DropIns {
                path: holds,
                other: Some(passes),
            },
        }
    }
}

/// How far a change came.
#[derive(Debug)]
enum Reached {
    /// The box runs by it.
    Changed {
        /// What it ran by before.
        by: Vec<SourceText>,
    },
    /// The box does not run.
    Rests,
    /// `boxctl run` has it.
    Foreground,
}

struct Work<'a> {
    name: &'a Name,
    settings: &'a [Setting],
    drop_ins: DropIns,
    manager: Option<Manager>,
}

impl Work<'_> {
    /// The texts of a definition with the settings in them.
    fn changed(&self, texts: &[SourceText]) -> Result<Vec<SourceText>, Error> {
        let heading = format!("# Written by `boxctl set {}`.\n", self.name);
        let mut changed = texts.to_vec();
        let removals: Vec<Setting> = self.settings.iter().map(Setting::removal).collect();
        let ours = [
            (Some(&self.drop_ins.path), self.settings),
            (self.drop_ins.other.as_ref(), &*removals),
        ];
        for (path, settings) in ours {
            let Some(path) = path else { continue };
            let text = text_of(texts, path).unwrap_or_default();
            let text = edited(text, settings, &heading).map_err(|source| SetError::Understand {
                path: path.clone(),
                source,
            })?;
            changed = with_drop_in(&changed, path, text)?;
        }
        Ok(changed)
    }

    /// The definition as it will be, and whether it can be.
    fn judge(&self, before: &[SourceText]) -> Result<(Vec<SourceText>, Definition), Error> {
        let was = parse(self.name, before).map_err(LoadError::from)?;
        let after = self.changed(before)?;
        let definition = parse(self.name, &after).map_err(LoadError::from)?;
        self.check_order(&after)?;
        // What this host cannot do for other reasons is no reason to keep this from the next start.
        let problems = |definition: &Definition| match resolved(definition) {
            Ok(_) => Vec::new(),
            Err(problems) => problems,
        };
        let known = problems(&was);
        let mut new = problems(&definition);
        new.retain(|problem| !known.contains(problem));
        match new.is_empty() {
            true => Ok((after, definition)),
            false => Err(Error::Plan(new)),
        }
    }

    /// Whether what is set counts.
    fn check_order(&self, after: &[SourceText]) -> Result<(), SetError> {
        let path = &self.drop_ins.path;
        let overridden = |key: String, other: &Path| SetError::Overridden {
            name: self.name.clone(),
            key,
            path: path.clone(),
            other: other.to_owned(),
        };
        let all = written(after);
        for setting in self.settings.iter().filter(|it| !it.is_removal()) {
            let key = setting.key();
            let hides = |text: &&SourceText| {
                text.path.file_name() == path.file_name() && text.path != *path
            };
            if let Some(hiding) = after.iter().find(hides) {
                return Err(overridden(key, &hiding.path));
            }
            let is_ours = |one: &&definition::Written| {
                let rest = one.key.strip_prefix(&key);
                one.file == *path && rest.is_some_and(|it| it.is_empty() || it.starts_with('.'))
            };
            if let Some(lost) = all.iter().filter(is_ours).find(|one| !one.holds) {
                let holding = all.iter().find(|one| one.holds && one.key == lost.key);
                let other = holding.map_or(path, |holding| &holding.file);
                return Err(overridden(key, other));
            }
        }
        Ok(())
    }

    /// The drop-ins that are to be written, beside their places, and those that are to be removed.
    fn drafts(&self, before: &[SourceText], after: &[SourceText]) -> Result<Vec<Written>, Error> {
        let mut drafts = Vec::new();
        for path in [Some(&self.drop_ins.path), self.drop_ins.other.as_ref()] {
            let Some(path) = path else { continue };
            let (was, is) = (text_of(before, path), text_of(after, path));
            if was == is {
                continue;
            }
            drafts.push(Written {
                path: path.clone(),
                before: was.map(str::to_owned),
                draft: is.map(|text| Draft::of(path, text)).transpose()?,
            });
        }
        Ok(drafts)
    }

    /// Changes the box as far as it runs. That is what it runs by with the settings in it: what else was written since
    /// then waits for whoever applies it.
    fn reach(&self, before: &[SourceText]) -> Result<Reached, Error> {
        let (Some(manager), Some(running)) = (&self.manager, running::find(self.name)?) else {
            if let Some(manager) = &self.manager {
                let unit = manager.unit(&self.name.unit())?;
                if unit.active_state == "activating" && !unit.sub_state.starts_with("auto-restart")
                {
                    return Err(SetError::Starting {
                        name: self.name.clone(),
                    }
                    .into());
                }
            }
            return Ok(match running::find(self.name)? {
                Some(_) => Reached::Foreground,
                None => Reached::Rests,
            });
        };
        if running.plan.scope.before.is_none() {
            return Ok(Reached::Foreground);
        }
        let by = running::definition(self.name).unwrap_or_else(|| before.to_vec());
        let wanted = self.changed(&by)?;
        let other = |change: &Change| diff::needed(change, &by, &wanted) == Need::Restart;
        if let Some(change) = changes(self.name, &by, &wanted).into_iter().find(other) {
            return Err(SetError::Restart {
                key: change.key,
                name: self.name.clone(),
            }
            .into());
        }
        if let Some(property) = self.of_the_unit(manager, &by, &wanted)? {
            return Err(SetError::OfTheUnit {
                name: self.name.clone(),
                property,
            }
            .into());
        }
        live::change(manager, self.name, &wanted).map_err(|source| SetError::Live {
            name: self.name.clone(),
            source,
        })?;
        Ok(Reached::Changed { by })
    }

    /// A limit that is set here and by an operator on the unit, where it counts more.
    fn of_the_unit(
        &self,
        manager: &Manager,
        by: &[SourceText],
        wanted: &[SourceText],
    ) -> Result<Option<&'static str>, Error> {
        let limits = |texts: &[SourceText]| {
            let definition = parse(self.name, texts).ok()?;
            resolved(&definition).ok()
        };
        let (Some(was), Some(mut plan), Some(service)) = (
            limits(by),
            limits(wanted),
            manager.cgroup(&self.name.unit())?,
        ) else {
            return Ok(None);
        };
        let mut set: Vec<Limit> = plan.scope.limits.clone();
        set.retain(|limit| !was.scope.limits.contains(limit));
        run::follow_the_service(&mut plan, &service);
        set.retain(|limit| !plan.scope.limits.contains(limit));
        Ok(set.first().map(Limit::property))
    }

    fn told(&self, before: &[SourceText], after: &[SourceText], reached: &Reached) -> String {
        let name = self.name;
        let changes = changes(name, before, after);
        let mut text = match (changes.is_empty(), reached) {
            (true, _) => format!("Box {name} is as it was.\n"),
            (false, Reached::Changed { .. }) => format!("Box {name} runs on, changed:\n"),
            (false, Reached::Rests | Reached::Foreground) => {
                format!("Box {name} is changed for its next start:\n")
            }
        };
        for change in &changes {
            text.push_str(&format!("  {}\n", sides(change)));
        }
        for path in [Some(&self.drop_ins.path), self.drop_ins.other.as_ref()] {
            let Some(path) = path else { continue };
            let shown = harmless(&path.display().to_string());
            match (text_of(before, path), text_of(after, path)) {
                (was, is) if was == is => {}
                (_, Some(_)) => text.push_str(&format!("{shown} is written.\n")),
                (_, None) => text.push_str(&format!("{shown} is removed.\n")),
            }
        }
        for setting in self.settings.iter().filter(|it| it.is_removal()) {
            let key = setting.key();
            let still = written(after)
                .into_iter()
                .find(|one| one.holds && one.key == key);
            if let Some(still) = still {
                text.push_str(&format!(
                    "{key} is set in {}:{}.\n",
                    harmless(&still.file.display().to_string()),
                    still.line
                ));
            }
        }
        text
    }
}

fn resolved(definition: &Definition) -> Result<Plan, Vec<plan::Problem>> {
    plan::resolve(definition, &host::read(definition))
}

fn text_of<'a>(texts: &'a [SourceText], path: &Path) -> Option<&'a str> {
    let found = texts.iter().find(|text| text.path == path)?;
    Some(&found.text)
}

/// A drop-in about to be written, or removed.
struct Written {
    path: PathBuf,
    before: Option<String>,
    draft: Option<Draft>,
}

/// Puts all in their places, or leaves them as they were.
fn write(drafts: Vec<Written>) -> Result<(), files::Error> {
    let mut done: Vec<(PathBuf, Option<String>)> = Vec::new();
    for Written {
        path,
        before,
        draft,
    } in drafts
    {
        let result = match draft {
            Some(draft) => draft.replace(),
            None => files::remove(&path),
        };
        if let Err(error) = result {
            for (path, before) in done {
                let back = match before {
                    Some(text) => Draft::of(&path, &text).and_then(Draft::replace),
                    None => files::remove(&path),
                };
                if let Err(error) = back {
                    complain(&format!("boxctl: {}\n", crate::journal::chain(&error)));
                }
            }
            return Err(error);
        }
        done.push((path, before));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
