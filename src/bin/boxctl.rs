//! `boxctl`: everything by hand.

fn main() {}
