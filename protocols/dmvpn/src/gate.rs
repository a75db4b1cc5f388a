//! The gate of an encrypted tunnel: no message leaves by a path before whoever is at its end has proven who he is.
//!
//! Everything else in the engine thinks in paths, encrypted or not. What it wants to send by a path without a session
//! waits here, a few messages of it, while the session is being made, and follows the session's SAs in order.

use crate::checkpoint;
use crate::config::Security;
use crate::outside::Outside;
use claims::Identity;
use esp::{Limits, Suite};
use ikev2::{Checkpoint, ConfigError, Endpoint, Event, Failure, SessionView};
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use zeroize::Zeroizing;

/// Messages that wait for one path.
const MOST_WAITING: usize = 4;
/// Paths that something waits for, or that failed lately.
const MOST_CLOSED: usize = 4_096;
/// After the first refusal, a path is left alone for so long; then for twice as long, and so on. Silence is no refusal:
/// the handshake itself has waited by then.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A message that arrived by a new SA counts when it is told who sends it, if that is told so soon.
const HEARD: Duration = Duration::from_secs(5);
/// Longer than any handshake takes. Whatever became of one of that age, another is begun.
const HANDSHAKE: Duration = Duration::from_secs(120);
/// No path is left alone for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// What was learnt of a path that failed is forgotten after this.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A session that nobody needs ends after this: a peer that is to come has come by then, and one that went has drained.
const UNNEEDED: Duration = Duration::from_secs(15);
/// A peer that was seen at another path has made itself known there by then.
const MOVING: Duration = Duration::from_secs(10);
/// Handshakes of strangers that came to nothing are told this often, so that a flood of them is one line.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// What the gate did not let pass, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateDrops {
    /// Too many messages waited for one path, or too many paths were waited for.
    pub no_room: u64,
    /// Messages that had waited when the handshake failed.
    pub failed: u64,
    /// Probes of paths without a session: they are sent again in time.
    pub probes: u64,
    /// Messages that arrived by a path whose session has ended.
    pub no_session: u64,
}

/// The sessions of a tunnel, and what waits for them.
pub(crate) struct Gate {
    endpoint: Endpoint,
    /// Paths that are open, and since when nobody has needed them.
    open: BTreeMap<Path, Option<Instant>>,
    closed: HashMap<Path, Closed>,
    /// Where inbound SAs are bound to.
    inbound: HashMap<u32, Path>,
    /// Paths whose peer was seen elsewhere: where, and when.
    moving: HashMap<Path, (Path, Instant)>,
    /// After how much an SA is replaced, as configured.
    soft: Limits,
    told: Instant,
    /// Nothing is opened any more.
    leaving: bool,
    pub(crate) drops: GateDrops,
}

/// A path without a session.
#[derive(Default)]
struct Closed {
    /// NHRP messages, oldest first.
    waiting: VecDeque<(u16, Vec<u8>)>,
    /// NHRP messages that arrived before it was told who sends them, oldest first.
    heard: VecDeque<Vec<u8>>,
    heard_at: Instant,
    /// A session is being made, since then.
    connecting: Option<Instant>,
    /// Refusals in a row.
    refusals: u32,
    /// When and why it failed last.
    failed: Option<(Instant, String)>,
}

/// What waited for a path to be open.
#[derive(Default)]
pub(crate) struct Waiting {
    /// NHRP messages that arrived.
    pub(crate) heard: VecDeque<Vec<u8>>,
    /// Protocol types and messages.
    pub(crate) to_send: VecDeque<(u16, Vec<u8>)>,
}

impl Closed {
    fn may_connect(&self, now: Instant) -> bool {
        let pause = match self.refusals.checked_sub(1) {
            Some(n) => (FIRST_PAUSE * 2u32.saturating_pow(n.min(8))).min(LONGEST_PAUSE),
            None => Duration::ZERO,
        };
        !self.is_connecting(now) && self.failed.as_ref().is_none_or(|(at, _)| now.since(*at) >= pause)
    }

    fn is_connecting(&self, now: Instant) -> bool {
        self.connecting.is_some_and(|at| now.since(at) < HANDSHAKE)
    }

    fn is_dull(&self, now: Instant) -> bool {
        let recent = self.failed.as_ref().is_some_and(|(at, _)| now.since(*at) < REMEMBERED);
        let hears = !self.heard.is_empty() && now.since(self.heard_at) < HEARD;
        self.waiting.is_empty() && !hears && !self.is_connecting(now) && !recent
    }
}

impl Gate {
    pub(crate) fn new(security: &Security, seed: [u8; 32], now: Instant) -> Result<Self, ConfigError> {
        let credentials = security.credentials.0.clone();
        let endpoint = Endpoint::new(security.ike.clone(), credentials, seed, now)?;
        Ok(Self::around(endpoint, security))
    }

