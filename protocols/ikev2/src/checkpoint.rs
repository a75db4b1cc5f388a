//! What outlives the control process: sessions that are established, with all that they wait for.
//!
//! It is opaque, full of secrets, and kept in memory only by whoever holds it. Half-open sessions and handshakes of
//! ours are not in it: they begin again.

use crate::endpoint::Endpoint;
use crate::endpoint::paths::PathState;
use crate::session::established::Established;
use crate::session::{Base, Id, Session, State};
use crate::settings::ConfigError;
use crate::{Config, Credentials};
use claims::Identity;
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who was told to be at a path.
#[derive(Serialize, Deserialize)]
enum Up {
    Nobody,
    /// The peer of a session, which is as a rule: its certificates are not written down twice.
    PeerOf(Id),
    Other(Identity),
}

/// An endpoint, written down. Moments in it are of the host's monotonic clock.
#[derive(Serialize, Deserialize)]
pub struct Checkpoint {
    sessions: Vec<(Base, Established)>,
    paths: Vec<(Path, Option<String>, Up)>,
    met: BTreeSet<String>,
    draining: BTreeSet<(Instant, u32)>,
    next_id: u64,
}

impl Endpoint {
    /// All that a successor needs to go on with. Take it after draining events and datagrams.
    #[must_use]
    pub fn checkpoint(&self) -> impl Serialize + '_ {
        CheckpointRef {
            sessions: self
                .sessions
                .values()
                .filter_map(|s| match &s.state {
                    State::Established(established) => Some((&s.base, established.as_ref())),
                    _ => None,
                })
                .collect(),
            paths: self.paths.iter().map(|(path, p)| (*path, p.expect.as_ref(), self.up(p))).collect(),
            met: &self.met,
            draining: &self.draining,
            next_id: self.next_id,
        }
    }

    fn up(&self, path: &PathState) -> Up {
        let Some(up) = &path.up else { return Up::Nobody };
        let is_peer_of = |id: &Id| {
            let session = self.sessions.get(id).map(|session| &session.state);
            matches!(session, Some(State::Established(established)) if established.identity == *up)
        };
        let session = path.sessions.iter().copied().find(is_peer_of);
        session.map_or_else(|| Up::Other(up.clone()), Up::PeerOf)
    }

    /// Goes on where another endpoint was. The peers may have had one more exchange than it remembers: the first thing
    /// each of them is asked is whether it lives, which is harmless whatever it is answered with.
    ///
    /// # Errors
    /// A proposal has no meaning.
    pub fn restore(
        checkpoint: Checkpoint,
        config: Config,
        credentials: Arc<dyn Credentials>,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let mut endpoint = Self::new(config, credentials, seed, now)?;
        endpoint.met = checkpoint.met;
        endpoint.draining = checkpoint.draining;
        endpoint.next_id = checkpoint.next_id;
        let peers: BTreeMap<Id, &Identity> =
            checkpoint.sessions.iter().map(|(base, established)| (base.id, &established.identity)).collect();
        for (path, expect, up) in checkpoint.paths {
            let state = endpoint.paths.entry(path).or_default();
            state.expect = expect;
            state.up = match up {
                Up::Nobody => None,
                Up::Other(identity) => Some(identity),
                Up::PeerOf(id) => peers.get(&id).map(|identity| (*identity).clone()),
            };
        }
        for (base, mut established) in checkpoint.sessions {
            established.resume();
            endpoint.adopt(now, Session { base, state: State::Established(Box::new(established)) });
        }
        Ok(endpoint)
    }
}

/// As [`Checkpoint`], without copying secrets.
#[derive(Serialize)]
struct CheckpointRef<'a> {
    sessions: Vec<(&'a Base, &'a Established)>,
    paths: Vec<(Path, Option<&'a String>, Up)>,
    met: &'a BTreeSet<String>,
    draining: &'a BTreeSet<(Instant, u32)>,
    next_id: u64,
}
