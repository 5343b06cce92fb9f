//! `boxctl events`: what happens to boxes, as it happens: the lifecycle entries of the journal.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;

use super::terminal::{Look, Paint, columns, cut, harmless};
use super::{Error, names, text};
use crate::definition::Layers;
use crate::journal::fields;
use crate::name::Name;

const JOURNALCTL: &str = "journalctl";

/// Every entry of the supervisor's has one of the ids that the catalog explains.
const CATALOG: &str = include_str!("../../packaging/boxd.catalog");

/// What is watched.
#[derive(Debug, Default)]
pub struct Wish {
    /// Boxes; all if none is named.
    pub names: Vec<String>,
    /// Only what is newer, in the words of systemd.time(7).
    pub since: Option<String>,
    /// End with what there is.
    pub no_follow: bool,
    /// As JSON, an object a line.
    pub json: bool,
}

/// Entries of systemd's own that concern a box: `sd-messages.h`.
const OF_SYSTEMD: [(&str, &str, Paint); 2] = [
    (
        "d9b373ed55a64feb8242e02dbe79a49c",
        "unit-failed",
        Paint::Bad,
    ),
    (
        "5eb03494b6584870a536b337290809b3",
        "restart-scheduled",
        Paint::Warning,
    ),
];

/// The words for the catalog's entries. An id that is not among them is an `event`.
const WORDS: [(&str, &str, Paint); 18] = [
    ("7cc03c01505c4fd1b61d3abda9138f48", "started", Paint::Good),
    (
        "f55f1424e66c4006a15c8653795d11a7",
        "taken-over",
        Paint::Warning,
    ),
    ("4b8284ea54234e3d8b194000bd63b774", "ready", Paint::Good),
    ("86d6254a23a74dbc8f092a8be598dd92", "failed", Paint::Bad),
    ("9b8a298db069458d834b66b8501e11ae", "killed", Paint::Bad),
    ("baaf4d8f82cf444b943cd396d1de4efd", "oom-kill", Paint::Bad),
    ("c0ab431c840d4396b7165c80e10ed8a4", "stuck", Paint::Bad),
    ("a08b0b33b7ae4f6e9c3a0bd92d7b1c5e", "idle", Paint::Faint),
    (fields::ENDED, "ended", Paint::Strong),
    (
        "bb7d8d4b986042e59a648b212b0bbec8",
        "output-dropped",
        Paint::Warning,
    ),
    (
        "7457a434cb0b4ceabc832a6491a82572",
        "trouble",
        Paint::Warning,
    ),
    ("db4c12afcef94f78a699574b6f1538f4", "paused", Paint::Warning),
    ("7ccc56797c20443685b4bc074d9c89de", "resumed", Paint::Good),
    (
        "c87192727d85418bada13960a1f9cd22",
        "output-limited",
        Paint::Warning,
    ),
    ("80a849665eed43e7af13788af7184cd1", "unhealthy", Paint::Bad),
    ("e9fd0a7c7dd5468dbfe526f3cc0ef6a8", "healthy", Paint::Good),
    (
        "5c0f4dbb1d6f4a0e8f7d3b6c2a9e4718",
        "trouble",
        Paint::Warning,
    ),
    ("", "event", Paint::Faint),
];

/// Something that happened to a box: the format of `--json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Event {
    /// Microseconds since the epoch.
    at: u64,
    /// The box.
    name: String,
    /// In a word.
    event: &'static str,
    /// `MESSAGE_ID`.
    id: String,
    /// In a sentence.
    message: String,
    /// What else the entry holds, by the names of its fields.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<String, String>,
}

/// Fields of an entry that are passed on.
const DETAILS: [&str; 9] = [
    fields::BOX_PID,
    fields::BOX_RESULT,
    fields::BOX_EXIT_STATUS,
    fields::EXIT_CODE,
    fields::EXIT_STATUS,
    fields::INVOCATION,
    "BOX_HEALTH",
    "BOX_PROBE_OUTPUT",
    "UNIT_RESULT",
];

