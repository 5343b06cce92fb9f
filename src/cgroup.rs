//! cgroups through cgroups-rs, the only place that names it: usage, kill, freeze, and the driver for hosts without systemd.
