//! Limits of processes, settings of namespaces, labels, and mounts that stay.

use boxd::capability::CapabilitySet;
use boxd::plan::{Closing, Label, MountFlags, ProcessLimit, Resource, Sysctl, What};

use super::Test;
use super::boxes::*;

pub const TESTS: &[Test] = &[
    ("limits_are_those_asked_for", limits_are_those_asked_for),
    (
        "settings_are_those_of_the_box_s_namespaces",
        settings_are_those_of_the_box_s_namespaces,
    ),
    (
        "a_label_nobody_knows_is_no_start",
        a_label_nobody_knows_is_no_start,
    ),
    (
        "a_label_is_what_the_kernel_says_it_is",
        a_label_is_what_the_kernel_says_it_is,
    ),
    (
        "what_is_locked_stays_whatever_the_box_may_mount",
        what_is_locked_stays_whatever_the_box_may_mount,
    ),
    (
        "an_init_s_mounts_are_seen_in_its_services",
        an_init_s_mounts_are_seen_in_its_services,
    ),
];

fn limits_are_those_asked_for() {
    // To raise one beyond the launcher's own takes CAP_SYS_RESOURCE, which the machine of this test need not have.
    let mut plan =
        host_box("ulimit -Sl; ulimit -Hl; ulimit -Sn; ulimit -Hn; ulimit -Hc; ulimit -Sf");
    plan.privileges.resource_limits = [
        (Resource::Memlock, 1 << 19, 1 << 20),
        (Resource::Nofile, 64, 128),
        (Resource::Core, 0, 0),
        (Resource::Fsize, 1 << 20, u64::MAX),
    ]
    .map(|(resource, soft, hard)| ProcessLimit {
        resource,
        soft,
        hard: Some(hard),
        at_most: false,
    })
    .to_vec();
    for plan in [plan.clone(), with_host_ids(plan)] {
        assert_eq!(run(&plan), "512\n1024\n64\n128\n0\n2048\n");
    }
}

fn sysctl(path: &str, value: &str, optional: bool) -> Sysctl {
    Sysctl {
        path: path.to_owned(),
        value: value.to_owned(),
        optional,
    }
}

fn settings_are_those_of_the_box_s_namespaces() {
    let host = || {
        ["net/ipv4/ip_forward", "kernel/msgmax", "kernel/domainname"]
            .map(|path| std::fs::read_to_string(format!("/proc/sys/{path}")).expect("readable"))
    };
    let before = host();
    let mut plan = host_box(
        "cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range \
         kernel/msgmax kernel/domainname",
    );
    plan.sysctls = vec![
        sysctl("net/ipv4/ip_forward", "1", false),
        sysctl("net/ipv4/ip_unprivileged_port_start", "0", true),
        sysctl("net/ipv4/ping_group_range", "0 65535", true),
        sysctl("kernel/msgmax", "12345", false),
        sysctl("kernel/domainname", "example.org", false),
        sysctl("net/nothing/of/the/kind", "1", true),
    ];
    for plan in [plan.clone(), with_host_ids(plan.clone())] {
        assert_eq!(run(&plan), "1\n0\n0\t65535\n12345\nexample.org\n");
    }
    assert_eq!(host(), before);
    plan.sysctls = vec![sysctl("net/nothing/of/the/kind", "1", false)];
    assert!(refusal(&plan).contains("no such setting in the box's namespaces"));
    plan.sysctls = vec![sysctl("net/ipv4/ip_forward", "many", false)];
    let refusal = refusal(&plan);
    assert!(
        refusal.contains("\"net/ipv4/ip_forward\" of the box to \"many\""),
        "{refusal}"
    );
    assert!(refusal.contains("EINVAL"), "{refusal}");
}

fn a_label_nobody_knows_is_no_start() {
    // Whether the kernel has no such module or the module no such label: the box does not run without it.
    for label in [
        Label::AppArmor("no-such-profile".to_owned()),
        Label::Selinux("no:such:label:s0".to_owned()),
    ] {
        let mut plan = host_box("true");
        plan.privileges.labels = vec![label];
        let refusal = refusal(&plan);
        assert!(
            refusal.starts_with("cannot run the box under "),
            "{refusal}"
        );
    }
}

