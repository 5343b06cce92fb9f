//! What of the kernel can be reached from a box: K1 to K8.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Stdio;

use super::Test;
use super::canary::Canary;
use super::subject::{BOTH, Subject, Users};

pub const TESTS: &[Test] = &[
    (
        "k1_control_groups_of_the_host",
        k1_control_groups_of_the_host,
    ),
    (
        "k2_files_of_the_kernel_that_can_be_written",
        k2_files_of_the_kernel_that_can_be_written,
    ),
    (
        "k3_files_of_the_kernel_that_can_be_read",
        k3_files_of_the_kernel_that_can_be_read,
    ),
    ("k4_devices_of_the_host", k4_devices_of_the_host),
    (
        "k5_system_calls_with_a_history",
        k5_system_calls_with_a_history,
    ),
    ("k6_sockets_of_the_host", k6_sockets_of_the_host),
    (
        "k7_settings_that_are_the_host_s",
        k7_settings_that_are_the_host_s,
    ),
];

/// What a script prints in a box that runs it to its end.
#[track_caller]
fn says(users: Users, command: &[&str], security: &str) -> String {
    let ran = Subject::new(users, command, "", security)
        .launch()
        .unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(ran.status, 0, "{ran:?}");
    ran.stdout
}

fn k1_control_groups_of_the_host() {
    const TRY: &str = "exec 2>/dev/null; mkdir /tmp/x
        for kind in cgroup2 'cgroup -o memory' 'cgroup -o devices' 'cgroup -o rdma' 'cgroup -o none,name=evil'; do
            mount -t $kind none /tmp/x && echo mounted $kind && {
                mkdir /tmp/x/new && echo made one
                echo /evil > /tmp/x/release_agent && echo its release_agent
                echo 0 > /tmp/x/cgroup.procs && echo joined it
            }
            unshare -Urm mount -t $kind none /tmp/x && echo mounted further down
            unshare -UrmC sh -c \"mount -t $kind none /tmp/x && echo /evil > /tmp/x/release_agent\" && echo further down
        done
        cd /sys/fs/cgroup
        for file in cgroup.procs cgroup.threads cgroup.subtree_control cgroup.kill memory.max pids.max release_agent; do
            echo 0 > $file && echo wrote $file
        done
        mkdir new && echo made one of its own
        mount -o remount,rw /sys/fs/cgroup && echo opened it
        echo tried";
    let canary = Canary::new();
    for users in BOTH {
        assert_eq!(says(users, &["sh", "-c", TRY], ""), "tried\n");
    }
    // A box that may mount sees its own group, which is not its own to change.
    let mounting = says(
        Users::Own,
        &["sh", "-c", TRY],
        "capabilities = [\"+SYS_ADMIN\"]",
    );
    for line in [
        "made one",
        "its release_agent",
        "wrote ",
        "opened it",
        "of its own",
    ] {
        assert!(!mounting.contains(line), "{mounting}");
    }
    canary.assert_untouched();
}

/// Opens every file of these trees the way it is told, and prints the paths that it can, with numbers as N. What is
/// at the end of a link is somebody else's.
const WALK: &str = r#"
    use Fcntl;
    my $way = $ARGV[0] eq 'write' ? O_WRONLY : O_RDONLY;
    my %found;
    sub walk {
        my ($at) = @_;
        opendir(my $directory, $at) or return;
        for my $name (readdir $directory) {
            next if $name eq '.' || $name eq '..';
            my $path = "$at/$name";
            next if -l $path;
            if (-d _) { walk($path) if $path !~ m{^/proc/\d+/task/\d+/}; next }
            sysopen(my $file, $path, $way | O_NONBLOCK | O_NOCTTY) or next;
            my (undef, undef, $mode, undef, undef, undef, $device) = stat $file;
            # What lies over a file that is hidden can be written as far as anybody likes, and what takes no writes
            # can be opened for them by root.
            next if $device == 0x103 || $way == O_WRONLY && !($mode & 0222);
            (my $kind = $path) =~ s{/\d+}{/N}g;
            $found{$kind} = 1;
        }
    }
    walk($_) for '/proc', '/sys';
    print "$_\n" for sort keys %found;
    print "walked\n";"#;

