//! Plans to begin with, and the shortest launcher there is.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use boxd::capability::CapabilitySet;
use boxd::definition::{Profile, ReadyWhen, Restart, User};
use boxd::identity::IdRange;
use boxd::launch::channel::{self, ParentEnd};
use boxd::launch::protocol::{Failure, FromChild, Lifetime, ToChild};
use boxd::launch::{Output, Stdio, child};
use boxd::plan::seccomp::{self, Changes};
use boxd::plan::{
    Closing, Content, MountFlags, MountStep, Namespaces, Payload, Plan, Privileges, ProcessLimit,
    Ready, Resource, Scope, Stop, What,
};
use boxd::sandbox::{host_mounts, limits, namespaces, user_namespace};
use boxd::sys::{self, Fork};

/// A range no other box of this machine has while the tests run.
pub const IDS: IdRange = IdRange { base: 0x6fff_0000 };

pub const PLAIN: MountFlags = MountFlags {
    read_only: false,
    nosuid: false,
    nodev: false,
    noexec: false,
    recursive: false,
};

pub const INERT: MountFlags = MountFlags {
    nosuid: true,
    nodev: true,
    noexec: true,
    ..PLAIN
};

pub fn read_only(flags: MountFlags) -> MountFlags {
    MountFlags {
        read_only: true,
        ..flags
    }
}

pub fn step(at: &str, what: What, flags: MountFlags) -> MountStep {
    MountStep {
        at: PathBuf::from(at),
        what,
        flags,
    }
}

pub fn tree(path: impl Into<PathBuf>, idmap: bool) -> What {
    What::Tree {
        path: path.into(),
        recursive: false,
        idmap,
    }
}

pub fn tmpfs(mode: u32) -> What {
    What::Tmpfs {
        size: 1 << 20,
        inodes: 1000,
        mode,
    }
}

pub fn text(mode: u32, content: &str) -> What {
    What::File {
        mode,
        content: Content::Text(content.to_owned()),
    }
}

/// The host's programs, as `/usr` and the links into it.
pub fn programs() -> Vec<MountStep> {
    let mut steps = vec![step("/usr", tree("/usr", true), read_only(PLAIN))];
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        if let Ok(target) = std::fs::read_link(Path::new("/").join(name)) {
            steps.push(step(&format!("/{name}"), What::Symlink { target }, PLAIN));
        }
    }
    steps
}

/// What the kernel offers every box.
pub fn kernel() -> Vec<MountStep> {
    let device = |path: &str| {
        step(
            path,
            tree(path, false),
            MountFlags {
                nosuid: true,
                noexec: true,
                ..PLAIN
            },
        )
    };
    let link = |at: &str, target: &str| {
        let target = PathBuf::from(target);
        step(at, What::Symlink { target }, PLAIN)
    };
    vec![
        step("/proc", What::Proc, INERT),
        step("/sys", What::Sysfs, read_only(INERT)),
        step("/sys/fs/cgroup", What::Cgroup, read_only(INERT)),
        step(
            "/dev",
            tmpfs(0o755),
            MountFlags {
                nodev: false,
                ..INERT
            },
        ),
        device("/dev/null"),
        device("/dev/zero"),
        device("/dev/urandom"),
        device("/dev/tty"),
        step(
            "/dev/pts",
            What::Devpts,
            MountFlags {
                nodev: false,
                ..INERT
            },
        ),
        link("/dev/ptmx", "pts/ptmx"),
        link("/dev/fd", "/proc/self/fd"),
        link("/dev/stdout", "/proc/self/fd/1"),
        link("/dev/stderr", "/proc/self/fd/2"),
        step("/dev/mqueue", What::Mqueue, INERT),
    ]
}

