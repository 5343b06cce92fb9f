//! Roots of every kind, and whose their files are.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use boxd::plan::{Plan, Upper, What};

use super::Test;
use super::boxes::*;

pub const TESTS: &[Test] = &[
    (
        "a_discarded_layer_leaves_nothing",
        a_discarded_layer_leaves_nothing,
    ),
    ("a_kept_layer_is_found_again", a_kept_layer_is_found_again),
    (
        "a_kept_layer_outlives_an_interrupted_first_start",
        a_kept_layer_outlives_an_interrupted_first_start,
    ),
    (
        "a_layer_survives_another_lower_one",
        a_layer_survives_another_lower_one,
    ),
    (
        "a_lower_directory_can_be_renamed",
        a_lower_directory_can_be_renamed,
    ),
    ("a_memory_layer_is_bounded", a_memory_layer_is_bounded),
    ("a_tree_is_a_root", a_tree_is_a_root),
    ("a_store_is_the_boxs_own", a_store_is_the_boxs_own),
    (
        "a_root_closed_at_the_end_refuses_writes",
        a_root_closed_at_the_end_refuses_writes,
    ),
    (
        "a_mount_point_missing_in_a_read_only_root_is_named",
        a_mount_point_missing_in_a_read_only_root_is_named,
    ),
    (
        "an_overlay_leaves_the_launcher_where_it_was",
        an_overlay_leaves_the_launcher_where_it_was,
    ),
    (
        "a_root_full_of_links_leads_nowhere",
        a_root_full_of_links_leads_nowhere,
    ),
    (
        "proc_goes_to_an_ordinary_directory_only",
        proc_goes_to_an_ordinary_directory_only,
    ),
];

/// A directory that is a root, with a file of the box's uid 7.
pub fn directory() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    for name in ["usr", "etc", "srv"] {
        std::fs::create_dir(root.path().join(name)).expect("a directory");
    }
    let file = root.path().join("srv/file");
    std::fs::write(&file, "lower\n").expect("a file");
    chown(&file, Some(7), Some(8)).expect("root may");
    root
}

fn overlay(lower: &Path, upper: Upper) -> What {
    What::Overlay {
        lower: lower.to_owned(),
        idmap: true,
        upper,
    }
}

fn memory() -> Upper {
    Upper::Memory {
        size: 1 << 20,
        inodes: 1000,
    }
}

fn kept(path: &Path) -> Upper {
    Upper::Directory {
        path: path.to_owned(),
    }
}

fn owner(path: PathBuf) -> (u32, u32) {
    let status =
        std::fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (status.uid(), status.gid())
}

/// The box with its own ids, and with the host's.
fn both(plan: Plan) -> [Plan; 2] {
    [plan.clone(), with_host_ids(plan)]
}

fn a_discarded_layer_leaves_nothing() {
    let root = directory();
    let plan = host_box(
        "stat -c %u:%g / /srv/file; id -u; echo upper > /srv/file; chown 9:9 /srv/file; stat -c %u:%g /srv/file; cat /srv/file; echo new > /new; stat -c %u:%g /new; rm -r /srv; ls /",
    );
    for plan in both(with_root(plan, overlay(root.path(), memory()), PLAIN)) {
        let out = run(&plan);
        assert!(out.starts_with("0:0\n7:8\n0\n9:9\nupper\n0:0\n"), "{out}");
        assert!(!out.lines().any(|line| line == "srv"), "{out}");
        let lower = root.path().join("srv/file");
        assert_eq!(std::fs::read_to_string(&lower).expect("there"), "lower\n");
        assert_eq!(owner(lower), (7, 8));
        let mut names: Vec<_> = std::fs::read_dir(root.path())
            .expect("there")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["etc", "srv", "usr"]);
    }
}

fn a_kept_layer_is_found_again() {
    let root = directory();
    let plan = host_box(
        "cat /srv/kept 2>/dev/null || true; echo once >> /srv/kept; chown 5:6 /srv/kept; chown 3 /srv; chmod 700 /; stat -c %a:%u:%g / /srv/kept",
    );
    for plan in [plan.clone(), with_host_ids(plan)] {
        let state = tempfile::tempdir().expect("a directory");
        let path = state.path().join("boxes/web");
        let plan = with_root(plan, overlay(root.path(), kept(&path)), PLAIN);
        assert_eq!(run(&plan), "700:0:0\n644:5:6\n");
        assert_eq!(run(&plan), "once\n700:0:0\n644:5:6\n");
        // What the box made has the box's own ids on disk.
        assert_eq!(owner(path.join("upper/srv/kept")), (5, 6));
        assert_eq!(owner(path.join("upper/srv")), (3, 0));
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(owner(root.path().join("srv")), (0, 0));
        assert!(!root.path().join("srv/kept").exists());
    }
}

fn a_kept_layer_outlives_an_interrupted_first_start() {
    let root = directory();
    let state = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(state.path().join("upper.new")).expect("a directory");
    let plan = with_root(
        host_box("stat -c %u /"),
        overlay(root.path(), kept(state.path())),
        PLAIN,
    );
    assert_eq!(run(&plan), "0\n");
    assert!(!state.path().join("upper.new").exists());
}

fn a_layer_survives_another_lower_one() {
    let state = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let root = directory();
        let plan = with_root(
            host_box("echo more >> /srv/file; echo x > /etc/new"),
            overlay(root.path(), kept(state.path())),
            PLAIN,
        );
        run(&plan);
    }
}

