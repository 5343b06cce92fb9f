use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::compiler::{AND, JA, JEQ, JGE, JGT, JSET, LOAD, RETURN};
use super::*;
use crate::capability::CapabilitySet;
use crate::plan::seccomp::{
    Action, Architecture, Case, Changes, Comparison, Condition, Rule, Syscall, of_profile,
};

fn app() -> Policy {
    of_profile("app", CapabilitySet::EMPTY, &Changes::default(), &[])
}

/// Both extremes of what the profiles can come to, with and without the other architectures.
fn profiles() -> Vec<Policy> {
    let mut policies = Vec::new();
    for capabilities in [CapabilitySet::EMPTY, CapabilitySet::ALL] {
        for additional in [&[][..], &Architecture::ALL] {
            policies.push(of_profile(
                "any",
                capabilities,
                &Changes::default(),
                additional,
            ));
        }
    }
    policies
}

/// What the kernel does with a program: the return value, or what is wrong with the program.
fn run(
    program: &[Instruction],
    audit: u32,
    number: u32,
    arguments: [u64; 6],
) -> Result<u32, String> {
    let mut data = Vec::from(number.to_le_bytes());
    data.extend(audit.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    for argument in arguments {
        data.extend(argument.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let instruction = program
            .get(at)
            .ok_or(format!("it ends at {at} without a return"))?;
        let operand = instruction.operand;
        at += 1;
        let holds = match instruction.code {
            RETURN => return Ok(operand),
            LOAD => {
                let start = operand as usize;
                let word = data
                    .get(start..start + 4)
                    .filter(|_| start.is_multiple_of(4));
                let word = word.and_then(|word| word.try_into().ok());
                accumulator = u32::from_le_bytes(word.ok_or(format!("no word at {start}"))?);
                continue;
            }
            AND => {
                accumulator &= operand;
                continue;
            }
            JA => {
                at += operand as usize;
                continue;
            }
            JEQ => accumulator == operand,
            JGT => accumulator > operand,
            JGE => accumulator >= operand,
            JSET => accumulator & operand != 0,
            code => return Err(format!("unknown operation {code:#x}")),
        };
        at += usize::from(if holds {
            instruction.jump_true
        } else {
            instruction.jump_false
        });
    }
}

fn assert_same(policy: &Policy, program: &Filter, audit: u32, number: u32, arguments: [u64; 6]) {
    let expected = policy.verdict(audit, number, arguments);
    assert_eq!(
        run(&program.instructions, audit, number, arguments),
        Ok(expected.code()),
        "{}: {audit:#x} {number} {arguments:x?}: expected {expected:?}",
        policy.title
    );
}

#[test]
fn every_number_of_every_architecture_gets_the_profile_s_verdict() {
    for policy in profiles() {
        let program = compile(&policy).expect("fits");
        for architecture in Architecture::ALL {
            let edges = [
                0xF_0000..0xF_0010,
                Architecture::X32_BIT..Architecture::X32_BIT + 700,
            ];
            let numbers = (0..700)
                .chain(edges.into_iter().flatten())
                .chain([u32::MAX, i32::MAX as u32]);
            for number in numbers {
                for arguments in [
                    [0; 6],
                    [u64::MAX; 6],
                    [libc::CLONE_NEWUSER as u64, libc::TIOCSTI, 9, 0, 0, 0],
                ] {
                    assert_same(&policy, &program, architecture.audit(), number, arguments);
                }
            }
        }
        assert_same(&policy, &program, 0, 0, [0; 6]);
    }
}

/// `UPDATE_EXPECTED=1 cargo test --lib precompiled` writes the file anew.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_precompiled_programs_are_what_the_compiler_makes() {
    let mut source = String::from(
        "//! The programs of the profiles on x86-64, made by the tests from the lists of `plan::seccomp`.\n\n\
         use crate::sys::Instruction;\n\n\
         const fn i(code: u16, jump_true: u8, jump_false: u8, operand: u32) -> Instruction {\n    \
         Instruction {\n        code,\n        jump_true,\n        jump_false,\n        operand,\n    }\n}\n",
    );
    for profile in PROFILES {
        let instructions = compiler::compile(&plan::system_calls_of(profile));
        source.push_str(&format!(
            "\n#[rustfmt::skip]\npub(super) static {}: [Instruction; {}] = [\n",
            profile.name().to_uppercase(),
            instructions.len()
        ));
        for row in instructions.chunks(4) {
            let row: Vec<String> = row
                .iter()
                .map(|one| {
                    format!(
                        "i({:#x}, {}, {}, {:#x}),",
                        one.code, one.jump_true, one.jump_false, one.operand
                    )
                })
                .collect();
            source.push_str(&format!("    {}\n", row.join(" ")));
        }
        source.push_str("];\n");
    }
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/sandbox/seccomp/precompiled.rs"
        );
        std::fs::write(path, &source).expect("written");
        return;
    }
    assert_eq!(include_str!("precompiled.rs"), source);
    for profile in PROFILES {
        let policy = plan::system_calls_of(profile);
        let program = compile(&policy).expect("fits");
        assert_eq!(*program.instructions, *compiler::compile(&policy));
        assert!(matches!(program.instructions, Cow::Borrowed(_)));
    }
}

