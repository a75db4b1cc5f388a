//! Manifests: the YAML that a user would apply, read from a folder, where no API server is. It is held to the same
//! schema: structure, defaults and CEL rules, and what is wrong is said all at once, with what to write instead.

mod document;
mod error;
mod kind;
mod secret;
mod structural;

pub use error::{ManifestError, ManifestErrors, ReadError};
pub use secret::{Secret, SecretError, resolve, resolve_optional};

use crate::{API_VERSION, DmvpnHub, DmvpnNode, DmvpnSpoke, GROUP};
use kind::{HUB, NODE, SPOKE};
use kube_cel::Validator;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Manifests are for people; a folder with more than this in one file is a mistake.
pub const MAX_FILE: u64 = 4 << 20;

/// What a folder says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    /// Hubs, in the order of files and documents.
    pub hubs: Vec<DmvpnHub>,
    /// Spokes.
    pub spokes: Vec<DmvpnSpoke>,
    /// Secrets, by name.
    pub secrets: BTreeMap<String, Secret>,
}

/// Reads every `.yaml`, `.yml` and `.json` file of a folder, by name. Hidden files and sub-folders are left alone
/// (editors and mounted ConfigMaps keep theirs there).
///
/// # Errors
/// If a file can't be read, or with everything that is wrong in any of them.
pub fn read_folder(folder: &Path) -> Result<Manifests, ReadError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        |source| ReadError::Io { path, source }
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let known = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if known && !hidden && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut reader = Reader::new();
    for path in paths {
        let size = std::fs::metadata(&path).map_err(io(&path))?.len();
        let file = path.display().to_string();
        if size > MAX_FILE {
            reader.errors.push(at(
                &file,
                0,
                "",
                "",
                format!("is {size} octets long: no manifest is longer than {MAX_FILE}"),
            ));
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(io(&path))?;
        reader.read(&file, &text);
    }
    Ok(reader.finish()?)
}

/// Reads the documents of one text. `file` is how messages call it.
///
/// # Errors
/// With everything that is wrong.
pub fn read_text(file: &str, text: &str) -> Result<Manifests, ManifestErrors> {
    let mut reader = Reader::new();
    reader.read(file, text);
    reader.finish()
}

/// Would an API server take this node? For tests of whoever makes them.
///
/// # Errors
/// With everything that is wrong.
pub fn check_node(node: &DmvpnNode) -> Result<(), ManifestErrors> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let value = serde_json::to_value(node).unwrap_or_default();
    NODE.check(&Validator::new(), value).map(|_| ()).map_err(|findings| {
        let object = format!("DmvpnNode {name}");
        ManifestErrors(
            findings.into_iter().map(|(field, message)| at(&name, 0, &object, &field, message)).collect(),
        )
    })
}

struct Reader {
    validator: Validator,
    result: Manifests,
    /// Where each object was seen first.
    seen: BTreeMap<String, String>,
    errors: Vec<ManifestError>,
}

impl Reader {
    fn new() -> Self {
        Self {
            validator: Validator::new(),
            result: Manifests::default(),
            seen: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    fn finish(self) -> Result<Manifests, ManifestErrors> {
        if self.errors.is_empty() { Ok(self.result) } else { Err(ManifestErrors(self.errors)) }
    }

    fn read(&mut self, file: &str, text: &str) {
        for document in document::split(text) {
            match document.value {
                Ok(value) => self.object(file, document.line, value),
                Err((line, message)) => {
                    self.errors.push(at(file, line, "", "", format!("is not YAML: {message}")))
                }
            }
        }
    }

    fn object(&mut self, file: &str, line: usize, value: Value) {
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let version = value["apiVersion"].as_str().unwrap_or_default().to_owned();
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let object = [kind.as_str(), name.as_str()].join(" ").trim().to_owned();
        if kind == "List" && version == "v1" {
            if let Some(items) = value["items"].as_array() {
                items.iter().for_each(|item| self.object(file, line, item.clone()));
            }
            return;
        }
        let wrong = |field: &str, message: String| at(file, line, &object, field, message);
        if let Err((field, message)) = check_head(&kind, &version, &name) {
            return self.errors.push(wrong(field, message));
        }
        if let Some(first) = self.seen.insert(object.clone(), format!("{file}:{line}")) {
            return self
                .errors
                .push(wrong("metadata.name", format!("stands at {first} as well: keep one of them")));
        }
        let checked = match kind.as_str() {
            "DmvpnHub" => HUB.read(&self.validator, value).map(|hub| self.result.hubs.push(hub)),
            "DmvpnSpoke" => SPOKE.read(&self.validator, value).map(|spoke| self.result.spokes.push(spoke)),
            _ => secret::read(value).map(|secret| {
                self.result.secrets.insert(name, secret);
            }),
        };
        if let Err(findings) = checked {
            self.errors.extend(findings.into_iter().map(|(field, message)| wrong(&field, message)));
        }
    }
}

fn check_head(kind: &str, version: &str, name: &str) -> Result<(), (&'static str, String)> {
    match (version, kind) {
        (API_VERSION, "DmvpnHub" | "DmvpnSpoke") | ("v1", "Secret") => {}
        (_, "DmvpnNode") => {
            return Err(("kind", "is made from hubs and spokes: write a DmvpnHub or DmvpnSpoke".to_owned()));
        }
        (_, "DmvpnHub" | "DmvpnSpoke") => {
            return Err(("apiVersion", format!("is {version:?}: write {API_VERSION}")));
        }
        (_, "Secret") => return Err(("apiVersion", format!("is {version:?}: write v1"))),
        (_, "") => return Err(("kind", "is missing: write DmvpnHub, DmvpnSpoke or Secret".to_owned())),
        (version, kind) => {
            let close = structural::nearest(kind, ["DmvpnHub", "DmvpnSpoke", "Secret"].into_iter());
            return Err((
                "kind",
                match close {
                    Some(close) => format!("is {kind}: did you mean {close}?"),
                    None if version.starts_with(GROUP) => format!("is {kind}: write DmvpnHub or DmvpnSpoke"),
                    None => format!("is {kind}, which only Kubernetes reads: move it out of this folder"),
                },
            ));
        }
    }
    if !is_dns_name(name) {
        return Err((
            "metadata.name",
            if name.is_empty() {
                "is missing: write a name".to_owned()
            } else {
                format!(
                    "is {name:?}: write lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
                )
            },
        ));
    }
    Ok(())
}

/// Is this a DNS subdomain name, as Kubernetes wants names (RFC 1123, lower case)?
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn at(file: &str, line: usize, object: &str, field: &str, message: String) -> ManifestError {
    ManifestError { file: file.to_owned(), line, object: object.to_owned(), field: field.to_owned(), message }
}
