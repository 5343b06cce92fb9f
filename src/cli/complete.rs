//! `boxctl complete`: what may come next on a command line, for the completion scripts of shells.
//!
//! The scripts know nothing; the command line as clap reads it is asked here, so that nothing is said twice, and a shell
//! sees the boxes there are at that moment. A line is a candidate, a tab and a word about it; `:files` and `:folders` say
//! that a path may stand here too.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Arg, Command, CommandFactory as _, ValueHint};

use super::arguments::Arguments;
use super::terminal::{harmless, say};
use super::{Error, set};
use crate::definition::{self, Definition, Layers, keys};
use crate::running;

/// From so many definitions on, they are not read for their descriptions: a completion has to come at once.
const MANY: usize = 100;

/// What the settings of `boxctl set` are called.
const SETTING: &str = "KEY=VALUE";

/// Says what may stand in the place of the last of these words, which follow `boxctl`.
pub fn complete(words: &[String]) -> Result<ExitCode, Error> {
    let boxes = Boxes::read(&Layers::system());
    let mut text = String::new();
    for candidate in candidates(words, &boxes) {
        text += &candidate;
        text.push('\n');
    }
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The boxes there are.
#[derive(Debug, Default)]
struct Boxes {
    /// Name and description.
    defined: Vec<(String, String)>,
    /// Those that run, as far as the caller may see it.
    running: Option<BTreeSet<String>>,
}

impl Boxes {
    fn read(layers: &Layers) -> Boxes {
        let listed = definition::list(layers).unwrap_or_default();
        let few = listed.len() <= MANY;
        let defined = listed
            .into_iter()
            .filter(|listed| !listed.masked)
            .filter_map(|listed| listed.name.ok())
            .flat_map(|name| {
                let described = few.then(|| definition::load(&name, layers).ok()).flatten();
                let boxes = described
                    .as_ref()
                    .map(Definition::boxes)
                    .unwrap_or_default();
                let description = described.and_then(|definition| definition.description);
                let description = description.unwrap_or_default();
                let instances = boxes.into_iter().filter(|name| name.instance().is_some());
                std::iter::once(name)
                    .chain(instances)
                    .map(move |name| (name.to_string(), description.clone()))
            })
            .collect();
        let running = running::names()
            .ok()
            .map(|names| names.into_iter().map(String::from).collect());
        Boxes { defined, running }
    }

    /// Those a command can do something to, without those that are named already.
    fn of(&self, command: &str, named: &[&str]) -> Vec<(String, String)> {
        let mut all = self.defined.clone();
        for name in self.running.iter().flatten() {
            if !all.iter().any(|(known, _)| known == name) {
                all.push((name.clone(), String::new()));
            }
        }
        all.sort();
        // All instances run as soon as one does, for who may mean them all.
        let runs = |name: &str| {
            let is = |running: &BTreeSet<String>| {
                let one = format!("{name}:");
                running.contains(name) || running.iter().any(|other| other.starts_with(&one))
            };
            self.running.as_ref().map(is)
        };
        let has_all_running = |name: &str| {
            let one = format!("{name}:");
            let mut instances = self
                .defined
                .iter()
                .filter(|(known, _)| known.starts_with(&one));
            let running = self.running.as_ref();
            let waits = |known: &str| running.is_none_or(|running| !running.contains(known));
            runs(name) == Some(true) && !instances.any(|(known, _)| waits(known))
        };
        all.retain(|(name, _)| {
            let fits = match command {
                "start" => !has_all_running(name),
                // What concerns the definition concerns all instances.
                "edit" | "set" | "enable" | "disable" | "new" => !name.contains(':'),
                "stop" | "reload" | "pause" | "resume" | "kill" | "exec" | "shell" | "attach"
                | "stats" | "wait" => runs(name) != Some(false),
                _ => true,
            };
            fits && !named.contains(&name.as_str())
        });
        all
    }
}

fn candidates(words: &[String], boxes: &Boxes) -> Vec<String> {
    let mut whole = Arguments::command();
    // Only then it knows how many values an argument takes.
    whole.build();
    let Some((current, before)) = words.split_last() else {
        return Vec::new();
    };
    let mut line = Line::new(&whole);
    for word in before {
        line.take(word);
    }
    line.complete(current, boxes)
}

/// A command line as far as it is written.
struct Line<'a> {
    whole: &'a Command,
    command: Option<&'a Command>,
    positionals: Vec<String>,
    /// An option whose value comes next.
    waiting: Option<&'a Arg>,
    /// Behind `--`.
    plain: bool,
    /// Behind a word `=`, as bash parts `memory=1G`.
    valued: bool,
}

