//! Facts of this machine, read once: what the plan may rely on.
