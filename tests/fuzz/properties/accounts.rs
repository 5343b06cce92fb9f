//! Texts of passwd(5) and group(5): whoever is in them, a box gets system accounts and those it names, and no password.

use std::collections::{BTreeMap, BTreeSet};

use boxd::definition::{Group, User, understand};
use boxd::host::accounts::select;

use super::input::texts;

/// passwd, group, and the names of a user and of a group that the definition has, with bytes 0xFF between them.
pub fn accounts(data: &[u8]) {
    let given = texts(data);
    let text = |index: usize| given.get(index).map_or("", String::as_str);
    let name = "sample".parse().expect("a name");
    let (mut definition, _) = understand(&name, &[]);
    definition.user = Some(User::Name(text(2).to_owned()));
    definition.groups = vec![Group::Name(text(3).to_owned())];
    let found = select(text(0), text(1), &definition);

    let is_system = |id: u32| id < 1000 || id == 65534;
    let mut all: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for line in lines(text(0), 7) {
        all.entry(line[0]).or_default().push(line);
    }
    super::input::assert_plain(&format!("{}{}", found.passwd, found.group));
    let mut users = BTreeSet::new();
    let mut groups_of_users = BTreeSet::new();
    for line in found.passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [user, password, uid, gid, ..] = fields[..] else {
            panic!("{line:?}");
        };
        assert_eq!((fields.len(), password), (7, "x"), "{line:?}");
        assert!(!user.is_empty(), "{line:?}");
        let (uid, gid) = (id(uid), id(gid));
        assert!(is_system(uid) || user == text(2), "{line:?}");
        users.insert(user);
        groups_of_users.insert(gid);
        // Nobody is made up, but for root and nobody of a host that has no root.
        let same = |known: &Vec<&str>| {
            known[2].trim_start_matches('+').parse() == Ok(uid)
                && known[3].trim_start_matches('+').parse() == Ok(gid)
                && known[4..] == fields[4..]
        };
        assert!(
            all.get(user).is_some_and(|known| known.iter().any(same))
                || ["root", "nobody"].contains(&user),
            "{line:?}"
        );
    }
    assert!(users.contains("root"));

    let mut there = BTreeMap::new();
    for line in found.group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [group, password, gid, members] = fields[..] else {
            panic!("{line:?}");
        };
        assert_eq!(password, "x", "{line:?}");
        let gid = id(gid);
        assert!(
            is_system(gid) || groups_of_users.contains(&gid) || group == text(3),
            "{line:?}"
        );
        for member in members.split(',').filter(|member| !member.is_empty()) {
            assert!(users.contains(member), "{line:?}");
        }
        there.insert(group, gid);
    }
    assert!(!there.is_empty());
    // What was selected is what would be selected of it.
    let again = select(&found.passwd, &found.group, &definition);
    assert_eq!(again, found);
}

fn id(text: &str) -> u32 {
    assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text:?}");
    text.parse().expect("an id")
}

fn lines(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(move |line| line.len() == fields)
}
