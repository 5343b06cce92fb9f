//! Where each value of a definition is written, and what was laid over it: for who asks why a key is as it is.

use std::path::PathBuf;

use super::diagnostics::{Place, SourceText};
use super::tree::{self, Table, Value};

/// One value as it is written in one file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Written {
    /// Dotted, as in `resources.memory`; for a table of free names with the name, as in `environment.TZ`.
    pub key: String,
    /// Of a `[[mount]]` and its like: which of them, from 1, in the order they are used; none for one that does not
    /// hold.
    pub element: Option<usize>,
    /// As it stands in the file.
    pub value: String,
    /// The file.
    pub file: PathBuf,
    /// The line it begins in, from 1.
    pub line: usize,
    /// Nothing was laid over it: it is what counts.
    pub holds: bool,
}

/// Every value in these texts, the base first and its drop-ins after it: by key, those that hold before those that
/// were replaced. What cannot be read as TOML is left out.
pub fn written(texts: &[SourceText]) -> Vec<Written> {
    let mut merged = Table::new();
    let mut single = Vec::new();
    for (file, source) in texts.iter().enumerate() {
        let parsed = tree::parse(file, &source.text).table;
        leaves(&parsed, "", None, &mut single);
        tree::merge(&mut merged, parsed);
    }
    let mut holding = Vec::new();
    leaves(&merged, "", None, &mut holding);
    let replaced = single
        .into_iter()
        .filter(|leaf| holding.iter().all(|held| held.place != leaf.place))
        .map(|leaf| (false, leaf))
        .collect::<Vec<_>>();
    let mut all: Vec<(bool, Leaf)> = holding.into_iter().map(|leaf| (true, leaf)).collect();
    all.extend(replaced);
    // Of those that were replaced the last one was so last.
    all.sort_by(|(a_holds, a), (b_holds, b)| {
        let order = |holds: bool, leaf: &Leaf| (!holds, leaf.element.unwrap_or(0));
        a.key
            .cmp(&b.key)
            .then_with(|| order(*a_holds, a).cmp(&order(*b_holds, b)))
            .then_with(|| b.place.file.cmp(&a.place.file))
            .then_with(|| a.place.span.start.cmp(&b.place.span.start))
    });
    all.into_iter()
        .filter_map(|(holds, leaf)| {
            let source = texts.get(leaf.place.file)?;
            Some(Written {
                element: leaf.element.filter(|_| holds),
                value: source.text.get(leaf.place.span.clone())?.to_owned(),
                file: source.path.clone(),
                line: source
                    .text
                    .get(..leaf.place.span.start)?
                    .matches('\n')
                    .count()
                    + 1,
                key: leaf.key,
                holds,
            })
        })
        .collect()
}

struct Leaf {
    key: String,
    element: Option<usize>,
    place: Place,
}

fn leaves(table: &Table, prefix: &str, element: Option<usize>, found: &mut Vec<Leaf>) {
    for (name, entry) in table {
        let key = format!("{prefix}{name}");
        match &entry.value.value {
            Value::Table(table) if !table.is_empty() => {
                leaves(table, &format!("{key}."), element, found);
            }
            Value::Array(elements)
                if !elements.is_empty()
                    && elements
                        .iter()
                        .all(|element| matches!(element.value, Value::Table(_))) =>
            {
                for (index, one) in elements.iter().enumerate() {
                    if let Value::Table(table) = &one.value {
                        leaves(table, &format!("{key}."), Some(index + 1), found);
                    }
                }
            }
            _ => found.push(Leaf {
                key,
                element,
                place: entry.value.place.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[(&str, &str)]) -> Vec<SourceText> {
        let text = |(path, text): &(&str, &str)| SourceText {
            path: path.into(),
            text: (*text).to_owned(),
        };
        texts.iter().map(text).collect()
    }

    #[test]
    fn each_value_knows_its_line_and_what_it_replaced() {
        let texts = texts(&[
            (
                "web.toml",
                "command = [\"/bin/true\"]\nenvironment = { A = \"1\", B = \"2\" }\n\n[resources]\nmemory = \"1G\"\n\
                 [[mount]]\ntmpfs = \"1M\"\nat = \"/a\"\n",
            ),
            (
                "web.toml.d/10.toml",
                "environment.B = \"3\"\nbroken =\n[resources]\nmemory = 5\n[[mount]]\ntmpfs = \"2M\"\nat = \"/b\"\n",
            ),
        ]);
        let found: Vec<String> = written(&texts)
            .into_iter()
            .map(|one| {
                let element = one
                    .element
                    .map_or(String::new(), |number| format!(" {number}"));
                let holds = if one.holds { "" } else { " replaced" };
                let file = one.file.display();
                format!(
                    "{}{element} {} {file}:{}{holds}",
                    one.key, one.value, one.line
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                "command [\"/bin/true\"] web.toml:1",
                "environment.A \"1\" web.toml:2",
                "environment.B \"3\" web.toml.d/10.toml:1",
                "environment.B \"2\" web.toml:2 replaced",
                "mount.at 1 \"/a\" web.toml:8",
                "mount.at 2 \"/b\" web.toml.d/10.toml:7",
                "mount.tmpfs 1 \"1M\" web.toml:7",
                "mount.tmpfs 2 \"2M\" web.toml.d/10.toml:6",
                "resources.memory 5 web.toml.d/10.toml:4",
                "resources.memory \"1G\" web.toml:5 replaced",
            ]
        );
    }
}
