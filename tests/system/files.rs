//! The root of a box and what is mounted into it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::guest::{
    define, define_script, inside, journal, must, printed, property, refused, small_root, start,
    stop, unit, wait_for_line, wait_for_state, write,
};

/// Without an image: the host's `/usr`, and nothing else of the host.
#[test]
fn the_hosts_usr_is_all_a_box_sees_of_the_host() {
    write("/etc/secret", "of the host");
    define_script("web", "exec sleep infinity", "[root]\nhost = true");
    start("web");
    refused("boxctl exec web -- cat /etc/secret");
    refused("boxctl exec web -- touch /usr/new");
    assert_eq!(inside("web", "cat /etc/hostname"), "web");
    assert!(inside("web", "cat /etc/hosts").contains("127.0.0.1"));
    assert_eq!(inside("web", "cat /etc/machine-id").len(), 32);
    assert_ne!(
        inside("web", "cat /etc/machine-id"),
        must("cat /etc/machine-id")
    );
    for folder in ["/home", "/root", "/srv", "/var/lib", "/boot"] {
        let seen = inside(
            "web",
            &format!("sh -c 'ls -A {folder} 2>/dev/null || true'"),
        );
        assert_eq!(seen, "", "{folder}");
    }
    assert_eq!(inside("web", "stat -c %u /usr/bin/env"), "0");
}

/// What systemd's container interface and every program expects of its surroundings.
#[test]
fn the_standard_file_systems_are_there() {
    define_script("web", "exec sleep infinity", "");
    start("web");
    for (path, kind) in [
        ("/dev/null", "character special file"),
        ("/dev/zero", "character special file"),
        ("/dev/full", "character special file"),
        ("/dev/random", "character special file"),
        ("/dev/urandom", "character special file"),
        ("/dev/tty", "character special file"),
        ("/dev/pts", "directory"),
        ("/dev/shm", "directory"),
        ("/dev/mqueue", "directory"),
        ("/tmp", "directory"),
        ("/run", "directory"),
        ("/proc/self/status", "regular empty file"),
        ("/sys/kernel", "directory"),
    ] {
        assert_eq!(
            inside("web", &format!("stat -L -c %F {path}")),
            kind,
            "{path}"
        );
    }
    assert_eq!(inside("web", "stat -c %a /tmp"), "1777");
    inside(
        "web",
        "sh -c 'echo x > /dev/null; echo x > /dev/shm/x; echo x > /run/x; echo x > /tmp/x'",
    );
    refused("boxctl exec web -- sh -c 'echo x > /dev/full'");
    assert_eq!(inside("web", "head -c 4 /dev/zero | wc -c"), "4");
    assert_eq!(inside("web", "cat /run/host/container-manager"), "boxd");
}

/// A directory as root, its owners shifted into the box's range, and nothing on disk chowned for it.
#[test]
fn a_directory_is_the_root_with_the_right_owners() {
    let root = small_root("web");
    must(&format!(
        "echo hi > {0}/etc/web; chown 33:33 {0}/etc/web",
        root.display()
    ));
    define(
        "web",
        &format!(
            "command = ['/bin/sleep', '1000']\n[root]\ndirectory = '{}'",
            root.display()
        ),
    );
    start("web");
    assert_eq!(inside("web", "stat -c %u:%g /etc/passwd"), "0:0");
    assert_eq!(inside("web", "stat -c %u:%g /etc/web"), "33:33");
    inside("web", "touch /new");
    inside("web", "chown 33:33 /new");
    inside("web", "rm /etc/web");
    stop("web");
    assert!(!root.join("new").exists());
    assert_eq!(
        fs::metadata(root.join("etc/web"))
            .expect("it is there")
            .uid(),
        33
    );
    assert_eq!(
        fs::metadata(root.join("etc/passwd"))
            .expect("it is there")
            .uid(),
        0
    );
}

fn writes(mode: &str) {
    let root = small_root("web");
    define(
        "web",
        &format!(
            "command = ['/bin/sh', '-c', 'cat /var/mark; echo run >> /var/mark; rm -f /etc/group; echo done; exec sleep 1000']\n\
             [root]\ndirectory = '{}'\nwrites = '{mode}'",
            root.display()
        ),
    );
    for run in 1..=2 {
        start("web");
        crate::guest::wait_for("the box has run", || {
            printed("web").iter().filter(|line| *line == "done").count() == run
        });
        stop("web");
        must("logger -t test between");
    }
    // Whatever the mode, the directory itself is as it was.
    assert!(!root.join("var/mark").exists());
    assert!(root.join("etc/group").exists());
}

/// `writes = "discard"`: each start begins from the directory as it is.
#[test]
fn discarded_writes_are_gone_at_the_next_start() {
    writes("discard");
    assert!(
        !printed("web").contains(&"run".to_owned()),
        "{}",
        journal("web")
    );
}

/// `writes = "keep"`: the next start finds what the last one wrote, deletions too, under the same owners.
#[test]
fn kept_writes_are_there_at_the_next_start() {
    writes("keep");
    assert_eq!(
        printed("web").iter().filter(|line| *line == "run").count(),
        1,
        "{}",
        journal("web")
    );
    let kept = must("find /var/lib/boxd/boxes/web/upper -name mark -printf '%U:%G'");
    assert_eq!(
        kept, "0:0",
        "ids on disk are the box's own, so that its range may change"
    );
}

