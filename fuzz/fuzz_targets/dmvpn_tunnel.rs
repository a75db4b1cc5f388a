//! Any sequence of operations on four tunnels that exchange messages.
#![no_main]

#[path = "../../protocols/dmvpn/tests/corpus/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|operations: operations::Operations| operations::run(operations));
