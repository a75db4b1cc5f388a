//! Every sample is valid, and what a node makes of it is committed beside this test.
//! `UPDATE_GOLDEN=1 cargo test -p dmvpn-plan` writes the files anew.

use crds::manifest::read_text;
use dmvpn_plan::{NodeFacts, standalone};
use std::path::{Path, PathBuf};

fn samples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/samples");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn every_sample_is_valid() {
    for (file, text) in samples() {
        if let Err(errors) = read_text(&file, &text) {
            panic!("{errors}");
        }
    }
}

#[test]
fn the_example_of_the_readme_is_a_sample() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let sample = std::fs::read_to_string(root.join("docs/samples/spoke.yaml")).unwrap();
    let manifest = sample.find("apiVersion").map(|at| &sample[at..]).unwrap();
    assert!(readme.contains(manifest), "write this into the README:\n{manifest}");
}

#[test]
fn every_manifest_on_a_page_of_the_documentation_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let pages = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut count = 0;
    for page in pages.filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        // Of ours: what Kubernetes alone reads, its API server judges.
        for block in blocks.filter(|block| block.starts_with("apiVersion: kube-dmvpn.io/")) {
            if let Err(errors) = read_text(&page.display().to_string(), block) {
                panic!("{errors}\n{block}");
            }
            count += 1;
        }
    }
    assert!(count >= 2, "only {count} found");
}

#[test]
fn every_sample_becomes_the_node_it_became_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut stale = Vec::new();
    for (file, text) in samples() {
        let Some((_, rest)) = text.split_once("--node ") else { continue };
        let node = NodeFacts::named(rest.split_whitespace().next().unwrap());
        let spec =
            standalone(&read_text(&file, &text).unwrap(), &node).unwrap_or_else(|e| panic!("{file}: {e}"));
        let yaml = serde_saphyr::to_string(&spec).unwrap();
        let golden = folder.join(&file);
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&golden, &yaml).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != yaml {
            stale.push(format!("{file} became\n{yaml}"));
        }
    }
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn a_golden_node_is_a_valid_dmvpn_node() {
    for (file, text) in samples() {
        let Some((_, rest)) = text.split_once("--node ") else { continue };
        let node = NodeFacts::named(rest.split_whitespace().next().unwrap());
        let spec = standalone(&read_text(&file, &text).unwrap(), &node).unwrap();
        let object = crds::DmvpnNode::new(&node.name, spec);
        if let Err(errors) = crds::manifest::check_node(&object) {
            panic!("{file}: {errors}");
        }
    }
}
