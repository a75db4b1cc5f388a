//! The network configuration on stdin.

use crate::call::{Call, Command, is_identifier};
use crate::error::Error;
use crate::result::PrevResult;
use crate::version::Version;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What annotations of ours begin with; the agent needs no others.
const OURS: &str = "kube-dmvpn.io/";

/// A configuration that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) version: Version,
    /// Name of the network.
    pub(crate) name: String,
    /// All of it, as delegated plugins get it.
    pub(crate) raw: Map<String, Value>,
    pub(crate) prev_result: Option<PrevResult>,
    /// The plugin that gives addresses. `None`: we are chained.
    pub(crate) ipam: Option<String>,
    /// A second interface: only the overlay's networks are routed by it.
    pub(crate) overlay_only: bool,
    /// MTU of an interface we make, instead of what the agent says.
    pub(crate) mtu: Option<u32>,
    /// The pod's annotations that are ours; `None`: the runtime doesn't tell.
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    /// GC: what is still valid, by container and interface; `None`: not told.
    pub(crate) valid: Option<Vec<(String, String)>>,
    /// The agent's.
    pub(crate) run_dir: PathBuf,
}

/// The fields we know. Others are somebody else's business.
#[derive(Deserialize)]
struct Fields {
    name: Option<String>,
    #[serde(rename = "prevResult")]
    prev_result: Option<Value>,
    ipam: Option<Ipam>,
    #[serde(rename = "overlayOnly", default)]
    overlay_only: bool,
    mtu: Option<u32>,
    #[serde(rename = "ipMasq", default)]
    ip_masq: bool,
    #[serde(rename = "runtimeConfig")]
    runtime: Option<Runtime>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<Valid>>,
    #[serde(rename = "runDir")]
    run_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Ipam {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct Runtime {
    #[serde(rename = "io.kubernetes.cri.pod-annotations")]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    #[serde(rename = "ifname")]
    interface: String,
}

/// The `cniVersion` a configuration says.
pub(crate) fn version(input: &Value) -> Result<Option<String>, Error> {
    match input.get("cniVersion") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(Error::Decode(format!("cniVersion is {other}: write it as text, \"1.1.0\""))),
    }
}

impl Config {
    /// Reads what `call` needs of it.
    pub(crate) fn parse(input: Value, call: &Call) -> Result<Self, Error> {
        let said = version(&input)?.unwrap_or_default();
        let version = Version::parse(&said)
            .ok_or_else(|| Error::IncompatibleVersion { said, supported: Version::supported().join(", ") })?;
        let too_old =
            |needs| Error::TooOldForVerb { verb: call.command.as_str(), needs, said: version.as_str() };
        match call.command {
            Command::Check if !version.has_check() => return Err(too_old("0.4.0")),
            Command::Gc | Command::Status if !version.is_1_1() => return Err(too_old("1.1.0")),
            _ => {}
        }
        let fields: Fields = Fields::deserialize(&input)
            .map_err(|e| Error::Decode(format!("the network configuration can't be understood: {e}")))?;
        let Value::Object(raw) = input else {
            return Err(Error::Decode("the network configuration is not an object".to_owned()));
        };
        Self::from_fields(version, fields, raw)
    }