    pub(crate) fn restore(
        security: &Security,
        checkpoint: Checkpoint,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let credentials = security.credentials.0.clone();
        let endpoint = Endpoint::restore(checkpoint, security.ike.clone(), credentials, seed, now)?;
        let mut gate = Self::around(endpoint, security);
        let paths: Vec<Path> = gate.endpoint.sessions().map(|s| s.path).collect();
        for path in paths.into_iter().filter(|path| gate.endpoint.is_up(*path)) {
            gate.open.insert(path, None);
        }
        let children =
            gate.endpoint.sessions().flat_map(|s| s.children.into_iter().map(move |c| (c.inbound, s.path)));
        gate.inbound = children.collect();
        Ok(gate)
    }

    fn around(endpoint: Endpoint, security: &Security) -> Self {
        Self {
            endpoint,
            open: BTreeMap::new(),
            closed: HashMap::new(),
            inbound: HashMap::new(),
            moving: HashMap::new(),
            soft: soft_limits(security),
            told: Instant::ZERO,
            leaving: false,
            drops: GateDrops::default(),
        }
    }

    // ---- getters

    /// What IKE has done.
    pub(crate) const fn counters(&self) -> &ikev2::Counters {
        self.endpoint.counters()
    }

    /// May messages pass by this path?
    pub(crate) fn is_open(&self, path: Path) -> bool {
        self.open.contains_key(&path)
    }

    /// Who has proven to be at the end of this path.
    pub(crate) fn identity(&self, path: Path) -> Option<&Identity> {
        self.endpoint.identity(path).filter(|_| self.is_open(path))
    }

    /// Why no session came about on this path, the last time.
    pub(crate) fn why_closed(&self, path: Path) -> Option<String> {
        let closed = self.closed.get(&path)?;
        match &closed.failed {
            Some((_, why)) => Some(why.clone()),
            None => closed.connecting.map(|_| "no answer yet".to_owned()),
        }
    }

    /// Has a handshake by this path come to nothing since then, and none been begun again?
    pub(crate) fn has_failed(&self, path: Path, since: Instant) -> bool {
        let failed =
            |c: &Closed| c.connecting.is_none() && c.failed.as_ref().is_some_and(|(at, _)| *at >= since);
        self.closed.get(&path).is_some_and(failed)
    }

    /// The paths that are open.
    pub(crate) fn open_paths(&self) -> Vec<Path> {
        self.open.keys().copied().collect()
    }

    pub(crate) fn sessions(&self) -> Vec<SessionView> {
        self.endpoint.sessions().collect()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout()
    }

    /// What [`Self::restore`] needs; full of secrets.
    pub(crate) fn checkpoint(&self) -> Zeroizing<Vec<u8>> {
        checkpoint::written(&self.endpoint.checkpoint())
    }

    /// Inputs of the endpoint; [`Self::pump`] follows.
    pub(crate) const fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    // ---- commands

    /// Another configuration, for what begins from now on.
    pub(crate) fn reconfigure(
        &mut self,
        now: Instant,
        before: &Security,
        security: &Security,
    ) -> Result<(), ConfigError> {
        if before.ike != security.ike {
            self.endpoint.set_config(now, security.ike.clone())?;
            self.soft = soft_limits(security);
        }
        if before.credentials != security.credentials {
            self.endpoint.set_credentials(now, security.credentials.0.clone());
        }
        Ok(())
    }

    /// A message by a path that is not open: it waits, and a session is made. `expect`: a pattern over whom to find.
    pub(crate) fn hold(
        &mut self,
        now: Instant,
        path: Path,
        message: Option<(u16, Vec<u8>)>,
        expect: Option<String>,
    ) {
        let Some(closed) = room(&mut self.closed, now, path) else {
            self.drops.no_room += 1;
            return;
        };
        match message {
            Some(message) => {
                if closed.waiting.len() >= MOST_WAITING {
                    closed.waiting.pop_front();
                    self.drops.no_room += 1;
                }
                closed.waiting.push_back(message);
            }
            None => self.drops.probes += 1,
        }
        if closed.may_connect(now) && !self.leaving {
            closed.connecting = Some(now);
            self.endpoint.connect(now, path, expect);
        }
    }

    /// A message arrived by a path that is not open. It may have come by an SA of a session that the peer has not
    /// confirmed yet, or of one that has ended.
    pub(crate) fn hear_later(&mut self, now: Instant, path: Path, message: Vec<u8>) {
        let Some(closed) = room(&mut self.closed, now, path).filter(|c| c.heard.len() < MOST_WAITING) else {
            self.drops.no_session += 1;
            return;
        };
        closed.heard_at = now;
        closed.heard.push_back(message);
    }

    /// Nobody needs this path, or whoever is at its end is not the right one.
    pub(crate) fn close(&mut self, now: Instant, path: Path, refused: Option<String>) {
        if let Some(why) = refused
            && let Some(closed) = room(&mut self.closed, now, path)
        {
            closed.refusals = closed.refusals.saturating_add(1);
            closed.failed = Some((now, why));
        }
        self.endpoint.disconnect(now, path);
    }

    /// Ends every session in good order, for good.
    pub(crate) fn close_all(&mut self, now: Instant) {
        self.leaving = true;
        self.closed.clear();
        self.endpoint.close_all(now);
    }

    /// Is nobody there any more?
    pub(crate) fn is_deserted(&self) -> bool {
        self.endpoint.sessions().next().is_none()
    }

