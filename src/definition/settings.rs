//! Single keys of a definition set by a program: in a drop-in whose other keys, and comments, stay as they are. What
//! stands above a key that is taken out goes to the end.
//!
//! A value comes from a command line. It is put into the drop-in as a value of TOML, never as a part of its text, and
//! what it may be is for the reader to judge, as with a value that was written by hand.

use std::path::Path;

use toml_edit::{DocumentMut, InlineTable, Item, RawString, Table, TableLike, TomlError, Value};

use super::diagnostics::SourceText;
use super::layers::{LoadError, SIZE_MAX};
use super::schema::Key;

/// A key with the value it is to have.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The names of the tables it stands in, and its own.
    path: Vec<String>,
    /// None for a key that is to be taken out.
    value: Option<Value>,
}

impl Setting {
    /// Of a key of the format, or of one entry where that is a table, the value that this text says; nothing for an
    /// empty text, which takes the key out.
    ///
    /// What is not a text by its kind is read as TOML: numbers, truth values, lists and tables.
    pub fn new(key: &Key, entry: Option<&str>, text: &str) -> Setting {
        let path = key.path.split('.').chain(entry).map(str::to_owned);
        let kind = match entry {
            Some(_) => key.kind.trim_start_matches("table of "),
            None => &*key.kind,
        };
        Setting {
            path: path.collect(),
            value: (!text.is_empty()).then(|| value(kind, text)),
        }
    }

    /// The same key, to be taken out.
    pub fn removal(&self) -> Setting {
        Setting {
            path: self.path.clone(),
            value: None,
        }
    }

    /// Whether it takes its key out.
    pub fn is_removal(&self) -> bool {
        self.value.is_none()
    }

    /// Dotted, as in `resources.memory`.
    pub fn key(&self) -> String {
        self.path.join(".")
    }
}

/// The value a text of the command line stands for. One of another type stays a text, for the reader to refuse.
fn value(kind: &str, text: &str) -> Value {
    let literal = || text.trim().parse::<Value>().ok();
    let literal = match kind {
        "boolean" => literal().filter(Value::is_bool),
        "integer" | "number" | "1 to 10000" => {
            literal().filter(|value| value.is_integer() || value.is_float())
        }
        kind if kind.starts_with("list of ") => literal().filter(Value::is_array),
        kind if kind.starts_with("table of ") => literal().filter(Value::is_inline_table),
        _ => None,
    };
    let mut value = literal.unwrap_or_else(|| Value::from(text));
    value.decor_mut().clear();
    value
}

/// Where a drop-in cannot be read as TOML.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Unreadable(#[from] TomlError);

/// The text of a drop-in with these keys; none if neither a key nor a comment is left in it. A new one begins with
/// `heading`, a comment with its line's end.
///
/// # Errors
///
/// The text is not TOML.
pub fn edited(
    text: &str,
    settings: &[Setting],
    heading: &str,
) -> Result<Option<String>, Unreadable> {
    let own = text.trim().is_empty() || text.starts_with(heading);
    let body = text.strip_prefix(heading).unwrap_or(text);
    let mut document: DocumentMut = body.parse()?;
    let mut left = String::new();
    for setting in settings {
        match &setting.value {
            Some(value) => put(document.as_table_mut(), &setting.path, value, true),
            None => take_out(document.as_table_mut(), &setting.path, &mut left),
        }
    }
    if !left.is_empty() {
        let mut end = document.trailing().as_str().unwrap_or_default().to_owned();
        if !end.is_empty() && !end.ends_with('\n') {
            end.push('\n');
        }
        document.set_trailing(format!("{end}{left}"));
    }
    let text = document.to_string();
    if document.as_table().is_empty() && text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(match own {
        // The first table may not be the first any more.
        true => format!("{heading}{}", text.trim_start_matches('\n')),
        false => text,
    }))
}

fn put(table: &mut dyn TableLike, path: &[String], value: &Value, top: bool) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        match table.get_mut(name).and_then(Item::as_value_mut) {
            // In its place, where its comments are.
            Some(old) => {
                let mut new = value.clone();
                if comments(old.decor().suffix()).is_some() {
                    *new.decor_mut() = old.decor().clone();
                }
                *old = new;
            }
            None => drop(table.insert(name, Item::Value(value.clone()))),
        }
        return;
    }
    if let Some(inner) = table.get_mut(name).and_then(Item::as_table_like_mut) {
        put(inner, rest, value, false);
        return;
    }
    // One with a header can stand only in another one with a header.
    let item = if top {
        let mut new = Table::new();
        put(&mut new, rest, value, false);
        Item::Table(new)
    } else {
        let mut new = InlineTable::new();
        put(&mut new, rest, value, false);
        Item::Value(Value::InlineTable(new))
    };
    table.insert(name, item);
}

