//! What fuzzing has found interesting, played again.
#![allow(missing_docs, unreachable_pub)]

mod message;
mod operations;

use arbitrary::{Arbitrary, Unstructured};
use std::path::Path;

#[test]
fn every_message_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/ikev2_message");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        println!("{}", file.display());
        message::check(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn every_sequence_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/ikev2_endpoint");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        println!("{}", file.display());
        play(&std::fs::read(file).unwrap());
    }
}

fn play(bytes: &[u8]) {
    if let Ok(operations) = operations::Operations::arbitrary(&mut Unstructured::new(bytes)) {
        operations::run(operations);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// The corpus is what was found; this looks a little further each time.
    #[test]
    fn any_sequence(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1000)) {
        play(&bytes);
    }
}
