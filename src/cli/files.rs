//! Files of definitions, written whole or not at all: a reader never sees half of one, nor does a host that lost its
//! power.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::definition::{self, Definition, Layers, LoadError, SourceText};
use crate::name::Name;

/// Permission bits of a file that is new, and of the folders above it.
const FILE: u32 = 0o644;
const FOLDER: u32 = 0o755;

/// Why a file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One is there already.
    #[error("{} is there already; change it with `boxctl edit {name}`", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
        /// The box.
        name: Name,
    },
}

/// A file that nobody sees before it is put in its place. Dropped, it is removed.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    target: PathBuf,
    /// Folders that were made for it, the deepest last; removed with it.
    made: Vec<PathBuf>,
    done: bool,
}

impl Draft {
    /// A draft beside its place, with this text, readable by its owner alone. Its name begins with a dot, so it is no
    /// definition, and ends as the other, so that editors know what it is.
    pub fn of(target: &Path, text: &str) -> Result<Draft, Error> {
        let mut made = Vec::new();
        let folder = target.parent().unwrap_or(Path::new("/"));
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|folder| !folder.exists())
            .collect();
        for folder in missing.into_iter().rev() {
            fs::create_dir(folder)
                .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER)))
                .map_err(|source| Error::Write {
                    path: folder.to_owned(),
                    source,
                })?;
            made.push(folder.to_owned());
        }
        let mut draft = Draft {
            path: PathBuf::new(),
            target: target.to_owned(),
            made,
            done: false,
        };
        let stem = target.file_name().unwrap_or_default().to_string_lossy();
        let pid = std::process::id();
        for attempt in 0.. {
            draft.path = folder.join(format!(".{pid}-{attempt}.{stem}"));
            let opened = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft.path);
            let written = match opened {
                // One that was kept, of a process that had this number before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened.and_then(|mut file| file.write_all(text.as_bytes())),
            };
            return match written {
                Ok(()) => Ok(draft),
                Err(source) => Err(draft.failed(source)),
            };
        }
        Ok(draft)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is, for its author to find.
    pub fn keep(mut self) -> PathBuf {
        self.done = true;
        self.path.clone()
    }

    /// Puts it in its place, where nothing may be yet.
    pub fn place_new(self, name: &Name) -> Result<(), Error> {
        self.settle(None)?;
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => {
                return Err(Error::Exists {
                    path: self.target.clone(),
                    name: name.clone(),
                });
            }
            other => other.map_err(|errno| self.failed(errno.into()))?,
        }
        self.finish()
    }

    /// Puts it in the place of what is there, with its owner and permissions.
    pub fn replace(self) -> Result<(), Error> {
        self.settle(fs::metadata(&self.target).ok())?;
        fs::rename(&self.path, &self.target).map_err(|source| self.failed(source))?;
        self.finish()
    }

    fn settle(&self, like: Option<fs::Metadata>) -> Result<(), Error> {
        let settled = || {
            let file = File::open(&self.path)?;
            let mode = like.as_ref().map_or(FILE, |like| like.mode() & 0o777);
            if let Some(like) = &like {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()
        };
        settled().map_err(|source| self.failed(source))
    }

    fn finish(mut self) -> Result<(), Error> {
        self.done = true;
        let folder = self.target.parent().unwrap_or(Path::new("/"));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write {
            path: self.target.clone(),
            source,
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed is a hidden file nobody reads.
            let _ = fs::remove_file(&self.path);
            for folder in self.made.iter().rev() {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

/// Removes a file, and its folder if it is empty then.
pub fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(|source| Error::Remove {
        path: path.to_owned(),
        source,
    })?;
    if let Some(folder) = path.parent() {
        // Others' files may be in it.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// The operator's layer: what is written, is written there.
pub fn operators(layers: &Layers) -> &Path {
    layers
        .directories()
        .first()
        .map_or(Path::new("/etc/boxd"), |layer| layer)
}

/// A drop-in of the operator's for a box, by its name without `.toml`.
pub fn drop_in(layers: &Layers, name: &Name, drop_in: &str) -> PathBuf {
    operators(layers)
        .join(format!("{name}.toml.d"))
        .join(format!("{drop_in}.toml"))
}

/// The definition of a box as it will be with this text in this file.
pub fn with(
    name: &Name,
    layers: &Layers,
    path: &Path,
    text: &str,
) -> Result<Definition, LoadError> {
    let text = SourceText {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let texts = definition::texts_with(name, layers, text)?;
    Ok(definition::parse(name, &texts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_draft_is_placed_whole_or_leaves_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        let name: Name = "web".parse().expect("a name");
        let target = root.path().join("etc/boxd/web.toml");
        drop(Draft::of(&target, "draft").expect("a draft"));
        assert!(names(root.path()).is_empty(), "its folders go with it");

        Draft::of(&target, "one")
            .expect("a draft")
            .place_new(&name)
            .expect("placed");
        let refused = Draft::of(&target, "two").expect("a draft").place_new(&name);
        assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
        assert_eq!(fs::read_to_string(&target).expect("read"), "one");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&target), 0o644);

        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("set");
        Draft::of(&target, "three")
            .expect("a draft")
            .replace()
            .expect("replaced");
        assert_eq!(fs::read_to_string(&target).expect("read"), "three");
        assert_eq!(mode(&target), 0o600, "as it was");
        assert_eq!(names(target.parent().expect("a folder")), ["web.toml"]);

        let kept = Draft::of(&target, "four").expect("a draft").keep();
        assert_eq!(fs::read_to_string(kept).expect("kept"), "four");
    }

    #[test]
    fn a_text_is_judged_in_its_place_among_the_others() {
        let root = tempfile::tempdir().expect("a folder");
        let layers = Layers::under(root.path());
        let name: Name = "web".parse().expect("a name");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("usr/lib/boxd/web.toml", "command = [\"/bin/vendor\"]\n");
        write("usr/lib/boxd/web.toml.d/20.toml", "hostname = \"twenty\"\n");
        let with = |path: &str, text: &str| with(&name, &layers, &root.path().join(path), text);
        let base = with("etc/boxd/web.toml", "command = [\"/bin/mine\"]\n").expect("good");
        assert_eq!(base.command, ["/bin/mine"]);
        assert_eq!(base.hostname.as_deref(), Some("twenty"));
        let early = with("etc/boxd/web.toml.d/10.toml", "hostname = \"ten\"\n").expect("good");
        assert_eq!(early.hostname.as_deref(), Some("twenty"));
        let late = with("etc/boxd/web.toml.d/30.toml", "hostname = \"thirty\"\n").expect("good");
        assert_eq!(late.hostname.as_deref(), Some("thirty"));
        let hides = with("etc/boxd/web.toml.d/20.toml", "user = \"1\"\n").expect("good");
        assert_eq!(hides.hostname, None);
        assert!(with("etc/boxd/web.toml", "comand = 1\n").is_err());
    }
}
