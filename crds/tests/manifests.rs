//! Folders and texts of manifests: what is read, and what is said of mistakes.

use dmvpn_crds::manifest::{ReadError, read_folder, read_text};
use std::fs;

const SPOKE: &str = "apiVersion: kube-dmvpn.io/v1alpha1
kind: DmvpnSpoke
metadata: {name: branch-a}
spec:
  hubs: [{address: 198.51.100.1}]
  tunnel: {network: 10.200.0.0/16, addresses: 10.200.16.1/32}
  security: {mode: None}
";

fn errors(text: &str) -> Vec<String> {
    read_text("branch.yaml", text).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn a_misspelt_field_says_which_was_meant_and_where() {
    assert_eq!(
        errors(&format!("# a comment\n---\n{}", SPOKE.replace("security", "securty"))),
        ["branch.yaml:3: DmvpnSpoke branch-a: spec.securty: is no field of this: did you mean security?"]
    );
    assert_eq!(
        errors(&SPOKE.replace("network:", "netwrok:")),
        [
            "branch.yaml:1: DmvpnSpoke branch-a: spec.tunnel.network: is missing: write it",
            "branch.yaml:1: DmvpnSpoke branch-a: spec.tunnel.netwrok: is no field of this: did you mean network?"
        ]
    );
}

#[test]
fn a_broken_rule_says_what_to_write() {
    assert_eq!(
        errors(&SPOKE.replace("10.200.16.1/32", "10.201.16.1/32")),
        ["branch.yaml:1: DmvpnSpoke branch-a: spec.tunnel: addresses must lie within network"]
    );
}

#[test]
fn all_mistakes_of_all_documents_are_said_at_once() {
    let text = format!(
        "{}---\n{}---\nx: [\n",
        SPOKE.replace("mode: None", "mode: none"),
        SPOKE.replace("branch-a", "Branch")
    );
    let errors = errors(&text);
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert_eq!(
        errors[0],
        "branch.yaml:1: DmvpnSpoke branch-a: spec.security.mode: is none: write Encrypted or None (did you mean None?)"
    );
    assert!(
        errors[1]
            .starts_with("branch.yaml:9: DmvpnSpoke Branch: metadata.name: is \"Branch\": write lower-case")
    );
    assert!(errors[2].contains("is not YAML"), "{}", errors[2]);
}

#[test]
fn other_kinds_and_versions_are_told_apart() {
    for (from, to, said) in [
        ("DmvpnSpoke", "DmvpnSpok", "kind: is DmvpnSpok: did you mean DmvpnSpoke?"),
        ("DmvpnSpoke", "DmvpnNode", "kind: is made from hubs and spokes: write a DmvpnHub or DmvpnSpoke"),
        ("DmvpnSpoke", "ConfigMap", "kind: is ConfigMap: write DmvpnHub or DmvpnSpoke"),
        (
            "kube-dmvpn.io/v1alpha1\nkind: DmvpnSpoke",
            "v1\nkind: ConfigMap",
            "kind: is ConfigMap, which only Kubernetes reads: move it out of this folder",
        ),
        ("v1alpha1", "v1", "apiVersion: is \"kube-dmvpn.io/v1\": write kube-dmvpn.io/v1alpha1"),
        ("kind: DmvpnSpoke\n", "", "kind: is missing: write DmvpnHub, DmvpnSpoke or Secret"),
        ("{name: branch-a}", "{}", "metadata.name: is missing: write a name"),
    ] {
        let errors = errors(&SPOKE.replace(from, to));
        assert!(errors.len() == 1 && errors[0].ends_with(said), "{from} -> {to}: {errors:#?}");
    }
}

#[test]
fn the_same_object_twice_names_both_places() {
    assert_eq!(
        errors(&format!("{SPOKE}---\n{SPOKE}")),
        [
            "branch.yaml:9: DmvpnSpoke branch-a: metadata.name: stands at branch.yaml:1 as well: keep one of them"
        ]
    );
}

#[test]
fn an_interface_as_address_source_says_what_to_write() {
    let errors =
        errors(&SPOKE.replace("security:", "underlay: {addressFrom: {interface: eth0}}\n  security:"));
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("spec.underlay.addressFrom"), "{errors:#?}");
}

#[test]
fn what_kubectl_prints_is_read() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}\n",
        SPOKE.trim_end().replace('\n', "\n  ") + "\n  status: {conditions: []}"
    );
    assert_eq!(read_text("t", &text).unwrap().spokes.len(), 1);
}

#[test]
fn secrets_are_read_as_the_api_server_stores_them() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\ndata: {a: aGVsbG8=, b: eA==}\nstringData: {b: z}\n";
    let manifests = read_text("t", text).unwrap();
    let secret = &manifests.secrets["k"];
    assert_eq!((secret.get("a"), secret.get("b")), (Some(&b"hello"[..]), Some(&b"z"[..])));
}

#[test]
fn a_folder_is_read_by_name_without_hidden_files_and_others() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("b.yml", &SPOKE.replace("branch-a", "b"));
    write("a.yaml", &SPOKE.replace("branch-a", "a"));
    write(".a.yaml.swp.yaml", "garbage: [");
    write("README.md", "# not YAML: [");
    fs::create_dir(folder.path().join("sub.yaml")).unwrap();
    let manifests = read_folder(folder.path()).unwrap();
    let names: Vec<_> = manifests.spokes.iter().map(|s| s.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = read_folder(std::path::Path::new("/nonexistent/manifests")).unwrap_err();
    assert!(matches!(&error, ReadError::Io { .. }));
    assert!(error.to_string().starts_with("cannot read /nonexistent/manifests: "), "{error}");
}

#[test]
fn a_secret_that_is_not_text_says_so() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\nstringData: {a: 1234, b: yes}\ndata: {c: \"%\"}\n";
    assert_eq!(
        errors(text),
        [
            "branch.yaml:1: Secret k: stringData.a: is read as 1234: put the text in quotes",
            "branch.yaml:1: Secret k: stringData.b: is read as true: put the text in quotes",
            "branch.yaml:1: Secret k: data.c: is not base64: encode it, or write it under stringData"
        ]
    );
}
