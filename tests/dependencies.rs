//! What others have written and boxd is made of: what `.deny.toml` says of it, as far as that can be known without
//! a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;

/// `.deny.toml`, the part that is held here.
#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bans {
    skip_tree: Vec<Skipped>,
    skip: Vec<Skipped>,
}

/// `NAME` or `NAME:VERSION`, where the version may be a first part of it.
#[derive(Deserialize)]
struct Skipped {
    name: String,
    reason: String,
}

/// `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// None for this crate itself.
    source: Option<String>,
    dependencies: Vec<Requirement>,
}

#[derive(Deserialize)]
struct Requirement {
    name: String,
    req: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
    root: String,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

fn policy() -> Policy {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deny.toml");
    let text = fs::read_to_string(path).expect("a readable file");
    toml::from_str(&text).expect("a policy")
}

/// All packages that are built on a machine like this one.
fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--locked", "--offline"])
            .args(["--filter-platform", &platform])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("metadata")
    })
}

impl Skipped {
    fn is(&self, package: &Package) -> bool {
        let (name, version) = self.name.split_once(':').unwrap_or((&self.name, ""));
        name == package.name
            && (version.is_empty()
                || format!("{}.", package.version).starts_with(&format!("{version}.")))
    }
}

/// Whether a licence expression of SPDX can be kept with these licences alone; `/` is an old way to write OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any(&mut words, allowed) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut result = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        result |= all(words, allowed);
    }
    result
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut result = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed);
    }
    result
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => {
            let inner = any(words, allowed);
            let closed = words.next() == Some(")");
            inner && closed
        }
        Some(licence) => match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
            Some(exception) => allowed.contains(&format!("{licence} WITH {exception}")),
            None => allowed.contains(licence),
        },
        None => false,
    }
}

fn report(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn licences_are_among_those_we_can_keep() {
    let Policy { licenses, .. } = policy();
    let wrong = metadata().packages.iter().filter_map(|package| {
        let license = package.license.as_deref().unwrap_or("none");
        let complaint = || format!("{} {}: {license}", package.name, package.version);
        (!is_allowed(license, &licenses.allow)).then(complaint)
    });
    report(wrong.collect());
}

#[test]
fn an_expression_of_licences_is_kept_as_it_is_written() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    let allowed = BTreeSet::from(allowed);
    for (expression, answer) in [
        ("MIT", true),
        ("GPL-2.0", false),
        ("GPL-2.0 OR MIT", true),
        ("MIT/GPL-2.0", true),
        ("MIT AND GPL-2.0", false),
        ("(GPL-2.0 OR MIT) AND Apache-2.0", true),
        ("GPL-2.0 OR MIT AND GPL-3.0", false),
        ("(GPL-2.0 AND MIT) OR MIT", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT WITH Some-exception", false),
        ("(MIT", false),
        ("MIT GPL-2.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), answer, "{expression:?}");
    }
}

#[test]
fn everything_comes_from_the_registry_in_a_version_that_is_asked_for() {
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        let Some(source) = &package.source else {
            for Requirement { name, req } in &package.dependencies {
                if req.contains('*') {
                    wrong.push(format!("{name}: any version is asked for"));
                }
            }
            continue;
        };
        if source != registry {
            wrong.push(format!("{} comes from {source}", package.name));
        }
    }
    report(wrong);
}

/// Two versions of a crate are twice the code, and types that look alike and are not.
#[test]
fn every_crate_is_there_in_one_version() {
    let Policy { bans, .. } = policy();
    for skipped in bans.skip.iter().chain(&bans.skip_tree) {
        assert!(!skipped.reason.is_empty(), "{}: why?", skipped.name);
        assert!(
            metadata()
                .packages
                .iter()
                .any(|package| skipped.is(package)),
            "{}: is not there any more",
            skipped.name
        );
    }
    let packages: BTreeMap<_, _> = metadata()
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let nodes: BTreeMap<_, _> = metadata()
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![metadata().resolve.root.as_str()];
    while let Some(id) = waiting.pop() {
        let package = packages[id];
        if !seen.insert(id) || bans.skip_tree.iter().any(|skipped| skipped.is(package)) {
            continue;
        }
        waiting.extend(nodes[id].dependencies.iter().map(String::as_str));
        if !bans.skip.iter().any(|skipped| skipped.is(package)) {
            versions
                .entry(&package.name)
                .or_default()
                .insert(&package.version);
        }
    }
    let wrong = versions
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1);
    report(
        wrong
            .map(|(name, versions)| format!("{name}: {versions:?}"))
            .collect(),
    );
}
