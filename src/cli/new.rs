//! `boxctl new`: a commented definition to begin with.

use std::path::PathBuf;
use std::process::ExitCode;

use super::files::{self, Draft};
use super::terminal::{complain, harmless, say, wrap};
use super::{Error, definitions, describe, names};
use crate::cli::terminal::Look;
use crate::definition::{self, Key, Layers, LoadError, keys};
use crate::name::Name;

/// What a new definition is made of.
#[derive(Debug, Default)]
pub struct Wish {
    /// The program and its arguments; a placeholder if it is not given.
    pub command: Vec<String>,
    /// A directory with a root file system; the host's /usr if none is given.
    pub root: Option<PathBuf>,
    /// One line for people.
    pub description: Option<String>,
}

/// Writes a definition that nobody has yet, and says what comes next.
pub fn new(name: &str, wish: &Wish, err: Look) -> Result<ExitCode, Error> {
    let name = names::of_definition("define", name)?;
    let layers = Layers::system();
    let path = files::operators(&layers).join(format!("{name}.toml"));
    match definition::texts(&name, &layers) {
        Err(LoadError::Find { .. }) => {}
        Err(LoadError::Masked { path, .. }) => {
            return Err(files::Error::Exists { path, name }.into());
        }
        Err(error) => return Err(error.into()),
        Ok(texts) => {
            let path = texts.first().map_or(path, |base| base.path.clone());
            return Err(files::Error::Exists { path, name }.into());
        }
    }
    let text = text(&name, wish);
    let definition = files::with(&name, &layers, &path, &text)?;
    Draft::of(&path, &text)?.place_new(&name)?;
    say(&format!(
        "{} is written. Next:\n  boxctl edit {name}     fill it in\n  boxctl run {name}      try it in the foreground\n  boxctl start {name}\n",
        harmless(&path.display().to_string())
    ))?;
    if let Err(problem) = definitions::planned(&definition) {
        complain("\nIt cannot be started on this host as it is:\n");
        complain(&describe(&problem, err));
    }
    Ok(ExitCode::SUCCESS)
}

/// What editors with a language server for TOML complete and check by: taplo's directive, and the package's file.
const SCHEMA: &str = "#:schema file:///usr/share/boxd/box.schema.json\n\n";

/// Columns of the comments.
const WIDTH: usize = 100;

/// The keys a new definition shows, with a value that is an example: those most boxes have.
const SHOWN: [(&str, &str); 26] = [
    ("user", "\"www-data\""),
    ("working-directory", "\"/var/www\""),
    ("environment", "{ TZ = \"UTC\" }"),
    ("after", "[\"network-online.target\"]"),
    ("requires", "[\"db\"]"),
    ("start-at-boot", "true"),
    ("root.directory", "\"/srv/NAME\""),
    ("root.writes", "\"keep\""),
    ("ready.when", "\"notify\""),
    ("ready.timeout", "\"30s\""),
    ("stop.signal", "\"SIGINT\""),
    ("stop.timeout", "\"30s\""),
    ("restart.policy", "\"on-failure\""),
    ("restart.delay", "\"2s\""),
    ("health.http", "\"http://127.0.0.1:80/healthz\""),
    ("health.interval", "\"10s\""),
    ("health.on-failure", "\"restart\""),
    ("resources.memory", "\"512M\""),
    ("resources.cpu", "1.5"),
    ("resources.tasks", "512"),
    ("security.capabilities", "[\"+NET_RAW\"]"),
    ("security.users", "\"host\""),
    ("mount.bind", "\"/srv/data\""),
    ("mount.at", "\"/data\""),
    ("mount.read-only", "true"),
    ("credentials", "token = { file = \"/etc/boxd/token.cred\" }"),
];

