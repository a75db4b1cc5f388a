//! One peer: who it is, the paths by which it may be reached, and which of them carries.
//!
//! A [`Peer`] sends nothing itself. It says which probes are due and, when their answers (or their absence) decide
//! something, gives a [`Verdict`]; the tunnel acts on it.

use crate::action::{PeerEntry, SourceCheck};
use crate::limits::MAX_CANDIDATES;
use crate::probe::{LOST, Prober, SILENT};
use nhrp::{NhsId, PeerInfo};
use packet::{Instant, Path, PeerId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// An attempt to prove a path ends after this.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(5);
/// How much longer it may take when a session must be made first.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);
/// A path that was left is received from at least this long.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// A peer counts as used this long after the last packet to it.
const IN_USE: Duration = Duration::from_secs(1);
/// A better candidate is waited for this long once a worse one has answered.
pub(crate) const GRACE: Duration = Duration::from_millis(60);
/// Between two probes of a hub that is lost.
pub(crate) const LOST_HUB: Duration = Duration::from_secs(1);
/// A registered peer that was sent to and has said nothing for so long is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(1);
/// What ICMP said is believed to mean something for this long: enough for probes to tell.
const DENIED: Duration = Duration::from_secs(2);
/// What is told to have arrived so soon after it may have arrived before.
const BEFORE: Duration = Duration::from_millis(200);
/// So many answers in a row, and a lost hub is back.
pub(crate) const RETURNED: u32 = 3;

/// One peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// Tunnel addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Who it is: proven, or as it asserts and hubs pass on.
    pub(crate) identity: Option<String>,
    /// Its number for probes; `None`: foreign.
    pub(crate) token: Option<u64>,
    pub(crate) nbma_claimed: Option<IpAddr>,
    pub(crate) natted: bool,
    pub(crate) group: Option<String>,
    /// A hub we register with.
    pub(crate) hub: Option<NhsId>,
    /// (We are its hub) what it registered, and until when.
    pub(crate) registrations: Vec<(IpAddr, Instant)>,
    /// Mapped by hand.
    pub(crate) fixed: bool,
    /// Ways to reach it, best first.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) reach: Reach,
    /// It may send to us by what we told it until then, whatever we do ourselves.
    pub(crate) receive_until: Instant,
    /// When we last sent it something.
    pub(crate) sent: Instant,
    /// When it last sent us something.
    pub(crate) received: Instant,
    /// A lost hub without an alternative keeps its path: it may come back.
    pub(crate) last_resort: bool,
    /// A probe of the peer reached us in this attempt: what fails is the other direction.
    pub(crate) heard: bool,
    /// Why a path of it was refused, the last time.
    pub(crate) refused: Option<String>,
    /// When ICMP said that nobody listens at the path that carries; nothing of the peer has arrived since.
    #[serde(skip)]
    denied: Option<Instant>,
}

/// One path that may lead to the peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) path: Path,
    origin: Origin,
    pub(crate) prober: Prober,
    /// Tried beside the path that carries until then.
    pub(crate) trial: Option<Instant>,
    /// No longer offered; received from until then.
    pub(crate) retires: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// By registration or configuration: needs no proof.
    Given,
    /// By NHRP, from the peer or its hub.
    Told,
    /// By a probe of the peer that came from there.
    Reflexive,
}

/// How the peer is reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reach {
    /// By the hub; packets from it are accepted.
    Listening { since: Instant },
    /// By the hub, while candidates are tried.
    Probing { since: Instant, until: Instant, proven: Option<Instant> },
    /// By a path that has proven itself.
    Direct { path: Path, since: Instant },
    /// By the path of its registration with us, ours with it, or a static map. Only hubs are probed, and can be lost.
    Given { path: Path, since: Instant, alive: bool },
}

/// What probes have decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This path carries from now on.
    Proven(Path),
    /// No candidate answered.
    Unproven,
    /// The path that carried no longer answers; nothing carries now.
    Lost(Path),
    /// A lost hub answers again.
    Back,
}

