//! The Container Device Interface: what a vendor says a box needs to use a device,
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>.
//!
//! Specifications are JSON files in `/etc/cdi`, and in `/var/run/cdi`, which win over the former. They are the host's
//! own: whoever writes there is root. What they ask for is still checked like what a definition asks for, and
//! programs they would have run are refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::definition::DeviceAccess;

/// Where specifications lie; a later one wins.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Most bytes of one, and most of them.
const FILE_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 256;

/// What a device needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    /// Variables of the environment.
    pub environment: Vec<(String, String)>,
    /// Device nodes.
    pub nodes: Vec<CdiNode>,
    /// Files and directories of the host.
    pub mounts: Vec<CdiMount>,
    /// Additional groups.
    pub groups: Vec<u32>,
    /// Programs that would run on the host during the launch.
    pub hooks: Vec<String>,
    /// Other things it asks for that boxd does not know.
    pub unknown: Vec<String>,
}

/// A node that a device needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiNode {
    /// On the host.
    pub path: PathBuf,
    /// In the box.
    pub at: PathBuf,
    /// What may be done with it.
    pub access: DeviceAccess,
    /// Permission bits.
    pub mode: u32,
}

/// A mount that a device needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiMount {
    /// On the host.
    pub path: PathBuf,
    /// In the box.
    pub at: PathBuf,
    /// Writes are refused.
    pub read_only: bool,
}

/// A file as the specification has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specification {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    devices: Vec<Named>,
    #[serde(default)]
    container_edits: Written,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    #[serde(default)]
    container_edits: Written,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    device_nodes: Vec<WrittenNode>,
    #[serde(default)]
    mounts: Vec<WrittenMount>,
    #[serde(default)]
    hooks: Vec<Hook>,
    #[serde(default, rename = "additionalGIDs", alias = "additionalGids")]
    additional_gids: Vec<u32>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenNode {
    path: PathBuf,
    host_path: Option<PathBuf>,
    permissions: Option<String>,
    file_mode: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Hook {
    path: String,
}

/// What these devices need, by their names; or why there is no such device.
pub(super) fn read(names: Vec<&str>) -> BTreeMap<String, Result<Edits, String>> {
    if names.is_empty() {
        return BTreeMap::new();
    }
    let texts: Vec<_> = DIRECTORIES
        .into_iter()
        .flat_map(|directory| files(Path::new(directory)))
        .map(|path| {
            let text = read_file(&path);
            (path, text)
        })
        .collect();
    find(&names, &texts)
}

/// The device of each of these names in the texts of specifications, of which later ones win; or why there is no such
/// device. A text is the file's, or why it could not be read.
pub fn find(
    names: &[&str],
    texts: &[(PathBuf, Result<String, String>)],
) -> BTreeMap<String, Result<Edits, String>> {
    let mut specifications = Vec::new();
    let mut broken = Vec::new();
    for (path, text) in texts {
        let parsed = text.as_ref().map_err(String::clone).and_then(|text| {
            serde_json::from_str::<Specification>(text).map_err(|error| error.to_string())
        });
        match parsed {
            Ok(specification) => specifications.push((path, specification)),
            // Another vendor's broken file is no reason to keep a box from its device.
            Err(why) => broken.push(format!("{}: {why}", path.display())),
        }
    }
    let mut known = BTreeMap::new();
    for (path, specification) in &specifications {
        for device in &specification.devices {
            let name = format!("{}={}", specification.kind, device.name);
            known.insert(name, (*path, specification, device));
        }
    }
    // A device's edits are put together when it is asked for: there may be thousands, each with all those of its kind.
    names
        .iter()
        .map(|name| {
            let found = match known.get(*name) {
                Some((path, specification, device)) => edits_of(specification, device)
                    .map_err(|why| format!("{}: {why}", path.display())),
                None => Err(absent(known.keys(), &broken)),
            };
            ((*name).to_owned(), found)
        })
        .collect()
}

fn absent<'a>(known: impl Iterator<Item = &'a String>, broken: &[String]) -> String {
    let there: Vec<&str> = known
        .map(String::as_str)
        .filter(|name| !name.contains(char::is_control))
        .take(20)
        .collect();
    let mut why = if there.is_empty() {
        format!("there are no devices in {}", DIRECTORIES.join(" and "))
    } else {
        format!("there are {}", there.join(", "))
    };
    for file in broken.iter().take(3) {
        why += &format!("; {file}");
    }
    why
}

