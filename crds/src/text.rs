//! Values written as text: networks, addresses, durations, names. Rust code sees [`ipnet::IpNet`],
//! [`std::net::IpAddr`] and [`std::time::Duration`]; the types here carry their schemas (`#[schemars(with = "..")]`).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// Schema of an IP network such as `10.200.0.0/16` or `fd00:c8::/64`. No host bits: they are mostly a slip.
pub struct Cidr;

/// Schema of an IPv4 or IPv6 address.
pub struct Address;

/// Schema of a duration such as `600s`, `10m`, `1h30m` or `500ms`.
pub struct Duration;

/// Schema of the name of a Secret, or `file:` and a path where no Kubernetes is.
pub struct SecretRef;

/// Schema of a DNS name or a pattern over DNS names: `*.branch.example.com` stands for one more label,
/// `*` alone for everyone.
pub struct IdentityPattern;

/// Schema of a network interface's name.
pub struct InterfaceName;

macro_rules! schema_of {
    ($type:ident, $($schema:tt)*) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($schema)*)
            }
        }
    };
}

schema_of!(Cidr, {
    "type": "string",
    "maxLength": 43,
    "x-kubernetes-validations": [
        {"rule": "isCIDR(self)", "message": "write an IP network, such as 10.200.0.0/16 or fd00:c8::/64"},
        {
            "rule": "!isCIDR(self) || cidr(self) == cidr(self).masked()",
            "message": "write the network without host bits, such as 10.200.0.0/16 for 10.200.0.1/16"
        }
    ]
});

schema_of!(Address, {
    "type": "string",
    "maxLength": 39,
    "x-kubernetes-validations": [
        {"rule": "isIP(self)", "message": "write an IP address, such as 10.200.16.1 or fd00:c8::1, without a prefix length"}
    ]
});

schema_of!(Duration, {
    "type": "string",
    "maxLength": 24,
    "x-kubernetes-validations": [
        {"rule": "self.matches('^([0-9]{1,8}(h|m|s|ms))+$')", "message": "write a duration, such as 600s, 10m, 1h30m or 500ms"}
    ]
});

schema_of!(SecretRef, {
    "type": "string",
    "maxLength": 1024,
    "x-kubernetes-validations": [{
        "rule": "self.matches('^(file:/.*|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*)$')",
        "message": "write the name of a Secret (lower-case letters, digits, '-', '.'), or without Kubernetes file:/path"
    }]
});

schema_of!(IdentityPattern, {
    "type": "string",
    "maxLength": 253,
    "x-kubernetes-validations": [{
        "rule": "self == '*' || self.matches('^([*]\\\\.)?[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?(\\\\.[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)*$')",
        "message": "write a DNS name, or '*.' for one label and the domain it is in, such as '*.branch.example.com'; '*' alone is everyone"
    }]
});

schema_of!(InterfaceName, {
    "type": "string",
    "maxLength": 15,
    "x-kubernetes-validations": [{
        "rule": "self.matches('^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}$') && self != 'all' && self != 'default'",
        "message": "write a name of 1 to 15 letters, digits, '_', '.' or '-', such as dmvpn0 (all and default mean something else to the kernel)"
    }]
});

/// `#[serde(with = "text::duration")]`: `600s`, `10m`, `1h30m`, `500ms`.
pub mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration such as 600s, 10m or 1h30m")))
    }

    /// Writes a duration in the largest unit that is exact.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*duration))
    }

    /// The duration that a text means; `None` if it isn't one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Duration> {
        let mut total = Duration::ZERO;
        let mut rest = text;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().ok()?;
            let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit);
            let part = match unit {
                "h" => Duration::from_secs(number.checked_mul(3600)?),
                "m" => Duration::from_secs(number.checked_mul(60)?),
                "s" => Duration::from_secs(number),
                "ms" => Duration::from_millis(number),
                _ => return None,
            };
            total = total.checked_add(part)?;
            rest = tail;
        }
        Some(total)
    }

    /// The duration as [`parse`] reads it.
    #[must_use]
    pub fn format(duration: Duration) -> String {
        let ms = duration.as_millis();
        if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn durations_read_as_people_write_them() {
            for (text, seconds) in [("600s", 600), ("10m", 600), ("1h30m", 5400), ("0s", 0), ("2h1s", 7201)] {
                assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
            }
            assert_eq!(parse("1s500ms"), Some(Duration::from_millis(1500)));
        }

        #[test]
        fn what_is_not_a_duration_is_refused() {
            for text in ["", "10", "s", "10d", "-1s", "1.5h", "10 s", "99999999999999999999s", "s10"] {
                assert_eq!(parse(text), None, "{text:?}");
            }
        }

        #[test]
        fn a_duration_is_written_as_it_is_read() {
            for ms in [0, 500, 1_000, 61_000, 3_600_000, 3_600_001] {
                let duration = Duration::from_millis(ms);
                assert_eq!(parse(&format(duration)), Some(duration));
            }
        }
    }
}
