//! systemd, over D-Bus and sd_notify(3); the only place that names zbus.