impl<'a> Line<'a> {
    fn new(whole: &'a Command) -> Line<'a> {
        Line {
            whole,
            command: None,
            positionals: Vec::new(),
            waiting: None,
            plain: false,
            valued: false,
        }
    }

    fn take(&mut self, word: &str) {
        self.valued = word == "=";
        if self.valued {
            // bash parts `--color=` into three words: the value still comes.
            return;
        }
        if self.waiting.take().is_some() {
            return;
        }
        let passes_on = self.passes_on();
        match word {
            "--" if !self.plain => self.plain = true,
            option if option.starts_with('-') && option != "-" && !self.plain && !passes_on => {
                if !option.contains('=') {
                    self.waiting = self.option(option).filter(|option| waits(option));
                }
            }
            word => match self.command {
                None => self.command = self.whole.find_subcommand(word),
                Some(_) => self.positionals.push(word.to_owned()),
            },
        }
    }

    /// A command that is passed on has options of its own.
    fn passes_on(&self) -> bool {
        self.positional().is_some_and(Arg::is_trailing_var_arg_set)
    }

    /// The option of this spelling: the last of short ones written together.
    fn option(&self, word: &str) -> Option<&'a Arg> {
        let all = self
            .command
            .into_iter()
            .chain([self.whole])
            .flat_map(Command::get_arguments);
        let long = word.strip_prefix("--");
        let short = word.chars().next_back();
        all.filter(|argument| match long {
            Some(long) => argument.get_long() == Some(long),
            None => short.is_some() && argument.get_short() == short,
        })
        .find(|argument| !argument.is_positional())
    }

    /// What the next word that is no option is.
    fn positional(&self) -> Option<&'a Arg> {
        let all: Vec<&Arg> = self.command?.get_positionals().collect();
        let last = all.last().copied();
        let many = |argument: &&Arg| {
            argument
                .get_num_args()
                .is_some_and(|number| number.max_values() > 1)
        };
        all.get(self.positionals.len())
            .copied()
            .or(last.filter(many))
    }

    fn complete(&self, current: &str, boxes: &Boxes) -> Vec<String> {
        let (valued, current) = match current {
            "=" => (true, ""),
            current => (self.valued || current.contains('='), current),
        };
        if let Some(option) = self.waiting {
            return self.values(option, "", current, boxes);
        }
        let plain = self.plain || self.passes_on();
        if !plain
            && let Some((option, value)) = current.split_once('=')
            && option.starts_with("--")
            && let Some(argument) = self.option(option)
        {
            return self.values(argument, &format!("{option}="), value, boxes);
        }
        if current.starts_with('-') && !plain {
            return self.options(current);
        }
        match self.command {
            None if self.plain => Vec::new(),
            None => self
                .whole
                .get_subcommands()
                .filter(|command| !command.is_hide_set() && command.get_name().starts_with(current))
                .map(|command| {
                    let about = command.get_about().map(ToString::to_string);
                    candidate("", command.get_name(), &about.unwrap_or_default())
                })
                .collect(),
            Some(_) => match self.positional() {
                // What a key may be, `boxctl explain` says at length.
                Some(argument) if valued && kind(argument) == SETTING => Vec::new(),
                Some(argument) => self.values(argument, "", current, boxes),
                None => Vec::new(),
            },
        }
    }

    fn options(&self, current: &str) -> Vec<String> {
        // A command has the global ones too, once it is built.
        self.command
            .unwrap_or(self.whole)
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter_map(|argument| {
                let long = format!("--{}", argument.get_long()?);
                let help = argument.get_help().map(ToString::to_string);
                long.starts_with(current)
                    .then(|| candidate("", &long, &help.unwrap_or_default()))
            })
            .collect()
    }

    /// What may be a value, each behind `prefix`.
    fn values(&self, argument: &Arg, prefix: &str, current: &str, boxes: &Boxes) -> Vec<String> {
        let command = self.command.map_or("", Command::get_name);
        let kind = kind(argument);
        let mut found: Vec<(String, String)> = Vec::new();
        for word in kind.split('|') {
            match word {
                "NAME" => {
                    let named: Vec<&str> = self.positionals.iter().map(String::as_str).collect();
                    found.extend(boxes.of(command, &named));
                }
                SETTING => found.extend(set::words()),
                "KEY" => found.extend(keys().into_iter().map(|key| (key.path, key.doc))),
                "SIGNAL" => found.extend(
                    nix::sys::signal::Signal::iterator()
                        .map(|signal| (signal.as_str().to_owned(), String::new())),
                ),
                _ => {}
            }
        }
        if argument.get_id() == "color" {
            found.extend(["auto", "always", "never"].map(|word| (word.to_owned(), String::new())));
        }
        let mut result: Vec<String> = found
            .iter()
            .filter(|(value, _)| value.starts_with(current))
            .map(|(value, about)| candidate(prefix, value, about))
            .collect();
        if prefix.is_empty() {
            match argument.get_value_hint() {
                ValueHint::DirPath => result.push(":folders".to_owned()),
                _ if kind.split('|').any(|word| word == "FILE") => result.push(":files".to_owned()),
                _ => {}
            }
        }
        result
    }
}

