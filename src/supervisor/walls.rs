//! What a supervisor gives up once it has all it needs.
//!
//! It is root, and reads what its box writes to it. So before it reads the first byte it keeps only
//!
//! - the capabilities of [`kept`], now and after any execve(2), and no way to gain others;
//! - the system calls of [`CALLS`], and sockets of two families. Every other call fails with `EPERM`, and the kernel
//!   logs it. No call ends the process: the next supervisor would meet the same fate, and the box has none then;
//! - by landlock(7), where the kernel has it: reading in `/proc`, the files of the box's cgroup, and the directory of
//!   the program that replaces this one at an upgrade. Sockets are none of its business, nor is what is open already.
//!
//! Walls are inherited by what this process becomes or starts, for good. The program that replaces it in place is told
//! by [`VARIABLE`] which walls stand; one that needs others ends, and systemd starts it outside of them. And a probe
//! enters the box, for which it needs nearly everything: where the definition has a `[health]`, probes are started by a
//! process that is made before the walls stand, the [asker](super::health::Asker).
//!
//! A supervisor that is not its box's parent learns on some kernels how the box ended from `/proc/PID/stat` alone, and
//! from there only with `CAP_SYS_PTRACE` and without Landlock, which refuses all that tracing may do. It keeps both.
//!
//! Who sends a message is told by `/proc` too, of which a host may hide what belongs to others: proc(5), `hidepid=`.
//! There this process joins the group that sees everything; where only who may trace a process sees it, it keeps both
//! as well.

use std::env;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid};

use super::Libraries;
use super::descriptors::Received;
use crate::handover::{Document, Listener};
use crate::launch::run_directory::PARENT;
use crate::sys::{self, Called as _, Errno, FileAccess, Instruction};
use crate::syscall::{Architecture, Syscall, calls};

/// Says to the program that is executed which walls stand around it.
pub const VARIABLE: &str = "BOX_SUPERVISOR_WALLS";

/// Another number for other walls: one that needs more than these let through must not inherit them.
pub const GENERATION: &str = "3";

/// Why the walls do not stand.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Capabilities are still there.
    #[error("the supervisor cannot give up its capabilities")]
    Capabilities(#[source] sys::Error),
    /// Privileges could be gained.
    #[error("the supervisor cannot refuse new privileges")]
    NoNewPrivileges(#[source] sys::Error),
    /// System calls are still there.
    #[error("the supervisor cannot give up system calls")]
    SystemCalls(#[source] sys::Error),
    /// The walls around it are those of another version.
    #[error(
        "this supervisor has replaced one whose walls are not its own ({VARIABLE}={0}), and is started anew outside of \
         them"
    )]
    Inherited(String),
}

/// Puts the walls up around this process, which has one thread. What comes back says why files are not given up, or
/// that they are; none on a kernel without Landlock.
pub fn put_up(
    received: &Received,
    libraries: Libraries,
) -> Result<Option<Result<(), sys::Error>>, Error> {
    match env::var(VARIABLE) {
        Ok(inherited) if inherited == GENERATION => return Ok(Some(Ok(()))),
        Ok(inherited) => return Err(Error::Inherited(inherited)),
        Err(_) => {}
    }
    let mut traces = !received.process.is_child();
    let mut kept = kept(received);
    if !traces && !sees_with(kept).map_err(Error::Capabilities)? {
        traces = true;
    }
    if traces {
        kept |= CapabilitySet::SYS_PTRACE;
    }
    bound(kept).map_err(Error::Capabilities)?;
    hold(kept, Some(kept)).map_err(Error::Capabilities)?;
    rustix::thread::set_no_new_privs(true)
        .called(|| "prctl(PR_SET_NO_NEW_PRIVS, 1)".to_owned())
        .map_err(Error::NoNewPrivileges)?;
    let files = match traces {
        true => Some(Ok(())),
        false => match give_up_files(&received.document, libraries) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        },
    };
    const LOG: bool = true;
    const ALLOW_SPECULATION: bool = true;
    match sys::set_seccomp_filter(&FILTER, LOG, ALLOW_SPECULATION) {
        Ok(()) => {}
        // A kernel without seccomp, on which a box has no filter either.
        Err(error) if error.errno() == Errno::ENOSYS => {}
        Err(error) => return Err(Error::SystemCalls(error)),
    }
    Ok(files)
}

