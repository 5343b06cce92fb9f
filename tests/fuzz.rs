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

/// A text that is made of numbered parts until it has so many bytes.
struct Long {
    property: fn(&[u8]),
    begin: &'static str,
    /// `#` stands for its number.
    part: &'static str,
    between: &'static str,
    end: &'static str,
    size: usize,
}

impl Long {
    fn of(property: fn(&[u8]), [begin, part, between, end]: [&'static str; 4]) -> Long {
        Long {
            property,
            begin,
            part,
            between,
            end,
            size: 128 << 10,
        }
    }

    fn text(&self) -> Vec<u8> {
        let mut text = self.begin.to_owned();
        let mut number = 1;
        while text.len() + self.part.len() + self.end.len() < self.size {
            if number > 1 {
                text += self.between;
            }
            text += &self.part.replace('#', &number.to_string());
            number += 1;
        }
        (text + self.end).into_bytes()
    }
}

/// Much of the same, for which somebody might compare all with all, keep all of all, or go as deep. What would take
/// gigabytes finds no memory.
#[test]
fn long_inputs_are_as_good_as_short_ones() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = Rlimit {
        current: Some(4 << 30),
        ..getrlimit(Resource::As)
    };
    setrlimit(Resource::As, most).expect("less than before");

    let definition =
        |begin, part, between, end| Long::of(properties::definition, [begin, part, between, end]);
    let seccomp =
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"action":"SCMP_ACT_ALLOW","names":["#;
    let condition = r#"{"index":0,"value":#,"op":"SCMP_CMP_EQ"}"#;
    let conditions = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"action":"SCMP_ACT_ALLOW",
        "names":["read","write","open","close","stat","fstat","lstat","poll","lseek","mmap","mprotect"],"args":["#;
    let many = [
        definition("", "k# = 1\n", "", ""),
        definition("", "=#\n", "", ""),
        definition("", "a", ".", " = 1\n"),
        definition("[", "a", ".", "]\nb = 1\n"),
        definition("command = ", "[", "", ""),
        definition("command = ", "{a=", "", ""),
        definition("description = '", "x\u{1}", "", "'\n"),
        definition("", "[[mount]]\nat='/#'\ntmpfs=1\n", "", ""),
        definition("", "[[mount]]\nat='/a/b/c/d/e/f/g/h/#'\ntmpfs=1\n", "", ""),
        definition("", "[[socket]]\nname='#'\nstream=#\n", "", ""),
        definition("[[socket]]\nstream = [", "#", ",", "]\n"),
        definition("", "[[device]]\npath='/dev/#'\n", "", ""),
        definition("", "[[device]]\ncdi='a/b=#'\n", "", ""),
        definition("after = [", "'a#'", ",", "]\n"),
        definition("groups = [", "'a#'", ",", "]\n"),
        definition("environment = {", "a#='1'", ",", "}\n"),
        definition("[resources]\nio-read = {", "'/#'=1", ",", "}\n"),
        definition("[security]\nseccomp = { allow = [", "'reat#'", ",", "] }\n"),
        definition("[security]\nmask = [", "'/#'", ",", "]\n"),
        definition("[credentials]\n", "a#={file='/#'}\n", "", ""),
        definition("[stop]\ntimeout = '", "1us", " ", "'\n"),
        Long {
            size: 1 << 20,
            ..definition("[resources]\ncpus = '", "0-8191", ",", "'\n")
        },
        Long::of(properties::quantities, ["", "1", "", ""]),
        Long::of(properties::seccomp, [seccomp, r##""#""##, ",", "]}]}"]),
        Long {
            size: 1 << 20,
            ..Long::of(properties::seccomp, [conditions, condition, ",", "]}]}"])
        },
        Long::of(
            properties::cdi,
            [
                r#"{"cdiVersion":"1.0.0","kind":"a/b","devices":["#,
                r##"{"name":"#"}"##,
                ",",
                "]}",
            ],
        ),
        Long::of(properties::accounts, ["", "a#:x:1:1:::\n", "", ""]),
        Long::of(properties::handover, ["", "[", "", ""]),
        Long::of(properties::notification, ["", "STATUS=#\n", "", ""]),
        Long::of(
            properties::http,
            [
                "\0\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "1\r\na\r\n",
                "",
                "",
            ],
        ),
        Long::of(
            properties::http,
            ["\0\0HTTP/1.1 200 OK\r\n", "a: #\r\n", "", ""],
        ),
        Long {
            size: 60 << 10,
            ..Long::of(properties::protocol, ["", "\u{1}\\\"", "", ""])
        },
    ];
    for long in many {
        (long.property)(&long.text());
    }
}
