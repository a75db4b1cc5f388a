//! Whatever arrives, in whatever order: nothing panics, and what is held stays bounded. What the fuzz targets found
//! worth keeping is replayed here, and some more is made up each time.
#![allow(missing_docs, unreachable_pub)]

mod operations;
mod speaker;
mod stream;

use arbitrary::{Arbitrary, Unstructured};
use operations::Operations;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn streams_of_the_corpus_are_survived() {
    let corpus = corpus("bgp_stream");
    assert!(!corpus.is_empty());
    for bytes in corpus {
        stream::check_bytes(&bytes);
    }
}

#[test]
fn operations_of_the_corpus_are_survived() {
    let corpus = corpus("bgp_speaker");
    assert!(!corpus.is_empty());
    for bytes in corpus {
        if let Ok(operations) = Operations::arbitrary_take_rest(Unstructured::new(&bytes)) {
            operations::run(operations);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        stream::check_bytes(&bytes);
    }

    #[test]
    fn any_operations_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
        let operations = Operations::arbitrary_take_rest(Unstructured::new(&bytes));
        operations::run(operations.expect("octets are never too few"));
    }
}