fn edits_of(specification: &Specification, device: &Named) -> Result<Edits, String> {
    let version = &specification.cdi_version;
    if !version.starts_with("0.") && !version.starts_with("1.") {
        return Err(format!(
            "its cdiVersion {version:?} is not one that this boxd knows"
        ));
    }
    let mut edits = Edits::default();
    edits.add(&specification.container_edits)?;
    edits.add(&device.container_edits)?;
    Ok(edits)
}

impl Edits {
    fn add(&mut self, written: &Written) -> Result<(), String> {
        for variable in &written.env {
            let (name, value) = variable
                .split_once('=')
                .filter(|(name, _)| !name.is_empty() && !name.contains(char::is_control))
                .ok_or_else(|| format!("{variable:?} is no variable of an environment"))?;
            if variable.contains('\0') {
                return Err(format!("{name:?} holds a NUL character"));
            }
            self.environment.push((name.to_owned(), value.to_owned()));
        }
        for node in &written.device_nodes {
            let access = match node.permissions.as_deref() {
                None | Some("") => "rw",
                Some(letters) => letters,
            };
            self.nodes.push(CdiNode {
                path: normal(node.host_path.as_ref().unwrap_or(&node.path))?,
                at: normal(&node.path)?,
                access: DeviceAccess::parse(access)
                    .ok_or_else(|| format!("{access:?} are no letters out of \"rwm\""))?,
                // The mode it has on the host is for the host's groups.
                mode: node.file_mode.unwrap_or(0o666) & 0o777,
            });
        }
        for mount in &written.mounts {
            self.mounts.push(CdiMount {
                path: normal(&mount.host_path)?,
                at: normal(&mount.container_path)?,
                read_only: mount.options.iter().any(|option| option == "ro"),
            });
        }
        self.groups.extend(&written.additional_gids);
        self.hooks
            .extend(written.hooks.iter().map(|hook| plain(&hook.path)));
        self.unknown
            .extend(written.other.keys().map(|key| plain(key)));
        Ok(())
    }
}

/// A text that is shown, without anything a terminal would obey.
fn plain(text: &str) -> String {
    match text.contains(char::is_control) {
        true => text.escape_debug().to_string(),
        false => text.to_owned(),
    }
}

/// An absolute path without `..`.
fn normal(path: &Path) -> Result<PathBuf, String> {
    use std::path::Component;
    let parts = path.components();
    if path.is_absolute()
        && parts
            .clone()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && !path.to_string_lossy().contains(char::is_control)
    {
        Ok(parts.collect())
    } else {
        Err(format!(
            "{path:?} is no absolute path without \"..\" and control characters"
        ))
    }
}

/// The JSON files of a directory, by name.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    files.truncate(FILES_MAX);
    files
}

fn read_file(path: &Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        let file = fs::File::open(path)?;
        file.take(FILE_MAX + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() as u64 > FILE_MAX => Err(format!("larger than {FILE_MAX} bytes")),
        Ok(text) => Ok(text),
        Err(error) => Err::<_, std::io::Error>(error).map_err(|error| error.to_string()),
    }
}

/// Paths on the host of the nodes of these devices.
pub(super) fn nodes(
    devices: &BTreeMap<String, Result<Edits, String>>,
) -> impl Iterator<Item = PathBuf> {
    edits(devices).flat_map(|edits| edits.nodes.iter().map(|node| node.path.clone()))
}