/// What became of the answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was counted, and may have decided something.
    Counted(Option<Verdict>),
    /// Not for a probe of ours.
    Unknown,
    /// For a probe of ours, but by another path than it was sent.
    Elsewhere,
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Instant) -> Self {
        Self {
            id,
            addresses: Vec::new(),
            identity: None,
            token: None,
            nbma_claimed: None,
            natted: false,
            group: None,
            hub: None,
            registrations: Vec::new(),
            fixed: false,
            candidates: Vec::new(),
            reach: Reach::Listening { since: now },
            receive_until: now + DRAIN,
            sent: Instant::ZERO,
            received: Instant::ZERO,
            last_resort: false,
            heard: false,
            refused: None,
            denied: None,
        }
    }

    /// Takes what a message says of the peer. In an encrypted tunnel, that a message says nothing of who it is takes
    /// nothing away from what was proven.
    pub(crate) fn learn(&mut self, info: &PeerInfo, encrypted: bool) {
        // A pattern is nobody's name: to expect it at a path would be to expect many.
        let named = info.identity.as_deref().filter(|name| !claims::is_pattern(name));
        if named.is_some() || !encrypted {
            self.identity = named.map(str::to_owned);
        }
        self.token = info.token;
        self.nbma_claimed = Some(info.nbma_claimed);
        self.natted = info.natted;
        if info.group.is_some() {
            self.group.clone_from(&info.group);
        }
    }

    /// Is its path given, so that there is nothing to prove?
    pub(crate) fn has_role(&self) -> bool {
        self.hub.is_some() || self.fixed || !self.registrations.is_empty()
    }

    pub(crate) const fn reach(&self) -> Reach {
        self.reach
    }

    /// The path that leads straight to it, when one does and is good.
    pub(crate) const fn direct(&self) -> Option<Path> {
        match self.reach {
            Reach::Direct { path, .. } | Reach::Given { path, alive: true, .. } => Some(path),
            _ => None,
        }
    }

    /// Round trip of the path that carries.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let path = self.send_path()?;
        self.candidates.iter().find(|c| c.path == path)?.prober.rtt()
    }

    /// The path that it was registered, configured or accepted by.
    pub(crate) const fn given(&self) -> Option<Path> {
        match self.reach {
            Reach::Given { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Is a session by this path of any use? Of a hub that has accepted us by one path, the others are not.
    pub(crate) fn needs(&self, path: Path) -> bool {
        match self.reach {
            Reach::Given { path: given, alive: true, .. } if self.hub.is_some() => given == path,
            _ => self.paths().any(|p| p == path),
        }
    }

    /// The paths packets are accepted from.
    pub(crate) fn paths(&self) -> impl Iterator<Item = Path> {
        self.candidates.iter().map(|c| c.path)
    }

    /// Its row in the datapath.
    pub(crate) fn row(&self, sources: SourceCheck) -> PeerEntry {
        PeerEntry {
            addresses: self.addresses.clone(),
            send: self.send_path(),
            receive: self.paths().collect(),
            sources,
            ours: self.token.is_some(),
        }
    }

    /// Did we send it something just now?
    pub(crate) fn in_use(&self, now: Instant) -> bool {
        self.sent != Instant::ZERO && now.since(self.sent) < IN_USE
    }

    /// Registered with us, sent to, and silent: is it still there? One of ours answers probes whatever happens.
    pub(crate) fn is_doubted(&self, now: Instant) -> bool {
        self.is_our_spoke() && self.in_use(now) && now.since(self.received) >= QUIET
    }

    /// Registered with us, and one that answers probes?
    pub(crate) fn is_our_spoke(&self) -> bool {
        self.hub.is_none() && self.token.is_some() && !self.registrations.is_empty()
    }

    /// Did ICMP say just now that it is not there?
    pub(crate) fn is_denied(&self, now: Instant) -> bool {
        self.denied.is_some_and(|at| now.since(at) < DENIED)
    }

    /// So many probes unanswered in a row, and a peer that registered with us is gone.
    pub(crate) const fn patience(&self) -> usize {
        if self.denied.is_some() { LOST } else { SILENT }
    }

    // ---- commands

    /// ICMP says that nobody listens at this path. One of ours answers probes if it is there. True: it is to be probed.
    pub(crate) fn denied(&mut self, now: Instant, path: Path) -> bool {
        let probed = self.token.is_some() && self.hub.is_none() && self.direct() == Some(path);
        if probed {
            self.denied = Some(now);
        }
        probed
    }

    /// Something of it arrived: what was not answered before says nothing any more.
    pub(crate) fn heard_from(&mut self, now: Instant) {
        self.received = now;
        self.denied = self.denied.filter(|at| now.since(*at) < BEFORE);
        if let (Reach::Given { path, .. }, None) = (self.reach, self.hub)
            && let Some(c) = self.candidate(path)
        {
            c.prober.forget();
        }
    }

    /// Reached by this path from now on, without proof. What carried before drains.
    pub(crate) fn give(&mut self, now: Instant, path: Path) {
        self.retire(now, |c| c.origin == Origin::Given && c.path != path);
        match self.candidate(path) {
            Some(c) => (c.origin, c.retires) = (Origin::Given, None),
            None => self.insert(0, path, Origin::Given),
        }
        match &mut self.reach {
            Reach::Given { path: old, alive, .. } if *old == path && *alive => {}
            reach => {
                *reach = Reach::Given { path, since: now, alive: true };
                self.restart_probes();
            }
        }
    }

    /// Packets of it are accepted from this path, which is a hub's by configuration.
    pub(crate) fn expect_from(&mut self, path: Path) {
        if self.candidate(path).is_none() {
            self.insert(self.candidates.len(), path, Origin::Given);
        }
    }

    /// A path that was given is so no longer: by the hub, or by what else is known.
    pub(crate) fn take_back(&mut self, now: Instant) {
        self.retire(now, |c| c.origin == Origin::Given);
        if matches!(self.reach, Reach::Given { .. }) {
            self.listen(now);
        }
    }

    /// NHRP tells the ways to reach it, best first. Those told before and not again drain, unless one carries.
    pub(crate) fn offer(&mut self, now: Instant, paths: &[Path]) {
        let carries = self.send_path();
        self.retire(now, |c| c.origin == Origin::Told && !paths.contains(&c.path) && Some(c.path) != carries);
        let trial = self.direct().map(|_| now + ATTEMPT);
        for (rank, path) in paths.iter().enumerate() {
            match self.candidate(*path) {
                Some(c) => c.retires = None,
                None => {
                    self.insert(rank, *path, Origin::Told);
                    self.set_trial(*path, trial);
                }
            }
        }
        let rank = |c: &Candidate| paths.iter().position(|p| *p == c.path).unwrap_or(usize::MAX);
        self.candidates.sort_by_key(rank);
    }

    /// A probe of the peer came by a path that was not known. False: there is no room for it.
    pub(crate) fn reflect(&mut self, now: Instant, path: Path) -> bool {
        self.heard = true;
        let trial = self.direct().map(|_| now + ATTEMPT);
        match self.candidate(path) {
            Some(c) => c.retires = None,
            None => self.insert(self.candidates.len(), path, Origin::Reflexive),
        }
        self.set_trial(path, trial);
        self.candidate(path).is_some()
    }

    /// Starts to prove a direct path, unless there is one, or an attempt is under way. It ends after `patience`.
    pub(crate) fn begin(&mut self, now: Instant, patience: Duration) {
        if matches!(self.reach, Reach::Listening { .. }) {
            self.refused = None;
            self.reach = Reach::Probing { since: now, until: now + patience, proven: None };
            self.restart_probes();
        }
    }

    /// By the hub again; what it still sends directly is accepted.
    pub(crate) fn listen(&mut self, now: Instant) {
        self.reach = Reach::Listening { since: now };
        self.heard = false;
        self.receive_until = self.receive_until.max(now + DRAIN);
    }

    /// Something on the underlay changed: what carries must prove itself again, at the pace of a path in use.
    pub(crate) fn suspect(&mut self, now: Instant) {
        self.restart_probes();
        self.sent = now;
        if self.direct().is_some() {
            for c in &mut self.candidates {
                c.trial = Some(now + ATTEMPT);
            }
        }
    }

    /// Whoever is at the end of this path has proven who he is: it is probed at once.
    pub(crate) fn opened(&mut self, now: Instant, path: Path, name: &str) -> Option<Verdict> {
        self.identity.get_or_insert_with(|| name.to_owned());
        if let Some(c) = self.candidate(path) {
            c.prober.forget();
        }
        match &mut self.reach {
            Reach::Probing { until, .. } => *until = (*until).max(now + ATTEMPT),
            // The handshake went there and back.
            Reach::Given { path: given, alive: alive @ false, since } if *given == path => {
                (*alive, *since) = (true, now);
                return Some(Verdict::Back);
            }
            _ => {}
        }
        None
    }

    /// Nobody is at the end of the path any more that was given. Answers whether it was thought good.
    pub(crate) fn closed(&mut self, now: Instant, path: Path) -> bool {
        match &mut self.reach {
            Reach::Given { path: given, alive: alive @ true, since } if *given == path => {
                (*alive, *since) = (false, now);
                self.restart_probes();
                true
            }
            _ => false,
        }
    }

    /// After a restart: nobody heard the answers to what was out.
    pub(crate) fn resume(&mut self) {
        self.restart_probes();
    }

    /// Somebody else has this path now.
    pub(crate) fn lose_path(&mut self, now: Instant, path: Path) -> bool {
        self.candidates.retain(|c| c.path != path);
        let carried = self.send_path() == Some(path);
        if carried {
            self.listen(now);
        }
        carried
    }

    // ---- probes

    /// Sends the probes that are due (`send` returns the opaque number it used), and judges those that are overdue.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        mut send: impl FnMut(Path) -> u64,
    ) -> Option<Verdict> {
        let verdict = self.judge(now);
        for i in 0..self.candidates.len() {
            let Some(pace) = self.pace(now, i) else { continue };
            let Some(c) = self.candidates.get_mut(i) else { continue };
            if c.prober.next(now, pace) <= now {
                let opaque = send(c.path);
                c.prober.sent(now, opaque);
            }
        }
        verdict
    }

    /// Forgets paths that have drained.
    pub(crate) fn drop_drained(&mut self, now: Instant) {
        let quiet = now.since(self.received) >= DRAIN;
        self.candidates
            .retain(|c| c.retires.is_none_or(|at| at > now || (!quiet && now.since(at) < 5 * DRAIN)));
    }

    /// The answer to a probe came.
    pub(crate) fn answered(&mut self, now: Instant, opaque: u64, came_by: Path) -> Answer {
        let foreign = self.token.is_none();
        let mut known = false;
        for c in &mut self.candidates {
            // A foreign router answers by whatever way it has to us; the question took this path all the same.
            if (foreign || c.path == came_by) && c.prober.answered(now, opaque) {
                known = true;
                break;
            }
        }
        if !known {
            // Ours answer over the path they were asked by; if not, somebody between us rewrites addresses.
            let elsewhere = self.candidates.iter_mut().any(|c| c.prober.answered(now, opaque));
            return if elsewhere { Answer::Elsewhere } else { Answer::Unknown };
        }
        self.denied = None;
        if let Reach::Probing { proven: proven @ None, .. } = &mut self.reach {
            *proven = Some(now);
        }
        Answer::Counted(self.judge(now))
    }

    /// When [`Self::handle_timeout`] must be called.
    pub(crate) fn wake(&self, now: Instant) -> Instant {
        let mut wake = Instant::NEVER;
        for (i, c) in self.candidates.iter().enumerate() {
            wake = wake.min(c.retires.map_or(Instant::NEVER, |at| at.max(self.received + DRAIN)));
            if let Some(pace) = self.pace(now, i) {
                wake = wake.min(c.prober.next(now, pace));
            }
        }
        let decides = match self.reach {
            Reach::Probing { until, proven, .. } => until.min(proven.map_or(Instant::NEVER, |p| p + GRACE)),
            Reach::Direct { path, .. } => self.lost_at(path),
            Reach::Given { path, alive: true, .. } if self.hub.is_some() => self.lost_at(path),
            Reach::Given { path, .. } if self.hub.is_none() => {
                self.prober(path).map_or(Instant::NEVER, |prober| prober.overdue_at(self.patience()))
            }
            Reach::Listening { .. } if !self.has_role() => self.receive_until.max(self.received + DRAIN),
            Reach::Listening { .. } | Reach::Given { .. } => Instant::NEVER,
        };
        wake.min(decides)
    }

    /// Is there nothing left to receive?
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        matches!(self.reach, Reach::Listening { .. })
            && !self.has_role()
            && now >= self.receive_until
            && now.since(self.received) >= DRAIN
    }

    // ---- helpers

    const fn send_path(&self) -> Option<Path> {
        match self.reach {
            Reach::Given { path, .. } if self.last_resort => Some(path),
            _ => self.direct(),
        }
    }

    pub(crate) fn prober(&self, path: Path) -> Option<&Prober> {
        self.candidates.iter().find(|c| c.path == path).map(|c| &c.prober)
    }

    pub(crate) fn candidate(&mut self, path: Path) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|c| c.path == path)
    }

    fn insert(&mut self, rank: usize, path: Path, origin: Origin) {
        if self.candidates.len() >= MAX_CANDIDATES {
            let carries = self.send_path();
            let idle = |c: &Candidate| c.origin != Origin::Given && Some(c.path) != carries;
            let victim = self
                .candidates
                .iter()
                .rposition(|c| c.retires.is_some() && idle(c))
                .or_else(|| self.candidates.iter().rposition(|c| origin != Origin::Reflexive && idle(c)));
            match victim {
                Some(victim) => drop(self.candidates.remove(victim)),
                None => return,
            }
        }
        let candidate = Candidate { path, origin, prober: Prober::default(), trial: None, retires: None };
        self.candidates.insert(rank.min(self.candidates.len()), candidate);
    }

    fn set_trial(&mut self, path: Path, until: Option<Instant>) {
        if self.direct() != Some(path)
            && let Some(c) = self.candidate(path)
        {
            c.trial = until;
        }
    }

    fn retire(&mut self, now: Instant, which: impl Fn(&Candidate) -> bool) {
        for c in self.candidates.iter_mut().filter(|c| c.retires.is_none() && which(c)) {
            (c.retires, c.origin) = (Some(now + DRAIN), Origin::Told);
        }
    }

    pub(crate) fn restart_probes(&mut self) {
        for c in &mut self.candidates {
            c.prober.forget();
        }
    }
}
