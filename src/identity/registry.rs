//! The registry of id ranges: a directory of symbolic links, `BASE -> NAME`.
//!
//! A link is made by one system call that fails when the base is taken, and has no content that could be torn:
//! whatever happens, a base is either free or one box's. The directory is locked while one is chosen and synced
//! before it is used.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::IdRange;
use super::foreign::Sources;
use crate::name::Name;

/// Ranges there are.
const SLOTS: u32 = (IdRange::BASE_MAX - IdRange::BASE_MIN) / IdRange::SIZE + 1;

/// Which box has which range.
#[derive(Debug, Clone)]
pub struct Registry {
    directory: PathBuf,
    foreign: Sources,
}

/// Why a range could not be found, reserved or given back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory could not be made or opened.
    #[error("cannot open the registry of id ranges {path}: {source}", path = path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory could not be locked.
    #[error("cannot lock the registry of id ranges {path}: {source}", path = path.display())]
    Lock {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory could be written by somebody who is not the user boxd runs as.
    #[error(
        "will not use the registry of id ranges {path}: user {owner} owns it or others may write to it; \
         make it root's, with mode 0700",
        path = path.display()
    )]
    Trust {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// An entry, or a file in which others say what ids they use, could not be read.
    #[error("cannot read {path} to find ids for box {name}: {source}", path = path.display())]
    Read {
        /// The box.
        name: Name,
        /// The entry or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in which others say what ids they use could not be read.
    #[error("cannot read {path} to see who else has the ids of boxes: {source}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The entry that may be this box's is damaged.
    #[error(
        "cannot tell the ids of box {name}: {path} is damaged (it should be a symbolic link whose text is a \
         box's name); if no running box has ids from {base} on, remove it",
        path = path.display()
    )]
    Damaged {
        /// The box.
        name: Name,
        /// The entry.
        path: PathBuf,
        /// The base it stands for.
        base: u32,
    },
    /// A range was chosen and could not be written down.
    #[error("cannot reserve ids for box {name} in {path}: {source}{hint}", path = path.display(), hint = hint(source))]
    Reserve {
        /// The box.
        name: Name,
        /// The entry.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The entry could not be removed.
    #[error("cannot give back the ids of box {name}, {path}: {source}", path = path.display())]
    Release {
        /// The box.
        name: Name,
        /// The entry.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// All ranges are taken.
    #[error(
        "no id range is left for box {name}: all {SLOTS} are in {path} or used by accounts of this host; \
         remove those of boxes that are gone",
        path = path.display()
    )]
    Exhausted {
        /// The box.
        name: Name,
        /// The directory.
        path: PathBuf,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space there",
        io::ErrorKind::ReadOnlyFilesystem => "; it must be on a file system that can be written",
        _ => "",
    }
}

/// What stands under a base.
enum Entry {
    Free,
    Of(Name),
    Damaged,
}

impl Registry {
    /// The registry of this host.
    pub fn system() -> Self {
        Registry::under(Path::new("/"))
    }

    /// The registry of the host whose root is `root`, for tests.
    pub fn under(root: &Path) -> Self {
        Registry {
            directory: root.join("var/lib/boxd/ids"),
            foreign: Sources::under(root),
        }
    }

