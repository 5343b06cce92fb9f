//! What is mounted into a root, and how.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use boxd::definition::{SourceText, understand};
use boxd::host::{self, Idmap};
use boxd::plan::{Content, MountFlags, What};

use super::Test;
use super::boxes::*;

pub const TESTS: &[Test] = &[
    (
        "a_host_whose_proc_is_covered_is_told_so",
        a_host_whose_proc_is_covered_is_told_so,
    ),
    (
        "a_bind_has_the_right_owners_both_ways",
        a_bind_has_the_right_owners_both_ways,
    ),
    ("an_unshifted_bind_is_nobodys", an_unshifted_bind_is_nobodys),
    ("flags_hold", flags_hold),
    (
        "a_box_that_may_mount_cannot_take_restrictions_back",
        a_box_that_may_mount_cannot_take_restrictions_back,
    ),
    (
        "recursive_flags_reach_what_is_below",
        recursive_flags_reach_what_is_below,
    ),
    (
        "devices_work_and_others_cannot_be_made",
        devices_work_and_others_cannot_be_made,
    ),
    ("terminals_are_the_boxs_own", terminals_are_the_boxs_own),
    ("files_are_copied_and_written", files_are_copied_and_written),
    ("masks_hide_and_rebinds_close", masks_hide_and_rebinds_close),
    (
        "a_file_is_bound_over_a_link_inside_the_root",
        a_file_is_bound_over_a_link_inside_the_root,
    ),
    (
        "a_directory_does_not_go_on_a_file",
        a_directory_does_not_go_on_a_file,
    ),
    (
        "more_mounts_than_fit_in_a_message",
        more_mounts_than_fit_in_a_message,
    ),
    ("a_missing_source_is_named", a_missing_source_is_named),
    (
        "the_kernel_says_which_owners_can_be_shifted",
        the_kernel_says_which_owners_can_be_shifted,
    ),
    (
        "a_file_system_without_idmaps_is_named",
        a_file_system_without_idmaps_is_named,
    ),
];

fn a_bind_has_the_right_owners_both_ways() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .expect("set");
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("a file");
    chown(&file, Some(33), Some(34)).expect("root may");
    let plan = with_step(
        host_box("stat -c %u:%g /data/file; echo x > /data/new; chown 5:6 /data/new"),
        "/data",
        tree(directory.path(), true),
        PLAIN,
    );
    for plan in [plan.clone(), with_host_ids(plan)] {
        assert_eq!(run(&plan), "33:34\n");
        let status = std::fs::metadata(directory.path().join("new")).expect("made");
        assert_eq!((status.uid(), status.gid()), (5, 6));
    }
}

fn an_unshifted_bind_is_nobodys() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .expect("set");
    let plan = with_step(
        host_box("stat -c %u /data; touch /data/x 2>/dev/null || echo refused"),
        "/data",
        tree(directory.path(), false),
        PLAIN,
    );
    assert_eq!(run(&plan), "65534\nrefused\n");
}

fn flags_hold() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))
        .expect("set");
    let plan = with_step(
        host_box("touch /data/x 2>&1; grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6"),
        "/data",
        tree(directory.path(), true),
        read_only(INERT),
    );
    let out = run(&plan);
    assert!(out.contains("Read-only file system"), "{out}");
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(
            out.lines()
                .last()
                .expect("a line")
                .split(',')
                .any(|word| word == flag),
            "{out}"
        );
    }
}

/// In a mount namespace of its own, so that nothing is left if the test fails half-way.
fn recursive_flags_reach_what_is_below() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("below")).expect("a directory");
    let below = directory.path().join("below");
    nix::mount::mount(
        Some("tmpfs"),
        &below,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .expect("mounted");
    let line =
        "touch /data/below/x 2>/dev/null && echo written; grep -c ' /data' /proc/self/mountinfo";
    let with = |recursive, flags: MountFlags| {
        let what = What::Tree {
            path: directory.path().to_owned(),
            recursive,
            idmap: true,
        };
        run(&with_step(host_box(line), "/data", what, flags))
    };
    let results = (
        with(
            true,
            MountFlags {
                recursive: true,
                ..read_only(PLAIN)
            },
        ),
        with(true, read_only(PLAIN)),
        with(false, PLAIN),
    );
    nix::mount::umount(&below).expect("nobody holds it");
    assert_eq!(results.0, "2\n");
    assert_eq!(results.1, "written\n2\n");
    assert_eq!(results.2, "written\n1\n");
}

fn devices_work_and_others_cannot_be_made() {
    let mut plan = host_box(
        "echo x > /dev/null; head -c 3 /dev/zero | wc -c; mknod /dev/mem c 1 1 2>/dev/null || echo refused",
    );
    plan.privileges.capabilities = boxd::capability::CapabilitySet::ALL;
    assert_eq!(run(&plan), "3\nrefused\n");
}

