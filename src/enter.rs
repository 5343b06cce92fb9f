//! Another process in a running box: `boxctl exec` and `boxctl shell`.