/// The capabilities a supervisor uses.
fn kept(received: &Received) -> CapabilitySet {
    // The box has users of its own, and one with an init of its own may close the directory of its cgroup to others.
    let mut kept = CapabilitySet::KILL | CapabilitySet::DAC_READ_SEARCH;
    let of_a_path = |listener: &Listener| matches!(listener, Listener::Unix { .. });
    let idle = received.document.idle.as_ref();
    if idle.is_some_and(|idle| idle.listeners.iter().any(of_a_path)) {
        // Looks at a socket that may be another user's, and sets back its times.
        kept |= CapabilitySet::FOWNER;
    }
    kept
}

/// Whether this process sees in `/proc` who other processes are, with no more in force than these; if need be as a
/// member of another group. It can give up more afterwards.
fn sees_with(kept: CapabilitySet) -> Result<bool, sys::Error> {
    // The first process belongs to nobody's box, and has all that a box may have.
    let sees = || std::fs::read("/proc/1/cgroup").is_ok();
    let kept = kept | CapabilitySet::SETPCAP;
    hold(kept, None)?;
    if sees() {
        return Ok(true);
    }
    let Some(group) = std::fs::read_to_string("/proc/self/mountinfo")
        .ok()
        .and_then(|mounts| group_that_sees(&mounts))
    else {
        return Ok(false);
    };
    hold(kept | CapabilitySet::SETGID, None)?;
    let groups = [Gid::from_raw(group)];
    rustix::thread::set_thread_groups(&groups).called(|| format!("setgroups([{group}])"))?;
    hold(kept, None)?;
    Ok(sees())
}

/// Whom the `/proc` of these mounts hides nothing from.
fn group_that_sees(mountinfo: &str) -> Option<u32> {
    // What was mounted last lies above.
    mountinfo.lines().rev().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        if mount.split(' ').nth(4) != Some("/proc") {
            return None;
        }
        let options = file_system.strip_prefix("proc ")?.rsplit(' ').next()?;
        let group = |option: &str| option.strip_prefix("gid=")?.parse().ok();
        options.split(',').find_map(group)
    })
}

/// Takes every other capability from the bounding set, those this program has no name for too.
fn bound(kept: CapabilitySet) -> Result<(), sys::Error> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last one this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => {
                return Err(sys::Error::new(
                    format!("prctl(PR_CAPBSET_DROP, {number})"),
                    errno,
                ));
            }
        }
    }
    Ok(())
}

/// Has these capabilities in force, of those it has; and these at its disposal, or what it had.
fn hold(effective: CapabilitySet, permitted: Option<CapabilitySet>) -> Result<(), sys::Error> {
    let had = rustix::thread::capabilities(None).called(|| "capget(0)".to_owned())?;
    let sets = CapabilitySets {
        effective: had.permitted & effective,
        permitted: permitted.map_or(had.permitted, |permitted| had.permitted & permitted),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)
        .called(|| format!("capset(0, {:#x})", sets.effective.bits()))
}

/// False on a kernel without Landlock.
fn give_up_files(document: &Document, libraries: Libraries) -> Result<bool, sys::Error> {
    let directory = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).called(|| format!("open({path:?}, O_PATH)"))
    };
    let program = std::fs::read_link("/proc/self/exe")
        .called(|| "readlink(\"/proc/self/exe\")".to_owned())?;
    let mut wanted = vec![
        (directory(Path::new("/proc"))?, FileAccess::READ),
        (
            directory(program.parent().unwrap_or(Path::new("/")))?,
            FileAccess::EXECUTE,
        ),
    ];
    if libraries == Libraries::Shared {
        // With what loads them.
        wanted.push((directory(Path::new("/usr"))?, FileAccess::EXECUTE));
    }
    // The box may have ended, and its cgroup with it.
    if let Ok(cgroup) = directory(&document.cgroup) {
        wanted.push((cgroup, FileAccess::READ_AND_WRITE));
    }
    // What was written down of its health is read by the program that replaces this one.
    if document.health.is_some()
        && let Ok(run) = directory(&Path::new(PARENT).join(document.name.as_str()))
    {
        wanted.push((run, FileAccess::READ));
    }
    let allowed: Vec<_> = wanted
        .iter()
        .map(|(directory, access): &(OwnedFd, FileAccess)| (directory.as_fd(), *access))
        .collect();
    sys::give_up_files(&allowed)
}

