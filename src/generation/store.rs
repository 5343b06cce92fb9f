//! The directory of generations.
//!
//! A generation is a directory named by its number: `GENERATION`, which no box can be called, and one file for each
//! box. It is written under another name, synced, and renamed: after a loss of power it is there whole or not at all.
//! A file that is the same as in the generation before is a link to that one. What is half written or half removed
//! begins with a dot, and goes with the next write.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Changed, Entry, Generation, State};
use crate::name::Name;

/// Where they are.
const DIRECTORY: &str = "/var/lib/boxd/generations";

/// What is known of a generation as a whole.
const HEAD: &str = "GENERATION";

/// Held by whoever applies definitions.
const LOCK: &str = ".lock";

/// More than a head has beside its texts.
const HEAD_SIZE: usize = 16 << 10;

/// Most generations that are kept.
pub const KEPT: usize = 32;

/// Why a generation was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or a file of it.
    #[error("cannot {attempt} {}", path.display())]
    File {
        /// `make`, `read`, `write`, `lock` …
        attempt: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is none of ours, or of another version.
    #[error("cannot understand {}; move the directory of its generation away", path.display())]
    Understand {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It was never there, or is not kept any more.
    #[error("there is no generation {number}; `boxctl history` lists those that are kept")]
    None {
        /// Its number.
        number: u64,
    },
}

impl Error {
    /// With what it comes from, in one line.
    pub fn in_full(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }

    /// Whether that is root's alone to know.
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Whoever holds it is the only one who applies definitions.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, and let go of when dropped")] File);

/// Room for one more generation, as long as it is held.
#[derive(Debug)]
pub struct Reserve(PathBuf);

impl Drop for Reserve {
    fn drop(&mut self) {
        // What stays goes with the next lock.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Which generation says what is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Its number.
    pub generation: u64,
    /// Whether somebody applies it at this moment: then it counts whatever the files say.
    pub applying: bool,
}

/// The boxes of a generation.
pub type Entries = BTreeMap<Name, Entry>;

/// The generations of a host.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Those of this host.
    pub fn system() -> Store {
        Store::at(Path::new(DIRECTORY))
    }

    /// Those in another directory.
    pub fn at(directory: &Path) -> Store {
        Store {
            directory: directory.to_owned(),
        }
    }

    /// Waits until nobody else applies definitions, and removes what one who was killed has half written.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or locked.
    pub fn lock(&self) -> Result<Lock, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(self.failed("make", &self.directory))?;
        let path = self.directory.join(LOCK);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(self.failed("open", &path))?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(|errno| self.failed("lock", &path)(errno.into()))?;
        for (name, path) in self.listed()? {
            if name.starts_with('.') && name != LOCK {
                fs::remove_dir_all(&path).map_err(self.failed("remove", &path))?;
            }
        }
        Ok(Lock(file))
    }

    /// The numbers of all generations, the newest first.
    ///
    /// # Errors
    ///
    /// The directory cannot be read; one that is missing holds none.
    pub fn numbers(&self) -> Result<Vec<u64>, Error> {
        let mut numbers: Vec<u64> = self
            .listed()?
            .into_iter()
            .filter_map(|(name, _)| name.parse().ok())
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// What is known of a generation.
    ///
    /// # Errors
    ///
    /// [`Error::None`] above all.
    pub fn head(&self, number: u64) -> Result<Generation, Error> {
        let path = self.path(number).join(HEAD);
        self.read(&path)?.ok_or(Error::None { number })
    }

    /// The boxes of a generation.
    ///
    /// # Errors
    ///
    /// [`Error::None`] above all.
    pub fn boxes(&self, number: u64) -> Result<BTreeMap<Name, Entry>, Error> {
        let directory = self.path(number);
        let mut boxes = BTreeMap::new();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::None { number });
            }
            other => other.map_err(self.failed("read", &directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(self.failed("read", &directory))?;
            let file = entry.file_name();
            if let Some(name) = file.to_str().and_then(|name| name.parse::<Name>().ok())
                && let Some(entry) = self.read(&entry.path())?
            {
                boxes.insert(name, entry);
            }
        }
        Ok(boxes)
    }

    /// The newest generation.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn newest(&self) -> Result<Option<Generation>, Error> {
        match self.numbers()?.first() {
            Some(number) => self.head(*number).map(Some),
            None => Ok(None),
        }
    }

    /// The generation that says what is in force: the newest that was not refused.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn current(&self) -> Result<Option<Generation>, Error> {
        for number in self.numbers()? {
            let head = self.head(number)?;
            if head.counts() {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// A box of the current generation; of an instance that of all.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn entry(&self, name: &Name) -> Result<Option<(Counts, Entry)>, Error> {
        let Some(current) = self.current()? else {
            return Ok(None);
        };
        let path = self.path(current.number).join(name.base().as_str());
        let entry = self.read(&path)?;
        Ok(entry.map(|entry| (self.counts(&current), entry)))
    }

    /// All boxes of the current generation.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn entries(&self) -> Result<Option<(Counts, Entries)>, Error> {
        let Some(current) = self.current()? else {
            return Ok(None);
        };
        let boxes = self.boxes(current.number)?;
        Ok(Some((self.counts(&current), boxes)))
    }

    fn counts(&self, current: &Generation) -> Counts {
        Counts {
            generation: current.number,
            applying: current.state == State::Applying && self.is_locked(),
        }
    }

    /// Whether somebody applies definitions at this moment.
    fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.directory.join(LOCK)) else {
            return false;
        };
        // Let go of at once if it was to be had.
        let attempt = FlockOperation::NonBlockingLockShared;
        rustix::io::retry_on_intr(|| flock(&file, attempt)) == Err(Errno::WOULDBLOCK)
    }

    /// Whether the file system is there that the generations are on: early in a boot it may not be.
    pub fn is_there(&self) -> bool {
        let parent = self.directory.parent();
        parent.is_none_or(|parent| !matches!(parent.try_exists(), Ok(false)))
    }

    /// Takes the room that another generation may need: to put back boxes must not fail because the disk is full.
    ///
    /// # Errors
    ///
    /// There is no room.
    pub fn reserve(&self, _lock: &Lock, sizes: &BTreeMap<Name, usize>) -> Result<Reserve, Error> {
        let reserve = Reserve(self.directory.join(".reserve"));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&reserve.0)
            .map_err(self.failed("make", &reserve.0))?;
        // A head holds every text twice at most.
        let head = (HEAD, 2 * sizes.values().sum::<usize>() + HEAD_SIZE);
        let files = sizes.iter().map(|(name, size)| (name.as_str(), *size));
        for (name, size) in files.chain([head]) {
            let path = reserve.0.join(name);
            fs::write(&path, vec![0; size]).map_err(self.failed("reserve room in", &path))?;
        }
        Ok(reserve)
    }

    /// Writes a generation as the newest, and removes those that are more than are kept.
    ///
    /// # Errors
    ///
    /// Nothing was written then.
    pub fn write(
        &self,
        _lock: &Lock,
        mut generation: Generation,
        boxes: &BTreeMap<Name, Entry>,
    ) -> Result<Generation, Error> {
        let numbers = self.numbers()?;
        let last = numbers.first().copied();
        generation.number = last.unwrap_or(0) + 1;
        let new = self.directory.join(format!(".{}.new", generation.number));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&new)
            .map_err(self.failed("make", &new))?;
        let written = self.fill(&new, &generation, boxes, last);
        if written.is_err() {
            // The disk is full, mostly.
            let _ = fs::remove_dir_all(&new);
        }
        written?;
        let path = self.path(generation.number);
        fs::rename(&new, &path).map_err(self.failed("write", &path))?;
        self.sync(&self.directory)?;
        self.thin_out(&numbers);
        Ok(generation)
    }

    /// Writes anew what is known of a generation.
    ///
    /// # Errors
    ///
    /// What was known is still what is written.
    pub fn rewrite(&self, _lock: &Lock, generation: &Generation) -> Result<(), Error> {
        let directory = self.path(generation.number);
        let new = directory.join(".new");
        self.create(&new, generation)?;
        let path = directory.join(HEAD);
        fs::rename(&new, &path).map_err(self.failed("write", &path))?;
        self.sync(&directory)
    }

    fn fill(
        &self,
        new: &Path,
        generation: &Generation,
        boxes: &BTreeMap<Name, Entry>,
        last: Option<u64>,
    ) -> Result<(), Error> {
        let before = match last {
            // One that cannot be read has nothing to link to.
            Some(number) => self.boxes(number).unwrap_or_default(),
            None => BTreeMap::new(),
        };
        for (name, entry) in boxes {
            let path = new.join(name.as_str());
            let same = last.filter(|_| before.get(name) == Some(entry));
            let linked = same.is_some_and(|number| {
                fs::hard_link(self.path(number).join(name.as_str()), &path).is_ok()
            });
            if !linked {
                self.create(&path, entry)?;
            }
        }
        self.create(&new.join(HEAD), generation)?;
        self.sync(new)
    }

    fn thin_out(&self, numbers: &[u64]) {
        for number in numbers.iter().skip(KEPT - 1) {
            let old = self.directory.join(format!(".{number}.old"));
            // What does not go is no harm, and the next one tries again.
            if fs::rename(self.path(*number), &old).is_ok() {
                let _ = fs::remove_dir_all(&old);
            }
        }
    }

    fn create(&self, path: &Path, content: &impl Serialize) -> Result<(), Error> {
        let attempt = || -> io::Result<()> {
            let mut json = serde_json::to_vec(content)?;
            json.push(b'\n');
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(&json)?;
            file.sync_all()
        };
        attempt().map_err(self.failed("write", path))
    }

    fn sync(&self, directory: &Path) -> Result<(), Error> {
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(self.failed("sync", directory))
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, Error> {
        let json = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(self.failed("read", path))?,
        };
        serde_json::from_slice(&json)
            .map(Some)
            .map_err(|source| Error::Understand {
                path: path.to_owned(),
                source,
            })
    }

    fn listed(&self) -> Result<Vec<(String, PathBuf)>, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(self.failed("read", &self.directory))?,
        };
        entries
            .map(|entry| {
                let entry = entry.map_err(self.failed("read", &self.directory))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok((name, entry.path()))
            })
            .collect()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(number.to_string())
    }

    fn failed(&self, attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File {
            attempt,
            path,
            source,
        }
    }
}

