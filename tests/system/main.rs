//! boxd as an operator meets it: the installed package under a real systemd.
//!
//! Runs as root in a virtual machine of its own for every test; `tests/run` takes it there. Nothing here knows
//! boxd's code: a test writes definitions, gives commands, and looks at what systemd, the kernel and the box
//! itself say. What a test leaves behind dies with its machine.

mod guest;

mod apply;
mod attacks;
mod faults;
mod files;
mod health;
mod life;
mod limits;
mod machines;
mod metrics;
mod notify;
mod operator;
mod package;
mod security;
mod separation;
mod slow;
mod sockets;
mod stopping;
mod supervisor;
mod terminal;
mod units;
