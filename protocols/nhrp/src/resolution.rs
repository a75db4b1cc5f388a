//! Resolving, as a client (RFC 2332 §5.2.1, §5.2.2): who is the way out to this address?

use crate::cache::Resolved;
use crate::environment::AnswerClaim;
use crate::event::{ResolutionFailure, ResolutionId};
use crate::extension::{Extension, ExtensionType};
use crate::node::{Incoming, Node};
use crate::packet::{Body, Cie, CieCode, ErrorCode, Exchange, ExchangeType, Flags, Packet, Protocol};
use crate::responder::{Origin, candidates};
use crate::timer::Timer;
use crate::vendor::{self, Station};
use crate::{Environment, Error, Event, PeerInfo, Route};
use ipnet::IpNet;
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// Seconds to wait for an answer to each request, before the next or giving up.
const WAITS: [u64; 6] = [1, 2, 4, 7, 7, 7];
/// Requests sent by one path before the next is tried.
const TRIES_PER_PATH: usize = 2;
/// How many request IDs of finished resolutions are remembered.
const MOST_FINISHED: usize = 128;

/// A resolution under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolution {
    pub(crate) destination: IpAddr,
    /// The same in each repetition.
    request_id: u32,
    /// Requests sent.
    attempts: usize,
    /// The path of the last request.
    path: Path,
}

impl Node {
    /// Asks who is the way out to `destination`. One resolution is made for one destination: asking again while it
    /// is under way gives the same ID. Ends in one [`Event::Resolved`] or [`Event::ResolutionFailed`].
    pub fn resolve(&mut self, now: Instant, destination: IpAddr, env: &dyn Environment) -> ResolutionId {
        if let Some((id, _)) = self.state.resolutions.iter().find(|(_, r)| r.destination == destination) {
            return *id;
        }
        let id = ResolutionId(self.state.next_resolution);
        self.state.next_resolution = self.state.next_resolution.wrapping_add(1);
        let full = self.state.resolutions.len() >= self.config.max_entries;
        let way = self.request_paths(destination, env).first().copied();
        match way.filter(|_| self.config.shortcuts && !full) {
            Some(path) => {
                let request_id = self.take_request_id();
                self.state.resolutions.insert(id, Resolution { destination, request_id, attempts: 0, path });
                self.send_resolution(now, id, path);
            }
            None => {
                self.event(Event::ResolutionFailed { id, destination, reason: ResolutionFailure::NoRoute })
            }
        }
        id
    }

    /// Gives a resolution up; nothing is said of it any more.
    pub fn cancel(&mut self, id: ResolutionId) {
        self.take_resolution(id);
    }