fn a_lower_directory_can_be_renamed() {
    let root = directory();
    // perl's rename is the system call, without mv's fallback to copying.
    let plan = host_box("perl -e 'rename(\"/srv\", \"/moved\") or die $!'; cat /moved/file");
    for plan in both(with_root(plan, overlay(root.path(), memory()), PLAIN)) {
        assert_eq!(run(&plan), "lower\n");
    }
}

fn a_memory_layer_is_bounded() {
    let root = directory();
    let plan = host_box("dd if=/dev/zero of=/fill bs=1M count=8 2>&1; true");
    let plan = with_root(plan, overlay(root.path(), memory()), PLAIN);
    assert!(run(&plan).contains("No space left"));
}

fn a_tree_is_a_root() {
    let root = directory();
    let plan = host_box("stat -c %u:%g /srv/file; echo more >> /srv/file; echo new > /srv/new");
    for plan in both(with_root(plan, tree(root.path(), true), PLAIN)) {
        assert_eq!(run(&plan), "7:8\n");
        assert_eq!(owner(root.path().join("srv/new")), (0, 0));
    }
}

fn a_store_is_the_boxs_own() {
    let state = tempfile::tempdir().expect("a directory");
    let path = state.path().join("a/b/root");
    let what = || What::Store { path: path.clone() };
    let plan = host_box("cat /kept 2>/dev/null || true; echo once >> /kept; stat -c %a:%u / /kept");
    let plan = with_root(plan, what(), PLAIN);
    assert_eq!(run(&plan), "755:0\n644:0\n");
    assert_eq!(run(&plan), "once\n755:0\n644:0\n");
    assert_eq!(owner(path.join("kept")), (0, 0));
    let mode = std::fs::metadata(state.path().join("a"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

fn a_root_closed_at_the_end_refuses_writes() {
    let root = directory();
    let plan =
        host_box("echo x 2>/dev/null > /srv/file && echo written; echo y > /tmp/y && echo tmp");
    let plan = with_root(plan, overlay(root.path(), memory()), PLAIN);
    for plan in both(with_step(plan, "/", What::Remount, read_only(PLAIN))) {
        assert_eq!(run(&plan), "tmp\n");
    }
}

fn a_mount_point_missing_in_a_read_only_root_is_named() {
    let root = directory();
    let plan = with_root(host_box("true"), tree(root.path(), true), read_only(PLAIN));
    let failure = try_run(&plan).expect_err("there is no /proc");
    assert_eq!(
        (failure.status, failure.path.as_deref()),
        (226, Some(Path::new("/bin")))
    );
    let sentence = failure.to_string();
    assert!(
        sentence.contains("whose root is read-only and has no such path"),
        "{sentence}"
    );
}

fn an_overlay_leaves_the_launcher_where_it_was() {
    let root = directory();
    let here = tempfile::tempdir().expect("a directory");
    let before = std::env::current_dir().expect("somewhere");
    std::env::set_current_dir(here.path()).expect("there");
    let whereabouts = || {
        (
            std::env::current_dir().expect("somewhere"),
            std::fs::read_link("/proc/self/ns/mnt").expect("there"),
            std::fs::read_to_string("/proc/self/mountinfo").expect("there"),
            std::fs::read_dir("/proc/self/fd").expect("there").count(),
        )
    };
    let then = whereabouts();
    run(&with_root(
        host_box("true"),
        overlay(root.path(), memory()),
        PLAIN,
    ));
    assert_eq!(whereabouts(), then);
    // The same where the overlay is refused.
    let state = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(state.path().join("work")).expect("a directory");
    std::fs::write(state.path().join("upper"), "no directory").expect("a file");
    let plan = with_root(
        host_box("true"),
        overlay(root.path(), kept(state.path())),
        PLAIN,
    );
    let error =
        boxd::sandbox::host_mounts::prepare(&with_host_ids(plan), None, &Default::default())
            .expect_err("refused");
    assert!(
        chain(&error).contains("cannot lay a writable layer over"),
        "{}",
        chain(&error)
    );
    assert_eq!(whereabouts(), then);
    std::env::set_current_dir(before).expect("there");
}

fn a_root_full_of_links_leads_nowhere() {
    let canary = tempfile::tempdir().expect("a directory");
    std::fs::write(canary.path().join("file"), "untouched").expect("a file");
    let root = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    let mut relative = PathBuf::from("../../../../../..");
    relative.push(canary.path().strip_prefix("/").expect("absolute"));
    for (name, target) in [
        ("dev", canary.path()),
        ("etc", relative.as_path()),
        ("usr", Path::new("../../programs")),
    ] {
        std::os::unix::fs::symlink(target, root.path().join(name)).expect("a link");
    }
    for what in [tree(root.path(), true), overlay(root.path(), memory())] {
        run(&with_root(host_box("true"), what, PLAIN));
        let names: Vec<_> = std::fs::read_dir(canary.path())
            .expect("there")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        assert_eq!(names, ["file"]);
    }
}

fn proc_goes_to_an_ordinary_directory_only() {
    for name in ["proc", "sys"] {
        let root = directory();
        std::os::unix::fs::symlink("/srv", root.path().join(name)).expect("a link");
        let sentence = refusal(&with_root(
            host_box("true"),
            overlay(root.path(), memory()),
            PLAIN,
        ));
        assert!(
            sentence.contains("must be mounted on ordinary directory"),
            "{sentence}"
        );
    }
}
