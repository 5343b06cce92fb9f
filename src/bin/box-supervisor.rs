//! The process that stays with a box.
#![no_main]

use boxd::supervisor::Libraries;

boxd::main_without_runtime!(supervise);

fn supervise() -> u8 {
    boxd::supervisor::main(match cfg!(target_feature = "crt-static") {
        true => Libraries::Within,
        false => Libraries::Shared,
    })
}
