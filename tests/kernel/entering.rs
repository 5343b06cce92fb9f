//! `boxctl exec`, `shell` and `kill` on a box that runs, through the program itself.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use boxd::capability::CapabilitySet;
use boxd::definition::User;
use boxd::plan::Plan;

use super::Test;
use super::boxes::*;
use super::running::*;

pub const TESTS: &[Test] = &[
    (
        "a_command_is_where_the_box_is_and_may_do_what_it_may",
        a_command_is_where_the_box_is_and_may_do_what_it_may,
    ),
    (
        "a_command_is_under_the_filter_of_the_box",
        a_command_is_under_the_filter_of_the_box,
    ),
    (
        "nothing_of_the_host_comes_along_with_a_command",
        nothing_of_the_host_comes_along_with_a_command,
    ),
    (
        "a_command_runs_as_whom_it_shall",
        a_command_runs_as_whom_it_shall,
    ),
    (
        "the_status_of_a_command_is_passed_on",
        the_status_of_a_command_is_passed_on,
    ),
    (
        "input_comes_only_where_it_is_asked_for",
        input_comes_only_where_it_is_asked_for,
    ),
    (
        "a_command_has_a_terminal_of_the_box",
        a_command_has_a_terminal_of_the_box,
    ),
    ("many_enter_at_once", many_enter_at_once),
    ("a_paused_box_is_not_entered", a_paused_box_is_not_entered),
    (
        "entering_a_box_that_holds_up_can_be_given_up",
        entering_a_box_that_holds_up_can_be_given_up,
    ),
    (
        "a_box_that_sorts_itself_into_groups_is_entered_beside_them",
        a_box_that_sorts_itself_into_groups_is_entered_beside_them,
    ),
    (
        "a_process_of_the_box_cannot_look_into_one_that_enters",
        a_process_of_the_box_cannot_look_into_one_that_enters,
    ),
    (
        "a_box_with_the_hosts_ids_sees_the_program_read_only",
        a_box_with_the_hosts_ids_sees_the_program_read_only,
    ),
    (
        "a_signal_reaches_the_first_process",
        a_signal_reaches_the_first_process,
    ),
    (
        "a_box_that_does_not_run_cannot_be_entered",
        a_box_that_does_not_run_cannot_be_entered,
    ),
];

fn sleeping() -> Plan {
    host_box("exec sleep 1000")
}

fn a_command_is_where_the_box_is_and_may_do_what_it_may() {
    let mut may_gain = filtered(sleeping());
    may_gain.privileges.no_new_privileges = false;
    may_gain.privileges.capabilities = CapabilitySet::ALL;
    for plan in [filtered(sleeping()), with_host_ids(sleeping()), may_gain] {
        let running = Running::start("enter-where", plan);
        const SPACES: &str =
            "for n in user mnt pid net ipc uts cgroup time; do readlink /proc/$P/ns/$n; done";
        let of_box = running.prints(&[], &format!("P=1; {SPACES}"));
        assert_eq!(running.prints(&[], &format!("P=self; {SPACES}")), of_box);
        let on_host: Vec<String> = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"]
            .iter()
            .map(|kind| fs::read_link(format!("/proc/{}/ns/{kind}", running.pid)).expect("a link"))
            .map(|link: PathBuf| link.display().to_string())
            .collect();
        assert_eq!(of_box.lines().collect::<Vec<_>>(), on_host);

        const MAY: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' /proc/$P/status; cat /proc/$P/cgroup";
        let of_box = running.prints(&[], &format!("P=1; {MAY}"));
        assert_eq!(running.prints(&[], &format!("P=self; {MAY}")), of_box);
        assert_eq!(
            running.prints(&[], "hostname; pwd; ulimit -n; umask"),
            "test-box\n/\n1024\n0022"
        );
    }
}

/// Whoever it is: without no_new_privs only a process with a capability may load the filter.
fn a_command_is_under_the_filter_of_the_box() {
    for no_new_privileges in [true, false] {
        let mut plan = filtered(sleeping());
        plan.privileges.no_new_privileges = no_new_privileges;
        let running = Running::start("enter-filter", plan);
        let may = "grep -E '^(CapPrm|CapAmb|Seccomp:)' /proc/self/status";
        let none = "0000000000000000";
        assert_eq!(
            running.prints(&["-u", "www"], may),
            format!("CapPrm:\t{none}\nCapAmb:\t{none}\nSeccomp:\t2")
        );
    }
}