/// What the value of an argument is called.
fn kind(argument: &Arg) -> String {
    argument
        .get_value_names()
        .and_then(|names| names.first())
        .map_or(String::new(), ToString::to_string)
}

/// Whether an option's value is the next word.
fn waits(option: &Arg) -> bool {
    option.get_action().takes_values() && !option.is_require_equals_set()
}

fn candidate(prefix: &str, value: &str, about: &str) -> String {
    match about.is_empty() {
        true => format!("{prefix}{value}"),
        false => format!("{prefix}{value}\t{}", harmless(about)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes() -> Boxes {
        let defined = |name: &str, description: &str| (name.to_owned(), description.to_owned());
        Boxes {
            defined: vec![defined("db", "Orders"), defined("web", "Shop\tfront\u{1b}")],
            running: Some(["web".to_owned(), "try".to_owned()].into()),
        }
    }

    fn after(words: &str) -> Vec<String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        candidates(&words, &boxes())
            .iter()
            .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn commands_options_and_live_boxes_are_offered() {
        assert_eq!(after("sta"), ["start", "status", "stats"]);
        assert!(
            !after("").contains(&"complete".to_owned()),
            "it is for scripts alone"
        );
        assert_eq!(after("start "), ["db"]);
        assert_eq!(after("stop "), ["try", "web"]);
        assert_eq!(after("stop web "), ["try"]);
        assert_eq!(after("status w"), ["web"]);
        assert_eq!(after("status --j"), ["--json"]);
        assert_eq!(after("status --json d"), ["db"]);
        assert_eq!(after("logs -n 5 --since today w"), ["web"]);
        assert!(after("logs -n ").is_empty(), "a number");
        assert_eq!(after("kill -s SIGUS"), ["SIGUSR1", "SIGUSR2"]);
        assert_eq!(after("--color a"), ["auto", "always"]);
        assert_eq!(after("--color=a"), ["--color=auto", "--color=always"]);
        assert_eq!(after("--color = a"), ["auto", "always"], "as bash parts it");
        assert_eq!(
            after("explain resources.mem"),
            [
                "resources.memory",
                "resources.memory-high",
                "resources.memory-swap"
            ]
        );
        assert_eq!(after("explain memory d"), ["db"]);
        assert_eq!(after("set w"), ["web"]);
        assert_eq!(
            after("set web mem"),
            ["memory=", "memory-high=", "memory-swap="]
        );
        assert_eq!(after("set web cpu = 2 restart.p"), ["restart.policy="]);
        for value in ["memory=", "memory =", "memory = 1"] {
            assert!(after(&format!("set web {value}")).is_empty(), "{value}");
        }
        assert_eq!(after("run d"), ["db", ":files"]);
        assert_eq!(after("new --root /s"), [":folders"]);
    }

    #[test]
    fn instances_are_offered_with_the_name_of_all() {
        let named = |name: &str| (name.to_owned(), String::new());
        let mut boxes = Boxes {
            defined: ["web", "web:1", "web:2"].map(named).to_vec(),
            running: Some(["web:2".to_owned()].into()),
        };
        let after = |command: &str, boxes: &Boxes| -> Vec<String> {
            let found = boxes.of(command, &[]);
            found.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(after("start", &boxes), ["web", "web:1"]);
        assert_eq!(after("stop", &boxes), ["web", "web:2"]);
        assert_eq!(after("edit", &boxes), ["web"]);
        assert_eq!(after("status", &boxes), ["web", "web:1", "web:2"]);
        boxes.running = Some(["web:1".to_owned(), "web:2".to_owned()].into());
        assert!(after("start", &boxes).is_empty());
    }

    #[test]
    fn what_is_passed_on_to_a_box_is_its_own_affair() {
        assert_eq!(after("exec w"), ["web"]);
        assert!(after("exec web ls -").is_empty());
        assert!(after("exec web -- l").is_empty());
        assert!(after("no-such-command x").is_empty());
        assert!(candidates(&[], &boxes()).is_empty());
    }

    #[test]
    fn a_description_is_one_word_for_the_shell() {
        let words = ["stop".to_owned(), "w".to_owned()];
        let lines = candidates(&words, &boxes());
        assert_eq!(lines, ["web\tShop    front\\u{1b}"]);
    }
}
