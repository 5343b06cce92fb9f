//! `boxctl run`: a box in the foreground, with systemd or without.
