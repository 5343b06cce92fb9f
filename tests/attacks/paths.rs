//! Ways through a box's files: P1 to P12.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use boxd::launch::RunDirectory;
use boxd::sandbox::paths::{Kind, Root};
use nix::mount::{MsFlags, mount};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};

use super::Test;
use super::boxes::in_a_process;
use super::canary::{Canary, SECRET};
use super::running::complaint;
use super::subject::{BOTH, Image, Subject, Users, assert_clean, launch, with_little_memory};
use super::swapper::{EXCHANGES, Swapper};

pub const TESTS: &[Test] = &[
    (
        "p1_proc_and_sys_that_are_links",
        p1_proc_and_sys_that_are_links,
    ),
    (
        "p2_a_mount_point_that_is_swapped",
        p2_a_mount_point_that_is_swapped,
    ),
    ("p2_a_source_that_is_swapped", p2_a_source_that_is_swapped),
    (
        "p3_directories_made_on_the_way",
        p3_directories_made_on_the_way,
    ),
    (
        "p3_directories_moved_out_of_the_root",
        p3_directories_moved_out_of_the_root,
    ),
    ("p4_what_masks_are_made_of", p4_what_masks_are_made_of),
    (
        "p5_terminals_that_are_swapped",
        p5_terminals_that_are_swapped,
    ),
    (
        "p6_settings_written_elsewhere",
        p6_settings_written_elsewhere,
    ),
    (
        "p7_directories_of_the_image_that_lead_out",
        p7_directories_of_the_image_that_lead_out,
    ),
    (
        "p8_files_of_the_image_that_are_something_else",
        p8_files_of_the_image_that_are_something_else,
    ),
    ("p9_libraries_of_the_image", p9_libraries_of_the_image),
    (
        "p11_directories_that_somebody_made_before",
        p11_directories_that_somebody_made_before,
    ),
    (
        "p12_deleting_while_it_is_swapped",
        p12_deleting_while_it_is_swapped,
    ),
];

/// Launches it until there were enough exchanges and as many attempts; each runs, or is refused with a sentence.
/// What those printed that ran.
fn launch_in_a_race(swapper: &Swapper, subject: &Subject) -> Vec<String> {
    let mut printed = Vec::new();
    swapper.race(20, |_| match subject.launch() {
        Ok(ran) => printed.push(ran.stdout),
        Err(wrong) => assert_clean(&wrong),
    });
    printed
}

fn p1_proc_and_sys_that_are_links() {
    let canary = Canary::new();
    let out = canary.path().display().to_string();
    for users in BOTH {
        for (name, target) in [
            ("proc", "/bad"),
            ("proc", "/"),
            ("proc", "proc"),
            ("proc", out.as_str()),
            ("sys", "/bad"),
            ("sys", "../../.."),
            ("sys", "/proc"),
        ] {
            let image = Image::new();
            fs::create_dir(image.at("bad")).expect("a directory");
            symlink(target, image.at(name)).expect("a link");
            let subject = Subject::new(users, &["true"], &image.root(), "");
            let wrong = subject.launch().expect_err("it is a link");
            assert!(
                wrong.contains("must be mounted on ordinary directory"),
                "{wrong}"
            );
            let ran = subject.foreground();
            assert_ne!(ran.status, 0);
            assert!(
                ran.err.contains("must be mounted on ordinary directory"),
                "{}",
                ran.err
            );
        }
        for at in [
            "/proc",
            "/proc/self",
            "/proc/self/attr",
            "/sys/fs",
            "/dev/null",
            "/dev/pts",
        ] {
            let more = format!("[[mount]]\nbind = \"{out}\"\nat = \"{at}\"\n");
            let wrong = Subject::new(users, &["true"], &more, "").plan();
            assert!(wrong.expect_err(at).contains("mount[1].at: "), "{at}");
        }
    }
    canary.assert_untouched();
}

