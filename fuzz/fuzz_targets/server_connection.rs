#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mqtt_fuzz::machines::server_connection(data));
