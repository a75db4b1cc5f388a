//! Every rule of the CRDs has a case here that breaks it, and the message it gives.

use dmvpn_crds::manifest::{ManifestErrors, Manifests, read_text};
use dmvpn_crds::schema::crds;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[path = "rules/cases.rs"]
mod cases;

fn read(object: &Value) -> Result<Manifests, ManifestErrors> {
    read_text("t.yaml", &object.to_string())
}

#[test]
fn each_rule_says_where_and_what_to_write() {
    for (object, field, message) in cases::broken() {
        let errors = read(&object).err().unwrap_or_else(|| panic!("accepted, though {field}: {message}"));
        let found = errors.0.iter().any(|e| e.field == field && e.message == message);
        assert!(found, "expected {field}: {message}\ngot\n{errors}");
    }
}

#[test]
fn each_case_breaks_one_rule() {
    for (object, field, message) in cases::broken() {
        let errors = read(&object).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{field}: {message}: got\n{errors}");
    }
}

#[test]
fn no_rule_is_without_a_case() {
    let tested: BTreeSet<&str> = cases::broken().iter().map(|(_, _, message)| *message).collect();
    for crd in crds() {
        let mut rules = Vec::new();
        collect(crd.schema(), &mut rules);
        assert_eq!(rules.is_empty(), crd.kind == "DmvpnNode", "{}", crd.kind);
        for message in rules {
            assert!(tested.contains(message), "{}: no case for {message:?}", crd.kind);
        }
    }
}

fn collect<'a>(schema: &'a Value, rules: &mut Vec<&'a str>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                rules.push(rule["message"].as_str().expect("every rule has a message"));
            }
            fields.values().for_each(|value| collect(value, rules));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, rules)),
        _ => {}
    }
}

#[test]
fn what_is_right_is_accepted() {
    for good in cases::right() {
        read(&good).unwrap();
    }
}

#[test]
fn encryption_is_what_leaving_security_out_means() {
    let mut object = cases::hub();
    object["spec"]["security"] = json!({"authentication": {"preSharedKey": {"secret": "psk"}}});
    let manifests = read_text("t.yaml", &object.to_string()).unwrap();
    assert_eq!(manifests.hubs[0].spec.security.mode, dmvpn_crds::spec::SecurityMode::Encrypted);
}
