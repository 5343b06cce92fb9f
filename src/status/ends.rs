//! How boxes ended, as the journal has it: systemd forgets a unit that is at rest, and calls most ends `exit-code`.
//!
//! The supervisor's last entry of a box holds it in fields of its own, below the MESSAGE_ID [`ENDED`](fields::ENDED). Only root's
//! entries are believed: anybody may write to the journal.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::End;
use crate::journal::fields;
use crate::name::Name;

const JOURNALCTL: &str = "journalctl";

/// So many seconds an entry may be older than the start it belongs to.
const CLOCK: u64 = 60;

/// Returns when the journal has written all it was sent before; or, if it does not answer, when that is clear.
pub fn settle() {
    let _ = Command::new(JOURNALCTL)
        .arg("--sync")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Which end of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The last one, maybe before the host was booted.
    Last,
    /// The last one since the host was booted.
    LastOfBoot,
    /// The one of this run.
    Of {
        /// Pid of its first process.
        pid: i32,
        /// When it was started: microseconds since the epoch.
        started: u64,
    },
}

/// An end of a box; none if the journal does not know, or cannot be read.
pub fn last(name: &Name, which: Which) -> Option<End> {
    let mut command = Command::new(JOURNALCTL);
    command
        .args(["--quiet", "--no-pager", "--output=json", "--lines=1"])
        .arg(format!("MESSAGE_ID={}", fields::ENDED))
        .arg(format!("{}={name}", fields::BOX_NAME))
        .arg("_UID=0");
    if which != Which::Last {
        command.arg("--boot");
    }
    if let Which::Of { pid, started } = which {
        // A pid comes again. The clock may have been set back a little.
        let since = (started / 1_000_000).saturating_sub(CLOCK);
        command.arg(format!("--since=@{since}"));
        command.arg(format!("{}={pid}", fields::BOX_PID));
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let line = output.stdout.split(|byte| *byte == b'\n').next()?;
    end(name, &serde_json::from_slice(line).ok()?)
}

fn end(name: &Name, entry: &Value) -> Option<End> {
    let text = |field: &str| entry.get(field)?.as_str().map(str::to_owned);
    let sentence = text("MESSAGE")?;
    let about = format!("box {name} ");
    Some(End {
        at: text("__REALTIME_TIMESTAMP")?.parse().ok()?,
        result: text(fields::BOX_RESULT)?,
        sentence: sentence
            .strip_prefix(&about)
            .unwrap_or(&sentence)
            .to_owned(),
        code: text(fields::EXIT_CODE)?,
        detail: text(fields::EXIT_STATUS).filter(|text| !text.is_empty()),
        exit_status: text(fields::BOX_EXIT_STATUS)?.parse().ok()?,
        invocation: text(fields::INVOCATION),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_how_a_box_ended() {
        let name: Name = "web".parse().expect("a name");
        let mut entry = serde_json::json!({
            "__REALTIME_TIMESTAMP": "1795995903000000",
            "MESSAGE": "box web was ended by SIGSEGV and left a core",
            "BOX_RESULT": "core-dump",
            "EXIT_CODE": "dumped",
            "EXIT_STATUS": "SEGV",
            "BOX_EXIT_STATUS": "139",
        });
        let expected = End {
            at: 1_795_995_903_000_000,
            result: "core-dump".to_owned(),
            sentence: "was ended by SIGSEGV and left a core".to_owned(),
            code: "dumped".to_owned(),
            detail: Some("SEGV".to_owned()),
            exit_status: 139,
            invocation: None,
        };
        assert_eq!(end(&name, &entry), Some(expected));
        // journalctl writes what is no text as a list of bytes.
        entry["BOX_RESULT"] = serde_json::json!([255]);
        assert_eq!(end(&name, &entry), None);
    }
}
