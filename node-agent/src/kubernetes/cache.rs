//! What the API server said last, kept on the node: so that an agent that starts while nobody answers, or after a
//! reboot, has what it needs. There are secrets in it: only root may read it.

use super::file;
use crds::DmvpnNodeSpec;
use crds::manifest::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Of the file's layout. Another one's file is not read.
const VERSION: u32 = 1;

/// What was last known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    /// The node's own specification and its generation; `None`: it has none.
    pub(super) desired: Option<Desired>,
    /// The Secrets it names.
    pub(super) secrets: BTreeMap<String, Secret>,
}

/// What the node is to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Desired {
    pub(super) generation: i64,
    pub(super) spec: DmvpnNodeSpec,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// A state directory that was copied to another machine must not make that a second node of this name.
    node: String,
    desired: Option<Desired>,
    secrets: BTreeMap<String, BTreeMap<String, Zeroizing<Vec<u8>>>>,
}

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    path: PathBuf,
    node: String,
}

impl Cache {
    pub(super) fn new(state_dir: &Path, node: &str) -> Self {
        Self { path: state_dir.join("kubernetes.json"), node: node.to_owned() }
    }

    /// What was kept; `None`: nothing, or nothing of this node's.
    pub(super) fn load(&self) -> Option<Known> {
        let text = Zeroizing::new(std::fs::read(&self.path).ok()?);
        let stored: Stored = match serde_json::from_slice(&text) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "what was kept can't be read");
                return None;
            }
        };
        let Stored { version, node, desired, secrets } = stored;
        if version != VERSION || node != self.node {
            return None;
        }
        let secret = |(name, entries): (String, BTreeMap<String, Zeroizing<Vec<u8>>>)| {
            let entries = entries.into_iter().map(|(entry, value)| (entry, value.to_vec())).collect();
            (name.clone(), Secret::new(name, entries))
        };
        Some(Known { desired, secrets: secrets.into_iter().map(secret).collect() })
    }

    /// Keeps it, whole or not at all.
    pub(super) fn store(&self, known: &Known) -> io::Result<()> {
        let Known { desired, secrets } = known;
        let entries = |secret: &Secret| {
            let names = secret.entry_names();
            names
                .filter_map(|name| Some((name.to_owned(), Zeroizing::new(secret.get(name)?.to_vec()))))
                .collect()
        };
        let stored = Stored {
            version: VERSION,
            node: self.node.clone(),
            desired: desired.clone(),
            secrets: secrets.iter().map(|(name, secret)| (name.clone(), entries(secret))).collect(),
        };
        let text = Zeroizing::new(serde_json::to_vec(&stored)?);
        file::replace(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn known() -> Known {
        let psk = Secret::new("psk", BTreeMap::from([("psk".to_owned(), b"hunter2".to_vec())]));
        Known {
            desired: Some(Desired { generation: 7, spec: DmvpnNodeSpec::default() }),
            secrets: BTreeMap::from([("psk".to_owned(), psk)]),
        }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_for_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), "a-1");
        cache.store(&known()).unwrap();
        assert_eq!(cache.load(), Some(known()));
        assert_eq!(std::fs::metadata(&cache.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_nodes_state_is_not_taken_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        Cache::new(dir.path(), "a-1").store(&known()).unwrap();
        assert_eq!(Cache::new(dir.path(), "a-2").load(), None);
    }

    #[test]
    fn a_file_that_was_cut_off_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), "a-1");
        std::fs::write(&cache.path, "{\"version\":1,").unwrap();
        assert_eq!(cache.load(), None);
    }
}