    /// Resolutions under way, and what they ask for.
    pub fn resolutions(&self) -> impl Iterator<Item = (ResolutionId, IpAddr)> + '_ {
        self.state.resolutions.iter().map(|(id, r)| (*id, r.destination))
    }

    /// The timer of a resolution: no answer came.
    pub(crate) fn resolution_due(&mut self, now: Instant, id: ResolutionId, env: &dyn Environment) {
        let Some(resolution) = self.state.resolutions.get(&id) else { return };
        let (attempts, destination, last) = (resolution.attempts, resolution.destination, resolution.path);
        if attempts >= WAITS.len() {
            return self.resolution_failed(id, ResolutionFailure::Timeout);
        }
        let paths = self.request_paths(destination, env);
        let turn = (attempts / TRIES_PER_PATH).checked_rem(paths.len());
        let path = turn.and_then(|t| paths.get(t)).copied().unwrap_or(last);
        self.send_resolution(now, id, path);
    }

    /// Ways for a request, best first: where routing says, then every server that is up.
    fn request_paths(&self, destination: IpAddr, env: &dyn Environment) -> Vec<Path> {
        if matches!(env.route(destination), Route::Local | Route::OffOverlay { .. }) {
            return Vec::new();
        }
        let servers = self.state.nhs.values().flat_map(|n| n.accepted()).map(|a| a.path);
        let mut paths: Vec<Path> = self.hop_to(destination, env).into_iter().collect();
        for path in servers {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }

    fn send_resolution(&mut self, now: Instant, id: ResolutionId, path: Path) {
        let Some(resolution) = self.state.resolutions.get_mut(&id) else { return };
        let wait = Duration::from_secs(WAITS.get(resolution.attempts).copied().unwrap_or(1));
        resolution.attempts += 1;
        resolution.path = path;
        let (destination, request_id) = (resolution.destination, resolution.request_id);
        let protocol = Protocol::of(destination);
        let Some(own) = self.own(protocol) else {
            return self.resolution_failed(id, ResolutionFailure::NoRoute);
        };
        self.state.timers.set(Timer::Resolve(id), now + wait);
        // The prefix length is the host's: Cisco spokes refuse 0xff unless U is set. It does not keep a responder
        // from answering for more. Authoritative, always: a stranger's cache is not asked.
        let flags = Flags::ROUTER.or(Flags::AUTHORITATIVE).or(Flags::SOURCE_STABLE).or(Flags::NAT);
        let entry = Cie {
            prefix_length: protocol.bits(),
            mtu: self.config.mtu,
            holding_time: self.holding_time(),
            ..Cie::default()
        };
        let kind = ExchangeType::ResolutionRequest;
        let body = Body::Exchange(Exchange { kind, flags, request_id, entries: vec![entry] });
        let extensions = vec![
            Extension::of_entries(ExtensionType::FORWARD_TRANSIT, &[]),
            Extension::of_entries(ExtensionType::REVERSE_TRANSIT, &[]),
            Extension::of_entries(ExtensionType::RESPONDER_ADDRESS, &[]),
            self.nat_extension(own),
            self.station(own).to_extension(),
        ];
        self.send(path, Packet { body, extensions, ..self.blank(own, destination) });
    }

    /// A Resolution Reply for us.
    pub(crate) fn resolution_reply(&mut self, m: &Incoming<'_>, exchange: &Exchange) -> Result<(), Error> {
        let Incoming { now, path, packet, bytes, .. } = *m;
        let asked =
            |r: &Resolution| r.request_id == exchange.request_id && r.destination == packet.destination;
        let Some((id, resolution)) = self.state.resolutions.iter().find(|(_, r)| asked(r)) else {
            if self.state.finished.contains(&exchange.request_id) {
                return Err(Error::Duplicate);
            }
            //= rfc2332#5.2.7
            // Who answers what was not asked is told so. That station is the responder, not the source.
            let responder = exchange.entries.iter().find_map(|e| e.protocol);
            if let Some(responder) = responder.filter(|r| !self.is_own(*r)) {
                self.report(now, path, responder, ErrorCode::INVALID_REPLY, bytes);
            }
            return Err(Error::Unsolicited);
        };
        let id = *id;
        if path != resolution.path && !self.is_nhs_path(&path) {
            return Err(Error::WrongPath);
        }
        let mut accepted: Vec<&Cie> =
            exchange.entries.iter().filter(|e| e.code == CieCode::SUCCESS).collect();
        //= rfc2332#5.2.0.1
        // The higher preference is better; of equals, the first.
        accepted.sort_by_key(|e| std::cmp::Reverse(e.preference));
        let Some(entry) = accepted.first() else {
            let refusal = exchange.entries.first().ok_or(Error::EntryCount)?.code.normalised();
            self.resolution_failed(id, ResolutionFailure::Refused(refusal.0));
            return Ok(());
        };
        match self.read_answer(m, entry) {
            Ok((prefix, peer)) => {
                let holding_time = match entry.holding_time {
                    0 => self.config.holding_time,
                    seconds => Duration::from_secs(seconds.into()),
                };
                self.resolution_succeeded(now, id, packet.destination, prefix, peer, holding_time);
                Ok(())
            }
            Err((failure, error)) => {
                self.resolution_failed(id, failure);
                Err(error)
            }
        }
    }

    /// What an answer says: for which prefix, and who answers.
    fn read_answer(
        &self,
        m: &Incoming<'_>,
        entry: &Cie,
    ) -> Result<(IpNet, PeerInfo), (ResolutionFailure, Error)> {
        let Incoming { path, packet, env, .. } = *m;
        let answering = packet
            .extension(ExtensionType::RESPONDER_ADDRESS)
            .and_then(|e| e.entries().pop())
            .unwrap_or_default();
        let incomplete = || (ResolutionFailure::Refused(CieCode::NO_BINDING.0), Error::Incomplete);
        let responder = entry
            .protocol
            .or(answering.protocol)
            .filter(|r| Protocol::of(*r) == packet.protocol && !self.is_own(*r) && !r.is_unspecified())
            .ok_or_else(incomplete)?;
        let origin = self.origin(&path, packet, ExtensionType::REVERSE_TRANSIT, responder);
        let direct = (origin == Origin::Itself).then_some(path);
        let station = Station::find(packet, responder);
        let claimed =
            entry.nbma.or(answering.nbma).or_else(|| direct.map(|p| p.remote)).ok_or_else(incomplete)?;
        let nat = nat_address(packet, responder);
        let identity = self.identity_of(m, origin, station.as_ref());
        // Never for more than our own route is good for: the rest may lead elsewhere.
        let prefix = match (entry.prefix(packet.destination), env.route(packet.destination)) {
            (answer, Route::Overlay { prefix, .. }) if prefix.prefix_len() > answer.prefix_len() => prefix,
            (answer, _) => answer,
        };
        env.authorize_answer(&AnswerClaim { prefix, responder, path, identity: identity.as_deref() })
            .map_err(|refusal| (ResolutionFailure::Denied(refusal.0), Error::AnswerDenied))?;
        let candidates = candidates(direct, station.as_ref(), nat, claimed);
        let peer = PeerInfo {
            protocol_address: responder,
            nbma_claimed: claimed,
            natted: candidates.first().is_some_and(|c| c.remote != claimed),
            candidates,
            identity,
            token: station.and_then(|s| s.token),
            group: vendor::group(packet),
            mtu: entry.mtu,
        };
        Ok((prefix, peer))
    }

    fn resolution_succeeded(
        &mut self,
        now: Instant,
        id: ResolutionId,
        destination: IpAddr,
        prefix: IpNet,
        peer: PeerInfo,
        holding_time: Duration,
    ) {
        self.take_resolution(id);
        let expires = now + holding_time;
        let room = self.state.resolved.len() < self.config.max_entries;
        if room || self.state.resolved.contains_key(&prefix) {
            self.state.resolved.insert(prefix, Resolved { info: peer.clone(), expires });
            self.state.timers.set(Timer::Forget(prefix), expires);
        }
        self.event(Event::Resolved { id, destination, prefix, peer, holding_time });
    }

    /// An Error Indication came back about a resolution request of ours. Answers whether it was about one.
    pub(crate) fn resolution_error(&mut self, path: Path, request_id: u32, code: ErrorCode) -> bool {
        let asked = |r: &Resolution| r.request_id == request_id;
        let Some((id, resolution)) = self.state.resolutions.iter().find(|(_, r)| asked(r)) else {
            return self.state.finished.contains(&request_id);
        };
        let id = *id;
        if path == resolution.path || self.is_nhs_path(&path) {
            self.resolution_failed(id, ResolutionFailure::Error(code.0));
        }
        true
    }

    fn resolution_failed(&mut self, id: ResolutionId, reason: ResolutionFailure) {
        if let Some(Resolution { destination, .. }) = self.take_resolution(id) {
            self.event(Event::ResolutionFailed { id, destination, reason });
        }
    }

    fn take_resolution(&mut self, id: ResolutionId) -> Option<Resolution> {
        self.state.timers.stop(Timer::Resolve(id));
        let resolution = self.state.resolutions.remove(&id)?;
        self.state.finished.push_back(resolution.request_id);
        if self.state.finished.len() > MOST_FINISHED {
            self.state.finished.pop_front();
        }
        Some(resolution)
    }
}

/// The address that Cisco's NAT extension gives for a station.
pub(crate) fn nat_address(packet: &Packet, station: IpAddr) -> Option<IpAddr> {
    let entries = packet.extension(ExtensionType::NAT)?.entries();
    entries.iter().find(|e| e.protocol == Some(station))?.nbma
}
