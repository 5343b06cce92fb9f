//! What two definitions say differently, key by key, in the words of the format.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::diagnostics::SourceText;
use super::reader::understand;
use super::tree::{self, Located, Table, Value};
use crate::name::Name;

/// A key two definitions disagree about, with the values as they are written in TOML.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// Dotted, as in `resources.memory`; in a list of tables with an index from 1, as in `mount.1.bind`.
    pub key: String,
    /// What was written; absent if nothing was.
    pub before: Option<String>,
    /// What is written; absent if nothing is.
    pub after: Option<String>,
}

/// The keys about which the definitions in these texts disagree, by name. One and the same thing in other words, and
/// all comments, are no change.
pub fn changes(name: &Name, before: &[SourceText], after: &[SourceText]) -> Vec<Change> {
    if before == after {
        return Vec::new();
    }
    let (mut old, mut new) = (spelled(before), spelled(after));
    let (was, is) = (meant(name, before), meant(name, after));
    let mut keys: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| Change {
            before: old.remove(&key),
            after: new.remove(&key),
            key,
        })
        .filter(|change| change.before != change.after)
        .filter(|change| match (&was, &is) {
            (Some(was), Some(is)) => {
                let field = field(&change.key);
                was.get(&field) != is.get(&field)
            }
            // A program that understands only one of them cannot say that they are the same.
            _ => true,
        })
        .collect()
}

/// Every key that is written in these texts, the base first and its drop-ins merged over it, with its value in TOML.
pub fn spelled(texts: &[SourceText]) -> BTreeMap<String, String> {
    let mut table = Table::new();
    for (file, source) in texts.iter().enumerate() {
        tree::merge(&mut table, tree::parse(file, &source.text).table);
    }
    let mut keys = BTreeMap::new();
    flatten("", &table, &mut keys);
    keys
}

/// The definition by fields; none if it has problems.
fn meant(name: &Name, texts: &[SourceText]) -> Option<serde_json::Map<String, Json>> {
    let (definition, None) = understand(name, texts) else {
        return None;
    };
    match serde_json::to_value(definition).ok()? {
        Json::Object(fields) => Some(fields),
        _ => None,
    }
}

/// The field of a definition that a key of the format belongs to.
fn field(key: &str) -> String {
    let top = key.split('.').next().unwrap_or(key);
    match top {
        "mount" | "socket" | "device" => format!("{top}s"),
        "environment-file" => "environment_files".to_owned(),
        _ => top.replace('-', "_"),
    }
}

fn flatten(prefix: &str, table: &Table, keys: &mut BTreeMap<String, String>) {
    for (name, entry) in table {
        let path = format!("{prefix}{}", quoted(name));
        match &entry.value.value {
            Value::Table(table) => flatten(&format!("{path}."), table, keys),
            Value::Array(items) if !items.is_empty() && items.iter().all(is_table) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Table(table) = &item.value {
                        flatten(&format!("{path}.{}.", index + 1), table, keys);
                    }
                }
            }
            value => {
                keys.insert(path, spell(value));
            }
        }
    }
}

fn is_table(item: &Located) -> bool {
    matches!(item.value, Value::Table(_))
}

/// A bare key if it can be one.
fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        string(key)
    }
}

fn spell(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => {
            let text = number.to_string();
            if text.contains(|c: char| !c.is_ascii_digit() && c != '-') {
                text
            } else {
                format!("{text}.0")
            }
        }
        Value::Boolean(yes) => yes.to_string(),
        Value::Datetime => "a date or time".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| spell(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let items: Vec<String> = table
                .iter()
                .map(|(name, entry)| format!("{} = {}", quoted(name), spell(&entry.value.value)))
                .collect();
            format!("{{ {} }}", items.join(", "))
        }
    }
}

/// A basic string: no control character is left in it.
fn string(text: &str) -> String {
    let mut result = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                result.push('\\');
                result.push(c);
            }
            '\n' => result.push_str("\\n"),
            '\t' => result.push_str("\\t"),
            '\r' => result.push_str("\\r"),
            c if c.is_control() => result.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => result.push(c),
        }
    }
    result.push('"');
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<SourceText> {
        let source = |(index, text): (usize, &&str)| SourceText {
            path: format!("/etc/boxd/web.toml.{index}").into(),
            text: (*text).to_owned(),
        };
        texts.iter().enumerate().map(source).collect()
    }

    fn between(before: &[&str], after: &[&str]) -> Vec<String> {
        let name = "web".parse().expect("a name");
        changes(&name, &texts(before), &texts(after))
            .into_iter()
            .map(|change| {
                let side = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
                let (before, after) = (side(change.before), side(change.after));
                format!("{}: {before} > {after}", change.key)
            })
            .collect()
    }

    #[test]
    fn every_change_is_told_by_its_key() {
        assert_eq!(
            between(
                &[
                    "command = ['/bin/a', '\"x\"']\nstart-at-boot = true\n[environment]\n\"A.B\" = 'x'\n\
                   [resources]\nmemory = '512M'\n[[mount]]\nbind = '/srv'\nat = '/srv'\n"
                ],
                &[
                    "command = ['/bin/b']\nstart-at-boot = true\n[[mount]]\nbind = '/srv'\nat = '/data'\n",
                    "[resources]\nmemory = '1G'\ncpu = 2\n",
                ],
            ),
            [
                r#"command: ["/bin/a", "\"x\""] > ["/bin/b"]"#,
                r#"environment."A.B": "x" > -"#,
                r#"mount.1.at: "/srv" > "/data""#,
                r#"resources.cpu: - > 2"#,
                r#"resources.memory: "512M" > "1G""#,
            ]
        );
    }

    #[test]
    fn other_words_for_the_same_are_no_change() {
        let command = "command = ['/bin/a']\n";
        assert_eq!(
            between(
                &[&format!("{command}[resources]\nmemory = '1G'\n")],
                &[&format!(
                    "# larger\nresources.memory = '1024M'\n{command}start-at-boot = false\n"
                )],
            ),
            [""; 0]
        );
        // In a drop-in, in the base: it is the same.
        assert_eq!(
            between(
                &[command, "description = 'x'"],
                &[&format!("description = 'x'\n{command}")]
            ),
            [""; 0]
        );
    }

    #[test]
    fn every_key_of_the_format_has_its_field() {
        let (definition, _) = understand(&"web".parse().expect("a name"), &[]);
        let fields = serde_json::to_value(definition).expect("JSON");
        for key in crate::definition::keys() {
            assert!(
                fields.get(field(&key.path)).is_some(),
                "{} has no field {}",
                key.path,
                field(&key.path)
            );
        }
    }
}
