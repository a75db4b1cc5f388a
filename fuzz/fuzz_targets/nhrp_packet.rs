//! Any bytes as an NHRP message. What decodes must encode and decode to the same again.
#![no_main]

#[path = "../../protocols/nhrp/tests/corpus/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::check(bytes));
