use super::*;

const APP: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "NET_BIND_SERVICE",
];

/// What systemd-nspawn keeps, systemd 257, and `NET_ADMIN`, which it adds for a private network.
const SYSTEM: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
    "SYS_RESOURCE",
    "SYS_TTY_CONFIG",
];

fn with(capabilities: &[&str]) -> Policy {
    let capabilities = CapabilitySet::of(capabilities.iter().copied()).expect("known capabilities");
    of_profile(
        "test",
        capabilities,
        &Changes::default(),
        &Architecture::ALL,
    )
}

fn call(name: &str) -> Syscall {
    Syscall::of(name).expect(name)
}

fn verdict(policy: &Policy, name: &str, arguments: [u64; 6]) -> Action {
    let number = call(name)
        .number(Architecture::NATIVE)
        .expect("a native call");
    policy.verdict(Architecture::NATIVE.audit(), number, arguments)
}

/// Calls of any architecture that the policy allows with some arguments.
fn open(policy: &Policy) -> BTreeSet<&'static str> {
    let allows = |action: &Action| *action == Action::Allow;
    Syscall::all()
        .filter(|call| {
            policy.rule(*call).is_some_and(|rule| {
                allows(&rule.otherwise) || rule.cases.iter().any(|case| allows(&case.action))
            })
        })
        .map(Syscall::name)
        .collect()
}

/// The defaults of the others as lists of names; each file says in its first lines where they are from.
fn peer(list: &'static str) -> BTreeSet<&'static str> {
    list.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn every_call_is_decided_once() {
    let rows = profile::BY_CAPABILITY.iter().map(|(_, calls)| *calls);
    let lists: Vec<&[Syscall]> = [
        profile::ALLOWED.as_slice(),
        &profile::CONDITIONAL,
        &profile::ABSENT_WITHOUT_SYS_ADMIN,
        &profile::DENIED,
        &profile::ABSENT,
    ]
    .into_iter()
    .chain(rows)
    .collect();
    for call in Syscall::all() {
        let count = lists.iter().filter(|list| list.contains(&call)).count();
        assert_eq!(count, 1, "{call} is in {count} lists");
    }
    for (capability, _) in profile::BY_CAPABILITY {
        assert!(CapabilitySet::of([*capability]).is_ok(), "{capability}");
    }
}

#[test]
fn an_app_is_no_wider_than_docker_podman_and_nspawn() {
    let app = open(&with(APP));
    for (name, list) in [
        ("docker", include_str!("peers/docker")),
        ("podman", include_str!("peers/podman")),
        ("nspawn", include_str!("peers/nspawn")),
    ] {
        let beyond: Vec<_> = app.difference(&peer(list)).copied().collect();
        assert_eq!(beyond, Vec::<&str>::new(), "wider than {name}");
    }
}

#[test]
fn a_system_is_no_wider_than_nspawn_and_has_neither_io_uring_nor_userfaultfd() {
    let system = open(&with(SYSTEM));
    let beyond: Vec<_> = system
        .difference(&peer(include_str!("peers/nspawn")))
        .copied()
        .collect();
    assert_eq!(beyond, Vec::<&str>::new());
    for name in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "userfaultfd",
    ] {
        assert!(!system.contains(name), "{name}");
    }
}

#[test]
fn a_system_can_mount_and_make_namespaces_and_an_app_cannot() {
    let (app, system) = (with(APP), with(SYSTEM));
    for name in [
        "mount",
        "umount2",
        "pivot_root",
        "unshare",
        "setns",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "move_mount",
        "open_tree",
        "mount_setattr",
        "chroot",
        "reboot",
        "sethostname",
    ] {
        assert_eq!(verdict(&app, name, [0; 6]), Action::REFUSED, "{name}");
        assert_eq!(verdict(&system, name, [0; 6]), Action::Allow, "{name}");
    }
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        let arguments = [(flag | libc::SIGCHLD) as u32 as u64, 0, 0, 0, 0, 0];
        assert_eq!(
            verdict(&app, "clone", arguments),
            Action::REFUSED,
            "{flag:#x}"
        );
        assert_eq!(
            verdict(&system, "clone", arguments),
            Action::Allow,
            "{flag:#x}"
        );
    }
    let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_SETTLS;
    assert_eq!(
        verdict(&app, "clone", [thread as u64, 0, 0, 0, 0, 0]),
        Action::Allow
    );
    assert_eq!(verdict(&app, "clone3", [0; 6]), Action::ABSENT);
    assert_eq!(verdict(&system, "clone3", [0; 6]), Action::Allow);
}

