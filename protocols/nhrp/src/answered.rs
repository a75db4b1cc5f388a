//! Whom we answered, for what, and until when: they must be told when it stops being true (RFC 2332 §5.2.5).

use crate::PeerInfo;
use ipnet::IpNet;
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most answers that one requester may hold.
const MOST_EACH: usize = 256;

/// Answers given that still hold.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Answered {
    by_requester: BTreeMap<IpAddr, Requester>,
    total: usize,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Requester {
    /// What it was answered for, and until when.
    answers: BTreeMap<IpNet, Instant>,
    /// Where it may be, as its last request told.
    candidates: Vec<Path>,
    /// Who it is, as far as its last request told.
    identity: Option<String>,
}

/// An answer we gave, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredEntry {
    /// Who asked.
    pub requester: IpAddr,
    /// What we answered for.
    pub prefix: IpNet,
    /// Until when it may be used.
    pub expires: Instant,
}

impl Answered {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_requester.is_empty()
    }

    /// Notes an answer; false when there is no room, so that it must not be given.
    #[must_use]
    pub(crate) fn insert(&mut self, peer: &PeerInfo, prefix: IpNet, expires: Instant, most: usize) -> bool {
        let requester = self.by_requester.entry(peer.protocol_address).or_default();
        let answers = &mut requester.answers;
        let room = answers.contains_key(&prefix) || answers.len() < MOST_EACH && self.total < most;
        if room {
            self.total += usize::from(answers.insert(prefix, expires).is_none());
            requester.candidates.clone_from(&peer.candidates);
            requester.identity.clone_from(&peer.identity);
        } else if answers.is_empty() {
            self.by_requester.remove(&peer.protocol_address);
        }
        room
    }

    /// Was this station answered, and may it be at this path, where that one has proven to be?
    pub(crate) fn knows(&self, requester: IpAddr, path: &Path, proven: Option<&str>) -> bool {
        let at = |requester: &Requester| {
            let known = requester.identity.as_deref();
            let named = proven.is_none() || known.is_none() || known == proven;
            named && requester.candidates.iter().any(|c| c.remote == path.remote)
        };
        self.by_requester.get(&requester).is_some_and(at)
    }

    /// Takes out these answers, by requester. The moment is the latest at which one of them would have ended.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        which: impl Fn(&IpNet) -> bool,
    ) -> Vec<(IpAddr, Vec<IpNet>, Instant)> {
        let mut taken = Vec::new();
        for (requester, Requester { answers, .. }) in &mut self.by_requester {
            let mut prefixes = Vec::new();
            let mut latest = now;
            answers.retain(|answered, expires| {
                let gone = which(answered);
                if gone && *expires > now {
                    prefixes.push(*answered);
                    latest = latest.max(*expires);
                }
                !gone
            });
            if !prefixes.is_empty() {
                taken.push((*requester, prefixes, latest));
            }
        }
        self.tidy();
        taken
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        for Requester { answers, .. } in self.by_requester.values_mut() {
            answers.retain(|_, expires| *expires > now);
        }
        self.tidy();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = AnsweredEntry> {
        self.by_requester.iter().flat_map(|(requester, known)| {
            known.answers.iter().map(|(prefix, expires)| AnsweredEntry {
                requester: *requester,
                prefix: *prefix,
                expires: *expires,
            })
        })
    }

    fn tidy(&mut self) {
        self.by_requester.retain(|_, known| !known.answers.is_empty());
        self.total = self.by_requester.values().map(|known| known.answers.len()).sum();
    }
}

/// Does one contain the other?
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
