//! What is to be done that every box is as its definition says: from what was in force, what is, and what runs, to
//! actions with their reasons.
//!
//! A change is carried out in the mildest way that brings it about. Most keys say what a box is made of, and a box is
//! made once: they need a restart. Limits and the description are set on the scope that runs. What only systemd acts
//! on, or what a program of boxd's looks up each time, needs nothing but to be read. A reload is none of these ways:
//! it asks a program to read its own files again, and no key of a definition is in one of those.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::definition::changes::{Change, changes, spelled};
use crate::definition::{Definition, Dependency, SourceText, parse};
use crate::generation::Held;
pub use crate::generation::{Runs, Service, What};
use crate::name::Name;

/// What is known of one box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The box.
    pub name: Name,
    /// The definition that was in force.
    pub before: Option<Vec<SourceText>>,
    /// The one that is to be.
    pub after: Option<Vec<SourceText>>,
    /// Why that is not what the files say.
    pub held: Option<Held>,
    /// What runs of it.
    pub runs: Runs,
    /// Another box of its definition runs, or that in whose place the instances come, or waits for a connection.
    pub others_run: bool,
    /// There is a definition, if only of other instances.
    pub is_defined: bool,
}

/// Who wants the definitions to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nobody: a file has changed. Boxes whose definition has not are left as they are.
    ByChange,
    /// Somebody. What was refused is tried again, and what runs by an older definition is brought up to date.
    ByPerson,
}

/// What is done about a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Action {
    /// The box.
    pub name: Name,
    /// What.
    pub what: What,
    /// Why, where no key is the reason.
    pub reason: Option<String>,
    /// The keys that are the reason, and what each of them needs.
    pub changes: Vec<(Change, Need)>,
}

/// What a changed key needs of a box that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// To be read: by systemd, or by whoever looks it up when it is needed.
    Read,
    /// To be set on what runs.
    Live,
    /// A box made anew.
    Restart,
}

/// Keys that are looked up when they are needed: by systemd in the unit, or in what is written down of the box.
const READ: &[&str] = &[
    // Each is a box that comes or goes.
    "instances",
    "after",
    "requires",
    "start-at-boot",
    "ready.when",
    "ready.timeout",
    "reload.signal",
    "reload.command",
    "restart.policy",
    "restart.delay",
    "restart.limit-burst",
    "restart.limit-interval",
    "stop.command",
    "health.command",
    "health.tcp",
    "health.http",
    "health.http-status",
    "health.http-body",
];

/// What a change of this key needs.
pub fn need(key: &str) -> Need {
    if key == "description" || key.starts_with("resources.") {
        Need::Live
    } else if READ.contains(&key) {
        Need::Read
    } else {
        Need::Restart
    }
}

/// What is done about each of these boxes, those about which nothing is left out.
pub fn actions(subjects: &[Subject], asked: Asked) -> Vec<Action> {
    subjects
        .iter()
        .filter_map(|subject| action(subject, asked))
        .collect()
}

