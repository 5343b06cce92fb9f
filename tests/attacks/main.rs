//! What has let containers out since 2016, tried on boxes with every default of their profile, with ids of their
//! own and with the host's. After each attempt the host is as it was, and what did not go said why.
//!
//! Each class has an id, which the names of its tests begin with. Some are held by tests elsewhere:
//!
//! | id | what is attacked | by what |
//! |---|---|---|
//! | P1 | `/proc` and `/sys` of an image are links (CVE-2019-16884, CVE-2023-27561) | [`paths`] |
//! | P2 | a mount point or a source is swapped for a link (CVE-2021-30465, CVE-2017-1002101) | [`paths`] |
//! | P3 | directories made on the way to a mount point (CVE-2024-45310) | [`paths`] |
//! | P4 | what masks are made of (CVE-2025-31133) | [`paths`] |
//! | P5 | `/dev/console` and other terminals (CVE-2025-52565) | [`paths`], for `boxctl exec -t`; `/dev/console` is made of the same, see `terminal` under systemd |
//! | P6 | writes to procfs led elsewhere (CVE-2025-52881) | [`paths`]; labels: `walls` of the tests of the kernel |
//! | P7 | directories of an image that are links (CVE-2026-41579) | [`paths`]; `roots` of the tests of the kernel |
//! | P8 | files that a start writes or reads (CVE-2024-9676, CVE-2026-55686) | [`paths`] |
//! | P9 | code and files of a box used by the host (CVE-2019-14271) | [`paths`], for the look-up of users; the rest waits for `boxctl cp` |
//! | P10 | files beside the root in an image or archive | waits for images |
//! | P11 | directories made before boxd makes them (CVE-2026-1386) | [`paths`] |
//! | P12 | what is deleted is swapped (RUSTSEC-2023-0018) | [`paths`], for the run directory; boxd deletes nothing else |
//! | F1 | working directories that lead out (CVE-2024-21626) | [`process`] |
//! | F2 | descriptors of who calls (CVE-2016-8649) | [`process`]; `separation` and `entering` of the tests of the kernel |
//! | F3 | the program that launches or enters is overwritten (CVE-2019-5736) | [`process`]; `entering` of the tests of the kernel |
//! | F4 | who enters is traced (CVE-2016-9962) | [`process`], with 150 entries for each kind of box, for time; `entering` of the tests of the kernel |
//! | F5 | capabilities that are left over (CVE-2022-29162) | [`process`]; `privileges` and `seccomp` of the tests of the kernel |
//! | F6 | users that are numbers, names, or neither (CVE-2026-30892) | [`process`]; groups: `privileges` of the tests of the kernel |
//! | F7 | accounts without end (CVE-2026-47262) | [`process`] |
//! | F8 | keys of the host | [`process`]; `the_payload_inherits_no_descriptor_and_no_keyring` under systemd |
//! | F9 | characters pushed into a terminal (CVE-2017-5226) | [`process`], for `boxctl exec -t`; `boxctl attach`: `terminal` under systemd; names and states shown on one: the tests of `boxctl` in the crate |
//! | F10 | text that another program reads once more (CVE-2026-23953) | [`process`]; `no_text_of_a_definition_breaks_out_of_the_unit` under systemd, and the properties of the generator; annotations wait for OCI bundles |
//! | K1 | control groups (CVE-2022-0492) | [`kernel`]; each process in its group, with its limits: `limits` and `life` under systemd |
//! | K2 | files of the kernel to write | [`kernel`] |
//! | K3 | files of the kernel to read (GHSA-6fw5-f8r9-fgfm) | [`kernel`] |
//! | K4 | devices | [`kernel`]; `k4_nodes_of_every_device_of_the_host_are_dead` and `devices_are_those_of_the_definition_with_its_letters` under systemd, after a daemon-reload and a daemon-reexec too |
//! | K5 | system calls with a history, other tables of calls | [`kernel`]; int 0x80 and every number of every table: the tests of `sandbox::seccomp`. The programs of LTP are on no machine of ours |
//! | K6 | abstract sockets and loopback (CVE-2020-15257) | [`kernel`]; with the host's network: waits for `network.mode` |
//! | K7 | settings of namespaces that are the host's | [`kernel`]; with the host's network: waits for `network.mode` |
//! | K8 | firewall rules | waits for networks |
//! | D1 | output that nobody reads, callers that go away (CVE-2022-31030) | [`exhaustion`]; `boxctl attach`: `terminal` under systemd |
//! | D2 | logs without end | `output_is_limited_and_what_is_dropped_is_counted` under systemd |
//! | D3 | memory of tmpfs and the like (CVE-2024-3056) | [`exhaustion`]; `what_a_box_wrote_to_memory_is_freed` under systemd |
//! | D4 | bombs | [`exhaustion`], of files and descriptors; of processes: `a_fork_bomb_is_held_by_the_task_limit` under systemd; mounts, keys and user namespaces cannot be made, see K5. What neighbours feel waits for a machine that is measured on |
//! | D5 | state that is damaged | [`exhaustion`]; archives wait for images |
//! | D6 | what a box has written, for users of the host (CVE-2021-41091) | [`exhaustion`]; volumes of boxd's own are not there yet |

use std::process::ExitCode;

#[allow(dead_code, reason = "the tests of the kernel use all of it")]
#[path = "../kernel/boxes.rs"]
mod boxes;
mod canary;
mod exhaustion;
#[path = "../kernel/harness.rs"]
mod harness;
mod kernel;
mod paths;
mod process;
#[allow(dead_code, reason = "the tests of the kernel use all of it")]
#[path = "../kernel/running.rs"]
mod running;
mod subject;
mod swapper;

use harness::Test;

fn main() -> ExitCode {
    alone_with_the_host();
    harness::run(&[
        paths::TESTS,
        process::TESTS,
        kernel::TESTS,
        exhaustion::TESTS,
    ])
}

/// What others mount on this machine meanwhile is not seen, and what a test mounts goes with it.
fn alone_with_the_host() {
    if rustix::process::geteuid().is_root() {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root may");
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .expect("root may");
    }
}
