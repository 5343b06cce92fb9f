//! What is put back of a generation that failed, and what else is to run again then.

use std::collections::{BTreeMap, BTreeSet};

use super::super::diff::{Action, Runs, Service, What, dependents};
use super::super::intend::{definitions, requirements};
use super::{Blame, Failures};
use crate::definition::SourceText;
use crate::generation::{Entry, Held, Why};
use crate::name::Name;

/// A definition that is not in force any more.
struct Refused {
    /// The one that is instead; none if none is known.
    last: Option<Vec<SourceText>>,
    /// What became of the box that failed.
    reason: String,
}

/// The boxes with those that failed put back, and what is to be done for that.
pub(super) fn put_back(
    before: &BTreeMap<Name, Entry>,
    mut boxes: BTreeMap<Name, Entry>,
    runs: &BTreeMap<Name, Runs>,
    now: &BTreeMap<Name, Runs>,
    actions: &[Action],
    failures: &Failures,
) -> (BTreeMap<Name, Entry>, Vec<Action>) {
    let mut back = Vec::new();
    let is_up = |runs: Option<&Runs>| runs.is_some_and(|runs| runs.service == Service::Up);
    // To start a box with sockets is to open these, and one that ran is not to wait for a connection.
    let again = |name: &Name, what: What| match what {
        What::Restart { sockets, .. } if is_up(runs.get(name)) => What::Restart {
            service: true,
            sockets,
        },
        _ => What::Start,
    };
    let mut refused: BTreeMap<Name, Refused> = BTreeMap::new();
    for action in actions {
        let (name, base) = (&action.name, action.name.base());
        let (Some(failure), Some(entry)) = (failures.get(name), boxes.get_mut(&base)) else {
            continue;
        };
        if failure.blame != Blame::Definition {
            // What it requires may be there once that was put back.
            let starts = matches!(action.what, What::Start | What::Restart { .. });
            if starts && failure.blame == Blame::Requirement {
                back.push(Action {
                    what: again(name, action.what),
                    ..action.clone()
                });
            }
            continue;
        }
        if refused.contains_key(&base) {
            continue;
        }
        let last = match runs.get(name) {
            Some(runs) if runs.service == Service::Up => runs.definition.clone(),
            _ => None,
        };
        let other = |last: &Vec<SourceText>| Some(last) != entry.definition.as_ref();
        let last = last
            .filter(other)
            .or_else(|| before.get(&base)?.definition.clone().filter(other));
        let unchanged = before.get(&base).map(|entry| &entry.definition) == Some(&entry.definition);
        if last.is_none() && unchanged && entry.definition.is_some() {
            // It was restarted for the sake of another one, and there is no other definition to blame.
            back.push(Action {
                what: again(name, action.what),
                ..action.clone()
            });
            continue;
        }
        let instead_of = match entry.held.take() {
            Some(held) => held.instead_of,
            None => entry.definition.clone(),
        };
        let of_instance = match name.instance() {
            Some(_) => format!("{name} {}", failure.reason),
            None => format!("it {}", failure.reason),
        };
        entry.definition.clone_from(&last);
        entry.held = Some(Held {
            why: Why::Rejected,
            reason: format!("{of_instance} by what its files say"),
            instead_of,
        });
        let reason = failure.reason.clone();
        refused.insert(base, Refused { last, reason });
    }
    // All boxes of a definition go back to it together.
    for action in actions {
        let name = &action.name;
        let Some(Refused { last, reason }) = refused.get(&name.base()) else {
            continue;
        };
        let runs = runs.get(name).cloned().unwrap_or_default();
        let is_by_it =
            |runs: &Runs| runs.service == Service::Up && last.is_some() && runs.definition == *last;
        let untouched = !failures.contains_key(name) && now.get(name).is_some_and(is_by_it);
        let what = match (action.what, runs.service, last) {
            (What::Change | What::Restart { .. }, ..) if untouched => None,
            (What::Change, _, Some(_)) => Some(What::Change),
            (What::Restart { service, sockets }, _, Some(_)) => {
                Some(What::Restart { service, sockets })
            }
            // It failed when the host started, perhaps by the same definition, and is to run.
            (What::Start, Service::Failed, Some(_)) => Some(What::Start),
            // It did not run before.
            (What::Start, _, Some(_)) => Some(What::Stop),
            // Others came in its place, or it was one too many.
            (What::Stop, Service::Up, Some(_)) => Some(What::Restart {
                service: true,
                sockets: !runs.sockets.is_empty(),
            }),
            // It waited for a connection.
            (What::Stop, _, Some(_)) if !runs.sockets.is_empty() => Some(What::Start),
            _ => None,
        };
        back.extend(what.map(|what| Action {
            name: name.clone(),
            what,
            reason: Some(reason.clone()),
            changes: Vec::new(),
        }));
    }
    let known: BTreeSet<Name> = actions
        .iter()
        .filter(|action| !matches!(action.what, What::Change | What::Read))
        .map(|action| action.name.clone())
        .collect();
    let failed = failures.keys().map(Name::unit).collect();
    let stopped = dependents(&requirements(&definitions(&boxes)), &failed)
        .into_iter()
        .filter(|name| !known.contains(name))
        .filter(|name| is_up(runs.get(name)));
    back.extend(stopped.map(|name| Action {
        what: match is_up(now.get(&name)) {
            true => What::Start,
            false => What::Restart {
                service: true,
                sockets: false,
            },
        },
        name,
        reason: Some("a box it requires failed".to_owned()),
        changes: Vec::new(),
    }));
    (boxes, back)
}

