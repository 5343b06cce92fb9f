//! What a payload may do.

use boxd::definition::{Group, User};

use super::Test;
use super::boxes::*;

pub const TESTS: &[Test] = &[
    ("root_has_the_set_and_no_more", root_has_the_set_and_no_more),
    ("another_user_has_nothing", another_user_has_nothing),
    (
        "users_and_groups_are_those_of_the_box",
        users_and_groups_are_those_of_the_box,
    ),
    ("new_privileges_are_refused", new_privileges_are_refused),
    (
        "signals_and_limits_are_as_a_program_expects",
        signals_and_limits_are_as_a_program_expects,
    ),
    (
        "standard_streams_can_be_opened_anew",
        standard_streams_can_be_opened_anew,
    ),
    (
        "environment_files_and_the_user_add_to_the_environment",
        environment_files_and_the_user_add_to_the_environment,
    ),
];

fn status(plan: &boxd::plan::Plan, key: &str) -> String {
    run(plan)
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_else(|| panic!("no {key}"))
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

fn root_has_the_set_and_no_more() {
    let plan = host_box("cat /proc/self/status");
    let set = format!("{:016x}", plan.privileges.capabilities.bits());
    for plan in [plan.clone(), with_host_ids(plan)] {
        for key in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status(&plan, key), set, "{key}");
        }
        for key in ["CapInh", "CapAmb"] {
            assert_eq!(status(&plan, key), "0000000000000000", "{key}");
        }
    }
}

fn another_user_has_nothing() {
    let mut plan = host_box("cat /proc/self/status");
    plan.payload.user = User::Name("www".to_owned());
    for plan in [plan.clone(), with_host_ids(plan)] {
        for key in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(status(&plan, key), "0000000000000000", "{key}");
        }
        let set = format!("{:016x}", plan.privileges.capabilities.bits());
        assert_eq!(status(&plan, "CapBnd"), set);
    }
}

fn users_and_groups_are_those_of_the_box() {
    let mut plan = host_box("id -u; id -g; id -G");
    plan.payload.user = User::Name("www".to_owned());
    plan.payload.groups = vec![Group::Id(1000)];
    for plan in [plan.clone(), with_host_ids(plan.clone())] {
        assert_eq!(run(&plan), "33\n34\n34 4 1000\n");
    }
    plan.payload.user = User::Id { uid: 7, gid: None };
    plan.payload.groups = Vec::new();
    assert_eq!(run(&plan), "7\n7\n7\n");
    plan.payload.user = User::Id {
        uid: 65535,
        gid: Some(9),
    };
    assert_eq!(run(&plan), "65535\n9\n9\n");
}

fn new_privileges_are_refused() {
    let mut plan = host_box("cat /proc/self/status");
    assert_eq!(status(&plan, "NoNewPrivs"), "1");
    plan.privileges.no_new_privileges = false;
    assert_eq!(status(&plan, "NoNewPrivs"), "0");
}

fn signals_and_limits_are_as_a_program_expects() {
    let plan = host_box("cat /proc/self/status");
    for key in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(status(&plan, key), "0000000000000000", "{key}");
    }
    let out = run(&host_box("umask; ulimit -Sn; ulimit -Hn; ulimit -Sc"));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3]), ("0022", "1024", "0"));
    assert!(lines[2].parse::<u64>().expect("a number") <= 524_288);
}

fn standard_streams_can_be_opened_anew() {
    let mut plan = host_box("echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/fd/0");
    for user in [
        User::Id {
            uid: 0,
            gid: Some(0),
        },
        User::Name("www".to_owned()),
    ] {
        plan.payload.user = user;
        for plan in [plan.clone(), with_host_ids(plan.clone())] {
            let ran = try_run(&plan).unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!(
                (ran.stdout.as_str(), ran.stderr.as_str()),
                ("out\n", "err\n")
            );
        }
    }
}

fn environment_files_and_the_user_add_to_the_environment() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "SECRET=\"x y\"\nPATH=/usr/bin\n").expect("written");
    let mut plan = host_box("env | sort");
    plan.payload.user = User::Name("www".to_owned());
    plan.payload.environment_files = vec![boxd::definition::EnvironmentFile {
        path: file.path().to_owned(),
        optional: false,
    }];
    let out = run(&plan);
    for line in [
        "SECRET=x y",
        "PATH=/usr/bin",
        "HOME=/var/www",
        "USER=www",
        "LOGNAME=www",
        "SHELL=/bin/false",
    ] {
        assert!(out.lines().any(|there| there == line), "{line}: {out}");
    }
}
