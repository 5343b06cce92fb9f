//! `boxctl plan` without a name, `apply`, `history`, `diff` and `rollback`: definitions as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde::Serialize;

use super::show::Clock;
use super::table::{self, Cell, Side};
use super::terminal::{Look, Paint, complain, harmless, say};
use super::{Error, text, with_newline};
use crate::agent::apply::{self, Outcome, Wanted};
use crate::agent::diff::{Action, Asked, Need, What};
use crate::agent::intend::{self, Intention};
use crate::definition::changes::{Change, changes};
use crate::definition::{Layers, SourceText};
use crate::generation::{self, Cause, Changed, Entry, Found, Generation, Held, State, Store};
use crate::name::Name;
use crate::systemd::Manager;

/// What `boxctl plan --json` prints.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Planned<'a> {
    /// The generation in force.
    generation: Option<u64>,
    actions: &'a [Action],
    held: BTreeMap<&'a Name, &'a Held>,
    problems: &'a BTreeMap<String, String>,
}

/// Says what would be done, and why.
pub fn plan(json: bool, look: Look) -> Result<ExitCode, Error> {
    let store = Store::system();
    let manager = Manager::connect()?;
    let intention = intend::files(&Layers::system(), &store, &manager, Asked::ByPerson)?;
    if json {
        let planned = Planned {
            generation: intention.current.as_ref().map(|current| current.number),
            actions: &intention.actions,
            held: intention
                .held()
                .map(|(name, _, held)| (name, held))
                .collect(),
            problems: &intention.problems,
        };
        say(&format!("{}\n", serde_json::to_string_pretty(&planned)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    problems(&intention.problems);
    say(&intended(&intention, store.newest()?.as_ref(), look))?;
    Ok(ExitCode::SUCCESS)
}

fn intended(intention: &Intention, newest: Option<&Generation>, look: Look) -> String {
    let mut result = String::new();
    if let Some(half) = newest.filter(|newest| newest.state == State::Applying) {
        result.push_str(&format!(
            "Generation {} is being applied, or was left half applied: `boxctl apply` finishes it.\n\n",
            half.number
        ));
    }
    for action in &intention.actions {
        result.push_str(&shown(action, look));
    }
    for (name, entry, held) in intention.held() {
        result.push_str(&kept(name, entry.definition.is_some(), held, look));
    }
    let touched = intention
        .actions
        .iter()
        .filter(|action| action.what != What::Read)
        .count();
    result.push_str(&match (touched, intention.actions.is_empty()) {
        (0, true) => "Nothing is to be done: all boxes are as their definitions say.\n".to_owned(),
        (0, false) => {
            "No box that runs is touched; `boxctl apply` reads the definitions.\n".to_owned()
        }
        (1, _) => "1 box would be touched; `boxctl apply` does it.\n".to_owned(),
        (more, _) => format!("{more} boxes would be touched; `boxctl apply` does it.\n"),
    });
    result
}

/// An action as a line, and below it a line for each key that is a reason.
fn shown(action: &Action, look: Look) -> String {
    let paint = match action.what {
        What::Start => Paint::Good,
        What::Stop => Paint::Bad,
        What::Restart { .. } => Paint::Warning,
        What::Change | What::Read => Paint::Strong,
    };
    let verb = look.paint(paint, &format!("{:8}", action.what.verb()));
    let mut more = Vec::new();
    more.extend(action.reason.clone());
    match action.what {
        What::Restart { sockets: true, .. } => more.push("with its sockets".to_owned()),
        What::Change => more.push("while it runs".to_owned()),
        What::Read if action.reason.is_none() => more.push("for its next start".to_owned()),
        _ => {}
    }
    let more = match more.is_empty() {
        true => String::new(),
        false => format!(": {}", more.join(", ")),
    };
    let mut result = format!("{verb} {}{more}\n", action.name);
    for (change, need) in &action.changes {
        let need = match (need, action.what) {
            (_, What::Start | What::Stop | What::Read) => "",
            (Need::Restart, _) => "  needs a restart",
            (Need::Live, _) => "  is set at once",
            (Need::Read, _) => "  is read when it is needed",
        };
        let need = look.paint(Paint::Faint, need);
        result.push_str(&format!("         {}{need}\n", sides(change)));
    }
    result
}

/// A key with what it was and what it is.
pub fn sides(change: &Change) -> String {
    let side = |value: &Option<String>| match value {
        Some(value) => harmless(value),
        None => "not written".to_owned(),
    };
    format!(
        "{}: {} -> {}",
        harmless(&change.key),
        side(&change.before),
        side(&change.after)
    )
}

fn kept(name: &Name, has_one: bool, held: &Held, look: Look) -> String {
    let verb = look.paint(Paint::Warning, &format!("{:8}", "keep"));
    let what = match has_one {
        true => "keeps its last good definition",
        false => "has no good definition",
    };
    format!("{verb} {name}: {what}: {}\n", harmless(&held.reason))
}

/// Everything wrong, as `boxctl check` says it.
fn problems(problems: &BTreeMap<String, String>) {
    for problem in problems.values() {
        complain(&with_newline(problem.clone()));
        complain("\n");
    }
}

/// Makes every box as its definition says.
pub fn apply(out: Look, err: Look) -> Result<ExitCode, Error> {
    carry_out(Wanted::Files(Asked::ByPerson), out, err)
}

/// Applies an earlier generation again.
pub fn rollback(number: Option<u64>, out: Look, err: Look) -> Result<ExitCode, Error> {
    let store = Store::system();
    let number = match number {
        Some(number) => number,
        None => earlier(&store)?.ok_or(Error::NoEarlier)?,
    };
    // One that is not there is told before anything is waited for.
    store.head(number)?;
    carry_out(Wanted::Generation(number), out, err)
}

/// The last generation that was applied and has other definitions than the one in force.
fn earlier(store: &Store) -> Result<Option<u64>, Error> {
    let Some(current) = store.current()? else {
        return Ok(None);
    };
    let definitions = |number| -> Result<BTreeMap<Name, Vec<SourceText>>, Error> {
        let boxes = store.boxes(number)?.into_iter();
        Ok(boxes
            .filter_map(|(name, entry)| Some((name, entry.definition?)))
            .collect())
    };
    let now = definitions(current.number)?;
    for number in store.numbers()? {
        if number < current.number
            && store.head(number)?.state == State::Applied
            && definitions(number)? != now
        {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn carry_out(wanted: Wanted, out: Look, err: Look) -> Result<ExitCode, Error> {
    let author = author();
    let mut progress = |text: &str| {
        let word = err.paint(Paint::Faint, "boxctl:");
        complain(&format!("{word} {}\n", harmless(text)));
    };
    let outcome = apply::apply(
        wanted,
        &Layers::system(),
        &Store::system(),
        &author,
        &mut progress,
    )?;
    problems(&outcome.problems);
    for (_, failed) in outcome.failed() {
        complain(&format!(
            "{} {}\n",
            err.paint(Paint::Bad, "boxctl:"),
            harmless(&failed)
        ));
    }
    for (name, held) in &outcome.held {
        if !outcome.failures.keys().any(|failed| failed.base() == *name) {
            let word = err.paint(Paint::Warning, "boxctl:");
            complain(&format!(
                "{word} box {name} is held: {}\n",
                harmless(&held.reason)
            ));
        }
    }
    say(&verdict(&outcome, out))?;
    let broken = !outcome.problems.is_empty() && matches!(wanted, Wanted::Files(_));
    Ok(if outcome.failures.is_empty() && !broken {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn verdict(outcome: &Outcome, look: Look) -> String {
    let Some(generation) = &outcome.generation else {
        return "Nothing was to be done: all boxes are as their definitions say.\n".to_owned();
    };
    match (generation.state, &outcome.put_back) {
        (State::Failed, back) => {
            let back = back.as_ref().map_or_else(String::new, |back| {
                format!("; generation {} is in force", back.number)
            });
            format!(
                "Generation {} {}{back}.\n",
                generation.number,
                look.paint(Paint::Bad, "failed")
            )
        }
        (_, _) => {
            let boxes = match outcome.actions.len() {
                0 => "no box was touched".to_owned(),
                _ => outcome
                    .actions
                    .iter()
                    .map(|action| format!("{} {}", action.what.verb(), action.name))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            format!(
                "Generation {} is {}: {boxes}.\n",
                generation.number,
                look.paint(Paint::Good, "applied")
            )
        }
    }
}

/// Lists the generations, the newest first.
pub fn history(json: bool, look: Look) -> Result<ExitCode, Error> {
    let store = Store::system();
    let generations = store
        .numbers()?
        .into_iter()
        .map(|number| store.head(number))
        // Whoever applies another one removes the oldest.
        .filter(|head| !matches!(head, Err(generation::Error::None { .. })))
        .collect::<Result<Vec<Generation>, _>>()?;
    if json {
        say(&format!(
            "{}\n",
            serde_json::to_string_pretty(&generations)?
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    if generations.is_empty() {
        say("Nothing was applied yet; `boxctl apply` does it.\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let current = store.current()?.map(|current| current.number);
    let clock = Clock::system();
    let rows: Vec<Vec<Cell>> = generations
        .iter()
        .map(|generation| row(generation, current, &clock))
        .collect();
    say(&table::render(
        &[
            ("GEN", Side::Right),
            ("TIME", Side::Left),
            ("AUTHOR", Side::Left),
            ("STATE", Side::Left),
            ("CHANGES", Side::Left),
        ],
        &rows,
        look,
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn row(generation: &Generation, current: Option<u64>, clock: &Clock) -> Vec<Cell> {
    let (state, paint) = match generation.state {
        State::Applying => ("half applied", Some(Paint::Warning)),
        State::Failed => ("failed", Some(Paint::Bad)),
        State::Applied if current == Some(generation.number) => ("in force", Some(Paint::Good)),
        State::Applied => ("applied", None),
    };
    let mut words = Vec::new();
    match generation.cause {
        Cause::Files => {}
        Cause::Rollback(number) => words.push(format!("back to {number}:")),
        Cause::PutBack(number) => words.push(format!("put back of {number}:")),
    }
    words.extend(generation.changed.iter().map(|(name, changed)| {
        let sign = match changed {
            Changed::Added => "+",
            Changed::Changed => "~",
            Changed::Removed => "-",
        };
        format!("{sign}{name}")
    }));
    let failures: Vec<String> = generation
        .failures
        .iter()
        .map(|(name, reason)| format!("{name} {}", harmless(reason)))
        .collect();
    let mut text = words.join(" ");
    if !failures.is_empty() {
        text = format!("{text} ({})", failures.join("; "));
    }
    vec![
        Cell::new(Some(generation.number.to_string())),
        Cell::new(Some(text::moment(generation.time, &clock.zone))),
        Cell::new(Some(harmless(&generation.author))),
        Cell::painted(state, paint),
        Cell::new(Some(text)),
    ]
}

type Definitions = BTreeMap<Name, Vec<SourceText>>;

/// Shows what generations, or the files, say differently.
pub fn diff(from: Option<u64>, to: Option<u64>, look: Look) -> Result<ExitCode, Error> {
    let store = Store::system();
    let from = match from {
        Some(number) => Some(number),
        None => store.current()?.map(|current| current.number),
    };
    let before = match from {
        Some(number) => generation(&store, number)?,
        None => Definitions::new(),
    };
    let after = match to {
        Some(number) => generation(&store, number)?,
        None => in_files(&Layers::system(), &before)?,
    };
    say(&differences(&before, &after, look))?;
    Ok(ExitCode::SUCCESS)
}

fn generation(store: &Store, number: u64) -> Result<Definitions, Error> {
    let boxes: BTreeMap<Name, Entry> = store.boxes(number)?;
    Ok(boxes
        .into_iter()
        .filter_map(|(name, entry)| Some((name, entry.definition?)))
        .collect())
}

/// What the files say; of those that cannot be used, what was said before.
fn in_files(layers: &Layers, before: &Definitions) -> Result<Definitions, Error> {
    let listed = crate::definition::list(layers)?;
    let mut found = Definitions::new();
    for name in listed.into_iter().filter_map(|listed| listed.name.ok()) {
        match Found::read(&name, layers) {
            Found::Good(texts, _) => drop(found.insert(name, texts)),
            Found::Broken(error) => {
                complain(&format!("{}\n", with_newline(error.to_string())));
                if let Some(texts) = before.get(&name) {
                    found.insert(name, texts.clone());
                }
            }
            Found::Nothing(_) => {}
        }
    }
    Ok(found)
}

fn differences(before: &Definitions, after: &Definitions, look: Look) -> String {
    let mut result = String::new();
    let names: BTreeSet<&Name> = before.keys().chain(after.keys()).collect();
    let none = Vec::new();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        let changes = changes(name, old.unwrap_or(&none), new.unwrap_or(&none));
        let remark = match (old, new) {
            (None, Some(_)) => ": new",
            (Some(_), None) => ": gone",
            (Some(old), Some(new)) if old != new && changes.is_empty() => {
                ": the same in other words"
            }
            _ if changes.is_empty() => continue,
            _ => "",
        };
        result.push_str(&format!(
            "{}{remark}\n",
            look.paint(Paint::Strong, name.as_str())
        ));
        for change in changes {
            let key = harmless(&change.key);
            for (sign, value, paint) in [
                ("-", &change.before, Paint::Bad),
                ("+", &change.after, Paint::Good),
            ] {
                if let Some(value) = value {
                    let line = format!("  {sign} {key} = {}", harmless(value));
                    result.push_str(&look.paint(paint, &line));
                    result.push('\n');
                }
            }
        }
    }
    if result.is_empty() {
        "No difference.\n".to_owned()
    } else {
        result
    }
}

/// Who this is: who logged in, whatever they have become since; else whom the process runs as.
fn author() -> String {
    let login = std::fs::read_to_string("/proc/self/loginuid")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        // What the kernel has for nobody.
        .filter(|uid| *uid != u32::MAX);
    let uid = login.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        color: false,
        width: None,
    };

    fn texts(text: &str) -> Vec<SourceText> {
        vec![SourceText {
            path: "/etc/boxd/web.toml".into(),
            text: format!("command = ['/bin/a']\n{text}"),
        }]
    }

    fn set(boxes: &[(&str, &str)]) -> Definitions {
        let one = |(name, text): &(&str, &str)| (name.parse().expect("a name"), texts(text));
        boxes.iter().map(one).collect()
    }

    #[test]
    fn differences_are_told_key_by_key() {
        let before = set(&[
            ("db", ""),
            ("old", "hostname = 'x'"),
            ("same", "# a"),
            ("web", "[resources]\nmemory = '1G'"),
        ]);
        let after = set(&[
            ("db", ""),
            ("same", "# b"),
            ("web", "[resources]\nmemory = '2G'"),
        ]);
        assert_eq!(
            differences(&before, &after, PLAIN),
            "old: gone\n  - command = [\"/bin/a\"]\n  - hostname = \"x\"\n\
             same: the same in other words\n\
             web\n  - resources.memory = \"1G\"\n  + resources.memory = \"2G\"\n"
        );
        assert_eq!(differences(&after, &after, PLAIN), "No difference.\n");
    }

    #[test]
    fn an_action_is_shown_with_its_reasons() {
        let name: Name = "web".parse().expect("a name");
        let changes = changes(
            &name,
            &texts("[resources]\nmemory = '1G'"),
            &texts("hostname = 'x'\n[resources]\nmemory = '2G'"),
        );
        let action = Action {
            name,
            what: What::Restart {
                service: true,
                sockets: true,
            },
            reason: None,
            changes: changes
                .into_iter()
                .map(|change| {
                    let need = crate::agent::diff::need(&change.key);
                    (change, need)
                })
                .collect(),
        };
        assert_eq!(
            shown(&action, PLAIN),
            "restart  web: with its sockets\n         \
             hostname: not written -> \"x\"  needs a restart\n         \
             resources.memory: \"1G\" -> \"2G\"  is set at once\n"
        );
    }
}
