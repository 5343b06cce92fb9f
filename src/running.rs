//! What exists: a running box found by its name, and known to be that box.
//!
//! A launcher writes the box's plan and document below `/run/boxd` before the payload begins, and whoever ends
//! the box removes them. A pid in a file may be another process by now; so it is opened, looked at through its cgroup,
//! and believed only if it still lives after that look.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup;
use crate::definition::SourceText;
use crate::handover::{self, Document};
use crate::health::{self, Health};
use crate::launch::run_directory::{self, DEFINITION, DOCUMENT, PARENT, PLAN};
use crate::name::Name;
use crate::plan::Plan;

/// A box whose first process lives.
#[derive(Debug)]
pub struct Running {
    /// What it was launched as.
    pub document: Document,
    /// What was done for it.
    pub plan: Plan,
    /// Its first process.
    pub process: OwnedFd,
}

impl Running {
    /// How it answers when it is asked, as its supervisor wrote it down last; none if it is not asked.
    pub fn health(&self) -> Option<Health> {
        health(&self.document)
    }
}

/// Why it is not known whether a box runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the box cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The document cannot be understood.
    #[error("cannot understand {}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        source: handover::Error,
    },
    /// The plan cannot be understood.
    #[error("cannot understand {}: the box was launched by boxd {boxd}, this is boxd {}", path.display(), env!("CARGO_PKG_VERSION"))]
    Plan {
        /// The file.
        path: PathBuf,
        /// Who wrote it.
        boxd: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The process cannot be opened.
    #[error("cannot open process {pid} of the box: pidfd_open({pid}, 0)")]
    Open {
        /// On the host.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// The process's cgroup cannot be read.
    #[error("cannot see which cgroup process {pid} is in")]
    Cgroup {
        /// On the host.
        pid: i32,
        /// Why.
        source: cgroup::Error,
    },
}

/// The running box of this name; none if there is none, whatever files a killed launcher left.
///
/// # Errors
///
/// Files that cannot be read or understood, for one who is not root above all.
pub fn find(name: &Name) -> Result<Option<Running>, Error> {
    find_in(Path::new(PARENT), name)
}

/// The same without its plan: less is read for it, and a box whose plan another boxd wrote is found too.
///
/// # Errors
///
/// As [`find`], but for [`Error::Plan`].
pub fn launched(name: &Name) -> Result<Option<(Document, OwnedFd)>, Error> {
    launched_in(&Path::new(PARENT).join(name.as_str()), name)
}

/// How a box answers when it is asked: [`Running::health`].
pub fn health(document: &Document) -> Option<Health> {
    document.health?;
    let path = Path::new(PARENT)
        .join(document.name.as_str())
        .join(health::FILE);
    // Not written yet, or by another version: then there is nothing to say.
    serde_json::from_slice(&read(&path).ok()??).ok()
}

/// What the box of this name was launched as that runs, or has just ended and is not cleared away yet.
pub fn document(name: &Name) -> Option<Document> {
    let path = Path::new(PARENT).join(name.as_str()).join(DOCUMENT);
    let json = read(&path).ok().flatten()?;
    handover::understand_of(name, &json).ok()
}

/// The texts of the definition by which the box of this name runs; none if nobody has written them down.
pub fn definition(name: &Name) -> Option<Vec<SourceText>> {
    let path = Path::new(PARENT).join(name.as_str()).join(DEFINITION);
    serde_json::from_slice(&read(&path).ok()??).ok()
}

/// The names of all boxes that a launcher has written down, running or not, in their order.
///
/// # Errors
///
/// [`Error::Read`] when the directory cannot be listed; one that is missing has no boxes.
pub fn names() -> Result<Vec<Name>, Error> {
    names_in(Path::new(PARENT))
}

fn names_in(directory: &Path) -> Result<Vec<Name>, Error> {
    let failed = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Some(name) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            && entry.path().join(DOCUMENT).exists()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn find_in(directory: &Path, name: &Name) -> Result<Option<Running>, Error> {
    let directory = directory.join(name.as_str());
    let Some((document, process)) = launched_in(&directory, name)? else {
        return Ok(None);
    };
    let path = directory.join(PLAN);
    let Some(json) = read(&path)? else {
        return Ok(None);
    };
    let plan = serde_json::from_slice(&json).map_err(|source| Error::Plan {
        path,
        boxd: document.boxd.clone(),
        source,
    })?;
    Ok(Some(Running {
        document,
        plan,
        process,
    }))
}

fn launched_in(directory: &Path, name: &Name) -> Result<Option<(Document, OwnedFd)>, Error> {
    let path = directory.join(DOCUMENT);
    let Some(json) = read(&path)? else {
        return Ok(None);
    };
    let document =
        handover::understand_of(name, &json).map_err(|source| Error::Document { path, source })?;
    let process = open(&document)?;
    Ok(process.map(|process| (document, process)))
}

/// The document's process, if it still is that process.
fn open(document: &Document) -> Result<Option<OwnedFd>, Error> {
    let pid = document.pid;
    let failed = |errno: Errno| Error::Open {
        pid,
        source: errno.into(),
    };
    let raw = Pid::from_raw(pid).ok_or(Errno::INVAL).map_err(failed)?;
    let process = match pidfd_open(raw, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let cgroup = cgroup::of_process(pid);
    // Only now is it known whose cgroup that was: a pid is not used again before its process is gone.
    if has_ended(&process) {
        return Ok(None);
    }
    let cgroup = cgroup.map_err(|source| Error::Cgroup { pid, source })?;
    // Below it too: a box with an init of its own sorts itself into groups there.
    Ok(cgroup.starts_with(&document.cgroup).then_some(process))
}

/// Whether the process of a pidfd has ended, waited for or not.
pub fn has_ended(process: &OwnedFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    !matches!(poll(&mut fds, Some(&now)), Ok(0))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match run_directory::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::plan::ReadyWhen;

    fn sleeper() -> Child {
        Command::new("sleep")
            .arg("1000")
            .stderr(Stdio::null())
            .spawn()
            .expect("sleep runs")
    }

    fn document(pid: u32, cgroup: PathBuf) -> Document {
        Document {
            version: handover::VERSION,
            boxd: env!("CARGO_PKG_VERSION").to_owned(),
            name: "web".parse().expect("a name"),
            description: String::new(),
            pid: i32::try_from(pid).expect("a pid"),
            started: 0,
            cgroup,
            scope: "box-web.scope".to_owned(),
            ids: None,
            root: String::new(),
            ready: ReadyWhen::Started,
            ready_by: 0,
            output: crate::plan::Output::default(),
            watchdog: None,
            health: None,
            stop_signal: 15,
            stop_timeout: Duration::from_secs(10),
            idle: None,
        }
    }

    #[test]
    fn a_process_is_a_boxs_only_while_it_stands_in_its_cgroup() {
        let mut child = sleeper();
        let own = cgroup::of_self().expect("a cgroup");
        let there = document(child.id(), own.clone());
        let elsewhere = document(child.id(), own.join("box-web.scope"));
        assert!(open(&there).expect("looked at").is_some());
        assert!(open(&elsewhere).expect("looked at").is_none());
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert!(open(&there).expect("looked at").is_none());
    }

    #[test]
    fn what_is_not_there_is_not_running() {
        let directory = tempfile::tempdir().expect("a directory");
        let name: Name = "web".parse().expect("a name");
        assert!(find_in(directory.path(), &name).expect("looked").is_none());
        assert!(
            names_in(&directory.path().join("missing"))
                .expect("looked")
                .is_empty()
        );
        std::fs::create_dir_all(directory.path().join("definitions")).expect("made");
        assert!(names_in(directory.path()).expect("looked").is_empty());
        std::fs::create_dir(directory.path().join("web")).expect("made");
        std::fs::write(directory.path().join("web/document.json"), "{").expect("written");
        assert_eq!(
            names_in(directory.path()).expect("looked"),
            std::slice::from_ref(&name)
        );
        assert!(matches!(
            find_in(directory.path(), &name),
            Err(Error::Document { .. })
        ));
    }
}
