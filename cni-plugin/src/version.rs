//! Versions of the CNI specification.

use serde_json::{Value, json};

/// A version this plugin speaks. Those before 0.3.0 know no chains; the default configurations of several network
/// plugins still say 0.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    #[default]
    V1_1_0,
}

const ALL: [(Version, &str); 5] = [
    (Version::V0_3_0, "0.3.0"),
    (Version::V0_3_1, "0.3.1"),
    (Version::V0_4_0, "0.4.0"),
    (Version::V1_0_0, "1.0.0"),
    (Version::V1_1_0, "1.1.0"),
];

impl Version {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        ALL.iter().find(|(_, name)| *name == text).map(|(version, _)| *version)
    }

    pub(crate) fn as_str(self) -> &'static str {
        ALL.iter().find(|(version, _)| *version == self).map_or("1.1.0", |(_, name)| name)
    }

    pub(crate) fn supported() -> [&'static str; 5] {
        ALL.map(|(_, name)| name)
    }

    /// Is there CHECK?
    pub(crate) fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Are there GC and STATUS, and MTUs in results?
    pub(crate) fn is_1_1(self) -> bool {
        self >= Self::V1_1_0
    }
}

/// The answer to VERSION.
//= cni-1.1.0#section-5: `cniVersion`: The value of `cniVersion` specified on input
pub(crate) fn report(said: &str) -> Value {
    let said = if said.is_empty() { Version::default().as_str() } else { said };
    json!({"cniVersion": said, "supportedVersions": Version::supported()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_they_were_released() {
        assert!(!Version::V0_3_1.has_check() && Version::V0_4_0.has_check());
        assert!(!Version::V1_0_0.is_1_1() && Version::V1_1_0.is_1_1());
    }

    #[test]
    fn the_report_says_the_version_that_was_asked_in() {
        assert_eq!(report("1.0.0")["cniVersion"], "1.0.0");
        assert_eq!(
            report("0.4.0")["supportedVersions"],
            json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }

    #[test]
    fn a_version_that_does_not_exist_is_none() {
        assert_eq!(Version::parse("1.1"), None);
        assert_eq!(Version::parse("2.0.0"), None);
        assert_eq!(Version::parse("0.2.0"), None);
    }
}
