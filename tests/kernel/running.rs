//! A box that runs, as `boxctl` finds one, without systemd.

use std::process::{Command, Output, Stdio};

use boxd::cgroup::plain::Plain;
use boxd::handover::{self, Document};
use boxd::launch::protocol::{Lifetime, ToChild};
use boxd::launch::run_directory::RunDirectory;
use boxd::plan::Plan;

use super::boxes::build;

/// The program under test.
pub const BOXCTL: &str = env!("CARGO_BIN_EXE_boxctl");

/// A box that runs until it is dropped.
pub struct Running {
    pub name: String,
    pub cgroup: Option<Plain>,
    directory: Option<RunDirectory>,
    pub pid: i32,
    pub output: boxd::launch::Output,
}

impl Running {
    pub fn start(name: &str, mut plan: Plan) -> Running {
        let name = format!("{name}-{}", std::process::id());
        plan.name = name.parse().expect("a name");
        let built = build(&plan).unwrap_or_else(|failure| panic!("{failure}"));
        let cgroup = Plain::create(&format!("boxd-test-{name}"), &[]).expect("a cgroup");
        let pid = built.pid.as_raw();
        cgroup.add(pid).expect("moved");
        let document = Document {
            version: handover::VERSION,
            boxd: env!("CARGO_PKG_VERSION").to_owned(),
            name: plan.name.clone(),
            description: plan.description.clone(),
            pid,
            started: 0,
            cgroup: cgroup.path().to_owned(),
            scope: plan.scope.unit.clone(),
            ids: plan.ids,
            root: "host".to_owned(),
            ready: boxd::plan::ReadyWhen::Started,
            ready_by: 0,
            output: plan.output,
            watchdog: None,
            health: None,
            stop_signal: plan.stop.signal,
            stop_timeout: plan.stop.timeout,
            idle: None,
        };
        let directory = RunDirectory::claim(&plan.name).expect("claimed");
        directory.write_plan(&plan).expect("written");
        directory.write(&document).expect("written");
        directory.confirm().expect("confirmed");
        built
            .end
            .send(&ToChild::Go(Lifetime::Own), &[])
            .expect("it waits");
        while built.end.receive().is_ok() {}
        Running {
            name,
            cgroup: Some(cgroup),
            directory: Some(directory),
            pid,
            output: built.output,
        }
    }

    /// `boxctl exec OPTIONS NAME -- COMMAND`.
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Command {
        let mut boxctl = Command::new(BOXCTL);
        boxctl
            .args(["--color=never", "exec"])
            .args(options)
            .arg(&self.name)
            .arg("--")
            .args(command)
            .stdin(Stdio::null());
        boxctl
    }

    /// What a shell in the box prints.
    pub fn prints(&self, options: &[&str], line: &str) -> String {
        let output = self
            .exec(options, &["sh", "-c", line])
            .output()
            .expect("boxctl runs");
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        printed(&output.stdout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            let death = std::time::Duration::from_secs(10);
            boxd::cgroup::remove(cgroup.path(), death).expect("removed");
        }
        if let Some(directory) = self.directory.take() {
            directory.remove().expect("removed");
        }
    }
}

/// What was printed, without the last newline.
pub fn printed(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// What a command said that printed nothing else.
pub fn complaint(output: &Output) -> String {
    assert!(output.stdout.is_empty(), "{output:?}");
    printed(&output.stderr)
}