fn nothing_of_the_host_comes_along_with_a_command() {
    let running = Running::start("enter-nothing", sleeping());
    // Descriptors that stay open in boxctl, as those of a careless shell do.
    let root = File::open("/").expect("the host's root");
    let inherited = rustix::io::dup(&root).expect("without close-on-exec");
    let open = running.prints(&[], "exec ls -l /proc/self/fd");
    drop(inherited);
    let targets: Vec<&str> = open
        .lines()
        .filter_map(|line| line.split(" -> ").nth(1))
        .collect();
    let (streams, own) = targets.split_at(3);
    assert!(
        streams.iter().all(|target| target.starts_with("pipe:")),
        "{open}"
    );
    assert_eq!(own.len(), 1, "what ls itself opened: {open}");
    // The streams are the command's own, so that it can open them anew whoever it is.
    let again = running
        .exec(
            &["-u", "www"],
            &["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"],
        )
        .output()
        .expect("boxctl runs");
    let said = (printed(&again.stdout), printed(&again.stderr));
    assert_eq!(said, ("out".to_owned(), "err".to_owned()));
    let environment = running
        .exec(&[], &["env"])
        .env("LEAKED", "1")
        .output()
        .expect("boxctl runs");
    assert!(
        !printed(&environment.stdout).contains("LEAKED"),
        "{environment:?}"
    );
}

fn a_command_runs_as_whom_it_shall() {
    let mut plan = sleeping();
    plan.payload.user = User::Name("www".to_owned());
    plan.payload
        .environment
        .push(("HOME".to_owned(), "/srv".to_owned()));
    plan.payload.environment.sort();
    let running = Running::start("enter-user", plan);
    const WHO: &str = "echo $(id -u):$(id -g) $(id -G) $HOME";
    for (options, who) in [
        (&[][..], "33:34 34 4 /srv"),
        (&["-u", "root"], "0:0 0 /root"),
        (&["-u", "0"], "0:0 0 /root"),
        (&["-u", "www"], "33:34 34 4 /var/www"),
        (&["-u", "1000:7"], "1000:7 7"),
    ] {
        assert_eq!(running.prints(options, WHO), who, "{options:?}");
    }
    for wrong in [
        "65536",
        "-1",
        "0x0",
        "+1",
        "1:",
        ":1",
        "1 ",
        "4294967296",
        "",
        "nobody-here",
    ] {
        let output = running
            .exec(&[&format!("--user={wrong}")], &["id"])
            .output()
            .expect("boxctl runs");
        assert!(!output.status.success(), "{wrong:?}: {output:?}");
        complaint(&output);
    }
}

fn the_status_of_a_command_is_passed_on() {
    let running = Running::start("enter-status", sleeping());
    for (command, status) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["no-such-command"], 127),
        (&["/no/such/command"], 127),
        (&["/etc/passwd"], 126),
        (&["/etc"], 126),
    ] {
        let output = running.exec(&[], command).output().expect("boxctl runs");
        assert_eq!(
            output.status.code(),
            Some(status),
            "{command:?}: {output:?}"
        );
    }
    let output = running
        .exec(&["-w", "/no/such/place"], &["true"])
        .output()
        .expect("boxctl runs");
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(
        complaint(&output),
        format!(
            "boxctl: cannot run it in box {}: cannot change to working directory \"/no/such/place\": the box has no such directory",
            running.name
        )
    );
    let output = running
        .exec(&[], &["nginxx"])
        .output()
        .expect("boxctl runs");
    assert!(
        complaint(&output).contains("cannot find command \"nginxx\""),
        "{output:?}"
    );
}

