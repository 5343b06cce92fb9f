//! Descriptors, process state, and what comes in with a command: F1 to F10.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use boxd::capability::CapabilitySet;
use boxd::definition::{Users as DefinedUsers, parse_user};
use boxd::handover;
use boxd::sandbox::identity::look_up;
use rustix::fs::{Mode, OFlags};

use super::Test;
use super::boxes::{Ran, filtered};
use super::canary::Canary;
use super::running::{BOXCTL, Running, complaint, printed};
use super::subject::{BOTH, Foreground, Image, Subject, Users, finish, launch, with_little_memory};

pub const TESTS: &[Test] = &[
    (
        "f1_working_directories_that_lead_out",
        f1_working_directories_that_lead_out,
    ),
    ("f2_descriptors_of_who_calls", f2_descriptors_of_who_calls),
    ("f3_the_program_that_launches", f3_the_program_that_launches),
    ("f4_looking_into_who_enters", f4_looking_into_who_enters),
    ("f5_sets_of_capabilities", f5_sets_of_capabilities),
    ("f6_users_that_are_no_users", f6_users_that_are_no_users),
    ("f7_accounts_without_end", f7_accounts_without_end),
    ("f8_keys_of_the_host", f8_keys_of_the_host),
    (
        "f9_characters_for_the_caller_s_terminal",
        f9_characters_for_the_caller_s_terminal,
    ),
    (
        "f10_text_that_is_more_than_one_thing",
        f10_text_that_is_more_than_one_thing,
    ),
];

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn f1_working_directories_that_lead_out() {
    let canary = Canary::new();
    for users in BOTH {
        let image = Image::new();
        symlink("/proc/self/cwd", image.at("cwd")).expect("a link");
        symlink("/proc/self/fd/5", image.at("five")).expect("a link");
        symlink("../../../../..", image.at("up")).expect("a link");
        let subject = Subject::new(
            users,
            &["sh", "-c", "pwd -P; readlink /proc/self/cwd"],
            &image.root(),
            "",
        );
        let mut plan = subject.plan().unwrap_or_else(|wrong| panic!("{wrong}"));
        let sleeping = Subject::new(users, &["sleep", "1000"], &image.root(), "");
        let running = sleeping.running();
        let mut paths: Vec<String> = (0..12)
            .map(|number| format!("/proc/self/fd/{number}"))
            .collect();
        paths.extend(
            [
                "/proc/1/cwd",
                "/proc/1/root",
                "/proc/self/root/etc",
                "/cwd",
                "/five",
            ]
            .map(str::to_owned),
        );
        for path in &paths {
            plan.payload.working_directory = PathBuf::from(path);
            let wrong = launch(&plan).expect_err(path);
            assert!(
                wrong.contains("cannot change to working directory"),
                "{path}: {wrong}"
            );
            let output = running
                .exec(&["-w", path], &["true"])
                .output()
                .expect("boxctl runs");
            assert_eq!(output.status.code(), Some(125), "{path}: {output:?}");
            assert!(
                complaint(&output).contains("cannot change to working directory"),
                "{output:?}"
            );
        }
        plan.payload.working_directory = PathBuf::from("/up");
        assert_eq!(launch(&plan).expect("it is the root").stdout, "/\n/\n");
        assert_eq!(running.prints(&["-w", "/up"], "pwd -P"), "/");
    }
    canary.assert_untouched();
}

fn f2_descriptors_of_who_calls() {
    // As a careless shell leaves them: not close-on-exec.
    let root = File::open("/").expect("the host's root");
    let leaked: Vec<OwnedFd> = (0..48)
        .map(|_| rustix::io::dup(&root).expect("free"))
        .collect();
    const LOOK: &str = "exec ls -l /proc/self/fd /proc/1/fd";
    for users in BOTH {
        let subject = Subject::shell(users, LOOK);
        let ran = subject.foreground();
        assert_eq!(ran.status, 0, "{}", ran.err);
        assert_streams_only(&ran.out);
        let ran = subject.launch().unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_streams_only(&ran.stdout);
        let running = Subject::shell(users, "exec sleep 1000").running();
        assert_streams_only(&running.prints(&[], LOOK));
    }
    drop(leaked);
}