/// What the loop and libc below it call, and the start of the program that replaces this one, [`GENERATION`] included.
/// `socket` is looked at in [`filter`].
#[rustfmt::skip]
const CALLS: [Syscall; 94] = calls([
    // Waiting, reading and passing on.
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "epoll_create1", "poll", "ppoll", "read", "pread64",
    "readv", "write", "pwrite64", "writev", "sendto", "sendmsg", "recvfrom", "recvmsg", "sendfile", "splice",
    "accept4", "connect", "bind", "getsockopt", "setsockopt", "getsockname", "shutdown", "clock_gettime", "gettimeofday",
    "signalfd4", "eventfd2", "timerfd_create", "timerfd_settime",
    // Files and descriptors.
    "openat", "open", "close", "close_range", "fcntl", "dup", "dup2", "dup3", "pipe2", "lseek", "ftruncate",
    "fallocate", "memfd_create", "fstat", "newfstatat", "stat", "lstat", "statx", "fstatfs", "statfs", "utimensat",
    "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents64", "ioctl",
    // Processes.
    "waitid", "pidfd_send_signal", "execve", "exit", "exit_group", "getpid", "gettid", "tgkill", "getuid", "geteuid",
    "getgid", "getegid", "prlimit64", "prctl", "uname", "sched_getaffinity", "sched_yield",
    // Memory, signals and threads, as libc has them.
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "sigaltstack", "restart_syscall", "futex", "set_tid_address", "set_robust_list", "rseq", "arch_prctl",
    "getrandom",
]);

const LENGTH: usize = CALLS.len() + 10;

/// Made when this program is.
static FILTER: [Instruction; LENGTH] = filter();

