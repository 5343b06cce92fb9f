//! Definitions as operators meet them: what is said of bad ones (`tests/plans/NN-name/error.expected`), what
//! the examples and the schema hold, and which file counts. `UPDATE_EXPECTED=1 cargo test --test definitions`
//! writes the expected files anew.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boxd::definition::{
    Diagnostics, Layers, LoadError, SourceText, Style, keys, list, load, load_file, parse, schema,
};
use boxd::name::Name;
use proptest::prelude::*;
use tempfile::TempDir;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name(name: &str) -> Name {
    name.parse().expect("a good name")
}

/// Compares with a file of the repository, or writes it anew when asked to.
fn expect(path: &Path, found: &str) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, found).expect("the expected file can be written");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(expected, found, "{} differs", path.display());
}

fn sources(texts: &[(&str, &str)]) -> Vec<SourceText> {
    let source = |(path, text): &(&str, &str)| SourceText {
        path: path.into(),
        text: (*text).to_owned(),
    };
    texts.iter().map(source).collect()
}

fn problems(text: &str) -> Diagnostics {
    parse(&name("sample"), &sources(&[("sample.toml", text)])).expect_err("a bad definition")
}

#[test]
fn every_bad_definition_is_answered_with_all_that_is_wrong_in_it() {
    let mut folders = 0;
    for entry in fs::read_dir(repository("tests/plans")).expect("tests/plans is there") {
        let folder = entry.expect("readable").path();
        let expected = folder.join("error.expected");
        if !expected.exists() {
            continue;
        }
        folders += 1;
        let mut files: Vec<_> = fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| entry.expect("readable").file_name())
            .filter_map(|file| file.into_string().ok())
            .filter(|file| file.ends_with(".toml"))
            .collect();
        // The definition first, then its drop-ins.
        files.sort_by_key(|file| (file != "definition.toml", file.clone()));
        let texts: Vec<_> = files
            .iter()
            .map(|file| SourceText {
                path: file.into(),
                text: read(&folder.join(file)),
            })
            .collect();
        match parse(&name("sample"), &texts) {
            Ok(_) => panic!("{} holds a good definition", folder.display()),
            Err(diagnostics) => {
                let width = 120;
                let color = false;
                expect(&expected, &diagnostics.render(Style { color, width }));
            }
        }
    }
    assert!(folders >= 10, "only {folders} folders of bad definitions");
}

#[test]
fn the_examples_are_good_and_one_of_them_has_every_key() {
    for entry in fs::read_dir(repository("config")).expect("config is there") {
        let path = entry.expect("readable").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
            && let Err(error) = load_file(&path)
        {
            panic!("{}:\n{error}", path.display());
        }
    }
    let text = read(&repository("config/example.toml"));
    let table: toml::Table = text.parse().expect("TOML");
    for key in keys() {
        let (section, last) = key.path.split_once('.').unwrap_or(("", &key.path));
        let written = match (section, table.get(section)) {
            ("", _) => table.contains_key(last),
            (_, Some(toml::Value::Table(section))) => section.contains_key(last),
            (_, Some(toml::Value::Array(elements))) => {
                elements.iter().any(|element| element.get(last).is_some())
            }
            _ => false,
        };
        // Two kinds of root exclude each other: one of them stands in a comment.
        assert!(
            written || text.contains(&format!("\n#{last} = ")),
            "config/example.toml does not have {}",
            key.path
        );
    }
}

#[test]
fn the_shipped_schema_is_the_one_of_this_version() {
    let text = serde_json::to_string_pretty(&schema()).expect("JSON");
    expect(&repository("config/box.schema.json"), &format!("{text}\n"));
}

