//! `[security]`: what the box may do.

use super::diagnostics::{Place, Problem};
use super::quantity::nearest;
use super::section::{Item, Section};
use super::tree::Value;
use super::values::{HOST_PATH, capability};
use super::{Clock, Seccomp, Security, Users};
use crate::syscall::{Architecture, Syscall};

const SECCOMP: &str = "expected \"profile\", \"unconfined\", or a table, as in { allow = [\"keyctl\"] } or { file = \"/etc/boxd/web.json\" }";

const SYSCALL: &str = "expected the name of a system call, as in \"keyctl\"";

pub(super) fn security(mut section: Section<'_>) -> Security {
    let seccomp = section.read_placed("seccomp", seccomp);
    let architectures = section.read_placed("syscall-archs", architectures);
    check_architectures(&section, seccomp.as_ref(), architectures.as_ref());
    let security = Security {
        users: section
            .read("users", |item| {
                item.choice(&[("auto", Users::Auto), ("host", Users::Host)])
            })
            .unwrap_or_default(),
        capabilities: section
            .read("capabilities", |item| {
                item.list("expected a list, as in [\"+NET_RAW\"]", capability)
            })
            .unwrap_or_default(),
        no_new_privileges: section.read("no-new-privileges", |item| item.boolean()),
        clock: section
            .read("clock", |item| {
                item.choice(&[("host", Clock::Host), ("private", Clock::Private)])
            })
            .unwrap_or_default(),
        seccomp: seccomp.map(|(seccomp, _)| seccomp).unwrap_or_default(),
        syscall_architectures: architectures
            .map(|(architectures, _)| architectures)
            .unwrap_or_default(),
    };
    section.finish();
    security
}

fn seccomp(item: Item<'_>) -> Option<Seccomp> {
    match &item.at.value {
        Value::String(_) => item
            .choice(&[
                ("profile", Choice::Profile),
                ("unconfined", Choice::Unconfined),
            ])
            .map(|choice| match choice {
                Choice::Profile => Seccomp::Profile,
                Choice::Unconfined => Seccomp::Unconfined,
            }),
        Value::Table(_) => changes_or_file(item),
        _ => item.wrong_type(SECCOMP),
    }
}

#[derive(Clone, Copy)]
enum Choice {
    Profile,
    Unconfined,
}

fn changes_or_file(item: Item<'_>) -> Option<Seccomp> {
    let mut table = Section::element(
        "security.seccomp",
        "security.seccomp",
        item.at,
        item.problems,
    )?;
    let change_at = table.place_of("allow").or_else(|| table.place_of("deny"));
    let file = table.read_placed("file", |item| item.path(HOST_PATH));
    let mut calls = |key| {
        table
            .read(key, |item| {
                item.list(
                    "expected a list of system calls, as in [\"keyctl\"]",
                    syscall,
                )
            })
            .unwrap_or_default()
    };
    let (allow, deny) = (calls("allow"), calls("deny"));
    if let (Some((_, file)), Some(change)) = (&file, &change_at) {
        item.problems.report(
            Problem::at(
                file,
                "the system calls are given twice",
                "expected either a file, or changes to the profile by allow and deny",
            )
            .related(change, "changed here"),
        );
    }
    table.finish();
    Some(match file {
        Some((file, _)) => Seccomp::File(file),
        None => Seccomp::Changes { allow, deny },
    })
}

fn syscall(item: Item<'_>) -> Option<Syscall> {
    item.parsed(SYSCALL, |text| {
        Syscall::of(text).ok_or_else(|| match nearest(text, Syscall::all().map(Syscall::name)) {
            Some(near) => format!("did you mean \"{near}\"? {SYSCALL}"),
            None => SYSCALL.to_owned(),
        })
    })
}

fn architectures(item: Item<'_>) -> Option<Vec<Architecture>> {
    let choices = Architecture::ALL.map(|architecture| (architecture.name(), architecture));
    item.list(
        "expected a list of architectures, as in [\"x86\"]",
        |item| item.choice(&choices),
    )
}

/// A file has architectures of its own, and where nothing is filtered there is nothing to add to.
fn check_architectures(
    section: &Section<'_>,
    seccomp: Option<&(Seccomp, Place)>,
    architectures: Option<&(Vec<Architecture>, Place)>,
) {
    let (Some((seccomp, seccomp_at)), Some((_, place))) = (seccomp, architectures) else {
        return;
    };
    let reason = match seccomp {
        Seccomp::Profile | Seccomp::Changes { .. } => return,
        Seccomp::File(_) => "the file says which in its own `architectures`",
        Seccomp::Unconfined => "without a filter, programs of all architectures run",
    };
    let title = "`security.syscall-archs` does not go with this `seccomp`";
    section
        .problems()
        .report(Problem::at(place, title, reason).related(seccomp_at, "given here"));
}
