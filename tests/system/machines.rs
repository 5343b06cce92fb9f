//! Boxes as machines: what systemd-machined knows of them, where it is installed. The lab's root does not have it.

use crate::guest::*;

/// Installs systemd-container, as apt-get does.
pub fn install_machined() {
    must(
        "cp -a /usr/share/lab/systemd-container/usr/. /usr/ && systemctl daemon-reload &&
        busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig",
    );
}

/// What systemd-machined knows of a machine; nothing if it does not know it.
fn machine(name: &str, property: &str) -> String {
    sh(&format!("machinectl show --value -p {property} {name}")).out
}

/// Processes of the box's service, the box's own not among them.
fn of_the_service(name: &str) -> usize {
    let group = property(&unit(name), "ControlGroup");
    let list = sh(&format!("cat /sys/fs/cgroup{group}/cgroup.procs"));
    list.out.lines().count()
}

/// The supervisor alone: nobody waits for systemd-machined any more.
fn wait_for_the_answer(name: &str) {
    wait_for("systemd-machined's answer is heard", || {
        of_the_service(name) == 1
    });
}

fn wait_for_registration(name: &str) {
    let leader = pid(name).to_string();
    wait_for("the box is registered", || {
        machine(name, "Leader") == leader
    });
}

/// A box is a machine as long as it runs, whatever becomes of its supervisor and of systemd-machined, and one of the
/// same name is another. No start waits for it, and no box fails for it.
#[test]
fn a_box_is_a_machine_by_its_name_as_long_as_it_runs() {
    for (name, more) in [("web", ""), ("plain", "machine = false")] {
        let script = "trap 'exit 0' TERM\nwhile :; do sleep 1; done";
        define_script(name, script, more);
    }
    must("systemctl daemon-reload");
    // A host without it is none to complain of.
    start("web");
    wait_for_the_answer("web");
    assert!(!journal("web").contains("machine"), "{}", journal("web"));
    stop("web");

    install_machined();
    // It takes its time to start, and the box does not.
    write(
        "/run/systemd/system/systemd-machined.service.d/slow.conf",
        "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/go; do sleep 0.2; done'\n",
    );
    must("systemctl daemon-reload");
    start("plain");
    start("web");
    wait_for_state("systemd-machined.service", "activating");
    assert_eq!((of_the_service("plain"), of_the_service("web")), (1, 2));
    must("touch /run/go");
    wait_for_registration("web");
    wait_for_the_answer("web");
    assert_eq!(
        must("machinectl list --no-legend --full | awk '{print $1, $2, $3}'"),
        "web container boxd"
    );
    assert_eq!(machine("web", "Unit"), "box-web.scope");
    let page = must("machinectl status --no-pager web");
    for word in ["box-web.scope", &format!("Leader: {}", pid("web"))] {
        assert!(page.contains(word), "{word}: {page}");
    }

    // It outlives who registered it, and who knows it.
    let (leader, first) = (pid("web"), property(&unit("web"), "MainPID"));
    must(&format!("kill -KILL {first}"));
    wait_for("the next supervisor", || {
        let now = property(&unit("web"), "MainPID");
        now != first && now != "0" && property(&unit("web"), "ActiveState") == "active"
    });
    must("systemctl restart systemd-machined");
    assert_eq!(machine("web", "Leader"), leader.to_string());
    assert_eq!(pid("web"), leader);

    for _ in 0..3 {
        must("systemctl restart box@web");
        wait_for_registration("web");
    }
    stop("web");
    wait_for("the box is forgotten", || {
        machine("web", "Leader").is_empty()
    });
    assert_eq!(must("ls /run/systemd/machines"), "");
    // One that is not there when a box ends would know it still, and stop the next one for it.
    start("web");
    wait_for_registration("web");
    must(
        "systemctl mask --runtime --now systemd-machined
        systemctl stop box@web; systemctl start box@web",
    );
    assert_eq!(must("ls /run/systemd/machines"), "");
    // Masked is as good as not there.
    wait_for_the_answer("web");
    assert!(!journal("web").contains("machine"), "{}", journal("web"));
    let leader = pid("web");
    must("systemctl unmask --runtime systemd-machined; machinectl list");
    assert_eq!(pid("web"), leader);
    must("systemctl restart box@web");
    wait_for_registration("web");
    stop("web");

    // The name is somebody else's.
    must(
        "systemd-run -q --unit=other sleep infinity
        pid=$(systemctl show --value -p MainPID other)
        busctl call org.freedesktop.machine1 /org/freedesktop/machine1 org.freedesktop.machine1.Manager \
        RegisterMachine sayssus web 0 another container $pid ''",
    );
    start("web");
    wait_for("the refusal", || {
        journal("web")
            .contains("cannot register box web with systemd-machined: Machine 'web' already exists")
    });
    stop("web");
    assert_eq!(machine("web", "Unit"), "other.service");
}