/// A directory two boxes share: `a` is what is wanted, and `b` leads out of it.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new(target: &Path) -> Shared {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("set");
        fs::create_dir(directory.path().join("a")).expect("a directory");
        symlink(target, directory.path().join("b")).expect("a link");
        Shared(directory)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn swapper(&self) -> Swapper {
        Swapper::of(&self.at("a"), &self.at("b"))
    }
}

fn p2_a_mount_point_that_is_swapped() {
    let canary = Canary::new();
    for users in BOTH {
        for target in [
            canary.path(),
            Path::new("../../../../../../.."),
            Path::new("/proc/1/root"),
        ] {
            let shared = Shared::new(target);
            let more = format!(
                "[[mount]]\nbind = {:?}\nat = \"/shared\"\n[[mount]]\ntmpfs = \"1M\"\nat = \"/shared/a/deep/er\"\n",
                shared.0.path()
            );
            let subject = Subject::new(
                users,
                &[
                    "sh",
                    "-c",
                    "touch /shared/a/deep/er/x; grep -c tmpfs /proc/self/mountinfo",
                ],
                &more,
                "",
            );
            let swapper = shared.swapper();
            let printed = launch_in_a_race(&swapper, &subject);
            assert!(!printed.is_empty(), "none of them ran");
            canary.assert_untouched();
        }
    }
}

/// What is looked at when the box is planned is what is mounted when it is launched.
fn p2_a_source_that_is_swapped() {
    for users in BOTH {
        let shared = Shared::new(Path::new("/etc"));
        let more = format!("[[mount]]\nbind = {:?}\nat = \"/data\"\n", shared.at("a"));
        let subject = Subject::new(
            users,
            &["sh", "-c", "test -e /data/passwd && echo ESCAPED; true"],
            &more,
            "",
        );
        // Between the two is next to no time: the plan is made once, and carried out all the time.
        let plan = subject.plan().expect("a directory");
        let swapper = shared.swapper();
        let mut ran = 0;
        swapper.race(30, |_| match launch(&plan) {
            Ok(said) => {
                assert_eq!(said.stdout, "");
                ran += 1;
            }
            Err(wrong) => assert_clean(&wrong),
        });
        assert!(ran > 0, "none of them ran");
        for said in launch_in_a_race(&swapper, &subject) {
            assert_eq!(said, "");
        }
    }
}

/// A directory as a root, with no chroot(2) around it.
fn root_of(path: &Path) -> Root {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Root::new(rustix::fs::open(path, flags, Mode::empty()).expect("it is there"))
}

fn inode(file: &OwnedFd) -> (u64, u64) {
    let status = rustix::fs::fstat(file).expect("open");
    (status.st_dev, status.st_ino)
}

fn p3_directories_made_on_the_way() {
    let canary = Canary::new();
    let outside = canary.inodes();
    let mut relative = PathBuf::from("../../../../../../..");
    relative.push(canary.path().strip_prefix("/").expect("absolute"));
    for target in [canary.path(), &relative] {
        let shared = Shared::new(target);
        let root = root_of(shared.0.path());
        let swapper = shared.swapper();
        swapper.race(1500, |attempt| {
            let inside = PathBuf::from(format!("/a/{}/x", attempt % 50));
            let _ = root.mount_point(&inside.join("directory"), Kind::Directory);
            let _ = root.mount_point(&inside.join("file"), Kind::File);
            let _ = root.file(&inside.join("written"), Mode::RUSR, b"x");
            let _ = root.symlink(&inside.join("link"), Path::new("/"));
            let _ = root.directory(&inside.join("made"), Mode::RWXU);
            let _ = root.ordinary_mount_point(&inside.join("proc"));
            for path in ["/a/b/c", "/a/secret", "/a/a/b"] {
                if let Ok(Some(found)) = root.find(Path::new(path)) {
                    assert!(!outside.contains(&inode(&found)), "{path}");
                }
            }
            if let Ok(Some(read)) = root.read(Path::new("/a/secret"), 1000) {
                assert_ne!(read, SECRET.as_bytes());
            }
        });
        drop(swapper);
        canary.assert_untouched();
    }
}

