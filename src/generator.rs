//! Turns definitions into what systemd must know before it starts a box: for each a drop-in for its
//! `box@NAME.service` with ordering, requirements, restart policy and timeouts, and a link for start at boot; for one
//! with instances that of each, and a target that starts and stops all.
//! systemd.generator(7).
//!
//! A box never silently vanishes: a definition with problems gets its unit too, with what of it can be
//! understood, and `boxd run` then fails with the problems. And a generator never stops a boot: what goes wrong
//! with one box is reported, and the others are done.

mod log;
mod unit_text;

pub use log::log;
pub use unit_text::{drop_in, socket_unit, target};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::definition::{
    self, Address, BadName, Definition, Layers, Listed, LoadError, Socket, SourceText,
};
use crate::generation::{self, Counts, Entries, Entry, Found, NotInForce, Notice, Store};
use crate::host::real_path;
use crate::name::Name;
use crate::plan::exposure::{self, Exposure};

/// Name of the drop-in. 50 leaves room for an operator's before and after it.
pub const DROP_IN: &str = "50-boxd.conf";

/// Where systemd has what it got from its generators; systemd.generator(7).
const GENERATED: &str = "/run/systemd/generator";

/// Where units are made to be compared with those. No box has a name with a dot.
const COMPARISON: &str = "/run/boxd/.units";

/// What all boxes' units are instances of.
const TEMPLATE: &str = "box@.service";

/// What is not of one box, but of all instances of a definition: `box-NAME.target`.
const TARGETS: [&str; 2] = ["box-", ".target"];

/// Where systemd looks for units of an operator or a package, first match wins; systemd.unit(5).
const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Something that went wrong with one box, or with finding them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The definitions could not be listed.
    #[error("cannot make the units of boxes: {0}")]
    List(#[source] LoadError),
    /// A file in a definition directory is none.
    #[error(transparent)]
    Name(BadName),
    /// The definition could not be read at all.
    #[error("box {name} has a unit that will fail to start: {source}")]
    Load {
        /// The box.
        name: Name,
        /// Why.
        source: LoadError,
    },
    /// The definition has problems.
    #[error(
        "box {name} has a unit that will fail to start: its definition has problems, which \"boxctl check\" shows"
    )]
    Broken {
        /// The box.
        name: Name,
    },
    /// The definition in force is not what the files say.
    #[error("box {name} {}", notice.sentence())]
    Kept {
        /// The box.
        name: Name,
        /// Why.
        notice: Notice,
    },
    /// Which definitions are in force could not be read.
    #[error("the boxes have units by what their files say, whatever was put back or rolled back: {}", .0.in_full())]
    Generations(#[source] generation::Error),
    /// Which definitions are in force cannot be known yet.
    #[error(
        "the boxes have units by what their files say, whatever was put back or rolled back: /var/lib/boxd is not there yet; once it is, systemctl daemon-reload tells systemd"
    )]
    TooEarly,
    /// Somebody listens there whom the host trusts, and the definition does not say that it is meant.
    #[error(
        "box {name} has no socket at {path}, which {exposure}; listen at another path, or add sensitive = true to its [[socket]]",
        path = path.display()
    )]
    Sensitive {
        /// The box.
        name: Name,
        /// Where.
        path: PathBuf,
        /// What it is.
        exposure: Exposure,
    },
    /// A unit file could not be written.
    #[error("cannot write {path} for box {name}: {source}", path = path.display())]
    Write {
        /// The box.
        name: Name,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether systemd knows what this definition says of ordering, requirements, restarts and timeouts: it learns that
/// from what the generator has written, and the generator runs at boot and at daemon-reload.
pub fn is_known(definition: &Definition) -> bool {
    is_known_in(definition, Path::new(GENERATED))
}

fn is_known_in(definition: &Definition, generated: &Path) -> bool {
    let name = &definition.name;
    if definition.is_of_all() {
        let known = fs::read_to_string(generated.join(name.target()));
        return known.is_ok_and(|known| settings(&known).eq(settings(&target(definition))));
    }
    let path = generated.join(format!("{}.d", name.unit())).join(DROP_IN);
    let has_instances = |name: &Name| generated.join(name.target()).exists();
    let known = match fs::read_to_string(path) {
        Ok(text) => text,
        // The template does for a box what it does for one whose definition says nothing of this.
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.instance().is_none() => {
            let (silent, _) = definition::understand(name, &[]);
            drop_in(name, Some(&silent), &has_instances)
        }
        Err(_) => return false,
    };
    settings(&known).eq(settings(&drop_in(name, Some(definition), &has_instances)))
}

/// What of a drop-in systemd acts on.
fn settings(drop_in: &str) -> impl Iterator<Item = &str> {
    let told = ["Description=", "SourcePath="];
    drop_in
        .lines()
        .filter(move |line| !told.iter().any(|key| line.starts_with(key)))
}

/// Writes the units of all boxes into a directory as systemd gives one to its generators, and returns everything that
/// went wrong. Each is as the definition in force says.
pub fn generate(layers: &Layers, store: &Store, output: &Path) -> Vec<Error> {
    let (kept, unasked) = match store.entries() {
        Ok(kept) => (kept, None),
        Err(error) => (None, Some(Error::Generations(error))),
    };
    let mut errors = generate_by(layers, kept, output);
    if !store.is_there() && definition::list(layers).is_ok_and(|listed| !listed.is_empty()) {
        errors.push(Error::TooEarly);
    }
    errors.extend(unasked);
    errors
}

/// Whether systemd has other units of boxes than these definitions make, and must be reloaded.
///
/// # Errors
///
/// They cannot be made, for comparison, below `/run/boxd`.
pub fn is_stale(layers: &Layers, store: &Store) -> io::Result<bool> {
    let output = Path::new(COMPARISON);
    let attempt = || {
        match fs::remove_dir_all(output) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(output)?,
        }
        let _ = generate(layers, store, output);
        Ok(units_in(output)? != units_in(Path::new(GENERATED))?)
    };
    let result = attempt();
    let _ = fs::remove_dir_all(output);
    result
}