/// Pipes, and the directory that ls has open.
#[track_caller]
fn assert_streams_only(listed: &str) {
    let targets: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split(" -> ").nth(1))
        .filter(|target| !target.starts_with("pipe:[") && *target != "/dev/null")
        .collect();
    assert!(targets.len() <= 2, "{listed}");
    assert!(
        targets
            .iter()
            .all(|target| target.starts_with("/proc/") && target.ends_with("/fd")),
        "{listed}"
    );
}

/// What a box with the host's ids could write, it sees through a mount nobody can write through.
fn f3_the_program_that_launches() {
    let canary = Canary::new();
    for users in BOTH {
        let image = Image::new();
        symlink("/proc/self/exe", image.at("self")).expect("a link");
        let keys: String = (0..50_000).map(|key| format!("key-{key} = 1\n")).collect();
        fs::write(image.at("large"), keys).expect("written");
        // The first process of the box is boxctl, and busy for longer than it is looked at.
        let mut command = vec!["/self", "check"];
        command.resize(500, "/large");
        let subject = Subject::new(users, &command, &image.root(), "");
        let mut boxctl = subject
            .boxctl()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("boxctl runs");
        let document = Path::new("/run/boxd")
            .join(subject.name().as_str())
            .join("document.json");
        let begin = Instant::now();
        while !document.exists() {
            assert!(begin.elapsed() < PATIENCE, "the box does not run");
            assert_eq!(
                boxctl.try_wait().expect("our child"),
                None,
                "it did not run"
            );
            std::thread::yield_now();
        }
        let document = fs::read(document).expect("readable");
        let pid = handover::understand(&document).expect("a document").pid;
        let exe = format!("/proc/{pid}/exe");
        let program = File::open(&exe).expect("the program");
        let ours = fs::metadata(BOXCTL).expect("it is there");
        let is_boxctl = program.metadata().expect("open").ino() == ours.ino();
        let pid = rustix::process::Pid::from_child(&boxctl);
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("our child");
        boxctl.wait().expect("it ends");
        assert!(is_boxctl, "the link was not followed");
        match users {
            // Its owner is nobody in the box.
            Users::Own => assert_eq!((ours.uid(), ours.mode() & 0o022), (0, 0)),
            Users::Host => {
                let path = format!("/proc/self/fd/{}", program.as_raw_fd());
                let error = File::options()
                    .append(true)
                    .open(path)
                    .expect_err("read-only");
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::ReadOnlyFilesystem,
                    "{error}"
                );
            }
        }
        // Nor is it entered with a program that can be written: the box runs it as its own.
        let sleeping = Subject::new(users, &["sleep", "1000"], &image.root(), "");
        let running = sleeping.running();
        let tries = "for n in 1 2 3 4 5; do for p in /proc/[0-9]*; do
            { echo x >> $p/exe; } 2>/dev/null && readlink $p/exe; done; done; true";
        let spy = running
            .exec(&[], &["sh", "-c", tries])
            .stdout(Stdio::piped())
            .spawn()
            .expect("boxctl runs");
        for _ in 0..10 {
            let output = running
                .exec(&[], &["/self", "--version"])
                .output()
                .expect("boxctl runs");
            assert!(printed(&output.stdout).starts_with("boxctl "), "{output:?}");
        }
        let written = spy.wait_with_output().expect("it ends");
        assert_eq!(printed(&written.stdout), "");
    }
    canary.assert_untouched();
}

