//! What would use up the host, or boxd: D1 to D6.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use boxd::plan::What;
use serde_json::{Map, Value, json};

use super::Test;
use super::canary::Canary;
use super::running::{BOXCTL, Running};
use super::subject::{BOTH, Subject, Users, with_memory};

pub const TESTS: &[Test] = &[
    ("d1_output_that_nobody_reads", d1_output_that_nobody_reads),
    ("d1_callers_that_go_away", d1_callers_that_go_away),
    (
        "d3_memory_and_files_without_end",
        d3_memory_and_files_without_end,
    ),
    ("d5_state_that_is_damaged", d5_state_that_is_damaged),
    ("d6_files_of_a_box_for_others", d6_files_of_a_box_for_others),
];

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The most memory a process has had, in KiB: `VmHWM` of proc(5).
fn peak(process: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("alive");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .expect("a number")
}

/// Descriptors a process has open.
fn descriptors(process: &Child) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.id()))
        .expect("alive")
        .count()
}

fn processes(running: &Running) -> usize {
    let top = running.cgroup.as_ref().expect("it runs").path();
    boxd::cgroup::processes(top).expect("listed").len()
}

fn d1_output_that_nobody_reads() {
    for users in BOTH {
        let running = Subject::shell(users, "exec sleep 1000").running();
        let quiet = running
            .exec(&[], &["sleep", "1000"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("boxctl runs");
        eventually("it has entered", || processes(&running) == 2);
        let endless = Subject::shell(users, "exec yes");
        let mut endless_in_the_foreground = endless.boxctl();
        endless_in_the_foreground.stdin(Stdio::null());
        for mut loud in [running.exec(&[], &["yes"]), endless_in_the_foreground] {
            let mut loud = loud
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("boxctl runs");
            let output = loud.stdout.as_ref().expect("piped");
            eventually("much has come", || {
                rustix::io::ioctl_fionread(output).expect("a pipe") >= 4096
            });
            // Meanwhile there is more and more to say, for it does not stop.
            std::thread::sleep(Duration::from_millis(300));
            let (most, least) = (peak(&loud), peak(&quiet));
            assert!(
                most <= least + 16 * 1024,
                "{most} KiB, and a quiet one {least}"
            );
            assert!(descriptors(&loud) <= descriptors(&quiet) + 16);
            // It hears its caller all the same.
            let pid = rustix::process::Pid::from_child(&loud);
            for signal in [rustix::process::Signal::QUIT, rustix::process::Signal::KILL] {
                let _ = rustix::process::kill_process(pid, signal);
            }
            loud.wait().expect("it ends");
        }
        let mut quiet = quiet;
        quiet.kill().expect("our child");
        quiet.wait().expect("it ends");
    }
}

/// A caller that is killed takes along what holds it: what it started ends when it writes, and the box is as before.
fn d1_callers_that_go_away() {
    const CALLERS: u32 = 100;
    for users in BOTH {
        let running = Subject::shell(users, "exec sleep 1000").running();
        for _ in 0..CALLERS {
            let mut caller = running
                .exec(&["-t"], &["yes"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("boxctl runs");
            eventually("it has begun", || {
                let output = caller.stdout.as_ref().expect("piped");
                rustix::io::ioctl_fionread(output).expect("a pipe") > 0
            });
            caller.kill().expect("our child");
            caller.wait().expect("it ends");
        }
        eventually("all have ended", || processes(&running) == 1);
        assert_eq!(running.prints(&["-t"], "tty").trim_end(), "/dev/pts/0");
    }
}

fn d3_memory_and_files_without_end() {
    const FILL: &str = "
        cd /dev/shm
        head -c 70000000 /dev/zero > big 2>/dev/null || echo full
        rm big
        perl -e 'my $n = 0; while (open(my $f, \">\", \"f$n\")) { $n++; last if $n > 20000 } print $n < 16384 ? \"no more files\\n\" : \"$n\\n\"'
        perl -e 'my @f; while (open(my $f, \"<\", \"/dev/null\")) { push @f, $f; last if @f > 2000 } print @f < 1024 ? \"no more descriptors\\n\" : \"\"'";
    for users in BOTH {
        let subject = Subject::shell(users, FILL);
        let plan = subject.plan().unwrap_or_else(|wrong| panic!("{wrong}"));
        for step in &plan.mounts {
            if let What::Tmpfs { size, inodes, .. } = step.what {
                assert!(size > 0 && inodes > 0, "{} has no end", step.at.display());
            }
        }
        let ran = subject.launch().unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(
            ran.stdout, "full\nno more files\nno more descriptors\n",
            "{ran:?}"
        );
        // As the kernel has it: a tmpfs without a limit has no blocks, or no files.
        let limits = Subject::shell(
            users,
            "for at in $(awk '$3 == \"tmpfs\" {print $2}' /proc/self/mounts); do stat -f -c '%n %b %c' $at; done",
        );
        for line in limits.launch().expect("it runs").stdout.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            // Single files of the host's are shown by the file system they are in.
            if !fields[0].starts_with("/dev/") || fields[0] == "/dev/shm" {
                assert!(fields[1] != "0" && fields[2] != "0", "{line}");
            }
        }
    }
}

fn d5_state_that_is_damaged() {
    let running = Subject::shell(Users::Own, "exec sleep 1000").running();
    let directory = Path::new("/run/boxd").join(&running.name);
    for file in ["document.json", "plan.json"] {
        let path = directory.join(file);
        let whole = fs::read(&path).expect("readable");
        let half = whole.len() / 2;
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            bytes
        };
        for damaged in [
            Vec::new(),
            b"null".to_vec(),
            b"{}".to_vec(),
            b"[".repeat(100_000),
            whole[..half].to_vec(),
            [&whole[..], b"x"].concat(),
            flipped(0),
            flipped(half),
            vec![b' '; 20 << 20],
            String::from_utf8_lossy(&whole)
                .replace("\"pid\":", "\"pid\":-")
                .into_bytes(),
            String::from_utf8_lossy(&whole)
                .replace("\"cgroup\":\"", "\"cgroup\":\"/../..")
                .into_bytes(),
        ] {
            fs::write(&path, &damaged).expect("written");
            for arguments in [
                vec!["exec", running.name.as_str(), "--", "true"],
                vec!["status", running.name.as_str()],
                vec!["kill", "--signal=URG", running.name.as_str()],
            ] {
                survives(&arguments);
            }
        }
        // Whole JSON of this version with one thing in it that is not what it should be.
        let understood: Map<String, Value> = serde_json::from_slice(&whole).expect("JSON");
        for (key, _) in understood.iter().filter(|(key, _)| *key != "version") {
            for value in [
                json!(null),
                json!(-1),
                json!(u64::MAX),
                json!("\u{1b}[2J\n"),
            ] {
                let mut damaged = understood.clone();
                damaged.insert(key.clone(), value);
                let damaged = serde_json::to_vec(&damaged).expect("JSON");
                fs::write(&path, &damaged).expect("written");
                survives(&["exec", &running.name, "--", "true"]);
                if file == "document.json" {
                    survives(&["status", &running.name]);
                }
            }
        }
        // More than there is memory for, and no more of it is read than such a file can have.
        File::create(&path)
            .and_then(|endless| endless.set_len(4 << 30))
            .expect("a hole takes no room");
        let mut exec = Command::new(BOXCTL);
        exec.args(["exec", &running.name, "--", "true"]);
        let refused = with_memory(300_000, exec);
        assert_ne!(refused.status, 0);
        assert!(
            refused.err.contains("expected value"),
            "{file}: {}",
            refused.err
        );
        fs::write(&path, &whole).expect("written");
    }
    assert_eq!(running.prints(&[], "echo alive"), "alive");
}

/// Whatever boxctl says of this, it says it, and nothing a terminal would obey.
#[track_caller]
fn survives(arguments: &[&str]) {
    let output = Command::new(BOXCTL)
        .arg("--color=never")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("boxctl runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output
            .status
            .code()
            .is_some_and(|status| status != 101 && status != 134),
        "{arguments:?}: {output:?}"
    );
    assert!(
        !said.contains("panicked") && !said.contains('\u{1b}'),
        "{arguments:?}: {said:?}"
    );
    assert!(!output.stdout.contains(&0x1b), "{arguments:?}: {output:?}");
}

/// A file with the set-user-id bit that a box makes is no way to its owner's ids: nobody else gets there.
fn d6_files_of_a_box_for_others() {
    let canary = Canary::new();
    for users in BOTH {
        let subject = Subject::new(
            users,
            &[
                "sh",
                "-c",
                "cp /usr/bin/id /var/id; chmod 4755 /var/id; chmod 777 / /var; echo up; exec sleep 1000",
            ],
            "[root]\nhost = true\nwrites = \"keep\"\n",
            "",
        );
        let kept = Path::new("/var/lib/boxd/boxes").join(subject.name().as_str());
        let mut boxctl = subject
            .boxctl()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("boxctl runs");
        let mut word = [0; 3];
        let stdout = boxctl.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(stdout, &mut word).expect("the box says so");
        let made = kept.join("root/var/id");
        assert_eq!(
            fs::metadata(&made).expect("root sees it").mode() & 0o4777,
            0o4755
        );
        let run = Path::new("/run/boxd").join(subject.name().as_str());
        let document = run.join("document.json");
        eventually("the box is confirmed", || document.exists());
        let pid = boxd::handover::understand(&fs::read(&document).expect("readable"))
            .expect("a document")
            .pid;
        for path in [
            made.clone(),
            kept.join("root"),
            kept.clone(),
            document,
            run.clone(),
            format!("/proc/{pid}/root/var/id").into(),
            format!("/proc/{pid}/fd").into(),
        ] {
            let output = Command::new("setpriv")
                .args([
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                    "sh",
                    "-c",
                ])
                .arg("ls \"$1\" && ls \"$1\"/ || \"$1\"")
                .args(["sh".as_ref(), path.as_os_str()])
                .output()
                .expect("setpriv runs");
            assert!(!output.status.success(), "{path:?}: {output:?}");
        }
        let pid = rustix::process::Pid::from_child(&boxctl);
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("our child");
        boxctl.wait().expect("it ends");
        fs::remove_dir_all(&kept).expect("removed");
    }
    canary.assert_untouched();
}
