//! Any bytes as super-frames to cut, and as packets to coalesce.
#![no_main]

#[path = "../../protocols/packet/tests/corpus/supers.rs"]
mod supers;
#[path = "../../protocols/packet/tests/corpus/views.rs"]
#[allow(dead_code)]
mod views;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| supers::check(bytes));
