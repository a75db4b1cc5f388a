//! What fuzzing has found interesting, played again.
#![allow(missing_docs, unreachable_pub)]

mod message;

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