/// Every file and link of a box below a directory of units, with what it holds.
fn units_in(directory: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut units = BTreeMap::new();
    for folder in [
        directory.to_owned(),
        directory.join("multi-user.target.wants"),
        directory.join("sockets.target.wants"),
    ] {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let [start, end] = TARGETS;
            let is_target = name.starts_with(start) && name.ends_with(end);
            if !name.starts_with("box@") && !is_target {
                continue;
            }
            let kind = entry.file_type()?;
            let (path, content) = if kind.is_dir() {
                let path = entry.path().join(DROP_IN);
                // A directory of somebody else's drop-ins.
                let Ok(content) = fs::read(&path) else {
                    continue;
                };
                (path, content)
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                (entry.path(), target.as_os_str().as_encoded_bytes().to_vec())
            } else {
                (entry.path(), fs::read(entry.path())?)
            };
            let path = path.strip_prefix(directory).unwrap_or(&path).to_owned();
            units.insert(path, content);
        }
    }
    Ok(units)
}

/// Boxes that a generation keeps although no file of theirs is there.
fn without_files(boxes: &BTreeMap<Name, Entry>, listed: &[Listed]) -> Vec<Listed> {
    let known: BTreeSet<&Name> = listed
        .iter()
        .filter_map(|file| file.name.as_ref().ok())
        .collect();
    let kept = boxes
        .iter()
        .filter(|(name, entry)| entry.definition.is_some() && !known.contains(name));
    kept.map(|(name, _)| Listed {
        name: Ok(name.clone()),
        path: PathBuf::new(),
        masked: false,
    })
    .collect()
}