/// A box without an image, that runs a line of shell.
pub fn host_box(line: &str) -> Plan {
    let mut mounts = vec![step("/", tmpfs(0o755), PLAIN)];
    mounts.extend(programs());
    mounts.extend(kernel());
    mounts.push(step("/tmp", tmpfs(0o1777), PLAIN));
    mounts.push(step(
        "/etc/passwd",
        text(
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/var/www:/bin/false\n",
        ),
        PLAIN,
    ));
    mounts.push(step(
        "/etc/group",
        text(0o644, "root:x:0:\nadm:x:4:www\nwww:x:34:\n"),
        PLAIN,
    ));
    Plan {
        name: "kernel-test".parse().expect("a name"),
        description: "Box of a test".to_owned(),
        profile: Profile::App,
        payload: Payload {
            command: ["sh", "-c", line].map(str::to_owned).to_vec(),
            environment: vec![(
                "PATH".to_owned(),
                "/usr/local/bin:/usr/bin:/usr/sbin".to_owned(),
            )],
            environment_files: Vec::new(),
            working_directory: PathBuf::from("/"),
            user: User::Id {
                uid: 0,
                gid: Some(0),
            },
            groups: Vec::new(),
            hostname: "test-box".to_owned(),
        },
        namespaces: Namespaces {
            user: true,
            time: false,
        },
        ids: Some(IDS),
        mounts,
        closing: Closing::default(),
        sysctls: Vec::new(),
        privileges: Privileges {
            capabilities: CapabilitySet::of([
                "CHOWN",
                "DAC_OVERRIDE",
                "FOWNER",
                "SETUID",
                "SETGID",
                "KILL",
            ])
            .expect("known"),
            no_new_privileges: true,
            seccomp: None,
            resource_limits: vec![
                ProcessLimit {
                    resource: Resource::Nofile,
                    soft: 1024,
                    hard: Some(524_288),
                    at_most: true,
                },
                ProcessLimit {
                    resource: Resource::Core,
                    soft: 0,
                    hard: None,
                    at_most: true,
                },
            ],
            labels: Vec::new(),
        },
        sockets: Vec::new(),
        idle_stop: None,
        scope: Scope {
            unit: "box-kernel-test.scope".to_owned(),
            slice: "box.slice".to_owned(),
            description: String::new(),
            before: None,
            limits: Vec::new(),
            devices: Vec::new(),
        },
        ready: Ready {
            when: ReadyWhen::Started,
            timeout: Duration::from_secs(90),
        },
        machine: None,
        notify: None,
        watchdog: None,
        reload: None,
        stop_command: Vec::new(),
        stop: Stop {
            signal: libc::SIGTERM,
            timeout: Duration::from_secs(10),
        },
        tty: false,
        output: boxd::plan::Output::default(),
        restart: Restart::default(),
        health: None,
        remarks: Vec::new(),
    }
}

/// The same box under the filter of its capabilities.
pub fn filtered(mut plan: Plan) -> Plan {
    let capabilities = plan.privileges.capabilities;
    plan.privileges.seccomp = Some(seccomp::of_profile(
        "test",
        capabilities,
        &Changes::default(),
        &[],
    ));
    plan
}

/// The same box with the host's ids.
pub fn with_host_ids(mut plan: Plan) -> Plan {
    plan.namespaces.user = false;
    plan.ids = None;
    plan
}

/// The same box with this root.
pub fn with_root(mut plan: Plan, what: What, flags: MountFlags) -> Plan {
    plan.mounts[0] = step("/", what, flags);
    plan
}

/// The same box with one more step at the end.
pub fn with_step(mut plan: Plan, at: &str, what: What, flags: MountFlags) -> Plan {
    plan.mounts.push(step(at, what, flags));
    plan
}

/// A box between `Built` and `Go`.
pub struct Built {
    pub pidfd: OwnedFd,
    pub pid: nix::unistd::Pid,
    pub end: ParentEnd,
    pub output: Output,
}

/// What a box has said and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub status: i32,
}

