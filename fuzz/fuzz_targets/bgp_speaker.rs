//! Any sequence of operations on a BGP speaker.
#![no_main]

#[path = "../../protocols/bgp/tests/corpus/operations.rs"]
mod operations;
#[path = "../../protocols/bgp/tests/corpus/speaker.rs"]
mod speaker;

libfuzzer_sys::fuzz_target!(|operations: operations::Operations| operations::run(operations));
