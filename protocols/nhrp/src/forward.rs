//! Passing messages on, as a server on their way (RFC 2332 §5.3, §5.3.2, §5.3.3).
//!
//! Requests follow the route to their destination protocol address, replies that to their source protocol
//! address. Each server leaves its address in the transit record, by which a loop is found, and takes one from the
//! hop count.

use crate::environment::AnswerClaim;
use crate::extension::{Extension, ExtensionType};
use crate::node::{Incoming, Node, has_unknown_compulsory};
use crate::packet::{Cie, CieCode, ErrorCode, Exchange, ExchangeType, Flags, Packet, Protocol};
use crate::vendor::Station;
use crate::{Environment, Error, Route};
use packet::{Instant, Path};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long the way back of a request is remembered.
const REMEMBERED: Duration = Duration::from_secs(40);
/// Most requests of one path that are remembered.
const MOST_PER_PATH: usize = 512;

/// Where requests that were passed on came from: for replies whose way back routing doesn't know (the requester is
/// registered elsewhere).
pub(crate) struct Forwards {
    most: usize,
    pending: BTreeMap<(IpAddr, u32), Forward>,
    by_path: BTreeMap<Path, usize>,
}

struct Forward {
    from: Path,
    until: Instant,
}

impl Forwards {
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, pending: BTreeMap::new(), by_path: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn remember(&mut self, now: Instant, source: IpAddr, request_id: u32, from: Path) {
        let key = (source, request_id);
        let until = now + REMEMBERED;
        if let Some(pending) = self.pending.get_mut(&key).filter(|p| p.from == from) {
            pending.until = until;
            return;
        }
        if self.pending.len() >= self.most {
            self.sweep(now);
        }
        let of_path = self.by_path.get(&from).copied().unwrap_or(0);
        if self.pending.len() >= self.most || of_path >= MOST_PER_PATH || self.pending.contains_key(&key) {
            return; // passed on all the same: most replies find their way by routing
        }
        self.pending.insert(key, Forward { from, until });
        *self.by_path.entry(from).or_insert(0) += 1;
    }

    fn came_from(&self, source: IpAddr, request_id: u32) -> Option<Path> {
        self.pending.get(&(source, request_id)).map(|p| p.from)
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        self.pending.retain(|_, pending| pending.until > now);
        self.by_path.clear();
        for pending in self.pending.values() {
            *self.by_path.entry(pending.from).or_insert(0) += 1;
        }
    }
}

impl Node {
    /// Passes on a message that is for somebody else; its type says in which direction.
    pub(crate) fn pass_on(&mut self, m: &Incoming<'_>, exchange: &Exchange) -> Result<(), Error> {
        let Incoming { packet, env, .. } = *m;
        if !self.config.serve {
            return Err(Error::NotServer);
        }
        let target = match exchange.kind {
            ExchangeType::RegistrationReply => return Err(Error::Unsolicited),
            ExchangeType::ResolutionReply => {
                self.authorize_passing(m, exchange)?;
                packet.source
            }
            ExchangeType::PurgeReply => packet.source,
            ExchangeType::PurgeRequest if !self.speaks_for(&m.path, packet) => {
                return Err(Error::SpoofedSource);
            }
            _ => packet.destination,
        };
        let remembered = self.forwards.came_from(packet.source, exchange.request_id);
        let is_reply = matches!(exchange.kind, ExchangeType::ResolutionReply | ExchangeType::PurgeReply);
        let to = self
            .known_path(target)
            .or_else(|| remembered.filter(|_| is_reply))
            .or_else(|| self.hop_to(target, env));
        match to {
            Some(to) => self.pass_to(m, exchange, to),
            None => {
                //= rfc2332#5.2.7
                // Requests that can't go on are answered; replies have nobody to be answered to.
                if !is_reply {
                    self.report_in_transit(m, ErrorCode::UNREACHABLE);
                }
                Err(Error::NoRoute)
            }
        }
    }

    /// Passes a message on to the next hop.
    pub(crate) fn pass_to(&mut self, m: &Incoming<'_>, exchange: &Exchange, to: Path) -> Result<(), Error> {
        let Incoming { now, path: from, packet, .. } = *m;
        if from == to {
            return Err(Error::Reflected);
        }
        //= rfc2332#5.1
        // A message whose hop count is used up is not passed on; its source is told.
        if packet.hop_count <= 1 {
            self.report_in_transit(m, ErrorCode::HOP_COUNT);
            return Err(Error::HopCount);
        }
        let is_request =
            matches!(exchange.kind, ExchangeType::ResolutionRequest | ExchangeType::PurgeRequest);
        let mut passed = Packet { hop_count: packet.hop_count - 1, ..packet.clone() };
        let (record, about) = if is_request {
            (ExtensionType::FORWARD_TRANSIT, Some(packet.source))
        } else {
            (ExtensionType::REVERSE_TRANSIT, exchange.entries.first().and_then(|e| e.protocol))
        };
        if let Some(about) = about {
            let proven = m.env.proven(from);
            self.add_what_we_see(from, &mut passed, exchange.flags, record, about, proven);
        }
        //= rfc2332#5.3
        // With an unknown compulsory extension a message is passed on as it is, without our record.
        if !has_unknown_compulsory(packet)
            && let Some(own) = self.own(packet.protocol)
            && let Some(transit) = passed.extension_mut(record)
        {
            transit.push(&self.own_entry(own));
        }
        if is_request {
            self.forwards.remember(now, packet.source, exchange.request_id, from);
        }
        self.send(to, passed);
        Ok(())
    }