#[test]
fn a_policy_that_is_not_the_profile_s_is_compiled() {
    let allow = Changes {
        allow: vec![Syscall::of("bpf").expect("a call")],
        deny: vec![],
    };
    let another_title = of_profile("app", CapabilitySet::EMPTY, &allow, &[]);
    let more_capable = of_profile("app", CapabilitySet::ALL, &Changes::default(), &[]);
    let mut logs = plan::system_calls_of(Profile::App);
    logs.log = true;
    let mut lets_more = plan::system_calls_of(Profile::App);
    lets_more.rules[0].otherwise = Action::Log;
    for policy in [another_title, more_capable, logs, lets_more] {
        let program = compile(&policy).expect("fits");
        assert!(matches!(program.instructions, Cow::Owned(_)));
        assert_eq!(*program.instructions, *compiler::compile(&policy));
        assert_eq!(program.log, policy.log);
    }
}

#[test]
fn the_profiles_are_small() {
    for policy in profiles() {
        let program = compile(&policy).expect("fits");
        let most = 350 * policy.architectures.len();
        assert!(
            program.instructions.len() < most,
            "{} instructions",
            program.instructions.len()
        );
    }
}

#[test]
fn a_policy_that_is_too_long_is_refused() {
    let case = |value| Case {
        conditions: vec![Condition {
            argument: 0,
            comparison: Comparison::Equal(value),
        }],
        action: Action::Allow,
    };
    let mut policy = app();
    policy.rules = vec![Rule {
        calls: vec![Syscall::of("read").expect("a call")],
        cases: (0..900).map(case).collect(),
        otherwise: Action::REFUSED,
    }];
    let program = compile(&policy).expect("fits");
    for value in [0, 1, 450, 899, 900, u64::MAX] {
        assert_same(
            &policy,
            &program,
            Architecture::NATIVE.audit(),
            0,
            [value; 6],
        );
    }
    policy.rules[0].cases = (0..1100).map(case).collect();
    let error = compile(&policy).expect_err("too long");
    assert!(error.to_string().contains("4096"), "{error}");
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        any::<u16>().prop_map(Action::Trace),
        (0..Action::MAX_ERRNO).prop_map(Action::Errno),
        Just(Action::Trap),
        Just(Action::KillThread),
        Just(Action::KillProcess),
    ]
}

/// Values whose halves are often equal, zero or at their ends: where comparisons go wrong.
fn any_value() -> BoxedStrategy<u64> {
    let half = || {
        prop_oneof![
            Just(0_u32),
            Just(1),
            Just(u32::MAX),
            Just(0x8000_0000),
            0..4_u32,
            any::<u32>()
        ]
    };
    (half(), half())
        .prop_map(|(high, low)| u64::from(high) << 32 | u64::from(low))
        .boxed()
}

