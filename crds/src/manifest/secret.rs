//! Secrets as manifests, so that the same YAML works without Kubernetes.

use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use std::collections::BTreeMap;
use std::fmt;

/// The values of a Secret. They are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    entries: BTreeMap<String, Vec<u8>>,
}

impl Secret {
    /// A Secret of these entries.
    #[must_use]
    pub fn new(name: impl Into<String>, entries: BTreeMap<String, Vec<u8>>) -> Self {
        Self { name: name.into(), entries }
    }

    /// The value of an entry.
    #[must_use]
    pub fn get(&self, entry: &str) -> Option<&[u8]> {
        self.entries.get(entry).map(Vec::as_slice)
    }

    /// Names of the entries.
    pub fn entry_names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

impl From<KubernetesSecret> for Secret {
    /// As the API server stores it: `stringData` wins over `data`.
    fn from(secret: KubernetesSecret) -> Self {
        let mut entries: BTreeMap<String, Vec<u8>> =
            secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect();
        entries.extend(
            secret.string_data.unwrap_or_default().into_iter().map(|(name, text)| (name, text.into_bytes())),
        );
        Self { name: secret.metadata.name.unwrap_or_default(), entries }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).field("entries", &self.entries.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("psk", BTreeMap::from([("psk".to_owned(), b"hunter2".to_vec())]));
        let text = format!("{secret:?}");
        assert!(text.contains("psk") && !text.contains("hunter2") && !text.contains("104"), "{text}");
    }
}
