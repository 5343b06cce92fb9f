//! One loop that stands between systemd and a running box.
