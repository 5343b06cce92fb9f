//! The boxes that are attacked: from a definition, with every default of its profile.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use boxd::definition::{Definition, SourceText, understand};
use boxd::name::Name;
use boxd::plan::Plan;
use boxd::run;

use super::boxes::{Built, Ran, chain, try_build};
use super::running::{BOXCTL, Running};

/// Whose ids a box has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// A range of its own, the default.
    Own,
    /// The host's.
    Host,
}

/// The two kinds of boxes to attack.
pub const BOTH: [Users; 2] = [Users::Own, Users::Host];

/// A definition, and what comes of it.
pub struct Subject {
    name: Name,
    text: String,
    directory: tempfile::TempDir,
}

/// How a box in the foreground went.
pub struct Foreground {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Subject {
    /// A box that runs this command; `more` is TOML, of which what stands before its first table belongs to the
    /// top, and `security` are lines of `[security]`.
    pub fn new(users: Users, command: &[&str], more: &str, security: &str) -> Subject {
        let mut text = format!("command = {command:?}\n{more}\n");
        if users == Users::Host || !security.is_empty() {
            text += "[security]\n";
            text += security;
            text += "\n";
        }
        if users == Users::Host {
            text += "users = \"host\"\n";
        }
        Subject {
            name: format!("attacked-{}", std::process::id())
                .parse()
                .expect("a name"),
            text,
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// A box without an image that runs a line of shell.
    pub fn shell(users: Users, line: &str) -> Subject {
        Subject::new(users, &["sh", "-c", line], "", "")
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What is understood of the text, or everything that is wrong with it.
    pub fn definition(&self) -> Result<Definition, String> {
        let source = SourceText {
            path: PathBuf::from(format!("{}.toml", self.name)),
            text: self.text.clone(),
        };
        let (definition, wrong) = understand(&self.name, &[source]);
        match wrong {
            Some(wrong) => Err(wrong.to_string()),
            None => Ok(definition),
        }
    }

    /// The plan, or everything that is wrong.
    pub fn plan(&self) -> Result<Plan, String> {
        let definition = self.definition()?;
        run::decide(&definition)
            .map(Plan::by_hand)
            .map_err(|error| chain(&error))
    }

    /// Launches the box in this process and waits for its end; what went wrong, as the operator would read it.
    pub fn launch(&self) -> Result<Ran, String> {
        launch(&self.plan()?)
    }

    /// A box that runs until it is dropped.
    pub fn running(&self) -> Running {
        let plan = self.plan().unwrap_or_else(|wrong| panic!("{wrong}"));
        Running::start("entered", plan)
    }

    /// `boxctl run` of it, not begun.
    pub fn boxctl(&self) -> Command {
        let file = self.directory.path().join(format!("{}.toml", self.name));
        fs::write(&file, &self.text).expect("written");
        let mut command = Command::new(BOXCTL);
        command.args(["--color=never", "run"]).arg(file);
        command
    }

    /// Runs it in the foreground to its end.
    pub fn foreground(&self) -> Foreground {
        finish(self.boxctl())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = boxd::identity::release(&self.name);
    }
}

/// Launches a plan in this process and waits for the end of the box; what went wrong, as the operator would read it.
pub fn launch(plan: &Plan) -> Result<Ran, String> {
    let built = try_build(plan).map_err(|error| chain(&error))?;
    built
        .and_then(Built::go)
        .map_err(|failure| failure.to_string())
}

/// Runs a command to its end. A minute is more than any needs; it is killed then, with status 137.
pub fn finish(command: Command) -> Foreground {
    let mut patient = Command::new("timeout");
    patient
        .args(["--signal=KILL", "60"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    let output = patient.output().expect("timeout runs");
    Foreground {
        status: status(&output),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The same with little memory for it and for every process it makes.
pub fn with_little_memory(boxctl: Command) -> Foreground {
    with_memory(40_000, boxctl)
}

/// The same with this many KiB.
pub fn with_memory(kibibytes: u32, boxctl: Command) -> Foreground {
    let limited = format!("ulimit -v {kibibytes}; exec \"$@\"");
    let mut command = Command::new("sh");
    command
        .args(["-c", &limited, "sh"])
        .arg(boxctl.get_program())
        .args(boxctl.get_args());
    finish(command)
}

fn status(output: &Output) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    let status = output.status;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A refusal an operator can read: the box did not run, and nothing of ours fell over.
#[track_caller]
pub fn assert_clean(wrong: &str) {
    assert!(
        wrong.starts_with("cannot ") || wrong.contains(": cannot ") || wrong.contains("mount["),
        "{wrong}"
    );
    for word in ["panicked", "has a bug", "RUST_BACKTRACE"] {
        assert!(!wrong.contains(word), "{wrong}");
    }
}

/// The directory of an image that has the host's programs, once they are bound into it: see [`WITH_PROGRAMS`].
pub struct Image(tempfile::TempDir);

impl Image {
    /// One with nothing but `usr` and the links into it.
    pub fn new() -> Image {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
        fs::create_dir(directory.path().join("usr")).expect("a directory");
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), directory.path().join(name)).expect("a link");
        }
        Image(directory)
    }

    /// A path in it, as the host has it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    /// The same, with the directories above made.
    pub fn place(&self, path: &str) -> PathBuf {
        let at = self.at(path);
        fs::create_dir_all(at.parent().expect("it has one")).expect("a directory");
        at
    }

    /// The lines of a definition that make a root of it.
    pub fn root(&self) -> String {
        format!(
            "[root]\ndirectory = {:?}\n[[mount]]\nbind = \"/usr\"\nat = \"/usr\"\nread-only = true\n",
            self.0.path()
        )
    }
}