/// Shows what happens, until it is interrupted.
pub fn events(wish: &Wish, out: Look) -> Result<ExitCode, Error> {
    let names = names::each(&wish.names, &Layers::system(), names::there)?;
    let mut journal = Command::new(JOURNALCTL)
        .args(arguments(&names, wish))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Execute {
            program: JOURNALCTL,
            source,
        })?;
    let zone = TimeZone::system();
    let result = match journal.stdout.take() {
        Some(entries) => pass_on(BufReader::new(entries), wish, &zone, out),
        None => Ok(()),
    };
    // Nobody reads on: journalctl would only find out with the next entry.
    if result.is_err() {
        let _ = journal.kill();
    }
    let status = journal.wait()?;
    match result {
        // `boxctl events | head` has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
        Ok(()) if status.success() => Ok(ExitCode::SUCCESS),
        Ok(()) => Ok(ExitCode::FAILURE),
    }
}

fn pass_on(
    mut entries: impl io::BufRead,
    wish: &Wish,
    zone: &TimeZone,
    look: Look,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if entries.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let entry = serde_json::from_slice(&line).ok();
        let Some(event) = entry.as_ref().and_then(event) else {
            continue;
        };
        let shown = match wish.json {
            true => serde_json::to_string(&event)?,
            false => show(&event, zone, look),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{shown}")?;
        out.flush()?;
    }
}

/// The ids the catalog has.
fn ids() -> impl Iterator<Item = &'static str> {
    CATALOG
        .lines()
        .filter_map(|line| line.strip_prefix("-- "))
        .filter(|id| id.len() == 32)
}

/// Each value stands in one argument with its option, so that none can be taken for another option. Only entries of
/// root's and of systemd's are believed: anybody may write to the journal.
fn arguments(names: &[Name], wish: &Wish) -> Vec<String> {
    let mut arguments: Vec<String> = ["--quiet", "--no-pager", "--output=json"]
        .map(str::to_owned)
        .to_vec();
    if !wish.no_follow {
        arguments.push("--follow".to_owned());
    }
    match &wish.since {
        Some(since) => {
            arguments.push(format!("--since={since}"));
            arguments.push("--lines=all".to_owned());
        }
        None if wish.no_follow => arguments.push("--boot".to_owned()),
        None => arguments.push("--lines=0".to_owned()),
    }
    arguments.extend(ids().map(|id| format!("MESSAGE_ID={id}")));
    arguments.push("_UID=0".to_owned());
    arguments.extend(
        names
            .iter()
            .map(|name| format!("{}={name}", fields::BOX_NAME)),
    );
    arguments.push("+".to_owned());
    arguments.extend(OF_SYSTEMD.iter().map(|(id, ..)| format!("MESSAGE_ID={id}")));
    arguments.push("_PID=1".to_owned());
    arguments.extend(names.iter().map(|name| format!("UNIT={}", name.unit())));
    arguments
}

/// What an entry says; none if it is about no box.
fn event(entry: &Value) -> Option<Event> {
    let text = |field: &str| Some(entry.get(field)?.as_str()?.to_owned());
    let id = text("MESSAGE_ID")?;
    let name = text(fields::BOX_NAME).or_else(|| {
        let unit = text("UNIT")?;
        Some(
            unit.strip_prefix("box@")?
                .strip_suffix(".service")?
                .to_owned(),
        )
    })?;
    let (_, word, _) = word_of(&id);
    let message = text("MESSAGE").unwrap_or_default();
    let about = [format!("box {name} "), format!("box@{name}.service: ")];
    let message = about
        .iter()
        .find_map(|about| message.strip_prefix(about))
        .unwrap_or(&message)
        .to_owned();
    Some(Event {
        at: text("__REALTIME_TIMESTAMP")?.parse().ok()?,
        name,
        event: word,
        id,
        message,
        details: DETAILS
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), text(field)?)))
            .collect(),
    })
}

fn word_of(id: &str) -> (&'static str, &'static str, Paint) {
    WORDS
        .into_iter()
        .chain(OF_SYSTEMD)
        .find(|(known, ..)| *known == id)
        .unwrap_or(WORDS[WORDS.len() - 1])
}

