//! Any bytes as an IKE message. What decodes must encode and decode to the same again.
#![no_main]

#[path = "../../protocols/ikev2/tests/corpus/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| message::check(bytes));
