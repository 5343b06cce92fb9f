//! Called by systemd at boot and at every daemon-reload.

fn main() {}
