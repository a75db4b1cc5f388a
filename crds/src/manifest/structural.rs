//! Checks an object against a structural OpenAPI schema as the API server does, and says what to write. Unlike there
//! an unknown field is a mistake, not something to drop in silence: without Kubernetes nobody would notice.

use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A mistake: the field's path and what to write.
pub(super) type Finding = (String, String);

/// Checks `value` against `schema`; findings are added in the order of the schema.
pub(super) fn check(schema: &Value, value: &Value, path: &str, findings: &mut Vec<Finding>) {
    let mut say = |message: String| findings.push((path.to_owned(), message));
    if schema["x-kubernetes-int-or-string"] == true {
        if !value.is_string() && !value.is_i64() && !value.is_u64() {
            say(format!("write a number or a text, not {}", describe(value)));
        }
        return;
    }
    if value.is_null() {
        return say("is empty: write a value, or leave the field out".to_owned());
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return say(format!("is {}: write {}", show(value), alternatives(allowed, value)));
    }
    match (schema["type"].as_str().unwrap_or_default(), value) {
        ("object", Value::Object(object)) => check_object(schema, object, path, findings),
        ("array", Value::Array(items)) => check_array(schema, items, path, findings),
        ("string", Value::String(text)) => check_string(schema, text, say),
        ("integer", Value::Number(number)) if number.is_i64() || number.is_u64() => {
            check_integer(schema, value, say)
        }
        ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) | ("", _) => {}
        ("string", Value::Bool(_) | Value::Number(_)) => {
            say(format!("is read as {value}: put the text in quotes"))
        }
        (expected, _) => say(format!("write {}, not {}", article(expected), describe(value))),
    }
}

fn check_object(schema: &Value, object: &Map<String, Value>, path: &str, findings: &mut Vec<Finding>) {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let additional = schema.get("additionalProperties").filter(|s| s.is_object());
    if let Some(max) = schema["maxProperties"].as_u64()
        && object.len() as u64 > max
    {
        findings.push((path.to_owned(), format!("has {} entries: write at most {max}", object.len())));
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            findings.push((join(path, required), "is missing: write it".to_owned()));
        }
    }
    for (name, value) in object {
        let field = join(path, name);
        if let Some(property) = properties.get(name) {
            check(property, value, &field, findings);
        } else if let Some(additional) = additional {
            check(additional, value, &field, findings);
        } else if !properties.is_empty() {
            findings.push((field, unknown(name, properties)));
        }
    }
}

fn check_array(schema: &Value, items: &[Value], path: &str, findings: &mut Vec<Finding>) {
    if let Some(max) = schema["maxItems"].as_u64()
        && items.len() as u64 > max
    {
        findings.push((path.to_owned(), format!("has {} entries: write at most {max}", items.len())));
    }
    if let Some(min) = schema["minItems"].as_u64()
        && (items.len() as u64) < min
    {
        findings.push((path.to_owned(), format!("has {} entries: write at least {min}", items.len())));
    }
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let unique = schema["x-kubernetes-list-type"] == "set" || schema["x-kubernetes-list-type"] == "map";
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let field = format!("{path}[{index}]");
        if unique {
            let key = if keys.is_empty() {
                show(item)
            } else {
                keys.iter().map(|k| show(&item[k])).collect::<Vec<_>>().join(", ")
            };
            if !seen.insert(key.clone()) {
                let of = if keys.is_empty() { String::new() } else { format!("{} ", keys.join(", ")) };
                findings.push((field.clone(), format!("repeats {of}{key}: keep one entry of it")));
            }
        }
        check(&schema["items"], item, &field, findings);
    }
}

fn check_string(schema: &Value, text: &str, mut say: impl FnMut(String)) {
    let length = text.chars().count() as u64;
    if schema["minLength"].as_u64().is_some_and(|min| length < min) {
        say("is empty: write a value, or leave the field out".to_owned());
    }
    if let Some(max) = schema["maxLength"].as_u64()
        && length > max
    {
        say(format!("is {length} characters long: write at most {max}"));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
    {
        say(format!("is {text:?}: write something that matches {pattern}"));
    }
}

fn check_integer(schema: &Value, value: &Value, mut say: impl FnMut(String)) {
    let number = value.as_i64().map_or_else(|| value.as_u64().map_or(i128::MAX, i128::from), i128::from);
    let bound = |name: &str| schema[name].as_i64().map(i128::from);
    let (min, max) = (bound("minimum"), bound("maximum"));
    if min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) {
        say(match (min, max) {
            (Some(min), Some(max)) => format!("is {number}: write {min} to {max}"),
            (Some(min), None) => format!("is {number}: write {min} or more"),
            (_, max) => format!("is {number}: write {} or less", max.unwrap_or(i128::MAX)),
        });
    }
}

fn unknown(name: &str, properties: &Map<String, Value>) -> String {
    nearest(name, properties.keys().map(String::as_str)).map_or_else(
        || {
            let known = properties.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            format!("is no field of this: write one of {known}")
        },
        |close| format!("is no field of this: did you mean {close}?"),
    )
}

