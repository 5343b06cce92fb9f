//! Metrics as others see them: Prometheus' own tool checks what is served, and the manual names all of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the tests of the library compare with what they write, byte for byte.
fn golden(format: &str) -> String {
    repository(&format!("src/agent/metrics/golden/{format}"))
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; tests/run installs it"));
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

/// Without what differs from sample to sample.
fn samples(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

fn families(text: &str) -> BTreeSet<&str> {
    samples(text)
        .iter()
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect()
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let output = promtool(&["check", "metrics"], &golden("older"));
    assert_eq!((&*output.stdout, &*output.stderr), (&b""[..], &b""[..]));
}

/// The same parser that reads a scrape, and that takes every sample for what it is. It wants each to have a time.
#[test]
fn promtool_reads_every_sample_of_openmetrics() {
    let text = golden("openmetrics");
    let timed: String = text
        .lines()
        .map(|line| match line.starts_with('#') {
            true => format!("{line}\n"),
            false => format!("{line} 1800000000\n"),
        })
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metrics");
    fs::write(&file, timed).expect("written");
    let [file, blocks] = [file, folder.path().join("blocks")].map(|path| {
        let path = path.to_str().expect("plain letters");
        path.to_owned()
    });
    promtool(
        &["tsdb", "create-blocks-from", "openmetrics", &file, &blocks],
        "",
    );
    // What Prometheus writes before it writes blocks; here it is empty.
    fs::create_dir(Path::new(&blocks).join("wal")).expect("made");
    let dump = promtool(&["tsdb", "dump", &blocks], "");
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert_eq!(dump.lines().count(), samples(&text).len(), "{dump}");
    for line in [
        r#"{__name__="boxd_box_cpu_seconds_total", box="web"} 3723.1 1800000000000"#,
        r#"{__name__="boxd_box_memory_bytes", box="web"} 1.2897485e+07 1800000000000"#,
    ] {
        assert!(
            dump.lines().any(|dumped| dumped.trim() == line),
            "{line}: {dump}"
        );
    }
}

#[test]
fn both_formats_have_the_same_samples_and_the_manual_names_them() {
    let (openmetrics, older) = (golden("openmetrics"), golden("older"));
    assert_eq!(samples(&openmetrics), samples(&older));
    let page = repository("packaging/man/boxd.8");
    for name in families(&older) {
        let on_the_page = match name.strip_prefix("boxd_box_pressure_") {
            None => name,
            Some(rest) => rest.split_once('_').expect("a resource").1,
        };
        assert!(page.contains(on_the_page), "{name}");
    }
}