/// Root of the box, with every privilege it can have there, after whoever comes in; it prints what it got of a process that is
/// boxctl still.
const SPY: &str = r#"
    $| = 1;
    my %seen = map { $_ => 1 } grep { /^\d+$/ } dir();
    sub dir { opendir(my $d, '/proc') or die; readdir $d }
    # By its name, or as it lies on the mount of its own that nobody can write through.
    sub ours { my $exe = readlink("/proc/$_[0]/exe"); defined $exe && $exe !~ m{^/usr/} }
    print "watching\n";
    while (1) {
        for my $p (grep { /^\d+$/ } dir()) {
            print "exe $p\n" if ours($p);
            next if $seen{$p}++;
            print "traced $p\n" if syscall(SYS_ptrace, 0x4206, $p, 0, 0) == 0 && ours($p);
            if (open(my $mem, '+<', "/proc/$p/mem")) { print "memory $p\n" if ours($p) }
            if (open(my $e, '<', "/proc/$p/environ")) {
                local $/; print "environment $p\n" if (<$e> // '') =~ /MARK_OF_THE_HOST/
            }
            if (opendir(my $d, "/proc/$p/fd")) {
                for (readdir $d) {
                    my $to = readlink("/proc/$p/fd/$_") // next;
                    print "descriptor $p $to\n" if $to =~ /^(socket|anon_inode)/;
                }
            }
            my $root = readlink("/proc/$p/root") // next;
            print "root $p $root\n" if $root ne '/';
        }
        1 while waitpid(-1, 0x40000001) > 0;
    }"#;

fn f4_looking_into_who_enters() {
    const ENTRIES: u32 = 150;
    for users in BOTH {
        let spy = SPY.replace("SYS_ptrace", &libc::SYS_ptrace.to_string());
        let subject = Subject::new(users, &["perl", "-e", &spy], "", "");
        let mut plan = subject.plan().unwrap_or_else(|wrong| panic!("{wrong}"));
        plan.privileges.seccomp = None;
        plan.privileges.no_new_privileges = false;
        if users == Users::Own {
            plan.privileges.capabilities = CapabilitySet::ALL;
        }
        let running = Running::start("attacked", plan);
        for _ in 0..ENTRIES {
            let output = running
                .exec(&[], &["true"])
                .env("MARK_OF_THE_HOST", "1")
                .output()
                .expect("boxctl runs");
            assert!(output.status.success(), "{output:?}");
        }
        let mut seen = vec![0; 4096];
        let length = rustix::io::read(&running.output.stdout, &mut seen).expect("read");
        assert_eq!(printed(&seen[..length]), "watching");
    }
}

fn f5_sets_of_capabilities() {
    const SETS: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d ' \\t'";
    for users in BOTH {
        let subject = Subject::shell(users, SETS);
        let mut plan = subject.plan().unwrap_or_else(|wrong| panic!("{wrong}"));
        let set = format!("{:016x}", plan.privileges.capabilities.bits());
        assert_eq!(plan.privileges.capabilities.bits().count_ones(), 8);
        let none = "0000000000000000";
        let running = Subject::shell(users, "exec sleep 1000").running();
        for (user, held) in [
            ("0", set.as_str()),
            ("1000", none),
            ("1000:0", none),
            ("daemon", none),
        ] {
            let wanted = format!(
                "CapInh:{none}\nCapPrm:{held}\nCapEff:{held}\nCapBnd:{set}\nCapAmb:{none}\nNoNewPrivs:1\nSeccomp:2"
            );
            let defined = match users {
                Users::Own => DefinedUsers::Auto,
                Users::Host => DefinedUsers::Host,
            };
            plan.payload.user = parse_user(user, defined).expect("a user");
            let started = launch(&plan).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_eq!(started.stdout.trim_end(), wanted, "{user}");
            assert_eq!(running.prints(&["-u", user], SETS), wanted, "{user}");
        }
    }
}

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\n\
    daemon:x:1:1::/:\n\
    www:x:33:34::/:\n\
    1000:x:7:8::/:\n\
    evil:x:-1:0::/:\nevil:x:4294967295:0::/:\nevil:x:4294967296:0::/:\nevil:x:+7:0::/:\nevil:x:0x7:0::/:\n";

/// Whom a text means, by what the manual says: digits are an id, two of them user and group, and everything else
/// is a name of the image's.
fn meant(text: &str, most: u64) -> Option<(u64, u64)> {
    let id = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let id = digits.then(|| text.parse().ok()).flatten()?;
        (id <= most && id != 65535).then_some(id)
    };
    match (text, text.split_once(':')) {
        ("root", _) => Some((0, 0)),
        ("daemon", _) => Some((1, 1)),
        ("www", _) => Some((33, 34)),
        (_, Some((uid, gid))) => Some((id(uid)?, id(gid)?)),
        (_, None) => match id(text)? {
            0 => Some((0, 0)),
            1 => Some((1, 1)),
            33 => Some((33, 34)),
            // Of that number, not of that name.
            7 => Some((7, 8)),
            uid => Some((uid, uid)),
        },
    }
}