/// The candidate that was probably meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn alternatives(allowed: &[Value], value: &Value) -> String {
    let texts: Vec<String> = allowed.iter().map(show).collect();
    let meant = value.as_str().and_then(|text| nearest(text, texts.iter().map(String::as_str)));
    let list = match texts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => texts.concat(),
    };
    meant.map_or_else(|| list.clone(), |meant| format!("{list} (did you mean {meant}?)"))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn show(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn article(kind: &str) -> String {
    match kind {
        "object" => "fields (a mapping)".to_owned(),
        "array" => "a list".to_owned(),
        "string" => "a text".to_owned(),
        "integer" => "a whole number".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => format!("a {other}"),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Object(_) => "fields (a mapping)".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Null => "nothing".to_owned(),
        Value::String(text) => format!("the text {text:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn findings(schema: &Value, value: &Value) -> Vec<String> {
        let mut findings = Vec::new();
        check(schema, value, "spec", &mut findings);
        findings.into_iter().map(|(field, message)| format!("{field}: {message}")).collect()
    }

    #[test]
    fn an_unknown_field_is_named_with_the_one_that_was_meant() {
        let schema = json!({"type": "object", "properties": {"network": {"type": "string"}, "phase": {"type": "integer"}}});
        assert_eq!(
            findings(&schema, &json!({"netwrok": "x"})),
            ["spec.netwrok: is no field of this: did you mean network?"]
        );
        assert_eq!(
            findings(&schema, &json!({"colour": "x"})),
            ["spec.colour: is no field of this: write one of network, phase"]
        );
    }

    #[test]
    fn a_missing_field_is_named() {
        let schema =
            json!({"type": "object", "required": ["network"], "properties": {"network": {"type": "string"}}});
        assert_eq!(findings(&schema, &json!({})), ["spec.network: is missing: write it"]);
    }

    #[test]
    fn a_wrong_type_says_what_to_write() {
        for (kind, value, expected) in [
            ("string", json!({"interface": "eth0"}), "spec: write a text, not fields (a mapping)"),
            ("string", json!(true), "spec: is read as true: put the text in quotes"),
            ("integer", json!("x"), "spec: write a whole number, not the text \"x\""),
            ("integer", json!(1.5), "spec: write a whole number, not 1.5"),
            ("array", json!("x"), "spec: write a list, not the text \"x\""),
            ("object", json!([]), "spec: write fields (a mapping), not a list"),
            ("boolean", json!("yes"), "spec: write true or false, not the text \"yes\""),
            ("object", Value::Null, "spec: is empty: write a value, or leave the field out"),
        ] {
            assert_eq!(findings(&json!({"type": kind}), &value), [expected]);
        }
    }

    #[test]
    fn a_choice_lists_the_choices() {
        let schema = json!({"type": "string", "enum": ["Encrypted", "None"]});
        assert_eq!(
            findings(&schema, &json!("encrypted")),
            ["spec: is encrypted: write Encrypted or None (did you mean Encrypted?)"]
        );
        assert_eq!(
            findings(&json!({"type": "integer", "enum": [1, 2, 3]}), &json!(4)),
            ["spec: is 4: write 1, 2 or 3"]
        );
    }

    #[test]
    fn bounds_are_named() {
        let port = json!({"type": "integer", "minimum": 1, "maximum": 65535});
        assert_eq!(findings(&port, &json!(0)), ["spec: is 0: write 1 to 65535"]);
        assert_eq!(findings(&port, &json!(70000)), ["spec: is 70000: write 1 to 65535"]);
        assert_eq!(
            findings(&json!({"type": "integer", "minimum": 0}), &json!(-1)),
            ["spec: is -1: write 0 or more"]
        );
        assert_eq!(
            findings(&json!({"type": "string", "maxLength": 2}), &json!("abc")),
            ["spec: is 3 characters long: write at most 2"]
        );
        let list = json!({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}});
        assert_eq!(findings(&list, &json!([])), ["spec: has 0 entries: write at least 1"]);
        assert_eq!(findings(&list, &json!([1, 2, 3])), ["spec: has 3 entries: write at most 2"]);
        assert_eq!(
            findings(&json!({"type": "string", "pattern": "^a$"}), &json!("b")),
            ["spec: is \"b\": write something that matches ^a$"]
        );
        let map = json!({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}});
        assert_eq!(findings(&map, &json!({"a": 1, "b": 2})), ["spec: has 2 entries: write at most 1"]);
    }

    #[test]
    fn a_repeated_entry_is_named() {
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        assert_eq!(findings(&set, &json!(["a", "b", "a"])), ["spec[2]: repeats a: keep one entry of it"]);
        let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object"}});
        assert_eq!(
            findings(&map, &json!([{"name": "a"}, {"name": "a"}])),
            ["spec[1]: repeats name a: keep one entry of it"]
        );
    }
}
