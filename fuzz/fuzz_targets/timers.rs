#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nchf_fuzz::checks::timers(data));
