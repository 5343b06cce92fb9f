//! The process that stays with a box.
#![no_main]

boxd::main_without_runtime!(boxd::supervisor::main);
