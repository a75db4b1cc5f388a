//! The whole life of a small PKI, in a folder of its own.

use super::*;
use clap::Parser as _;
use std::os::unix::fs::PermissionsExt as _;

/// Runs `dmvpnctl pki ...` below `home`; what it says.
fn pki(home: &Path, words: &str) -> Result<String, Error> {
    let home = home.to_str().unwrap();
    let words = words.replace('~', home);
    let all = ["dmvpnctl", "pki"].into_iter().chain(words.split_whitespace());
    let cli = cli::Cli::try_parse_from(all).unwrap();
    let cli::Command::Pki(command) = &cli.command else { panic!("pki") };
    let mut out = Vec::new();
    run(command, cli.output, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn hq(home: &Path) {
    pki(home, "root Example --out ~/root").unwrap();
    let confines = "--domain hq.example.com --tunnel-addresses 10.200.0.0/24 --prefixes 10.0.0.0/16";
    pki(home, &format!("intermediate hq --parent ~/root {confines} --out ~/hq")).unwrap();
}

const A1: &str = "a-1.hq.example.com --tunnel-address 10.200.0.7 --prefixes 10.0.7.0/24";

#[test]
fn keys_are_their_owners_alone_and_never_replaced_unasked() {
    let home = tempfile::tempdir().unwrap();
    hq(home.path());
    let key = home.path().join("hq/tls.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let again = pki(home.path(), "root Example --out ~/hq").unwrap_err().to_string();
    assert!(again.contains("is there already"), "{again}");
    assert_eq!(std::fs::read(&key).unwrap(), before);
    pki(home.path(), "root Example --out ~/hq --force").unwrap();
    assert_ne!(std::fs::read(&key).unwrap(), before);
}

#[test]
fn a_node_gets_what_its_ca_may_give() {
    let home = tempfile::tempdir().unwrap();
    hq(home.path());
    let said = pki(home.path(), &format!("node {A1} --ca ~/hq --out ~/a --secret a-1")).unwrap();
    assert!(said.contains("issuedBy: Secret"), "{said}");
    let shown = pki(home.path(), "show ~/a/tls.crt").unwrap();
    for part in
        ["a-1.hq.example.com", "10.200.0.7", "10.0.7.0/24", " days left)", "only for   hq.example.com"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let secret = std::fs::read_to_string(home.path().join("a/secret.yaml")).unwrap();
    assert!(secret.contains("name: \"a-1\"") && secret.contains("name: \"a-1-trust\""), "{secret}");
    let mode = std::fs::metadata(home.path().join("a/secret.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let foreign = "node b.branch.example.com --tunnel-address 10.200.0.8 --ca ~/hq --out ~/b";
    let refusal = pki(home.path(), foreign).unwrap_err().to_string();
    assert!(refusal.contains("only for hq.example.com"), "{refusal}");
}

#[test]
fn a_request_is_signed_without_its_key() {
    let home = tempfile::tempdir().unwrap();
    hq(home.path());
    pki(home.path(), &format!("request {A1} --out ~/a")).unwrap();
    let said =
        pki(home.path(), "sign ~/a/request.csr --ca ~/hq --prefixes 10.0.8.0/24 --out ~/signed").unwrap();
    assert!(said.contains("10.0.8.0/24"), "{said}");
    assert!(!home.path().join("signed/tls.key").exists());
    pki(home.path(), &format!("request {A1} --out ~/a --renew")).unwrap();
}

#[test]
fn a_revoked_certificate_is_on_every_later_list() {
    let home = tempfile::tempdir().unwrap();
    hq(home.path());
    pki(home.path(), &format!("node {A1} --ca ~/hq --out ~/a")).unwrap();
    pki(home.path(), "revoke ~/hq/issued/a-1.hq.example.com-1.crt --ca ~/hq").unwrap();
    let said = pki(home.path(), "revoke abc --ca ~/hq").unwrap();
    assert!(said.contains("2 revoked"), "{said}");
    pki(home.path(), "revoke abc --ca ~/hq").unwrap();
    let said = pki(home.path(), "crl --ca ~/hq").unwrap();
    assert!(said.contains("2 revoked"), "{said}");
    let shown = pki(home.path(), "show ~/hq/crl.pem -o json").unwrap();
    assert!(shown.contains("\"0abc\""), "{shown}");
    let wrong = pki(home.path(), "revoke ~/a/tls.crt --ca ~/root").unwrap_err().to_string();
    assert!(wrong.contains("name that CA's folder"), "{wrong}");
    assert!(pki(home.path(), "revoke xyz --ca ~/hq").is_err());
}

#[test]
fn a_folder_without_a_ca_is_named() {
    let home = tempfile::tempdir().unwrap();
    let error = pki(home.path(), "crl --ca ~/nothing").unwrap_err().to_string();
    assert!(error.contains("no folder of a CA"), "{error}");
}

#[test]
fn a_name_cannot_lead_out_of_the_folder() {
    let home = tempfile::tempdir().unwrap();
    pki(home.path(), "root Example --out ~/root").unwrap();
    // The name of a CA is free text; its copy stays below `issued`.
    let words =
        "intermediate ../../evil --parent ~/root --domain x --tunnel-addresses 10.0.0.0/8 --out ~/evil";
    pki(home.path(), words).unwrap();
    assert_eq!(std::fs::read_dir(home.path().join("root/issued")).unwrap().count(), 1);
}