fn input_comes_only_where_it_is_asked_for() {
    let running = Running::start("enter-input", sleeping());
    for (options, wanted) in [(&["-i"][..], "hello"), (&[], "")] {
        let mut boxctl = running
            .exec(options, &["cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("boxctl runs");
        let mut stdin = boxctl.stdin.take().expect("piped");
        // A command that reads nothing may have ended by now.
        let _ = stdin.write_all(b"hello");
        drop(stdin);
        let output = boxctl.wait_with_output().expect("it ends");
        assert_eq!(printed(&output.stdout), wanted);
    }
}

fn a_command_has_a_terminal_of_the_box() {
    let running = Running::start("enter-terminal", sleeping());
    let printed = running.prints(
        &["-t", "-u", "www"],
        "tty; stat -c %u $(tty); echo $TERM > /dev/tty; test -t 0 && test -t 1 && test -t 2 && echo three",
    );
    let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
    assert_eq!(
        (lines[0], lines[1], lines[3]),
        ("/dev/pts/0", "33", "three"),
        "{printed}"
    );
    // Root of the box may put there what it likes; it is not taken for a terminal.
    running.prints(
        &[],
        "mkdir /tmp/own && mount --bind /tmp/own /dev/pts 2>/dev/null; true",
    );
}

/// What the init of a system box does: its processes in groups below the top, which then may hold none.
struct Sorted {
    parent: std::path::PathBuf,
    /// Switched on for this, and off again.
    controller: Option<String>,
}

impl Sorted {
    fn sort(running: &Running) -> Sorted {
        let top = running.cgroup.as_ref().expect("it runs").path();
        let parent = top.parent().expect("not the root").to_owned();
        let controllers = fs::read_to_string(parent.join("cgroup.controllers")).expect("readable");
        let Some(controller) = controllers.split_whitespace().next() else {
            panic!("this machine's cgroup2 tree has no controller to try it with");
        };
        let enable = format!("+{controller}");
        let control = parent.join("cgroup.subtree_control");
        let before = fs::read_to_string(&control).expect("readable");
        fs::write(&control, &enable).expect("enabled");
        let init = top.join("init");
        fs::create_dir(&init).expect("made");
        fs::write(init.join("cgroup.procs"), running.pid.to_string()).expect("moved");
        fs::write(top.join("cgroup.subtree_control"), &enable).expect("enabled");
        let was_on = before.split_whitespace().any(|there| there == controller);
        Sorted {
            parent,
            controller: (!was_on).then(|| controller.to_owned()),
        }
    }
}

impl Drop for Sorted {
    fn drop(&mut self) {
        if let Some(controller) = &self.controller {
            // Another test may use it by now.
            let _ = fs::write(
                self.parent.join("cgroup.subtree_control"),
                format!("-{controller}"),
            );
        }
    }
}

fn a_box_that_sorts_itself_into_groups_is_entered_beside_them() {
    let running = Running::start("enter-sorted", sleeping());
    let _sorted = Sorted::sort(&running);
    let top = running.cgroup.as_ref().expect("it runs").path();
    assert_eq!(
        running.prints(&[], "tail -n 1 /proc/self/cgroup"),
        "0::/boxctl-exec"
    );
    assert!(!top.join("boxctl-exec").exists());
    drop(running);
}

fn a_paused_box_is_not_entered() {
    let running = Running::start("enter-paused", sleeping());
    let top = running.cgroup.as_ref().expect("it runs").path();
    boxd::cgroup::freeze(top, std::time::Duration::from_secs(10)).expect("frozen");
    let output = running.exec(&[], &["true"]).output().expect("boxctl runs");
    assert!(!output.status.success(), "{output:?}");
    assert!(complaint(&output).contains("is paused"), "{output:?}");
    assert_eq!(boxd::cgroup::processes(top).expect("listed").len(), 1);
}

fn entering_a_box_that_holds_up_can_be_given_up() {
    let running = Running::start("enter-frozen", sleeping());
    let _sorted = Sorted::sort(&running);
    let top = running.cgroup.as_ref().expect("it runs").path();
    // As root of the box can do it, too: whoever comes in stops there.
    let leaf = top.join("boxctl-exec");
    fs::create_dir(&leaf).expect("made");
    fs::write(leaf.join("cgroup.freeze"), "1").expect("frozen");
    let mut boxctl = running.exec(&[], &["true"]);
    let mut boxctl = boxctl
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("boxctl runs");
    while boxd::cgroup::processes(&leaf).expect("listed").is_empty() {
        let ended = boxctl.try_wait().expect("our child");
        assert_eq!(ended, None, "it was not held up");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&boxctl);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our child");
    let output = boxctl.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(
        complaint(&output).contains("gave up entering"),
        "{output:?}"
    );
    assert_eq!(boxd::cgroup::processes(top).expect("listed").len(), 1);
}

fn many_enter_at_once() {
    let running = Running::start("enter-many", sleeping());
    for _ in 0..10 {
        let commands: Vec<_> = (0..8)
            .map(|_| {
                let mut boxctl = running.exec(&[], &["echo", "in"]);
                boxctl.stdout(Stdio::piped()).stderr(Stdio::piped());
                boxctl.spawn().expect("boxctl runs")
            })
            .collect();
        for boxctl in commands {
            let output = boxctl.wait_with_output().expect("it ends");
            assert_eq!(printed(&output.stdout), "in", "{output:?}");
        }
    }
    // Nobody stays behind.
    assert_eq!(
        running.prints(&[], "echo /proc/[0-9]*").split(' ').count(),
        2
    );
}

fn a_process_of_the_box_cannot_look_into_one_that_enters() {
    // Looks at every process it can see, all the time, for what is not its own program.
    const LOOK: &str = r#"
        echo looking
        while :; do
            for p in /proc/[0-9]*; do
                exe=$(readlink $p/exe) && case $exe in *boxctl*) echo "exe $exe";; esac
                root=$(readlink $p/root) && [ "$root" != / ] && echo "root $root"
                ls -l $p/fd 2>/dev/null | grep -E 'socket:|anon_inode'
            done
        done"#;
    let mut plan = host_box(LOOK);
    plan.payload.command = vec!["sh".to_owned(), "-c".to_owned(), LOOK.to_owned()];
    for plan in [plan.clone(), with_host_ids(plan)] {
        let running = Running::start("enter-look", plan);
        for _ in 0..30 {
            running.prints(&[], ":");
        }
        let mut seen = vec![0; 4096];
        let length = rustix::io::read(&running.output.stdout, &mut seen).expect("read");
        assert_eq!(printed(&seen[..length]), "looking");
    }
}

fn a_box_with_the_hosts_ids_sees_the_program_read_only() {
    let running = Running::start("enter-sealed", with_host_ids(sleeping()));
    let mut boxctl = running
        .exec(&["-i"], &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("boxctl runs");
    let mut stdin = boxctl.stdin.take().expect("piped");
    stdin.write_all(b"x").expect("written");
    let mut byte = [0];
    let stdout = boxctl.stdout.as_mut().expect("piped");
    std::io::Read::read_exact(stdout, &mut byte).expect("it has entered");
    // As a box would that has made the process execute its own program: open it, wait until it is not executed
    // any more, and open it anew to write.
    let program = File::open(format!("/proc/{}/exe", boxctl.id())).expect("the program");
    drop(stdin);
    assert!(boxctl.wait().expect("it ends").success());
    let path = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&program)
    );
    let error = File::options()
        .append(true)
        .open(path)
        .expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

fn a_signal_reaches_the_first_process() {
    let line = "trap 'echo got; exit' USR1; echo ready; while :; do sleep 0.05; done";
    let running = Running::start("enter-kill", host_box(line));
    let mut said = vec![0; 64];
    let length = rustix::io::read(&running.output.stdout, &mut said).expect("read");
    assert_eq!(printed(&said[..length]), "ready");
    let status = Command::new(BOXCTL)
        .args(["kill", "--signal=USR1", &running.name])
        .status()
        .expect("boxctl runs");
    assert!(status.success());
    let length = rustix::io::read(&running.output.stdout, &mut said).expect("read");
    assert_eq!(printed(&said[..length]), "got");
}

fn a_box_that_does_not_run_cannot_be_entered() {
    let running = Running::start("enter-ended", sleeping());
    let process = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(running.pid).expect("a pid"),
        rustix::process::PidfdFlags::empty(),
    )
    .expect("our child");
    rustix::process::pidfd_send_signal(process.as_fd(), rustix::process::Signal::KILL)
        .expect("killed");
    assert_eq!(wait(&process), 137);
    let output = running.exec(&[], &["true"]).output().expect("boxctl runs");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(complaint(&output).contains(&running.name), "{output:?}");
    let output = Command::new(BOXCTL)
        .args(["exec", "Not-A-Box", "true"])
        .output()
        .expect("boxctl runs");
    assert!(
        complaint(&output).contains("is not a box name"),
        "{output:?}"
    );
}
