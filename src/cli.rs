//! What `boxctl` says and does; one file per group of commands.
