//! Traffic Indications (Cisco's message 8, draft-detienne-dmvpn-01): a server tells who sent a packet through it
//! that there is a shorter way.

use crate::node::{Incoming, Node};
use crate::packet::reader::Reader;
use crate::packet::{Body, Packet, Protocol};
use crate::{Error, Event, Route};
use packet::{Instant, Path};
use std::net::IpAddr;

/// Most octets of the triggering packet that go along.
const MOST_QUOTED: usize = 128;

impl Node {
    /// Tells the peer at `to` that the packet it sent (`trigger`, from its IP header on) could go a shorter way.
    /// Limited for each peer and each pair of source and destination; answers whether one was sent.
    pub fn indicate(&mut self, now: Instant, to: Path, trigger: &[u8]) -> bool {
        let Ok((source, destination)) = addresses(trigger) else { return false };
        let Some(own) = self.own(Protocol::of(source)) else { return false };
        // A peer mapped by hand doesn't speak NHRP.
        if !self.config.shortcuts || self.state.statics.values().any(|s| s.path == to) {
            return false;
        }
        // The path first: a pair whose turn it is not yet among all that go by a busy path has not had its own.
        if !self.limits.indicated_pairs.has(now, &(source, destination))
            || !self.limits.indications.take(now, to)
            || !self.limits.indicated_pairs.take(now, (source, destination))
        {
            return false;
        }
        let trigger = trigger.get(..MOST_QUOTED).unwrap_or(trigger).to_vec();
        // Addressed to the source of the packet, as FRR and OpenNHRP do; the draft says its destination. All read
        // the packet inside. Hop count 1: Cisco drops 0.
        let packet =
            Packet { hop_count: 1, body: Body::Indication { code: 0, trigger }, ..self.blank(own, source) };
        self.send(to, packet);
        true
    }

    /// A Traffic Indication arrived.
    pub(crate) fn indicated(&mut self, m: &Incoming<'_>, trigger: &[u8]) -> Result<(), Error> {
        let Incoming { path, env, .. } = *m;
        let (source, destination) = addresses(trigger)?;
        if !self.is_nhs_path(&path) && self.state.registered.on_path(&path) == 0 {
            return Err(Error::UnknownSender);
        }
        //= rfc2332#6.4
        // Nothing is resolved for traffic that came from the overlay: its own station does that (else the
        // requests would go round, the "domino effect").
        if !self.config.shortcuts || !matches!(env.route(source), Route::Local | Route::OffOverlay { .. }) {
            return Err(Error::NotOurTraffic);
        }
        self.event(Event::Indicated { source, destination, path });
        Ok(())
    }
}

/// Source and destination of an IP packet, of which the beginning is enough.
fn addresses(packet: &[u8]) -> Result<(IpAddr, IpAddr), Error> {
    let (skip, length) = match packet.first().ok_or(Error::Trigger)? >> 4 {
        4 => (12, 4),
        6 => (8, 16),
        _ => return Err(Error::Trigger),
    };
    let mut reader = Reader::new(packet);
    let mut read = || -> Result<_, Error> {
        reader.take(skip)?;
        Ok((reader.address(length)?, reader.address(length)?))
    };
    match read().map_err(|_| Error::Trigger)? {
        (Some(source), Some(destination)) => Ok((source, destination)),
        _ => Err(Error::Trigger),
    }
}