fn generate_by(layers: &Layers, kept: Option<(Counts, Entries)>, output: &Path) -> Vec<Error> {
    let listed = match definition::list(layers) {
        Ok(listed) => listed,
        Err(error) => return vec![Error::List(error)],
    };
    let template = template();
    let mut errors = Vec::new();
    // Where none can be read, as on a host whose /var comes late, the files count.
    let (counts, boxes) = kept.map_or((None, BTreeMap::new()), |(counts, boxes)| {
        (Some(counts), boxes)
    });
    let mut listed: Vec<_> = listed.into_iter().filter(|file| !file.masked).collect();
    listed.extend(without_files(&boxes, &listed));
    let mut found = Vec::new();
    for file in listed {
        let name = match file.name {
            Ok(name) => name,
            Err(source) => {
                errors.push(Error::Name(BadName {
                    path: file.path,
                    source,
                }));
                continue;
            }
        };
        let files = Found::read(&name, layers);
        let entry = counts.zip(boxes.get(&name));
        let understood = match files.in_force(&name, entry) {
            Ok(in_force) => {
                errors.extend(in_force.notice.map(|notice| Error::Kept {
                    name: name.clone(),
                    notice,
                }));
                Some((in_force.definition, in_force.texts))
            }
            // As if there were none.
            Err(
                NotInForce::Hidden { .. }
                | NotInForce::Load(LoadError::Find { .. } | LoadError::Masked { .. }),
            ) => continue,
            Err(NotInForce::Load(_)) => understood(&name, layers, &mut errors),
        };
        found.push((name, understood));
    }
    let several: BTreeSet<Name> = found
        .iter()
        .filter(|(_, understood)| matches!(understood, Some((one, _)) if one.is_of_all()))
        .map(|(name, _)| name.clone())
        .collect();
    let has_instances = |name: &Name| several.contains(name);
    for (name, understood) in found {
        match understood {
            None => errors.extend(write(&name, None, &template, output, &has_instances).err()),
            Some((all, texts)) if all.is_of_all() => {
                errors.extend(write_target(&all, output).err());
                for name in all.boxes() {
                    // What is wrong with it has been told.
                    let (one, _) = definition::understand(&name, &texts);
                    errors.extend(write_box(&one, &template, output, &has_instances));
                }
            }
            Some((one, _)) => errors.extend(write_box(&one, &template, output, &has_instances)),
        }
    }
    errors
}

/// The definition as far as it can be understood; what is wrong with it goes to `errors`.
fn understood(
    name: &Name,
    layers: &Layers,
    errors: &mut Vec<Error>,
) -> Option<(Definition, Vec<SourceText>)> {
    let name = name.clone();
    match definition::texts(&name, layers) {
        Ok(texts) => {
            let (definition, wrong) = definition::understand(&name, &texts);
            errors.extend(wrong.map(|_| Error::Broken { name }));
            Some((definition, texts))
        }
        Err(source) => {
            errors.push(Error::Load { name, source });
            None
        }
    }
}

/// Writes the units of a box: of its service and its sockets.
fn write_box(
    definition: &Definition,
    template: &Path,
    output: &Path,
    has_instances: &dyn Fn(&Name) -> bool,
) -> Vec<Error> {
    let name = &definition.name;
    let written = write(name, Some(definition), template, output, has_instances);
    let mut errors = Vec::from_iter(written.err());
    errors.extend(write_sockets(definition, output));
    errors
}

/// Writes what starts and stops all instances of a definition.
fn write_target(all: &Definition, output: &Path) -> Result<(), Error> {
    let unit = all.name.target();
    let failed = |path: &Path| {
        let (name, path) = (all.name.clone(), path.to_owned());
        move |source| Error::Write { name, path, source }
    };
    let path = output.join(&unit);
    fs::write(&path, target(all)).map_err(failed(&path))?;
    if all.start_at_boot {
        let wants = output.join("multi-user.target.wants");
        fs::create_dir_all(&wants).map_err(failed(&wants))?;
        let link = wants.join(&unit);
        symlink(Path::new("..").join(&unit), &link).map_err(failed(&link))?;
    }
    Ok(())
}

