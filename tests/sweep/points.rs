//! Which errors a system call can end with, and which of all points are tried.

use std::collections::HashMap;

use boxd::syscall::{Architecture, Syscall};
use nix::errno::Errno;

use crate::machine::Operation;
use crate::tracer::{Fault, Role, Target};

/// A blow at one call of one process in the course of one operation.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub operation: Operation,
    pub target: Target,
}

/// Names of system calls by number.
pub struct Names(HashMap<u64, &'static str>);

impl Names {
    pub fn new() -> Names {
        let native = Syscall::all().filter_map(|call| {
            let number = call.number(Architecture::NATIVE)?;
            Some((u64::from(number), call.name()))
        });
        Names(native.collect())
    }

    pub fn of(&self, number: u64) -> &'static str {
        self.0.get(&number).copied().unwrap_or("unknown")
    }
}

/// Errors with which a call may fail although nothing is wrong with its arguments.
fn errors(name: &str) -> &'static [Errno] {
    use Errno::{EAGAIN, EINTR, EIO, EMFILE, ENOMEM, ENOSPC, EPERM};
    match name {
        "open" | "openat" | "openat2" | "memfd_create" | "socket" | "socketpair" | "pipe2"
        | "epoll_create1" | "dup" | "dup2" | "dup3" | "fcntl" | "pidfd_open" | "signalfd4"
        | "eventfd2" | "inotify_init1" => &[EMFILE, ENOMEM],
        "write" | "writev" | "pwrite64" | "sendfile" | "splice" | "fallocate" | "ftruncate" => {
            &[ENOSPC, EIO, EINTR]
        }
        "mkdir" | "mkdirat" | "rename" | "renameat" | "renameat2" | "symlink" | "symlinkat"
        | "link" | "linkat" | "mknod" | "mknodat" | "chmod" | "fchmod" | "fchmodat" | "chown"
        | "fchown" | "fchownat" | "setxattr" | "fsetxattr" => &[ENOSPC, EIO],
        "unlink" | "unlinkat" | "rmdir" => &[EIO, EPERM],
        "read" | "pread64" | "readv" => &[EIO, EINTR],
        "getdents64" | "stat" | "lstat" | "fstat" | "newfstatat" | "statx" | "statfs"
        | "fstatfs" | "readlink" | "readlinkat" | "lseek" | "access" | "faccessat"
        | "faccessat2" => &[EIO, ENOMEM],
        "poll" | "ppoll" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "waitid" | "wait4"
        | "flock" | "connect" | "recvmsg" | "recvfrom" | "accept4" => &[EINTR, ENOMEM],
        "nanosleep" | "clock_nanosleep" | "getrandom" => &[EINTR],
        "sendmsg" | "sendto" | "sendmmsg" => &[ENOMEM, EINTR, EPERM],
        "mmap" | "mremap" | "brk" | "mprotect" | "execve" => &[ENOMEM],
        "clone" | "clone3" | "fork" | "vfork" => &[ENOMEM, EAGAIN],
        "fsopen" | "fsmount" | "fsconfig" | "fspick" | "move_mount" | "open_tree"
        | "mount_setattr" | "mount" | "umount2" | "pivot_root" | "unshare" | "setns" => {
            &[ENOMEM, EPERM]
        }
        "setuid" | "setgid" | "setresuid" | "setresgid" | "setgroups" | "capset" | "prctl"
        | "chroot" | "chdir" | "fchdir" | "kill" | "tgkill" | "pidfd_send_signal" | "keyctl"
        | "seccomp" | "prlimit64" | "setsid" | "sethostname" | "bpf" | "ioctl" | "setsockopt"
        | "epoll_ctl" | "bind" => &[EPERM, ENOMEM],
        // These do not fail, or nobody can do anything about it.
        _ => &[],
    }
}

/// All points of the calls that one process made in one operation.
pub fn all(operation: Operation, role: Role, calls: &[u64], names: &Names) -> Vec<Point> {
    let mut points = Vec::new();
    for (call, number) in calls.iter().enumerate() {
        let faults = errors(names.of(*number)).iter().copied().map(Fault::Fail);
        for fault in std::iter::once(Fault::Kill).chain(faults) {
            points.push(Point {
                operation,
                target: Target {
                    role,
                    call,
                    number: *number,
                    fault,
                },
            });
        }
    }
    points
}

/// So many of these, spread evenly; always the same.
pub fn sample(points: Vec<Point>, count: usize) -> Vec<Point> {
    if count >= points.len() {
        return points;
    }
    (0..count)
        .map(|index| points[index * points.len() / count])
        .collect()
}
