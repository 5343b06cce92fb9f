//! The units, and what the generator makes of every definition of the golden folders, as systemd reads them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boxd::definition::{SourceText, understand};
use boxd::generator::{drop_in, socket_unit};
use boxd::name::Name;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Names and texts of all definitions, good and bad.
fn definitions() -> Vec<(Name, String)> {
    let mut found = Vec::new();
    for folder in fs::read_dir(repository("tests/plans")).expect("tests/plans") {
        let path = folder.expect("a folder").path();
        let Ok(text) = fs::read_to_string(path.join("definition.toml")) else {
            continue;
        };
        let name = path.file_name().expect("a name").to_string_lossy();
        found.push((name.parse().expect("a folder named like a box"), text));
    }
    found
}

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    let place = tempfile::tempdir().expect("temporary directory");
    let at = |path: &str| place.path().join(path);
    let template = fs::read_to_string(repository("units/box@.service")).expect("the template");
    // The programs are not installed where the tests run.
    let template = template.replace("=/usr/bin/boxd ", "=/bin/true ");
    fs::write(at("box@.service"), template).expect("the template");
    let cleaner = fs::read_to_string(repository("units/box-clean@.service")).expect("the cleaner");
    let cleaner = cleaner.replace("=/usr/bin/boxd ", "=/bin/true ");
    fs::write(at("box-clean@.service"), cleaner).expect("the cleaner");
    fs::copy(repository("units/box.slice"), at("box.slice")).expect("the slice");
    let definitions = definitions();
    assert!(definitions.len() >= 10);
    let mut command = Command::new("systemd-analyze");
    command
        .args(["verify", "--man=no", "--recursive-errors=yes"])
        .arg(at("box.slice"))
        .arg(at("box-clean@web.service"))
        .env(
            "SYSTEMD_UNIT_PATH",
            format!(
                "{}:/lib/systemd/system:/usr/lib/systemd/system",
                place.path().display()
            ),
        )
        .stdin(Stdio::null());
    for (name, text) in &definitions {
        let source = SourceText {
            path: format!("/etc/boxd/{name}.toml").into(),
            text: text.clone(),
        };
        let (definition, _) = understand(name, &[source]);
        let directory = at(&format!("{}.d", name.unit()));
        fs::create_dir(&directory).expect("a directory");
        fs::write(
            directory.join("50-boxd.conf"),
            drop_in(name, Some(&definition), &|_| false),
        )
        .expect("a drop-in");
        command.arg(at(&name.unit()));
        for (index, socket) in definition.sockets.iter().enumerate() {
            if !socket.listen.is_empty() {
                let unit = at(&definition.socket_units()[index]);
                fs::write(&unit, socket_unit(&definition, index, socket)).expect("a socket unit");
                command.arg(unit);
            }
        }
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("units cannot be verified: systemd-analyze: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| {
            line.contains("box@")
                || line.contains("box-clean@")
                || line.contains(".socket")
                || line.contains("box.slice")
                || line.contains("50-boxd")
        })
        .collect();
    assert!(ours.is_empty(), "{}", ours.join("\n"));
}