/// `writes = "refuse"`: the root is read-only.
#[test]
fn refused_writes_fail_inside() {
    writes("refuse");
    let journal = journal("web");
    assert!(journal.contains("Read-only file system"), "{journal}");
}

/// Folders, files and sockets of the host, with their owners, and read-only where that is written.
#[test]
fn binds_have_the_right_owners_and_read_only_holds() {
    must(
        "mkdir -p /srv/www /srv/data; echo page > /srv/www/index; chown 33:33 /srv/www/index; echo one > /srv/file",
    );
    define_script(
        "web",
        "exec sleep infinity",
        "[[mount]]\nbind = '/srv/www'\nat = '/var/www'\nread-only = true\n\
         [[mount]]\nbind = '/srv/data'\nat = '/data'\n\
         [[mount]]\nbind = '/srv/file'\nat = '/etc/one'\n\
         [[mount]]\ntmpfs = '1M'\nat = '/scratch'\nmode = '0700'",
    );
    start("web");
    assert_eq!(inside("web", "cat /var/www/index"), "page");
    assert_eq!(inside("web", "stat -c %u:%g /var/www/index"), "33:33");
    let refusal = refused("boxctl exec web -- touch /var/www/new");
    assert!(refusal.contains("Read-only file system"), "{refusal}");
    inside("web", "sh -c 'echo x > /data/new; chown 33 /data/new'");
    assert_eq!(
        fs::metadata("/srv/data/new").expect("it is there").uid(),
        33
    );
    assert_eq!(inside("web", "cat /etc/one"), "one");
    inside("web", "sh -c 'echo two > /etc/one'");
    assert_eq!(must("cat /srv/file"), "two");
    assert_eq!(inside("web", "stat -c %a /scratch"), "700");
    refused("boxctl exec web -- dd if=/dev/zero of=/scratch/big bs=1M count=2");
}

/// Mounts below a bind come along, read-only too; or stay away where that is written.
#[test]
fn mounts_below_a_bind_come_along_unless_told_otherwise() {
    must(
        "mkdir -p /srv/top/below; mount -t tmpfs tmpfs /srv/top/below; echo deep > /srv/top/below/file",
    );
    define_script(
        "web",
        "exec sleep infinity",
        "[[mount]]\nbind = '/srv/top'\nat = '/all'\nread-only = true\n\
         [[mount]]\nbind = '/srv/top'\nat = '/flat'\nrecursive = false",
    );
    start("web");
    assert_eq!(inside("web", "cat /all/below/file"), "deep");
    refused("boxctl exec web -- touch /all/below/new");
    assert_eq!(inside("web", "ls -A /flat/below"), "");
    // What is mounted on the host later does not appear inside, and nothing of the box on the host.
    must("mkdir -p /srv/top/late; mount -t tmpfs tmpfs /srv/top/late; touch /srv/top/late/x");
    assert_eq!(inside("web", "ls -A /all/late"), "");
    assert_eq!(must("grep -c ' /all' /proc/self/mountinfo || true"), "0");
    stop("web");
    must("umount /srv/top/late /srv/top/below");
}

/// A root may hold whatever its maker put there: a link that leads out of it leads nowhere.
#[test]
fn a_link_in_the_root_does_not_lead_mounts_out_of_it() {
    let root = small_root("trap");
    must(&format!(
        "rmdir {0}/tmp {0}/var; ln -s /srv/outside {0}/tmp; ln -s ../../../../srv/outside {0}/var; mkdir /srv/outside /srv/data",
        root.display()
    ));
    define(
        "trap",
        &format!(
            "command = ['/bin/sleep', '1000']\n[root]\ndirectory = '{}'\n[[mount]]\nbind = '/srv/data'\nat = '/var/data'",
            root.display()
        ),
    );
    let _ = crate::guest::sh("systemctl start box@trap");
    assert_eq!(must("ls -A /srv/outside"), "");
    assert_eq!(
        must("grep -c /srv/outside /proc/self/mountinfo || true"),
        "0"
    );
    stop("trap");
    assert_eq!(must("ls -A /srv/outside"), "");
}

/// A bind whose source is not there is an error that names it.
#[test]
fn a_bind_from_nowhere_is_refused() {
    define_script(
        "web",
        "true",
        "[[mount]]\nbind = '/srv/nowhere'\nat = '/data'",
    );
    let journal = crate::guest::start_refused("web");
    assert!(journal.contains("/srv/nowhere"), "{journal}");
    assert_eq!(property(&unit("web"), "ActiveState"), "failed");
}

/// A tmpfs of the box ends with the box.
#[test]
fn what_a_box_wrote_to_memory_is_freed() {
    define_script("web", "head -c 1000000 /dev/zero > /tmp/x; echo wrote", "");
    start("web");
    wait_for_line("web", "wrote");
    wait_for_state(&unit("web"), "inactive");
    assert_eq!(
        must("findmnt -n -t tmpfs -o TARGET | grep -c box || true"),
        "0"
    );
}
