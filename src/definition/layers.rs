//! The directories definitions are looked for in, and how their files are read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::diagnostics::{Diagnostics, SourceText, shown};
use super::{Definition, parse};
use crate::name::{Name, NameError};

/// Largest definition file in bytes.
pub(super) const SIZE_MAX: u64 = 1024 * 1024;

/// The directories that hold definitions: what lies in an earlier one hides what has the same file name in a
/// later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    directories: Vec<PathBuf>,
}

/// A definition file found in the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The box's name, or why the file cannot be one's.
    pub name: Result<Name, NameError>,
    /// The file that counts: the one in the highest layer.
    pub path: PathBuf,
    /// The file is empty or a link to `/dev/null`: there is no such box.
    pub masked: bool,
}

/// A file name that cannot be a box's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {path} as a definition: {source}; rename the file", path = shown(path))]
pub struct BadName {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with its stem.
    pub source: NameError,
}

/// Why there is no definition.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No layer has the file.
    #[error(
        "no definition of box {name}: looked for {name}.toml in {searched}{hint}",
        searched = join(searched),
        hint = similar.as_ref().map(|similar| format!("; did you mean {similar}?")).unwrap_or_default()
    )]
    Find {
        /// The box.
        name: Name,
        /// Directories looked into, the highest layer first.
        searched: Vec<PathBuf>,
        /// A box of a similar name.
        similar: Option<Name>,
    },
    /// The definition was switched off by an empty file or a link to `/dev/null`.
    #[error(
        "box {name} is masked: {path} is empty or a link to /dev/null; remove it or write a definition into it",
        path = shown(path)
    )]
    Masked {
        /// The box.
        name: Name,
        /// The empty file.
        path: PathBuf,
    },
    /// The file name is not a box's.
    #[error(transparent)]
    Name(#[from] BadName),
    /// A layer or a drop-in directory cannot be listed.
    #[error("cannot list the directory {path}: {source}", path = shown(path))]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be opened or read.
    #[error("cannot read the definition {path}: {source}", path = shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link leads nowhere.
    #[error(
        "cannot read the definition {path}: it is a link to {target}, which does not exist",
        path = shown(path), target = shown(target)
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// Something else than a regular file stands there.
    #[error("cannot read the definition {path}: it is a {kind}, not a regular file", path = shown(path))]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The file is larger than a definition can be.
    #[error(
        "cannot read the definition {path}: it has more than {limit} bytes, the most a definition may have",
        path = shown(path)
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Most bytes.
        limit: u64,
    },
    /// The file is not text.
    #[error(
        "cannot read the definition {path}: it is not UTF-8 text (byte 0x{byte:02x} at line {line}, column {column})",
        path = shown(path)
    )]
    Text {
        /// The file.
        path: PathBuf,
        /// Of the first byte that is wrong, from 1.
        line: usize,
        /// Of the first byte that is wrong, in characters from 1.
        column: usize,
        /// The byte.
        byte: u8,
    },
    /// The files were read; what stands in them is not a definition.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
    /// The definition is not one of an instance of this number.
    #[error(
        "there is no box {name}: {}",
        match count {
            Some(1) => format!("the only instance of {} is {}", name.base(), name.with_instance(1)),
            Some(count) => format!(
                "the instances of {} are {} to {}", name.base(), name.with_instance(1), name.with_instance(*count)
            ),
            None => format!("{} has no `instances` in its definition, and is one box", name.base()),
        }
    )]
    Instance {
        /// The box.
        name: Name,
        /// How many instances there are.
        count: Option<u16>,
    },
}

impl Layers {
    /// Those of the running system.
    pub fn system() -> Self {
        Self::under(Path::new("/"))
    }

    /// The system's below another root.
    pub fn under(root: &Path) -> Self {
        Layers {
            directories: ["etc/boxd", "run/boxd/definitions", "usr/lib/boxd"]
                .map(|directory| root.join(directory))
                .to_vec(),
        }
    }