/// Takes a key out, and tables that are empty without it; what is said above these is added to `left`.
fn take_out(table: &mut dyn TableLike, path: &[String], left: &mut String) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    if !rest.is_empty() {
        let Some(inner) = table.get_mut(name).and_then(Item::as_table_like_mut) else {
            return;
        };
        take_out(inner, rest, left);
        if !inner.is_empty() {
            return;
        }
    }
    let key = table.key(name).map(|key| key.leaf_decor().prefix());
    left.extend(comments(key.flatten()));
    let header = table.get(name).and_then(Item::as_table);
    left.extend(comments(header.and_then(|table| table.decor().prefix())));
    table.remove(name);
}

/// What stands around a key or value, if that is more than space.
fn comments(around: Option<&RawString>) -> Option<&str> {
    around?.as_str().filter(|text| text.contains('#'))
}

/// The texts of a definition with this drop-in as it says here, or without it: in the place that its file's name gives
/// it among the others.
///
/// # Errors
///
/// [`LoadError::Size`].
pub fn with_drop_in(
    texts: &[SourceText],
    path: &Path,
    text: Option<String>,
) -> Result<Vec<SourceText>, LoadError> {
    let mut texts: Vec<SourceText> = texts
        .iter()
        .filter(|text| text.path != path)
        .cloned()
        .collect();
    let Some(text) = text else {
        return Ok(texts);
    };
    if text.len() as u64 > SIZE_MAX {
        return Err(LoadError::Size {
            path: path.to_owned(),
            limit: SIZE_MAX,
        });
    }
    let file = path.file_name();
    let before = texts
        .iter()
        .skip(1)
        .take_while(|text| text.path.file_name() < file)
        .count();
    let place = texts.len().min(before + 1);
    let path = path.to_owned();
    texts.insert(place, SourceText { path, text });
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::changes::spelled;
    use super::super::keys;
    use super::*;

    const HEADING: &str = "# Ours.\n";

    fn setting(key: &str, entry: Option<&str>, text: &str) -> Setting {
        let keys = keys();
        let key = keys.iter().find(|known| known.path == key).expect("a key");
        Setting::new(key, entry, text)
    }

    fn after(text: &str, settings: &[Setting]) -> Option<String> {
        edited(text, settings, HEADING).expect("TOML")
    }

    #[test]
    fn a_value_is_of_the_type_of_its_key() {
        let settings = [
            setting("resources.memory", None, "1G"),
            setting("resources.cpu", None, "1.5"),
            setting("resources.tasks", None, " 512"),
            setting("resources.io-read", Some("/dev/vda"), "10M"),
            setting("start-at-boot", None, "true"),
            setting("description", None, "17"),
            setting("health.command", None, "['/bin/a', '-x']"),
            setting("resources.cpu-weight", None, "heavy"),
        ];
        assert_eq!(
            after("", &settings).expect("keys"),
            "# Ours.\nstart-at-boot = true\ndescription = \"17\"\n\n[resources]\nmemory = \"1G\"\ncpu = 1.5\n\
             tasks = 512\nio-read = { \"/dev/vda\" = \"10M\" }\ncpu-weight = \"heavy\"\n\n[health]\n\
             command = ['/bin/a', '-x']\n"
        );
    }

    #[test]
    fn what_else_stands_there_stays() {
        let written = "# Mine.\nhostname = 'x' # why\nresources = { memory = '1G' }\n";
        let settings = [
            setting("resources.memory", None, "2G"),
            setting("resources.io-write", Some("/"), "1M"),
        ];
        assert_eq!(
            after(written, &settings).expect("keys"),
            "# Mine.\nhostname = 'x' # why\nresources = { memory = \"2G\" , io-write = { \"/\" = \"1M\" } }\n"
                .replace("\" ,", "\",")
        );
        let dotted = "# Ours.\nresources.memory = '1G'\nresources.cpu = 2\n";
        let off = [setting("resources.memory", None, "")];
        assert_eq!(
            after(dotted, &off).as_deref(),
            Some("# Ours.\nresources.cpu = 2\n")
        );
        let tasks = [setting("resources.tasks", None, "5")];
        assert_eq!(
            spelled(&[source(&after(dotted, &tasks).expect("keys"))])["resources.tasks"],
            "5"
        );
        assert!(edited("resources = ", &off, HEADING).is_err());
    }

    #[test]
    fn a_drop_in_without_keys_is_none() {
        let all = [
            setting("resources.memory", None, "1G"),
            setting("resources.io-read", Some("/dev/vda"), "10M"),
        ];
        let written = after("", &all).expect("keys");
        let none = all.each_ref().map(Setting::removal);
        assert!(none.iter().all(Setting::is_removal));
        assert_eq!(after(&written, &none), None);
        assert_eq!(after("", &none), None);
        let described = after("", &[setting("description", None, "x"), all[0].clone()]);
        let one = after(
            &described.expect("keys"),
            &[setting("description", None, "")],
        );
        assert_eq!(
            one.as_deref(),
            Some("# Ours.\n[resources]\nmemory = \"1G\"\n")
        );
        let one = after(&written, &none[1..]).expect("a key");
        assert_eq!(one, "# Ours.\n[resources]\nmemory = \"1G\"\n");
        assert_eq!(none[1].key(), "resources.io-read./dev/vda");
    }

    #[test]
    fn comments_outlive_the_keys_they_stand_at() {
        let written =
            "# Mine.\n\n# As the shop needs it.\nresources.memory = '1G' # measured\n# End.\n";
        let more = after(written, &[setting("resources.memory", None, "2G")]);
        assert_eq!(more, Some(written.replace("'1G'", "\"2G\"")));
        let off = setting("resources.memory", None, "");
        let comments = "# Mine.\n\n# As the shop needs it.\n# End.\n";
        let none = after(written, std::slice::from_ref(&off)).expect("comments");
        for line in comments.lines() {
            assert!(none.contains(line), "{none}");
        }
        assert!(none.parse::<DocumentMut>().expect("TOML").is_empty());
        assert_eq!(
            after(&none, std::slice::from_ref(&off)).as_ref(),
            Some(&none)
        );
        let tables = "# A box.\nhostname = 'x'\n# Limits.\n[resources]\n# Few.\ntasks = 5\n[stop]\n# Soon.\ntimeout = 5\n";
        let left = after(tables, &[setting("resources.tasks", None, "")]).expect("keys");
        assert_eq!(
            left,
            "# A box.\nhostname = 'x'\n[stop]\n# Soon.\ntimeout = 5\n# Few.\n# Limits.\n"
        );
        let short = "# A.\ndescription = 'x'\n# End.";
        let left = after(short, &[setting("description", None, "")]);
        assert_eq!(left.as_deref(), Some("# End.\n# A.\n"));
        let headed = "# Ours.\n# Mine.\nresources.memory = '1G'\n";
        assert_eq!(
            after(headed, std::slice::from_ref(&off)).as_deref(),
            Some("# Ours.\n# Mine.\n")
        );
    }

    fn source(text: &str) -> SourceText {
        SourceText {
            path: "/etc/boxd/web.toml".into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_drop_in_stands_where_its_name_puts_it() {
        let text = |path: &str| SourceText {
            path: path.into(),
            text: String::new(),
        };
        let texts = [
            text("/usr/lib/boxd/web.toml"),
            text("/etc/boxd/web.toml.d/50-local.toml"),
            text("/run/boxd/definitions/web.toml.d/95-late.toml"),
        ];
        let ours = Path::new("/etc/boxd/web.toml.d/90-set.toml");
        let with = |texts: &[SourceText], text: Option<&str>| {
            with_drop_in(texts, ours, text.map(str::to_owned)).expect("small")
        };
        let added = with(&texts, Some("x"));
        assert_eq!(added.len(), 4);
        assert_eq!((&*added[2].path, &*added[2].text), (ours, "x"));
        assert_eq!(with(&added, Some("y"))[2].text, "y");
        assert_eq!(with(&added, None), texts);
        assert_eq!(with(&texts[..1], Some("x"))[1].path, ours);
        let large = "x".repeat(SIZE_MAX as usize + 1);
        assert!(matches!(
            with_drop_in(&texts, ours, Some(large)),
            Err(LoadError::Size { .. })
        ));
    }

    proptest! {
        /// No byte of a value gets out of it.
        #[test]
        fn a_text_is_found_as_it_was_given(text in "\\PC*|[\\x00-\\x7f]{0,40}", device in "/[ -~]{0,20}") {
            prop_assume!(!text.is_empty());
            let settings = [
                setting("description", None, &text),
                setting("resources.io-read", Some(&device), &text),
            ];
            let written = after("hostname = 'x'\n", &settings).expect("keys");
            let document: DocumentMut = written.parse().expect("TOML");
            prop_assert_eq!(document["description"].as_str(), Some(&*text));
            prop_assert_eq!(document["resources"]["io-read"][&device].as_str(), Some(&*text));
            prop_assert_eq!(document.len(), 3);
        }
    }
}