fn write(
    name: &Name,
    definition: Option<&Definition>,
    template: &Path,
    output: &Path,
    has_instances: &dyn Fn(&Name) -> bool,
) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write {
            name: name.clone(),
            path,
            source,
        }
    };
    let directory = output.join(format!("{}.d", name.unit()));
    fs::create_dir_all(&directory).map_err(failed(&directory))?;
    let path = directory.join(DROP_IN);
    fs::write(&path, drop_in(name, definition, has_instances)).map_err(failed(&path))?;
    // One with sockets is started by them, and an instance by what starts all.
    let starts = |definition: &Definition| {
        definition.start_at_boot && definition.sockets.is_empty() && name.instance().is_none()
    };
    if definition.is_some_and(starts) {
        let directory = output.join("multi-user.target.wants");
        fs::create_dir_all(&directory).map_err(failed(&directory))?;
        let path = directory.join(name.unit());
        symlink(template, &path).map_err(failed(&path))?;
    }
    Ok(())
}

/// Writes the units of a box's sockets. One that cannot listen at any of its addresses has none.
fn write_sockets(definition: &Definition, output: &Path) -> Vec<Error> {
    let name = &definition.name;
    let mut errors = Vec::new();
    let units = definition.socket_units();
    for (index, (socket, unit)) in definition.sockets.iter().zip(units).enumerate() {
        if socket.listen.is_empty() {
            continue;
        }
        if let Some((path, exposure)) = exposed(socket) {
            errors.push(Error::Sensitive {
                name: name.clone(),
                path,
                exposure,
            });
            continue;
        }
        let path = output.join(&unit);
        let wants = output.join("sockets.target.wants");
        let text = socket_unit(definition, index, socket);
        let mut result = fs::write(&path, text).map_err(|source| (path, source));
        if result.is_ok() && definition.start_at_boot {
            let link = wants.join(&unit);
            result = fs::create_dir_all(&wants)
                .and_then(|()| symlink(Path::new("..").join(&unit), &link))
                .map_err(|source| (link, source));
        }
        errors.extend(result.err().map(|(path, source)| Error::Write {
            name: name.clone(),
            path,
            source,
        }));
    }
    errors
}

/// systemd would listen there before any plan is made: what a plan refuses must not come to a unit.
fn exposed(socket: &Socket) -> Option<(PathBuf, Exposure)> {
    socket
        .listen
        .iter()
        .filter(|_| !socket.sensitive)
        .find_map(|listen| {
            let Address::Unix(path) = &listen.address else {
                return None;
            };
            let exposure = exposure::of_socket(path, &real_path(path))?;
            Some((path.clone(), exposure))
        })
}