/// ```text
/// architecture? ── another ─► refused
/// number? ── socket ─► family ── AF_UNIX, AF_NETLINK ─► allowed
///   │ in the list ─► allowed     └ another ─► refused
///   └ another ─► refused
/// ```
const fn filter() -> [Instruction; LENGTH] {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Offsets in `struct seccomp_data`; every architecture of the table is little-endian.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const FIRST_ARGUMENT: u32 = 16;
    const REFUSED: Instruction = plain(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    const LIST: usize = 4;
    const AFTER_LIST: usize = LIST + CALLS.len();
    const FAMILY: usize = AFTER_LIST + 1;
    const ALLOWED: usize = LENGTH - 1;

    const fn plain(code: u16, operand: u32) -> Instruction {
        Instruction {
            code,
            jump_true: 0,
            jump_false: 0,
            operand,
        }
    }
    /// At `from`: goes to `to` if it holds, else on.
    const fn jump(from: usize, operand: u32, to: usize) -> Instruction {
        let distance = to - from - 1;
        assert!(distance <= u8::MAX as usize, "a jump has eight bits");
        Instruction {
            jump_true: distance as u8,
            ..plain(EQUAL, operand)
        }
    }
    /// One that no call has, where this architecture lacks the call.
    const fn number(call: Syscall) -> u32 {
        match call.number(Architecture::NATIVE) {
            Some(number) => number,
            None => u32::MAX,
        }
    }

    let mut program = [REFUSED; LENGTH];
    program[0] = plain(LOAD, ARCHITECTURE);
    program[1] = Instruction {
        jump_false: (AFTER_LIST - 2) as u8,
        ..plain(EQUAL, Architecture::NATIVE.audit())
    };
    program[2] = plain(LOAD, NUMBER);
    let [socket] = calls(["socket"]);
    program[3] = jump(3, number(socket), FAMILY);
    let mut index = 0;
    while index < CALLS.len() {
        program[LIST + index] = jump(LIST + index, number(CALLS[index]), ALLOWED);
        index += 1;
    }
    program[FAMILY] = plain(LOAD, FIRST_ARGUMENT);
    program[FAMILY + 1] = jump(FAMILY + 1, libc::AF_UNIX as u32, ALLOWED);
    program[FAMILY + 2] = jump(FAMILY + 2, libc::AF_NETLINK as u32, ALLOWED);
    program[ALLOWED] = plain(RETURN, libc::SECCOMP_RET_ALLOW);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, by running it.
    fn verdict(architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = FILTER[at];
            at += 1;
            match u32::from(instruction.code) & 7 {
                libc::BPF_LD => {
                    accumulator = match instruction.operand {
                        0 => number,
                        4 => architecture,
                        _ => argument,
                    }
                }
                libc::BPF_RET => return instruction.operand,
                _ => {
                    at += usize::from(match accumulator == instruction.operand {
                        true => instruction.jump_true,
                        false => instruction.jump_false,
                    });
                }
            }
        }
    }

    #[test]
    fn the_filter_lets_through_its_list_and_nothing_else() {
        let native = Architecture::NATIVE;
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        for call in Syscall::all() {
            let Some(number) = call.number(native) else {
                continue;
            };
            let expected = match CALLS.contains(&call) {
                true => libc::SECCOMP_RET_ALLOW,
                false => refused,
            };
            // No family of sockets has this number.
            assert_eq!(verdict(native.audit(), number, 9999), expected, "{call}");
            assert_eq!(verdict(0x4000_0003, number, 1), refused, "{call} of x86");
            let x32 = number | Architecture::X32_BIT;
            assert_eq!(verdict(native.audit(), x32, 1), refused, "{call} of x32");
        }
        let [socket] = calls(["socket"]);
        let socket = socket.number(native).expect("every architecture has it");
        for (family, expected) in [
            (libc::AF_UNIX, libc::SECCOMP_RET_ALLOW),
            (libc::AF_NETLINK, libc::SECCOMP_RET_ALLOW),
            (libc::AF_INET, refused),
            (libc::AF_PACKET, refused),
            (libc::AF_ALG, refused),
        ] {
            assert_eq!(verdict(native.audit(), socket, family as u32), expected);
        }
    }

    #[test]
    fn the_group_that_sees_all_processes_is_found_among_the_mounts() {
        let own =
            "24 30 0:22 / /proc rw,nosuid shared:12 - proc proc rw,gid=4242,hidepid=invisible";
        let other = "88 30 0:60 / /srv/proc rw - proc proc rw,gid=7,hidepid=invisible";
        let below = "31 24 0:30 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw,fd=36,gid=9";
        let all = [own, below, other].join("\n");
        assert_eq!(group_that_sees(&all), Some(4242));
        assert_eq!(group_that_sees(&own.replace("gid=4242,", "")), None);
        assert_eq!(group_that_sees(other), None);
        assert_eq!(group_that_sees(""), None);
    }

    #[test]
    fn what_a_supervisor_must_never_do_is_not_in_the_list() {
        for name in [
            "clone",
            "clone3",
            "fork",
            "vfork",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "mount",
            "umount2",
            "setns",
            "unshare",
            "bpf",
            "init_module",
            "kexec_load",
            "pidfd_getfd",
            "kill",
            "open_by_handle_at",
            "io_uring_setup",
            "unlink",
            "unlinkat",
            "rename",
            "chmod",
            "fchmodat",
            "mknodat",
            "setuid",
            "setresuid",
            "capset",
            "userfaultfd",
            "keyctl",
        ] {
            let call = Syscall::of(name).expect("a system call");
            assert!(!CALLS.contains(&call), "{name}");
        }
    }
}