/// Validates documents by the schema; where each is wrong, as paths in it. The validator is not ours, as those of
/// editors are not.
fn validated(documents: &[serde_json::Value]) -> Vec<BTreeSet<String>> {
    const VALIDATE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator as Validator
work = json.load(sys.stdin)
Validator.check_schema(work["schema"])
validator = Validator(work["schema"])
json.dump([["/".join(map(str, error.absolute_path)) for error in validator.iter_errors(document)]
           for document in work["documents"]], sys.stdout)
"#;
    let has_validator = |python: &&str| {
        Command::new(python)
            .args(["-c", "import jsonschema"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let python = ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(has_validator)
        .expect("a python3 with jsonschema: apt-get install python3-jsonschema");
    let mut child = Command::new(python)
        .args(["-W", "ignore", "-c", VALIDATE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let work = serde_json::json!({ "schema": schema(), "documents": documents });
    let mut input = child.stdin.take().expect("its input");
    input
        .write_all(work.to_string().as_bytes())
        .expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the schema is none");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn as_json(text: &str) -> serde_json::Value {
    let table: toml::Table = text.parse().expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

/// Editors complete and check by the schema: they leave good definitions and their drop-ins alone, and find what is
/// wrong where it stands.
#[test]
fn a_validator_of_schemas_tells_good_definitions_from_bad_ones() {
    let mut good: Vec<PathBuf> = Vec::new();
    for folder in fs::read_dir(repository("tests/plans")).expect("tests/plans is there") {
        let folder = folder.expect("readable").path();
        if !folder.join("error.expected").exists() || folder.join("plan.expected").exists() {
            good.push(folder);
        }
    }
    good.push(repository("config"));
    let files: Vec<PathBuf> = good
        .iter()
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    let documents: Vec<_> = files.iter().map(|path| as_json(&read(path))).collect();
    assert!(documents.len() > 20, "{files:?}");
    for (path, wrong) in files.iter().zip(validated(&documents)) {
        assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
    }

    let bad = [
        ("comand = ['x']", ""),
        ("command = 'x'", "command"),
        ("command = []", "command"),
        ("command = [\"a\\u0000\"]", "command/0"),
        ("description = \"two\\nlines\"", "description"),
        ("hostname = 'a b'", "hostname"),
        ("tty = 'yes'", "tty"),
        ("profile = 'vm'", "profile"),
        ("working-directory = 'tmp'", "working-directory"),
        ("environment = { 'A-B' = '' }", "environment"),
        ("environment = { A = 1 }", "environment/A"),
        ("after = ['Data Base']", "after/0"),
        ("[root]\ndirectory = '/srv'\nhost = true", "root"),
        ("[root]\nwrites = 'maybe'", "root/writes"),
        ("[ready]\ntimeout = 'soon'", "ready/timeout"),
        ("[stop]\nsignal = 'SIG TERM'", "stop/signal"),
        ("[restart]\npolicy = 'sometimes'", "restart/policy"),
        ("[resources]\nmemory = 'lots'", "resources/memory"),
        ("[resources]\ncpu = 0", "resources/cpu"),
        ("[resources]\ntasks = 0", "resources/tasks"),
        ("[resources]\ncpu-weight = 10001", "resources/cpu-weight"),
        (
            "[resources]\nio-read = { 'sda' = '1M' }",
            "resources/io-read",
        ),
        ("[resources]\nmemroy = '1M'", "resources"),
        ("[[mount]]\nbind = '/a'\ntmpfs = '1M'\nat = '/b'", "mount/0"),
        ("[[mount]]\nbind = '/a'", "mount/0"),
        (
            "[security]\ncapabilities = ['+EVERYTHING']",
            "security/capabilities/0",
        ),
    ];
    let documents: Vec<_> = bad.iter().map(|(text, _)| as_json(text)).collect();
    for ((text, expected), wrong) in bad.iter().zip(validated(&documents)) {
        assert!(wrong.contains(*expected), "{text}: {wrong:?}");
        let sources = sources(&[("sample.toml", "command = ['x']"), ("more.toml", text)]);
        assert!(
            parse(&name("sample"), &sources).is_err(),
            "the reader takes {text:?}"
        );
    }
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let keys = keys();
    assert!(
        keys.iter()
            .all(|key| !key.kind.is_empty() && !key.doc.is_empty())
    );
    let tables: BTreeSet<_> = keys
        .iter()
        .filter_map(|key| key.path.split_once('.'))
        .map(|(table, _)| table)
        .collect();
    let known = |header: &str, text: &str| -> BTreeSet<String> {
        let rendered = problems(&format!("{text}zzzzzzzzzzzzzzzz = 1\n")).render(Style::PLAIN);
        let list = rendered
            .split_once("zzzzzzzzzzzzzzzz`")
            .and_then(|(_, rest)| rest.split_once("known are "))
            .and_then(|(_, rest)| rest.lines().next())
            .unwrap_or_else(|| panic!("no list of the keys of {header:?} in:\n{rendered}"));
        list.split(", ").map(str::to_owned).collect()
    };
    let of_table = |table: &str| -> BTreeSet<String> {
        keys.iter()
            .filter_map(|key| key.path.strip_prefix(table)?.strip_prefix('.'))
            .map(str::to_owned)
            .collect()
    };
    for table in &tables {
        let header = match *table {
            "mount" | "socket" | "device" => format!("[[{table}]]\n"),
            _ => format!("[{table}]\n"),
        };
        assert_eq!(known(table, &header), of_table(table), "[{table}]");
    }
    let whole: BTreeSet<_> = keys
        .iter()
        .filter(|key| !key.path.contains('.'))
        .map(|key| key.path.as_str())
        .chain(tables)
        .map(str::to_owned)
        .collect();
    assert_eq!(known("the file", ""), whole);
}

#[test]
fn a_drop_in_replaces_keys_adds_tables_and_chooses_another_root() {
    let base = r#"
        command = ["/bin/one"]
        environment = { A = "1", B = "1" }
        after = ["a"]
        [root]
        directory = "/srv/web"
        writes = "keep"
        [resources]
        memory = "1G"
        cpu = 1
        [[mount]]
        tmpfs = "1M"
        at = "/a"
        [[socket]]
        stream = 80
        [[device]]
        path = "/dev/fuse"
    "#;
    let drop_in = r#"
        command = ["/bin/two"]
        environment = { B = "2" }
        after = ["b"]
        [root]
        host = true
        [resources]
        memory = "infinity"
        [[mount]]
        tmpfs = "1M"
        at = "/b"
        [[socket]]
        name = "tls"
        stream = 443
        [[device]]
        path = "/dev/kvm"
    "#;
    let texts = sources(&[("sample.toml", base), ("more.toml", drop_in)]);
    let definition = parse(&name("sample"), &texts).expect("a good definition");
    assert_eq!(definition.command, ["/bin/two"]);
    assert_eq!(
        definition
            .environment
            .clone()
            .into_iter()
            .collect::<Vec<_>>(),
        [("A".into(), "1".into()), ("B".into(), "2".into())]
    );
    assert_eq!(definition.after.len(), 1);
    assert_eq!(definition.root.source, boxd::definition::RootSource::Host);
    assert_eq!(definition.root.writes, boxd::definition::Writes::Keep);
    assert_eq!(
        (definition.resources.memory, definition.resources.cpu),
        (None, Some(1.0))
    );
    let at: Vec<_> = definition
        .mounts
        .iter()
        .map(|mount| mount.at.to_str())
        .collect();
    assert_eq!(at, [Some("/a"), Some("/b")]);
    assert_eq!(
        definition.socket_units(),
        ["box@sample.socket", "box@sample:tls.socket"]
    );
    assert_eq!(definition.devices.len(), 2);
    assert_eq!(
        definition.sources,
        [Path::new("sample.toml"), Path::new("more.toml")]
    );
}

/// Layers below a directory of their own.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Machine(TempDir::new().expect("a directory"))
    }

    fn layers(&self) -> Layers {
        Layers::under(self.0.path())
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        path
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(path), content).expect("written");
    }

    fn command(&self) -> String {
        let definition = load(&name("web"), &self.layers()).expect("a good definition");
        definition.command.join(" ")
    }

    fn error(&self) -> String {
        let error = load(&name("web"), &self.layers()).expect_err("no definition");
        error
            .to_string()
            .replace(&self.0.path().display().to_string(), "")
    }
}

#[test]
fn the_highest_layer_wins_and_drop_ins_of_all_layers_are_merged_by_name() {
    let machine = Machine::new();
    machine.write("usr/lib/boxd/web.toml", "command = ['vendor']");
    assert_eq!(machine.command(), "vendor");
    machine.write("run/boxd/definitions/web.toml", "command = ['runtime']");
    assert_eq!(machine.command(), "runtime");
    machine.write("etc/boxd/web.toml", "command = ['operator']");
    assert_eq!(machine.command(), "operator");
    machine.write(
        "etc/boxd/web.toml.d/10-a.toml",
        "command = ['10, operator']",
    );
    machine.write(
        "usr/lib/boxd/web.toml.d/20-b.toml",
        "command = ['20, vendor']",
    );
    assert_eq!(machine.command(), "20, vendor");
    machine.write(
        "run/boxd/definitions/web.toml.d/20-b.toml",
        "command = ['20, runtime']",
    );
    assert_eq!(machine.command(), "20, runtime");
    machine.write("etc/boxd/web.toml.d/20-b.toml", "");
    assert_eq!(machine.command(), "10, operator");
    machine.write("etc/boxd/web.toml.d/30-c.txt", "no definition");
    machine.write("etc/boxd/web.toml.d/.30-c.toml", "hidden");
    assert_eq!(machine.command(), "10, operator");
}

#[test]
fn a_missing_definition_is_answered_with_the_places_searched_and_a_similar_name() {
    let machine = Machine::new();
    let searched = "no definition of box web: looked for web.toml in \
                    /etc/boxd, /run/boxd/definitions, /usr/lib/boxd";
    assert_eq!(machine.error(), searched);
    machine.write("usr/lib/boxd/wbe.toml", "command = ['x']");
    assert_eq!(machine.error(), format!("{searched}; did you mean wbe?"));
    machine.write("etc/boxd/wbe.toml", "");
    assert_eq!(machine.error(), searched);
}

#[test]
fn an_empty_file_or_a_link_to_dev_null_masks_a_box() {
    let masked = "box web is masked: /etc/boxd/web.toml is empty or a link to /dev/null; remove it or write a \
                  definition into it";
    let machine = Machine::new();
    machine.write("usr/lib/boxd/web.toml", "command = ['vendor']");
    machine.write("etc/boxd/web.toml", "");
    assert_eq!(machine.error(), masked);
    fs::remove_file(machine.path("etc/boxd/web.toml")).expect("removed");
    symlink("/dev/null", machine.path("etc/boxd/web.toml")).expect("a link");
    assert_eq!(machine.error(), masked);
    let listed = list(&machine.layers()).expect("a list");
    assert!(matches!(&*listed, [web] if web.masked && web.name == Ok(name("web"))));
}

#[test]
fn what_cannot_be_a_definition_is_named() {
    let cannot = "cannot read the definition /etc/boxd/web.toml: ";
    let machine = Machine::new();
    let path = machine.path("etc/boxd/web.toml");

    fs::create_dir(&path).expect("a directory");
    assert_eq!(
        machine.error(),
        format!("{cannot}it is a directory, not a regular file")
    );
    fs::remove_dir(&path).expect("removed");

    symlink("/nowhere/web.toml", &path).expect("a link");
    assert_eq!(
        machine.error(),
        format!("{cannot}it is a link to /nowhere/web.toml, which does not exist")
    );
    fs::remove_file(&path).expect("removed");

    symlink("web.toml", &path).expect("a link to itself");
    assert!(
        machine
            .error()
            .starts_with(&format!("{cannot}Too many levels")),
        "{}",
        machine.error()
    );
    fs::remove_file(&path).expect("removed");

    // Nobody writes to it: a read that waits would never end.
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    assert_eq!(
        machine.error(),
        format!("{cannot}it is a named pipe, not a regular file")
    );
    fs::remove_file(&path).expect("removed");

    let socket = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    assert_eq!(
        machine.error(),
        format!("{cannot}it is a socket, not a regular file")
    );
    drop(socket);
    fs::remove_file(&path).expect("removed");

    symlink("/dev/zero", &path).expect("a link");
    assert_eq!(
        machine.error(),
        format!("{cannot}it is a device, not a regular file")
    );
    fs::remove_file(&path).expect("removed");

    machine.write("etc/boxd/web.toml", vec![b'#'; 10 << 20]);
    assert_eq!(
        machine.error(),
        format!("{cannot}it has more than 1048576 bytes, the most a definition may have")
    );

    machine.write("etc/boxd/web.toml", b"command = ['x']\n# \xc3\xa9\xff\n");
    assert_eq!(
        machine.error(),
        format!("{cannot}it is not UTF-8 text (byte 0xff at line 2, column 4)")
    );

    machine.write("etc/boxd/web.toml", "command = ['x']");
    machine.write(
        "etc/boxd/web.toml.d/10-bad.toml",
        b"\x7fELF\x02\x01\x01\0\xff",
    );
    assert!(
        machine
            .error()
            .contains("/etc/boxd/web.toml.d/10-bad.toml: it is not UTF-8 text")
    );
}

#[test]
fn a_file_whose_name_is_no_box_name_is_listed_as_such() {
    let machine = Machine::new();
    machine.write("etc/boxd/Web.toml", "command = ['x']");
    machine.write("etc/boxd/README", "");
    machine.write("usr/lib/boxd/db.toml", "command = ['x']");
    machine.write("usr/lib/boxd/db.toml.d/10-a.toml", "");
    let listed = list(&machine.layers()).expect("a list");
    assert_eq!(listed.len(), 2);
    assert!(listed[0].path.ends_with("etc/boxd/Web.toml"));
    let error = listed[0].name.clone().expect_err("a bad name");
    assert!(error.to_string().contains("capital letter"), "{error}");
    assert_eq!(listed[1].name, Ok(name("db")));

    let error = load_file(&listed[0].path).expect_err("a bad name");
    assert!(matches!(error, LoadError::Name(_)), "{error}");
}

#[test]
fn an_error_in_a_drop_in_points_into_the_drop_in() {
    let machine = Machine::new();
    machine.write("usr/lib/boxd/web.toml", "command = ['x']\n");
    machine.write("etc/boxd/web.toml.d/10-a.toml", "\nusr = 'x'\n");
    let error = machine.error();
    assert!(
        error.contains("--> /etc/boxd/web.toml.d/10-a.toml:2:1"),
        "{error}"
    );
}

#[test]
fn a_hundred_thousand_errors_are_answered_in_a_page() {
    for text in [
        "[".repeat(1 << 18),
        "\"\n".repeat(1 << 17),
        "[[mount]]\n".repeat(20_000),
        format!("command = [{}]", "1,".repeat(1 << 17)),
        (0..20_000).map(|key| format!("k{key}=1\n")).collect(),
    ] {
        let rendered = problems(&text).render(Style::PLAIN);
        assert!(rendered.len() < 100_000, "{} bytes", rendered.len());
    }
}

/// Nothing in what is shown can be obeyed by a terminal, and every problem names its place.
fn check_rendering(texts: &[SourceText]) {
    let Err(diagnostics) = parse(&name("sample"), texts) else {
        return;
    };
    let rendered = diagnostics.render(Style::PLAIN);
    let control = rendered.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "in {rendered:?}");
    let errors = rendered
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    let places = rendered
        .lines()
        .filter(|line| line.trim_start().starts_with("--> "))
        .count();
    assert!(places >= errors.min(50), "{rendered}");
    let color = true;
    assert!(!diagnostics.render(Style { color, width: 20 }).is_empty());
}

/// Texts of the pattern that the schema has for this type, with numbers of a length people write.
fn written_as(kind: &str) -> impl Strategy<Value = String> {
    let schema = schema();
    let definition = &schema["$defs"][kind];
    let pattern = [definition, &definition["anyOf"][1]]
        .into_iter()
        .find_map(|schema| schema["pattern"].as_str())
        .expect("a pattern");
    let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
    let pattern = pattern.replace("[0-9]+", "[0-9]{1,6}");
    prop::string::string_regex(&pattern).expect("a pattern proptest knows")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_too_strange_to_be_answered(base in any::<String>(), drop_in in any::<String>()) {
        check_rendering(&sources(&[("sample.toml", &base), ("more.toml", &drop_in)]));
    }

    #[test]
    fn no_damage_to_a_definition_is_too_strange_to_be_answered(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0..3_usize), 1..6),
    ) {
        let mut text: Vec<char> = read(&repository("config/example.toml")).chars().collect();
        for (place, c, kind) in damage {
            let place = place.index(text.len());
            match kind {
                0 => text[place] = c,
                1 => text.insert(place, c),
                _ => drop(text.splice(place..(place + 20).min(text.len()), [])),
            }
        }
        check_rendering(&sources(&[("sample.toml", &text.into_iter().collect::<String>())]));
    }

    #[test]
    fn whatever_stands_at_a_key_is_answered(
        key in prop::sample::select(keys()),
        value in prop_oneof![
            any::<String>().prop_map(|text| toml::Value::from(text).to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| toml::Value::from(number).to_string()),
            prop::collection::vec(any::<String>(), 0..4)
                .prop_map(|list| toml::Value::from(list).to_string()),
            "[0-9]{1,30}(\\.[0-9]{1,12})? ?[a-zA-Z]{0,3}".prop_map(|text| format!("{text:?}")),
        ],
    ) {
        let text = match key.path.split_once('.') {
            None => format!("{} = {value}\n", key.path),
            Some(("mount", key)) => format!("[[mount]]\n{key} = {value}\n"),
            Some((table, key)) => format!("[{table}]\n{key} = {value}\n"),
        };
        check_rendering(&sources(&[("sample.toml", &text)]));
    }

    #[test]
    fn what_the_schema_lets_pass_the_reader_reads(
        (size, mode, change, variable) in (
            written_as("Size"),
            written_as("Mode"),
            written_as("CapabilityChange"),
            "[A-Za-z_][A-Za-z0-9_]{0,9}",
        ),
    ) {
        let text = format!(
            "command = ['x']\nenvironment = {{ {variable} = '' }}\n\
             [security]\ncapabilities = ['{change}']\n\
             [[mount]]\nat = '/a'\ntmpfs = '{size}'\nmode = '{mode}'\n"
        );
        if let Err(diagnostics) = parse(&name("sample"), &sources(&[("sample.toml", &text)])) {
            let rendered = diagnostics.to_string();
            let only_range = diagnostics.count() == 1
                && (rendered.contains("does not fit") || rendered.contains("more than 0"));
            prop_assert!(only_range, "{rendered}");
        }
    }

    #[test]
    fn a_time_written_in_units_is_their_sum(hours in 0..1000_u64, minutes in 0..60_u64, milliseconds in 0..60_000_u64) {
        let text = format!("command = ['x']\n[stop]\ntimeout = '{hours}h {minutes}min{milliseconds}ms'\n");
        let definition = parse(&name("sample"), &sources(&[("sample.toml", &text)])).expect("good");
        let total = (hours * 60 + minutes) * 60_000 + milliseconds;
        prop_assert_eq!(definition.stop.timeout, Some(std::time::Duration::from_millis(total)));
    }

    #[test]
    fn the_last_file_that_has_a_key_decides(values in prop::collection::vec(prop::option::of(1..100_u32), 1..6)) {
        let mut texts = sources(&[("sample.toml", "command = ['x']")]);
        for (index, value) in values.iter().enumerate() {
            let text = value.map_or(String::new(), |value| format!("[resources]\ntasks = {value}"));
            texts.push(SourceText { path: format!("{index}.toml").into(), text });
        }
        let definition = parse(&name("sample"), &texts).expect("good");
        let last = values.into_iter().flatten().next_back();
        prop_assert_eq!(definition.resources.tasks, last.map(u64::from));
    }
}