#[test]
fn neither_profile_reaches_what_no_namespace_confines() {
    for policy in [with(APP), with(SYSTEM)] {
        for name in [
            "keyctl",
            "add_key",
            "request_key",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
        ] {
            assert_eq!(verdict(&policy, name, [0; 6]), Action::ABSENT, "{name}");
        }
        for name in [
            "bpf",
            "perf_event_open",
            "open_by_handle_at",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "userfaultfd",
            "swapon",
            "swapoff",
            "quotactl",
            "acct",
            "syslog",
            "settimeofday",
            "clock_settime",
            "iopl",
            "ioperm",
            "fanotify_init",
            "lookup_dcookie",
            "vmsplice",
        ] {
            if call(name).number(Architecture::NATIVE).is_some() {
                assert_eq!(verdict(&policy, name, [0; 6]), Action::REFUSED, "{name}");
            }
        }
    }
}

#[test]
fn socket_families_are_those_of_the_list() {
    let unsupported_family = Action::Errno(libc::EAFNOSUPPORT as u16);
    let unsupported_protocol = Action::Errno(libc::EPROTONOSUPPORT as u16);
    let socket = |policy: &Policy, family: i32, protocol: i32| {
        verdict(
            policy,
            "socket",
            [family as u64, 3, protocol as u64, 0, 0, 0],
        )
    };
    let (app, system) = (with(APP), with(SYSTEM));
    for family in 0..64 {
        let expected = match family {
            libc::AF_UNIX | libc::AF_INET | libc::AF_INET6 | libc::AF_NETLINK => Action::Allow,
            _ => unsupported_family,
        };
        assert_eq!(socket(&app, family, 0), expected, "{family}");
        if family != libc::AF_PACKET {
            assert_eq!(socket(&system, family, 0), expected, "{family}");
        }
    }
    assert_eq!(socket(&app, libc::AF_PACKET, 0), unsupported_family);
    assert_eq!(socket(&system, libc::AF_PACKET, 0), Action::Allow);

    for policy in [&app, &system] {
        let audit = socket(policy, libc::AF_NETLINK, libc::NETLINK_AUDIT);
        assert_eq!(audit, unsupported_protocol);
    }
    assert_eq!(
        socket(&app, libc::AF_NETLINK, libc::NETLINK_NETFILTER),
        unsupported_protocol
    );
    assert_eq!(
        socket(&system, libc::AF_NETLINK, libc::NETLINK_NETFILTER),
        Action::Allow
    );
}

/// The kernel takes these arguments as 32 bits, so what stands in the upper half must not matter: that is how
/// filters in other programs were passed by (CVE-2019-10063).
#[test]
fn upper_halves_of_arguments_change_nothing() {
    let high = 0xDEAD_BEEF_0000_0000;
    let app = with(APP);
    for (name, arguments) in [
        ("ioctl", [0, libc::TIOCSTI, 0, 0, 0, 0]),
        ("ioctl", [0, TIOCLINUX, 0, 0, 0, 0]),
        ("ioctl", [0, libc::TCGETS, 0, 0, 0, 0]),
        ("socket", [libc::AF_ALG as u64, 0, 0, 0, 0, 0]),
        ("socket", [libc::AF_INET as u64, 0, 0, 0, 0, 0]),
        (
            "socket",
            [
                libc::AF_NETLINK as u64,
                0,
                libc::NETLINK_AUDIT as u64,
                0,
                0,
                0,
            ],
        ),
        ("personality", [0xFFFF_FFFF, 0, 0, 0, 0, 0]),
        ("personality", [0x0040_0000, 0, 0, 0, 0, 0]),
        ("clone", [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]),
    ] {
        let dirty = arguments.map(|argument| argument | high);
        assert_eq!(
            verdict(&app, name, arguments),
            verdict(&app, name, dirty),
            "{name} {arguments:x?}"
        );
    }
    assert_eq!(
        verdict(&app, "ioctl", [0, libc::TIOCSTI, 0, 0, 0, 0]),
        Action::REFUSED
    );
    assert_eq!(
        verdict(&app, "ioctl", [0, TIOCLINUX, 0, 0, 0, 0]),
        Action::REFUSED
    );
    assert_eq!(
        verdict(&app, "ioctl", [0, libc::TCGETS, 0, 0, 0, 0]),
        Action::Allow
    );
    assert_eq!(
        verdict(&app, "personality", [0x0040_0000, 0, 0, 0, 0, 0]),
        Action::REFUSED
    );
}

