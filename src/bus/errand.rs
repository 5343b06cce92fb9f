//! `boxctl`, called for somebody.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::interface::{Errand, Tells};
use crate::programs::beside_or;

/// Most bytes of what it says: more than all that can be said of a thousand boxes.
const OUTPUT_MAX: usize = 16 << 20;

/// How it ended.
struct Ran {
    status: i32,
    out: String,
    err: String,
}

/// Has `boxctl` do something, for this user, and says what is to be answered. Blocks.
///
/// # Errors
///
/// What it complained of, in sentences.
pub fn run(errand: &Errand, words: &[String], author: u32) -> Result<String, String> {
    let ran =
        boxctl(words, author).map_err(|error| format!("cannot have boxctl do it: {error}"))?;
    if errand.fine.contains(&ran.status) {
        return Ok(match errand.tells {
            Tells::Nothing => String::new(),
            Tells::Output => ran.out,
            Tells::Complaints => ran.err,
        });
    }
    let said = [ran.err, ran.out].concat();
    // Who prints it says that it comes from boxctl.
    let lines = said
        .lines()
        .map(|line| line.strip_prefix("boxctl: ").unwrap_or(line));
    let said = lines.collect::<Vec<_>>().join("\n");
    Err(match said.trim_end() {
        "" => format!("boxctl ended with status {}", ran.status),
        said => said.to_owned(),
    })
}

fn boxctl(words: &[String], author: u32) -> io::Result<Ran> {
    use std::os::unix::ffi::OsStrExt as _;
    let program = beside_or(c"/usr/bin/boxctl");
    let mut command = Command::new(std::ffi::OsStr::from_bytes(program.to_bytes()));
    command
        .arg("--color=never")
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    thread::scope(|scope| {
        let mut child = scope
            .spawn(|| spawn(&mut command, author))
            .join()
            .map_err(|_| io::Error::other("the thread that starts it has ended"))??;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let err = scope.spawn(move || text(err));
        let out = text(out);
        let err = err.join().unwrap_or_default();
        let status = child.wait()?;
        let (Some(out), Some(err)) = (out, err) else {
            return Err(io::Error::other("it says more than can be passed on"));
        };
        Ok(Ran {
            status: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            out,
            err,
        })
    })
}

/// Starts it as somebody who has logged in as this user, as the kernel's audit and the history of generations have it.
/// The thread that does so is not used for anything else.
fn spawn(command: &mut Command, author: u32) -> io::Result<Child> {
    // Without audit nobody keeps count of that.
    let _ = fs::write("/proc/thread-self/loginuid", author.to_string());
    command.spawn()
}

/// All that is said; none if that is more than is passed on.
fn text(from: Option<impl Read>) -> Option<String> {
    let mut kept = Vec::new();
    let mut more = 0;
    if let Some(mut from) = from {
        let _ = (&mut from).take(OUTPUT_MAX as u64).read_to_end(&mut kept);
        more = io::copy(&mut from, &mut io::sink()).unwrap_or(0);
    }
    // D-Bus has no text with a NUL in it.
    let text = String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}");
    (more == 0).then_some(text)
}
