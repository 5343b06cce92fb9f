#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| boxd_fuzz::quantities(data));