    /// The directories, the highest layer first.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Which file counts for each name that ends in `.toml`, in this subdirectory of all layers.
    fn files(&self, subdirectory: &str) -> Result<BTreeMap<String, PathBuf>, LoadError> {
        let mut files = BTreeMap::new();
        for layer in &self.directories {
            let directory = layer.join(subdirectory);
            let failed = |source| LoadError::List {
                path: directory.clone(),
                source,
            };
            let entries = match fs::read_dir(&directory) {
                Err(error) if is_absence(&error) => continue,
                entries => entries.map_err(failed)?,
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let file = entry.file_name().to_string_lossy().into_owned();
                if file.ends_with(".toml") && !file.starts_with('.') {
                    files.entry(file).or_insert_with(|| entry.path());
                }
            }
        }
        Ok(files)
    }
}

/// The definition of a box: its file in the highest layer that has one, with the drop-ins of all layers.
///
/// An instance has the definition of its name without the number, read for this one. Drop-ins are `NAME.toml.d/*.toml`, merged in the order of their file names whatever their layer; one in a
/// higher layer replaces one of the same file name, and an empty one removes it.
pub fn load(name: &Name, layers: &Layers) -> Result<Definition, LoadError> {
    of_texts(name, &texts(name, layers)?)
}

/// The definition of a box in these texts, which may be those of all instances.
pub fn of_texts(name: &Name, texts: &[SourceText]) -> Result<Definition, LoadError> {
    // What is wrong for one instance is wrong for all: they live and die by one definition.
    let whole = parse(&name.base(), texts)?;
    match (name.instance(), whole.instances) {
        (None, _) => Ok(whole),
        (Some(index), Some(count)) if index <= count => Ok(parse(name, texts)?),
        (Some(_), count) => Err(LoadError::Instance {
            name: name.clone(),
            count,
        }),
    }
}

/// The texts a box's definition is written in, the base first: what [`load`] reads.
pub fn texts(name: &Name, layers: &Layers) -> Result<Vec<SourceText>, LoadError> {
    let mut texts = vec![base(name, layers)?];
    for path in drop_ins(name, layers)?.into_values() {
        texts.extend(read(&path)?);
    }
    Ok(texts)
}

/// The same, as they will be with this text written: in the place of the one it replaces or hides, or in its turn.
pub fn texts_with(
    name: &Name,
    layers: &Layers,
    text: SourceText,
) -> Result<Vec<SourceText>, LoadError> {
    if text.text.len() as u64 > SIZE_MAX {
        return Err(LoadError::Size {
            path: text.path,
            limit: SIZE_MAX,
        });
    }
    let mut drop_ins = drop_ins(name, layers)?;
    let is_drop_in = text.path.parent().and_then(Path::extension) == Some("d".as_ref());
    if !is_drop_in {
        let mut texts = vec![text];
        for path in drop_ins.into_values() {
            texts.extend(read(&path)?);
        }
        return Ok(texts);
    }
    let file = text.path.file_name().unwrap_or_default().to_string_lossy();
    drop_ins.insert(file.into_owned(), text.path.clone());
    let mut texts = vec![base(name, layers)?];
    for path in drop_ins.into_values() {
        match path == text.path {
            true => texts.push(text.clone()),
            false => texts.extend(read(&path)?),
        }
    }
    Ok(texts)
}

fn base(name: &Name, layers: &Layers) -> Result<SourceText, LoadError> {
    let name = &name.base();
    let file = format!("{name}.toml");
    let Some(base) = layers
        .directories
        .iter()
        .map(|directory| directory.join(&file))
        .find(|path| !matches!(path.symlink_metadata(), Err(error) if is_absence(&error)))
    else {
        return Err(LoadError::Find {
            name: name.clone(),
            searched: layers.directories.clone(),
            similar: similar(name, layers),
        });
    };
    read(&base)?.ok_or_else(|| LoadError::Masked {
        name: name.clone(),
        path: base,
    })
}

/// Which file counts for each name of a drop-in.
fn drop_ins(name: &Name, layers: &Layers) -> Result<BTreeMap<String, PathBuf>, LoadError> {
    layers.files(&format!("{}.toml.d", name.base()))
}