    /// See [`super::claim`].
    pub fn claim(&self, name: &Name) -> Result<IdRange, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|source| Error::Open {
                path: self.directory.clone(),
                source,
            })?;
        let directory = self.open()?;
        if let Some(range) = self.find_at_first_choice(&directory, name)? {
            return Ok(range);
        }
        self.lock(&directory)?;
        if let Some(range) = self.find(&directory, name)? {
            return Ok(range);
        }
        let range = self.choose(Some(&directory), name)?;
        let failed = |errno: Errno| Error::Reserve {
            name: name.clone(),
            path: self.entry(range.base),
            source: errno.into(),
        };
        rustix::fs::symlinkat(name.as_str(), &directory, range.base.to_string()).map_err(failed)?;
        rustix::fs::fsync(&directory).map_err(failed)?;
        Ok(range)
    }

    /// See [`super::look_up`].
    pub fn look_up(&self, name: &Name) -> Result<Option<IdRange>, Error> {
        let Some(directory) = self.open_existing()? else {
            return Ok(None);
        };
        match self.find_at_first_choice(&directory, name)? {
            Some(range) => Ok(Some(range)),
            None => self.find(&directory, name),
        }
    }

    /// See [`super::propose`].
    pub fn propose(&self, name: &Name) -> Result<IdRange, Error> {
        let directory = self.open_existing()?;
        if let Some(directory) = &directory
            && let Some(range) = self.find(directory, name)?
        {
            return Ok(range);
        }
        self.choose(directory.as_ref(), name)
    }

    /// See [`super::release`].
    pub fn release(&self, name: &Name) -> Result<(), Error> {
        let Some(directory) = self.open_existing()? else {
            return Ok(());
        };
        self.lock(&directory)?;
        while let Some(range) = self.find(&directory, name)? {
            rustix::fs::unlinkat(&directory, range.base.to_string(), AtFlags::empty())
                .and_then(|()| rustix::fs::fsync(&directory))
                .map_err(|errno| Error::Release {
                    name: name.clone(),
                    path: self.entry(range.base),
                    source: errno.into(),
                })?;
        }
        Ok(())
    }

    /// The ranges of boxes that an account, a user's subordinate ids or an nspawn have by now too: whoever came later
    /// did not ask.
    ///
    /// # Errors
    ///
    /// As [`Registry::look_up`].
    pub fn shared(&self) -> Result<Vec<(IdRange, Name)>, Error> {
        if self.open_existing()?.is_none() {
            return Ok(Vec::new());
        }
        let failed = |source| Error::Open {
            path: self.directory.clone(),
            source,
        };
        let foreign = self
            .foreign
            .read()
            .map_err(|(path, source)| Error::Foreign { path, source })?;
        let mut shared = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let base = entry
                .file_name()
                .to_str()
                .and_then(|base| base.parse().ok());
            let name = fs::read_link(entry.path())
                .ok()
                .and_then(|name| name.to_str()?.parse().ok());
            if let (Some(base), Some(name)) = (base, name)
                && (IdRange::BASE_MIN..=IdRange::BASE_MAX).contains(&base)
                && foreign.overlap(IdRange { base })
            {
                shared.push((IdRange { base }, name));
            }
        }
        shared.sort();
        Ok(shared)
    }

    fn entry(&self, base: u32) -> PathBuf {
        self.directory.join(base.to_string())
    }

    fn open_existing(&self) -> Result<Option<OwnedFd>, Error> {
        match self.open() {
            Ok(directory) => Ok(Some(directory)),
            Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self) -> Result<OwnedFd, Error> {
        let failed = |errno: Errno| Error::Open {
            path: self.directory.clone(),
            source: errno.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.directory, flags, Mode::empty()).map_err(failed)?;
        let facts = rustix::fs::fstat(&directory).map_err(failed)?;
        if !super::is_ours_alone(facts.st_uid, facts.st_mode) {
            return Err(Error::Trust {
                path: self.directory.clone(),
                owner: facts.st_uid,
            });
        }
        Ok(directory)
    }

    /// Held until the descriptor is closed.
    fn lock(&self, directory: &OwnedFd) -> Result<(), Error> {
        rustix::io::retry_on_intr(|| rustix::fs::flock(directory, FlockOperation::LockExclusive))
            .map_err(|errno| Error::Lock {
                path: self.directory.clone(),
                source: errno.into(),
            })
    }

    /// The one call most starts need. A damaged entry here may well be this box's, so it is an error.
    fn find_at_first_choice(
        &self,
        directory: &OwnedFd,
        name: &Name,
    ) -> Result<Option<IdRange>, Error> {
        let range = nth_choice(name, 0);
        match self.read(directory, range.base, name)? {
            Entry::Of(owner) if owner == *name => Ok(Some(range)),
            Entry::Of(_) | Entry::Free => Ok(None),
            Entry::Damaged => Err(Error::Damaged {
                name: name.clone(),
                path: self.entry(range.base),
                base: range.base,
            }),
        }
    }

    /// The lowest range of this box. Entries that are damaged, or no entries at all, are others' concern.
    fn find(&self, directory: &OwnedFd, name: &Name) -> Result<Option<IdRange>, Error> {
        let mut found: Option<IdRange> = None;
        for base in self.bases(name)? {
            if let Entry::Of(owner) = self.read(directory, base, name)?
                && owner == *name
                && found.is_none_or(|other| base < other.base)
            {
                found = Some(IdRange { base });
            }
        }
        Ok(found)
    }

    fn bases(&self, name: &Name) -> Result<Vec<u32>, Error> {
        let failed = |source| Error::Read {
            name: name.clone(),
            path: self.directory.clone(),
            source,
        };
        let mut bases = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let file_name = entry.map_err(failed)?.file_name();
            if let Some(base) = file_name.to_str().and_then(|text| text.parse().ok())
                && (IdRange::BASE_MIN..=IdRange::BASE_MAX).contains(&base)
                && base % IdRange::SIZE == 0
            {
                bases.push(base);
            }
        }
        Ok(bases)
    }

    fn read(&self, directory: &OwnedFd, base: u32, name: &Name) -> Result<Entry, Error> {
        match rustix::fs::readlinkat(directory, base.to_string(), Vec::new()) {
            Ok(text) => Ok(text
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .map_or(Entry::Damaged, Entry::Of)),
            Err(Errno::NOENT) => Ok(Entry::Free),
            Err(Errno::INVAL) => Ok(Entry::Damaged),
            Err(errno) => Err(Error::Read {
                name: name.clone(),
                path: self.entry(base),
                source: errno.into(),
            }),
        }
    }

    /// The first choice nobody has, the registry and the rest of the host considered.
    fn choose(&self, directory: Option<&OwnedFd>, name: &Name) -> Result<IdRange, Error> {
        let foreign = self.foreign.read().map_err(|(path, source)| Error::Read {
            name: name.clone(),
            path,
            source,
        })?;
        for choice in 0..SLOTS {
            let range = nth_choice(name, choice);
            if foreign.overlap(range) {
                continue;
            }
            let free = match directory {
                Some(directory) => {
                    matches!(self.read(directory, range.base, name)?, Entry::Free)
                }
                None => true,
            };
            if free {
                return Ok(range);
            }
        }
        Err(Error::Exhausted {
            name: name.clone(),
            path: self.directory.clone(),
        })
    }
}

