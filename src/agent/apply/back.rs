//! What is put back of a generation that failed, and what else is to run again then.

use std::collections::{BTreeMap, BTreeSet};

use super::super::diff::{Action, Runs, Service, What, dependents};
use super::super::intend::requirements;
use super::{Blame, Failures};
use crate::definition::SourceText;
use crate::generation::{Entry, Held, Why};
use crate::name::Name;

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
    for action in actions {
        let name = &action.name;
        let (Some(failure), Some(entry)) = (failures.get(name), boxes.get_mut(name)) else {
            continue;
        };
        let runs = runs.get(name).cloned().unwrap_or_default();
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
        let last = match runs.service {
            Service::Up => runs.definition,
            _ => None,
        };
        let other = |last: &Vec<SourceText>| Some(last) != entry.definition.as_ref();
        let last = last
            .filter(other)
            .or_else(|| before.get(name)?.definition.clone().filter(other));
        let unchanged = before.get(name).map(|entry| &entry.definition) == Some(&entry.definition);
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
        let what = match (action.what, runs.service, &last) {
            (What::Change, _, Some(_)) => Some(What::Change),
            (What::Restart { service, sockets }, _, Some(_)) => {
                Some(What::Restart { service, sockets })
            }
            // It failed when the host started, perhaps by the same definition, and is to run.
            (What::Start, Service::Failed, Some(_)) => Some(What::Start),
            // It did not run before.
            (What::Start, _, Some(_)) => Some(What::Stop),
            _ => None,
        };
        entry.definition = last;
        entry.held = Some(Held {
            why: Why::Rejected,
            reason: format!("it {} by what its files say", failure.reason),
            instead_of,
        });
        back.extend(what.map(|what| Action {
            name: name.clone(),
            what,
            reason: Some(failure.reason.clone()),
            changes: Vec::new(),
        }));
    }
    let known: BTreeSet<Name> = actions
        .iter()
        .filter(|action| !matches!(action.what, What::Change | What::Read))
        .map(|action| action.name.clone())
        .collect();
    let failed = failures.keys().cloned().collect();
    let stopped = dependents(&requirements(&boxes), &failed)
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
}
