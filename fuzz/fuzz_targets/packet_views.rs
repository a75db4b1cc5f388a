//! Any bytes as a frame, a packet, or a message in one.
#![no_main]

#[path = "../../protocols/packet/tests/corpus/views.rs"]
mod views;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| views::check(bytes));
