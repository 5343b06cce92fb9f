//! Which system calls a payload may make.

use boxd::capability::CapabilitySet;
use boxd::definition::User;
use boxd::plan::Plan;
use boxd::plan::seccomp::{Action, Architecture, Case, Comparison, Condition, Policy, Rule};
use boxd::syscall::Syscall;

use super::Test;
use super::boxes::*;

pub const TESTS: &[Test] = &[
    (
        "a_filter_is_in_force_for_every_user_with_and_without_new_privileges",
        a_filter_is_in_force_for_every_user_with_and_without_new_privileges,
    ),
    (
        "loading_a_filter_leaves_no_capability_behind",
        loading_a_filter_leaves_no_capability_behind,
    ),
    ("an_app_mounts_nothing", an_app_mounts_nothing),
    (
        "system_admin_in_its_own_namespace_mounts",
        system_admin_in_its_own_namespace_mounts,
    ),
    (
        "a_filter_of_one_s_own_is_obeyed",
        a_filter_of_one_s_own_is_obeyed,
    ),
    (
        "a_filter_that_is_too_long_is_a_failed_start",
        a_filter_that_is_too_long_is_a_failed_start,
    ),
];

fn status(plan: &Plan) -> Vec<(String, String)> {
    run(plan)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

fn value(status: &[(String, String)], key: &str) -> String {
    let found = status.iter().find(|(known, _)| known == key);
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

/// The box as each kind of payload there is.
fn payloads(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    for user in ["root", "www"] {
        for no_new_privileges in [true, false] {
            let mut plan = plan.clone();
            plan.payload.user = User::Name(user.to_owned());
            plan.privileges.no_new_privileges = no_new_privileges;
            plans.push(with_host_ids(plan.clone()));
            plans.push(plan);
        }
    }
    plans
}

fn a_filter_is_in_force_for_every_user_with_and_without_new_privileges() {
    const FILTERED: &str = "2";
    let plain = status(&host_box("cat /proc/self/status"));
    assert_eq!(value(&plain, "Seccomp"), "0");
    for plan in payloads(&filtered(host_box("cat /proc/self/status"))) {
        let status = status(&plan);
        assert_eq!(value(&status, "Seccomp"), FILTERED);
        assert_eq!(value(&status, "Seccomp_filters"), "1");
    }
}

fn loading_a_filter_leaves_no_capability_behind() {
    for plan in payloads(&filtered(host_box("cat /proc/self/status"))) {
        let status = status(&plan);
        let set = format!("{:016x}", plan.privileges.capabilities.bits());
        let none = "0000000000000000";
        let held = match &plan.payload.user {
            User::Name(name) if name == "www" => none,
            _ => &set,
        };
        assert_eq!(value(&status, "CapBnd"), set);
        assert_eq!(value(&status, "CapPrm"), held);
        assert_eq!(value(&status, "CapEff"), held);
        assert_eq!(value(&status, "CapInh"), none);
        assert_eq!(value(&status, "CapAmb"), none);
    }
}

fn an_app_mounts_nothing() {
    let line = "unshare --user true; unshare --mount true; mount -t tmpfs none /tmp; chroot / true; echo $?";
    let ran = try_run(&filtered(host_box(line))).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(ran.stdout, "125\n");
    let refused = ran.stderr.matches("Operation not permitted").count();
    assert_eq!(refused, 3, "{ran:?}");
    assert!(
        ran.stderr.contains("mount: /tmp: permission denied"),
        "{ran:?}"
    );
}

fn system_admin_in_its_own_namespace_mounts() {
    let mut plan = host_box(
        "mount -t tmpfs none /tmp && unshare --mount --uts --ipc true && unshare --user true && echo done",
    );
    let admin = CapabilitySet::of(["SYS_ADMIN", "SYS_CHROOT"]).expect("known");
    plan.privileges.capabilities = plan.privileges.capabilities.union(admin);
    plan.privileges.no_new_privileges = false;
    assert_eq!(run(&filtered(plan)), "done\n");
}

/// Everything but what the rule says.
fn all_but(rule: Rule) -> Policy {
    Policy {
        title: "test".to_owned(),
        architectures: vec![Architecture::NATIVE],
        rules: vec![rule],
        otherwise: Action::Allow,
        unknown: Action::ABSENT,
        log: false,
        allow_speculation: false,
    }
}

fn calls(name: &str) -> Vec<Syscall> {
    vec![Syscall::of(name).expect("a system call")]
}

fn a_filter_of_one_s_own_is_obeyed() {
    let mut plan = host_box("mkdir /tmp/a; mkdir /tmp/b 2>/dev/null || echo refused; ls /tmp");
    let refuse = |errno: i32| Rule {
        calls: calls("mkdir"),
        cases: vec![],
        otherwise: Action::Errno(errno as u16),
    };
    plan.privileges.seccomp = Some(all_but(refuse(libc::EXDEV)));
    let ran = try_run(&plan).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(ran.stdout, "refused\n");
    assert!(ran.stderr.contains("Invalid cross-device link"), "{ran:?}");

    // What ends a process ends the first one of the box by that signal.
    let mut plan = host_box("exec mkdir /tmp/a");
    plan.privileges.seccomp = Some(all_but(Rule {
        otherwise: Action::KillProcess,
        ..refuse(0)
    }));
    let ran = try_run(&plan).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(ran.status, 128 + libc::SIGSYS, "{ran:?}");
}

fn a_filter_that_is_too_long_is_a_failed_start() {
    let case = |value| Case {
        conditions: vec![Condition {
            argument: 0,
            comparison: Comparison::Equal(value),
        }],
        action: Action::REFUSED,
    };
    let mut plan = host_box("true");
    plan.privileges.seccomp = Some(all_but(Rule {
        calls: calls("mkdir"),
        cases: (0..2000).map(case).collect(),
        otherwise: Action::Allow,
    }));
    let refusal = refusal(&plan);
    assert!(
        refusal.contains("cannot make the system call filter"),
        "{refusal}"
    );
}