fn action(subject: &Subject, asked: Asked) -> Option<Action> {
    let make = |what, reason: Option<&str>, changes| {
        Some(Action {
            name: subject.name.clone(),
            what,
            reason: reason.map(str::to_owned),
            changes,
        })
    };
    let runs = &subject.runs;
    let Some(after) = &subject.after else {
        let there = runs.service == Service::Up || !runs.sockets.is_empty();
        // One that is in no generation was started by somebody who knows better.
        return if there && subject.before.is_some() {
            let reason = match (subject.is_defined, subject.name.instance()) {
                (false, _) => "there is no definition of it any more",
                (true, Some(_)) => "its definition has no such instance any more",
                (true, None) => "its definition has instances now",
            };
            make(What::Stop, Some(reason), Vec::new())
        } else {
            None
        };
    };
    let base = match runs.service {
        Service::Up | Service::Foreground => runs.definition.as_ref().or(subject.before.as_ref()),
        Service::AtRest | Service::Failed => subject.before.as_ref(),
    };
    let base = base.unwrap_or(after);
    let changes: Vec<(Change, Need)> = changes(&subject.name, base, after)
        .into_iter()
        .map(|change| {
            let need = needed(&change, base, after);
            (change, need)
        })
        .collect();
    let sockets = !runs.sockets.is_empty() && changes.iter().any(|(change, _)| is_socket(change));
    match runs.service {
        Service::Foreground if changes.is_empty() => None,
        Service::Foreground => make(
            What::Read,
            Some("`boxctl run` has it in the foreground"),
            changes,
        ),
        Service::Up => {
            let untouched = subject.before.as_ref() == Some(after);
            if changes.is_empty() || (asked == Asked::ByChange && untouched) {
                return None;
            }
            let most = changes.iter().map(|(_, need)| *need).max()?;
            let what = match most {
                Need::Restart => What::Restart {
                    service: true,
                    sockets,
                },
                Need::Live | Need::Read => What::Change,
            };
            make(what, None, changes)
        }
        Service::AtRest | Service::Failed => {
            let at_boot = |texts: &Vec<SourceText>| {
                parse(&subject.name, texts).is_ok_and(|definition| definition.start_at_boot)
            };
            let new = subject.before.is_none();
            let listens = !runs.sockets.is_empty();
            if sockets {
                let what = What::Restart {
                    service: false,
                    sockets: true,
                };
                return make(what, None, changes);
            }
            if new && subject.others_run && !listens {
                let reason = "others of its definition run";
                return make(What::Start, Some(reason), Vec::new());
            }
            if at_boot(after) && !listens {
                if new {
                    return make(
                        What::Start,
                        Some("it is new and starts with the host"),
                        Vec::new(),
                    );
                }
                if !subject.before.as_ref().is_some_and(at_boot) {
                    return make(What::Start, Some("it starts with the host now"), changes);
                }
                if runs.service == Service::Failed && !changes.is_empty() {
                    return make(
                        What::Start,
                        Some("it failed by its earlier definition"),
                        changes,
                    );
                }
            }
            if new {
                return make(What::Read, Some("it is new"), Vec::new());
            }
            if changes.is_empty() {
                return None;
            }
            make(What::Read, None, changes)
        }
    }
}

/// The units that each box requires, by its name.
pub type Requirements = BTreeMap<Name, BTreeSet<String>>;

/// The boxes that require one of these units, or one that does: systemd stops them together.
pub fn dependents(requirements: &Requirements, of: &BTreeSet<String>) -> BTreeSet<Name> {
    let mut units = of.clone();
    let mut all = BTreeSet::new();
    loop {
        let more: Vec<Name> = requirements
            .iter()
            .filter(|(name, required)| {
                !units.contains(&name.unit()) && !required.is_disjoint(&units)
            })
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return all;
        }
        units.extend(more.iter().map(Name::unit));
        all.extend(more);
    }
}

/// Adds what systemd does along: a box that runs and requires one that is stopped for a moment is restarted, and one
/// that requires a removed one ends with it. `gone` are units that stop besides those of the boxes.
pub fn along(
    actions: &mut Vec<Action>,
    old: &Requirements,
    new: &Requirements,
    gone: &BTreeSet<String>,
    is_up: impl Fn(&Name) -> bool,
) {
    let of = |actions: &[Action], what: fn(What) -> bool| -> BTreeSet<String> {
        let chosen = actions.iter().filter(|action| what(action.what));
        chosen.map(|action| action.name.unit()).collect()
    };
    let removed = &of(actions, |what| what == What::Stop) | gone;
    let restarted = of(actions, |what| matches!(what, What::Restart { .. }));
    let end = dependents(new, &removed);
    // Those that required a removed one were stopped before systemd knew that they do not any more.
    let again = &dependents(old, &removed) | &dependents(new, &restarted);
    for name in end.iter().chain(&again) {
        if !is_up(name) || !new.contains_key(name) {
            continue;
        }
        let (what, reason) = match end.contains(name) {
            true => (
                What::Stop,
                "a box that it requires has no definition any more",
            ),
            false => (
                What::Restart {
                    service: true,
                    sockets: false,
                },
                match dependents(new, &restarted).contains(name) {
                    true => "a box that it requires is restarted",
                    false => "a box that it required is removed",
                },
            ),
        };
        let known = actions.iter_mut().find(|action| action.name == *name);
        match known {
            None => actions.push(Action {
                name: name.clone(),
                what,
                reason: Some(reason.to_owned()),
                changes: Vec::new(),
            }),
            Some(action) if what == What::Stop || action.what == What::Change => {
                action.what = what;
                action.reason = Some(reason.to_owned());
            }
            Some(_) => {}
        }
    }
    actions.sort_by(|one, other| one.name.cmp(&other.name));
}

