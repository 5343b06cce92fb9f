//! What is generated for people from the code: the manual pages have every command, option, key and entry, and the
//! completion of a shell that is at hand offers what the program says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxd::bus::interface;
use boxd::definition::keys;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn said(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn boxctl() -> Command {
    Command::new(env!("CARGO_BIN_EXE_boxctl"))
}

/// A text as it stands on a page.
fn on_the_page(text: &str) -> String {
    text.replace('-', "\\-")
}

#[test]
fn the_manual_has_every_command_option_key_and_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    said(
        Command::new(repository("packaging/man/make"))
            .arg(env!("CARGO_BIN_EXE_boxctl"))
            .arg(folder.path()),
    );
    let page = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name)).expect("a page");
        let left: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with('@') && line.ends_with('@'))
            .collect();
        assert!(left.is_empty(), "{name}: {left:?}");
        text
    };

    let commands = page("boxctl.1");
    let help = said(boxctl().arg("--help"));
    let (_, list) = help.split_once("Commands:\n").expect("commands");
    let mut number = 0;
    for line in list.lines().take_while(|line| !line.is_empty()) {
        let Some(name) = line
            .strip_prefix("  ")
            .filter(|line| !line.starts_with(' '))
            .and_then(|line| line.split_whitespace().next())
        else {
            continue;
        };
        number += 1;
        assert!(
            commands.contains(&format!("\n.SS {name}\n")),
            "{name} is not in boxctl(1)"
        );
        let help = said(boxctl().args([name, "--help"]));
        for option in help
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
        {
            let option = option.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let option = option.split(['=', '[']).next().unwrap_or(option);
            assert!(
                option == "--color" || commands.contains(&on_the_page(option)),
                "{name} {option} is not in boxctl(1)"
            );
        }
    }
    assert!(number > 20, "only {number} commands in:\n{help}");

    let format = page("box.toml.5");
    let (_, list) = format.split_once(".SH KEYS").expect("the keys");
    for key in keys() {
        let last = key.path.rsplit('.').next().unwrap_or_default();
        let heading = format!("\n\\fB{}\\fP = ", on_the_page(last));
        assert!(
            list.contains(&heading),
            "{} is not in box.toml(5)",
            key.path
        );
        for (peer, word) in key.peers.words() {
            let word = on_the_page(word);
            assert!(
                list.contains(&word),
                "{}: {peer} {word} is not in box.toml(5)",
                key.path
            );
        }
    }
    assert!(list.contains("Default: no limit."), "defaults are told");

    let entries = page("boxd.8");
    let catalog = fs::read_to_string(repository("packaging/boxd.catalog")).expect("the catalog");
    let ids: Vec<&str> = catalog
        .lines()
        .filter_map(|line| line.strip_prefix("-- "))
        .collect();
    assert!(ids.len() > 10);
    for id in ids {
        assert!(
            entries.contains(&format!(".B {id}\n")),
            "{id} is not in boxd(8)"
        );
    }
}

/// Every method, property and signal of the bus, with its types.
#[test]
fn the_manual_has_all_of_the_bus() {
    let page = fs::read_to_string(repository("packaging/man/org.boxd1.5")).expect("a page");
    let part = |interface: &str| {
        let heading = match interface {
            interface::MANAGER => ".SH THE HOST",
            interface::BOX => ".SH A BOX",
            _ => return None,
        };
        let (_, part) = page.split_once(heading).expect("a part");
        Some(
            part.split(".SH ")
                .next()
                .unwrap_or_default()
                .replace("\\(->", "->"),
        )
    };
    let typed = |arguments: &[interface::Argument]| {
        let typed: Vec<String> = arguments
            .iter()
            .map(|(name, kind)| format!("{kind} {name}"))
            .collect();
        typed.join(", ")
    };
    for method in interface::METHODS {
        let Some(part) = part(method.interface) else {
            continue;
        };
        let gives: Vec<&str> = method.gives.iter().map(|(_, kind)| *kind).collect();
        let gives = match gives.is_empty() {
            true => String::new(),
            false => format!(" -> {}", gives.join(", ")),
        };
        let told = format!("{} \"({}){gives}", method.name, typed(method.takes));
        assert!(part.contains(&told), "{told} is not in org.boxd1(5)");
        let heading = match method.need {
            interface::Need::Nothing => continue,
            interface::Need::Look => "for who may look",
            interface::Need::Manage => "for who may manage",
            interface::Need::Configure => "for who may configure",
        };
        let above = part.split(&told).next().unwrap_or_default();
        let last = above.rsplit("Methods ").next().unwrap_or_default();
        assert!(
            last.starts_with(heading),
            "{} is told as one for others",
            method.name
        );
    }
    for property in interface::PROPERTY {
        let Some(part) = part(property.interface) else {
            continue;
        };
        let told = format!("{} \" ({})", property.name, property.signature);
        assert!(part.contains(&told), "{told} is not in org.boxd1(5)");
    }
    for (name, arguments) in interface::SIGNALS {
        let told = format!("{name} \"({})", typed(arguments));
        let part = part(interface::MANAGER).unwrap_or_default();
        assert!(part.contains(&told), "{told} is not in org.boxd1(5)");
    }
}

/// bash is on every machine that builds the package; the scripts of the others hold nothing that could go out of date.
#[test]
fn the_completion_of_bash_offers_what_the_program_says() {
    let script = repository("packaging/completions/boxctl.bash");
    let offered = |words: &str| {
        let script = format!(
            "source \"$1\"; COMP_WORDS=(\"$2\" {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _boxctl \"$2\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        said(
            Command::new("bash")
                .args(["-c", &script, "bash"])
                .arg(repository("packaging/completions/boxctl.bash"))
                .arg(env!("CARGO_BIN_EXE_boxctl"))
                .current_dir(repository("config")),
        )
    };
    assert!(script.exists());
    assert_eq!(offered("sta"), "start\nstatus\nstats\n");
    assert_eq!(offered("status --js"), "--json\n");
    assert_eq!(offered("check ./exam"), "./example.toml\n");
    assert_eq!(offered("--color = al"), "always\n");
    assert_eq!(offered("set web resources = mem"), "\n", "a value");
    assert_eq!(offered("set web cpu-"), "cpu-weight=\n");
}
