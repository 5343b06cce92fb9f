//! Bad input and faults: each ends in one clear sentence, a non-zero exit and a failed unit, and leaves nothing.

use std::collections::BTreeSet;

use crate::guest::{
    define, define_script, everything, must, nothing_left, property, refused, sh, start,
    start_refused, stop, unit, wait_for, write,
};

/// Starts and stops one box, so that what is made for good is there, then looks.
fn a_used_machine() -> BTreeSet<String> {
    define_script("well", "exec sleep infinity", "");
    start("well");
    stop("well");
    must("rm /etc/boxd/well.toml; systemctl reset-failed");
    everything()
}

/// Expects a start to fail with these words, and nothing to be left of it but its own definition.
#[track_caller]
fn fails_cleanly(before: &BTreeSet<String>, name: &str, words: &[&str]) {
    let journal = start_refused(name);
    for word in words {
        assert!(journal.contains(word), "{word:?} is not in: {journal}");
    }
    assert!(!journal.contains("panicked"), "{journal}");
    assert_ne!(property(&unit(name), "Result"), "timeout");
    must(&format!(
        "systemctl reset-failed; rm -rf /etc/boxd/{name}.toml"
    ));
    nothing_left(before);
}

/// A definition that is not there, or is nothing a definition can be.
#[test]
fn a_file_that_is_no_definition_is_refused() {
    let before = a_used_machine();
    fails_cleanly(&before, "nowhere", &["nowhere", "/etc/boxd"]);

    write("/etc/boxd/empty.toml", "");
    fails_cleanly(&before, "empty", &["masked"]);

    write("/etc/boxd/blank.toml", "\n\n# nothing\n");
    fails_cleanly(&before, "blank", &["command"]);

    must("head -c 10000000 /dev/zero | tr '\\0' '#' > /etc/boxd/huge.toml");
    fails_cleanly(&before, "huge", &["/etc/boxd/huge.toml"]);

    must("head -c 4096 /dev/urandom > /etc/boxd/binary.toml");
    fails_cleanly(&before, "binary", &["/etc/boxd/binary.toml"]);

    must("mkdir /etc/boxd/folder.toml");
    fails_cleanly(&before, "folder", &["/etc/boxd/folder.toml", "directory"]);

    must("ln -s /no/such/file /etc/boxd/dangling.toml");
    fails_cleanly(&before, "dangling", &["/etc/boxd/dangling.toml"]);

    must("mkfifo /etc/boxd/pipe.toml");
    fails_cleanly(&before, "pipe", &["/etc/boxd/pipe.toml"]);

    // Only to be written to, even by root.
    must("ln -s /sys/bus/platform/drivers_probe /etc/boxd/unreadable.toml");
    fails_cleanly(
        &before,
        "unreadable",
        &["/etc/boxd/unreadable.toml", "Permission denied"],
    );
}

/// None of these hurts another box, or the generator.
#[test]
fn bad_definitions_do_not_disturb_good_ones() {
    must(
        "mkdir /etc/boxd/folder.toml; ln -s /no/such/file /etc/boxd/dangling.toml; touch '/etc/boxd/Bad Name.toml'; \
         head -c 4096 /dev/urandom > /etc/boxd/binary.toml; mkfifo /etc/boxd/pipe.toml",
    );
    define_script("web", "exec sleep infinity", "[restart]\npolicy = 'always'");
    must("timeout 60 systemctl daemon-reload");
    start("web");
    assert_eq!(property(&unit("web"), "Restart"), "always");
    must("boxctl status");
    let check = refused("boxctl check");
    assert!(check.contains("Bad Name"), "{check}");
}

/// A root that is not there, is no directory, or holds no system.
#[test]
fn a_root_that_is_none_is_refused() {
    let before = a_used_machine();
    let with_root = |name: &str, root: &str| {
        define(
            name,
            &format!("command = ['/bin/true']\n[root]\ndirectory = '{root}'"),
        );
    };
    with_root("gone", "/no/such/root");
    fails_cleanly(&before, "gone", &["/no/such/root"]);
    with_root("file", "/etc/passwd");
    fails_cleanly(&before, "file", &["/etc/passwd"]);
    must("mkdir -p /mnt/hollow");
    let before = everything();
    with_root("hollow", "/mnt/hollow");
    fails_cleanly(&before, "hollow", &["/mnt/hollow"]);
}