fn users_to_try() -> Vec<String> {
    let mut all: Vec<String> = [
        "www",
        "root",
        "daemon",
        "evil",
        "nobody-here",
        "www ",
        " www",
        "www\n",
        "www\0",
        "WWW",
        "ww",
        "www:",
        ":www",
        "www:34",
        "33:www",
        "-",
        "--",
        "../root",
        "root:x:0:0",
        "\u{661}",
        "1.0",
        "1e3",
        "0b1",
        "1_000",
        "",
    ]
    .map(str::to_owned)
    .to_vec();
    const FIRST: [&str; 19] = [
        "0",
        "1",
        "33",
        "7",
        "1000",
        "65534",
        "65535",
        "65536",
        "4294967294",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "99999999999999999999999",
        "-1",
        "+1",
        "0x0",
        "01",
        " 1",
        "1 ",
    ];
    const SECOND: [&str; 11] = [
        "",
        ":",
        ":0",
        ":1",
        ":65535",
        ":65536",
        ":4294967295",
        ":-1",
        ":0x1",
        ": 1",
        ":1:1",
    ];
    for first in FIRST {
        for second in SECOND {
            all.push(format!("{first}{second}"));
        }
    }
    all
}

fn f6_users_that_are_no_users() {
    let image = Image::new();
    fs::write(image.place("/etc/passwd"), PASSWD).expect("a file");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(image.at("/"), flags, Mode::empty()).expect("it is there");
    let root = boxd::sandbox::paths::Root::new(directory);
    let all = users_to_try();
    assert!(all.len() >= 200, "{}", all.len());
    for (users, most) in [(Users::Own, 65534), (Users::Host, u64::from(u32::MAX) - 1)] {
        let running = Subject::new(users, &["sleep", "1000"], &image.root(), "").running();
        for (number, text) in all.iter().enumerate() {
            let wanted = meant(text, most);
            // What the definition says, up to whom the child of a start becomes.
            let more = format!("user = {text:?}\n{}", image.root())
                .replace("\\0", "\\u0000")
                .replace("\\u{661}", "\u{661}");
            let started = Subject::new(users, &["true"], &more, "")
                .definition()
                .ok()
                .and_then(|definition| look_up(&root, &definition.user?, &[]).ok())
                .map(|found| (u64::from(found.uid), u64::from(found.gid)));
            assert_eq!(started, wanted, "{users:?} user = {text:?}");
            // Of what is refused every fifth, for time.
            if text.contains('\0') || wanted.is_none() && number % 5 != 0 {
                continue;
            }
            let option = format!("--user={text}");
            let who = "id -u; id -g; id -G";
            let output = running
                .exec(&[&option], &["sh", "-c", who])
                .output()
                .expect("boxctl runs");
            let is = output.status.success().then(|| printed(&output.stdout));
            let shall = wanted.map(|(uid, gid)| format!("{uid}\n{gid}\n{gid}"));
            assert_eq!(is, shall, "{users:?} --user={text:?}: {output:?}");
            if shall.is_none() {
                complaint(&output);
            }
        }
    }
}

