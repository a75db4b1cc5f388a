//! Generated files are committed, so that a change of the API is seen in review, and never stale.

use std::path::Path;

#[test]
fn generated_files_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (path, fresh) in dmvpn_crds::schema::files().unwrap() {
        let committed = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
        assert!(
            committed == fresh,
            "{path} is stale: run `cargo run -p dmvpn-crds --bin crdgen -- --write .`"
        );
    }
}
