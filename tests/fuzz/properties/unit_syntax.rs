//! Unit files as systemd reads them: `config_parse()` of its src/shared/conf-parser.c, systemd.syntax(7), and the
//! specifiers of systemd.unit(5).

use std::collections::BTreeMap;
use std::time::Duration;

/// White space to systemd.
const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Settings whose values are taken as they stand; in all others a `%` begins a specifier.
const WITHOUT_SPECIFIERS: [&str; 28] = [
    "Backlog",
    "BindIPv6Only",
    "BindToDevice",
    "Broadcast",
    "DirectoryMode",
    "FreeBind",
    "IPTOS",
    "IPTTL",
    "KeepAlive",
    "Mark",
    "NoDelay",
    "PassCredentials",
    "Priority",
    "ReceiveBuffer",
    "RemoveOnStop",
    "Restart",
    "RestartSec",
    "ReusePort",
    "SendBuffer",
    "SocketMode",
    "StartLimitBurst",
    "StartLimitIntervalSec",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "Transparent",
    "TriggerLimitBurst",
    "TriggerLimitIntervalSec",
    "SuccessExitStatus",
];

/// The values of each setting, by section and name, in their order.
pub type Settings = BTreeMap<(String, String), Vec<String>>;

/// All settings of a unit file of this instance. What systemd would warn of and pass over is an error.
pub fn read(text: &str, instance: &str) -> Settings {
    let mut settings = Settings::new();
    let mut section = String::new();
    let mut continued: Option<String> = None;
    for line in text.split(['\n', '\r', '\0']) {
        assert!(line.len() < 1 << 20, "a line is too long");
        if line.trim_start_matches(WHITE_SPACE).starts_with(['#', ';']) {
            continue;
        }
        let mut whole = continued.take().unwrap_or_default() + line;
        let escaped = whole
            .chars()
            .fold(false, |escaped, character| !escaped && character == '\\');
        if escaped {
            whole.pop();
            whole.push(' ');
            continued = Some(whole);
            continue;
        }
        let whole = whole.trim_matches(WHITE_SPACE);
        if whole.is_empty() {
            continue;
        }
        if let Some(header) = whole.strip_prefix('[') {
            section = header.strip_suffix(']').expect("a header").to_owned();
            continue;
        }
        let (key, value) = whole.split_once('=').expect("a setting");
        let (key, value) = (
            key.trim_matches(WHITE_SPACE).to_owned(),
            value.trim_matches(WHITE_SPACE),
        );
        assert!(!section.is_empty(), "{key} stands in no section");
        let value = match WITHOUT_SPECIFIERS.contains(&&*key) {
            true => value.to_owned(),
            false => expanded(value, instance),
        };
        settings
            .entry((section.clone(), key))
            .or_default()
            .push(value);
    }
    assert_eq!(continued, None, "the file ends within a line");
    settings
}

fn expanded(value: &str, instance: &str) -> String {
    let mut expanded = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            expanded.push(character);
            continue;
        }
        match characters.next() {
            Some('%') => expanded.push('%'),
            Some('i') => expanded += instance,
            other => panic!("the specifier {other:?} in {value:?}"),
        }
    }
    expanded
}

/// The words of a list of units, none of which is quoted.
pub fn words(value: &str) -> Vec<&str> {
    assert!(!value.contains(['"', '\'']), "{value:?}");
    value
        .split(WHITE_SPACE)
        .filter(|word| !word.is_empty())
        .collect()
}

/// A time as the generator writes it; none for `infinity`.
pub fn time(value: &str) -> Option<Duration> {
    let number = |digits: &str| digits.parse::<u64>().expect("digits");
    match (value.strip_suffix("us"), value.strip_suffix('s')) {
        (Some(microseconds), _) => Some(Duration::from_micros(number(microseconds))),
        (None, Some(seconds)) => Some(Duration::from_secs(number(seconds))),
        _ => {
            assert_eq!(value, "infinity");
            None
        }
    }
}

/// Whether systemd takes it for the name of a unit that can be started: `unit_name_is_valid()` of its
/// src/basic/unit-name.c.
pub fn is_unit_name(name: &str) -> bool {
    const TYPES: [&str; 11] = [
        "service",
        "socket",
        "target",
        "device",
        "mount",
        "automount",
        "swap",
        "timer",
        "path",
        "slice",
        "scope",
    ];
    let valid =
        |character: char| character.is_ascii_alphanumeric() || ":-_.\\@".contains(character);
    let Some((stem, kind)) = name.rsplit_once('.') else {
        return false;
    };
    name.len() <= 255
        && TYPES.contains(&kind)
        && !stem.is_empty()
        && stem.chars().all(valid)
        && stem
            .split_once('@')
            .is_none_or(|(prefix, instance)| !prefix.is_empty() && !instance.is_empty())
}