fn f7_accounts_without_end() {
    type Fill = fn(&Path);
    let cases: [(&str, Fill, bool); 4] = [
        (
            "one line of 4 GiB",
            |at| {
                File::create(at)
                    .and_then(|file| file.set_len(4 << 30))
                    .expect("sparse")
            },
            false,
        ),
        (
            "many lines",
            |at| fs::write(at, "a:x:5:5::/:\n".repeat(200_000)).expect("written"),
            false,
        ),
        (
            "a line that fits",
            |at| fs::write(at, format!("{}:x:5:5::/:\n", "a".repeat(900_000))).expect("written"),
            true,
        ),
        (
            "lines that fit",
            |at| fs::write(at, "a:x:5:5::/:\n".repeat(80_000)).expect("written"),
            true,
        ),
    ];
    for users in BOTH {
        for file in ["/etc/passwd", "/etc/group"] {
            for (what, fill, fits) in cases {
                let image = Image::new();
                fs::write(image.place("/etc/passwd"), "").expect("a file");
                fill(&image.at(file));
                let more = format!("user = \"0\"\n{}", image.root());
                let run = Subject::new(users, &["true"], &more, "");
                let Foreground { status, err, .. } = with_little_memory(run.boxctl());
                assert_eq!(status == 0, fits, "{file}: {what}: {err}");
                assert!(
                    fits || err.contains("it is larger than"),
                    "{file}: {what}: {err}"
                );

                let running = Subject::new(users, &["sleep", "1000"], "", "").running();
                // Put there by root of the box, who may.
                let mut child = running
                    .exec(
                        &["-i", "-u", "0:0"],
                        &["sh", "-c", &format!("cat > {file}")],
                    )
                    .stdin(Stdio::piped())
                    .spawn()
                    .expect("boxctl runs");
                let mut stdin = child.stdin.take().expect("piped");
                let filled = File::open(image.at(file)).expect("there");
                std::io::copy(&mut filled.take(8 << 20), &mut stdin).expect("copied");
                drop(stdin);
                assert!(child.wait().expect("it ends").success());
                let entered = with_little_memory(running.exec(&["-u", "0"], &["true"]));
                let Foreground { status, err, .. } = entered;
                assert_eq!(status == 0, fits, "{file}: {what}: {err}");
                assert!(
                    fits || err.contains("it is larger than"),
                    "{file}: {what}: {err}"
                );
            }
        }
    }
}

/// Puts a key into a session keyring of the caller's, and goes on as the command it is given.
const WITH_A_KEY: &str = r#"
    my ($type, $name, $secret) = ('user', 'boxd-canary', 'secret');
    syscall(SYS_keyctl, 1, 0) >= 0 or exit 77;
    syscall(SYS_add_key, $type, $name, $secret, 6, -3) >= 0 or exit 77;
    exec @ARGV;"#;

/// Says for each keyring whether the key is found there.
const SEARCH: &str = r#"
    my ($type, $name) = ('user', 'boxd-canary');
    for my $ring (-1, -2, -3, -4, -5) {
        my $found = syscall(SYS_keyctl, 10, $ring, $type, $name, 0);
        print $found >= 0 ? "found in $ring\n" : '';
    }
    print "searched\n";"#;

fn with_calls(script: &str) -> String {
    script
        .replace("SYS_keyctl", &libc::SYS_keyctl.to_string())
        .replace("SYS_add_key", &libc::SYS_add_key.to_string())
        .replace("SYS_ioctl", &libc::SYS_ioctl.to_string())
}

fn f8_keys_of_the_host() {
    let with_a_key = |command: Command| {
        let mut perl = Command::new("perl");
        perl.args(["-e", &with_calls(WITH_A_KEY)])
            .arg(command.get_program())
            .args(command.get_args());
        finish(perl)
    };
    let search = with_calls(SEARCH);
    // The attack works where there is no box.
    let mut bare = Command::new("perl");
    bare.args(["-e", &search]);
    assert!(
        with_a_key(bare).out.contains("found in -3"),
        "no key was made"
    );
    for (users, security) in [
        (Users::Own, ""),
        (Users::Host, ""),
        (Users::Own, "keyring = true"),
        (Users::Host, "keyring = true"),
    ] {
        let subject = Subject::new(users, &["perl", "-e", &search], "", security);
        let ran = with_a_key(subject.boxctl());
        assert_eq!(
            (ran.status, ran.out.as_str()),
            (0, "searched\n"),
            "{users:?} {security}: {}",
            ran.err
        );
        let running = Subject::new(users, &["sleep", "1000"], "", security).running();
        let ran = with_a_key(running.exec(&[], &["perl", "-e", &search]));
        assert_eq!(
            (ran.status, ran.out.as_str()),
            (0, "searched\n"),
            "{users:?} {security}: {}",
            ran.err
        );
        let keys = running.prints(&[], "cat /proc/keys");
        assert!(!keys.contains("boxd-canary"), "{keys}");
    }
}

