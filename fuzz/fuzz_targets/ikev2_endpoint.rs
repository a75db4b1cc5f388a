//! Any sequence of operations on two IKE endpoints and on what travels between them.
#![no_main]

#[path = "../../protocols/ikev2/tests/corpus/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|operations: operations::Operations| operations::run(operations));
