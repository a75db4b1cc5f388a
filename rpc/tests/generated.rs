//! Keeps the committed code equal to what `proto/` says. `UPDATE=1 cargo test -p dmvpn-rpc` writes it.

use std::{env, fs, path::Path};

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/generated");
    let fresh = tempfile::tempdir().unwrap();
    generate(&root.join("proto"), fresh.path());
    for entry in fs::read_dir(fresh.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let text = fs::read_to_string(fresh.path().join(&name)).unwrap();
        let path = committed.join(&name);
        if env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&committed).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let same = fs::read_to_string(&path).is_ok_and(|old| old == text);
        assert!(same, "{} is stale: run UPDATE=1 cargo test -p dmvpn-rpc", path.display());
    }
}

/// protox stands in for protoc, so that nothing but cargo is needed.
fn generate(proto: &Path, out: &Path) {
    let files = protox::compile([proto.join("agent.proto"), proto.join("cni.proto")], [proto]).unwrap();
    tonic_prost_build::configure()
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .btree_map(".")
        .out_dir(out)
        .compile_fds(files)
        .unwrap();
}
