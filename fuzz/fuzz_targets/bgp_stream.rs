//! Any bytes from a BGP peer, in each state of its session.
#![no_main]

#[path = "../../protocols/bgp/tests/corpus/speaker.rs"]
mod speaker;
#[path = "../../protocols/bgp/tests/corpus/stream.rs"]
mod stream;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stream::check_bytes(bytes));
