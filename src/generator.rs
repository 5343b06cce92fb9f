//! Definitions to drop-ins of their units, at boot and at every daemon-reload; systemd.generator(7).
