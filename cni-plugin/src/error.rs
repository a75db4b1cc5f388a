//! What can go wrong, with the codes of the specification.

use serde_json::{Value, json};

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("cniVersion {said:?} is not supported: write one of {supported}")]
    IncompatibleVersion { said: String, supported: String },
    #[error("{verb} needs cniVersion {needs} or newer, and the configuration says {said}")]
    TooOldForVerb { verb: &'static str, needs: &'static str, said: &'static str },
    #[error("{key}: {value} is not supported: {why}")]
    Unsupported { key: &'static str, value: String, why: &'static str },
    #[error("there is no network namespace {0}")]
    UnknownContainer(String),
    #[error("invalid environment: {0}")]
    Environment(String),
    #[error("{what}: {why}")]
    Io { what: String, why: String },
    #[error("{0}")]
    Decode(String),
    #[error("{0}")]
    Config(String),
    #[error("the agent can't be asked: {0}")]
    TryAgain(String),
    #[error("the agent can't be asked, so no interface can be made: {0}")]
    NotAvailable(String),
    #[error(
        "ipam names no subnet, and this node announces no prefixes yet: write ipam.subnet, or see why its tunnel is not there"
    )]
    NoNetworks,
    #[error("{what}: {why}")]
    Kernel { what: String, why: String },
    #[error("not as it should be: {0}")]
    Check(String),
    /// What a delegated plugin said, with its own code.
    #[error("{plugin}: {msg}")]
    Delegate { plugin: String, code: u32, msg: String, details: String },
    /// Several things went wrong, and the rest was done nevertheless.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl Error {
    /// The code of section 5; from 100 on they are ours.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::IncompatibleVersion { .. } | Self::TooOldForVerb { .. } => 1,
            Self::Unsupported { .. } => 2,
            Self::UnknownContainer(_) => 3,
            Self::Environment(_) => 4,
            Self::Io { .. } => 5,
            Self::Decode(_) => 6,
            Self::Config(_) => 7,
            Self::TryAgain(_) | Self::NoNetworks => 11,
            Self::NotAvailable(_) => 50,
            Self::Kernel { .. } => 100,
            Self::Check(_) => 101,
            Self::Delegate { code, .. } => *code,
            Self::Several(errors) => errors.first().map_or(100, Self::code),
        }
    }

    /// The error result.
    pub(crate) fn json(&self, version: &str) -> Value {
        let details = match self {
            Self::Delegate { details, .. } => details.as_str(),
            _ => "",
        };
        let mut json = json!({"cniVersion": version, "code": self.code(), "msg": self.to_string()});
        if !details.is_empty() {
            json["details"] = json!(details);
        }
        json
    }

    /// One error of many; `None` of none.
    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_field_is_told_with_its_key_and_value() {
        let error = Error::Unsupported { key: "ipMasq", value: "true".to_owned(), why: "no" };
        assert_eq!(error.json("1.1.0")["code"], 2);
        assert!(error.to_string().contains("ipMasq: true"));
    }

    #[test]
    fn what_a_delegate_said_keeps_its_code_and_details() {
        let (plugin, msg) = ("host-local".to_owned(), "full".to_owned());
        let error = Error::Delegate { plugin, code: 11, msg, details: "no address left".to_owned() };
        let json = error.json("1.0.0");
        assert_eq!((json["code"].as_u64(), json["details"].as_str()), (Some(11), Some("no address left")));
        assert_eq!(json["cniVersion"], "1.0.0");
    }

    #[test]
    fn several_errors_are_all_told() {
        let errors = vec![Error::Config("one".to_owned()), Error::Config("two".to_owned())];
        assert_eq!(Error::all(errors).unwrap_err().to_string(), "one; two");
        assert_eq!(Error::all(Vec::new()), Ok(()));
    }
}
