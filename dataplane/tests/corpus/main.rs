//! What fuzzing has found interesting, played again.
#![allow(missing_docs, unreachable_pub)]

mod messages;

use std::path::Path;

#[test]
fn every_stream_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/datapath_messages");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        println!("{}", file.display());
        messages::check(&std::fs::read(&file).unwrap());
    }
}

proptest::proptest! {
    /// The corpus is what was found; this looks a little further each time.
    #[test]
    fn any_stream(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        messages::check(&bytes);
    }
}
