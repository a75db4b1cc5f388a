//! Any bytes as a manifest.
#![no_main]

#[path = "../../crds/tests/corpus/manifest.rs"]
mod manifest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| manifest::check(bytes));