    /// The first server on the way adds where it sees the station that wrote a message, as Cisco's NAT extension
    /// and ours have it.
    fn add_what_we_see(
        &self,
        from: Path,
        passed: &mut Packet,
        flags: Flags,
        record: ExtensionType,
        about: IpAddr,
        proven: Option<&str>,
    ) {
        let passed_before = passed.extension(record).is_some_and(|e| !e.value.is_empty());
        let itself = self.state.registered.covering(about).is_some_and(|(_, r)| r.path == from);
        if !passed_before || itself {
            // Those further on have this from us, whom they know, and not from the station itself.
            Station::observe(passed, about, from, proven);
        }
        let registered = self.state.registered.covering(about).map(|(_, r)| r);
        let Some(seen) = registered.filter(|r| r.path.remote != r.info.nbma_claimed) else { return };
        let entry = Cie {
            prefix_length: Protocol::of(about).bits(),
            mtu: seen.info.mtu,
            nbma: Some(seen.path.remote),
            protocol: Some(about),
            ..Cie::default()
        };
        match passed.extension_mut(ExtensionType::NAT) {
            Some(nat) if nat.value.is_empty() => nat.push(&entry),
            Some(_) => {}
            // Left out, though its sender understands it: Cisco's hubs add it.
            None if flags.contains(Flags::NAT) => {
                passed.extensions.push(Extension::of_entries(ExtensionType::NAT, &[entry]));
            }
            None => {}
        }
    }

    /// Answers that pass through us are held to the same claims as those for us.
    fn authorize_passing(&self, m: &Incoming<'_>, exchange: &Exchange) -> Result<(), Error> {
        let Incoming { path, packet, env, .. } = *m;
        for entry in exchange.entries.iter().filter(|e| e.code == CieCode::SUCCESS) {
            let responder = entry.protocol.ok_or(Error::Incomplete)?;
            let origin = self.origin(&path, packet, ExtensionType::REVERSE_TRANSIT, responder);
            let identity = self.identity_of(m, origin, Station::find(packet, responder).as_ref());
            let prefix = entry.prefix(packet.destination);
            let claim = AnswerClaim { prefix, responder, path, identity: identity.as_deref() };
            env.authorize_answer(&claim).map_err(|_| Error::AnswerDenied)?;
        }
        Ok(())
    }

    /// Passes on an Error Indication that is for somebody else.
    pub(crate) fn pass_on_error(&mut self, m: &Incoming<'_>) -> Result<(), Error> {
        let Incoming { path, packet, env, .. } = *m;
        if !self.config.serve {
            return Err(Error::NotServer);
        }
        if packet.hop_count <= 1 {
            return Err(Error::HopCount);
        }
        let to = self.hop_to(packet.destination, env).ok_or(Error::NoRoute)?;
        if to == path {
            return Err(Error::Reflected);
        }
        self.send(to, Packet { hop_count: packet.hop_count - 1, ..packet.clone() });
        Ok(())
    }

    /// Has the message been here before?
    //= rfc2332#5.3.2
    //= rfc2332#5.3.3
    // Our own protocol address in the transit record, or as the responder of a reply that is not for us, is a loop:
    // the message is discarded and its source told.
    pub(crate) fn detect_loop(&mut self, m: &Incoming<'_>, exchange: &Exchange) -> Result<(), Error> {
        let Incoming { packet, .. } = *m;
        let own = &self.config.protocol_addresses;
        let names_us = |kind| packet.extension(kind).is_some_and(|e: &Extension| e.names(own));
        let is_reply = packet.message_type().is_reply();
        let looped = if is_reply {
            names_us(ExtensionType::REVERSE_TRANSIT)
                || !self.is_own(packet.source) && names_us(ExtensionType::RESPONDER_ADDRESS)
        } else {
            names_us(ExtensionType::FORWARD_TRANSIT)
        };
        if !looped {
            return Ok(());
        }
        if !self.is_own(packet.source) && exchange.kind != ExchangeType::RegistrationReply {
            self.report_in_transit(m, ErrorCode::LOOP);
        }
        Err(Error::Loop)
    }

    /// The next hop of a message to this protocol address: who is known by it, else who routing says leads there,
    /// else our own server.
    pub(crate) fn hop_to(&self, target: IpAddr, env: &dyn Environment) -> Option<Path> {
        let by_route = || match env.route(target) {
            Route::Overlay { next_hop, .. } => self.known_path(next_hop).or_else(|| self.server_path(target)),
            Route::Unreachable => self.server_path(target),
            Route::Local | Route::OffOverlay { .. } => None,
        };
        self.known_path(target).or_else(by_route)
    }

    /// The path of a station that is registered with us, or of a server of ours, by its protocol address.
    pub(crate) fn known_path(&self, address: IpAddr) -> Option<Path> {
        let registered = self.state.registered.covering(address).map(|(_, r)| r.path);
        registered.or_else(|| {
            let mut servers = self.state.nhs.values().flat_map(|n| n.accepted());
            servers.find(|a| a.server == address).map(|a| a.path)
        })
    }

    /// The path of the server that carries what has no better way.
    pub(crate) fn server_path(&self, target: IpAddr) -> Option<Path> {
        let protocol = Protocol::of(target);
        let path = |id| {
            let nhs = self.state.nhs.get(id)?;
            nhs.registrations.get(&protocol)?.accepted().map(|a| a.path)
        };
        self.state.preferred.as_ref().and_then(path).or_else(|| self.state.nhs.keys().find_map(path))
    }
}
