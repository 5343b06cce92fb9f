//! The host's system accounts, for boxes that run programs of the host: `www-data` and the like, whose names
//! stand in those programs' configuration. People's accounts are nobody's business in a box.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::definition::{Definition, Group, User};

/// Texts of passwd(5) and group(5) for a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    /// passwd(5).
    pub passwd: String,
    /// group(5).
    pub group: String,
}

/// First id that is a person's on every distribution in use; `UID_MIN` of login.defs(5).
const FIRST_PERSON: u32 = 1000;
/// `nobody`, who is at the end of the ids everywhere.
const NOBODY: u32 = 65534;

impl Default for Accounts {
    /// Root and nobody.
    fn default() -> Self {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
                .to_owned(),
            group: "root:x:0:\nnogroup:x:65534:\n".to_owned(),
        }
    }
}

/// The fields of an account, by name or number, wherever this host keeps its accounts: nsswitch.conf(5). What looks
/// there are libraries of the host, which a program without libraries does not load, so getent(1) is asked.
pub fn database_entry(database: &str, key: &str) -> Option<Vec<String>> {
    let found = Command::new("getent")
        .args([database, "--", key])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|found| found.status.success())?;
    let text = String::from_utf8(found.stdout).ok()?;
    Some(text.lines().next()?.split(':').map(str::to_owned).collect())
}

impl Accounts {
    /// The host's, or the default where it has none that can be read.
    pub(super) fn read(definition: &Definition) -> Accounts {
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        let group = fs::read("/etc/group").unwrap_or_default();
        select(
            &String::from_utf8_lossy(&passwd),
            &String::from_utf8_lossy(&group),
            definition,
        )
    }

    /// See [`super::Host::fixed`].
    pub(super) fn fixed() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\n\
                     www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
                .to_owned(),
            group: "root:x:0:\nwww-data:x:33:\n".to_owned(),
        }
    }
}

/// Of these texts of passwd(5) and group(5): system accounts, and those the definition names; passwords and people's
/// memberships left out.
pub fn select(passwd: &str, group: &str, definition: &Definition) -> Accounts {
    let mut users = BTreeSet::new();
    let mut user_groups = BTreeSet::new();
    let mut accounts = Accounts {
        passwd: String::new(),
        group: String::new(),
    };
    for line in lines(passwd) {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, uid, gid, gecos, home, shell] = fields.as_slice() else {
            continue;
        };
        let (Ok(uid), Ok(gid)) = (uid.parse::<u32>(), gid.parse::<u32>()) else {
            continue;
        };
        let named = definition.user == Some(User::Name(name.to_owned()));
        if is_system(uid) || named {
            accounts.passwd += &format!("{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}\n");
            users.insert(name);
            user_groups.insert(gid);
        }
    }
    for line in lines(group) {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, gid, members] = fields.as_slice() else {
            continue;
        };
        let Ok(gid) = gid.parse::<u32>() else {
            continue;
        };
        let named = definition.groups.contains(&Group::Name(name.to_owned()));
        if is_system(gid) || user_groups.contains(&gid) || named {
            let members: Vec<&str> = members
                .split(',')
                .filter(|member| users.contains(member))
                .collect();
            accounts.group += &format!("{name}:x:{gid}:{}\n", members.join(","));
        }
    }
    let default = Accounts::default();
    if !users.contains("root") {
        accounts.passwd.insert_str(0, &default.passwd);
    }
    if accounts.group.is_empty() {
        accounts.group = default.group;
    }
    accounts
}

/// Lines with an account: neither those that nss_compat(5) has for accounts elsewhere, nor what no name and no text of
/// an account holds.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .filter(|line| !line.starts_with([':', '+', '-']) && !line.contains(char::is_control))
}

fn is_system(id: u32) -> bool {
    id < FIRST_PERSON || id == NOBODY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::example;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        www-data:$6$hash:33:33:www-data:/var/www:/usr/sbin/nologin\n\
        alice:x:1000:1000:Alice:/home/alice:/bin/bash\n\
        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
        broken\n";
    const GROUP: &str =
        "root:x:0:\nwww-data:x:33:alice,www-data\nalice:x:1000:\nstaff:x:2000:alice\n";

    #[test]
    fn people_and_passwords_stay_out() {
        let accounts = select(PASSWD, GROUP, &example());
        assert_eq!(
            accounts.passwd,
            "root:x:0:0:root:/root:/bin/bash\n\
             www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(accounts.group, "root:x:0:\nwww-data:x:33:www-data\n");
    }

    #[test]
    fn whom_the_definition_names_comes_along() {
        let mut definition = example();
        definition.user = Some(User::Name("alice".to_owned()));
        definition.groups = vec![Group::Name("staff".to_owned())];
        let accounts = select(PASSWD, GROUP, &definition);
        assert!(accounts.passwd.contains("alice:x:1000:1000"));
        assert!(accounts.group.contains("alice:x:1000:"));
        assert!(accounts.group.contains("staff:x:2000:alice"));
    }

    #[test]
    fn what_is_no_account_stays_out() {
        let passwd = "+::::::\n-x:x:1:1:::\n:x:2:2:::\nbin:x:3:3::/bin:/bin/sh\r\nsys:x:4:4:\u{1b}[2J:/:/bin/sh\n";
        let accounts = select(passwd, "+:::\n:x:1:\nsys\u{7}:x:3:\n", &example());
        assert_eq!(accounts, Accounts::default());
    }

    #[test]
    fn a_host_without_accounts_still_has_root() {
        assert_eq!(select("", "", &example()), Accounts::default());
    }
}