/// `..` of a directory that is moved out of the root while it is walked through is outside.
fn p3_directories_moved_out_of_the_root() {
    let around = tempfile::tempdir().expect("a directory");
    let at = |name: &str| around.path().join(name);
    for directory in ["root/a/b/c", "out/side/c"] {
        fs::create_dir_all(at(directory)).expect("a directory");
    }
    let root = root_of(&at("root"));
    let swapper = Swapper::of(&at("root/a/b"), &at("out/side"));
    swapper.race(1500, |attempt| {
        let name = format!("/a/b/c/../../new/{}", attempt % 50);
        let _ = root.mount_point(Path::new(&name), Kind::Directory);
        let _ = root.file(Path::new("/a/b/c/../../../file"), Mode::RUSR, b"x");
    });
    drop(swapper);
    let names: Vec<_> = ["", "out"]
        .into_iter()
        .flat_map(|place| fs::read_dir(at(place)).expect("it is there"))
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

fn p4_what_masks_are_made_of() {
    const LOOK: &str = "for at in /proc/kcore /proc/keys /proc/kallsyms /proc/sysrq-trigger; do
            stat -c '%n %F %t:%T' $at; done; stat -c '%n %F %t:%T' /dev/null";
    let canary = Canary::new();
    let null: Vec<String> = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/kallsyms",
        "/proc/sysrq-trigger",
        "/dev/null",
    ]
    .iter()
    .filter(|path| Path::new(path).exists())
    .map(|path| format!("{path} character special file 1:3\n"))
    .collect();
    assert!(null.len() > 2, "{null:?}");
    for users in BOTH {
        let image = Image::new();
        let at = image.place("/dev/null");
        let other = image.place("/dev/other");
        let more = image.root();
        let subject = Subject::new(
            users,
            &["sh", "-c", &format!("{{ {LOOK}; }} 2>/dev/null")],
            &more,
            "",
        );
        let check = || {
            let ran = subject.launch().unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_eq!(ran.stdout, null.concat());
        };
        symlink(canary.path().join("file"), &at).expect("a link");
        check();
        fs::write(&other, "").expect("a file");
        let swapper = Swapper::of(&at, &other);
        swapper.race(20, |_| check());
        drop(swapper);
        fs::remove_file(&at).expect("there");
        mknodat(
            CWD,
            &at,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(1, 5),
        )
        .expect("a device");
        check();
    }
    canary.assert_untouched();

    // Nor is the host's taken for it if it is something else.
    let status = in_a_process(|| {
        private_mounts();
        let file = tempfile::NamedTempFile::new().expect("a file");
        let none = None::<&str>;
        mount(Some(file.path()), "/dev/null", none, MsFlags::MS_BIND, none).expect("bound");
        for users in BOTH {
            let wrong = Subject::shell(users, "true")
                .launch()
                .expect_err("it is a file");
            assert!(
                wrong.contains("cannot take /dev/null of the host to hide files of the box with"),
                "{wrong}"
            );
        }
    });
    assert_eq!(status, 0);
}

/// A mount namespace of this process' own, which goes with it.
fn private_mounts() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root may");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("root may");
}