fn is_socket(change: &Change) -> bool {
    change.key.starts_with("socket.")
}

/// What a change needs, where that depends on more than its key.
pub fn needed(change: &Change, before: &[SourceText], after: &[SourceText]) -> Need {
    let table = change.key.split('.').next().unwrap_or_default();
    let has = |texts: &[SourceText]| {
        let keys = spelled(texts);
        keys.keys().any(|key| key.starts_with(&format!("{table}.")))
    };
    // A supervisor asks a box for its health or does not from its start on.
    if table == "health" && has(before) != has(after) {
        return Need::Restart;
    }
    need(&change.key)
}

/// The boxes in the order in which they may be started: all of one step need only boxes of earlier ones.
pub fn steps(definitions: &[Definition]) -> Vec<Vec<Name>> {
    let mut left: Vec<&Definition> = definitions.iter().collect();
    let mut steps = Vec::new();
    while !left.is_empty() {
        // An instance is one of those that its definition's name stands for, too.
        let waiting: BTreeSet<String> = left
            .iter()
            .map(|definition| &definition.name)
            .flat_map(|name| [name.unit(), name.base().unit(), name.target()])
            .collect();
        let waits = |definition: &&Definition| {
            let needs = definition.after.iter().chain(&definition.requires);
            needs
                .map(|dependency: &Dependency| dependency.unit(&|_| false))
                .any(|unit| unit != definition.name.unit() && waiting.contains(&*unit))
        };
        let (mut later, mut now): (Vec<_>, Vec<_>) = left.into_iter().partition(waits);
        if now.is_empty() {
            // They wait for each other: systemd breaks the circle somewhere.
            now = std::mem::take(&mut later);
        }
        steps.push(
            now.iter()
                .map(|definition| definition.name.clone())
                .collect(),
        );
        left = later;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Option<Vec<SourceText>> {
        Some(vec![SourceText {
            path: "/etc/boxd/web.toml".into(),
            text: format!("command = ['/bin/a']\n{text}"),
        }])
    }

    fn subject(before: Option<&str>, after: Option<&str>, service: Service) -> Subject {
        Subject {
            name: "web".parse().expect("a name"),
            before: before.and_then(texts),
            after: after.and_then(texts),
            held: None,
            runs: Runs {
                service,
                definition: None,
                sockets: Vec::new(),
            },
            others_run: false,
            is_defined: after.is_some(),
        }
    }

    fn decided(subject: &Subject, asked: Asked) -> String {
        match action(subject, asked) {
            None => "nothing".to_owned(),
            Some(action) => {
                let keys: Vec<&str> = action
                    .changes
                    .iter()
                    .map(|(change, _)| change.key.as_str())
                    .collect();
                let sockets = match action.what {
                    What::Restart { sockets: true, .. } => " sockets",
                    _ => "",
                };
                format!("{}{sockets} {}", action.what.verb(), keys.join(" "))
                    .trim_end()
                    .to_owned()
            }
        }
    }

    #[test]
    fn each_change_is_carried_out_in_the_mildest_way() {
        for (before, after, expected) in [
            ("", "# a remark\n", "nothing"),
            ("", "description = 'x'", "change description"),
            ("", "restart.policy = 'always'", "change restart.policy"),
            ("", "after = ['db']", "change after"),
            (
                "[resources]\nmemory = '1G'",
                "[resources]\nmemory = '2G'\ntasks = 5",
                "change resources.memory resources.tasks",
            ),
            (
                "[resources]\nmemory = '1G'",
                "hostname = 'x'\n[resources]\nmemory = '2G'",
                "restart hostname resources.memory",
            ),
            ("", "stop.signal = 'SIGINT'", "restart stop.signal"),
            (
                "health.tcp = '127.0.0.1:80'",
                "health.tcp = '127.0.0.1:81'",
                "change health.tcp",
            ),
            ("", "health.tcp = '127.0.0.1:81'", "restart health.tcp"),
        ] {
            let running = subject(Some(before), Some(after), Service::Up);
            assert_eq!(decided(&running, Asked::ByChange), expected, "{after}");
        }
    }

    #[test]
    fn what_runs_is_judged_by_what_it_was_started_with() {
        let mut running = subject(Some(""), Some("hostname = 'x'"), Service::Up);
        running.runs.definition = texts("hostname = 'x'");
        assert_eq!(decided(&running, Asked::ByChange), "nothing");
        // It was not restarted after an earlier change: only somebody who asks for it has that done.
        running.before = texts("hostname = 'x'");
        running.runs.definition = texts("hostname = 'y'");
        assert_eq!(decided(&running, Asked::ByChange), "nothing");
        assert_eq!(decided(&running, Asked::ByPerson), "restart hostname");
        running.runs.service = Service::Foreground;
        assert_eq!(decided(&running, Asked::ByPerson), "read hostname");
    }

    #[test]
    fn boxes_come_and_go_with_their_definitions() {
        let boot = "start-at-boot = true";
        for (before, after, service, expected) in [
            (None, Some(boot), Service::AtRest, "start"),
            (None, Some(""), Service::AtRest, "read"),
            (None, Some(boot), Service::Up, "nothing"),
            (Some(boot), Some(boot), Service::AtRest, "nothing"),
            (Some(""), Some(boot), Service::AtRest, "start start-at-boot"),
            (
                Some(boot),
                Some("start-at-boot = true\nhostname = 'x'"),
                Service::AtRest,
                "read hostname",
            ),
            (
                Some(boot),
                Some("start-at-boot = true\nhostname = 'x'"),
                Service::Failed,
                "start hostname",
            ),
            (Some(""), None, Service::Up, "stop"),
            (Some(""), None, Service::AtRest, "nothing"),
            (None, None, Service::Up, "nothing"),
        ] {
            let subject = subject(before, after, service);
            assert_eq!(
                decided(&subject, Asked::ByChange),
                expected,
                "{before:?} {after:?} {service:?}"
            );
        }
    }

    #[test]
    fn instances_come_and_go_by_their_number() {
        let two = "instances = 2";
        for (instance, before, after, service, expected) in [
            (
                1,
                Some(two),
                Some("instances = 3"),
                Service::Up,
                "change instances",
            ),
            (3, None, Some("instances = 3"), Service::AtRest, "start"),
            (2, Some(two), None, Service::Up, "stop"),
            (
                2,
                Some(two),
                Some("instances = 2\nhostname = ['a', { instance = 'index' }]"),
                Service::Up,
                "restart hostname",
            ),
            // What one of them gets is what counts for it.
            (
                2,
                Some("instances = 2\nhostname = 'a2'"),
                Some("instances = 2\nhostname = ['a', { instance = 'index' }]"),
                Service::Up,
                "nothing",
            ),
        ] {
            let mut subject = subject(before, after, service);
            subject.name = subject.name.with_instance(instance);
            subject.others_run = true;
            subject.is_defined = true;
            let found = decided(&subject, Asked::ByChange);
            assert_eq!(found, expected, "{before:?} {after:?}");
        }
        let mut one = subject(Some(""), None, Service::Up);
        one.is_defined = true;
        let action = action(&one, Asked::ByChange).expect("an action");
        let reason = action.reason.as_deref();
        assert_eq!(reason, Some("its definition has instances now"));
    }

    #[test]
    fn sockets_are_opened_anew_where_they_changed() {
        let socket = |port: u16| format!("[[socket]]\nstream = {port}\n");
        let (old, new) = (socket(80), socket(81));
        let mut listens = subject(Some(&old), Some(&new), Service::AtRest);
        assert_eq!(
            decided(&listens, Asked::ByChange),
            "read socket.1.stream",
            "closed"
        );
        listens.runs.sockets = vec!["box@web.socket".to_owned()];
        assert_eq!(
            decided(&listens, Asked::ByChange),
            "restart sockets socket.1.stream"
        );
        listens.runs.service = Service::Up;
        assert_eq!(
            decided(&listens, Asked::ByChange),
            "restart sockets socket.1.stream"
        );
        listens.after = None;
        listens.runs.service = Service::AtRest;
        assert_eq!(decided(&listens, Asked::ByChange), "stop");
    }

    #[test]
    fn what_systemd_does_along_is_known_before() {
        let name = |name: &str| -> Name { name.parse().expect("a name") };
        let requires = |pairs: &[(&str, &str)]| -> Requirements {
            let pair = |(one, other): &(&str, &str)| (name(one), [name(other).unit()].into());
            pairs.iter().map(pair).collect()
        };
        let action = |of: &str, what| Action {
            name: name(of),
            what,
            reason: None,
            changes: Vec::new(),
        };
        let restart = |sockets| What::Restart {
            service: true,
            sockets,
        };
        let old = requires(&[
            ("app", "db"),
            ("web", "app"),
            ("idle", "db"),
            ("far", "cache"),
        ]);
        let shown = |actions: Vec<Action>, new: &Requirements| {
            let mut actions = actions;
            along(&mut actions, &old, new, &BTreeSet::new(), |name| {
                name.as_str() != "idle"
            });
            let shown = actions.iter();
            let shown = shown.map(|action| format!("{} {}", action.what.verb(), action.name));
            shown.collect::<Vec<_>>().join(", ")
        };
        let reopened = vec![action("db", restart(true)), action("web", What::Change)];
        assert_eq!(
            shown(reopened, &old),
            "restart app, restart db, restart web"
        );
        let removed = || vec![action("db", What::Stop)];
        assert_eq!(shown(removed(), &old), "stop app, stop db, stop web");
        let new = requires(&[("app", "cache"), ("web", "app")]);
        assert_eq!(shown(removed(), &new), "restart app, stop db, restart web");
        assert_eq!(shown(vec![action("db", What::Change)], &old), "change db");
    }

    #[test]
    fn every_step_needs_only_earlier_ones() {
        let definition = |name: &str, more: &str| {
            let more = match name.contains(':') {
                true => format!("instances = 3\n{more}"),
                false => more.to_owned(),
            };
            let text = SourceText {
                path: "x".into(),
                text: format!("command = ['/bin/a']\n{more}"),
            };
            parse(&name.parse().expect("a name"), &[text]).expect("a definition")
        };
        let definitions = [
            definition("web", "after = ['app']\nrequires = ['elsewhere']"),
            definition("app", "requires = ['db']\nafter = ['network.target']"),
            definition("db", ""),
            definition("last", "after = ['pool']"),
            definition("pool:1", "after = ['db']"),
            definition("pool:2", "after = ['db']"),
            definition("a", "after = ['b']"),
            definition("b", "after = ['a']"),
        ];
        let steps: Vec<Vec<String>> = steps(&definitions)
            .into_iter()
            .map(|step| step.into_iter().map(String::from).collect())
            .collect();
        let expected: [&[&str]; 4] = [
            &["db"],
            &["app", "pool:1", "pool:2"],
            &["web", "last"],
            &["a", "b"],
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn keys_that_need_no_restart_are_keys() {
        let known: BTreeSet<String> = crate::definition::keys()
            .into_iter()
            .map(|key| key.path)
            .collect();
        for key in READ.iter().chain(&["description", "resources.memory"]) {
            assert!(known.contains(*key), "{key}");
        }
    }
}