/// Launches until the root stands. That all of the host can be mounted, is taken for granted.
pub fn build(plan: &Plan) -> Result<Built, Failure> {
    try_build(plan).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// Launches until the root stands.
pub fn try_build(plan: &Plan) -> Result<Result<Built, Failure>, host_mounts::Error> {
    let (end, child_end) = channel::pair().expect("a socket pair");
    let (stdio, output) = Stdio::piped().expect("pipes");
    let fork = sys::clone3(namespaces::at_birth(plan.namespaces)).expect("a child");
    let (pid, pidfd) = match fork {
        Fork::Child => child::become_payload(plan, child_end, stdio, Vec::new()),
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((child_end, stdio));
    limits::raise(
        rustix::process::Pid::from_raw(pid.as_raw()),
        &plan.privileges.resource_limits,
    )
    .expect("raised");
    let namespace = plan
        .ids
        .map(|ids| user_namespace::map(pid, ids).expect("mapped"));
    let secrets = boxd::launch::credentials::read(&plan.mounts).expect("credentials");
    let prepared = host_mounts::prepare(plan, namespace.as_ref().map(|fd| fd.as_fd()), &secrets);
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)
                .expect("our child");
            wait(&pidfd);
            return Err(error);
        }
    };
    let mounts: Vec<_> = prepared.mounts.iter().map(|mount| mount.as_fd()).collect();
    // A child that has failed by now has closed its end; its reason is still there to be read.
    let _ = end.send(&ToChild::Mounts, &mounts);
    let built = Built {
        pidfd,
        pid,
        end,
        output,
    };
    Ok(match built.end.receive().expect("a word of the child") {
        FromChild::Built => Ok(built),
        FromChild::Failed(failure) => {
            let status = wait(&built.pidfd);
            assert_eq!(status, i32::from(failure.status), "{failure}");
            Err(failure)
        }
        FromChild::Executing => panic!("the child did not wait"),
    })
}

impl Built {
    /// Says go, and waits until the payload has ended.
    pub fn go(self) -> Result<Ran, Failure> {
        self.end
            .send(&ToChild::Go(Lifetime::Own), &[])
            .expect("the child waits");
        loop {
            match self.end.receive() {
                Ok(FromChild::Executing) => {}
                Ok(FromChild::Failed(failure)) => {
                    assert_eq!(wait(&self.pidfd), i32::from(failure.status), "{failure}");
                    return Err(failure);
                }
                Ok(FromChild::Built) => panic!("it was built before"),
                Err(channel::Error::Ended(_)) => break,
                Err(error) => panic!("{}", chain(&error)),
            }
        }
        let stdout = read(self.output.stdout);
        let stderr = read(self.output.stderr);
        Ok(Ran {
            stdout,
            stderr,
            status: wait(&self.pidfd),
        })
    }
}

/// Runs a box to its end.
pub fn try_run(plan: &Plan) -> Result<Ran, Failure> {
    build(plan)?.go()
}

/// What a box that succeeds prints.
pub fn run(plan: &Plan) -> String {
    let ran = try_run(plan).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    ran.stdout
}

/// The sentence of a box that does not start.
pub fn refusal(plan: &Plan) -> String {
    match try_run(plan) {
        Err(failure) => failure.to_string(),
        Ok(ran) => panic!("it started: {ran:?}"),
    }
}

fn read(from: OwnedFd) -> String {
    let mut text = String::new();
    File::from(from).read_to_string(&mut text).expect("text");
    text
}

/// Exit status of the child, 128 + n for a signal.
pub fn wait(pidfd: &OwnedFd) -> i32 {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).expect("our child") {
        WaitStatus::Exited(_, status) => status,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Another process of this program: none in it, its pidfd in the one that asked.
pub fn fork() -> Option<OwnedFd> {
    match sys::clone3(nix::sched::CloneFlags::empty()).expect("a process") {
        Fork::Child => None,
        Fork::Parent { pidfd, .. } => Some(pidfd),
    }
}

/// Exit status of a process that does this: 0, or 101 if it panics.
pub fn in_a_process(work: impl FnOnce() + std::panic::UnwindSafe) -> i32 {
    match fork() {
        Some(pidfd) => wait(&pidfd),
        None => match std::panic::catch_unwind(work) {
            Ok(()) => sys::exit_now(0),
            Err(_) => sys::exit_now(101),
        },
    }
}