/// The definition in one file, named by the file's stem, wherever it lies and without drop-ins.
pub fn load_file(path: &Path) -> Result<Definition, LoadError> {
    let (name, text) = file(path)?;
    Ok(parse(&name, &[text])?)
}

/// The same, read for the first one if there are instances.
pub fn load_file_of_one(path: &Path) -> Result<Definition, LoadError> {
    let (name, text) = file(path)?;
    let texts = [text];
    let definition = parse(&name, &texts)?;
    match definition.is_of_all() {
        true => Ok(parse(&name.with_instance(1), &texts)?),
        false => Ok(definition),
    }
}

fn file(path: &Path) -> Result<(Name, SourceText), LoadError> {
    let name = name_of(path).map_err(|source| BadName {
        path: path.to_owned(),
        source,
    })?;
    match read(path)? {
        Some(text) => Ok((name, text)),
        None => Err(LoadError::Masked {
            name,
            path: path.to_owned(),
        }),
    }
}

/// Every definition file of the layers by file name, those whose name is not a box's among them.
///
/// Of the contents nothing is known but whether there are any; [`load`] reads them.
pub fn list(layers: &Layers) -> Result<Vec<Listed>, LoadError> {
    let files = layers.files("")?;
    Ok(files
        .into_values()
        .map(|path| Listed {
            name: name_of(&path),
            masked: path.metadata().is_ok_and(|metadata| is_mask(&metadata)),
            path,
        })
        .collect())
}

fn name_of(path: &Path) -> Result<Name, NameError> {
    let stem = path.file_stem().unwrap_or_default();
    Name::of_definition(&stem.to_string_lossy())
}

/// The box whose name is most like this one, if any is.
fn similar(name: &Name, layers: &Layers) -> Option<Name> {
    let listed = list(layers).ok()?;
    listed
        .into_iter()
        .filter(|listed| !listed.masked)
        .filter_map(|listed| listed.name.ok())
        .map(|known| {
            (
                strsim::damerau_levenshtein(name.as_str(), known.as_str()),
                known,
            )
        })
        .filter(|(distance, known)| *distance <= known.as_str().len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The file's text, or nothing if it is a mask. Neither a fifo nor a device can make this wait.
pub(super) fn read(path: &Path) -> Result<Option<SourceText>, LoadError> {
    let failed = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
    {
        Ok(file) => file,
        Err(error) => {
            return Err(match (error.kind(), path.read_link()) {
                (io::ErrorKind::NotFound, Ok(target)) => LoadError::Dangling {
                    path: path.to_owned(),
                    target,
                },
                _ => match path.metadata() {
                    // A socket cannot be opened: ENXIO says nothing of that.
                    Ok(metadata) if metadata.file_type().is_socket() => LoadError::Kind {
                        path: path.to_owned(),
                        kind: "socket",
                    },
                    _ => failed(error),
                },
            });
        }
    };
    let metadata = file.metadata().map_err(failed)?;
    if is_mask(&metadata) {
        return Ok(None);
    }
    let kind = metadata.file_type();
    if !kind.is_file() {
        return Err(LoadError::Kind {
            path: path.to_owned(),
            kind: if kind.is_dir() {
                "directory"
            } else if kind.is_fifo() {
                "named pipe"
            } else {
                "device"
            },
        });
    }
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(LoadError::Size {
            path: path.to_owned(),
            limit: SIZE_MAX,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(SourceText {
            path: path.to_owned(),
            text,
        })),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
            Err(LoadError::Text {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before
                    .rsplit('\n')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .count()
                    + 1,
                byte: error.as_bytes()[valid],
            })
        }
    }
}

/// Whether this switches a definition off, as systemd.unit(5) masks units.
fn is_mask(metadata: &fs::Metadata) -> bool {
    let kind = metadata.file_type();
    let null = libc::makedev(1, 3);
    kind.is_file() && metadata.size() == 0 || kind.is_char_device() && metadata.rdev() == null
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn join(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}
