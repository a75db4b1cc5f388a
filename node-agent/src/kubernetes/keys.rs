//! A node's certificate and key for one tunnel, in a folder of its own. The key is made here and leaves never.
//!
//! A renewal makes a new key. Until its certificate is there, it lies beside the one in use (`next.key`, `next.csr`). Both
//! change places one file after another; `next.crt` says that this has begun, and a start finishes it.

use super::file::{remove, replace};
use identity::pki::{Claims, Described, Request, describe};
use ikev2::CertificateError;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The certificate, and those between it and a root.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// Its key.
const KEY: &str = "tls.key";
/// What the certificate was asked for with.
const REQUEST: &str = "tls.csr";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const NEXT_REQUEST: &str = "next.csr";

/// The folder.
#[derive(Debug)]
pub(super) struct Keys {
    folder: PathBuf,
}

/// What can go wrong with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{}", .0.0)]
    Certificate(CertificateError),
}

impl From<CertificateError> for KeysError {
    fn from(error: CertificateError) -> Self {
        Self::Certificate(error)
    }
}

/// The certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// What it was asked for.
    pub(super) asked: Claims,
    /// Its first and last second, since 1970.
    pub(super) validity: (u64, u64),
    /// When this node got it: its first second is earlier, and says nothing.
    pub(super) obtained: u64,
    /// Why nobody with the roots that we know would believe it.
    pub(super) refused: Option<String>,
}

impl Keys {
    /// Makes the folder if need be.
    pub(super) fn open(folder: &Path) -> Result<Self, KeysError> {
        let keys = Self { folder: folder.to_owned() };
        let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(folder);
        made.map_err(|e| KeysError::Io(folder.to_owned(), e))?;
        if keys.path(NEXT_CERTIFICATE).exists() {
            keys.change_places()?;
        }
        Ok(keys)
    }

    /// The certificate in use, as it is judged by these roots and lists of revoked certificates at `now`. `None`: there is
    /// none that could be used.
    pub(super) fn held(&self, (roots, lists): (&[u8], &[u8]), now: u64) -> Option<Held> {
        let (chain, key) = (self.read(CERTIFICATE).ok()?, self.read(KEY).ok()?);
        let asked = Request::from_pem(&self.read(REQUEST).ok()?).ok()?.claims;
        let validity = describe(&chain).ok()?.into_iter().find_map(|described| match described {
            Described::Certificate(own) => Some(own.validity),
            _ => None,
        })?;
        let written = std::fs::metadata(self.path(CERTIFICATE)).and_then(|file| file.modified()).ok()?;
        let obtained = written.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let certificates = identity::Certificates::new(&chain, &key, roots, lists);
        let refused = certificates.and_then(|made| made.own_identity(now)).err().map(|error| error.0);
        Some(Held { asked, validity, obtained, refused })
    }

    /// A request, in PEM, with a key that was made for it: now, or by an agent that asked for the same and did not live to
    /// see the answer.
    pub(super) fn request(&self, claims: &Claims) -> Result<String, KeysError> {
        if let (Ok(request), true) = (self.read(NEXT_REQUEST), self.path(NEXT_KEY).exists())
            && let Ok(asked) = Request::from_pem(&request)
            && same(&asked.claims, claims)
            && let Ok(text) = String::from_utf8(request.to_vec())
        {
            return Ok(text);
        }
        self.discard()?;
        let (request, key) = Request::make(claims)?;
        self.write(NEXT_KEY, key.as_bytes())?;
        self.write(NEXT_REQUEST, request.as_bytes())?;
        Ok(request)
    }

    /// Takes the certificate that was issued for the last request.
    pub(super) fn accept(&self, chain: &[u8], (roots, lists): (&[u8], &[u8])) -> Result<(), KeysError> {
        let key = self.read(NEXT_KEY)?;
        identity::Certificates::new(chain, &key, roots, lists)?;
        self.write(NEXT_CERTIFICATE, chain)?;
        self.change_places()
    }

    /// Forgets the last request and its key.
    pub(super) fn discard(&self) -> Result<(), KeysError> {
        for name in [NEXT_REQUEST, NEXT_KEY] {
            remove(&self.path(name)).map_err(|e| KeysError::Io(self.path(name), e))?;
        }
        Ok(())
    }

