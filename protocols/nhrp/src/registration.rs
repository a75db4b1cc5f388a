//! Registering with servers, as a client (RFC 2332 §5.2.3, §5.2.4).
//!
//! One registration is kept for each server and IP version. It is refreshed after a third of the holding time. An
//! unanswered request is repeated with the same ID after 1, 2, 4 .. 64 s, each time by the next of the server's
//! paths until one has worked. One of ours that answered by raw GRE is asked by UDP first at the next refreshes: only
//! there it may have been away at the wrong moment, and UDP is what NATs pass.

use crate::config::{NhsConfig, NhsId};
use crate::extension::{Extension, ExtensionType};
use crate::node::{Incoming, Node};
use crate::packet::{
    Body, Cie, CieCode, ErrorCode, Exchange, ExchangeType, Flags, MessageType, Offender, Packet, Protocol,
};
use crate::timer::Timer;
use crate::vendor::{self, Station};
use crate::{Error, Event, PeerInfo};
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Requests in a row that a server which had accepted us may leave unanswered before it counts as down.
const MOST_UNANSWERED: u32 = 3;
/// A server that grants less than three times this is not asked more often.
const SOONEST_REFRESH: Duration = Duration::from_secs(1);
/// So many refreshes in a row try UDP beside the raw GRE that works.
const MOST_UPGRADES: u32 = 3;
/// Longest time between two requests is 2 to this power, seconds.
const LONGEST_BACK_OFF: u32 = 6;

/// A server and how we stand with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Nhs {
    pub(crate) config: NhsConfig,
    pub(crate) registrations: BTreeMap<Protocol, Registration>,
    /// Why it last went down, so that it is said once.
    reported_down: Option<String>,
}

/// A registration with one server for one IP version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Registration {
    /// ID of the last request.
    pub(crate) request_id: u32,
    /// Requests sent with that ID and not answered; 0 when it was answered.
    pub(crate) unanswered: u32,
    /// Which of the server's paths is tried.
    path_index: usize,
    /// Refusals in a row.
    refusals: u32,
    /// Refreshes that tried UDP first, while raw GRE is what works.
    upgrades: u32,
    pub(crate) standing: Standing,
}

/// How we stand with a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Not accepted yet, or no longer answered.
    Trying,
    /// Accepted.
    Accepted(Box<Accepted>),
    /// Refused, with the code.
    Refused(CieCode),
}

/// What an accepted registration told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// The server's tunnel address.
    pub(crate) server: IpAddr,
    /// The path that worked.
    pub(crate) path: Path,
    /// What it says of itself.
    pub(crate) info: PeerInfo,
    /// Where it sees us.
    pub(crate) observed: Option<Path>,
    /// Since when.
    pub(crate) since: Instant,
    /// Until when it holds unless refreshed.
    pub(crate) expires: Instant,
}

/// How we stand with a server, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NhsStatus {
    /// Which.
    pub nhs: NhsId,
    /// For which of our tunnel addresses.
    pub address: IpAddr,
    /// Its tunnel address, once known.
    pub server: Option<IpAddr>,
    /// How we stand.
    pub state: NhsState,
    /// The path in use, or the one tried last.
    pub path: Option<Path>,
    /// Where it sees us, when it told.
    pub observed: Option<Path>,
    /// Requests sent since the last answer.
    pub unanswered: u32,
}

/// See [`NhsStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NhsState {
    /// No answer yet, or no longer.
    Trying,
    /// Registered.
    Registered {
        /// Since when, without a break.
        since: Instant,
        /// Until when unless refreshed.
        expires: Instant,
    },
    /// Refused with this code (RFC 2332 §5.2.0.1).
    Refused(u8),
}

impl Nhs {
    fn new(config: NhsConfig, protocols: impl Iterator<Item = Protocol>) -> Self {
        let registrations = protocols.map(|p| (p, Registration::new())).collect();
        Self { config, registrations, reported_down: None }
    }