fn any_condition() -> BoxedStrategy<Condition> {
    let comparison = prop_oneof![
        any_value().prop_map(Comparison::Equal),
        any_value().prop_map(Comparison::NotEqual),
        any_value().prop_map(Comparison::Less),
        any_value().prop_map(Comparison::LessOrEqual),
        any_value().prop_map(Comparison::Greater),
        any_value().prop_map(Comparison::GreaterOrEqual),
        (any_value(), any_value()).prop_map(|(mask, value)| Comparison::Masked { mask, value }),
        (any_value(), any_value()).prop_map(|(mask, value)| Comparison::Masked {
            mask,
            value: value & mask
        }),
    ];
    (0..6_u8, comparison)
        .prop_map(|(argument, comparison)| Condition {
            argument,
            comparison,
        })
        .boxed()
}

fn any_call() -> impl Strategy<Value = Syscall> {
    (0..Syscall::all().count()).prop_map(|index| Syscall::all().nth(index).expect("in the table"))
}

fn any_rule() -> BoxedStrategy<Rule> {
    let case = (
        proptest::collection::vec(any_condition(), 0..4),
        any_action(),
    )
        .prop_map(|(conditions, action)| Case { conditions, action });
    (
        proptest::collection::vec(any_call(), 1..60),
        proptest::collection::vec(case, 0..8),
        any_action(),
    )
        .prop_map(|(calls, cases, otherwise)| Rule {
            calls,
            cases,
            otherwise,
        })
        .boxed()
}