fn p5_terminals_that_are_swapped() {
    let canary = Canary::new();
    const LOOK: &str =
        "tty; stat -f -c %t $(tty); stat -c %t $(tty); stat -L -f -c %t /proc/self/fd/0";
    let swap = format!(
        "symlink('null', '/dev/evil') or die;
        my ($one, $other, $in, $out) = ('/dev/ptmx', '/dev/evil', '/dev/stdin', '/dev/stdout');
        for (my $n = 1;; $n++) {{
            syscall({0}, -100, $one, -100, $other, 2) == 0 or die $!;
            syscall({0}, -100, $in, -100, $out, 2) == 0 or die $!;
            if ($n == {EXCHANGES}) {{ $| = 1; print 'enough' }}
        }}",
        libc::SYS_renameat2
    );
    for users in BOTH {
        let running = Subject::new(users, &["perl", "-e", &swap], "", "").running();
        let mut ends = [PollFd::new(&running.output.stdout, PollFlags::IN)];
        let mut entered = 0;
        while poll(&mut ends, Some(&Timespec::default())).expect("polled") == 0 || entered < 20 {
            let printed = running.prints(&["-t"], LOOK);
            let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
            assert_eq!(lines, ["/dev/pts/0", "1cd1", "88", "1cd1"], "{printed}");
            entered += 1;
        }
        let mut said = [0; 6];
        rustix::io::read(&running.output.stdout, &mut said).expect("read");
        assert_eq!(&said, b"enough");
    }
    // Root of a box that may mount puts something else there.
    let evil = "mount -t tmpfs tmpfs /dev/pts && ln -s /dev/null /dev/pts/ptmx && echo up; exec sleep 1000";
    let subject = Subject::new(
        Users::Own,
        &["sh", "-c", evil],
        "",
        "capabilities = [\"+SYS_ADMIN\"]",
    );
    let running = subject.running();
    let mut said = [0; 3];
    rustix::io::read(&running.output.stdout, &mut said).expect("read");
    assert_eq!(&said, b"up\n");
    let output = running
        .exec(&["-t"], &["tty"])
        .output()
        .expect("boxctl runs");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(
        complaint(&output).contains("cannot open a terminal in the box"),
        "{output:?}"
    );
    canary.assert_untouched();
}

/// A `/proc` that lies: what boxd writes to it would land where an attacker wants it.
fn p6_settings_written_elsewhere() {
    let canary = Canary::new();
    let status = in_a_process(|| {
        private_mounts();
        let none = None::<&str>;
        for covered in ["/proc/sys/net", "/proc/self/attr"] {
            mount(none, covered, Some("tmpfs"), MsFlags::empty(), none).expect("covered");
        }
        fs::create_dir_all("/proc/sys/net/ipv4").expect("a directory");
        symlink("/proc/sys/kernel/msgmax", "/proc/sys/net/ipv4/ip_forward").expect("a link");
        symlink("/proc/sys/kernel/msgmax", "/proc/self/attr/exec").expect("a link");
        let settings =
            "sysctls = { \"net.ipv4.ip_forward\" = 1, \"kernel.domainname\" = \"example.org\" }";
        let line = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname";
        let subject =
            |users, security: &str| Subject::new(users, &["sh", "-c", line], "", security);
        // The kernel gives no proc of its own to a box with ids of its own where the host's is covered.
        let wrong = subject(Users::Own, settings).launch().expect_err("covered");
        assert!(
            wrong.contains("over a part of this host's own proc"),
            "{wrong}"
        );
        let ran = subject(Users::Host, settings).launch().expect("it runs");
        assert_eq!(ran.stdout, "1\nexample.org\n");
    });
    assert_eq!(status, 0);
    canary.assert_untouched();
}

fn p7_directories_of_the_image_that_lead_out() {
    let canary = Canary::new();
    let out = canary.path().display().to_string();
    let relative = format!("../../../../../../..{out}");
    for users in BOTH {
        for name in [
            "dev", "etc", "run", "tmp", "var", "srv", "etc/ssl", "run/host", "dev/shm", "dev/pts",
        ] {
            for target in [
                out.as_str(),
                &relative,
                "/proc/1/root",
                "/proc/self/cwd",
                ".",
            ] {
                let image = Image::new();
                symlink(target, image.place(name)).expect("a link");
                fs::create_dir_all(image.place("proc/x").parent().expect("proc"))
                    .expect("a directory");
                let more = format!(
                    "{}[[mount]]\ntmpfs = \"1M\"\nat = \"/srv/data/here\"\n",
                    image.root()
                );
                match Subject::new(users, &["true"], &more, "").launch() {
                    Ok(ran) => assert_eq!(ran.status, 0, "{name} -> {target}: {ran:?}"),
                    Err(wrong) => assert_clean(&wrong),
                }
            }
        }
        canary.assert_untouched();
    }
}