/// The order in which a box is offered ranges: from one its name leads to upwards, and round.
fn nth_choice(name: &Name, choice: u32) -> IdRange {
    let start = u32::try_from(fnv1a(name.as_str().as_bytes()) % u64::from(SLOTS))
        .expect("a remainder of a u32");
    IdRange {
        base: IdRange::BASE_MIN + (start + choice) % SLOTS * IdRange::SIZE,
    }
}

/// FNV-1a, 64 bits: stable for ever, unlike the standard library's hashes.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn registry() -> (tempfile::TempDir, Registry) {
        let root = tempfile::tempdir().expect("temporary directory");
        let registry = Registry::under(root.path());
        (root, registry)
    }

    #[test]
    fn a_box_finds_its_range_again_and_shares_it_with_nobody() {
        let (_root, registry) = registry();
        let boxes: Vec<Name> = (0..200)
            .map(|number| name(&format!("box-{number}")))
            .collect();
        let first: Vec<IdRange> = boxes
            .iter()
            .map(|name| registry.claim(name).expect("claim"))
            .collect();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), boxes.len());
        for (name, range) in boxes.iter().zip(&first) {
            assert_eq!(registry.claim(name).expect("claim"), *range);
            assert_eq!(registry.look_up(name).expect("look up"), Some(*range));
            assert_eq!(registry.propose(name).expect("propose"), *range);
            assert_eq!(range.base % IdRange::SIZE, 0);
            assert!((IdRange::BASE_MIN..=IdRange::BASE_MAX).contains(&range.base));
        }
    }

    #[test]
    fn looking_changes_nothing_and_proposes_what_a_claim_gives() {
        let (root, registry) = registry();
        assert_eq!(registry.look_up(&name("web")).expect("look up"), None);
        let proposed = registry.propose(&name("web")).expect("propose");
        assert!(!root.path().join("var").exists());
        assert_eq!(registry.claim(&name("web")).expect("claim"), proposed);
    }

    #[test]
    fn a_range_that_somebody_else_took_later_is_seen() {
        let (root, registry) = registry();
        assert!(registry.shared().expect("nothing is there").is_empty());
        let range = registry.claim(&name("web")).expect("claim");
        registry.claim(&name("db")).expect("claim");
        assert!(registry.shared().expect("looked").is_empty());
        fs::create_dir_all(root.path().join("etc")).expect("etc");
        let line = format!("alice:{}:65536\n", range.last());
        fs::write(root.path().join("etc/subuid"), line).expect("subuid");
        assert_eq!(registry.shared().expect("looked"), [(range, name("web"))]);
    }

    #[test]
    fn a_range_given_back_is_free_again() {
        let (_root, registry) = registry();
        registry.release(&name("web")).expect("nothing to release");
        registry.claim(&name("web")).expect("claim");
        registry.release(&name("web")).expect("release");
        assert_eq!(registry.look_up(&name("web")).expect("look up"), None);
    }

    #[test]
    fn a_taken_first_choice_leads_to_the_next() {
        let (_root, registry) = registry();
        registry.claim(&name("other")).expect("makes the directory");
        let first = nth_choice(&name("web"), 0);
        symlink("squatter", registry.entry(first.base)).expect("link");
        let range = registry.claim(&name("web")).expect("claim");
        assert_eq!(range, nth_choice(&name("web"), 1));
        assert_eq!(
            registry.look_up(&name("web")).expect("look up"),
            Some(range)
        );
    }

    #[test]
    fn ids_of_accounts_and_users_are_left_alone() {
        let (root, registry) = registry();
        let first = nth_choice(&name("web"), 0);
        fs::create_dir(root.path().join("etc")).expect("etc");
        fs::write(
            root.path().join("etc/subuid"),
            format!("alice:{}:65536\n", first.base - 1),
        )
        .expect("subuid");
        assert_eq!(
            registry.claim(&name("web")).expect("claim"),
            nth_choice(&name("web"), 1)
        );
    }

    #[test]
    fn claims_at_once_agree() {
        let (_root, registry) = registry();
        let ranges: Vec<(usize, IdRange)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|number| {
                    let registry = &registry;
                    scope.spawn(move || {
                        let which = number % 4;
                        let name = name(&format!("box-{which}"));
                        (which, registry.claim(&name).expect("claim"))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("thread"))
                .collect()
        });
        assert_eq!(ranges.iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn a_damaged_entry_stops_only_the_box_it_may_belong_to() {
        let (_root, registry) = registry();
        registry.claim(&name("other")).expect("makes the directory");
        let base = nth_choice(&name("web"), 0).base;
        for damage in ["", "Not A Name"] {
            if damage.is_empty() {
                fs::write(registry.entry(base), "torn").expect("file");
            } else {
                symlink(damage, registry.entry(base)).expect("link");
            }
            let error = registry
                .claim(&name("web"))
                .expect_err("damaged")
                .to_string();
            assert!(
                error.contains(&base.to_string()) && error.contains("remove it"),
                "{error}"
            );
            registry
                .claim(&name("third"))
                .expect("another box is not concerned");
            fs::remove_file(registry.entry(base)).expect("remove");
        }
        fs::write(registry.directory.join("notes"), "").expect("file");
        registry.claim(&name("web")).expect("strangers are ignored");
    }

    #[test]
    fn a_directory_others_may_write_to_is_refused() {
        let (_root, registry) = registry();
        registry.claim(&name("web")).expect("claim");
        fs::set_permissions(&registry.directory, fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(matches!(
            registry.claim(&name("web")),
            Err(Error::Trust { .. })
        ));
    }

    #[test]
    fn the_choice_of_a_name_never_changes() {
        assert_eq!(nth_choice(&name("hello"), 0).base % IdRange::SIZE, 0);
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(
            nth_choice(&name("hello"), SLOTS),
            nth_choice(&name("hello"), 0)
        );
    }
}
