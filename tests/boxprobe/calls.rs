//! Which system calls the box's filter lets through: asked of the kernel, call by call, and none of them made.
//!
//! A process of its own puts a filter of its own on top (see [`kernel::listen`]), which stops what the box's filter
//! lets through just before it happens. So it does not matter whether the kernel has the call, which capabilities
//! the box has, or what the call would do.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;

use boxd::syscall::{Architecture, Syscall};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::kernel;
use crate::report::Gaps;

/// The first argument of the process that makes the calls; the second is the number of the trial to begin with.
pub const CHILD: &str = "calls";

/// So far the native numbers are tried, whether they have a name or not.
const LAST: u64 = 1023;

/// Behind all that any kernel has.
const FAR: [u64; 2] = [4095, 0x3fff_ffff];

/// The bit of x32.
const X32: u64 = 0x4000_0000;

struct Trial {
    name: String,
    number: u64,
    arguments: [u64; 5],
    gate: Gate,
}

#[derive(Clone, Copy, PartialEq)]
enum Gate {
    /// All six arguments are given.
    Native,
    /// The one of 32-bit programs, without arguments.
    X86,
}

/// The verdicts on all calls, and on those whose arguments may matter.
pub fn verdicts(gaps: &mut Gaps) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let calls = all_calls();
    let arguments = with_arguments();
    let number = calls.len();
    let trials = calls.len() + arguments.len();
    let mut verdicts = Vec::new();
    while verdicts.len() < trials {
        let (more, end) = match run(verdicts.len()) {
            Ok(ran) => ran,
            Err(error) => {
                gaps.note("system calls", format!("cannot run a process: {error}"));
                break;
            }
        };
        verdicts.extend(more);
        if end.success() {
            if verdicts.len() < trials {
                gaps.note("system calls", "the process that makes them ended early");
            }
            break;
        }
        use std::os::unix::process::ExitStatusExt as _;
        match end.signal() {
            Some(libc::SIGSYS) => verdicts.push("killed".to_owned()),
            // Those of uprobes, which the kernel makes for itself: newer ones ask no filter, and this is how they
            // answer who is none.
            Some(libc::SIGILL) => verdicts.push("the kernel's own".to_owned()),
            // A kernel without 32-bit programs.
            Some(libc::SIGSEGV) => verdicts.push("no such gate".to_owned()),
            _ => {
                gaps.note(
                    "system calls",
                    format!("the process that makes them: {end}"),
                );
                break;
            }
        }
    }
    let mut named = calls
        .into_iter()
        .chain(arguments)
        .zip(verdicts)
        .map(|(trial, verdict)| {
            if let Some(why) = verdict.strip_prefix(UNLEARNT) {
                gaps.note(&trial.name, why);
            }
            (trial.name, verdict)
        });
    let calls = named.by_ref().take(number).collect();
    (calls, named.collect())
}

const UNLEARNT: &str = "cannot be learnt: ";

