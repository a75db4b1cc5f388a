//! Answering resolution requests (RFC 2332 §5.2.1, §5.2.2): for ourselves and for what lies behind us, never from
//! what others have told us. A request for who is registered with us goes on to that station, which answers itself
//! and so knows that somebody is about to come (hole punching).

use crate::extension::{Extension, ExtensionType};
use crate::node::{Incoming, Node};
use crate::packet::{Cie, CieCode, Exchange, ExchangeType, Flags, Packet, Protocol};
use crate::resolution::nat_address;
use crate::timer::Timer;
use crate::vendor::{self, Station};
use crate::{Environment, Error, Event, PeerInfo, Route};
use ipnet::IpNet;
use packet::{Instant, Path};
use std::net::IpAddr;
use std::time::Duration;

/// A prefix wider than this is not answered for, only the one address: a default route says little.
const WIDEST: u8 = 8;

/// What to do with a request.
enum Verdict {
    /// We are the way out, for this prefix.
    Answer(IpNet),
    /// Somebody else knows.
    Forward(Path),
    /// Nobody does, or we won't.
    Refuse(CieCode),
}

/// Who put a message on the path it came by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The station that wrote it.
    Itself,
    /// A server on its way.
    Server,
}

impl Node {
    /// A Resolution Request.
    pub(crate) fn resolution_requested(
        &mut self,
        m: &Incoming<'_>,
        exchange: &Exchange,
    ) -> Result<(), Error> {
        let Incoming { now, path, packet, env, .. } = *m;
        self.may_ask(m)?;
        match self.judge(now, path, packet.destination, env) {
            Verdict::Forward(to) => self.pass_to(m, exchange, to),
            Verdict::Answer(prefix) => {
                self.refuse_unknown_extensions(m)?;
                self.answer(m, exchange, prefix);
                Ok(())
            }
            Verdict::Refuse(code) => {
                self.refuse_unknown_extensions(m)?;
                self.refuse(m, exchange, code);
                Ok(())
            }
        }
    }

    /// Nobody asks in another's name: an answer makes the responder send what is for the asker where the request
    /// says. A server holds those registered with it to their paths; who is no server takes requests from its
    /// servers, and from stations it knows by earlier requests or answers (some ask again by the direct path).
    fn may_ask(&self, m: &Incoming<'_>) -> Result<(), Error> {
        let Incoming { path, packet, .. } = m;
        let source = packet.source;
        if !self.config.serve {
            let known = self.is_nhs_path(path) || self.knows(source, m);
            return if known { Ok(()) } else { Err(Error::UnknownSender) };
        }
        let registered = self.state.registered.covering(source).is_some();
        if registered && !self.speaks_for(path, packet) { Err(Error::SpoofedSource) } else { Ok(()) }
    }

    /// Do we know, from an answer of ours or to us, that this station may be at the path of a message? Where it is
    /// proven who is there, it must be the one that we know; several may be behind one address.
    pub(crate) fn knows(&self, station: IpAddr, m: &Incoming<'_>) -> bool {
        let proven = m.env.proven(m.path);
        let same = |info: &PeerInfo| {
            let named = proven.is_none() || info.identity.is_none() || info.identity.as_deref() == proven;
            named && info.candidates.iter().any(|c| c.remote == m.path.remote)
        };
        let mut resolved = self.state.resolved.values().filter(|r| r.info.protocol_address == station);
        self.state.answered.knows(station, &m.path, proven) || resolved.any(|r| same(&r.info))
    }

    fn judge(&self, now: Instant, from: Path, destination: IpAddr, env: &dyn Environment) -> Verdict {
        if !self.config.shortcuts || self.own(Protocol::of(destination)).is_none() {
            return Verdict::Refuse(CieCode::PROHIBITED);
        }
        // Ourselves, or a peer mapped by hand: it knows no path but ours.
        if let Some(prefix) = self.own_or_mapped(destination) {
            return Verdict::Answer(prefix);
        }
        // Nobody is told the way to himself.
        let onward =
            |to: Path| if to == from { Verdict::Refuse(CieCode::NO_BINDING) } else { Verdict::Forward(to) };
        if let Some((_, r)) = self.state.registered.covering(destination).filter(|(_, r)| r.expires > now) {
            return onward(r.path);
        }
        if let Some(prefix) = self.leads_here(destination, env) {
            return Verdict::Answer(prefix);
        }
        match env.route(destination) {
            Route::Overlay { .. } if self.config.serve => {
                self.hop_to(destination, env).map_or(Verdict::Refuse(CieCode::NO_BINDING), onward)
            }
            _ => Verdict::Refuse(CieCode::NO_BINDING),
        }
    }