fn show(event: &Event, zone: &TimeZone, look: Look) -> String {
    const NAME: usize = 12;
    let longest = WORDS
        .iter()
        .chain(&OF_SYSTEMD)
        .map(|(_, word, _)| word.len())
        .max()
        .unwrap_or(0);
    let (_, word, paint) = word_of(&event.id);
    let name = harmless(&event.name);
    let begin = format!("{}  ", text::short_moment(event.at, zone));
    let gap = " ".repeat(NAME.saturating_sub(columns(&name)));
    let padding = " ".repeat(longest - word.len());
    let used = columns(&begin) + columns(&name) + gap.len() + longest + 4;
    let message = harmless(&event.message);
    let message = match look.width {
        Some(width) => cut(&message, width.saturating_sub(used)),
        None => message,
    };
    format!(
        "{}{}{gap}  {}{padding}  {message}",
        look.paint(Paint::Faint, &begin),
        look.paint(Paint::Strong, &name),
        look.paint(paint, word),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;

    fn entry(id: &str, name: &str, message: &str) -> Value {
        serde_json::json!({
            "__REALTIME_TIMESTAMP": "1795995903000000",
            "MESSAGE_ID": id,
            "BOX_NAME": name,
            "MESSAGE": message,
        })
    }

    #[test]
    fn a_word_is_about_an_entry_of_the_catalog_and_all_entries_are_followed() {
        let ids: Vec<&str> = ids().collect();
        for (id, word, _) in &WORDS[..WORDS.len() - 1] {
            assert!(ids.contains(id), "{word} is no entry");
        }
        let arguments = arguments(&[], &Wish::default());
        for id in ids {
            assert!(arguments.contains(&format!("MESSAGE_ID={id}")), "{id}");
        }
    }

    #[test]
    fn what_happens_is_a_line_each() {
        let mut ended = entry(
            fields::ENDED,
            "web",
            "box web was ended by SIGSEGV and left a core\u{1b}[2J",
        );
        ended["BOX_RESULT"] = "core-dump".into();
        let failed = serde_json::json!({
            "__REALTIME_TIMESTAMP": "1795995904000000",
            "MESSAGE_ID": OF_SYSTEMD[0].0,
            "UNIT": "box@a-box-of-a-long-name.service",
            "UNIT_RESULT": "core-dump",
            "MESSAGE": "box@a-box-of-a-long-name.service: Failed with result 'core-dump'.",
        });
        let other = serde_json::json!({
            "__REALTIME_TIMESTAMP": "1795995904000000",
            "MESSAGE_ID": OF_SYSTEMD[0].0,
            "UNIT": "cron.service",
            "MESSAGE": "cron.service: Failed",
        });
        assert_eq!(event(&other), None);
        let entries = [
            entry(WORDS[0].0, "web", "box web runs, pid 815"),
            ended,
            failed,
            entry(
                "0123456789abcdef0123456789abcdef",
                "db",
                "box db does something new",
            ),
        ];
        let events: Vec<Event> = entries.iter().filter_map(event).collect();
        assert_eq!(events.len(), entries.len());
        assert_eq!(
            serde_json::to_value(&events[1]).expect("JSON")["details"]["BOX_RESULT"],
            "core-dump"
        );
        let look = |color, width| Look { color, width };
        let mut lines = Vec::new();
        for look in [look(false, Some(72)), look(true, None)] {
            lines.extend(events.iter().map(|event| show(event, &TimeZone::UTC, look)));
        }
        golden::compare("events/lines", &format!("{}\n", lines.join("\n")));
    }

    #[test]
    fn no_value_can_pass_for_an_option() {
        let name: Name = "web".parse().expect("a name");
        let wish = Wish {
            since: Some("--root=/srv".to_owned()),
            ..Wish::default()
        };
        let arguments = arguments(&[name], &wish);
        assert!(arguments.contains(&"--since=--root=/srv".to_owned()));
        assert!(arguments.contains(&"BOX_NAME=web".to_owned()));
        assert!(arguments.contains(&"UNIT=box@web.service".to_owned()));
        assert!(arguments.contains(&"--follow".to_owned()));
    }
}
