//! What fuzzing has found interesting, played again.
#![allow(missing_docs, unreachable_pub)]

mod message;
mod operations;

use arbitrary::{Arbitrary, Unstructured};
use std::path::Path;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    files.into_iter().map(|f| (f.display().to_string(), std::fs::read(&f).unwrap())).collect()
}

#[test]
fn every_message_of_the_corpus() {
    for (name, bytes) in corpus("nhrp_packet") {
        println!("{name}");
        message::check(&bytes);
    }
}

#[test]
fn every_sequence_of_the_corpus() {
    for (name, bytes) in corpus("nhrp_node") {
        println!("{name}");
        if let Ok(operations) = operations::Operations::arbitrary(&mut Unstructured::new(&bytes)) {
            operations::run(operations);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// The corpus is what was found; this looks a little further each time.
    #[test]
    fn any_sequence(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000)) {
        if let Ok(operations) = operations::Operations::arbitrary(&mut Unstructured::new(&bytes)) {
            operations::run(operations);
        }
    }
}