/// The whole text. What is an example stands in comments: `#key` is a key, `# word` a word.
fn text(name: &Name, wish: &Wish) -> String {
    let keys = keys();
    let mut text = SCHEMA.to_owned();
    text += &comment(&format!(
        "The box {name}: systemd runs it as box@{name}.service. Lines that begin with \"#\" and a key are examples of what \
         may be written. All keys are in box.toml(5), and explained by `boxctl explain KEY`; `boxctl check {name}` says \
         what is wrong."
    ));
    text += "\n";
    let quoted = |text: &str| format!("{}", serde_json::Value::from(text));
    text += &format!(
        "description = {}\n",
        quoted(
            wish.description
                .as_deref()
                .unwrap_or(&format!("Box {name}"))
        )
    );
    let command: Vec<String> = match &*wish.command {
        [] => vec![quoted("/usr/bin/sleep"), quoted("infinity")],
        command => command.iter().map(|argument| quoted(argument)).collect(),
    };
    text += &format!("command = [{}]\n", command.join(", "));
    let mut table = "";
    for (path, example) in SHOWN {
        let Some(key) = keys.iter().find(|key| key.path == path) else {
            continue;
        };
        let (of, last) = path.rsplit_once('.').unwrap_or(("", path));
        let is_credentials = path == "credentials";
        let of = if is_credentials { path } else { of };
        let written = match (path, &wish.root) {
            ("root.directory", Some(root)) => Some(quoted(&root.to_string_lossy())),
            _ => None,
        };
        if of != table {
            table = of;
            let header = match of {
                "mount" => format!("[[{of}]]"),
                _ => format!("[{of}]"),
            };
            // A [[mount]] that is empty is an error, and so is a [health]: their headers are examples too.
            let active = !matches!(of, "mount" | "health");
            text += &format!("\n{}{header}\n", if active { "" } else { "#" });
        } else if of.is_empty() {
            text += "\n";
        }
        text += &comment(&about(key));
        let line = match is_credentials {
            true => example.to_owned(),
            false => format!("{last} = {}", example.replace("NAME", name.as_str())),
        };
        text += &match written {
            Some(value) => format!("{last} = {value}\n"),
            None => format!("#{line}\n"),
        };
    }
    text
}

fn about(key: &Key) -> String {
    match &*key.default {
        "" => key.doc.clone(),
        default => format!("{} Default: {default}.", key.doc),
    }
}

fn comment(text: &str) -> String {
    let mut result = String::new();
    for line in wrap(text, Some(WIDTH - 2), "").lines() {
        result += &format!("# {line}\n");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;
    use crate::definition::{SourceText, parse};

    fn read(name: &Name, text: &str) -> crate::definition::Definition {
        let source = SourceText {
            path: "/etc/boxd/web.toml".into(),
            text: text.to_owned(),
        };
        parse(name, &[source]).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn a_new_definition_is_good_and_so_is_each_of_its_examples() {
        let name: Name = "web".parse().expect("a name");
        let plain = text(&name, &Wish::default());
        let definition = read(&name, &plain);
        assert_eq!(definition.command, ["/usr/bin/sleep", "infinity"]);
        assert_eq!(definition.health, None);
        for (key, _) in SHOWN {
            assert!(
                keys().iter().any(|known| known.path == key),
                "{key} is no key"
            );
        }
        // "#key" and "#[table]" are examples, "# word" is a comment.
        let examples: Vec<String> = plain
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with([' ', ':']) => rest.to_owned(),
                _ => line.to_owned(),
            })
            .collect();
        let all = read(&name, &examples.join("\n"));
        assert!(all.health.is_some() && all.mounts.len() == 1 && !all.credentials.is_empty());
        golden::compare("new/web", &plain);
    }

    #[test]
    fn what_is_wished_for_is_written_as_it_is() {
        let name: Name = "web".parse().expect("a name");
        let wish = Wish {
            command: vec![
                "/bin/sh".to_owned(),
                "-c".to_owned(),
                "echo \"a\\b\"\n\u{1b}".to_owned(),
            ],
            root: Some("/srv/a \"b\"".into()),
            description: Some("Shop \"front\" ☃".to_owned()),
        };
        let definition = read(&name, &text(&name, &wish));
        assert_eq!(definition.command, wish.command);
        assert_eq!(definition.description, wish.description);
        assert_eq!(
            definition.root.source,
            crate::definition::RootSource::Directory("/srv/a \"b\"".into())
        );
    }
}
