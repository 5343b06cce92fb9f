//! Whom the payload runs as: names and numbers looked up in the box's own `/etc/passwd` and `/etc/group`;
//! passwd(5), group(5).
//!
//! The files are read here and not by libc: its lookups load whatever library the box's `nsswitch.conf` names
//! into a process that still has every privilege, and read without bound.

use std::path::{Path, PathBuf};

use crate::plan::{Group, User};

use super::paths::{self, Root};

/// Most bytes of either file; a site with more accounts than that keeps them in a directory service.
const FILE_MAX: u64 = 1024 * 1024;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A user as the kernel knows one, and what programs want to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id inside the box.
    pub uid: u32,
    /// Group id inside the box.
    pub gid: u32,
    /// Supplementary group ids inside the box, ascending, each once.
    pub groups: Vec<u32>,
    /// Its name, where `/etc/passwd` has one.
    pub name: Option<String>,
    /// Its home directory, where `/etc/passwd` has one.
    pub home: Option<PathBuf>,
    /// Its shell, where `/etc/passwd` has one.
    pub shell: Option<PathBuf>,
}

/// What was not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such user.
    #[error("cannot find user {name:?}: the box's {PASSWD} {reason}")]
    User {
        /// As the definition has it.
        name: String,
        /// What is wrong with the file.
        reason: &'static str,
    },
    /// No such group.
    #[error("cannot find group {name:?}: the box's {GROUP} {reason}")]
    Group {
        /// As the definition has it.
        name: String,
        /// What is wrong with the file.
        reason: &'static str,
    },
    /// A file is there and cannot be read.
    #[error("cannot look up users and groups in the box")]
    Read(#[from] paths::Error),
}

/// Looks a user and its groups up in a root.
///
/// A user given by number need not be in the files. It has the group `/etc/passwd` gives it, else that of its
/// own number, and is in the groups `/etc/group` puts its name in; with a group given by number as well, it is
/// in that one and in `groups` only. `root` is found even where the files do not have it.
pub fn look_up(root: &Root, user: &User, groups: &[Group]) -> Result<Identity, Error> {
    let passwd = read(root, PASSWD)?;
    let group = read(root, GROUP)?;
    resolve(user, groups, passwd.as_deref(), group.as_deref())
}

