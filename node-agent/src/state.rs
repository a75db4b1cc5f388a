//! What survives a restart of the machine's agent, in the state directory: which interfaces were ever made, and how
//! far NHRP request IDs were used.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Request IDs are reserved by the thousand, so that the file is not written for each.
const RESERVE: u32 = 4096;

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Makes the directory if need be.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path.join("tunnels"))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers that this interface is ours. Done before it is made.
    pub fn remember_interface(&self, interface: &str) -> io::Result<()> {
        let file = self.tunnel_file(interface);
        if file.exists() { Ok(()) } else { fs::write(file, "0") }
    }

    /// Forgets it.
    pub fn forget_interface(&self, interface: &str) -> io::Result<()> {
        match fs::remove_file(self.tunnel_file(interface)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Every interface that was ever made and not forgotten.
    pub fn interfaces(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.path.join("tunnels"))?;
        entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The request IDs of one tunnel.
    #[must_use]
    pub fn request_ids(&self, interface: &str) -> RequestIds {
        let file = self.tunnel_file(interface);
        let reserved = fs::read_to_string(&file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        RequestIds { file, reserved }
    }

    fn tunnel_file(&self, interface: &str) -> PathBuf {
        self.path.join("tunnels").join(interface)
    }
}

/// Keeps request IDs from being used twice (RFC 2332 §5.2.3), whatever happens to the process.
#[derive(Debug)]
pub struct RequestIds {
    file: PathBuf,
    /// Every ID before this one may have been used.
    reserved: u32,
}

impl RequestIds {
    /// The first ID that was certainly never used.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.reserved
    }

    /// The engine has come to this ID: reserves more when the reserve gets short. Numbers wrap around.
    pub fn used(&mut self, id: u32) {
        let left = self.reserved.wrapping_sub(id);
        if (RESERVE / 2..=RESERVE).contains(&left) {
            return;
        }
        let reserved = id.wrapping_add(RESERVE);
        match fs::write(&self.file, reserved.to_string()) {
            Ok(()) => self.reserved = reserved,
            Err(error) => {
                tracing::warn!(%error, file = %self.file.display(), "cannot keep the NHRP request ID")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_id_is_used_twice_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut ids = state.request_ids("dmvpn0");
        let first = ids.first();
        ids.used(first);
        ids.used(first.wrapping_add(3000));
        assert!(state.request_ids("dmvpn0").first() > first + 3000);
    }

    #[test]
    fn request_ids_wrap_around() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut ids = state.request_ids("dmvpn0");
        ids.used(u32::MAX - 5);
        assert_eq!(state.request_ids("dmvpn0").first(), RESERVE - 6);
    }

    #[test]
    fn interfaces_are_remembered_until_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.remember_interface("dmvpn1").unwrap();
        assert_eq!(state.interfaces().unwrap(), ["dmvpn1"]);
        state.forget_interface("dmvpn1").unwrap();
        state.forget_interface("dmvpn1").unwrap();
        assert!(state.interfaces().unwrap().is_empty());
    }
}