fn any_policy() -> BoxedStrategy<Policy> {
    let architectures =
        proptest::sample::subsequence(Architecture::ALL.to_vec(), 0..=6).prop_shuffle();
    (
        proptest::collection::vec(any_rule(), 0..12),
        architectures,
        any_action(),
        any_action(),
    )
        .prop_map(|(rules, architectures, otherwise, unknown)| Policy {
            title: "any".to_owned(),
            architectures,
            rules,
            otherwise,
            unknown,
            log: false,
            allow_speculation: false,
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The program does what the policy means, for the values its comparisons name and their neighbours.
    #[test]
    fn a_program_does_what_its_policy_means(
        policy in any_policy(),
        architecture in proptest::sample::select(Architecture::ALL.to_vec()),
        number in prop_oneof![0..520_u32, any::<u32>()],
        arguments in proptest::array::uniform6(any_value()),
    ) {
        let program = compile(&policy);
        prop_assume!(program.is_ok());
        let program = program.expect("was assumed");
        assert_same(&policy, &program, architecture.audit(), number, arguments);

        for rule in &policy.rules {
            for call in rule.calls.iter().take(8) {
                let Some(number) = call.number(architecture) else { continue };
                let bit = if architecture == Architecture::X32 { Architecture::X32_BIT } else { 0 };
                let number = number | bit;
                assert_same(&policy, &program, architecture.audit(), number, arguments);
                for condition in rule.cases.iter().flat_map(|case| &case.conditions) {
                    let value = match condition.comparison {
                        Comparison::Equal(value)
                        | Comparison::NotEqual(value)
                        | Comparison::Less(value)
                        | Comparison::LessOrEqual(value)
                        | Comparison::Greater(value)
                        | Comparison::GreaterOrEqual(value)
                        | Comparison::Masked { value, .. } => value,
                    };
                    for value in [value, value.wrapping_add(1), value.wrapping_sub(1), value ^ 1 << 32] {
                        let mut arguments = arguments;
                        arguments[usize::from(condition.argument)] = value;
                        assert_same(&policy, &program, architecture.audit(), number, arguments);
                    }
                }
            }
        }
    }
}

/// Set for the copy of this test program that puts itself under a filter.
const PROBE: &str = "BOXD_TEST_SECCOMP_PROBE";

/// Runs this test program again, with only the test of that name, and in it the probe.
fn probe(test: &str, what: &str) -> std::process::Output {
    let program = std::env::current_exe().expect("this program has a path");
    Command::new(program)
        .args([
            "--exact",
            &format!("sandbox::seccomp::tests::{test}"),
            "--nocapture",
            "--test-threads=1",
        ])
        .env(PROBE, what)
        .stdin(Stdio::null())
        .output()
        .expect("this program starts")
}

fn asked() -> Option<String> {
    std::env::var(PROBE).ok()
}

fn put_under(policy: &Policy) {
    rustix::thread::set_no_new_privs(true).expect("always possible");
    load(&compile(policy).expect("fits")).expect("the kernel takes the program");
}

fn native(name: &str) -> i64 {
    let number = Syscall::of(name).and_then(|call| call.number(Architecture::NATIVE));
    i64::from(number.expect("a native call"))
}

/// The kernel and the policy agree on every number. What would be allowed gets an error number of its own, so
/// that nothing happens, but for the call that ends the process with the result.
#[test]
fn the_kernel_gives_every_number_the_verdict_of_the_policy() {
    const WOULD_BE_ALLOWED: u16 = 4000;
    const NUMBERS: u32 = 600;
    const ARGUMENTS: [[u64; 6]; 4] = [
        [0; 6],
        [u64::MAX; 6],
        [
            libc::AF_NETLINK as u64,
            libc::TIOCSTI | 1 << 40,
            libc::NETLINK_AUDIT as u64,
            0,
            0,
            0,
        ],
        [libc::CLONE_NEWUSER as u64 | 17, 0, 0, 0, 0, 0],
    ];
    // The kernel itself calls uretprobe and uprobe from a trampoline, past any filter, and punishes others.
    let left_out = [native("exit_group"), 335, 336];

    let mut policy = app();
    for rule in &mut policy.rules {
        let actions = rule
            .cases
            .iter_mut()
            .map(|case| &mut case.action)
            .chain([&mut rule.otherwise]);
        for action in actions.filter(|action| **action == Action::Allow) {
            *action = Action::Errno(WOULD_BE_ALLOWED);
        }
    }
    policy.rules.insert(
        0,
        Rule {
            calls: vec![Syscall::of("exit_group").expect("a call")],
            cases: vec![],
            otherwise: Action::Allow,
        },
    );

    if asked().is_some() {
        put_under(&policy);
        // From here on nothing else works: no memory, no output.
        let mut same = true;
        for arguments in ARGUMENTS {
            for number in (0..NUMBERS).filter(|number| !left_out.contains(&i64::from(*number))) {
                let verdict = policy.verdict(Architecture::NATIVE.audit(), number, arguments);
                let met = match sys::call_by_number(i64::from(number), arguments) {
                    // nix has no name for this one.
                    Err(sys::Errno::UnknownErrno) => Action::Errno(WOULD_BE_ALLOWED),
                    Err(errno) => Action::Errno(errno as u16),
                    Ok(_) => Action::Allow,
                };
                same &= met == verdict;
            }
        }
        let _ = sys::call_by_number(
            native("exit_group"),
            [if same { 42 } else { 43 }, 0, 0, 0, 0, 0],
        );
    }
    let output = probe(
        "the_kernel_gives_every_number_the_verdict_of_the_policy",
        "all",
    );
    assert_eq!(output.status.code(), Some(42), "{output:?}");
}

/// What a box of the default profile meets in fact.
#[test]
fn a_process_under_the_app_profile_meets_its_refusals_and_can_live() {
    if asked().is_some() {
        put_under(&app());
        let errno = |name: &str, arguments: [u64; 6]| {
            let result = sys::call_by_number(native(name), arguments);
            format!("{name} {:?}", result.err())
        };
        let socket = |family: i32, protocol: i32| {
            errno("socket", [family as u64, 3, protocol as u64, 0, 0, 0])
        };
        let lines = [
            errno("mount", [0; 6]),
            errno("unshare", [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]),
            errno("clone", [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]),
            errno("clone3", [0; 6]),
            errno("keyctl", [0; 6]),
            errno("io_uring_setup", [0; 6]),
            errno("bpf", [0; 6]),
            errno("ioctl", [0, libc::TIOCSTI | 1 << 32, 0, 0, 0, 0]),
            errno("ioctl", [u64::MAX, libc::TCGETS, 0, 0, 0, 0]),
            errno("personality", [0x0040_0000, 0, 0, 0, 0, 0]),
            errno("personality", [0xFFFF_FFFF, 0, 0, 0, 0, 0]),
            socket(libc::AF_ALG, 0),
            socket(libc::AF_VSOCK, 0),
            socket(libc::AF_NETLINK, libc::NETLINK_AUDIT),
            socket(libc::AF_NETLINK, libc::NETLINK_ROUTE),
        ];
        // A thread and a process of its own: the C library falls back from clone3.
        let thread = std::thread::spawn(|| 7).join().expect("threads start");
        let echo = Command::new("/bin/echo")
            .arg("echoed")
            .output()
            .expect("processes start");
        println_through_write(&format!(
            "{}\nthread {thread}\n{}",
            lines.join("\n"),
            String::from_utf8_lossy(&echo.stdout)
        ));
        std::process::exit(0);
    }
    let output = probe(
        "a_process_under_the_app_profile_meets_its_refusals_and_can_live",
        "app",
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = "\
mount Some(EPERM)
unshare Some(EPERM)
clone Some(EPERM)
clone3 Some(ENOSYS)
keyctl Some(ENOSYS)
io_uring_setup Some(ENOSYS)
bpf Some(EPERM)
ioctl Some(EPERM)
ioctl Some(EBADF)
personality Some(EPERM)
personality None
socket Some(EAFNOSUPPORT)
socket Some(EAFNOSUPPORT)
socket Some(EPROTONOSUPPORT)
socket None
thread 7
echoed
";
    assert!(text.contains(expected), "{text}");
}

/// The harness captures what the printing macros print.
fn println_through_write(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_call_through_the_32_bit_gate_ends_the_process_unless_x86_is_listed() {
    use std::os::unix::process::ExitStatusExt as _;
    const GETPID: u32 = 20;
    if let Some(what) = asked() {
        let additional: &[Architecture] = if what == "x86" {
            &[Architecture::X86]
        } else {
            &[]
        };
        let policy = of_profile("app", CapabilitySet::EMPTY, &Changes::default(), additional);
        put_under(&policy);
        let process = sys::call_as_x86(GETPID);
        let x32 = sys::call_by_number(i64::from(Architecture::X32_BIT) | native("getpid"), [0; 6]);
        let own = process == std::process::id() as i32;
        std::process::exit(if own && x32 == Err(sys::Errno::ENOSYS) {
            42
        } else {
            43
        });
    }
    let test = "a_call_through_the_32_bit_gate_ends_the_process_unless_x86_is_listed";
    let refused = probe(test, "native");
    assert_eq!(refused.status.signal(), Some(libc::SIGSYS), "{refused:?}");
    // A kernel without 32-bit programs has no such gate.
    let allowed = probe(test, "x86");
    assert!(
        allowed.status.code() == Some(42) || allowed.status.signal() == Some(libc::SIGSEGV),
        "{allowed:?}"
    );
}

#[test]
fn without_no_new_privs_or_a_capability_the_kernel_s_refusal_is_told() {
    if asked().is_some() {
        rustix::thread::set_capabilities(
            None,
            rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            },
        )
        .expect("they can be given up");
        let error = load(&compile(&app()).expect("fits")).expect_err("it has no right to");
        println_through_write(&error.to_string());
        std::process::exit(0);
    }
    let output = probe(
        "without_no_new_privs_or_a_capability_the_kernel_s_refusal_is_told",
        "bare",
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("seccomp(SECCOMP_SET_MODE_FILTER"),
        "{output:?}"
    );
    assert!(text.contains("EACCES"), "{output:?}");
}