    fn from_fields(version: Version, fields: Fields, raw: Map<String, Value>) -> Result<Self, Error> {
        let Fields { name, prev_result, ipam, overlay_only, mtu, ip_masq, runtime, valid, run_dir } = fields;
        let name = name.unwrap_or_default();
        if !is_identifier(&name) {
            return Err(Error::Config(format!("name {name:?} is no name of a network")));
        }
        if ip_masq {
            let why = "pods keep their own addresses on the overlay; leave ipMasq out";
            return Err(Error::Unsupported { key: "ipMasq", value: "true".to_owned(), why });
        }
        if let Some(mtu) = mtu.filter(|mtu| !(576..=65_535).contains(mtu)) {
            return Err(Error::Config(format!("mtu {mtu}: write a number from 576 to 65535")));
        }
        let ipam = ipam.map(|ipam| ipam.kind);
        if ipam.as_deref().is_some_and(|kind| kind.is_empty() || kind.contains('/')) {
            return Err(Error::Config("ipam.type is no name of a plugin: write host-local, say".to_owned()));
        }
        let annotations = runtime.and_then(|r| r.annotations);
        Ok(Self {
            version,
            name,
            raw,
            prev_result: prev_result.filter(|v| !v.is_null()).map(PrevResult::parse).transpose()?,
            ipam,
            overlay_only,
            mtu,
            annotations: annotations
                .map(|all| all.into_iter().filter(|(key, _)| key.starts_with(OURS)).collect()),
            valid: valid.map(|all| all.into_iter().map(|v| (v.container, v.interface)).collect()),
            run_dir: run_dir.unwrap_or_else(|| PathBuf::from("/run/kube-dmvpn")),
        })
    }
}

#[cfg(test)]
pub(crate) fn for_tests(command: &str, input: Value) -> Result<Config, Error> {
    Config::parse(input, &crate::call::for_tests(command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unsupported_version_is_code_1() {
        let error = for_tests("ADD", json!({"cniVersion": "0.2.0", "name": "n"})).unwrap_err();
        assert_eq!(error.code(), 1);
        let error = for_tests("ADD", json!({"name": "n"})).unwrap_err();
        assert_eq!(error.code(), 1, "a configuration without a version is of version 0.1.0");
    }

    #[test]
    fn check_gc_and_status_need_a_version_that_has_them() {
        for (verb, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
            let error = for_tests(verb, json!({"cniVersion": version, "name": "n"})).unwrap_err();
            assert_eq!(error.code(), 1, "{verb}");
        }
        assert!(for_tests("GC", json!({"cniVersion": "1.1.0", "name": "n"})).is_ok());
    }

    #[test]
    fn wrong_content_is_code_6_and_wrong_values_code_7_or_2() {
        let code = |input| for_tests("ADD", input).unwrap_err().code();
        assert_eq!(code(json!({"cniVersion": "1.1.0", "name": 7})), 6);
        assert_eq!(code(json!({"cniVersion": 1, "name": "n"})), 6);
        assert_eq!(code(json!(["cniVersion"])), 1);
        assert_eq!(code(json!({"cniVersion": "1.1.0", "name": "a/b"})), 7);
        assert_eq!(code(json!({"cniVersion": "1.1.0"})), 7);
        assert_eq!(code(json!({"cniVersion": "1.1.0", "name": "n", "mtu": 10})), 7);
        assert_eq!(code(json!({"cniVersion": "1.1.0", "name": "n", "ipam": {"type": "../sh"}})), 7);
        assert_eq!(code(json!({"cniVersion": "1.1.0", "name": "n", "ipMasq": true})), 2);
    }

    #[test]
    fn unknown_fields_are_kept_for_delegates() {
        let config = for_tests("ADD", json!({"cniVersion": "1.1.0", "name": "n", "keyA": ["x"]})).unwrap();
        assert_eq!(config.raw["keyA"], json!(["x"]));
        assert!(config.ipam.is_none() && config.annotations.is_none());
    }

    #[test]
    fn only_our_annotations_go_on() {
        let annotations = json!({"kube-dmvpn.io/overlay": "disabled", "secret": "x"});
        let runtime = json!({"io.kubernetes.cri.pod-annotations": annotations});
        let input = json!({"cniVersion": "1.1.0", "name": "n", "runtimeConfig": runtime});
        let known = for_tests("ADD", input).unwrap().annotations.unwrap();
        assert_eq!(
            known.into_iter().collect::<Vec<_>>(),
            [("kube-dmvpn.io/overlay".into(), "disabled".into())]
        );
    }

    #[test]
    fn attachments_that_are_still_valid_are_read() {
        let valid = json!([{"containerID": "c-1", "ifname": "eth0"}]);
        let input = json!({"cniVersion": "1.1.0", "name": "n", "cni.dev/valid-attachments": valid});
        assert_eq!(for_tests("GC", input).unwrap().valid, Some(vec![("c-1".to_owned(), "eth0".to_owned())]));
    }
}
