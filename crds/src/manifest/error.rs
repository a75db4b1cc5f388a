//! What is wrong in a manifest, and where.

use std::fmt;
use std::path::PathBuf;

/// One mistake, in words that say what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The file, or whatever the text came from.
    pub file: String,
    /// Line on which the document begins (or, for what isn't YAML, the line of the mistake); 0 if it is the file's.
    pub line: usize,
    /// Kind and name of the object, as far as they are known.
    pub object: String,
    /// Path of the field, such as `spec.hubs[0].address`; empty if it is about the whole object.
    pub field: String,
    /// What is wrong, and what to write.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.object.is_empty() {
            write!(f, ": {}", self.object)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ManifestError {}

/// All mistakes found; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ManifestErrors(pub Vec<ManifestError>);

fn lines(errors: &[ManifestError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Why a folder of manifests could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The folder or a file in it can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in them is wrong.
    #[error(transparent)]
    Invalid(#[from] ManifestErrors),
}
