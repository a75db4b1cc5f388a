//! What fuzzing has found interesting, played again.
#![allow(missing_docs, unreachable_pub)]

mod supers;
mod views;

use std::path::Path;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        println!("{}", file.display());
        check(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn every_packet_of_the_corpus() {
    replay("packet_views", views::check);
}

#[test]
fn every_stream_of_the_corpus() {
    replay("packet_supers", supers::check);
}

proptest::proptest! {
    /// The corpus is what was found; this looks a little further each time.
    #[test]
    fn any_packet(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        views::check(&bytes);
        supers::check(&bytes);
    }
}