    /// Closes what nobody has needed for a while. `needed` says what is.
    pub(crate) fn sweep(&mut self, now: Instant, needed: impl Fn(Path) -> bool) {
        let mut over = Vec::new();
        for (path, unneeded) in &mut self.open {
            if needed(*path) {
                *unneeded = None;
            } else if now.since(*unneeded.get_or_insert(now)) >= UNNEEDED {
                over.push(*path);
            }
        }
        for path in over {
            self.endpoint.disconnect(now, path);
        }
        self.closed.retain(|_, c| !c.is_dull(now));
        self.moving.retain(|_, (_, at)| now.since(*at) < MOVING);
    }

    /// Carries out what the endpoint wants, SAs before messages, and tells what the tunnel must know.
    pub(crate) fn pump(&mut self, now: Instant, outside: &mut Outside) -> Vec<Event> {
        let mut news = Vec::new();
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::AddInbound { path, keys } => {
                    self.inbound.insert(keys.spi, path);
                    outside.add_inbound(path, keys);
                }
                Event::SetOutbound { path, lane, keys } => {
                    let soft = limits_of(self.soft, keys.suite, keys.esn);
                    outside.set_outbound(path, lane, keys, (soft.packets, soft.octets));
                }
                Event::RemoveInbound { spi } => {
                    self.inbound.remove(&spi);
                    outside.remove_inbound(spi);
                }
                Event::RemoveOutbound { path, spi } => outside.remove_outbound(path, spi),
                event => news.push(event),
            }
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            outside.transmit_ike(transmit);
        }
        news.retain(|event| self.note(now, event));
        news
    }

    /// What waited for a path that is open now: messages that arrived just now, and those to be sent.
    pub(crate) fn take_waiting(&mut self, now: Instant, path: Path) -> Waiting {
        let Some(closed) = self.closed.remove(&path) else { return Waiting::default() };
        let heard = if now.since(closed.heard_at) < HEARD { closed.heard } else { VecDeque::new() };
        Waiting { heard, to_send: closed.waiting }
    }

    /// An authentic packet of this SA came by another path than its own.
    pub(crate) fn moved(&mut self, now: Instant, spi: u32, path: Path) {
        if let Some(from) = self.inbound.get(&spi).filter(|from| **from != path) {
            self.moving.insert(*from, (path, now));
        }
        self.endpoint.moved(now, spi, path);
    }

    /// Where the peer of a path that has just gone down is expected to appear.
    pub(crate) fn moves_to(&self, now: Instant, from: Path) -> Option<Path> {
        self.moving.get(&from).filter(|(_, at)| now.since(*at) < MOVING).map(|(to, _)| *to)
    }

    /// Where the peer of a path that has just come up was before.
    pub(crate) fn moved_from(&mut self, to: Path) -> Option<Path> {
        let from = self.moving.iter().find(|(_, (path, _))| *path == to).map(|(from, _)| *from)?;
        self.moving.remove(&from).map(|_| from)
    }

    /// Keeps the books. False: nobody need be told.
    fn note(&mut self, now: Instant, event: &Event) -> bool {
        match event {
            Event::Up { path, .. } => drop(self.open.insert(*path, None)),
            Event::Down { path, reason } => {
                self.open.remove(path);
                if *reason != Failure::Closed
                    && let Some(closed) = room(&mut self.closed, now, *path)
                {
                    closed.failed = Some((now, reason.to_string()));
                }
            }
            Event::Failed { path, initiator: true, reason } => {
                let Some(closed) = room(&mut self.closed, now, *path) else { return true };
                closed.connecting = None;
                self.drops.failed += closed.waiting.len() as u64;
                closed.waiting.clear();
                let silent = *reason == Failure::Timeout;
                closed.refusals = if silent { 0 } else { closed.refusals.saturating_add(1) };
                closed.failed = Some((now, reason.to_string()));
            }
            Event::Failed { initiator: false, .. } => {
                if now.since(self.told) < TOLD_EVERY {
                    return false;
                }
                self.told = now;
            }
            _ => {}
        }
        true
    }
}

/// What is known of a path that is not open, if there is room for one more.
fn room(closed: &mut HashMap<Path, Closed>, now: Instant, path: Path) -> Option<&mut Closed> {
    if closed.len() >= MOST_CLOSED && !closed.contains_key(&path) {
        closed.retain(|_, c| !c.is_dull(now));
        if closed.len() >= MOST_CLOSED {
            return None;
        }
    }
    Some(closed.entry(path).or_default())
}

fn soft_limits(security: &Security) -> Limits {
    let lifetimes = &security.ike.lifetimes;
    Limits { packets: lifetimes.packets, octets: lifetimes.octets }
}

/// When an SA is replaced: as configured, and before it is used up. Sequence numbers of 64 bits never are.
fn limits_of(configured: Limits, suite: Suite, esn: bool) -> Limits {
    let packets = if esn { u64::MAX } else { configured.packets };
    Limits { packets, ..configured }.within(suite, esn)
}

#[cfg(test)]
mod tests;
