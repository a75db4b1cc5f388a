//! What became of handshakes, for `diagnose` and metrics: counts since the start, and the last failure of each path.

use dmvpn::Event;
use ikev2::Failure;
use packet::{Instant, Path};
use std::collections::BTreeMap;
use std::time::Duration;

/// Paths whose failure is remembered; strangers can have many.
const MAX_PATHS: usize = 64;
/// And for how long.
const MEMORY: Duration = Duration::from_secs(600);

/// What became of handshakes.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    /// Sessions that came up.
    pub up: u64,
    /// Sessions that ended, by reason in a word.
    pub ended: BTreeMap<&'static str, u64>,
    /// Handshakes that came to nothing, by reason in a word.
    pub failed: BTreeMap<&'static str, u64>,
    /// The last of each path, until it succeeds.
    last: BTreeMap<Path, FailedHandshake>,
}

/// A handshake that came to nothing, or a session that ended against our will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedHandshake {
    /// When.
    pub at: Instant,
    /// With whom, or with which stranger.
    pub path: Path,
    /// Did we begin?
    pub initiator: bool,
    /// Why.
    pub reason: Failure,
}

impl Handshakes {
    /// Takes an event of the engine's.
    pub fn note(&mut self, now: Instant, event: &Event) {
        match event {
            Event::SessionUp { path, .. } => {
                self.up += 1;
                self.last.remove(path);
            }
            Event::SessionDown { path, reason } => {
                *self.ended.entry(word(reason)).or_default() += 1;
                if !matches!(reason, Failure::Closed | Failure::Deleted | Failure::Restarted) {
                    self.remember(FailedHandshake {
                        at: now,
                        path: *path,
                        initiator: true,
                        reason: reason.clone(),
                    });
                }
            }
            Event::SessionFailed { path, initiator, reason } => {
                *self.failed.entry(word(reason)).or_default() += 1;
                let (path, initiator, reason) = (*path, *initiator, reason.clone());
                self.remember(FailedHandshake { at: now, path, initiator, reason });
            }
            _ => {}
        }
    }

    /// What failed lately and has not succeeded since, newest first.
    pub fn recent(&self, now: Instant) -> Vec<&FailedHandshake> {
        let mut recent: Vec<_> = self.last.values().filter(|f| now.since(f.at) < MEMORY).collect();
        recent.sort_by_key(|f| std::cmp::Reverse(f.at));
        recent
    }

    fn remember(&mut self, failed: FailedHandshake) {
        if self.last.len() >= MAX_PATHS && !self.last.contains_key(&failed.path) {
            let oldest = self.last.values().min_by_key(|f| f.at).map(|f| f.path);
            oldest.map(|path| self.last.remove(&path));
        }
        self.last.insert(failed.path, failed);
    }
}

/// A failure in a word, for the labels of metrics.
#[must_use]
pub(super) const fn word(reason: &Failure) -> &'static str {
    match reason {
        Failure::Timeout => "timeout",
        Failure::NoProposal { .. } => "no_proposal",
        Failure::Authentication(_) => "authentication",
        Failure::Refused => "refused",
        Failure::Identity { .. } => "identity",
        Failure::Selectors => "selectors",
        Failure::Notify(_) => "notify",
        Failure::Protocol(_) => "protocol",
        Failure::Deleted => "deleted",
        Failure::Restarted => "restarted",
        Failure::Dead => "dead",
        Failure::Credentials(_) => "credentials",
        Failure::Closed => "closed",
        Failure::Full(_) => "full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(host: u8) -> Path {
        Path::udp([192, 0, 2, host].into(), 4500)
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn failed(host: u8) -> Event {
        Event::SessionFailed { path: path(host), initiator: false, reason: Failure::Timeout }
    }

    #[test]
    fn a_failure_is_forgotten_when_the_path_comes_up() {
        let mut handshakes = Handshakes::default();
        handshakes.note(at(1), &failed(1));
        handshakes.note(at(2), &failed(2));
        assert_eq!(handshakes.recent(at(3)).iter().map(|f| f.path).collect::<Vec<_>>(), [path(2), path(1)]);
        let identity = claims::Identity { name: "b".to_owned(), proof: claims::Proof::SharedKey };
        handshakes.note(at(4), &Event::SessionUp { path: path(2), identity });
        assert_eq!(handshakes.recent(at(5)).len(), 1);
        assert!(handshakes.recent(at(1000)).is_empty());
        assert_eq!((handshakes.up, handshakes.failed["timeout"]), (1, 2));
    }

    #[test]
    fn strangers_fill_no_memory_and_the_newest_are_kept() {
        let mut handshakes = Handshakes::default();
        for host in 0..=u8::MAX {
            handshakes.note(at(u64::from(host)), &failed(host));
        }
        let recent = handshakes.recent(at(256));
        assert_eq!((recent.len(), recent[0].path), (MAX_PATHS, path(255)));
    }

    #[test]
    fn leaving_in_good_order_is_no_failure() {
        let mut handshakes = Handshakes::default();
        handshakes.note(at(1), &Event::SessionDown { path: path(1), reason: Failure::Deleted });
        assert!(handshakes.recent(at(2)).is_empty());
        assert_eq!(handshakes.ended["deleted"], 1);
    }
}
