//! Replies as JSON: the names of the gRPC API, enums by their names.

use rpc::agent::{PeerKind, Role, Severity, TunnelState, Verdict};
use serde::Serialize;
use serde_json::Value;

/// A reply as JSON.
///
/// # Errors
/// If it can't be written as JSON, which would be a mistake in here.
pub fn to_value(reply: &impl Serialize) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(reply)?;
    name_enums(&mut value);
    Ok(value)
}

/// Protobuf's enums are numbers, which say nothing to people who read scripts: `"state": "up"`.
fn name_enums(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let number = value.as_i64().and_then(|n| i32::try_from(n).ok());
                match number.and_then(|number| enum_name(field, number)) {
                    Some(name) => *value = name.into(),
                    None => name_enums(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(name_enums),
        _ => {}
    }
}

/// The name of an enum's value, in small letters without the enum's own name.
fn enum_name(field: &str, number: i32) -> Option<String> {
    let (prefix, name) = match field {
        "role" => ("ROLE_", Role::try_from(number).ok()?.as_str_name()),
        "state" => ("TUNNEL_STATE_", TunnelState::try_from(number).ok()?.as_str_name()),
        "kind" => ("PEER_KIND_", PeerKind::try_from(number).ok()?.as_str_name()),
        "severity" => ("SEVERITY_", Severity::try_from(number).ok()?.as_str_name()),
        "verdict" => ("VERDICT_", Verdict::try_from(number).ok()?.as_str_name()),
        _ => return None,
    };
    Some(name.strip_prefix(prefix).unwrap_or(name).to_lowercase())
}