/// What the one set has otherwise than the other.
pub fn changed(
    before: &BTreeMap<Name, Entry>,
    after: &BTreeMap<Name, Entry>,
) -> BTreeMap<Name, Changed> {
    let there = |entry: Option<&Entry>| entry.and_then(|entry| entry.definition.clone());
    before
        .keys()
        .chain(after.keys())
        .filter_map(|name| {
            let changed = match (there(before.get(name)), there(after.get(name))) {
                (None, None) => return None,
                (None, Some(_)) => Changed::Added,
                (Some(_), None) => Changed::Removed,
                (Some(before), Some(after)) if before == after => return None,
                (Some(_), Some(_)) => Changed::Changed,
            };
            Some((name.clone(), changed))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::definition::SourceText;
    use crate::generation::Cause;

    fn entry(text: &str) -> Entry {
        Entry {
            definition: Some(vec![SourceText {
                path: "/etc/boxd/web.toml".into(),
                text: text.to_owned(),
            }]),
            held: None,
        }
    }

    fn set(boxes: &[(&str, &str)]) -> BTreeMap<Name, Entry> {
        let entry = |(name, text): &(&str, &str)| (name.parse().expect("a name"), entry(text));
        boxes.iter().map(entry).collect()
    }

    fn generation(state: State) -> Generation {
        Generation {
            number: 0,
            time: 1,
            boot: None,
            author: "root".to_owned(),
            cause: Cause::Files,
            state,
            changed: BTreeMap::new(),
            failures: BTreeMap::new(),
            to_do: BTreeMap::new(),
        }
    }

    fn numbers(store: &Store) -> Vec<u64> {
        store.numbers().expect("listed")
    }

    #[test]
    fn generations_are_counted_kept_and_found_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::at(&directory.path().join("generations"));
        assert_eq!(numbers(&store), [0; 0]);
        assert!(store.current().expect("read").is_none());
        let lock = store.lock().expect("locked");
        let first = set(&[("web", "a"), ("db", "b")]);
        let one = store
            .write(&lock, generation(State::Applied), &first)
            .expect("written");
        assert_eq!(one.number, 1);
        let second = set(&[("web", "c"), ("db", "b")]);
        let mut two = store
            .write(&lock, generation(State::Applying), &second)
            .expect("written");
        assert_eq!(store.boxes(1).expect("read"), first);
        assert_eq!(store.boxes(2).expect("read"), second);
        let inode = |path: &str| {
            let path = directory.path().join("generations").join(path);
            path.metadata().expect("there").ino()
        };
        assert_eq!(inode("1/db"), inode("2/db"));
        assert_ne!(inode("1/web"), inode("2/web"));
        let web: Name = "web".parse().expect("a name");
        let found = || {
            let found = store.entry(&web).expect("read");
            found.map(|(counts, entry)| (counts.generation, counts.applying, entry))
        };
        assert_eq!(found(), Some((2, true, entry("c"))));
        drop(lock);
        assert_eq!(found(), Some((2, false, entry("c"))), "killed");
        let lock = store.lock().expect("locked");
        // One that failed says nothing any more.
        two.state = State::Failed;
        store.rewrite(&lock, &two).expect("written");
        assert_eq!(found(), Some((1, false, entry("a"))));
        assert_eq!(store.newest().expect("read"), Some(two));
        assert!(matches!(store.head(9), Err(Error::None { number: 9 })));
        for _ in 0..KEPT {
            store
                .write(&lock, generation(State::Applied), &first)
                .expect("written");
        }
        assert_eq!(numbers(&store).len(), KEPT);
        assert_eq!(numbers(&store)[0], 2 + KEPT as u64);
    }

    #[test]
    fn what_is_half_written_does_not_count_and_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::at(directory.path());
        let lock = store.lock().expect("locked");
        store
            .write(&lock, generation(State::Applied), &set(&[("web", "a")]))
            .expect("written");
        drop(lock);
        for half in [".2.new", ".0.old"] {
            fs::create_dir(directory.path().join(half)).expect("made");
            fs::write(directory.path().join(half).join("web"), "{").expect("written");
        }
        fs::write(directory.path().join("1/.new"), "{").expect("written");
        assert_eq!(numbers(&store), [1]);
        assert_eq!(store.boxes(1).expect("read"), set(&[("web", "a")]));
        let lock = store.lock().expect("locked");
        assert!(!directory.path().join(".2.new").exists());
        assert!(!directory.path().join(".0.old").exists());
        let two = store
            .write(&lock, generation(State::Applied), &set(&[("web", "b")]))
            .expect("written");
        store.rewrite(&lock, &two).expect("written");
    }

    #[test]
    fn room_for_one_more_is_kept_free_and_let_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::at(directory.path());
        let lock = store.lock().expect("locked");
        let sizes = [("web".parse().expect("a name"), 5000)].into();
        let reserve = store.reserve(&lock, &sizes).expect("room");
        let taken = |name: &str| {
            let file = directory.path().join(".reserve").join(name);
            file.metadata().map(|file| file.len()).ok()
        };
        assert_eq!(taken("web"), Some(5000));
        assert!(taken(HEAD).is_some_and(|size| size > 10000));
        store
            .write(&lock, generation(State::Applied), &set(&[("web", "a")]))
            .expect("written");
        drop(reserve);
        assert_eq!(taken("web"), None);
        drop(store.reserve(&lock, &sizes).expect("room again"));
    }

    #[test]
    fn sets_differ_by_name() {
        let changed = changed(
            &set(&[("web", "a"), ("db", "b"), ("old", "x")]),
            &set(&[("web", "c"), ("db", "b"), ("new", "x")]),
        );
        let expected = [
            ("new", Changed::Added),
            ("old", Changed::Removed),
            ("web", Changed::Changed),
        ];
        let expected = expected.map(|(name, changed)| (name.parse().expect("a name"), changed));
        assert_eq!(changed, expected.into());
    }
}
