//! Ids that somebody else on this host uses: accounts, subordinate ids of users, containers of nspawn.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::IdRange;

/// Where others say which ids they use.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    /// passwd(5) and group(5): name, password, id; passwd has the group's id in the next field.
    accounts: Vec<PathBuf>,
    /// subuid(5): name, first id, count.
    subordinate: Vec<PathBuf>,
    /// A directory with a lock file named after the first id of each range a running nspawn has.
    nspawn: PathBuf,
}

/// A closed interval of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval {
    first: u64,
    last: u64,
}

/// All ids in use by others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Foreign(Vec<Interval>);

impl Sources {
    pub(super) fn under(root: &Path) -> Self {
        let at = |path: &str| root.join(path);
        Sources {
            accounts: vec![at("etc/passwd"), at("etc/group")],
            subordinate: vec![at("etc/subuid"), at("etc/subgid")],
            nspawn: at("run/systemd/nspawn-uid"),
        }
    }

    /// Reads them all; a source that is not there names no ids.
    pub(super) fn read(&self) -> Result<Foreign, (PathBuf, io::Error)> {
        let mut found = Vec::new();
        for path in &self.accounts {
            found.extend(read(path)?.lines().flat_map(account_ids));
        }
        for path in &self.subordinate {
            found.extend(read(path)?.lines().filter_map(subordinate_ids));
        }
        match fs::read_dir(&self.nspawn) {
            Ok(entries) => found.extend(
                entries
                    .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                    .map(|first: u32| Interval {
                        first: first.into(),
                        last: u64::from(first) + u64::from(IdRange::SIZE) - 1,
                    }),
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err((self.nspawn.clone(), error)),
        }
        Ok(Foreign(found))
    }
}

impl Foreign {
    /// Whether somebody uses an id of this range.
    pub(super) fn overlap(&self, range: IdRange) -> bool {
        self.0
            .iter()
            .any(|used| used.first <= range.last().into() && used.last >= range.base.into())
    }
}

fn read(path: &Path) -> Result<String, (PathBuf, io::Error)> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err((path.to_owned(), error)),
    }
}

fn account_ids(line: &str) -> impl Iterator<Item = Interval> {
    line.split(':')
        .skip(2)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .map(|id| Interval {
            first: id,
            last: id,
        })
}

fn subordinate_ids(line: &str) -> Option<Interval> {
    let mut fields = line.split(':').skip(1);
    let first: u64 = fields.next()?.parse().ok()?;
    let count: u64 = fields.next()?.trim_end().parse().ok()?;
    Some(Interval {
        first,
        last: first.saturating_add(count.checked_sub(1)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_subordinate_ids_and_nspawn_are_seen() {
        let root = tempfile::tempdir().expect("temporary directory");
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("etc")).expect("etc");
        fs::create_dir_all(at("run/systemd/nspawn-uid")).expect("run");
        fs::write(
            at("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nfar:x:600000:700000::/:/bin/sh\nbad\n",
        )
        .expect("passwd");
        fs::write(at("etc/subuid"), "alice:1000000:131072\nbob:zero:1\n").expect("subuid");
        fs::write(at("run/systemd/nspawn-uid/2097152"), "").expect("lock");
        let foreign = Sources::under(root.path()).read().expect("read");
        let taken = |base| foreign.overlap(IdRange { base });
        assert!(taken(589_824), "uid 600000");
        assert!(taken(655_360), "gid 700000");
        assert!(taken(983_040) && taken(1_048_576) && taken(1_114_112));
        assert!(taken(2_097_152));
        assert!(!taken(524_288) && !taken(1_179_648) && !taken(2_162_688));
    }

    #[test]
    fn a_host_without_any_source_has_no_foreign_ids() {
        let root = tempfile::tempdir().expect("temporary directory");
        let foreign = Sources::under(root.path()).read().expect("read");
        assert_eq!(foreign, Foreign::default());
    }
}