#[cfg(test)]
mod tests {
    use super::super::Failure;
    use super::super::tests::{name, texts};
    use super::*;

    #[test]
    fn boxes_that_ran_run_again_when_one_they_require_is_put_back() {
        let restart = |sockets| What::Restart {
            service: true,
            sockets,
        };
        let listens = "requires = ['db']\n[[socket]]\nstream = ['/run/x']\n";
        let entries = |db: &str| -> BTreeMap<Name, Entry> {
            let one = |(of, more): (&str, &str)| {
                let definition = texts(more);
                let held = None;
                (name(of), Entry { definition, held })
            };
            let others = ["app", "idle", "lives", "web"].map(|of| (of, listens));
            [("db", db)].into_iter().chain(others).map(one).collect()
        };
        let up = |names: &[&str]| -> BTreeMap<Name, Runs> {
            let one = |of: &&str| {
                let runs = Runs {
                    service: Service::Up,
                    ..Runs::default()
                };
                (name(of), runs)
            };
            names.iter().map(one).collect()
        };
        let action = |of: &str, what| Action {
            name: name(of),
            what,
            reason: None,
            changes: Vec::new(),
        };
        let failure = |of: &str, blame| {
            let reason = "did not start".to_owned();
            (name(of), Failure { reason, blame })
        };
        let (boxes, back) = put_back(
            &entries("hostname = 'old'"),
            entries("hostname = 'new'"),
            &up(&["db", "app", "web", "lives"]),
            &up(&["lives"]),
            &[
                action("app", restart(false)),
                action("db", restart(false)),
                action("idle", What::Start),
            ],
            &[
                failure("app", Blame::Requirement),
                failure("db", Blame::Definition),
                failure("idle", Blame::Requirement),
            ]
            .into(),
        );
        let back: BTreeMap<Name, What> = back
            .into_iter()
            .map(|action| (action.name, action.what))
            .collect();
        let expected = [
            ("app", restart(false)),
            ("db", restart(false)),
            ("idle", What::Start),
            ("lives", What::Start),
            ("web", restart(false)),
        ];
        assert_eq!(back, expected.map(|(of, what)| (name(of), what)).into());
        let db = &boxes[&name("db")];
        assert_eq!(db.definition, texts("hostname = 'old'"));
        assert_eq!(db.held.as_ref().map(|held| held.why), Some(Why::Rejected));
    }