fn run(start: usize) -> std::io::Result<(Vec<String>, ExitStatus)> {
    let output = Command::new("/proc/self/exe")
        .args([CHILD, &start.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok((lines.lines().map(str::to_owned).collect(), output.status))
}

/// Prints a verdict a line. A trial that ends the process has none: that is its verdict.
pub fn child(start: &str) -> ExitCode {
    let start = start.parse().expect("the number of a trial");
    let (to_listener, listener) = mpsc::channel::<Result<OwnedFd, Errno>>();
    let caller = std::thread::spawn(move || {
        let listening = kernel::listen();
        let ready = listening.is_ok();
        to_listener
            .send(listening)
            .expect("the other thread waits for it");
        if ready {
            make_calls(start);
        }
    });
    match listener.recv().expect("the other thread says so") {
        Ok(listener) => answer_all(&listener),
        Err(errno) => {
            let trials = all_calls().len() + with_arguments().len();
            for _ in start..trials {
                print(&format!("{UNLEARNT}seccomp listener: {errno}"));
            }
        }
    }
    // A filter that ends the thread that called leaves this one.
    match caller.join() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn make_calls(start: usize) {
    for trial in all_calls().into_iter().chain(with_arguments()).skip(start) {
        let error = match trial.gate {
            Gate::Native => kernel::marked_call(trial.number, trial.arguments),
            #[cfg(target_arch = "x86_64")]
            Gate::X86 => kernel::marked_call_as_x86(trial.number as u32),
            #[cfg(not(target_arch = "x86_64"))]
            Gate::X86 => libc::ENOSYS,
        };
        print(&match error {
            kernel::LET_THROUGH => "allow".to_owned(),
            0 => format!("{UNLEARNT}the call happened"),
            error => format!("{:?}", Errno::from_raw(error)),
        });
    }
}

/// One line at once: the next trial may be the end of this process.
fn print(verdict: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{verdict}")
        .and_then(|()| out.flush())
        .expect("the parent reads");
}

/// Until the thread that calls has ended.
fn answer_all(listener: &OwnedFd) {
    loop {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => panic!("poll: {errno}"),
        }
        let events = ready[0].revents().unwrap_or(PollFlags::empty());
        if events.contains(PollFlags::POLLIN) {
            match kernel::answer(listener.as_fd()) {
                // The call was given up meanwhile.
                Ok(()) | Err(Errno::EINTR | Errno::ENOENT) => {}
                Err(errno) => panic!("the listener: {errno}"),
            }
        } else if !events.is_empty() {
            return;
        }
    }
}

fn trial(name: impl Into<String>, number: u64, arguments: [u64; 5]) -> Trial {
    Trial {
        name: name.into(),
        number,
        arguments,
        gate: Gate::Native,
    }
}

fn all_calls() -> Vec<Trial> {
    let names: BTreeMap<u64, &str> = Syscall::all()
        .filter_map(|call| {
            let number = call.number(Architecture::NATIVE)?;
            Some((u64::from(number), call.name()))
        })
        .collect();
    (0..=LAST)
        .chain(FAR)
        .map(|number| match names.get(&number) {
            Some(name) => trial(*name, number, [0; 5]),
            None => trial(format!("number {number}"), number, [0; 5]),
        })
        .collect()
}

/// A bit in the half of a register that the kernel does not look at where it takes an `int`.
const UPPER_HALF: u64 = 1 << 40;

fn with_arguments() -> Vec<Trial> {
    let number = |name: &str| {
        let call = Syscall::of(name).expect("a call of the table");
        call.number(Architecture::NATIVE).map(u64::from)
    };
    let mut trials = Vec::new();
    let mut add = |call: &str, what: String, arguments: [u64; 5]| {
        if let Some(number) = number(call) {
            trials.push(trial(format!("{call} {what}"), number, arguments));
        }
    };

    for (flag, bits) in NAMESPACES {
        let child = libc::SIGCHLD as u64;
        // Its bit in clone(2) is one of the signal's number.
        if flag != "NEWTIME" {
            add("clone", flag.to_owned(), [bits | child, 0, 0, 0, 0]);
            add(
                "clone",
                format!("{flag}, upper half"),
                [bits | child | UPPER_HALF, 0, 0, 0, 0],
            );
        }
        add("unshare", flag.to_owned(), [bits, 0, 0, 0, 0]);
        add("setns", flag.to_owned(), [0, bits, 0, 0, 0]);
    }
    add(
        "clone",
        "as fork".to_owned(),
        [libc::SIGCHLD as u64, 0, 0, 0, 0],
    );

    let stream = libc::SOCK_STREAM as u64;
    let raw = libc::SOCK_RAW as u64;
    for (number, family) in FAMILIES.iter().enumerate() {
        let domain = number as u64;
        for call in ["socket", "socketpair"] {
            add(call, (*family).to_owned(), [domain, stream, 0, 0, 0]);
        }
        let masked = [domain | UPPER_HALF, stream, 0, 0, 0];
        add("socket", format!("{family}, upper half"), masked);
    }
    for protocol in 0..=22 {
        let netlink = libc::AF_NETLINK as u64;
        add(
            "socket",
            format!("NETLINK protocol {protocol}"),
            [netlink, raw, protocol, 0, 0],
        );
        add(
            "socket",
            format!("NETLINK protocol {protocol}, upper half"),
            [netlink, raw, protocol | UPPER_HALF, 0, 0],
        );
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        let icmp = libc::IPPROTO_ICMP as u64;
        let name = FAMILIES[family as usize];
        add(
            "socket",
            format!("{name} raw"),
            [family as u64, raw, icmp, 0, 0],
        );
        for (protocol, number) in [("sctp", 132), ("mptcp", 262), ("udplite", 136)] {
            add(
                "socket",
                format!("{name} {protocol}"),
                [family as u64, stream, number, 0, 0],
            );
        }
    }

    for (request, number) in REQUESTS {
        add("ioctl", request.to_owned(), [0, number, 0, 0, 0]);
        add(
            "ioctl",
            format!("{request}, upper half"),
            [0, number | UPPER_HALF, 0, 0, 0],
        );
    }
    for (domain, number) in PERSONALITIES {
        add("personality", domain.to_owned(), [number, 0, 0, 0, 0]);
    }

    if cfg!(target_arch = "x86_64") {
        for call in ["read", "getpid", "ptrace", "socket", "clone3"] {
            if let Some(number) = number(call) {
                trials.push(trial(format!("x32 {call}"), number | X32, [0; 5]));
            }
            let of_x86 = Syscall::of(call).and_then(|call| call.number(Architecture::X86));
            trials.extend(of_x86.map(|number| Trial {
                name: format!("x86 {call}"),
                number: u64::from(number),
                arguments: [0; 5],
                gate: Gate::X86,
            }));
        }
        let socketcall = Syscall::of("socketcall").and_then(|call| call.number(Architecture::X86));
        trials.extend(socketcall.map(|number| Trial {
            name: "x86 socketcall".to_owned(),
            number: u64::from(number),
            arguments: [0; 5],
            gate: Gate::X86,
        }));
    }
    trials
}

const NAMESPACES: [(&str, u64); 8] = [
    ("NEWNS", libc::CLONE_NEWNS as u64),
    ("NEWCGROUP", libc::CLONE_NEWCGROUP as u64),
    ("NEWUTS", libc::CLONE_NEWUTS as u64),
    ("NEWIPC", libc::CLONE_NEWIPC as u64),
    ("NEWUSER", libc::CLONE_NEWUSER as u64),
    ("NEWPID", libc::CLONE_NEWPID as u64),
    ("NEWNET", libc::CLONE_NEWNET as u64),
    ("NEWTIME", 0x80),
];

/// In the order of their numbers, linux/socket.h; one more than there are.
const FAMILIES: [&str; 47] = [
    "UNSPEC",
    "UNIX",
    "INET",
    "AX25",
    "IPX",
    "APPLETALK",
    "NETROM",
    "BRIDGE",
    "ATMPVC",
    "X25",
    "INET6",
    "ROSE",
    "DECnet",
    "NETBEUI",
    "SECURITY",
    "KEY",
    "NETLINK",
    "PACKET",
    "ASH",
    "ECONET",
    "ATMSVC",
    "RDS",
    "SNA",
    "IRDA",
    "PPPOX",
    "WANPIPE",
    "LLC",
    "IB",
    "MPLS",
    "CAN",
    "TIPC",
    "BLUETOOTH",
    "IUCV",
    "RXRPC",
    "ISDN",
    "PHONET",
    "IEEE802154",
    "CAIF",
    "ALG",
    "NFC",
    "VSOCK",
    "KCM",
    "QIPCRTR",
    "SMC",
    "XDP",
    "MCTP",
    "46",
];

/// Those that put characters into a terminal's input, one that gives away the console, and an innocent one.
const REQUESTS: [(&str, u64); 4] = [
    ("TIOCSTI", libc::TIOCSTI),
    ("TIOCLINUX", 0x541C),
    ("TIOCCONS", libc::TIOCCONS),
    ("TCGETS", libc::TCGETS),
];

/// personality(2); the last is the question.
const PERSONALITIES: [(&str, u64); 9] = [
    ("LINUX", 0),
    ("LINUX32", 0x0008),
    ("UNAME26", 0x0002_0000),
    ("LINUX32 UNAME26", 0x0002_0008),
    ("ADDR_NO_RANDOMIZE", 0x0004_0000),
    ("MMAP_PAGE_ZERO", 0x0010_0000),
    ("READ_IMPLIES_EXEC", 0x0040_0000),
    ("SVR4", 0x0001),
    ("question", 0xffff_ffff),
];
