//! Any sequence of operations on four stations that exchange messages.
#![no_main]

#[path = "../../protocols/nhrp/tests/corpus/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|operations: operations::Operations| operations::run(operations));