    /// The accepted registrations.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = &Accepted> {
        self.registrations.values().filter_map(Registration::accepted)
    }

    /// Its tunnel address of this IP version, where it is configured.
    fn address(&self, protocol: Protocol) -> Option<IpAddr> {
        self.config.protocol_address.filter(|a| Protocol::of(*a) == protocol)
    }

    fn is_up(&self) -> bool {
        self.accepted().next().is_some()
    }
}

impl Registration {
    const fn new() -> Self {
        Self {
            request_id: 0,
            unanswered: 0,
            path_index: 0,
            refusals: 0,
            upgrades: 0,
            standing: Standing::Trying,
        }
    }

    pub(crate) const fn accepted(&self) -> Option<&Accepted> {
        match &self.standing {
            Standing::Accepted(accepted) => Some(accepted),
            _ => None,
        }
    }

    /// Gives the registration up; answers what is to be taken back.
    pub(crate) fn abandon(&mut self) -> Option<Accepted> {
        match std::mem::replace(self, Self::new()).standing {
            Standing::Accepted(accepted) => Some(*accepted),
            _ => None,
        }
    }

    /// Makes the next request a new one.
    const fn renew(&mut self) {
        self.unanswered = 0;
    }

    /// The path for the next request: the one that worked, else the next of all.
    fn next_path(&mut self, paths: &[Path]) -> Option<Path> {
        if let Some(accepted) = self.accepted()
            && paths.contains(&accepted.path)
        {
            let (path, upgrade) = (accepted.path, accepted.upgrade(paths));
            // The request is repeated by the path that works: whatever the try has moved at the server moves back.
            let try_it = self.unanswered == 0 && self.upgrades < MOST_UPGRADES;
            if let Some(better) = upgrade.filter(|_| try_it) {
                self.upgrades += 1;
                return Some(better);
            }
            return Some(path);
        }
        if self.unanswered > 0 && !self.insists(paths) {
            self.path_index = self.path_index.wrapping_add(1);
        }
        paths.get(self.path_index.checked_rem(paths.len())?).copied()
    }

    /// The first request by UDP is repeated before the same server is tried by raw GRE: one that was merely lost must
    /// not make a station of ours known by a path that it leaves again a moment later.
    fn insists(&self, paths: &[Path]) -> bool {
        let at = |index: usize| paths.get(index.checked_rem(paths.len())?);
        let (Some(tried), Some(next)) = (at(self.path_index), at(self.path_index.wrapping_add(1))) else {
            return false;
        };
        self.unanswered == 1 && tried.port().is_some() && next.port().is_none() && tried.remote == next.remote
    }

    /// How long to wait for the answer to the request just sent: each path gets its turn before the time doubles.
    fn back_off(&self, paths: usize) -> Duration {
        let turns = if self.accepted().is_some() { 1 } else { u32::try_from(paths.max(1)).unwrap_or(1) };
        let round = self.unanswered.saturating_sub(1) / turns;
        Duration::from_secs(1 << round.min(LONGEST_BACK_OFF))
    }
}

impl Accepted {
    /// The path in UDP to a server of ours that was accepted by raw GRE.
    fn upgrade(&self, paths: &[Path]) -> Option<Path> {
        let ours = self.info.token.is_some();
        let same = |p: &&Path| p.port().is_some() && p.remote == self.path.remote;
        paths.iter().find(same).copied().filter(|_| ours && self.path.port().is_none())
    }
}

impl Node {
    /// Adds a server, or changes what is known of one, and registers. Nothing happens when nothing changed.
    pub fn set_nhs(&mut self, now: Instant, config: NhsConfig) {
        let id = config.id;
        match self.state.nhs.get_mut(&id) {
            Some(nhs) if nhs.config == config => {}
            Some(nhs) if nhs.config.protocol_address == config.protocol_address => {
                self.set_paths(now, id, config.paths);
            }
            _ => {
                self.remove_nhs(now, id);
                let protocols = self.config.protocol_addresses.iter().map(|a| Protocol::of(*a));
                self.state.nhs.insert(id, Nhs::new(config, protocols));
                self.register_now(now, id);
            }
        }
    }

