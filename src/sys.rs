//! The only unsafe code: system calls that no library wraps. An error prints the call with its arguments.