/// With whatever security module this kernel runs; one that has none has nothing to say. SELinux that has no policy yet
/// takes every label for the kernel's own: a box that is to have another does not run then.
fn a_label_is_what_the_kernel_says_it_is() {
    let current = |path| std::fs::read_to_string(path).unwrap_or_default();
    let without_policy = current("/proc/self/attr/current").trim_end_matches('\0') == "kernel";
    let label = match current("/sys/module/apparmor/parameters/enabled").trim_end() {
        "Y" => Label::AppArmor("unconfined".to_owned()),
        _ if without_policy => Label::Selinux("kernel".to_owned()),
        _ => return,
    };
    let mut plan = host_box("tr -d '\\0\\n' </proc/self/attr/current");
    plan.privileges.labels = vec![label.clone()];
    let (Label::AppArmor(name) | Label::Selinux(name)) = &label;
    assert_eq!(run(&plan), *name);
    assert_eq!(run(&with_host_ids(plan.clone())), *name);
    if without_policy {
        let other = "system_u:system_r:container_t:s0".to_owned();
        plan.privileges.labels = vec![Label::Selinux(other)];
        let refusal = refusal(&plan);
        assert!(
            refusal.contains("the kernel says \"kernel\" when it is asked"),
            "{refusal}"
        );
    }
}

fn mounting(line: &str) -> boxd::plan::Plan {
    let mut plan = host_box(line);
    plan.privileges.capabilities = plan
        .privileges
        .capabilities
        .union(CapabilitySet::of(["SYS_ADMIN"]).expect("known"));
    plan
}

fn what_is_locked_stays_whatever_the_box_may_mount() {
    let script = "exec 2>/dev/null
        umount /proc/version && echo unmasked
        umount -l /proc/version && echo unmasked lazily
        mount -o remount,bind,rw /sys && echo sys writable
        mount -o remount,bind,rw /usr && echo usr writable
        mount -o remount,bind,rw /sys/fs/cgroup && echo cgroup writable
        mount -o remount,bind,exec /proc && echo proc executable
        mkdir -p /tmp/new && mount -t proc proc /tmp/new && echo another proc
        mount -t tmpfs tmpfs /tmp/new && echo its own mounts
        mount --bind /proc /tmp/new && echo proc without masks
        mount --rbind /proc /tmp/new && cat /tmp/new/version && echo with its masks
        unshare -m umount /proc/version && echo unmasked further down
        umount -l /proc && mount -t proc proc /proc && cat /proc/version && echo proc from nothing
        true";
    let plan = with_step(
        mounting(script),
        "/proc/version",
        What::Mask,
        MountFlags::NONE,
    );
    let open = run(&plan);
    assert!(
        open.contains("unmasked\n") && open.contains("its own mounts\n"),
        "{open}"
    );
    let mut locked = plan;
    locked.closing.locked = true;
    assert_eq!(run(&locked), "its own mounts\nwith its masks\n");
    // Nor does a box that makes no user namespaces of its own keep from it.
    let mut alone = locked.clone();
    alone.sysctls = vec![sysctl("user/max_user_namespaces", "0", false)];
    assert!(!run(&alone).contains("unmasked"));
    // A working directory and a user are found in the root that is locked as well.
    locked.payload.command = ["sh", "-c", "pwd; id -u; echo $HOME"]
        .map(str::to_owned)
        .to_vec();
    locked.payload.working_directory = "/tmp".into();
    locked.payload.user = boxd::definition::User::Name("www".to_owned());
    assert_eq!(run(&locked), "/tmp\n33\n/var/www\n");
}

fn an_init_s_mounts_are_seen_in_its_services() {
    let script = "mkdir /tmp/late
        unshare -m --propagation=slave sh -c 'while ! test -e /tmp/late/there; do sleep 0.05; done; echo seen' &
        sleep 0.3; mount -t tmpfs tmpfs /tmp/late && touch /tmp/late/there && wait";
    let mut plan = mounting(script);
    plan.closing = Closing {
        locked: true,
        shared: true,
    };
    assert_eq!(run(&plan), "seen\n");
}