    /// Takes a server away; it is told by a purge.
    pub fn remove_nhs(&mut self, now: Instant, id: NhsId) {
        self.purge_registrations(now, id);
        let Some(nhs) = self.state.nhs.remove(&id) else { return };
        for protocol in nhs.registrations.keys() {
            self.state.timers.stop(Timer::Register(id, *protocol));
        }
        if self.state.preferred == Some(id) {
            self.state.preferred = None;
        }
    }

    /// Says by which paths a server may be reached now (its name was resolved again). What works is kept until
    /// another has worked; if it is not among them, registration is repeated at once.
    pub fn set_paths(&mut self, now: Instant, id: NhsId, paths: Vec<Path>) {
        let Some(nhs) = self.state.nhs.get_mut(&id) else { return };
        if nhs.config.paths == paths {
            return;
        }
        nhs.config.paths = paths;
        let settled = !nhs.registrations.is_empty()
            && nhs
                .registrations
                .values()
                .all(|r| r.accepted().is_some_and(|a| nhs.config.paths.contains(&a.path)));
        if !settled {
            self.register_now(now, id);
        }
    }

    /// Registers with a server at once, by a new request.
    pub fn register_now(&mut self, now: Instant, id: NhsId) {
        let Some(nhs) = self.state.nhs.get_mut(&id) else { return };
        for registration in nhs.registrations.values_mut() {
            registration.renew();
            registration.path_index = 0;
        }
        for protocol in nhs.registrations.keys().copied().collect::<Vec<_>>() {
            self.send_registration(now, id, protocol);
        }
    }

    /// Which server carries what has no better way, while it is up; the caller knows priorities. Otherwise the
    /// first that is up.
    pub fn set_preferred_nhs(&mut self, id: Option<NhsId>) {
        self.state.preferred = id;
    }