/// Puts something at a path that is not what it should be.
fn put(kind: &str, at: &Path, out: &str) {
    match kind {
        "a link out" => symlink(format!("{out}/secret"), at).expect("a link"),
        "a relative link out" => {
            symlink(format!("../../../../../../..{out}/secret"), at).expect("a link");
        }
        "a link to nothing" => symlink(format!("{out}/new"), at).expect("a link"),
        "a link to itself" => symlink(at.file_name().expect("a name"), at).expect("a link"),
        "a link of proc" => symlink("/proc/1/root/etc/passwd", at).expect("a link"),
        "a pipe" => nix::unistd::mkfifo(at, nix::sys::stat::Mode::S_IRWXU).expect("a pipe"),
        "a device" => {
            let mode = Mode::from_raw_mode(0o666);
            mknodat(CWD, at, FileType::CharacterDevice, mode, makedev(1, 5)).expect("a device");
        }
        "a directory" => fs::create_dir(at).expect("a directory"),
        "a socket" => drop(std::os::unix::net::UnixListener::bind(at).expect("a socket")),
        "a huge file" => fs::File::create(at)
            .and_then(|file| file.set_len(2 << 30))
            .expect("sparse"),
        other => panic!("{other}"),
    }
}

const KINDS: [&str; 10] = [
    "a link out",
    "a relative link out",
    "a link to nothing",
    "a link to itself",
    "a link of proc",
    "a pipe",
    "a device",
    "a directory",
    "a socket",
    "a huge file",
];

fn p8_files_of_the_image_that_are_something_else() {
    let canary = Canary::new();
    let out = canary.path().display().to_string();
    for users in BOTH {
        // With the host's ids, those that are written, that are read, and that are gone into: one of each, for time.
        let paths: &[&str] = match users {
            Users::Own => &[
                "/etc/hostname",
                "/etc/hosts",
                "/etc/resolv.conf",
                "/etc/machine-id",
                "/etc/passwd",
                "/etc/group",
                "/work",
            ],
            Users::Host => &["/etc/hostname", "/etc/passwd", "/work"],
        };
        for path in paths.iter().copied() {
            for kind in KINDS {
                let image = Image::new();
                let at = image.place(path);
                fs::create_dir_all(image.at("/etc")).expect("a directory");
                if path != "/etc/passwd" {
                    fs::write(image.at("/etc/passwd"), "www:x:33:33::/:\n").expect("a file");
                }
                if path != "/work" {
                    fs::create_dir(image.at("/work")).expect("a directory");
                }
                put(kind, &at, &out);
                let more = format!(
                    "user = \"www\"\nworking-directory = \"/work\"\n{}",
                    image.root()
                );
                let command = ["sh", "-c", "cat /etc/hostname; exec pwd"];
                let ran = with_little_memory(Subject::new(users, &command, &more, "").boxctl());
                let case = format!("{path} is {kind}: {} {} {}", ran.status, ran.out, ran.err);
                match ran.status {
                    0 => assert!(ran.out.ends_with("/work\n"), "{case}"),
                    // systemd's statuses of a start that fails, or boxctl's own.
                    1 | 200..=245 => assert!(ran.err.contains("cannot "), "{case}"),
                    _ => panic!("{case}"),
                }
                assert!(
                    !case.contains("panicked") && !case.contains(SECRET),
                    "{case}"
                );
            }
        }
        canary.assert_untouched();
    }
}

/// Names are looked up by what the image says, and by no code of it: libc would read this pipe, and then load what
/// stands in it.
fn p9_libraries_of_the_image() {
    for users in BOTH {
        let image = Image::new();
        fs::write(image.place("/etc/passwd"), "www:x:33:33::/:\n").expect("a file");
        put("a pipe", &image.at("/etc/nsswitch.conf"), "");
        let more = format!("user = \"www\"\n{}", image.root());
        let line = "echo $UID-$HOME; exec sleep 1000";
        let subject = Subject::new(users, &["sh", "-c", line], &more, "");
        // First where a process that hangs is killed.
        let ran = Subject::new(users, &["true"], &more, "").foreground();
        assert_eq!(ran.status, 0, "{}", ran.err);
        let running = subject.running();
        let printed = running.prints(
            &["-u", "www"],
            "echo $HOME; cat /proc/self/status | grep ^Uid",
        );
        assert_eq!(printed, "/\nUid:\t33\t33\t33\t33");
    }
}