    /// The prefix around `destination` that we are the way to, if we are.
    pub(crate) fn leads_here(&self, destination: IpAddr, env: &dyn Environment) -> Option<IpNet> {
        if let Some(prefix) = self.own_or_mapped(destination) {
            return Some(prefix);
        }
        match env.route(destination) {
            Route::Local => Some(IpNet::from(destination)),
            //= rfc2332#6.3
            // For the shortest prefix that covers the destination and has no more specific route inside.
            Route::OffOverlay { prefix } if prefix.prefix_len() >= WIDEST => Some(prefix),
            Route::OffOverlay { .. } => Some(IpNet::from(destination)),
            Route::Overlay { next_hop, prefix } => self.mapped(next_hop).map(|_| prefix),
            Route::Unreachable => None,
        }
    }

    fn own_or_mapped(&self, destination: IpAddr) -> Option<IpNet> {
        if self.is_own(destination) { Some(IpNet::from(destination)) } else { self.mapped(destination) }
    }

    /// The prefix of a mapping by hand that covers an address.
    fn mapped(&self, address: IpAddr) -> Option<IpNet> {
        if self.state.statics.contains_key(&address) {
            return Some(IpNet::from(address));
        }
        let prefixes = self.state.statics.values().flat_map(|s| &s.prefixes);
        prefixes.filter(|p| p.contains(&address)).max_by_key(|p| p.prefix_len()).copied()
    }

    /// We are the way out.
    fn answer(&mut self, m: &Incoming<'_>, exchange: &Exchange, prefix: IpNet) {
        let Incoming { now, path, packet, .. } = *m;
        let Some(own) = self.own(packet.protocol) else { return };
        let unique = exchange.flags.contains(Flags::UNIQUE_ANSWER);
        let prefix = if unique { IpNet::from(packet.destination) } else { prefix };
        let holding_time = Duration::from_secs(self.holding_time().into());
        let peer = self.requester(m, exchange);
        if !self.state.answered.insert(&peer, prefix, now + holding_time, self.config.max_entries) {
            return self.refuse(m, exchange, CieCode::NO_RESOURCES);
        }
        self.state.timers.start(Timer::Sweep, now + holding_time);
        let entry = Cie {
            prefix_length: if unique { 0xff } else { prefix.prefix_len() },
            mtu: self.config.mtu,
            ..self.own_entry(own)
        };
        let flags = Flags::AUTHORITATIVE.or(Flags::DESTINATION_STABLE);
        let mut reply = self.answer_to(packet, exchange, flags, entry, own);
        let nat = self.nat_extension(own);
        match reply.extension_mut(ExtensionType::NAT) {
            Some(extension) => *extension = nat,
            None if exchange.flags.contains(Flags::NAT) && !nat.value.is_empty() => {
                reply.extensions.push(nat)
            }
            None => {}
        }
        reply.extensions.push(self.station(own).to_extension());
        self.send(path, reply);
        self.event(Event::Asked { peer, prefix, holding_time });
    }

    /// A negative answer.
    fn refuse(&mut self, m: &Incoming<'_>, exchange: &Exchange, code: CieCode) {
        let Incoming { path, packet, .. } = *m;
        let own = self.own(packet.protocol).or_else(|| self.config.protocol_addresses.first().copied());
        let Some(own) = own else { return };
        let entry = Cie { prefix_length: packet.protocol.bits(), ..self.own_entry(own) }.refused(code);
        let reply = self.answer_to(packet, exchange, Flags::default(), entry, own);
        self.send(path, reply);
    }

