//! Files of the PKI: written whole or not at all, keys readable by their owner alone and never replaced unasked.

use super::args::Output;
use crate::error::Error;
use identity::pki::{Authority, Revoked};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A folder with `tls.crt`, `tls.key` and so on.
pub(super) struct Folder(PathBuf);

/// A certificate that was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Issued {
    /// Hexadecimal.
    pub(super) serial: String,
    /// Whose, for people.
    pub(super) name: String,
    /// Since when, seconds since 1970.
    pub(super) since: u64,
}

/// `revoked.json`: what the next list must name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct RevokedState {
    /// Number of the last list.
    pub(super) number: u64,
    pub(super) revoked: Vec<Issued>,
}

impl Folder {
    /// The folder to write into, made if it isn't there.
    pub(super) fn create(output: &Output, name: &str) -> Result<Self, Error> {
        let path = output.out.clone().unwrap_or_else(|| file_name(name).into());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|e| wrong("make", &path, &e))?;
        Ok(Self(path))
    }

    /// A CA's folder.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if !path.join("tls.key").is_file() {
            return Err(Error::Pki(format!(
                "{} is no folder of a CA: it has no tls.key; `dmvpnctl pki root` and `pki intermediate` make them",
                path.display()
            )));
        }
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(super) fn shown(&self) -> String {
        self.0.display().to_string()
    }

    pub(super) fn absolute(&self) -> String {
        fs::canonicalize(&self.0).unwrap_or_else(|_| self.0.clone()).display().to_string()
    }

    pub(super) fn read(&self, file: &str) -> Result<String, Error> {
        read(&self.path(file))
    }

    /// Writes what everybody may read.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<(), Error> {
        replace(&self.path(file), text.as_bytes(), 0o644)
    }

    /// Writes what nobody else may read.
    pub(super) fn write_private(&self, file: &str, text: &str) -> Result<(), Error> {
        replace(&self.path(file), text.as_bytes(), 0o600)
    }

    pub(super) fn write_key(&self, key: &str, force: bool) -> Result<(), Error> {
        let path = self.path("tls.key");
        if path.exists() && !force {
            return Err(Error::Pki(format!(
                "{} is there already, and a lost key cannot be made again: name another folder (--out), or replace it \
                 (--force)",
                path.display()
            )));
        }
        replace(&path, key.as_bytes(), 0o600)
    }

    pub(super) fn authority(&self) -> Result<Authority, Error> {
        Ok(Authority::from_pem(self.read("tls.crt")?.as_bytes(), self.read("tls.key")?.as_bytes())?)
    }

    /// Keeps a copy of what was issued, so that it can be revoked when its node is gone.
    pub(super) fn remember_issued(&self, name: &str, chain: &str) -> Result<(), Error> {
        let folder = self.path("issued");
        fs::create_dir_all(&folder).map_err(|e| wrong("make", &folder, &e))?;
        let name = file_name(name);
        let free = (1u32..).map(|n| folder.join(format!("{name}-{n}.crt"))).find(|path| !path.exists());
        free.map_or(Ok(()), |path| replace(&path, chain.as_bytes(), 0o644))
    }

    pub(super) fn revoked(&self) -> Result<RevokedState, Error> {
        match fs::read_to_string(self.path("revoked.json")) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| {
                Error::Pki(format!("{} cannot be read: {e}", self.path("revoked.json").display()))
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(RevokedState::default()),
            Err(e) => Err(wrong("read", &self.path("revoked.json"), &e)),
        }
    }

    pub(super) fn write_revoked(&self, state: &RevokedState) -> Result<(), Error> {
        self.write("revoked.json", &format!("{}\n", serde_json::to_string_pretty(state)?))
    }
}

impl Issued {
    pub(super) fn to_pki(&self) -> Result<Revoked, Error> {
        let digits: Option<Vec<u8>> =
            self.serial.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        let serial = digits.filter(|d| (1..=40).contains(&d.len())).map(|digits| {
            // From the end, since the first octet may have but one digit.
            let mut octets: Vec<u8> = digits
                .rchunks(2)
                .map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | digit))
                .collect();
            octets.reverse();
            octets
        });
        let serial = serial.ok_or_else(|| {
            Error::Pki(format!(
                "`{}` is neither a file nor a serial number: `dmvpnctl pki show FILE` shows it",
                self.serial
            ))
        })?;
        Ok(Revoked { serial, since: self.since })
    }
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|e| wrong("read", path, &e))
}

/// Writes beside, then renames: nobody ever sees half a file, and a key is never readable for a moment.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&beside);
        wrong("write", path, &e)
    })
}

/// A name as a file's: nothing that would lead out of the folder.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

fn wrong(verb: &str, path: &Path, error: &io::Error) -> Error {
    Error::Pki(format!("cannot {verb} {}: {error}", path.display()))
}
