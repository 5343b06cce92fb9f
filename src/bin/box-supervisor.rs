//! The process that stays with a box.

fn main() {}
