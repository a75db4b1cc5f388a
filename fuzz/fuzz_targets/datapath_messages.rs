//! Any bytes on the stream between agent and datapath.
#![no_main]

#[path = "../../dataplane/tests/corpus/messages.rs"]
mod messages;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| messages::check(bytes));