fn read(root: &Root, path: &str) -> Result<Option<String>, Error> {
    let content = root.read(Path::new(path), FILE_MAX)?;
    Ok(content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn resolve(
    user: &User,
    groups: &[Group],
    passwd: Option<&str>,
    group: Option<&str>,
) -> Result<Identity, Error> {
    let mut accounts = passwd.unwrap_or_default().lines().filter_map(account);
    let (account, with_groups) = match user {
        User::Name(name) => {
            let account = accounts
                .find(|account| account.name == name)
                .or_else(|| (name == "root").then_some(ROOT))
                .ok_or_else(|| Error::User {
                    name: name.clone(),
                    reason: reason(passwd),
                })?;
            (Some(account), true)
        }
        User::Id { uid, gid } => (accounts.find(|account| account.uid == *uid), gid.is_none()),
    };
    let (uid, gid) = match *user {
        User::Id {
            uid,
            gid: Some(gid),
        } => (uid, gid),
        User::Id { uid, gid: None } => (uid, account.as_ref().map_or(uid, |account| account.gid)),
        User::Name(_) => account
            .as_ref()
            .map_or((0, 0), |account| (account.uid, account.gid)),
    };
    let mut ids = Vec::new();
    if let (Some(account), true) = (&account, with_groups) {
        ids.extend(
            entries(group)
                .filter(|entry| entry.members.split(',').any(|name| name == account.name))
                .map(|entry| entry.gid),
        );
    }
    for wanted in groups {
        ids.push(match wanted {
            Group::Id(gid) => *gid,
            Group::Name(name) => entries(group)
                .find(|entry| entry.name == name)
                .map(|entry| entry.gid)
                .ok_or_else(|| Error::Group {
                    name: name.clone(),
                    reason: reason(group),
                })?,
        });
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(Identity {
        uid,
        gid,
        groups: ids,
        name: account.as_ref().map(|account| account.name.to_owned()),
        home: account.as_ref().and_then(|account| absolute(account.home)),
        shell: account.as_ref().and_then(|account| absolute(account.shell)),
    })
}

const ROOT: Account<'static> = Account {
    name: "root",
    uid: 0,
    gid: 0,
    home: "/root",
    shell: "/bin/sh",
};

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

/// A line of passwd(5); none for one that is not well formed, which libc skips as well.
fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let uid = id(fields.next()?)?;
    let gid = id(fields.next()?)?;
    let _comment = fields.next()?;
    Some(Account {
        name,
        uid,
        gid,
        home: fields.next()?,
        shell: fields.next().unwrap_or_default(),
    })
}

struct Entry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// The well-formed lines of group(5).
fn entries(group: Option<&str>) -> impl Iterator<Item = Entry<'_>> {
    group.unwrap_or_default().lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = id(fields.next()?)?;
        Some(Entry {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

/// Digits only, and not the number that means "no change" to setresuid(2).
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten()?;
    (number != u32::MAX).then_some(number)
}

fn absolute(path: &str) -> Option<PathBuf> {
    path.starts_with('/').then(|| PathBuf::from(path))
}

fn reason(file: Option<&str>) -> &'static str {
    match file {
        Some(_) => "has no such name",
        None => "does not exist",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        broken\n\
        evil:x:-1:0::/:\n\
        evil:x:4294967295:0::/:\n\
        evil:x:+7:0::/:\n\
        www-data:x:33:34:www:/var/www:/usr/sbin/nologin\n\
        1000:x:7:8::relative:\n";
    const GROUP: &str =
        "root:x:0:\nadm:x:4:www-data,other\nwww-data:x:34:\nssl:x:9:x,www-data\nbad:x::\n";

    fn of(user: User, groups: &[Group]) -> Result<Identity, Error> {
        resolve(&user, groups, Some(PASSWD), Some(GROUP))
    }

    fn number(uid: u32, gid: Option<u32>) -> User {
        User::Id { uid, gid }
    }

    #[test]
    fn a_name_brings_its_groups() {
        let identity = of(
            User::Name("www-data".to_owned()),
            &[Group::Id(50), Group::Name("root".to_owned()), Group::Id(4)],
        )
        .expect("it is there");
        assert_eq!(
            identity,
            Identity {
                uid: 33,
                gid: 34,
                groups: vec![0, 4, 9, 50],
                name: Some("www-data".to_owned()),
                home: Some(PathBuf::from("/var/www")),
                shell: Some(PathBuf::from("/usr/sbin/nologin")),
            }
        );
    }

    #[test]
    fn a_number_is_a_number_even_where_it_is_a_name() {
        let identity = of(number(1000, None), &[]).expect("numbers need no entry");
        assert_eq!((identity.uid, identity.gid), (1000, 1000));
        assert_eq!(identity.name, None);
        let identity = of(number(33, None), &[]).expect("numbers need no entry");
        assert_eq!((identity.uid, identity.gid), (33, 34));
        assert_eq!(identity.groups, [4, 9]);
        let identity = of(number(33, Some(5)), &[]).expect("numbers need no entry");
        assert_eq!((identity.uid, identity.gid), (33, 5));
        assert_eq!(identity.groups, [0; 0]);
        let identity = of(User::Name("1000".to_owned()), &[]).expect("it is a name there");
        assert_eq!((identity.uid, identity.home), (7, None));
    }

    #[test]
    fn what_is_missing_is_named_with_its_file() {
        let error = of(User::Name("nginx".to_owned()), &[]).expect_err("it is not there");
        assert_eq!(
            error.to_string(),
            r#"cannot find user "nginx": the box's /etc/passwd has no such name"#
        );
        let error = of(number(1, None), &[Group::Name("bad".to_owned())]).expect_err("no number");
        assert_eq!(
            error.to_string(),
            r#"cannot find group "bad": the box's /etc/group has no such name"#
        );
        let error = resolve(&User::Name("a".to_owned()), &[], None, None).expect_err("no file");
        assert_eq!(
            error.to_string(),
            r#"cannot find user "a": the box's /etc/passwd does not exist"#
        );
        assert!(of(User::Name("evil".to_owned()), &[]).is_err());
    }

    #[test]
    fn root_needs_no_file() {
        let identity =
            resolve(&User::Name("root".to_owned()), &[], None, None).expect("always there");
        assert_eq!((identity.uid, identity.gid), (0, 0));
    }
}