fn template() -> PathBuf {
    UNIT_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(TEMPLATE))
        .find(|path| path.exists())
        .unwrap_or_else(|| Path::new("/usr/lib/systemd/system").join(TEMPLATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        root: tempfile::TempDir,
    }

    impl Place {
        fn new(files: &[(&str, &str)]) -> Place {
            let root = tempfile::tempdir().expect("temporary directory");
            for (path, text) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
                fs::write(path, text).expect("file");
            }
            Place { root }
        }

        fn output(&self) -> PathBuf {
            self.root.path().join("output")
        }

        fn generate(&self) -> Vec<String> {
            fs::create_dir_all(self.output()).expect("output");
            let store = Store::at(&self.root.path().join("generations"));
            generate(&Layers::under(self.root.path()), &store, &self.output())
                .iter()
                .map(ToString::to_string)
                .collect()
        }

        fn drop_in(&self, name: &str) -> String {
            let path = format!("box@{name}.service.d/50-boxd.conf");
            fs::read_to_string(self.output().join(path)).expect("a drop-in")
        }

        fn starts_at_boot(&self, name: &str) -> bool {
            let path = format!("multi-user.target.wants/box@{name}.service");
            let target = fs::read_link(self.output().join(path));
            target.is_ok_and(|target| target.ends_with("box@.service"))
        }
    }

    #[test]
    fn every_definition_of_every_layer_gets_its_unit() {
        let place = Place::new(&[
            (
                "etc/boxd/web.toml",
                "command = ['/bin/true']\nstart-at-boot = true\nafter = ['db', 'nss-lookup.target']\n\
                 requires = ['db']\n",
            ),
            ("usr/lib/boxd/db.toml", "command = ['/bin/true']\n"),
            (
                "run/boxd/definitions/web.toml.d/10.toml",
                "[restart]\npolicy = 'always'\n",
            ),
            ("etc/boxd/gone.toml", ""),
        ]);
        assert_eq!(place.generate(), Vec::<String>::new());
        let web = place.drop_in("web");
        assert!(
            web.contains("\nAfter=box@db.service nss-lookup.target\n"),
            "{web}"
        );
        assert!(web.contains("\nRequires=box@db.service\n"), "{web}");
        assert!(web.contains("\nRestart=always\n"), "{web}");
        assert!(place.starts_at_boot("web") && !place.starts_at_boot("db"));
        assert!(place.drop_in("db").contains("\nDescription=Box db\n"));
        assert!(!place.output().join("box@gone.service.d").exists());
    }

    #[test]
    fn a_definition_is_known_as_it_was_when_the_generator_ran() {
        let place = Place::new(&[("etc/boxd/web.toml", "command = ['/bin/true']\n")]);
        let known = || {
            let layers = Layers::under(place.root.path());
            let definition = definition::load(&"web".parse().expect("a name"), &layers);
            is_known_in(&definition.expect("a definition"), &place.output())
        };
        let add = |path: &str, text: &str| {
            let path = place.root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
            fs::write(path, text).expect("file");
        };
        assert!(known(), "nothing to be known");
        let ordered = "command = ['/bin/true']\nafter = ['db']\n";
        add("etc/boxd/web.toml", ordered);
        assert!(!known());
        place.generate();
        assert!(known());
        // What systemd has no part in is in force with the next start.
        add(
            "etc/boxd/web.toml",
            "description = 'Web'\ncommand = ['/bin/false']\nafter = ['db']\n[resources]\nmemory = '1G'\n",
        );
        assert!(known());
        add(
            "run/boxd/definitions/web.toml.d/10.toml",
            "[restart]\npolicy = 'always'\n",
        );
        assert!(!known());
        place.generate();
        assert!(known());
    }

    #[test]
    fn a_broken_definition_keeps_its_unit_and_what_can_be_understood() {
        let place = Place::new(&[
            (
                "etc/boxd/web.toml",
                "comand = ['/bin/true']\nstart-at-boot = true\nrequires = ['db']\n",
            ),
            ("etc/boxd/torn.toml", "start-at-boot = true\ncommand = [\n"),
            ("etc/boxd/db.toml", "command = ['/bin/true']\n"),
        ]);
        let errors = place.generate();
        assert_eq!(errors.len(), 2, "{errors:#?}");
        assert!(errors.iter().all(|error| error.contains("boxctl check")));
        assert!(place.starts_at_boot("web") && place.starts_at_boot("torn"));
        assert!(place.drop_in("web").contains("\nRequires=box@db.service\n"));
        place.drop_in("db");
    }

    #[test]
    fn sockets_are_units_of_their_own_and_start_with_the_host_in_the_place_of_the_box() {
        let place = Place::new(&[
            (
                "etc/boxd/web.toml",
                "command = ['/bin/true']\nstart-at-boot = true\n[[socket]]\nstream = 80\n\
                 [[socket]]\nname = 'control'\nstream = '/run/web/control'\n",
            ),
            (
                "etc/boxd/torn.toml",
                "comand = ['/bin/true']\n[[socket]]\nstream = [81, '@x']\n[[socket]]\nstream = '@y'\n",
            ),
            (
                "etc/boxd/sly.toml",
                "command = ['/bin/true']\n[[socket]]\nstream = '/run/docker.sock'\n",
            ),
        ]);
        let errors = place.generate();
        assert_eq!(errors.len(), 2, "{errors:#?}");
        let sly = "box sly has no socket at /run/docker.sock, which is the socket";
        assert!(
            errors.iter().any(|error| error.starts_with(sly)),
            "{errors:#?}"
        );
        let read = |unit: &str| fs::read_to_string(place.output().join(unit)).ok();
        let first = read("box@web.socket").expect("a unit");
        assert!(
            first.contains("\nWants=box@web:control.socket\n"),
            "{first}"
        );
        let second = read("box@web:control.socket").expect("a unit");
        assert!(second.contains("\nPartOf=box@web.socket\n"), "{second}");
        let sockets = "\nSockets=box@web.socket\nSockets=box@web:control.socket\n";
        assert!(place.drop_in("web").contains(sockets));
        assert!(!place.starts_at_boot("web"));
        for unit in ["box@web.socket", "box@web:control.socket"] {
            let link = place.output().join("sockets.target.wants").join(unit);
            assert!(link.exists(), "{unit}");
        }
        // What can be understood of a broken definition goes on listening.
        let torn = read("box@torn.socket").expect("a unit");
        assert!(torn.contains("\nListenStream=81\n"), "{torn}");
        assert!(read("box@torn:2.socket").is_none() && read("box@sly.socket").is_none());
    }

    #[test]
    fn instances_have_a_unit_each_and_a_target_for_all() {
        let place = Place::new(&[
            (
                "etc/boxd/web.toml",
                "command = ['/bin/true']\ninstances = 2\nstart-at-boot = true\n",
            ),
            (
                "etc/boxd/front.toml",
                "command = ['/bin/true']\nrequires = ['web']\n",
            ),
            ("etc/boxd/web:1.toml", "command = ['/bin/true']\n"),
        ]);
        let errors = place.generate();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].contains("rename the file"), "{errors:#?}");
        let output = place.output();
        let target = fs::read_to_string(output.join("box-web.target")).expect("a target");
        let wants = "\nWants=box@web:1.service box@web:2.service\n";
        assert!(target.contains(wants), "{target}");
        let link = output.join("multi-user.target.wants/box-web.target");
        assert!(link.exists() && !place.starts_at_boot("web:1") && !place.starts_at_boot("web"));
        assert!(place.drop_in("web:2").contains("\nPartOf=box-web.target\n"));
        assert!(!output.join("box@web.service.d").exists());
        let front = place.drop_in("front");
        assert!(front.contains("\nRequires=box-web.target\n"), "{front}");
        let is_known = |name: &str| {
            let layers = Layers::under(place.root.path());
            let definition = definition::load(&name.parse().expect("a name"), &layers);
            is_known_in(&definition.expect("a definition"), &output)
        };
        assert!(["web", "web:1", "web:2", "front"].into_iter().all(is_known));
        let more = "command = ['/bin/true']\ninstances = 3\nstart-at-boot = true\n";
        fs::write(place.root.path().join("etc/boxd/web.toml"), more).expect("written");
        assert!(is_known("web:2") && !is_known("web") && !is_known("web:3"));
        assert!(
            units_in(&output)
                .expect("units")
                .keys()
                .any(|path| path.ends_with("box-web.target"))
        );
    }

    #[test]
    fn what_cannot_be_read_still_has_a_unit_and_stops_nobody() {
        let place = Place::new(&[
            ("etc/boxd/ok.toml", "command = ['/bin/true']\n"),
            ("etc/boxd/Bad_Name.toml", "command = ['/bin/true']\n"),
            ("etc/boxd/directory.toml/file", ""),
        ]);
        fs::write(
            place.root.path().join("etc/boxd/binary.toml"),
            [0xff, 0xfe, 0x00],
        )
        .expect("file");
        symlink("nowhere", place.root.path().join("etc/boxd/dangling.toml")).expect("link");
        let errors = place.generate();
        assert_eq!(errors.len(), 4, "{errors:#?}");
        for name in ["ok", "directory", "binary", "dangling"] {
            place.drop_in(name);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_reported_for_each_box() {
        let place = Place::new(&[
            ("etc/boxd/a.toml", "command = ['/bin/true']\n"),
            ("etc/boxd/b.toml", "command = ['/bin/true']\n"),
            ("output/box@a.service.d", "in the way"),
        ]);
        let errors = place.generate();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].contains("for box a"));
        place.drop_in("b");
    }
}