/// Paths on the host that these devices want mounted.
pub(super) fn mounted(
    devices: &BTreeMap<String, Result<Edits, String>>,
) -> impl Iterator<Item = PathBuf> {
    edits(devices).flat_map(|edits| edits.mounts.iter().map(|mount| mount.path.clone()))
}

fn edits(devices: &BTreeMap<String, Result<Edits, String>>) -> impl Iterator<Item = &Edits> {
    devices.values().filter_map(|found| found.as_ref().ok())
}

/// See [`super::Host::fixed`].
pub(super) fn fixed(names: Vec<&str>) -> BTreeMap<String, Result<Edits, String>> {
    let text = Ok(FIXED.to_owned());
    find(&names, &[("/etc/cdi/acme.json".into(), text)])
}

const FIXED: &str = r#"{"cdiVersion": "0.6.0", "kind": "acme.com/gpu",
    "containerEdits": {"env": ["ACME=yes"], "mounts": [{"hostPath": "/usr/lib/acme", "containerPath": "/usr/lib/acme",
        "options": ["ro", "nosuid", "nodev", "bind"]}]},
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/acme0", "permissions": "rwm"},
            {"path": "/dev/acmectl", "hostPath": "/dev/acme/control"}], "additionalGIDs": [44]}},
        {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/usr/bin/acme-hook"}]}},
        {"name": "future", "containerEdits": {"intelRdt": {}}},
        {"name": "bent", "containerEdits": {"deviceNodes": [{"path": "/dev/../etc/shadow"}]}}]}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_with_what_all_of_its_kind_need() {
        let found = fixed(vec![
            "acme.com/gpu=0",
            "acme.com/gpu=9",
            "acme.com/gpu=bent",
        ]);
        let edits = found["acme.com/gpu=0"].as_ref().expect("found");
        assert_eq!(edits.environment, [("ACME".to_owned(), "yes".to_owned())]);
        assert_eq!(edits.nodes.len(), 2);
        assert_eq!(edits.nodes[0].access.to_string(), "rwm");
        assert_eq!(edits.nodes[1].path, Path::new("/dev/acme/control"));
        assert_eq!(edits.nodes[1].at, Path::new("/dev/acmectl"));
        assert!(edits.mounts[0].read_only);
        assert_eq!(edits.groups, [44]);
        let why = found["acme.com/gpu=9"].as_ref().expect_err("not there");
        assert!(why.contains("there are acme.com/gpu=0,"), "{why}");
        let why = found["acme.com/gpu=bent"].as_ref().expect_err("bent");
        assert!(why.contains("/dev/../etc/shadow"), "{why}");
    }

    #[test]
    fn a_later_file_wins_and_a_broken_one_is_named_where_it_matters() {
        let file = |name: &str, text: &str| (PathBuf::from(name), Ok(text.to_owned()));
        let of = |value: &str| {
            format!(
                r#"{{"cdiVersion": "1.0.0", "kind": "a/b", "devices": [{{"name": "c", "containerEdits": {{"env": ["V={value}"]}}}}]}}"#
            )
        };
        let texts = [
            file("one", &of("1")),
            file("broken", "{"),
            file("two", &of("2")),
            file(
                "old",
                &of("3").replace("1.0.0", "9.0.0").replace("\"c\"", "\"d\""),
            ),
        ];
        let found = find(&["a/b=c", "a/b=d", "x/y=z"], &texts);
        assert_eq!(
            found["a/b=c"].as_ref().expect("found").environment[0].1,
            "2"
        );
        let why = found["a/b=d"].as_ref().expect_err("another version");
        assert!(why.contains("old: its cdiVersion"), "{why}");
        let why = found["x/y=z"].as_ref().expect_err("not there");
        assert!(why.contains("broken: "), "{why}");
    }
}
