//! NHRP (RFC 2332) parameters.

use super::is_default;
use crate::text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// NHRP parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Nhrp {
    /// How long others may use what we register or answer: 3 s to 65535 s, whole seconds. Registrations are refreshed
    /// after a third of it.
    #[serde(with = "text::duration")]
    #[schemars(with = "text::Duration", extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]{1,8}(h|m|s))+$') && duration(self) >= duration('3s') && duration(self) <= duration('65535s')",
        "message": "write whole seconds from 3s to 65535s, such as 600s or 10m"
    }]))]
    pub holding_time: Duration,

    /// A shortcut that carried nothing this long is given up.
    #[serde(with = "text::duration")]
    #[schemars(with = "text::Duration", extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]{1,8}(h|m|s|ms))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",
        "message": "write a duration from 1s to 24h, such as 120s or 5m"
    }]))]
    pub idle_timeout: Duration,

    /// Secret (`key`, 1 to 8 octets) with Cisco's plain-text authentication, the same on every hub and spoke. It keeps
    /// networks apart that meet by mistake; it protects against nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::SecretRef>")]
    pub authentication_secret: Option<String>,

    /// Register as unique: the hub refuses another identity's claim to our tunnel address.
    pub unique_registration: bool,

    /// NHRP group, carried to the hubs and shown there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub group: Option<String>,

    /// Departures from our habits that certain routers need.
    #[serde(skip_serializing_if = "is_default")]
    pub quirks: NhrpQuirks,
}

impl Default for Nhrp {
    fn default() -> Self {
        Self {
            holding_time: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(120),
            authentication_secret: None,
            unique_registration: true,
            group: None,
            quirks: NhrpQuirks::default(),
        }
    }
}

/// Departures from our habits that certain routers need. Each is off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NhrpQuirks {
    /// Append 16 zero octets to Error Indications (older Cisco IOS logs spurious errors without them).
    #[serde(skip_serializing_if = "is_default")]
    pub pad_error_indications: bool,
    /// Use one fixed request ID for registration and purge, as some Cisco IOS versions expect.
    #[serde(skip_serializing_if = "is_default")]
    pub fixed_request_id: bool,
}