#[test]
fn a_capability_opens_the_calls_it_is_good_for() {
    let app = with(APP);
    for (capability, name) in [
        ("SYS_PTRACE", "process_vm_readv"),
        ("SYS_ADMIN", "mount"),
        ("IPC_LOCK", "mlock"),
        ("SYS_CHROOT", "chroot"),
        ("SYS_NICE", "mbind"),
        ("BPF", "bpf"),
        ("SYSLOG", "syslog"),
    ] {
        let more: Vec<&str> = APP.iter().copied().chain([capability]).collect();
        assert_eq!(verdict(&app, name, [0; 6]), Action::REFUSED, "{name}");
        assert_eq!(verdict(&with(&more), name, [0; 6]), Action::Allow, "{name}");
    }
}

#[test]
fn other_architectures_end_the_process_unless_listed() {
    let app = |additional: &[Architecture]| {
        of_profile("app", CapabilitySet::EMPTY, &Changes::default(), additional)
    };
    let policy = app(&[]);
    for architecture in Architecture::ALL {
        if architecture.audit() != Architecture::NATIVE.audit() {
            assert_eq!(
                policy.verdict(architecture.audit(), 0, [0; 6]),
                Action::KillProcess
            );
        }
    }
    if Architecture::NATIVE == Architecture::X86_64 {
        let audit = Architecture::X32.audit();
        let read = Architecture::X32_BIT;
        assert_eq!(policy.verdict(audit, read, [0; 6]), Action::ABSENT);
        assert_eq!(policy.verdict(audit, u32::MAX, [0; 6]), Action::ABSENT);
        let both = app(&[
            Architecture::X86,
            Architecture::X32,
            Architecture::X86,
            Architecture::Arm,
        ]);
        assert_eq!(
            both.architectures,
            [Architecture::X86_64, Architecture::X86, Architecture::X32]
        );
        assert_eq!(both.verdict(audit, read, [0; 6]), Action::Allow);
        assert_eq!(
            both.verdict(Architecture::X86.audit(), 3, [0; 6]),
            Action::Allow
        );
        let socketcall = both.verdict(Architecture::X86.audit(), 102, [0; 6]);
        assert_eq!(socketcall, Action::ABSENT);
    }
}

#[test]
fn changes_go_before_the_profile_and_denial_before_permission() {
    let changes = Changes {
        allow: vec![call("keyctl"), call("clone"), call("ptrace")],
        deny: vec![call("ptrace"), call("read")],
    };
    let policy = of_profile("app", CapabilitySet::EMPTY, &changes, &[]);
    assert_eq!(policy.title, "app + keyctl, clone, ptrace - ptrace, read");
    assert_eq!(verdict(&policy, "keyctl", [0; 6]), Action::Allow);
    assert_eq!(
        verdict(
            &policy,
            "clone",
            [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]
        ),
        Action::Allow
    );
    assert_eq!(verdict(&policy, "ptrace", [0; 6]), Action::REFUSED);
    assert_eq!(verdict(&policy, "read", [0; 6]), Action::REFUSED);
}

#[test]
fn a_policy_survives_being_written_and_read() {
    let policy = with(SYSTEM);
    let text = serde_json::to_string(&policy).expect("serialises");
    assert_eq!(
        serde_json::from_str::<Policy>(&text).expect("reads"),
        policy
    );
}

/// The other half of "no wider": how many calls of this architecture are open.
#[test]
fn the_counts_are_known() {
    if Architecture::NATIVE == Architecture::X86_64 {
        assert_eq!(with(APP).allowed().len(), 276);
        assert_eq!(with(SYSTEM).allowed().len(), 304);
        let app = of_profile("app", CapabilitySet::EMPTY, &Changes::default(), &[]);
        assert_eq!(app.to_string(), "app: 276 calls");
    }
}
