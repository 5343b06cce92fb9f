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
//! | P5 | `/dev/console` and other terminals (CVE-2025-52565) | [`paths`], for `boxctl exec -t`; `/dev/console` waits for boxes with a terminal |
//! | P6 | writes to procfs led elsewhere (CVE-2025-52881) | [`paths`]; labels: `walls` of the tests of the kernel |
//! | P7 | directories of an image that are links (CVE-2026-41579) | [`paths`]; `roots` of the tests of the kernel |
//! | P8 | files that a start writes or reads (CVE-2024-9676, CVE-2026-55686) | [`paths`] |
//! | P9 | code and files of a box used by the host (CVE-2019-14271) | [`paths`], for the look-up of users; the rest waits for `boxctl cp` |
//! | P10 | files beside the root in an image or archive | waits for images |
//! | P11 | directories made before boxd makes them (CVE-2026-1386) | [`paths`] |
//! | P12 | what is deleted is swapped (RUSTSEC-2023-0018) | [`paths`], for the run directory; boxd deletes nothing else |

use std::process::ExitCode;

#[allow(dead_code, reason = "the tests of the kernel use all of it")]
#[path = "../kernel/boxes.rs"]
mod boxes;
mod canary;
#[path = "../kernel/harness.rs"]
mod harness;
mod paths;
#[allow(dead_code, reason = "the tests of the kernel use all of it")]
#[path = "../kernel/running.rs"]
mod running;
mod subject;
mod swapper;

use harness::Test;

fn main() -> ExitCode {
    alone_with_the_host();
    harness::run(&[paths::TESTS])
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