    //= rfc2332#5.2.2
    /// All extensions of the request come back with the reply; the responder is named.
    fn answer_to(
        &self,
        packet: &Packet,
        exchange: &Exchange,
        flags: Flags,
        entry: Cie,
        own: IpAddr,
    ) -> Packet {
        let echoed = Exchange { flags: Self::echoed_flags(exchange.flags).or(flags), ..exchange.clone() };
        let mut reply = self.reply_to(packet, &echoed, ExchangeType::ResolutionReply, vec![entry]);
        self.name_responder(&mut reply, own);
        reply
    }

    /// Fills the responder address extension with our own entry, where the request has one.
    pub(crate) fn name_responder(&self, reply: &mut Packet, own: IpAddr) {
        let entry = self.own_entry(own);
        if let Some(responder) = reply.extension_mut(ExtensionType::RESPONDER_ADDRESS) {
            responder.value.clear();
            responder.push(&entry);
        }
    }

    /// What a request tells of who asks.
    fn requester(&self, m: &Incoming<'_>, exchange: &Exchange) -> PeerInfo {
        let Incoming { path, packet, .. } = *m;
        let source = packet.source;
        let station = Station::find(packet, source);
        let origin = self.origin(&path, packet, ExtensionType::FORWARD_TRANSIT, source);
        let direct = (origin == Origin::Itself).then_some(path);
        let claimed = packet.source_nbma.or_else(|| direct.map(|p| p.remote)).unwrap_or(path.remote);
        let candidates = candidates(direct, station.as_ref(), nat_address(packet, source), claimed);
        PeerInfo {
            protocol_address: source,
            nbma_claimed: claimed,
            natted: candidates.first().is_some_and(|c| c.remote != claimed),
            candidates,
            identity: self.identity_of(m, origin, station.as_ref()),
            token: station.and_then(|s| s.token),
            group: vendor::group(packet),
            mtu: exchange.entries.first().map_or(0, |e| e.mtu),
        }
    }

    /// Did a message come straight from `station`, or through a server? Servers sign the transit record; a server
    /// of ours speaks for itself only by its own address.
    pub(crate) fn origin(
        &self,
        path: &Path,
        packet: &Packet,
        record: ExtensionType,
        station: IpAddr,
    ) -> Origin {
        let by_server = match packet.extension(record) {
            Some(Extension { value, .. }) if !value.is_empty() => true,
            Some(_) => self.is_foreign_server(path, station),
            None => self.is_nhs_path(path) && self.is_foreign_server(path, station),
        };
        if by_server { Origin::Server } else { Origin::Itself }
    }

    /// Who a station is: proven when it stands at the other end of the path, else as it asserts.
    pub(crate) fn identity_of(
        &self,
        m: &Incoming<'_>,
        origin: Origin,
        station: Option<&Station>,
    ) -> Option<String> {
        let proven = m.env.proven(m.path).filter(|_| origin == Origin::Itself).map(str::to_owned);
        proven.or_else(|| station.and_then(|s| s.identity.clone()))
    }

    /// Is it the path of a server of ours with another address than this?
    fn is_foreign_server(&self, path: &Path, station: IpAddr) -> bool {
        let mut servers = self.state.nhs.values().flat_map(|n| n.accepted()).filter(|a| a.path == *path);
        servers.next().is_some_and(|first| first.server != station && servers.all(|a| a.server != station))
    }
}

/// Ways to try to a station, best first: whence it wrote, where a server saw it, where it says it is.
pub(crate) fn candidates(
    direct: Option<Path>,
    station: Option<&Station>,
    nat: Option<IpAddr>,
    claimed: IpAddr,
) -> Vec<Path> {
    let port = station.and_then(|s| s.udp_port);
    let wrapped = |remote| match port {
        Some(port) => Path::udp(remote, port),
        None => Path::gre(remote),
    };
    let private = station.and_then(|s| s.private).filter(|p| *p != claimed);
    let all = [
        direct,
        station.and_then(|s| s.observed),
        nat.map(wrapped),
        Some(wrapped(claimed)),
        private.map(wrapped),
    ];
    let mut ways = Vec::with_capacity(all.len());
    for way in all.into_iter().flatten() {
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways
}