fn k2_files_of_the_kernel_that_can_be_written() {
    let canary = Canary::new();
    for users in BOTH {
        let printed = says(users, &["perl", "-e", WALK, "write"], "");
        // Of itself a process may write what it may; of all else it is nothing.
        let others: Vec<&str> = printed
            .lines()
            .filter(|path| !path.starts_with("/proc/N/"))
            .collect();
        let may = |path: &str| path == "walked" || PRESSURE.contains(&path);
        assert!(others.iter().all(|path| may(path)), "{users:?}: {others:?}");
    }
    canary.assert_untouched();
}

/// Who writes there is told of pressure, and changes nothing; psi.rst of the kernel.
const PRESSURE: [&str; 4] = [
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/irq",
    "/proc/pressure/memory",
];

/// What tells of the host, of its kernel's addresses, or of what others compute.
const HIDDEN: [&str; 21] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/kmsg",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/fs/pstore",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
];

fn k3_files_of_the_kernel_that_can_be_read() {
    let there: Vec<&str> = HIDDEN
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    assert!(there.len() >= 5, "{there:?}");
    // A pipe ends what would not end: the log of the kernel, of which a first byte is enough.
    let script = format!(
        "for at in {}; do
            if test -d $at; then ls -A $at; else timeout 5 head -c 1 $at | wc -c | grep -v '^0'; fi
        done 2>/dev/null; echo looked",
        HIDDEN.join(" ")
    );
    for users in BOTH {
        assert_eq!(
            says(users, &["sh", "-c", &script], ""),
            "looked\n",
            "{users:?}"
        );
        // What is read is not empty everywhere: the walk does find what is open.
        let open = says(users, &["perl", "-e", WALK, "read"], "");
        assert!(
            open.contains("/proc/meminfo\n") && open.contains("/sys/devices/"),
            "{open}"
        );
        for hidden in [
            "/proc/kmsg",
            "/proc/vmcore",
            "/sys/firmware/",
            "/sys/kernel/debug/",
        ] {
            assert!(
                !open.lines().any(|path| path.starts_with(hidden)),
                "{hidden}"
            );
        }
    }
}

/// The numbers of every device the host has a node of.
fn devices() -> Vec<(char, u64, u64)> {
    let mut found = BTreeSet::new();
    let mut folders = vec![std::path::PathBuf::from("/dev")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            let kind = metadata.file_type();
            let number = metadata.rdev();
            let numbers = (
                u64::from(libc::major(number)),
                u64::from(libc::minor(number)),
            );
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_block_device() {
                found.insert(('b', numbers.0, numbers.1));
            } else if kind.is_char_device() {
                found.insert(('c', numbers.0, numbers.1));
            }
        }
    }
    // The memory of the host, its ports and its log, whether it has nodes of them or not.
    found.extend([
        ('c', 1, 1),
        ('c', 1, 2),
        ('c', 1, 4),
        ('c', 1, 11),
        ('c', 10, 229),
        ('b', 7, 0),
        ('b', 254, 0),
    ]);
    found.into_iter().collect()
}