fn terminals_are_the_boxs_own() {
    let out = run(&host_box(
        "ls /dev/pts; stat -c %a:%g /dev/pts/ptmx; perl -e 'open(my $t, \"+<\", \"/dev/ptmx\") or die $!; print join(\",\", glob(\"/dev/pts/[0-9]*\")), \"\\n\"'; grep ' /dev/pts ' /proc/self/mountinfo | grep -o gid=[0-9]*,mode=[0-9]*,ptmxmode=[0-9]*",
    ));
    assert_eq!(
        out,
        format!(
            "ptmx\n666:0\n/dev/pts/0\ngid={},mode=620,ptmxmode=666\n",
            IDS.base + 5
        )
    );
}

fn files_are_copied_and_written() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "of the host\n").expect("written");
    let copy = |path: &std::path::Path| What::File {
        mode: 0o640,
        content: Content::CopyOf(path.to_owned()),
    };
    let plan = with_step(
        host_box("cat /etc/copy /etc/none; stat -c %a:%u /etc/copy /etc/dir"),
        "/etc/copy",
        copy(file.path()),
        PLAIN,
    );
    let plan = with_step(plan, "/etc/none", copy("/no/such/file".as_ref()), PLAIN);
    let plan = with_step(plan, "/etc/dir", What::Directory { mode: 0o1777 }, PLAIN);
    assert_eq!(run(&plan), "of the host\n640:0\n1777:0\n");
    let fifo = tempfile::tempdir().expect("a directory");
    let path = fifo.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    let sentence = refusal(&with_step(
        host_box("true"),
        "/etc/pipe",
        copy(&path),
        PLAIN,
    ));
    assert!(sentence.contains("it is not a regular file"), "{sentence}");
}

fn masks_hide_and_rebinds_close() {
    let plan = host_box(
        "cat /proc/kallsyms /proc/interrupts; ls -A /sys/firmware /sys/kernel; echo x 2>/dev/null > /proc/sys/kernel/hostname || echo closed",
    );
    let closed = read_only(INERT);
    let mut plan = plan;
    plan.privileges.capabilities = boxd::capability::CapabilitySet::ALL;
    for at in [
        "/proc/kallsyms",
        "/proc/interrupts",
        "/sys/firmware",
        "/sys/kernel",
        "/proc/no/such",
    ] {
        plan = with_step(plan, at, What::Mask, closed);
    }
    plan = with_step(plan, "/proc/sys", What::Rebind, closed);
    plan = with_step(plan, "/proc/no-such", What::Rebind, closed);
    for plan in [plan.clone(), with_host_ids(plan)] {
        assert_eq!(run(&plan), "/sys/firmware:\n\n/sys/kernel:\nclosed\n");
    }
}

fn a_file_is_bound_over_a_link_inside_the_root() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "bound\n").expect("written");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).expect("set");
    let target = "../run/resolve/stub.conf".into();
    let plan = with_step(
        host_box("cat /etc/resolv.conf /run/resolve/stub.conf; readlink /etc/resolv.conf"),
        "/etc/resolv.conf",
        What::Symlink { target },
        PLAIN,
    );
    let plan = with_step(
        plan,
        "/etc/resolv.conf",
        tree(file.path(), true),
        read_only(PLAIN),
    );
    assert_eq!(run(&plan), "bound\nbound\n../run/resolve/stub.conf\n");
}

fn a_directory_does_not_go_on_a_file() {
    let plan = with_step(host_box("true"), "/etc/passwd", tmpfs(0o755), PLAIN);
    assert_eq!(
        refusal(&plan),
        r#"cannot use "/etc/passwd" of the box: it is a file, and a directory is wanted there"#
    );
}

fn more_mounts_than_fit_in_a_message() {
    let mut plan = host_box("grep -c ' /many/' /proc/self/mountinfo");
    for number in 0..300 {
        let at = format!("/many/{number}");
        plan = with_step(plan, &at, tree("/dev/null", false), PLAIN);
    }
    assert_eq!(run(&plan), "300\n");
}

fn a_missing_source_is_named() {
    let plan = with_step(
        with_host_ids(host_box("true")),
        "/data",
        tree("/no/such", false),
        PLAIN,
    );
    let error = boxd::sandbox::host_mounts::prepare(&plan, None, &Default::default())
        .expect_err("it is missing");
    let sentence = chain(&error);
    assert!(
        sentence.starts_with(
            r#"cannot take "/no/such" of the host for "/data" in the box: openat2("/no/such""#
        ),
        "{sentence}"
    );
    assert!(
        sentence.ends_with("ENOENT: No such file or directory"),
        "{sentence}"
    );
}

