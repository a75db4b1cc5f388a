//! Any sequence of operations on the two ends of an SA and the network between them.
#![no_main]

#[path = "../../protocols/esp/tests/corpus/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|operations: operations::Operations| operations::run(operations));
