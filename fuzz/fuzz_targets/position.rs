#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| okta_auth0_sync_fuzz::targets::position(input));