fn k4_devices_of_the_host() {
    let nodes: String = devices()
        .iter()
        .map(|(kind, major, minor)| {
            format!("mknod /tmp/node {kind} {major} {minor} && echo made; ")
        })
        .collect();
    let script = format!(
        "exec 2>/dev/null; {nodes}
        for at in $(find /dev ! -type d ! -type l); do
            case $at in /dev/pts/*|/dev/tty) continue;; esac
            (exec 3< $at) && echo r $at; (exec 3> $at) && echo w $at
        done | sort; echo tried"
    );
    for users in BOTH {
        let open = ["full", "null", "random", "urandom", "zero"];
        let wanted: String = ["r", "w"]
            .iter()
            .flat_map(|way| open.map(|name| format!("{way} /dev/{name}\n")))
            .collect();
        assert_eq!(
            says(users, &["sh", "-c", &script], ""),
            format!("{wanted}tried\n"),
            "{users:?}"
        );
        // With the capability to make nodes, in its own namespace: dead ones.
        if users == Users::Own {
            let made = says(users, &["sh", "-c", &script], "capabilities = [\"+MKNOD\"]");
            assert_eq!(made, format!("{wanted}tried\n"));
        }
    }
}

/// The calls through which the kernel was taken over, and those that change the host; each would answer something
/// else than a refusal if it were reached.
fn calls() -> Vec<(&'static str, i64, [u64; 4])> {
    let new_user = libc::CLONE_NEWUSER as u64;
    vec![
        ("mount", libc::SYS_mount, [0; 4]),
        ("umount2", libc::SYS_umount2, [0; 4]),
        ("pivot_root", libc::SYS_pivot_root, [0; 4]),
        ("unshare", libc::SYS_unshare, [new_user, 0, 0, 0]),
        ("setns", libc::SYS_setns, [0; 4]),
        (
            "clone",
            libc::SYS_clone,
            [new_user | libc::SIGCHLD as u64, 0, 0, 0],
        ),
        (
            "clone of a mount namespace",
            libc::SYS_clone,
            [libc::CLONE_NEWNS as u64 | libc::SIGCHLD as u64, 0, 0, 0],
        ),
        ("clone3", libc::SYS_clone3, [0; 4]),
        ("bpf", libc::SYS_bpf, [0; 4]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 4]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0; 4]),
        ("userfaultfd", libc::SYS_userfaultfd, [0; 4]),
        ("keyctl", libc::SYS_keyctl, [0; 4]),
        ("add_key", libc::SYS_add_key, [0; 4]),
        ("request_key", libc::SYS_request_key, [0; 4]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0; 4]),
        ("kexec_load", libc::SYS_kexec_load, [0; 4]),
        ("kexec_file_load", libc::SYS_kexec_file_load, [0; 4]),
        ("init_module", libc::SYS_init_module, [0; 4]),
        ("finit_module", libc::SYS_finit_module, [0; 4]),
        ("delete_module", libc::SYS_delete_module, [0; 4]),
        ("fsopen", libc::SYS_fsopen, [0; 4]),
        ("fsconfig", libc::SYS_fsconfig, [0; 4]),
        ("fsmount", libc::SYS_fsmount, [0; 4]),
        ("fspick", libc::SYS_fspick, [0; 4]),
        ("move_mount", libc::SYS_move_mount, [0; 4]),
        ("open_tree", libc::SYS_open_tree, [0; 4]),
        ("mount_setattr", libc::SYS_mount_setattr, [0; 4]),
        ("acct", libc::SYS_acct, [0; 4]),
        ("swapon", libc::SYS_swapon, [0; 4]),
        ("swapoff", libc::SYS_swapoff, [0; 4]),
        ("reboot", libc::SYS_reboot, [0; 4]),
        ("sethostname", libc::SYS_sethostname, [0; 4]),
        ("setdomainname", libc::SYS_setdomainname, [0; 4]),
        ("settimeofday", libc::SYS_settimeofday, [0; 4]),
        ("quotactl", libc::SYS_quotactl, [0; 4]),
        ("syslog", libc::SYS_syslog, [3, 0, 0, 0]),
        ("vhangup", libc::SYS_vhangup, [0; 4]),
        (
            "AF_ALG",
            libc::SYS_socket,
            [libc::AF_ALG as u64, libc::SOCK_SEQPACKET as u64, 0, 0],
        ),
        (
            "AF_VSOCK",
            libc::SYS_socket,
            [libc::AF_VSOCK as u64, libc::SOCK_STREAM as u64, 0, 0],
        ),
        (
            "NETLINK_AUDIT",
            libc::SYS_socket,
            [
                libc::AF_NETLINK as u64,
                libc::SOCK_RAW as u64,
                libc::NETLINK_AUDIT as u64,
                0,
            ],
        ),
        (
            "AF_PACKET",
            libc::SYS_socket,
            [libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0, 0],
        ),
        // The same numbers by the other tables of x86-64: x32's.
        ("getpid of x32", 0x4000_0000 + 39, [0; 4]),
        ("mount of x32", 0x4000_0000 + 165, [0; 4]),
    ]
}

fn k5_system_calls_with_a_history() {
    let attempts: String = calls()
        .iter()
        .map(|(name, number, [one, two, three, four])| {
            format!("attempt('{name}', {number}, {one}, {two}, {three}, {four});\n")
        })
        .collect();
    // In a process of its own each, for it may be killed, or be two afterwards. 1 is EPERM, 38 ENOSYS, 93
    // EPROTONOSUPPORT, 97 EAFNOSUPPORT.
    let script = format!(
        "$| = 1;
        sub attempt {{
            my ($name, @call) = @_;
            my $child = fork() // die;
            if ($child == 0) {{
                my $got = syscall($call[0], $call[1], $call[2], $call[3], $call[4]);
                exit($got == -1 && ($! == 1 || $! == 38 || $! == 93 || $! == 97) ? 0 : 1);
            }}
            waitpid($child, 0);
            print \"reached $name\\n\" if $? != 0 && ($? & 127) != 31;
        }}
        {attempts}
        attempt('this test itself', {}, 0, 0, 0, 0);
        print \"tried\\n\"",
        libc::SYS_getuid
    );
    let canary = Canary::new();
    for users in BOTH {
        let printed = says(users, &["perl", "-e", &script], "");
        assert_eq!(printed, "reached this test itself\ntried\n", "{users:?}");
    }
    canary.assert_untouched();
}

fn k6_sockets_of_the_host() {
    let name = format!("boxd-canary-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("free");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("free");
    let port = tcp.local_addr().expect("bound").port();
    let script = format!(
        "use Socket;
        socket(my $unix, AF_UNIX, SOCK_STREAM, 0) or die;
        print \"abstract\\n\" if connect($unix, pack('S a*', AF_UNIX, \"\\0{name}\"));
        socket(my $tcp, AF_INET, SOCK_STREAM, 0) or die;
        print \"loopback\\n\" if connect($tcp, sockaddr_in({port}, INADDR_LOOPBACK));
        open(my $seen, '<', '/proc/net/unix'); print grep {{ /boxd-canary/ }} <$seen>;
        print \"tried\\n\";"
    );
    let perl = ["perl", "-e", script.as_str()];
    // Both are reached from the host.
    let output = std::process::Command::new("perl")
        .args(&perl[1..])
        .output()
        .expect("perl runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("abstract\nloopback\n"), "{output:?}");
    listener.set_nonblocking(true).expect("set");
    let _ = listener.accept();
    for users in BOTH {
        assert_eq!(says(users, &perl, ""), "tried\n", "{users:?}");
        // Nor does boxd open one of those, while a box runs or a command enters it.
        let running = Subject::shell(users, "exec sleep 1000").running();
        let mut inside = running
            .exec(&[], &["sh", "-c", "echo up; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("boxctl runs");
        let mut word = [0; 3];
        let stdout = inside.stdout.as_mut().expect("piped");
        stdout.read_exact(&mut word).expect("the command says so");
        let sockets = fs::read_to_string("/proc/net/unix").expect("readable");
        inside.kill().expect("our child");
        inside.wait().expect("it ends");
        let ours: Vec<&str> = sockets
            .lines()
            .filter(|line| line.contains('@') && line.contains("box") && !line.contains(&name))
            .collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}

fn k7_settings_that_are_the_host_s() {
    let canary = Canary::new();
    for users in BOTH {
        for setting in [
            "kernel.core_pattern",
            "kernel.modprobe",
            "kernel.sysrq",
            "kernel.pid_max",
            "kernel.hotplug",
            "kernel.panic",
            "kernel.randomize_va_space",
            "kernel.yama.ptrace_scope",
            "vm.overcommit_memory",
            "vm.drop_caches",
            "fs.file-max",
            "fs.binfmt_misc.register",
            "fs.suid_dumpable",
            "dev.tty.legacy_tiocsti",
            "debug.exception-trace",
            "net/../kernel/core_pattern",
            "net.ipv4.ip_forward/../../../kernel/core_pattern",
            "net/ipv4/../../kernel/core_pattern",
            "net..ipv4",
            "/proc/sys/kernel/core_pattern",
            "kernel.shmmax\n",
            "kernel.msgmax/../core_pattern",
            "",
            "net",
        ] {
            let security = format!("sysctls = {{ {setting:?} = \"1\" }}");
            let wrong = Subject::new(users, &["true"], "", &security).launch();
            let wrong = wrong.expect_err(setting);
            assert!(
                wrong.contains("sysctls") || wrong.contains("no such setting"),
                "{setting}: {wrong}"
            );
        }
    }
    canary.assert_untouched();
}
