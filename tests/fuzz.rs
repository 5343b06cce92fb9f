//! The properties that `tests/fuzz/run` has libFuzzer search for violations of, for the inputs that it found worth
//! keeping, for mutations of them, and for long ones. The number of cases is fixed, not the time: all together take
//! about a minute on a slow machine.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

#[path = "fuzz/properties/lib.rs"]
mod properties;

/// Bytes of a corpus, all its inputs together.
const CORPUS_MAX: usize = 100 << 10;

/// Most bytes of a mutated input.
const INPUT_MAX: usize = 64 << 10;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = repository("tests/fuzz/corpus").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| fs::read(path).expect("a readable input"))
        .collect();
    let size: usize = inputs.iter().map(Vec::len).sum();
    assert!(
        !inputs.is_empty() && size <= CORPUS_MAX,
        "{target}: {} inputs of {size} bytes",
        inputs.len()
    );
    inputs
}

/// The definitions of the golden folders with their drop-ins, as inputs.
fn golden_definitions() -> Vec<Vec<u8>> {
    let folders = fs::read_dir(repository("tests/plans")).expect("tests/plans");
    let mut folders: Vec<PathBuf> = folders
        .map(|folder| folder.expect("a readable entry").path())
        .collect();
    folders.sort();
    folders
        .iter()
        .map(|folder| {
            let mut files: Vec<PathBuf> = fs::read_dir(folder)
                .expect("a folder")
                .map(|file| file.expect("a readable entry").path())
                .filter(|file| {
                    file.extension()
                        .is_some_and(|extension| extension == "toml")
                })
                .collect();
            // The definition first, then its drop-ins.
            files.sort_by_key(|file| (!file.ends_with("definition.toml"), file.clone()));
            let texts: Vec<Vec<u8>> = files
                .iter()
                .map(|file| fs::read(file).expect("a readable file"))
                .collect();
            texts.join(&0xFF)
        })
        .collect()
}

/// A change to an input; places are counted round and round.
#[derive(Debug, Clone)]
enum Change {
    Replace(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    /// So many bytes from here are put there as well.
    Repeat(usize, usize, usize),
    /// Up to here this input, from there on another.
    Splice(usize, usize, usize),
}

fn any_change() -> impl Strategy<Value = Change> {
    let place = || 0..INPUT_MAX;
    let special = prop::sample::select(&b"\0\n\r\x1b\x7f %\\\"'=#;[]{},:.-+<>0189/\xff"[..]);
    let byte = || prop_oneof![special.clone(), any::<u8>()];
    prop_oneof![
        (place(), byte()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (place(), prop::collection::vec(byte(), 1..8))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (place(), 1..32_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (place(), 1..64_usize, place()).prop_map(|(at, length, to)| Change::Repeat(at, length, to)),
        (place(), place(), place()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

fn changed(input: &[u8], changes: &[Change], corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = input.to_vec();
    for change in changes {
        let place = |at: &usize| at % (input.len() + 1);
        match change {
            Change::Replace(at, byte) => {
                let at = place(at);
                if at < input.len() {
                    input[at] = *byte;
                }
            }
            Change::Insert(at, bytes) => {
                let at = place(at);
                input.splice(at..at, bytes.iter().copied());
            }
            Change::Remove(at, length) => {
                let at = place(at);
                let end = (at + length).min(input.len());
                input.drain(at..end);
            }
            Change::Repeat(at, length, to) => {
                let (at, to) = (place(at), place(to));
                let part = input[at..(at + length).min(input.len())].to_vec();
                input.splice(to..to, part);
            }
            Change::Splice(at, other, from) => {
                let other = &corpus[other % corpus.len()];
                let at = place(at);
                input.truncate(at);
                input.extend_from_slice(&other[from % (other.len() + 1)..]);
            }
        }
        input.truncate(INPUT_MAX);
    }
    input
}

/// The property for the corpus and so many mutations.
fn holds(target: &str, property: fn(&[u8]), cases: u32) {
    let mut corpus = corpus(target);
    if target == "definition" {
        corpus.extend(golden_definitions());
    }
    property(&[]);
    corpus.iter().for_each(|input| property(input));
    let strategy = (0..corpus.len(), prop::collection::vec(any_change(), 1..6));
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // The same cases at each run: what may be found by others is libFuzzer's to look for.
    let rng = TestRng::deterministic_rng(RngAlgorithm::default());
    TestRunner::new_with_rng(config, rng)
        .run(&strategy, |(index, changes)| {
            property(&changed(&corpus[index], &changes, &corpus));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{target}: {error}"));
}

macro_rules! targets {
    ($($target:ident: $cases:expr,)*) => {
        $(
            #[test]
            fn $target() {
                holds(stringify!($target), properties::$target, $cases);
            }
        )*

        #[test]
        fn every_target_is_fuzzed_and_tested() {
            let names = |directory: &str| -> Vec<String> {
                let mut names: Vec<String> = fs::read_dir(repository(directory))
                    .expect("a directory")
                    .map(|entry| entry.expect("a readable entry").path())
                    .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
                    .collect();
                names.sort();
                names
            };
            let mut tested = vec![$(stringify!($target).to_owned()),*];
            tested.sort();
            assert_eq!(names("tests/fuzz/targets"), tested);
            assert_eq!(names("tests/fuzz/corpus"), tested);
        }
    };
}

targets! {
    accounts: 500,
    cdi: 500,
    definition: 300,
    generator: 500,
    handover: 500,
    http: 1000,
    notification: 1000,
    output: 300,
    protocol: 500,
    quantities: 1000,
    seccomp: 100,
}
