//! `boxctl enable` and `disable`: whether a box starts with the host.
//!
//! `start-at-boot` of the definition is what says so, and the generator what carries it out: a link of
//! systemctl(1) would be a second truth beside it. So these write a drop-in of their own over it.

use std::process::ExitCode;

use super::files::{self, Draft};
use super::terminal::{Look, harmless, say};
use super::{Error, names, units};
use crate::definition::{self, Definition, Layers};
use crate::name::Name;
use crate::systemd::manager::Operation;
use crate::systemd::{self, Manager};

/// The drop-in. It stands late, so that it counts.
const DROP_IN: &str = "90-start-at-boot";

/// Has boxes start with the host or not, and at once if `now`.
pub fn change(texts: &[String], enable: bool, now: bool, err: Look) -> Result<ExitCode, Error> {
    let layers = Layers::system();
    let names = texts
        .iter()
        .map(|text| {
            let operation = if enable { "enable" } else { "disable" };
            let name = names::of_definition(operation, text)?;
            // All of them are looked at before one is changed.
            let definition = definition::load(&name, &layers)?;
            Ok((name, definition))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    for (name, definition) in &names {
        say(&write(name, definition, &layers, enable)?)?;
    }
    if systemd::is_running() {
        Manager::connect()?.daemon_reload()?;
    }
    if !now {
        return Ok(ExitCode::SUCCESS);
    }
    let operation = if enable {
        Operation::Start
    } else {
        Operation::Stop
    };
    units::change(operation, texts, err)
}

/// Writes or removes the drop-in; what to say of it.
fn write(
    name: &Name,
    definition: &Definition,
    layers: &Layers,
    enable: bool,
) -> Result<String, Error> {
    let starts = if enable { "starts" } else { "does not start" };
    let what = match definition.sockets.is_empty() {
        true => format!("Box {name} {starts} with the host"),
        false if enable => {
            format!("The sockets of box {name} listen from the start of the host on")
        }
        false => format!("The sockets of box {name} do not listen from the start of the host on"),
    };
    if definition.start_at_boot == enable {
        return Ok(format!("{what}, as before.\n"));
    }
    let path = files::drop_in(layers, name, DROP_IN);
    let shown = harmless(&path.display().to_string());
    // Without ours, what the other files say may be what is wanted.
    if path.exists() {
        let without = files::with(name, layers, &path, "# nothing\n")?;
        if without.start_at_boot == enable {
            files::remove(&path)?;
            return Ok(format!("{what} ({shown} is removed).\n"));
        }
    }
    let verb = if enable { "enable" } else { "disable" };
    let text = format!("# Written by `boxctl {verb} {name}`.\nstart-at-boot = {enable}\n");
    let with = files::with(name, layers, &path, &text)?;
    if with.start_at_boot != enable {
        return Err(Error::Overridden {
            name: name.clone(),
            path,
        });
    }
    Draft::of(&path, &text)?.replace()?;
    Ok(format!("{what} ({shown}).\n"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn our_drop_in_is_written_over_others_and_goes_when_it_is_not_needed() {
        let root = tempfile::tempdir().expect("a folder");
        let layers = Layers::under(root.path());
        let name: Name = "web".parse().expect("a name");
        let etc = root.path().join("etc/boxd");
        fs::create_dir_all(etc.join("web.toml.d")).expect("made");
        fs::write(etc.join("web.toml"), "command = [\"/bin/true\"]\n").expect("written");
        let change = |enable| {
            let definition = definition::load(&name, &layers).expect("a definition");
            write(&name, &definition, &layers, enable)
        };
        let starts = || {
            let definition = definition::load(&name, &layers).expect("a definition");
            definition.start_at_boot
        };
        assert!(change(false).expect("nothing to do").contains("as before"));
        change(true).expect("enabled");
        assert!(starts());
        change(false).expect("disabled");
        assert!(
            !starts() && !etc.join("web.toml.d").exists(),
            "ours is gone"
        );

        fs::write(
            etc.join("web.toml"),
            "command = [\"/bin/true\"]\nstart-at-boot = true\n",
        )
        .expect("written");
        change(false).expect("disabled");
        assert!(!starts() && etc.join("web.toml.d/90-start-at-boot.toml").exists());
        change(true).expect("enabled");
        assert!(starts() && !etc.join("web.toml.d").exists());

        fs::create_dir_all(etc.join("web.toml.d")).expect("made");
        fs::write(etc.join("web.toml.d/99.toml"), "start-at-boot = true\n").expect("written");
        let refused = change(false).expect_err("another drop-in comes later");
        assert!(matches!(refused, Error::Overridden { .. }), "{refused}");
        assert!(starts());
    }
}
