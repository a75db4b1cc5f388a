//! What fuzzing has found interesting, played again.
#![allow(missing_docs, unreachable_pub)]

mod certificate;

use std::path::Path;

#[test]
fn every_chain_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/identity_certificate");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        println!("{}", file.display());
        let believed = certificate::check(&std::fs::read(&file).unwrap());
        assert!(
            believed || !file.ends_with("good"),
            "a good chain, so that what is behind every check is reached"
        );
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// The corpus is what was found; this looks a little further each time.
    #[test]
    fn any_octets(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
        certificate::check(&bytes);
    }
}