fn f9_characters_for_the_caller_s_terminal() {
    // TIOCSTI, for each of the three streams, and TIOCLINUX.
    const PUSH: &str = r#"
        my $byte = 'x';
        for my $fd (0, 1, 2) { print ioctl_result($fd, 0x5412), ' ' }
        print ioctl_result(0, 0x541C), "\n";
        sub ioctl_result { syscall(SYS_ioctl, $_[0], $_[1], $byte) == 0 ? 'pushed' : 'refused' }"#;
    for users in BOTH {
        let push = with_calls(PUSH);
        let subject = Subject::shell(users, "exec sleep 1000");
        let mut open = subject.plan().unwrap_or_else(|wrong| panic!("{wrong}"));
        open.privileges.seccomp = None;
        open.privileges.capabilities = CapabilitySet::ALL;
        for (plan, held) in [
            (filtered(open.clone()), false),
            (subject.plan().expect("as before"), true),
            (open, false),
        ] {
            let running = Running::start("attacked", plan);
            let master = rustix::pty::openpt(
                rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY,
            )
            .expect("a terminal");
            rustix::pty::unlockpt(&master).expect("ours");
            let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
            let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).expect("its other end");
            let stream = || Stdio::from(slave.try_clone().expect("free"));
            let status = running
                .exec(&["-i", "-t"], &["perl", "-e", &push])
                .stdin(stream())
                .stdout(stream())
                .stderr(stream())
                .status()
                .expect("boxctl runs");
            assert!(status.success());
            let mut said = [0; 1024];
            let length = rustix::io::read(&master, &mut said).expect("read");
            let said = printed(&said[..length]);
            if held {
                assert_eq!(said, "refused refused refused refused");
            }
            // Whatever its own terminal took, the caller's has nothing to read.
            let waiting = rustix::io::ioctl_fionread(&slave).expect("a terminal");
            assert_eq!(waiting, 0, "{said}");
        }
    }
}

fn f10_text_that_is_more_than_one_thing() {
    const AWKWARD: [&str; 12] = [
        "a\nPATH=/evil",
        "a\rb",
        "%i %n %%",
        "$HOME ${HOME} $$",
        "\"quoted\" 'too'",
        "back\\slash",
        "a;b|c&d",
        "a=b=c",
        "[Service]\nExecStart=/evil",
        "\u{1b}]0;title\u{7}",
        "\u{202e}right",
        "# not a comment",
    ];
    for users in BOTH {
        for text in AWKWARD {
            let quoted = toml_string(text);
            // A value of the environment is one value, whatever is in it.
            let subject = Subject::new(
                users,
                &["sh", "-c", "env -0"],
                &format!("environment = {{ VALUE = {quoted} }}"),
                "",
            );
            let Ran { stdout, .. } = subject
                .launch()
                .unwrap_or_else(|wrong| panic!("{text:?}: {wrong}"));
            let variables: Vec<&str> = stdout.split('\0').collect();
            assert!(
                variables.contains(&format!("VALUE={text}").as_str()),
                "{text:?}: {stdout:?}"
            );
            assert!(!variables.contains(&"PATH=/evil"), "{stdout:?}");
            // A hostname is one, or is refused before anything is made of it.
            let subject = Subject::new(
                users,
                &["cat", "/etc/hosts"],
                &format!("hostname = {quoted}"),
                "",
            );
            let wrong = subject.plan().expect_err(text);
            assert!(wrong.contains("hostname"), "{wrong}");
            for key in ["user", "working-directory"] {
                if let Err(wrong) =
                    Subject::new(users, &["true"], &format!("{key} = {quoted}"), "").launch()
                {
                    assert!(!wrong.contains('\u{1b}'), "{key} = {text:?}: {wrong:?}");
                }
            }
        }
    }
}

fn toml_string(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|character| match character {
            '"' | '\\' => format!("\\{character}"),
            character if character.is_control() => format!("\\u{:04X}", character as u32),
            character => character.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}
