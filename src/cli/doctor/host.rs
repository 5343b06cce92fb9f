//! What is looked at: files below a root, so that tests can make a host of their own, and what only programs tell.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::definition::{self, Layers};
use crate::identity::Registry;
use crate::running;
use crate::systemd::{self, Manager};

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Where its files lie.
    root: PathBuf,
    /// Whether the caller is root.
    pub is_root: bool,
    /// `Version` of systemd's manager; none where it does not run; the error of one that does not answer.
    pub systemd: Option<Result<String, String>>,
    /// How many definitions there are, and how many of them cannot be used; or why they cannot be listed.
    pub definitions: Result<(usize, usize), String>,
    /// Ranges of ids that a box and somebody else have; or why that is not known.
    pub shared_ids: Result<Vec<String>, String>,
    /// Boxes whose supervisor is of a build that is not installed any more.
    pub old_supervisors: Vec<String>,
    /// Free bytes, and all, of the file systems of these paths.
    pub space: Vec<(PathBuf, u64, u64)>,
}

impl Host {
    /// This one.
    pub fn read(root: &Path) -> Host {
        let layers = Layers::under(root);
        let manager = systemd::is_running().then(Manager::connect);
        Host {
            root: root.to_owned(),
            is_root: rustix::process::geteuid().is_root(),
            systemd: manager.as_ref().map(|manager| match manager {
                Ok(manager) => manager.version().map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }),
            definitions: definitions(&layers),
            shared_ids: Registry::under(root)
                .shared()
                .map(|shared| {
                    shared
                        .iter()
                        .map(|(range, name)| {
                            format!("{}-{} of box {name}", range.base, range.last())
                        })
                        .collect()
                })
                .map_err(|error| error.to_string()),
            old_supervisors: match &manager {
                Some(Ok(manager)) => old_supervisors(manager),
                _ => Vec::new(),
            },
            space: ["var/lib/boxd", "run/boxd"]
                .iter()
                .filter_map(|path| space(&root.join(path)))
                .collect(),
        }
    }

    /// A host of these files and nothing else.
    #[cfg(test)]
    pub fn of(root: &Path) -> Host {
        Host {
            root: root.to_owned(),
            is_root: true,
            systemd: Some(Ok("257.13-1~deb13u1".to_owned())),
            definitions: Ok((2, 0)),
            shared_ids: Ok(Vec::new()),
            old_supervisors: Vec::new(),
            space: Vec::new(),
        }
    }

    /// The text of a file, without blanks around it.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.root.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The number in a file.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Whether something is there.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }

    /// Owner and permission bits of what is there.
    pub fn owner_and_mode(&self, path: &str) -> Option<(u32, u32)> {
        let metadata = fs::metadata(self.root.join(path)).ok()?;
        Some((metadata.uid(), metadata.mode() & 0o7777))
    }

    /// The names in a directory, sorted.
    pub fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.root.join(path))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn definitions(layers: &Layers) -> Result<(usize, usize), String> {
    let listed = definition::list(layers).map_err(|error| error.to_string())?;
    let there: Vec<_> = listed.iter().filter(|listed| !listed.masked).collect();
    let broken = there
        .iter()
        .filter(|listed| match &listed.name {
            Ok(name) => definition::load(name, layers).is_err(),
            Err(_) => true,
        })
        .count();
    Ok((there.len(), broken))
}

/// A supervisor becomes the new one in place when it is told to; who replaced its program without telling it shows
/// here.
fn old_supervisors(manager: &Manager) -> Vec<String> {
    let names = running::names().unwrap_or_default();
    let is_old = |unit: &str| {
        let pid = manager.unit(unit).ok()?.main_pid;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some(program.to_string_lossy().ends_with(" (deleted)"))
    };
    names
        .into_iter()
        .filter(|name| is_old(&name.unit()).unwrap_or(false))
        .map(String::from)
        .collect()
}

/// Of the file system a path is on, or the nearest above it that is there.
fn space(path: &Path) -> Option<(PathBuf, u64, u64)> {
    let there = path.ancestors().find(|path| path.exists())?;
    let facts = rustix::fs::statvfs(there).ok()?;
    Some((
        there.to_owned(),
        facts.f_bavail.saturating_mul(facts.f_frsize),
        facts.f_blocks.saturating_mul(facts.f_frsize),
    ))
}
