//! What outlives the control process: sessions that are established, with all that they wait for.
//!
//! It is opaque, full of secrets, and kept in memory only by whoever holds it. Half-open sessions and handshakes of
//! ours are not in it: they begin again.

use crate::endpoint::Endpoint;
use crate::session::established::Established;
use crate::session::{Base, Session, State};
use crate::settings::ConfigError;
use crate::{Config, Credentials};
use claims::Identity;
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// An endpoint, written down. Moments in it are of the host's monotonic clock.
#[derive(Serialize, Deserialize)]
pub struct Checkpoint {
    sessions: Vec<(Base, Established)>,
    paths: Vec<(Path, Option<String>, Option<Identity>)>,
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
            paths: self.paths.iter().map(|(path, p)| (*path, p.expect.as_ref(), p.up.as_ref())).collect(),
            met: &self.met,
            draining: &self.draining,
            next_id: self.next_id,
        }
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
        for (path, expect, up) in checkpoint.paths {
            let state = endpoint.paths.entry(path).or_default();
            state.expect = expect;
            state.up = up;
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
    paths: Vec<(Path, Option<&'a String>, Option<&'a Identity>)>,
    met: &'a BTreeSet<String>,
    draining: &'a BTreeSet<(Instant, u32)>,
    next_id: u64,
}