/// Directories of boxd in which others could put what they want.
fn p11_directories_that_somebody_made_before() {
    let canary = Canary::new();
    let subject = Subject::shell(Users::Own, "echo ran");
    let name = subject.name().as_str().to_owned();
    let run = Path::new("/run/boxd").join(&name);
    fs::create_dir_all("/run/boxd").expect("a directory");

    fs::create_dir(&run).expect("a directory");
    chown(&run, Some(1000), Some(1000)).expect("root may");
    symlink(canary.path().join("file"), run.join("plan.json.new")).expect("a link");
    symlink(canary.path().join("file"), run.join("launching.json.new")).expect("a link");
    let ran = subject.foreground();
    assert_ne!(ran.status, 0, "{}", ran.out);
    assert!(ran.err.contains("user 1000 owns it"), "{}", ran.err);
    fs::remove_dir_all(&run).expect("removed");

    symlink(canary.path(), &run).expect("a link");
    let ran = subject.foreground();
    assert_ne!(ran.status, 0, "{}", ran.out);
    fs::remove_file(&run).expect("removed");
    canary.assert_untouched();

    // Where it keeps what it writes.
    let kept = Path::new("/var/lib/boxd/boxes").join(&name);
    let image = Image::new();
    for root in ["[root]\nhost = true\n".to_owned(), image.root()] {
        let root = root.replacen('\n', "\nwrites = \"keep\"\n", 1);
        let subject = Subject::new(
            Users::Own,
            &["sh", "-c", "echo x > /new; echo ran"],
            &root,
            "",
        );
        fs::create_dir_all(&kept).expect("a directory");
        for name in ["root", "upper", "work"] {
            symlink(canary.path(), kept.join(name)).expect("a link");
        }
        chown(&kept, Some(1000), Some(1000)).expect("root may");
        let ran = subject.foreground();
        assert_ne!(ran.status, 0, "{}", ran.out);
        assert!(ran.err.contains("user 1000 owns it"), "{}", ran.err);
        canary.assert_untouched();
        fs::remove_dir_all(&kept).expect("removed");

        // As boxd makes it, it is for nobody else, and so is all that is in it.
        let ran = subject.foreground();
        assert_eq!((ran.status, ran.out.as_str()), (0, "ran\n"), "{}", ran.err);
        let status = fs::metadata(&kept).expect("there");
        assert_eq!((status.uid(), status.mode() & 0o777), (0, 0o700));
        fs::remove_dir_all(&kept).expect("removed");
    }
}

fn p12_deleting_while_it_is_swapped() {
    let canary = Canary::new();
    let around = tempfile::tempdir().expect("a directory");
    symlink(canary.path(), around.path().join("link")).expect("a link");
    let name = format!("attacked-{}", std::process::id())
        .parse()
        .expect("a name");
    let inside = Path::new("/run/boxd").join(format!("{name}")).join("sub");
    let directory = RunDirectory::claim(&name).expect("claimed");
    fs::create_dir(&inside).expect("a directory");
    drop(directory);
    // Of the same file system, for only there names can be exchanged.
    let link = Path::new("/run/boxd").join(format!(".{name}"));
    symlink(canary.path(), &link).expect("a link");
    let swapper = Swapper::of(&inside, &link);
    swapper.race(200, |_| {
        let directory = RunDirectory::claim(&name).expect("claimed");
        // Of what is swapped away from under it, it may say that it is not gone.
        let _ = directory.remove();
        let _ = RunDirectory::claim(&name).expect("claimed");
        let _ = fs::create_dir(&inside);
        // By no path of std: this test would write through the link.
        let _ = root_of(inside.parent().expect("it has one")).file(
            Path::new("/sub/file"),
            Mode::RUSR,
            b"",
        );
    });
    drop(swapper);
    for left in [link, inside.parent().expect("it has one").to_owned()] {
        let _ = fs::remove_file(&left);
        let _ = fs::remove_dir_all(&left);
    }
    canary.assert_untouched();
}
