//! `boxd run NAME`, `boxd clean NAME`: what the units call.

fn main() {}
