//! What does not start, and the sentence it leaves.

use boxd::definition::{Group, User};
use boxd::plan::What;

use super::Test;
use super::boxes::*;

pub const TESTS: &[Test] = &[
    (
        "a_command_that_does_not_run_says_why",
        a_command_that_does_not_run_says_why,
    ),
    (
        "an_unknown_user_or_group_is_named",
        an_unknown_user_or_group_is_named,
    ),
    (
        "an_id_outside_the_range_is_refused",
        an_id_outside_the_range_is_refused,
    ),
    (
        "a_working_directory_that_is_missing_is_named",
        a_working_directory_that_is_missing_is_named,
    ),
    (
        "a_working_directory_never_leads_out",
        a_working_directory_never_leads_out,
    ),
    ("exit_statuses_are_passed_on", exit_statuses_are_passed_on),
];

fn failure(plan: &boxd::plan::Plan) -> (u8, String) {
    match try_run(plan) {
        Err(failure) => (failure.status, failure.to_string()),
        Ok(ran) => panic!("it started: {ran:?}"),
    }
}

fn a_command_that_does_not_run_says_why() {
    let cases = [
        (
            "/no/such",
            r#"cannot execute "/no/such": the box has no such file"#,
        ),
        (
            "nosuch",
            r#"cannot find command "nosuch" in the box: no directory of PATH=/usr/local/bin:/usr/bin:/usr/sbin has it"#,
        ),
        ("/etc", r#"cannot execute "/etc": it is a directory"#),
        (
            "/etc/passwd",
            r#"cannot execute "/etc/passwd": not executable for uid 0: its mode is 644 and its owner 0"#,
        ),
        (
            "/script",
            r#"cannot execute "/script": the box does not have its interpreter "/bin/nosuch""#,
        ),
        (
            "/text",
            r#"cannot execute "/text": it is neither a program for this machine nor a script that begins with #!"#,
        ),
        (
            "/inert/run",
            r#"cannot execute "/inert/run": it is on a file system mounted noexec"#,
        ),
    ];
    for (command, sentence) in cases {
        let mut plan = host_box("");
        plan.payload.command = vec![command.to_owned()];
        plan = with_step(plan, "/script", text(0o755, "#!/bin/nosuch\n"), PLAIN);
        plan = with_step(plan, "/text", text(0o755, "hello\n"), PLAIN);
        plan = with_step(plan, "/inert", tmpfs(0o755), INERT);
        plan = with_step(plan, "/inert/run", text(0o755, "#!/bin/sh\n"), PLAIN);
        assert_eq!(failure(&plan), (203, sentence.to_owned()));
    }
}

fn an_unknown_user_or_group_is_named() {
    let mut plan = host_box("true");
    plan.payload.user = User::Name("nginx".to_owned());
    let sentence = r#"cannot find user "nginx": the box's /etc/passwd has no such name"#;
    assert_eq!(failure(&plan), (217, sentence.to_owned()));
    let mut plan = host_box("true");
    plan.payload.groups = vec![Group::Name("ssl".to_owned())];
    let sentence = r#"cannot find group "ssl": the box's /etc/group has no such name"#;
    assert_eq!(failure(&plan), (216, sentence.to_owned()));
}

fn an_id_outside_the_range_is_refused() {
    for uid in [65536, u32::MAX] {
        let mut plan = host_box("true");
        plan.payload.user = User::Id { uid, gid: Some(0) };
        let (status, sentence) = failure(&plan);
        assert_eq!(status, 217);
        assert!(
            sentence.starts_with(&format!("cannot become uid {uid} with gid 0")),
            "{sentence}"
        );
    }
}

fn a_working_directory_that_is_missing_is_named() {
    let mut plan = host_box("true");
    plan.payload.working_directory = "/no/such".into();
    let sentence =
        r#"cannot change to working directory "/no/such": the box has no such directory"#;
    assert_eq!(failure(&plan), (200, sentence.to_owned()));
}

fn a_working_directory_never_leads_out() {
    for path in ["/proc/self/fd/3", "/proc/1/cwd", "/link", "/proc/self/root"] {
        let mut plan = host_box("pwd");
        plan.payload.working_directory = path.into();
        let target = "/proc/self/fd/3".into();
        plan = with_step(plan, "/link", What::Symlink { target }, PLAIN);
        assert_eq!(failure(&plan).0, 200, "{path}");
    }
}

fn exit_statuses_are_passed_on() {
    for (line, status) in [("exit 0", 0), ("exit 3", 3), ("exit 255", 255)] {
        assert_eq!(try_run(&host_box(line)).expect("runs").status, status);
    }
}
