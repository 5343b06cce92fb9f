//! What the profiles `app` and `system` let through.
//!
//! Every call of the table is in exactly one of these lists, so that a new one cannot slip in undecided. What
//! is open without a capability is a subset of what Docker's, Podman's and systemd-nspawn's defaults have in
//! common; what a capability opens is never more than Docker or nspawn open for it. `system` is `app` with
//! the capabilities of that profile: what sets them apart here is what `CAP_SYS_ADMIN` opens.

use crate::syscall::{Syscall, calls};

/// Allowed to every box, whatever its arguments.
#[rustfmt::skip]
pub(super) static ALLOWED: [Syscall; 333] = calls([
    "_llseek", "_newselect", "accept", "accept4", "access", "alarm", "arch_prctl", "arm_fadvise64_64", "bind",
    "brk", "cacheflush", "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_getres",
    "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
    "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old",
    "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64",
    "fadvise64_64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
    "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr",
    "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex",
    "futex_time64", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
    "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid",
    "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr", "inotify_add_watch",
    "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_setup",
    "io_submit", "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen", "listxattr",
    "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "madvise", "membarrier",
    "memfd_create", "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mmap", "mmap2", "mprotect",
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "mremap", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munmap",
    "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open",
    "pidfd_send_signal", "pipe", "pipe2", "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv",
    "preadv2", "prlimit64", "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg",
    "remap_file_pages", "removexattr", "rename", "renameat", "renameat2", "restart_syscall", "riscv_flush_icache",
    "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "set_robust_list", "set_thread_area", "set_tid_address", "set_tls", "setfsgid", "setfsgid32", "setfsuid",
    "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority",
    "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32",
    "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "shmat", "shmctl", "shmdt", "shmget",
    "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn", "splice",
    "stat", "stat64", "statfs", "statfs64", "statx", "symlink", "symlinkat", "sync", "sync_file_range",
    "sync_file_range2", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete",
    "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create",
    "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate",
    "truncate64", "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64",
    "utimes", "vfork", "wait4", "waitid", "waitpid", "write", "writev",
]);

/// Allowed to every box, but not with every argument; see the parent module for the conditions.
#[rustfmt::skip]
pub(super) static CONDITIONAL: [Syscall; 5] =
    calls(["clone", "ioctl", "personality", "socket", "socketpair"]);

/// Allowed to boxes that have the capability; the others see `EPERM`, as they would for want of the
/// capability itself.
#[rustfmt::skip]
pub(super) static BY_CAPABILITY: &[(&str, &[Syscall])] = &[
    ("BPF", &calls(["bpf"])),
    (
        "IPC_LOCK",
        &calls(["mlock", "mlock2", "mlockall", "munlock", "munlockall"]),
    ),
    ("PERFMON", &calls(["perf_event_open"])),
    ("SYSLOG", &calls(["syslog"])),
    (
        "SYS_ADMIN",
        &calls([
            "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree",
            "pivot_root", "setdomainname", "sethostname", "setns", "umount", "umount2", "unshare",
        ]),
    ),
    ("SYS_BOOT", &calls(["reboot"])),
    ("SYS_CHROOT", &calls(["chroot"])),
    (
        "SYS_MODULE",
        &calls(["delete_module", "finit_module", "init_module"]),
    ),
    (
        "SYS_NICE",
        &calls([
            "get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node",
        ]),
    ),
    ("SYS_PACCT", &calls(["acct"])),
    (
        "SYS_PTRACE",
        &calls([
            "kcmp", "process_madvise", "process_vm_readv", "process_vm_writev",
        ]),
    ),
    ("SYS_RAWIO", &calls(["ioperm", "iopl"])),
    (
        "SYS_TIME",
        &calls([
            "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64", "settimeofday",
            "stime",
        ]),
    ),
    ("SYS_TTY_CONFIG", &calls(["vhangup"])),
];

/// Allowed with `CAP_SYS_ADMIN`; the others see `ENOSYS`, so that they fall back: the C library from clone3
/// (whose flags a filter cannot see) to clone, libmount to `/proc/self/mountinfo`.
#[rustfmt::skip]
pub(super) static ABSENT_WITHOUT_SYS_ADMIN: [Syscall; 3] =
    calls(["clone3", "listmount", "statmount"]);

/// Never allowed unless asked for by name, `EPERM`: what the kernel itself says to those who may not, and what
/// programs expect of these calls.
#[rustfmt::skip]
pub(super) static DENIED: [Syscall; 20] = calls([
    "fanotify_init", "fanotify_mark", "kexec_file_load", "kexec_load", "lookup_dcookie", "migrate_pages",
    "move_pages", "open_by_handle_at", "pciconfig_iobase", "pciconfig_read", "pciconfig_write", "pidfd_getfd",
    "quotactl", "quotactl_fd", "swapoff", "swapon", "userfaultfd", "vm86", "vm86old", "vmsplice",
]);

/// Never allowed unless asked for by name, `ENOSYS`: newer or optional calls that programs try and do without,
/// as on a kernel that lacks them, and calls that no kernel has any more. The keyring calls are here since a
/// keyring is of no namespace; `socketcall` and its like since a filter cannot see their arguments.
/// Only the test that every call is decided reads it: a call in no list has the same end.
#[cfg(test)]
#[rustfmt::skip]
pub(super) static ABSENT: [Syscall; 75] = calls([
    "_sysctl", "add_key", "afs_syscall", "bdflush", "break", "breakpoint", "cachestat", "create_module",
    "file_getattr", "file_setattr", "ftime", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_kernel_syms",
    "getpmsg", "getxattrat", "gtty", "idle", "io_pgetevents", "io_pgetevents_time64", "io_uring_enter",
    "io_uring_register", "io_uring_setup", "keyctl", "listxattrat", "lock", "lsm_get_self_attr",
    "lsm_list_modules", "lsm_set_self_attr", "map_shadow_stack", "memfd_secret", "modify_ldt", "mpx", "mseal",
    "nfsservctl", "nice", "oldfstat", "oldlstat", "oldolduname", "oldstat", "olduname", "open_tree_attr",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease", "prof", "profil", "putpmsg", "query_module",
    "readdir", "removexattrat", "request_key", "riscv_hwprobe", "security", "setxattrat", "sgetmask", "sigaction",
    "signal", "sigpending", "sigsuspend", "socketcall", "ssetmask", "stty", "sysfs", "tuxcall", "ulimit",
    "uretprobe", "uselib", "usr26", "usr32", "ustat", "vserver",
]);
