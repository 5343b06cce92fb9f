//! Names by which the supervisor's last entry of a box is found and read again.

/// `MESSAGE_ID=` of an entry that says how a box ended.
pub const ENDED: &str = "3791e04bc2bb4303996efe9b2b2dc398";
/// The box.
pub const BOX_NAME: &str = "BOX_NAME";
/// Pid of its first process.
pub const BOX_PID: &str = "BOX_PID";
/// How it ended, in one word.
pub const BOX_RESULT: &str = "BOX_RESULT";
/// The exit status that says so to systemd.
pub const BOX_EXIT_STATUS: &str = "BOX_EXIT_STATUS";
/// How its first process ended: `exited`, `killed`, `dumped` or `unknown`.
pub const EXIT_CODE: &str = "EXIT_CODE";
/// Its exit status, or the signal without its `SIG`.
pub const EXIT_STATUS: &str = "EXIT_STATUS";
/// The run of the unit it was; systemd's own entries have it too.
pub const INVOCATION: &str = "INVOCATION_ID";