/// Without D-Bus there is no scope, and so no box: said, not hung.
#[test]
fn a_host_without_dbus_refuses_with_a_sentence() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    stop("web");
    must(
        "systemctl mask --runtime --now dbus.socket dbus.service 2>/dev/null || systemctl stop dbus.socket dbus.service",
    );
    wait_for("the bus is gone", || sh("busctl status").status != 0);
    let before = everything();
    let ran = sh("timeout 120 systemctl start box@web");
    assert_ne!(ran.status, 0);
    assert_ne!(ran.status, 124, "the start hangs");
    let journal = crate::guest::journal("web");
    assert!(journal.contains("bus"), "{journal}");
    assert!(journal.contains("dbus.socket"), "{journal}");
    assert_eq!(must("pgrep -x sleep | wc -l"), "0");
    must("systemctl reset-failed");
    nothing_left(&before);
    must(
        "systemctl unmask --runtime dbus.socket dbus.service; systemctl start dbus.socket dbus.service",
    );
    start("web");
}

/// The scope's name is taken by something that is not ours: it is left alone, and the start says so.
#[test]
fn a_taken_scope_name_is_refused() {
    a_used_machine();
    define_script("web", "exec sleep infinity", "");
    must("systemd-run --scope --unit=box-web.scope sleep 1000 >/dev/null 2>&1 &");
    wait_for("the scope", || {
        property("box-web.scope", "ActiveState") == "active"
    });
    let before = everything();
    let journal = start_refused("web");
    assert!(journal.contains("box-web.scope"), "{journal}");
    assert_eq!(
        property("box-web.scope", "ActiveState"),
        "active",
        "it is not ours to stop"
    );
    assert_eq!(must("pgrep -f '[s]leep infinity' | wc -l"), "0");
    must("systemctl reset-failed");
    nothing_left(&before);
    must("systemctl stop box-web.scope");
    start("web");
}

/// A host whose administrator turned user namespaces off.
#[test]
fn a_host_without_user_namespaces_refuses_with_a_sentence() {
    let before = a_used_machine();
    must("sysctl -q -w user.max_user_namespaces=0");
    define_script("web", "exec sleep infinity", "");
    fails_cleanly(&before, "web", &["user.max_user_namespaces"]);
    define_script("plain", "exec sleep infinity", "[security]\nusers = 'host'");
    start("plain");
}

/// On a live system `/usr` lies on overlayfs, which cannot be idmapped: a box without an image runs read-only all
/// the same, and says what differs.
#[test]
fn the_hosts_usr_is_read_only_where_it_cannot_be_idmapped() {
    must("mkdir -p /mnt/empty; mount -t overlay overlay -o lowerdir=/mnt/empty:/usr /usr");
    define_script("live", "echo up; exec sleep infinity", "");
    start("live");
    crate::guest::wait_for_line("live", "up");
    refused("boxctl exec live -- touch /usr/new");
    let status = crate::guest::status("live");
    assert!(
        status["remarks"]
            .as_array()
            .is_some_and(|remarks| !remarks.is_empty()),
        "{status}"
    );
    stop("live");
}

/// A directory there would belong to nobody: refused, with what to do about it.
#[test]
fn a_directory_that_cannot_be_idmapped_is_refused() {
    let before = a_used_machine();
    must(
        "mkdir -p /mnt/a/usr /mnt/b /mnt/live; mount -t overlay overlay -o lowerdir=/mnt/a:/mnt/b /mnt/live",
    );
    define(
        "live",
        "command = ['/bin/true']\n[root]\ndirectory = '/mnt/live'",
    );
    let journal = start_refused("live");
    assert!(
        journal.contains("/mnt/live") && journal.contains("overlay"),
        "{journal}"
    );
    assert!(journal.contains("users = \"host\""), "{journal}");
    must(
        "umount /mnt/live; rm -r /mnt/a /mnt/b /mnt/live /etc/boxd/live.toml; systemctl reset-failed",
    );
    nothing_left(&before);
}

/// `/var` is full: said with the path, and the next start works.
#[test]
fn a_full_var_is_said_and_survived() {
    define_script("web", "exec sleep infinity", "");
    define_script("kept", "exec sleep infinity", "[root]\nwrites = 'keep'");
    // Its root is the one file such a file system may hold.
    must("mount -t tmpfs -o size=64k,nr_inodes=1,mode=700 tmpfs /var/lib/boxd");
    for name in ["web", "kept"] {
        let journal = start_refused(name);
        assert!(journal.contains("No space left on device"), "{journal}");
        assert!(journal.contains("/var/lib/boxd"), "{journal}");
    }
    must("mount -o remount,nr_inodes=1000 /var/lib/boxd; systemctl reset-failed");
    start("web");
    stop("web");
    must("umount /var/lib/boxd");
    start("kept");
}