    /// How we stand with each server, for each of our addresses.
    pub fn nhs(&self) -> impl Iterator<Item = NhsStatus> + '_ {
        self.state.nhs.iter().flat_map(move |(id, nhs)| {
            nhs.registrations.iter().filter_map(move |(protocol, registration)| {
                let accepted = registration.accepted();
                let tried = nhs.config.paths.len().max(1);
                Some(NhsStatus {
                    nhs: *id,
                    address: self.own(*protocol)?,
                    server: accepted.map(|a| a.server).or_else(|| nhs.address(*protocol)),
                    state: match &registration.standing {
                        Standing::Trying => NhsState::Trying,
                        Standing::Accepted(a) => NhsState::Registered { since: a.since, expires: a.expires },
                        Standing::Refused(code) => NhsState::Refused(code.0),
                    },
                    path: accepted
                        .map(|a| a.path)
                        .or_else(|| nhs.config.paths.get(registration.path_index % tried).copied()),
                    observed: accepted.and_then(|a| a.observed),
                    unanswered: registration.unanswered,
                })
            })
        })
    }

    /// The timer of a registration: a refresh is due, or an answer did not come.
    pub(crate) fn registration_due(&mut self, now: Instant, id: NhsId, protocol: Protocol) {
        let Some(nhs) = self.state.nhs.get_mut(&id) else { return };
        let Some(registration) = nhs.registrations.get_mut(&protocol) else { return };
        let lost = registration.unanswered >= MOST_UNANSWERED && registration.accepted().is_some();
        let rounds = registration.unanswered / u32::try_from(nhs.config.paths.len().max(1)).unwrap_or(1);
        // Who has said what is wrong is not said to be silent, unless it was a refusal and it says nothing any more.
        let silent = rounds >= MOST_UNANSWERED
            && match registration.standing {
                Standing::Trying => nhs.reported_down.is_none(),
                Standing::Refused(_) => true,
                Standing::Accepted(_) => false,
            };
        if lost {
            registration.unanswered = 1; // one round by each path, from the first
            registration.path_index = usize::MAX;
        }
        if lost || silent {
            registration.standing = Standing::Trying;
        }
        self.send_registration(now, id, protocol);
        if lost {
            self.report_down(id, format!("no answer to {MOST_UNANSWERED} registration requests"), true);
        } else if silent {
            self.report_down(id, "no answer to registration requests".into(), true);
        }
    }

    fn send_registration(&mut self, now: Instant, id: NhsId, protocol: Protocol) {
        let Some(address) = self.own(protocol) else { return };
        let fresh = match self.state.nhs.get(&id).and_then(|n| n.registrations.get(&protocol)) {
            Some(registration) if registration.unanswered > 0 => registration.request_id,
            Some(_) => self.registration_request_id(),
            None => return,
        };
        let Some(nhs) = self.state.nhs.get_mut(&id) else { return };
        let Some(registration) = nhs.registrations.get_mut(&protocol) else { return };
        let Some(path) = registration.next_path(&nhs.config.paths) else {
            self.state.timers.stop(Timer::Register(id, protocol));
            return;
        };
        registration.request_id = fresh;
        registration.unanswered = registration.unanswered.saturating_add(1);
        let wait = registration.back_off(nhs.config.paths.len());
        let server = registration
            .accepted()
            .map(|a| a.server)
            .or_else(|| nhs.config.protocol_address.filter(|a| Protocol::of(*a) == protocol));
        let wait = self.jitter(wait);
        self.state.timers.set(Timer::Register(id, protocol), now + wait);
        let packet = self.registration_request(address, server, path, fresh);
        self.send(path, packet);
    }

    fn registration_request(&self, own: IpAddr, server: Option<IpAddr>, path: Path, id: u32) -> Packet {
        let protocol = Protocol::of(own);
        let mut flags = Flags::NAT;
        let mut prefix_length = protocol.bits();
        //= rfc2332#5.2.3
        // With the U bit there is exactly one entry, and its prefix length is 0xff.
        if self.config.unique {
            flags = flags.or(Flags::UNIQUE);
            prefix_length = 0xff;
        }
        let entry =
            Cie { prefix_length, mtu: self.config.mtu, holding_time: self.holding_time(), ..Cie::default() };
        let unspecified = match protocol {
            Protocol::V4 => IpAddr::from([0; 4]),
            Protocol::V6 => IpAddr::from([0; 16]),
        };
        let nat = Cie {
            prefix_length: protocol.bits(),
            mtu: self.config.mtu,
            nbma: Some(path.remote),
            protocol: Some(server.unwrap_or(unspecified)),
            ..Cie::default()
        };
        let mut extensions = vec![
            Extension::of_entries(ExtensionType::FORWARD_TRANSIT, &[]),
            Extension::of_entries(ExtensionType::REVERSE_TRANSIT, &[]),
            Extension::of_entries(ExtensionType::RESPONDER_ADDRESS, &[]),
            Extension::of_entries(ExtensionType::NAT, &[nat]),
            self.station(own).to_extension(),
        ];
        extensions.extend(self.config.group.as_deref().map(vendor::group_extension));
        Packet {
            hop_count: 1,
            //= rfc2332#5.2.3
            // A client that doesn't know its server's address addresses the request to itself.
            destination: server.unwrap_or(own),
            body: Body::Exchange(Exchange {
                kind: ExchangeType::RegistrationRequest,
                flags,
                request_id: id,
                entries: vec![entry],
            }),
            extensions,
            ..self.blank(own, own)
        }
    }

    /// A Registration Reply for us.
    pub(crate) fn registration_reply(&mut self, m: &Incoming<'_>, exchange: &Exchange) -> Result<(), Error> {
        let Incoming { now, path, packet, .. } = *m;
        let (id, protocol) = self.registration_asked(path, packet.protocol, exchange.request_id)?;
        let own = packet.source;
        let entry = exchange.entries.first();
        let code = entry.map_or(CieCode::SUCCESS, |e| e.code.normalised());
        if code != CieCode::SUCCESS {
            self.registration_refused(now, id, protocol, own, code);
            return Ok(());
        }
        let responder = packet
            .extension(ExtensionType::RESPONDER_ADDRESS)
            .and_then(|e| e.entries().pop())
            .unwrap_or_default();
        let configured = self.state.nhs.get(&id).and_then(|n| n.config.protocol_address);
        let server = [responder.protocol, Some(packet.destination), configured]
            .into_iter()
            .flatten()
            .find(|a| Protocol::of(*a) == protocol && *a != own && !a.is_unspecified())
            .ok_or(Error::Incomplete)?;
        let station = Station::find(packet, server);
        let info = PeerInfo {
            protocol_address: server,
            nbma_claimed: responder.nbma.unwrap_or(path.remote),
            candidates: vec![path],
            natted: responder.nbma.is_some_and(|n| n != path.remote),
            identity: m
                .env
                .proven(path)
                .map(str::to_owned)
                .or_else(|| station.as_ref().and_then(|s| s.identity.clone())),
            token: station.as_ref().and_then(|s| s.token),
            group: vendor::group(packet).filter(|g| self.config.group.as_ref() != Some(g)),
            mtu: responder.mtu,
        };
        let granted = entry.map_or(0, |e| e.holding_time);
        let holding = self.holding_time().min(if granted == 0 { u16::MAX } else { granted });
        let holding = Duration::from_secs(holding.into());
        let observed = self.observed(packet, own, path);
        let refresh = self.jitter_down(holding / 3).max(SOONEST_REFRESH);
        let Some(nhs) = self.state.nhs.get_mut(&id) else { return Ok(()) };
        let paths = &nhs.config.paths;
        let Some(registration) = nhs.registrations.get_mut(&protocol) else { return Ok(()) };
        registration.unanswered = 0;
        registration.refusals = 0;
        registration.path_index = paths.iter().position(|p| *p == path).unwrap_or(0);
        let before = registration.accepted().cloned();
        let since = before.as_ref().map_or(now, |b| b.since);
        if path.port().is_some() || before.is_none() {
            registration.upgrades = 0;
        }
        let accepted = Accepted { server, path, info, observed, since, expires: now + holding };
        registration.standing = Standing::Accepted(Box::new(accepted.clone()));
        nhs.reported_down = None;
        self.state.timers.set(Timer::Register(id, protocol), now + refresh);
        // Those who were told the way that we have just left would go on sending there.
        let left = |b: &Accepted| b.path.port().is_none() && accepted.path.port().is_some();
        if before.as_ref().is_some_and(left) {
            self.withdraw_which(now, |_| true);
        }
        let news = before.is_none_or(|b| Accepted { expires: accepted.expires, ..b } != accepted);
        if news {
            let Accepted { server, path, info, observed, .. } = accepted;
            self.event(Event::NhsUp { nhs: id, protocol_address: server, path, info, observed });
        }
        Ok(())
    }

    /// Whose answer it is: matched by request ID and path.
    fn registration_asked(
        &self,
        path: Path,
        protocol: Protocol,
        request_id: u32,
    ) -> Result<(NhsId, Protocol), Error> {
        let mut reason = Error::Unsolicited;
        for (id, nhs) in &self.state.nhs {
            let Some(registration) = nhs.registrations.get(&protocol) else { continue };
            if registration.request_id != request_id {
                continue;
            }
            if !nhs.config.paths.contains(&path) {
                reason = Error::WrongPath;
            } else if registration.unanswered == 0 {
                reason = Error::Duplicate;
            } else {
                return Ok((*id, protocol));
            }
        }
        Err(reason)
    }

    fn registration_refused(
        &mut self,
        now: Instant,
        id: NhsId,
        protocol: Protocol,
        own: IpAddr,
        code: CieCode,
    ) {
        let Some(nhs) = self.state.nhs.get_mut(&id) else { return };
        let Some(registration) = nhs.registrations.get_mut(&protocol) else { return };
        registration.unanswered = 0;
        registration.refusals = registration.refusals.saturating_add(1);
        registration.standing = Standing::Refused(code);
        // From 8 s to 64 s: a refusal seldom changes soon.
        let wait = Duration::from_secs(1 << (registration.refusals + 2).min(LONGEST_BACK_OFF));
        let wait = self.jitter(wait);
        self.state.timers.set(Timer::Register(id, protocol), now + wait);
        self.event(Event::RegistrationRefused { nhs: id, protocol_address: own, code: code.0 });
        self.report_down(id, refusal(code), false);
    }

    /// An Error Indication came back about a registration request of ours. Answers whether it was about one.
    pub(crate) fn registration_error(
        &mut self,
        path: Path,
        protocol: Protocol,
        request_id: u32,
        why: &str,
    ) -> bool {
        match self.registration_asked(path, protocol, request_id) {
            // The request stays unanswered: its timer goes on, so that a forged error can't stop us.
            Ok((id, _)) => {
                self.report_down(id, format!("the server says: {why}"), false);
                true
            }
            Err(_) => false,
        }
    }

    /// An answer to a registration request of ours came with another key than ours, or none. It may be anybody's, so
    /// that nothing follows; but a key that differs is the likeliest reason, and its user must not take it for silence.
    pub(crate) fn suspect_key(&mut self, m: &Incoming<'_>) {
        let (protocol, request_id, reason) = match &m.packet.body {
            Body::Exchange(x)
                if x.kind == ExchangeType::RegistrationReply && self.is_own(m.packet.source) =>
            {
                (m.packet.protocol, x.request_id, "it answers without our NHRP authentication key")
            }
            Body::Error { code, offender, .. } if code.normalised() == ErrorCode::AUTHENTICATION => {
                match Offender::read(offender) {
                    Ok(o) if o.message_type == MessageType::RegistrationRequest && self.is_own(o.source) => (
                        o.protocol,
                        o.request_id,
                        "authentication failed at the hub: it has another NHRP key",
                    ),
                    _ => return,
                }
            }
            _ => return,
        };
        let Ok((id, _)) = self.registration_asked(m.path, protocol, request_id) else { return };
        if let Some(reason) = self.is_news(id, format!("{reason}, it seems")) {
            self.event(Event::NhsSuspected { nhs: id, reason });
        }
    }

    /// Says that a server is down when no registration with it is left, once for each reason.
    fn report_down(&mut self, id: NhsId, reason: String, silent: bool) {
        if let Some(reason) = self.is_news(id, reason) {
            self.event(Event::NhsDown { nhs: id, reason, silent });
        }
    }

    /// The reason for which a server is down, unless it is up, or that was said last.
    fn is_news(&mut self, id: NhsId, reason: String) -> Option<String> {
        let nhs = self.state.nhs.get_mut(&id)?;
        if nhs.is_up() || nhs.reported_down.as_ref() == Some(&reason) {
            return None;
        }
        nhs.reported_down = Some(reason.clone());
        Some(reason)
    }

    /// Where the sender of a reply sees us: by our vendor extension, else by Cisco's NAT extension.
    fn observed(&self, packet: &Packet, own: IpAddr, path: Path) -> Option<Path> {
        if let Some(observed) = Station::find(packet, own).and_then(|s| s.observed) {
            return Some(observed);
        }
        let entries = packet.extension(ExtensionType::NAT)?.entries();
        let nbma = entries.iter().find(|e| e.protocol == Some(own))?.nbma?;
        // It tells no port; behind most NATs ours is kept, and the server's view of it can't be had.
        Some(match (path.port(), self.config.udp_port) {
            (Some(_), Some(port)) => Path::udp(nbma, port),
            _ => Path::gre(nbma),
        })
    }
}

/// Why a server refused a registration, for people.
fn refusal(code: CieCode) -> String {
    let why = match code {
        CieCode::PROHIBITED => {
            "administratively prohibited (4): the hub's admission does not allow this identity or tunnel address"
        }
        CieCode::NO_RESOURCES => "no room (5): the hub holds as many registrations as it may",
        CieCode::ALREADY_REGISTERED => "the tunnel address is registered by another node (14)",
        CieCode(code) => return format!("refused: code {code}"),
    };
    format!("refused: {why}")
}
