//! Accepting registrations, as a server (RFC 2332 §5.2.3, §5.2.4).

use crate::cache::{Holder, Registered};
use crate::environment::RegistrationClaim;
use crate::extension::ExtensionType;
use crate::node::{Incoming, Node};
use crate::packet::address::is_host;
use crate::packet::{Cie, CieCode, ErrorCode, Exchange, ExchangeType, Flags, Protocol};
use crate::timer::Timer;
use crate::vendor::{self, Station};
use crate::{Error, Event, PeerInfo};
use ipnet::IpNet;
use packet::Instant;
use std::net::IpAddr;
use std::time::Duration;

/// Most registrations by one path: a station has one or two addresses.
const MOST_PER_PATH: usize = 16;
/// Most entries of one request that are looked at.
const MOST_ENTRIES: usize = 16;

/// Why a registration is refused.
struct Denial {
    code: CieCode,
    reason: String,
}

impl Denial {
    fn new(code: CieCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl Node {
    /// A Registration Request.
    pub(crate) fn registration_requested(
        &mut self,
        m: &Incoming<'_>,
        exchange: &Exchange,
    ) -> Result<(), Error> {
        let Incoming { now, path, packet, bytes, .. } = *m;
        let Some(own) = self.own(packet.protocol) else { return Err(Error::NotServer) };
        // Registrations are not passed on: the path by which a station is reached must be its own.
        if packet.destination != packet.source && !self.is_own(packet.destination) {
            self.report(now, path, packet.source, ErrorCode::UNREACHABLE, bytes);
            return Err(Error::NoRoute);
        }
        //= rfc2332#5.2.3
        // With the U bit there is exactly one entry.
        let unique = exchange.flags.contains(Flags::UNIQUE);
        let count = exchange.entries.len();
        if count == 0 || count > MOST_ENTRIES || unique && count != 1 {
            self.report(now, path, packet.source, ErrorCode::PROTOCOL_ERROR, bytes);
            return Err(Error::EntryCount);
        }
        let mut entries = Vec::with_capacity(count);
        let mut natted = false;
        for entry in &exchange.entries {
            let address = entry.protocol.unwrap_or(packet.source);
            match self.register(m, entry, unique) {
                Ok(behind_nat) => {
                    natted |= behind_nat;
                    entries.push(Cie { code: CieCode::SUCCESS, ..entry.clone() });
                }
                Err(Denial { code, reason }) => {
                    entries.push(entry.clone().refused(code));
                    let code = code.0;
                    self.event(Event::RegistrationDenied { protocol_address: address, path, code, reason });
                }
            }
        }
        let mut reply = self.reply_to(packet, exchange, ExchangeType::RegistrationReply, entries);
        reply.destination = own;
        self.name_responder(&mut reply, own);
        if natted
            && path.remote != packet.source_nbma.unwrap_or(path.remote)
            && let Some(nat) = reply.extension_mut(ExtensionType::NAT)
        {
            nat.push(&Cie {
                prefix_length: packet.protocol.bits(),
                mtu: self.config.mtu,
                nbma: Some(path.remote),
                protocol: Some(packet.source),
                ..Cie::default()
            });
        }
        Station::observe(&mut reply, packet.source, path, None);
        reply.extensions.push(self.station(own).to_extension());
        self.send(path, reply);
        Ok(())
    }

    /// Takes one entry in, or says why not. Answers whether the station is behind a NAT.
    fn register(&mut self, m: &Incoming<'_>, entry: &Cie, unique: bool) -> Result<bool, Denial> {
        let Incoming { now, path, packet, env, .. } = *m;
        if !self.config.serve {
            return Err(Denial::new(CieCode::PROHIBITED, "this node is not a server"));
        }
        //= rfc2332#5.2.3
        // What the entry leaves out is taken from the common header.
        let address = entry.protocol.unwrap_or(packet.source);
        let nbma_claimed = entry.nbma.or(packet.source_nbma).unwrap_or(path.remote);
        if Protocol::of(address) != packet.protocol || address.is_unspecified() || address.is_multicast() {
            return Err(Denial::new(CieCode::PROHIBITED, "not an address that can be registered"));
        }
        let prefix = if unique { IpNet::from(address) } else { entry.prefix(address) };
        let station = Station::find(packet, packet.source);
        let asserted = station.as_ref().and_then(|s| s.identity.clone());
        let identity = env.proven(path).map(str::to_owned).or(asserted);
        let claim = RegistrationClaim { prefix, nbma_claimed, path, identity: identity.as_deref() };
        env.authorize_registration(&claim).map_err(|r| Denial::new(CieCode::PROHIBITED, r.0))?;
        let port_changed = match (station.as_ref().and_then(|s| s.udp_port), path.port()) {
            (Some(own), Some(seen)) => own != seen,
            _ => false,
        };
        let natted = nbma_claimed != path.remote || port_changed;
        let info = PeerInfo {
            protocol_address: address,
            nbma_claimed,
            candidates: vec![path],
            natted,
            identity,
            token: station.and_then(|s| s.token),
            group: vendor::group(packet),
            mtu: entry.mtu,
        };
        let holding = match entry.holding_time {
            0 => self.config.holding_time,
            seconds => Duration::from_secs(seconds.into()),
        };
        let entry = Registered { info, path, unique, expires: now + holding };
        self.admit(now, &prefix, &entry)?;
        self.state.timers.set(Timer::Unregister(prefix), entry.expires);
        let (info, expires) = (entry.info.clone(), entry.expires);
        let before = self.state.registered.insert(prefix, entry);
        let moved_from = before.as_ref().map(|b| b.path).filter(|p| *p != path);
        self.event(Event::Registered { info, prefix, expires, moved_from, new: before.is_none() });
        Ok(natted)
    }

    /// Is there room, and nobody else who holds the address?
    fn admit(&self, now: Instant, prefix: &IpNet, entry: &Registered) -> Result<(), Denial> {
        let taken = |by: &str| Denial::new(CieCode::ALREADY_REGISTERED, format!("the address is {by}"));
        if self.is_own(entry.info.protocol_address) || self.is_own(prefix.addr()) && is_host(prefix) {
            return Err(taken("this server's own"));
        }
        if self.state.statics.contains_key(&entry.info.protocol_address) {
            return Err(taken("mapped by hand"));
        }
        let before = self.state.registered.get(prefix).filter(|b| b.expires > now);
        //= rfc2332#5.2.3
        // A unique address stays with who registered it. That is an identity, not an NBMA address: the same
        // station at another address replaces itself.
        if let Some(before) = before
            && before.holder() != entry.holder()
            && (before.unique || entry.unique)
        {
            return Err(taken(&match before.holder() {
                Holder::Identity(name) => format!("registered by {name}"),
                Holder::Nbma(nbma) => format!("registered by the station at {nbma}"),
            }));
        }
        let full = before.is_none() && self.state.registered.len() >= self.config.max_entries;
        let crowded = before.is_none_or(|b| b.path != entry.path)
            && self.state.registered.on_path(&entry.path) >= MOST_PER_PATH;
        if full || crowded {
            return Err(Denial::new(CieCode::NO_RESOURCES, "no room for another registration"));
        }
        Ok(())
    }

    /// The timer of a registration with us: it was not refreshed.
    pub(crate) fn registration_expired(&mut self, prefix: IpNet) {
        self.unregister(prefix, "expired");
    }

    /// Ends a registration with us.
    pub(crate) fn unregister(&mut self, prefix: IpNet, reason: &'static str) -> Option<IpAddr> {
        self.state.timers.stop(Timer::Unregister(prefix));
        let entry = self.state.registered.remove(&prefix)?;
        let protocol_address = entry.info.protocol_address;
        self.event(Event::Unregistered { protocol_address, reason });
        Some(protocol_address)
    }
}