fn a_file_system_without_idmaps_is_named() {
    // sysfs has none and never will.
    let plan = with_step(host_box("true"), "/data", tree("/sys/kernel", true), PLAIN);
    let namespace = std::fs::File::open("/proc/self/ns/user").expect("there");
    use std::os::fd::AsFd as _;
    let error =
        boxd::sandbox::host_mounts::prepare(&plan, Some(namespace.as_fd()), &Default::default())
            .expect_err("refused");
    assert!(
        chain(&error).starts_with("cannot show "),
        "{}",
        chain(&error)
    );
}

fn a_box_that_may_mount_cannot_take_restrictions_back() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))
        .expect("set");
    std::fs::write(directory.path().join("file"), "as it was\n").expect("written");
    let line = "mount -o remount,bind,rw /data 2>/dev/null && echo remounted; \
        mount --bind /data /mnt && mount -o remount,bind,rw /mnt 2>/dev/null && echo bound; \
        unshare -m mount -o remount,bind,rw /data 2>/dev/null && echo unshared; \
        echo x 2>/dev/null > /data/file && echo written; mount -t tmpfs none /tmp && echo may mount; cat /data/file";
    let mut plan = host_box(line);
    plan.privileges.capabilities = boxd::capability::CapabilitySet::ALL;
    plan.privileges.no_new_privileges = false;
    let plan = with_step(plan, "/mnt", What::Directory { mode: 0o755 }, PLAIN);
    let plan = with_step(
        plan,
        "/data",
        tree(directory.path(), true),
        read_only(PLAIN),
    );
    assert_eq!(run(&plan), "may mount\nas it was\n");
}

fn a_host_whose_proc_is_covered_is_told_so() {
    let mount = |target: &str, flags| {
        nix::mount::mount(Some("tmpfs"), target, Some("tmpfs"), flags, None::<&str>)
    };
    // In a mount namespace that is left by ending: the host's /proc stays as it is.
    let status = in_a_process(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root may");
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        mount("/", private).expect("root may");
        mount("/proc/bus", nix::mount::MsFlags::empty()).expect("root may");
        let sentence = refusal(&host_box("true"));
        assert!(
            sentence.contains("over a part of this host's own proc"),
            "{sentence}"
        );
        run(&with_host_ids(host_box("true")));
    });
    assert_eq!(status, 0);
}

/// Asked once for each mount, and remembered.
fn the_kernel_says_which_owners_can_be_shifted() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        let place = directory.path().join(name);
        std::fs::create_dir_all(&place).expect("a directory");
        place
    };
    let mount = |kind: &str, at: &Path, options: Option<&str>| {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some(kind), at, Some(kind), flags, options).expect("mounted");
    };
    let (memory, overlay) = (place("memory"), place("overlay"));
    let layers = format!(
        "lowerdir={}:{}",
        place("one").display(),
        place("two").display()
    );
    mount("tmpfs", &memory, None);
    mount("overlay", &overlay, Some(&layers));
    let source = SourceText {
        path: "/etc/boxd/web.toml".into(),
        text: format!(
            "command = ['/bin/true']\n[[mount]]\nbind = '{}'\nat = '/a'\n[[mount]]\nbind = '{}'\nat = '/b'\n\
             [[mount]]\nbind = '{}'\nat = '/c'\n",
            memory.display(),
            overlay.display(),
            directory.path().display(),
        ),
    };
    let (definition, wrong) = understand(&"web".parse().expect("a name"), &[source]);
    let hosts = [host::read(&definition), host::read(&definition)];
    let remembered = std::fs::read_to_string("/run/boxd/.idmap");
    nix::mount::umount(&memory).expect("nobody holds it");
    nix::mount::umount(&overlay).expect("nobody holds it");

    assert!(wrong.is_none());
    for host in hosts {
        assert_eq!(host.path(&memory).idmap, Idmap::Yes);
        assert_eq!(host.path(&overlay).idmap, Idmap::No("overlay".to_owned()));
        let around = host.path(directory.path());
        assert_eq!(
            around.idmap_recursive,
            Idmap::No("overlay".to_owned()),
            "for what is mounted in it"
        );
    }
    // Only what the kernel has said stands there.
    let remembered = remembered.expect("written");
    for line in [" tmpfs yes\n", " overlay no\n"] {
        assert!(remembered.contains(line), "{remembered}");
    }
    let status = std::fs::metadata("/run/boxd/.idmap").expect("there");
    assert_eq!((status.uid(), status.mode() & 0o777), (0, 0o600));
}
