//! `boxctl run`, `check`, `plan`, `list` and `schema`: what begins with a definition.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::table::{self, Cell, Side};
use super::terminal::{Look, Paint, complain, harmless, say};
use super::{Error, describe, names};
use crate::definition::{self, Definition, Layers, LoadError, Users};
use crate::plan::{self, Plan};
use crate::{foreground, host, run};

/// Runs a box in the foreground, and ends as it does.
pub fn run(source: &str, look: Look) -> Result<ExitCode, Error> {
    if let names::Source::File(path) = names::source(source)?
        && !path.is_file()
    {
        // Of a pipe nothing would be left for a second time.
        run::seal(Users::Host).map_err(foreground::Error::from)?;
    }
    let definition = read(source)?;
    let notice = |text: &str| {
        complain(&format!("{} {text}\n", look.paint(Paint::Faint, "boxctl:")));
    };
    Ok(ExitCode::from(foreground::run(&definition, &notice)?))
}

/// Says everything that is wrong with these files, or with all definitions.
pub fn check(files: &[PathBuf], out: Look, err: Look) -> Result<ExitCode, Error> {
    let layers = Layers::system();
    let mut checked = 0_usize;
    let mut problems = Vec::new();
    if files.is_empty() {
        for listed in definition::list(&layers)? {
            checked += 1;
            match &listed.name {
                Ok(name) if !listed.masked => {
                    problems.extend(definition::load(name, &layers).err())
                }
                Ok(_) => {}
                Err(_) => problems.extend(definition::load_file(&listed.path).err()),
            }
        }
    } else {
        for file in files {
            checked += 1;
            let loaded = match file.to_str().map(names::source) {
                Some(Ok(names::Source::Name(name))) => definition::load(&name, &layers),
                _ => definition::load_file(file),
            };
            problems.extend(loaded.err());
        }
    }
    let broken = problems.len();
    for (index, problem) in problems.into_iter().enumerate() {
        if index > 0 {
            complain("\n");
        }
        complain(&describe(&Error::Load(problem), err));
    }
    let definitions = if checked == 1 {
        "definition"
    } else {
        "definitions"
    };
    if broken > 0 {
        complain(&format!(
            "\n{broken} of {checked} {definitions} cannot be used.\n"
        ));
        return Ok(ExitCode::FAILURE);
    }
    let verdict = match checked {
        0 => format!("no definitions in {}", directories(&layers)),
        1 => format!("1 definition, {}", out.paint(Paint::Good, "good")),
        _ => format!(
            "{checked} {definitions}, {}",
            out.paint(Paint::Good, "all good")
        ),
    };
    say(&format!("{verdict}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what would be done to run a box.
pub fn plan(source: &str, json: bool) -> Result<ExitCode, Error> {
    let plan = planned(&read(source)?)?;
    say(&if json {
        format!("{}\n", serde_json::to_string_pretty(&plan)?)
    } else {
        plan::print(&plan)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The definition in a file, or of a name; of one with instances that of the first, which is said.
pub fn read(source: &str) -> Result<Definition, Error> {
    let (named, definition) = match names::source(source)? {
        names::Source::File(path) => (None, definition::load_file_of_one(path)?),
        names::Source::Name(name) => {
            let layers = Layers::system();
            let definition = definition::load(&name, &layers)?;
            let definition = match definition.is_of_all() {
                true => definition::load(&name.with_instance(1), &layers)?,
                false => definition,
            };
            (Some(name), definition)
        }
    };
    if let Some(count) = definition.instances
        && named.is_none_or(|named| named != definition.name)
    {
        let name = &definition.name;
        let (base, boxes) = (name.base(), if count == 1 { "box" } else { "boxes" });
        complain(&format!(
            "boxctl: {base} is {count} {boxes}; this is {name}\n"
        ));
    }
    Ok(definition)
}

/// What would be done on this host, changing nothing.
pub fn planned(definition: &Definition) -> Result<Plan, Error> {
    plan::resolve(definition, &host::read(definition)).map_err(Error::Plan)
}

/// A row of `boxctl list`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    name: String,
    state: crate::status::DefinitionState,
    start_at_boot: bool,
    files: Vec<PathBuf>,
    description: Option<String>,
    /// How many boxes there are of it, where it says so.
    instances: Option<u16>,
    /// Why it cannot be used, as `boxctl check` prints it.
    problem: Option<String>,
}

/// Shows which boxes are defined, and where.
pub fn list(json: bool, look: Look) -> Result<ExitCode, Error> {
    use crate::status::DefinitionState as State;
    let layers = Layers::system();
    let mut rows = Vec::new();
    for listed in definition::list(&layers)? {
        let loaded = match &listed.name {
            Ok(name) => definition::load(name, &layers),
            Err(_) => definition::load_file(&listed.path),
        };
        let name = match listed.name {
            Ok(name) => name.to_string(),
            Err(_) => listed
                .path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        rows.push(match loaded {
            Ok(definition) => Row {
                name,
                state: State::Loaded,
                start_at_boot: definition.start_at_boot,
                files: definition.sources,
                description: definition.description,
                instances: definition.instances,
                problem: None,
            },
            Err(error) => Row {
                name,
                state: if matches!(error, LoadError::Masked { .. }) {
                    State::Masked
                } else {
                    State::Broken
                },
                start_at_boot: false,
                files: vec![listed.path],
                description: None,
                instances: None,
                problem: Some(error.to_string()),
            },
        });
    }
    if json {
        say(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        say(&format!("No definitions in {}.\n", directories(&layers)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            let (word, paint) = match row.state {
                State::Loaded => ("good", Some(Paint::Good)),
                State::Broken => ("broken", Some(Paint::Bad)),
                State::Masked => ("masked", None),
                State::Missing => ("missing", None),
            };
            let more = match row.files.len() {
                0 | 1 => String::new(),
                2 => " and 1 drop-in".to_owned(),
                files => format!(" and {} drop-ins", files - 1),
            };
            let file = row.files.first().map(|file| file.display().to_string());
            vec![
                Cell::new(Some(harmless(&row.name))),
                Cell::painted(word, paint),
                Cell::new(Some(
                    if row.start_at_boot { "yes" } else { "no" }.to_owned(),
                )),
                Cell::new(file.map(|file| format!("{}{more}", harmless(&file)))),
                Cell::new(says(row).map(|text| harmless(&text))),
            ]
        })
        .collect();
    say(&table::render(
        &[
            ("NAME", Side::Left),
            ("DEFINITION", Side::Left),
            ("AT BOOT", Side::Left),
            ("FILE", Side::Left),
            ("DESCRIPTION", Side::Left),
        ],
        &cells,
        look,
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What a row has room for: of a broken one the first thing that is wrong.
fn says(row: &Row) -> Option<String> {
    let text = match (row.state, &row.problem) {
        (crate::status::DefinitionState::Broken, Some(problem)) => {
            let line = problem.lines().next().unwrap_or_default();
            Some(line.strip_prefix("error: ").unwrap_or(line))
        }
        _ => row.description.as_deref(),
    };
    let count = row.instances.map(|count| match count {
        1 => "1 instance".to_owned(),
        count => format!("{count} instances"),
    });
    match (text, count) {
        (Some(text), Some(count)) => Some(format!("{text} ({count})")),
        (text, count) => text.map(str::to_owned).or(count),
    }
}

/// Prints the JSON Schema of definitions.
pub fn schema() -> Result<ExitCode, Error> {
    let schema = serde_json::to_string_pretty(&definition::schema())?;
    say(&format!("{schema}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn directories(layers: &Layers) -> String {
    let directories: Vec<String> = layers
        .directories()
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    match directories.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => directories.concat(),
    }
}
