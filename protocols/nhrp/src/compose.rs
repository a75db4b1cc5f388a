//! What handlers share to write messages: our addresses, our entries, replies, IDs.

use crate::counters::count;
use crate::event::{Event, Transmit};
use crate::extension::{Extension, ExtensionType};
use crate::node::Node;
use crate::packet::{
    Body, Cie, ErrorCode, Exchange, ExchangeType, Family, Flags, MessageType, Packet, Protocol,
};
use crate::registration::Nhs;
use crate::vendor::{Station, capability};
use packet::Path;
use rand::RngExt;
use std::net::IpAddr;
use std::time::Duration;

/// Hop count of what travels further than to our server.
const HOPS: u8 = 64;

impl Node {
    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Sends a message: authentication is made anew, since it is hop by hop.
    pub(crate) fn send(&mut self, path: Path, mut packet: Packet) {
        packet.extensions.retain(|e| e.kind != ExtensionType::AUTHENTICATION);
        if let Some(password) = &self.config.authentication {
            packet.extensions.push(Extension::authentication(password));
        }
        let kind = packet.message_type();
        let quirk = self.config.quirks.pad_error_indications && kind == MessageType::ErrorIndication;
        match packet.encode(if quirk { 16 } else { 0 }) {
            Ok(payload) => {
                count(&mut self.state.counters.sent, kind);
                self.transmits.push_back(Transmit { path, payload });
            }
            Err(reason) => count(&mut self.state.counters.dropped, reason),
        }
    }

    /// A message of ours from `source` to `destination`, still without a body.
    pub(crate) fn blank(&self, source: IpAddr, destination: IpAddr) -> Packet {
        Packet {
            family: Family::of(self.config.nbma_address),
            protocol: Protocol::of(source),
            hop_count: HOPS,
            source_nbma: Some(self.config.nbma_address),
            source,
            destination,
            body: Body::Error { code: ErrorCode::default(), offset: 0, offender: Vec::new() },
            extensions: Vec::new(),
        }
    }

    /// The reply to a request: addresses, flags that are copied, and all extensions echoed.
    pub(crate) fn reply_to(
        &self,
        request: &Packet,
        exchange: &Exchange,
        kind: ExchangeType,
        entries: Vec<Cie>,
    ) -> Packet {
        let Exchange { flags, request_id, .. } = *exchange;
        Packet {
            hop_count: HOPS,
            body: Body::Exchange(Exchange { kind, flags, request_id, entries }),
            ..request.clone()
        }
    }

    /// Our tunnel address of this IP version.
    pub(crate) fn own(&self, protocol: Protocol) -> Option<IpAddr> {
        self.config.protocol_addresses.iter().copied().find(|a| Protocol::of(*a) == protocol)
    }

    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.config.protocol_addresses.contains(&address)
    }

    /// Is it a path of one of our servers?
    pub(crate) fn is_nhs_path(&self, path: &Path) -> bool {
        self.state.nhs.values().any(|nhs| nhs.config.paths.contains(path))
    }

    /// How we describe ourselves to stations of ours.
    pub(crate) fn station(&self, own: IpAddr) -> Station {
        Station {
            identity: Some(self.config.identity.clone()).filter(|i| !i.is_empty()),
            token: Some(self.state.token),
            private: Some(self.config.nbma_address),
            udp_port: self.config.udp_port,
            capabilities: capability::PROBES,
            ..Station::new(own)
        }
    }

    /// Our own CIE, as it stands in the responder address and transit extensions.
    pub(crate) fn own_entry(&self, own: IpAddr) -> Cie {
        Cie {
            holding_time: self.holding_time(),
            nbma: Some(self.config.nbma_address),
            protocol: Some(own),
            ..Cie::default()
        }
    }

    /// Our public NBMA address, where a server sees another than we claim.
    pub(crate) fn public_nbma(&self) -> Option<IpAddr> {
        let observed = |nhs: &Nhs| nhs.accepted().find_map(|a| a.observed).map(|p| p.remote);
        self.state.nhs.values().find_map(observed).filter(|a| *a != self.config.nbma_address)
    }

    /// Fills our own CIE into Cisco's NAT extension, or empties it when we are not behind a NAT.
    pub(crate) fn nat_extension(&self, own: IpAddr) -> Extension {
        let entry = self.public_nbma().map(|nbma| Cie {
            prefix_length: Protocol::of(own).bits(),
            mtu: self.config.mtu,
            nbma: Some(nbma),
            protocol: Some(own),
            ..Cie::default()
        });
        Extension::of_entries(ExtensionType::NAT, entry.as_slice())
    }

    /// Our holding time in seconds, as on the wire.
    pub(crate) fn holding_time(&self) -> u16 {
        u16::try_from(self.config.holding_time.as_secs()).unwrap_or(u16::MAX).max(1)
    }

    /// A new request ID.
    pub(crate) const fn take_request_id(&mut self) -> u32 {
        let id = self.state.next_request_id;
        self.state.next_request_id = id.wrapping_add(1);
        id
    }

    /// The request ID for a registration or a purge.
    pub(crate) const fn registration_request_id(&mut self) -> u32 {
        if self.config.quirks.fixed_request_id { self.state.fixed_request_id } else { self.take_request_id() }
    }

    /// The time, a quarter shorter to a quarter longer, so that many stations don't act at once.
    pub(crate) fn jitter(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.random_range(0.75..1.25))
    }

    /// The time, up to a tenth shorter: for what must not be late.
    pub(crate) fn jitter_down(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.random_range(0.9..=1.0))
    }

    /// Flags of a request that its reply repeats.
    pub(crate) const fn echoed_flags(flags: Flags) -> Flags {
        flags.and(Flags(Flags::ROUTER.0 | Flags::SOURCE_STABLE.0 | Flags::UNIQUE_ANSWER.0 | Flags::NAT.0))
    }
}
