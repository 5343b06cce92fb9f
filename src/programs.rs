//! boxd's own programs, where one of them starts another.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// The program of this very build where it lies beside this one, else the installed one.
pub fn beside_or(installed: &CStr) -> CString {
    let path = Path::new(std::ffi::OsStr::from_bytes(installed.to_bytes()));
    let beside = path.file_name().and_then(|name| {
        let program = std::env::current_exe().ok()?.with_file_name(name);
        program.exists().then_some(program)
    });
    beside
        .and_then(|program| CString::new(program.into_os_string().into_vec()).ok())
        .unwrap_or_else(|| installed.to_owned())
}
