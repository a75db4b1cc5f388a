//! Secrets as manifests, so that the same YAML works without Kubernetes.

use super::kind::typed;
use super::structural::{self, Finding};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// The values of a Secret. They are never printed, and leave nothing in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    entries: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl Secret {
    /// A Secret of these entries.
    #[must_use]
    pub fn new(name: impl Into<String>, entries: BTreeMap<String, Vec<u8>>) -> Self {
        let entries = entries.into_iter().map(|(name, value)| (name, Zeroizing::new(value)));
        Self { name: name.into(), entries: entries.collect() }
    }

    /// The value of an entry.
    #[must_use]
    pub fn get(&self, entry: &str) -> Option<&[u8]> {
        self.entries.get(entry).map(|value| value.as_slice())
    }

    /// Names of the entries.
    pub fn entry_names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

/// Why a secret value is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such Secret.
    #[error("Secret {0} is not among the manifests: add it, or write file:/path")]
    Missing(String),
    /// It lacks the entry.
    #[error("Secret {secret} has no entry {entry}: add {entry} to its stringData")]
    NoEntry {
        /// The Secret.
        secret: String,
        /// The entry.
        entry: String,
    },
    /// `file:` and a path that can't be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The value that a reference (`name`, or `file:/path`) means: the Secret's `entry`; all of the file; or, where the
/// path is a folder (as a mounted Secret is), the file in it that has the entry's name. A final line break is no part
/// of a key: editors add it unasked. PEM doesn't mind.
///
/// # Errors
/// If there is no such Secret, entry or file.
pub fn resolve(
    secrets: &BTreeMap<String, Secret>,
    reference: &str,
    entry: &str,
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut value = if let Some(path) = reference.strip_prefix("file:") {
        let path = if Path::new(path).is_dir() { Path::new(path).join(entry) } else { path.into() };
        let unreadable = |source| SecretError::File { path: path.display().to_string(), source };
        Zeroizing::new(std::fs::read(&path).map_err(unreadable)?)
    } else {
        let secret = secrets.get(reference).ok_or_else(|| SecretError::Missing(reference.to_owned()))?;
        let missing = || SecretError::NoEntry { secret: reference.to_owned(), entry: entry.to_owned() };
        Zeroizing::new(secret.get(entry).ok_or_else(missing)?.to_vec())
    };
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    if value.last() == Some(&b'\r') {
        value.pop();
    }
    Ok(value)
}

/// As [`resolve`], of an entry that may be missing; the Secret, or the folder, may not.
///
/// # Errors
/// If there is no such Secret, or the file is there and can't be read.
pub fn resolve_optional(
    secrets: &BTreeMap<String, Secret>,
    reference: &str,
    entry: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>, SecretError> {
    match resolve(secrets, reference, entry) {
        Ok(value) => Ok(Some(value)),
        Err(SecretError::NoEntry { .. }) => Ok(None),
        Err(SecretError::File { path, source }) if source.kind() == std::io::ErrorKind::NotFound => {
            // Only the file is optional: a mistake in the folder's name must not make revocations ineffective.
            let folder = reference.strip_prefix("file:").map(Path::new);
            if folder.is_some() && Path::new(&path).parent() == folder {
                Ok(None)
            } else {
                Err(SecretError::File { path, source })
            }
        }
        Err(error) => Err(error),
    }
}

/// Reads a Secret's manifest.
pub(super) fn read(value: Value) -> Result<Secret, Vec<Finding>> {
    let schema = json!({"type": "object", "properties": {
        "apiVersion": {}, "kind": {}, "metadata": {}, "status": {},
        "type": {"type": "string"},
        "immutable": {"type": "boolean"},
        "data": {"type": "object", "additionalProperties": {"type": "string"}},
        "stringData": {"type": "object", "additionalProperties": {"type": "string"}},
    }});
    let mut findings = Vec::new();
    structural::check(&schema, &value, "", &mut findings);
    for (entry, text) in value["data"].as_object().into_iter().flatten() {
        if text.is_string() && serde_json::from_value::<ByteString>(text.clone()).is_err() {
            findings.push((
                format!("data.{entry}"),
                "is not base64: encode it, or write it under stringData".to_owned(),
            ));
        }
    }
    if findings.is_empty() { typed::<KubernetesSecret>(value).map(Secret::from) } else { Err(findings) }
}

impl From<KubernetesSecret> for Secret {
    /// As the API server stores it: `stringData` wins over `data`.
    fn from(secret: KubernetesSecret) -> Self {
        let mut entries: BTreeMap<String, Vec<u8>> =
            secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect();
        entries.extend(
            secret.string_data.unwrap_or_default().into_iter().map(|(name, text)| (name, text.into_bytes())),
        );
        Self::new(secret.metadata.name.unwrap_or_default(), entries)
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

    #[test]
    fn a_reference_is_a_secret_or_a_file() {
        let secrets = BTreeMap::from([(
            "psk".to_owned(),
            Secret::new("psk", BTreeMap::from([("psk".to_owned(), b"hunter2\n".to_vec())])),
        )]);
        assert_eq!(*resolve(&secrets, "psk", "psk").unwrap(), b"hunter2");
        assert!(matches!(resolve(&secrets, "psk", "key"), Err(SecretError::NoEntry { .. })));
        assert!(matches!(resolve(&secrets, "other", "psk"), Err(SecretError::Missing(_))));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter3\r\n").unwrap();
        let reference = format!("file:{}", file.path().display());
        assert_eq!(*resolve(&secrets, &reference, "psk").unwrap(), b"hunter3");
        assert!(matches!(resolve(&secrets, "file:/nonexistent/x", "psk"), Err(SecretError::File { .. })));
    }

    #[test]
    fn a_folder_stands_for_a_secret_as_one_is_mounted() {
        let (secrets, folder) = (BTreeMap::new(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("ca.crt"), "roots").unwrap();
        let reference = format!("file:{}", folder.path().display());
        assert_eq!(*resolve(&secrets, &reference, "ca.crt").unwrap(), b"roots");
        assert!(resolve_optional(&secrets, &reference, "crl.pem").unwrap().is_none());
        let elsewhere = format!("{reference}/nothing");
        assert!(matches!(resolve_optional(&secrets, &elsewhere, "crl.pem"), Err(SecretError::File { .. })));
    }
}
