//! Golden folders: `tests/plans/NN-name/definition.toml`, with its drop-ins beside it, is planned on a fixed
//! host, one with instances for the second of them. What comes of it is `plan.expected`, or `problems.expected` where
//! the host cannot do it. `UPDATE_EXPECTED=1 cargo test --test plans` writes them anew. Folders with an `error.expected` hold no
//! definition at all and belong to the test of definitions; a folder that is a link holds shipped examples, which
//! are planned and not compared.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use boxd::definition::{Definition, SourceText, load_file_of_one, parse};
use boxd::host::Host;
use boxd::name::Name;
use boxd::plan::{Plan, print, resolve};

/// Files by their names, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    files.sort();
    files
}

fn is_toml(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "toml")
}

fn definition(folder: &Path) -> Definition {
    let mut files: Vec<PathBuf> = files(folder)
        .into_iter()
        .filter(|path| is_toml(path))
        .collect();
    files.sort_by_key(|path| !path.ends_with("definition.toml"));
    let texts: Vec<SourceText> = files
        .iter()
        .map(|path| SourceText {
            path: path.file_name().expect("a file name").into(),
            text: fs::read_to_string(path).expect("a readable file"),
        })
        .collect();
    let name: Name = "sample".parse().expect("a name");
    let read =
        |name| parse(&name, &texts).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let definition = read(name.clone());
    match definition.is_of_all() {
        true => read(name.with_instance(2)),
        false => definition,
    }
}

fn plan(definition: &Definition) -> Result<Plan, String> {
    resolve(definition, &Host::fixed(definition)).map_err(|problems| {
        problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect()
    })
}

/// Compares with a file of the repository, or writes it anew when asked to; says what differs.
fn compare(path: &Path, found: &str) -> Option<String> {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, found).expect("the expected file can be written");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    let differing = expected
        .lines()
        .zip(found.lines())
        .find(|(expected, found)| expected != found);
    let path = path.display();
    match differing {
        Some((expected, found)) => Some(format!(
            "{path}:\n  expected {expected}\n  found    {found}"
        )),
        None if expected != found => Some(format!(
            "{path}: {} lines expected, {} found",
            expected.lines().count(),
            found.lines().count()
        )),
        None => None,
    }
}

#[test]
fn every_definition_is_planned_as_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut planned = 0;
    let mut wrong = Vec::new();
    for folder in files(&root) {
        if folder.join("error.expected").exists() {
            continue;
        }
        planned += 1;
        if folder.is_symlink() {
            for path in files(&folder).into_iter().filter(|path| is_toml(path)) {
                let definition = load_file_of_one(&path).expect("a good example");
                if let Err(problems) = plan(&definition) {
                    wrong.push(format!("{}:\n{problems}", path.display()));
                }
            }
            continue;
        }
        let (file, other, found) = match plan(&definition(&folder)) {
            Ok(plan) => ("plan.expected", "problems.expected", print(&plan)),
            Err(problems) => ("problems.expected", "plan.expected", problems),
        };
        if folder.join(other).exists() {
            wrong.push(format!("{}: unexpectedly\n{found}", folder.display()));
        } else {
            wrong.extend(compare(&folder.join(file), &found));
        }
    }
    writeln!(
        std::io::stdout(),
        "{planned} folders of tests/plans planned"
    )
    .expect("stdout is open");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(planned >= 10, "only {planned} folders with plans");
}