    #[test]
    fn a_box_that_failed_before_is_tried_by_its_last_good_definition() {
        let entries = |more: &str| -> BTreeMap<Name, Entry> {
            let definition = texts(more);
            let held = None;
            [(name("web"), Entry { definition, held })].into()
        };
        let back = |service: Service| {
            let ran = Runs {
                service,
                ..Runs::default()
            };
            let action = Action {
                name: name("web"),
                what: What::Start,
                reason: None,
                changes: Vec::new(),
            };
            let failure = Failure {
                reason: "did not start".to_owned(),
                blame: Blame::Definition,
            };
            let (_, back) = put_back(
                &entries("hostname = 'old'"),
                entries("hostname = 'new'"),
                &[(name("web"), ran)].into(),
                &BTreeMap::new(),
                &[action],
                &[(name("web"), failure)].into(),
            );
            back[0].what
        };
        assert_eq!(back(Service::Failed), What::Start);
        assert_eq!(back(Service::AtRest), What::Stop);
    }

    #[test]
    fn instances_go_back_together() {
        let restart = What::Restart {
            service: true,
            sockets: false,
        };
        let (old, new) = ("instances = 4", "instances = 5\nhostname = 'new'");
        let entries = |text: &str| -> BTreeMap<Name, Entry> {
            let definition = texts(text);
            let held = None;
            [(name("web"), Entry { definition, held })].into()
        };
        let up = |boxes: &[(&str, &str)]| -> BTreeMap<Name, Runs> {
            let one = |(of, text): &(&str, &str)| {
                let runs = Runs {
                    service: Service::Up,
                    definition: texts(text),
                    ..Runs::default()
                };
                (name(of), runs)
            };
            boxes.iter().map(one).collect()
        };
        let action = |of: &str, what| Action {
            name: name(of),
            what,
            reason: None,
            changes: Vec::new(),
        };
        let mut before = up(&[("web:1", old), ("web:2", old), ("web:3", old)]);
        // Those that the new definition has not: two that run, of which one listens, one that only listens, and one at
        // rest.
        before.extend(up(&[("web:6", old), ("web:7", old)]));
        let listens = |service| Runs {
            service,
            sockets: vec!["box@web.socket".to_owned()],
            ..Runs::default()
        };
        before.insert(name("web:7"), listens(Service::Up));
        before.insert(name("web:8"), listens(Service::AtRest));
        // The third one is not reached, the fourth was at rest, and the fifth is new.
        let now = up(&[("web:1", new), ("web:3", old), ("web:5", new)]);
        let failed = Failure {
            reason: "did not restart".to_owned(),
            blame: Blame::Definition,
        };
        let actions = [
            action("web:1", restart),
            action("web:2", restart),
            action("web:3", restart),
            action("web:4", What::Read),
            action("web:5", What::Start),
            action("web:6", What::Stop),
            action("web:7", What::Stop),
            action("web:8", What::Stop),
            action("web:9", What::Stop),
        ];
        let failures = [(name("web:2"), failed)].into();
        let (boxes, back) = put_back(
            &entries(old),
            entries(new),
            &before,
            &now,
            &actions,
            &failures,
        );
        let back: Vec<(String, What)> = back
            .into_iter()
            .map(|action| (action.name.to_string(), action.what))
            .collect();
        let expected = [
            ("web:1", restart),
            ("web:2", restart),
            ("web:5", What::Stop),
            ("web:6", restart),
            (
                "web:7",
                What::Restart {
                    service: true,
                    sockets: true,
                },
            ),
            ("web:8", What::Start),
        ];
        assert_eq!(back, expected.map(|(of, what)| (of.to_owned(), what)));
        let web = &boxes[&name("web")];
        assert_eq!(web.definition, texts(old));
        let held = web.held.as_ref().expect("held");
        assert_eq!(held.instead_of, texts(new));
        assert!(
            held.reason.starts_with("web:2 did not restart"),
            "{}",
            held.reason
        );
    }
}
