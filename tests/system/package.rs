//! The package: what it brings, and what it leaves when it goes.

use crate::guest::{
    define_script, journal, must, pid, property, sh, start, status, stop, unit, wait_for,
    wait_for_line, wait_for_state, write,
};

/// An upgrade is no reason to stop a box: the new supervisor takes the old one's place.
#[test]
fn an_upgrade_leaves_boxes_running_under_the_new_supervisor() {
    define_script(
        "web",
        "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.2; done",
        "",
    );
    start("web");
    let payload = pid("web");
    let supervisor = property(&unit("web"), "MainPID");
    let program = |pid: &str| must(&format!("stat -L -c %i /proc/{pid}/exe"));
    let before = program(&supervisor);
    // One that is not ready yet is upgraded too.
    define_script(
        "young",
        "until [ -e /tmp/go ]; do sleep 0.2; done; systemd-notify --ready; exec sleep infinity",
        "ready.when = 'notify'\nready.timeout = '1h'",
    );
    must("systemctl daemon-reload; systemctl start --no-block box@young");
    wait_for("its supervisor", || {
        property(&unit("young"), "StatusText").starts_with("starting")
    });
    let young = property(&unit("young"), "MainPID");
    // The agent is another one then, and takes what runs as it is; but whoever upgrades does not wait for it.
    must("rm /etc/systemd/system/boxd.service; systemctl daemon-reload; systemctl start boxd");
    let agent = property("boxd.service", "MainPID");
    write(
        "/run/systemd/system/boxd.service.d/waits.conf",
        "[Service]\nTimeoutStartSec=infinity\n\
         ExecStartPre=/bin/sh -c 'until [ -e /run/may-start ]; do sleep 0.2; done'\n",
    );
    must("dpkg -i /payload/boxd_*.deb");
    must("touch /run/may-start");
    wait_for("the new supervisor", || {
        let now = property(&unit("web"), "MainPID");
        now != "0" && program(&now) != before
    });
    wait_for("the other new supervisor", || program(&young) != before);
    assert_eq!(property(&unit("young"), "ActiveState"), "activating");
    must("boxctl exec young -- touch /tmp/go");
    wait_for_state(&unit("young"), "active");
    stop("young");
    let version = must("boxctl --version");
    let version = version.split(' ').next_back().expect("a version");
    wait_for("the version", || {
        status("web")["unit"]["supervisor-version"] == version
    });
    assert_eq!(status("web")["payload"]["started-by"], version);
    assert!(must("boxctl status web").contains(&format!(", boxd {version}\n")));
    assert_eq!(property(&unit("web"), "ActiveState"), "active");
    assert_eq!(property(&unit("web"), "NRestarts"), "0");
    assert_eq!(pid("web"), payload);
    wait_for("another agent", || {
        !["0", &agent].contains(&&*property("boxd.service", "MainPID"))
    });
    wait_for_state("boxd.service", "active");
    assert_eq!(property("boxd.service", "UnitFileState"), "enabled");
    // One that was stopped stays so at an upgrade; at a first installation the host's policy is asked.
    let configure = |since: &str| {
        must(&format!(
            "DPKG_MAINTSCRIPT_PACKAGE=boxd /var/lib/dpkg/info/boxd.postinst configure {since}"
        ));
        let state = property("boxd.service", "ActiveState");
        let jobs = must("systemctl list-jobs --no-legend boxd.service");
        (state == "inactive" && jobs.is_empty(), state, jobs)
    };
    must("systemctl stop boxd");
    let stopped = configure("0.1.0");
    assert!(stopped.0, "{stopped:?}");
    let policy = "/usr/sbin/policy-rc.d";
    must(&format!("! test -e {policy} || mv {policy} {policy}.away"));
    write(policy, "#!/bin/sh\nexit 101\n");
    must(&format!("chmod +x {policy}"));
    let refused = configure("");
    assert!(refused.0, "{refused:?}");
    must(&format!("rm {policy}"));
    configure("");
    wait_for_state("boxd.service", "active");
    let seen = crate::guest::printed("web").len();
    wait_for("more output", || {
        crate::guest::printed("web").len() > seen + 3
    });
    for (number, line) in crate::guest::printed("web").iter().enumerate() {
        assert_eq!(*line, format!("tick {number}"));
    }
}

/// Removing the package stops the boxes in their own way first; purging it removes what they kept.
#[test]
fn a_removed_package_leaves_no_box_and_a_purged_one_nothing() {
    define_script(
        "web",
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.2; done",
        "[root]\nwrites = 'keep'",
    );
    start("web");
    wait_for_line("web", "up");
    must("rm /etc/systemd/system/boxd.service; systemctl daemon-reload; systemctl start boxd");
    must("dpkg --remove boxd");
    wait_for_state("boxd.service", "inactive");
    wait_for_state(&unit("web"), "inactive");
    assert!(
        crate::guest::journal("web").contains("bye"),
        "{}",
        crate::guest::journal("web")
    );
    assert_eq!(property("box-web.scope", "ActiveState"), "inactive");
    assert_eq!(property("box.slice", "ActiveState"), "inactive");
    must("test -e /var/lib/boxd/boxes/web && test -e /etc/boxd/web.toml");
    must("dpkg --purge boxd");
    must("test ! -e /var/lib/boxd && test ! -e /run/boxd");
    assert_eq!(
        must("find /etc/systemd /var/lib/systemd -name '*boxd.service*'"),
        ""
    );
    assert_eq!(sh("systemctl start box@web").status, 5, "the unit is gone");
}

/// `journalctl -x` explains what happened to a box.
#[test]
fn journal_entries_are_explained() {
    define_script(
        "web",
        "trap '' TERM; while :; do sleep 1; done",
        "[stop]\ntimeout = '1s'",
    );
    start("web");
    let supervisor = property(&unit("web"), "MainPID");
    must("boxctl pause web");
    wait_for_line("web", "box web is paused");
    must(&format!("kill -KILL {supervisor}"));
    wait_for("another supervisor", || {
        journal("web").contains("taken over")
    });
    must("boxctl resume web");
    wait_for_line("web", "box web goes on after a pause");
    must("systemctl stop box@web");
    let explained = must("journalctl --sync; journalctl --no-pager -x -u box@web");
    for subject in [
        "Box web runs",
        "Box web is paused",
        "Supervision of box web was taken over",
        "Box web goes on",
        "Box web did not stop in time and was killed",
        "Box web has ended",
    ] {
        assert!(
            explained.contains(&format!("Subject: {subject}"))
                || explained.contains(&format!("░░ {subject}")),
            "{subject}: {explained}"
        );
    }
    assert!(
        explained.contains("with the result \"timeout\""),
        "{explained}"
    );
}

/// The manual is there, and says what the program says.
#[test]
fn the_manual_is_installed() {
    for page in [
        "man1/boxctl.1",
        "man5/box.toml.5",
        "man8/boxd.8",
        "bash-completion/completions/boxctl",
        "zsh/vendor-completions/_boxctl",
        "fish/vendor_completions.d/boxctl.fish",
    ] {
        // The lab's machine has no manual pages; the package has them.
        let listed = must("dpkg-deb --contents /payload/boxd_*.deb");
        assert!(listed.contains(page), "{page}: {listed}");
    }
}