    fn change_places(&self) -> Result<(), KeysError> {
        // The certificate last: while it is there, this is not finished.
        for (from, to) in [(NEXT_KEY, KEY), (NEXT_REQUEST, REQUEST), (NEXT_CERTIFICATE, CERTIFICATE)] {
            match std::fs::rename(self.path(from), self.path(to)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(KeysError::Io(self.path(from), e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<zeroize::Zeroizing<Vec<u8>>, KeysError> {
        let path = self.path(name);
        std::fs::read(&path).map(zeroize::Zeroizing::new).map_err(|e| KeysError::Io(path, e))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), KeysError> {
        let path = self.path(name);
        replace(&path, content).map_err(|e| KeysError::Io(path, e))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Do they ask for the same? A request may write prefixes that lie side by side as one.
pub(super) fn same(one: &Claims, other: &Claims) -> bool {
    let plain = |claims: &Claims| {
        let Claims { name, tunnel_addresses, prefixes } = claims;
        let mut addresses = tunnel_addresses.clone();
        addresses.sort_unstable();
        let mut prefixes = ipnet::IpNet::aggregate(prefixes);
        prefixes.sort_unstable();
        (name.to_ascii_lowercase(), addresses, prefixes)
    };
    plain(one) == plain(other)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use identity::pki::{Authority, Validity};
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: u64 = 1_800_000_000;

    pub(crate) fn claims(prefixes: &[&str]) -> Claims {
        Claims {
            name: "a-1.example.com".to_owned(),
            tunnel_addresses: vec!["10.200.16.1".parse().unwrap()],
            prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
        }
    }

    fn sign(root: &Authority, request: &str) -> String {
        let request = Request::from_pem(request.as_bytes()).unwrap();
        let validity = Validity { not_before: NOW - 10, not_after: NOW + 3600 };
        root.sign(&request, &request.claims, validity).unwrap()
    }

    fn root() -> Authority {
        Authority::root("root", Validity { not_before: NOW - 100, not_after: NOW + 100_000 }).unwrap()
    }

    #[test]
    fn a_key_is_made_here_and_used_when_its_certificate_comes() {
        let (dir, root) = (tempfile::tempdir().unwrap(), root());
        let (folder, chain) = (dir.path().join("site"), root.chain_pem());
        let trust = (chain.as_bytes(), &b""[..]);
        let keys = Keys::open(&folder).unwrap();
        assert_eq!(keys.held(trust, NOW), None);
        let request = keys.request(&claims(&["10.1.0.0/24"])).unwrap();
        keys.accept(sign(&root, &request).as_bytes(), trust).unwrap();
        let held = keys.held(trust, NOW).unwrap();
        assert_eq!((held.refused, held.validity), (None, (NOW - 10, NOW + 3600)));
        let modes = [&folder, &folder.join(KEY)].map(|p| std::fs::metadata(p).unwrap().permissions().mode());
        assert_eq!(modes.map(|mode| mode & 0o777), [0o700, 0o600]);
    }

    #[test]
    fn an_agent_that_was_killed_asks_again_with_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = claims(&["10.1.0.0/24", "10.1.1.0/24"]);
        let before = Keys::open(dir.path()).unwrap().request(&wanted).unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        assert_eq!(keys.request(&wanted).unwrap(), before);
        assert_ne!(keys.request(&claims(&[])).unwrap(), before);
    }

    #[test]
    fn an_agent_that_was_killed_while_files_changed_places_finishes_that() {
        let (dir, root) = (tempfile::tempdir().unwrap(), root());
        let chain = root.chain_pem();
        let trust = (chain.as_bytes(), &b""[..]);
        let keys = Keys::open(dir.path()).unwrap();
        let first = keys.request(&claims(&[])).unwrap();
        keys.accept(sign(&root, &first).as_bytes(), trust).unwrap();
        let second = keys.request(&claims(&["10.1.0.0/24"])).unwrap();
        keys.write(NEXT_CERTIFICATE, sign(&root, &second).as_bytes()).unwrap();
        std::fs::rename(keys.path(NEXT_KEY), keys.path(KEY)).unwrap();
        let held = Keys::open(dir.path()).unwrap().held(trust, NOW).unwrap();
        assert!(held.refused.is_none() && same(&held.asked, &claims(&["10.1.0.0/24"])));
    }

    #[test]
    fn a_certificate_of_another_key_is_not_taken() {
        let (dir, root) = (tempfile::tempdir().unwrap(), root());
        let chain = root.chain_pem();
        let trust = (chain.as_bytes(), &b""[..]);
        let keys = Keys::open(dir.path()).unwrap();
        let (other, _) = Request::make(&claims(&[])).unwrap();
        keys.request(&claims(&[])).unwrap();
        let refused = keys.accept(sign(&root, &other).as_bytes(), trust);
        assert!(matches!(refused, Err(KeysError::Certificate(_))));
        assert_eq!(keys.held(trust, NOW), None);
    }
}
