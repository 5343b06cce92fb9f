//! The table of keys: for manual pages and `boxctl explain`.

use serde_json::Value;

use super::{Peers, schema};

/// One key of the format.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Key {
    /// Dotted, as in `resources.memory`; keys of `[[mount]]` begin with `mount.`.
    pub path: String,
    /// What may be written, as in `size` or `list of group`.
    pub kind: String,
    /// What holds when the key is not written; empty for the keys that must be.
    pub default: String,
    /// What it means, as one line.
    pub doc: String,
    /// What it is called elsewhere.
    pub peers: Peers,
}

/// Every key of the format: those of the whole file first, then table by table, each by name.
pub fn keys() -> Vec<Key> {
    let schema = schema();
    let mut keys = Vec::new();
    collect(&schema, &schema, "", &mut keys);
    // Stable: within a table the order stays.
    keys.sort_by_key(|key| key.path.contains('.'));
    keys
}

fn collect(root: &Value, object: &Value, prefix: &str, keys: &mut Vec<Key>) {
    let (Some(properties), required) = (object["properties"].as_object(), &object["required"])
    else {
        return;
    };
    let required = required.as_array().map(Vec::as_slice).unwrap_or_default();
    for (name, property) in properties {
        let path = format!("{prefix}{name}");
        let table = resolve(root, property);
        let element = resolve(root, &table["items"]);
        if let Some(table) = [table, element]
            .into_iter()
            .find(|table| table["properties"].is_object())
        {
            collect(root, table, &format!("{path}."), keys);
            continue;
        }
        let text = property["description"].as_str().unwrap_or_default();
        let (doc, default) = text.split_once(DEFAULT).unwrap_or((text, ""));
        let default = if required.contains(&Value::from(name.as_str())) {
            ""
        } else {
            default.trim_end_matches('.')
        };
        keys.push(Key {
            peers: Peers::of(&path),
            path,
            kind: kind(root, property),
            default: default.to_owned(),
            doc: doc.to_owned(),
        });
    }
}

/// Separates what a key means from what holds without it, in every description.
const DEFAULT: &str = " Default: ";

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"]
        .as_str()
        .and_then(|path| path.strip_prefix('#'))
    {
        Some(path) => root.pointer(path).unwrap_or(schema),
        None => schema,
    }
}

/// What may be written, for people: the title of a schema or what its type says.
fn kind(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words
            .iter()
            .filter_map(Value::as_str)
            .map(|word| format!("\"{word}\""))
            .collect();
        return words.join(", ");
    }
    let either = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    if let Some(either) = either {
        let kinds: Vec<_> = either.iter().map(|one| kind(root, one)).collect();
        return kinds.join(" or ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(root, &schema["items"])),
        Some("object") => {
            let patterns = schema["patternProperties"].as_object();
            let values = patterns.and_then(|patterns| patterns.values().next());
            format!(
                "table of {}",
                kind(root, values.unwrap_or(&schema["additionalProperties"]))
            )
        }
        Some(kind) => kind.to_owned(),
        None => String::new(),
    }
}
