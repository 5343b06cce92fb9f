//! `boxctl logs`, and the lines other commands show: journalctl(1) with arguments that are safe by their form.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use super::{Error, names};
use crate::definition::Layers;
use crate::name::Name;
use crate::status::{Runner, collect};

const JOURNALCTL: &str = "journalctl";

/// Becomes journalctl.
pub fn logs(
    name: &str,
    follow: bool,
    lines: Option<u32>,
    since: Option<&str>,
) -> Result<ExitCode, Error> {
    let layers = Layers::system();
    let names = names::there(name, &layers)?;
    for name in &names {
        let status = collect::one(name, &layers, &None)?;
        if !status.exists() {
            return Err(names::unknown(name.clone(), &layers).into());
        }
        if let (Some(Runner::Foreground), Some(payload)) = (status.runner, &status.payload) {
            return Err(Error::NoLogs {
                name: name.clone(),
                pid: payload.pid,
            });
        }
    }
    let source = Command::new(JOURNALCTL)
        .args(arguments(&names, follow, lines, since))
        .exec();
    Err(Error::Execute {
        program: JOURNALCTL,
        source,
    })
}

/// Each value stands in one argument with its option, so that none can be taken for another option.
fn arguments(names: &[Name], follow: bool, lines: Option<u32>, since: Option<&str>) -> Vec<String> {
    let unit = |name: &Name| format!("--unit={}", name.unit());
    let mut arguments: Vec<String> = names.iter().map(unit).collect();
    if follow {
        arguments.push("--follow".to_owned());
    }
    if let Some(lines) = lines {
        arguments.push(format!("--lines={lines}"));
    }
    if let Some(since) = since {
        arguments.push(format!("--since={since}"));
    }
    arguments
}

/// The last lines of a run of a unit, the supervisor's and systemd's own among them; none where there is no
/// journal.
pub fn last_lines(unit: &str, invocation: Option<&str>, lines: u32) -> Vec<String> {
    let matches = match invocation {
        Some(invocation) => vec![
            format!("_SYSTEMD_INVOCATION_ID={invocation}"),
            "+".to_owned(),
            format!("INVOCATION_ID={invocation}"),
        ],
        None => vec![format!("--unit={unit}")],
    };
    output(&matches, lines).unwrap_or_default()
}

fn output(matches: &[String], lines: u32) -> io::Result<Vec<String>> {
    if lines == 0 {
        return Ok(Vec::new());
    }
    let output = Command::new(JOURNALCTL)
        .args(["--quiet", "--no-pager", "--output=short"])
        .arg(format!("--lines={lines}"))
        .args(matches)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_pass_for_an_option() {
        let name: Name = "web".parse().expect("a name");
        assert_eq!(
            arguments(&[name], true, Some(5), Some("--root=/srv")),
            [
                "--unit=box@web.service",
                "--follow",
                "--lines=5",
                "--since=--root=/srv"
            ]
        );
    }
}
