//! Definitions with drop-ins: all that is wrong has its place, and what is right can be planned.

use boxd::definition::{Definition, Diagnostics, SourceText, Style, parse, understand};
use boxd::host::Host;
use boxd::plan::{Plan, print, resolve};
use boxd::sandbox::seccomp::compile;

use super::input::{assert_plain, texts};

/// Most bytes that are shown of one problem: two lines of the text with what stands below them.
const SHOWN_MAX: usize = 40 << 10;

/// A definition and its drop-ins, with bytes 0xFF between them.
pub fn definition(data: &[u8]) {
    let name = "sample".parse().expect("a name");
    let texts: Vec<SourceText> = texts(data)
        .into_iter()
        .take(4)
        .enumerate()
        .map(|(index, text)| SourceText {
            path: format!("/etc/boxd/sample.toml.d/{index}.toml").into(),
            text,
        })
        .collect();
    let (understood, wrong) = understand(&name, &texts);
    match parse(&name, &texts) {
        Ok(parsed) => {
            assert!(wrong.is_none());
            assert_eq!(parsed, understood);
        }
        Err(diagnostics) => assert_eq!(Some(&diagnostics), wrong.as_ref()),
    }

    // All that is said holds of a drop-in as well, and a file that says nothing changes nothing.
    let silent = SourceText {
        path: "/etc/boxd/sample.toml".into(),
        text: "# nothing\n".to_owned(),
    };
    let more: Vec<SourceText> = std::iter::once(silent).chain(texts).collect();
    let (mut again, wrong_again) = understand(&name, &more);
    let count = |wrong: &Option<Diagnostics>| wrong.as_ref().map(Diagnostics::count);
    assert_eq!(count(&wrong_again), count(&wrong));
    again.sources.clone_from(&understood.sources);
    assert_eq!(again, understood);

    super::generator::units_say_what_is_meant(&understood);
    match wrong {
        Some(diagnostics) => shown(&diagnostics),
        None => planned(&understood),
    }
}

fn shown(diagnostics: &Diagnostics) {
    assert_eq!(diagnostics.places().count(), diagnostics.count());
    for (source, span) in diagnostics.places().flatten() {
        let text = source.text.get(span.clone());
        assert!(text.is_some(), "{span:?} of {} bytes", source.text.len());
    }
    let plain = diagnostics.render(Style::PLAIN);
    assert_plain(&plain);
    assert!(plain.len() <= SHOWN_MAX * (diagnostics.count().min(50) + 1));
    let coloured = Style {
        color: true,
        width: 80,
    };
    assert!(diagnostics.render(coloured).contains('\u{1b}'));
}

/// Whatever a good definition says, on a host on which everything works there is a plan, or a reason why not.
fn planned(definition: &Definition) {
    serde_json::to_string(definition).expect("JSON");
    let host = Host::fixed(definition);
    let plan = match resolve(definition, &host) {
        Ok(plan) => plan,
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert_plain(&problem.to_string());
            }
            return;
        }
    };
    assert_plain(&print(&plan));
    let json = serde_json::to_vec(&plan).expect("JSON");
    let read: Plan = serde_json::from_slice(&json).expect("the plan");
    assert_eq!(read, plan);
    if let Some(policy) = &plan.privileges.seccomp {
        let filter = compile(policy).expect("names alone fit into a program");
        super::bpf::check(filter.instructions()).expect("a program for the kernel");
    }
}
