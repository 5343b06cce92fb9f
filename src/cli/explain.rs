//! `boxctl explain`: what a key of the definition does, and where a box has its value from.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::terminal::{Look, Paint, cut, harmless, say, wrap};
use super::{Error, names};
use crate::definition::{self, Key, Layers, Written, keys, written};

/// The JSON of `boxctl explain --json`.
#[derive(Debug, Serialize)]
struct Explained<'a> {
    keys: &'a [&'a Key],
    /// What the box's files say of these keys; absent without a box.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<&'a [&'a Written]>,
}

/// Explains a key, a whole table, or all there are; and where a box has its value from.
pub fn explain(
    key: Option<&str>,
    name: Option<&str>,
    json: bool,
    look: Look,
) -> Result<ExitCode, Error> {
    let keys = keys();
    let chosen: Vec<&Key> = match key {
        None => keys.iter().collect(),
        Some(text) => choose(&keys, text)?,
    };
    let texts = match name {
        None => None,
        Some(name) => Some(definition::texts(&names::parse(name)?, &Layers::system())?),
    };
    let all = texts.as_deref().map(written);
    let of_chosen: Option<Vec<&Written>> = all.as_ref().map(|all| {
        all.iter()
            .filter(|one| chosen.iter().any(|key| is_of(one, key)))
            .collect()
    });
    say(&if json {
        let explained = Explained {
            keys: &chosen,
            written: of_chosen.as_deref(),
        };
        format!("{}\n", serde_json::to_string_pretty(&explained)?)
    } else {
        let mut pages: Vec<String> = Vec::new();
        for key in &chosen {
            let mut page = describe(key, look);
            if let (Some(name), Some(found)) = (name, &of_chosen) {
                let found: Vec<&Written> = found
                    .iter()
                    .copied()
                    .filter(|one| is_of(one, key))
                    .collect();
                page += &origin(name, key, &found, look);
            }
            pages.push(page);
        }
        pages.join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a value is one of this key: the key itself, or an entry of the table it is.
fn is_of(written: &Written, key: &Key) -> bool {
    written
        .key
        .strip_prefix(&key.path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The keys a text means: a key by its path, all of a table, or those that end so.
fn choose<'a>(keys: &'a [Key], text: &str) -> Result<Vec<&'a Key>, Error> {
    let wanted = text.trim_matches(['[', ']']).replace('_', "-");
    let exact = keys.iter().filter(|key| key.path == wanted);
    let table = || {
        let of_table = |key: &&Key| key.path.starts_with(&format!("{wanted}."));
        keys.iter().filter(of_table).collect::<Vec<_>>()
    };
    let last = || {
        let is_last = |key: &&Key| key.path.rsplit('.').next() == Some(&*wanted);
        keys.iter().filter(is_last).collect::<Vec<_>>()
    };
    // An entry of a table of free names, as in environment.TZ.
    let entry = || {
        let is_entry = |key: &&Key| {
            key.kind.starts_with("table") && wanted.starts_with(&format!("{}.", key.path))
        };
        keys.iter().filter(is_entry).collect::<Vec<_>>()
    };
    let exact: Vec<&Key> = exact.collect();
    let found = [exact, table(), last(), entry()]
        .into_iter()
        .find(|found| !found.is_empty());
    found.ok_or_else(|| Error::Key {
        text: text.to_owned(),
        similar: similar(keys, &wanted),
    })
}

/// The key whose path, last word, or word elsewhere is most like this.
pub fn similar(keys: &[Key], wanted: &str) -> Option<String> {
    let elsewhere = keys.iter().find(|key| {
        let words = key.peers.words();
        words.iter().any(|(_, word)| {
            word.split(", ").any(|word| {
                let word = word.rsplit(' ').next().unwrap_or(word);
                word.trim_matches(['=', '-'])
                    .eq_ignore_ascii_case(wanted.trim_matches(['=', '-']))
            })
        })
    });
    if let Some(key) = elsewhere {
        return Some(key.path.clone());
    }
    keys.iter()
        .map(|key| {
            let last = key.path.rsplit('.').next().unwrap_or_default();
            let distance = strsim::damerau_levenshtein(&key.path, wanted)
                .min(strsim::damerau_levenshtein(last, wanted));
            (distance, key)
        })
        .filter(|(distance, _)| *distance <= (wanted.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key.path.clone())
}

/// `memory` under `[resources]`, as it would be written.
fn heading(key: &Key) -> String {
    match key.path.rsplit_once('.') {
        Some((table @ ("mount" | "socket" | "device"), last)) => format!("[[{table}]] {last}"),
        Some((table, last)) => format!("[{table}] {last}"),
        None => key.path.clone(),
    }
}

fn describe(key: &Key, look: Look) -> String {
    const INDENT: &str = "    ";
    let line = |text: &str| format!("{INDENT}{}\n", wrap(text, look.width, INDENT));
    let mut text = format!(
        "{} = {}\n",
        look.paint(Paint::Strong, &heading(key)),
        key.kind
    );
    text += &line(&key.doc);
    text += &line(&if key.default.is_empty() {
        "It must be written.".to_owned()
    } else {
        format!("Default: {}", key.default)
    });
    let words: Vec<String> = key
        .peers
        .words()
        .iter()
        .map(|(peer, word)| format!("{peer} {word}"))
        .collect();
    if !words.is_empty() {
        text += &line(&format!("Elsewhere: {}", words.join("; ")));
    }
    text
}

/// Where a box has a key from.
fn origin(name: &str, key: &Key, found: &[&Written], look: Look) -> String {
    let name = harmless(name);
    if !found.iter().any(|one| one.holds) {
        let holds = match &*key.default {
            "" => "it is not written".to_owned(),
            default => format!("the default holds: {default}"),
        };
        return format!("    In box {name} {holds}\n");
    }
    let mut text = format!("    In box {name}:\n");
    for one in found {
        let what = match one.element {
            Some(number) => format!("{} (number {number})", harmless(&one.key)),
            None => harmless(&one.key),
        };
        let place = format!("{}:{}", harmless(&one.file.display().to_string()), one.line);
        let value = harmless(&one.value);
        let line = match one.holds {
            true => format!("      {what} = {value}"),
            false => format!("      replaced: {value}"),
        };
        let line = look.width.map_or(line.clone(), |width| cut(&line, width));
        let line = match one.holds {
            true => line,
            false => look.paint(Paint::Faint, &line),
        };
        text += &format!("{line}\n        {place}, {}\n", layer(&one.file));
    }
    text
}

/// What kind of file this is.
fn layer(file: &Path) -> String {
    let layer = if file.starts_with("/etc") {
        "the operator's"
    } else if file.starts_with("/run") {
        "made at run time"
    } else {
        "a package's"
    };
    let drop_in = file
        .parent()
        .and_then(Path::extension)
        .is_some_and(|extension| extension == "d");
    if drop_in {
        format!("{layer} drop-in")
    } else {
        format!("{layer} definition")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;
    use crate::definition::SourceText;

    const PLAIN: Look = Look {
        color: false,
        width: Some(80),
    };

    fn paths(found: Result<Vec<&Key>, Error>) -> Vec<String> {
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        found.iter().map(|key| key.path.clone()).collect()
    }

    #[test]
    fn a_key_is_found_by_what_one_knows_of_it() {
        let keys = keys();
        assert_eq!(
            paths(choose(&keys, "resources.memory")),
            ["resources.memory"]
        );
        assert_eq!(paths(choose(&keys, "memory")), ["resources.memory"]);
        assert_eq!(paths(choose(&keys, "environment.TZ")), ["environment"]);
        assert!(paths(choose(&keys, "[restart]")).contains(&"restart.policy".to_owned()));
        assert!(paths(choose(&keys, "timeout")).len() > 3);
        let hint = |text: &str| match choose(&keys, text) {
            Err(Error::Key { similar, .. }) => similar,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(hint("memroy").as_deref(), Some("resources.memory"));
        assert_eq!(hint("PidsLimit=").as_deref(), Some("resources.tasks"));
        assert_eq!(hint("--cap-add").as_deref(), Some("security.capabilities"));
        assert_eq!(hint("xyzzy"), None);
    }

    #[test]
    fn a_key_is_explained_with_its_value_and_where_that_is_from() {
        let text = |path: &str, text: &str| SourceText {
            path: path.into(),
            text: text.to_owned(),
        };
        let texts = [
            text(
                "/usr/lib/boxd/web.toml",
                "command = [\"/bin/true\"]\nenvironment = { A = \"1\u{9b}2J\" }\n[resources]\nmemory = \"1G\"\n",
            ),
            text(
                "/etc/boxd/web.toml.d/10-memory.toml",
                "resources.memory = \"2G\"\n",
            ),
        ];
        let all = written(&texts);
        let keys = keys();
        let mut pages = Vec::new();
        for wanted in ["resources.memory", "environment", "user"] {
            let key = choose(&keys, wanted).expect("a key")[0];
            let found: Vec<&Written> = all.iter().filter(|one| is_of(one, key)).collect();
            pages.push(describe(key, PLAIN) + &origin("web", key, &found, PLAIN));
        }
        golden::compare("explain/key-80", &pages.join("\n"));
    }
}
