//! The walk of a packet: out of a host, into a station's kernel, through its datapath, over the underlay, and up again.

use super::{Happening, Net};
use crate::datapath::Verdict;
use crate::kernel::Resolution;
use crate::station::{Station, StationId};
use crate::underlay::{Datagram, Endpoint, Hop, Packet, Shape, Site};
use dmvpn::{Input, RouteTarget};
use ikev2::{LocalPort, TransmitKind};
use packet::gre::Protocol;
use packet::ip::{self, Ip};
use packet::peer::{BY_HUB_MAC, Mac};
use packet::{Instant, Path};
use std::net::{IpAddr, SocketAddr};

/// The port of IKE alone.
const IKE: u16 = 500;

impl Net {
    pub(super) fn arrives(&mut self, site: Site, datagram: Datagram) {
        let now = self.now;
        let (id, datagram) = match self.underlay.arrive(now, site, datagram) {
            Ok(arrived) => arrived,
            Err(reason) => return self.dropped(reason),
        };
        let station = self.station_mut(id);
        if !station.powered {
            return self.dropped("switched off");
        }
        let Some(path) = self.unwrap(id, &datagram) else { return };
        let mut packet = datagram.packet;
        let protocol = Protocol(datagram.protocol);
        self.visit(id, &mut packet);
        let Station { datapath, kernel, .. } = self.station_mut(id);
        match datapath.inbound(now, path, protocol, packet, kernel) {
            Verdict::Punt(input) => self.punt(id, input),
            Verdict::Send(path, packet) => self.transmit(id, path, None, packet),
            Verdict::Hairpin { path, packet, tell } => {
                self.transmit(id, path, None, packet);
                if let Some(input) = tell {
                    self.punt(id, input);
                }
            }
            Verdict::ToKernel(packet) => self.received(id, packet),
            Verdict::Dropped => {}
        }
        self.note_activity(id);
    }

    /// The path that a datagram counts for, when it is an overlay packet that may pass.
    fn unwrap(&mut self, id: StationId, datagram: &Datagram) -> Option<Path> {
        let now = self.now;
        let path = datagram.source.path();
        let datapath = &mut self.station_mut(id).datapath;
        match (datagram.shape, &mut datapath.sas) {
            (Shape::Clear, None) => Some(path),
            (Shape::Esp(spi), Some(sas)) => {
                let (own, tell) = sas.open(now, spi, path);
                if own.is_none() {
                    datapath.drop("unknown_spi");
                }
                if let Some(input) = tell {
                    self.punt(id, input);
                }
                own
            }
            (Shape::Ike, Some(_)) => {
                let remote = SocketAddr::new(path.remote, path.port()?);
                let local = match datagram.destination.port {
                    Some(IKE) => LocalPort::Ike,
                    _ => LocalPort::NatTraversal,
                };
                let address = ikev2::Address { remote, local };
                let message = datagram.packet.bytes.clone();
                if message.len() > 1 {
                    self.punt(id, Input::Ike { address, message });
                }
                None
            }
            (Shape::Clear, Some(_)) => {
                datapath.drop("clear");
                None
            }
            (Shape::Esp(_) | Shape::Ike, None) => {
                datapath.drop("not_encrypted");
                None
            }
        }
    }

    /// A packet came out of the tunnel interface.
    pub(super) fn received(&mut self, id: StationId, mut packet: Packet) {
        let Ok(ip) = Ip::parse(&packet.bytes) else { return };
        if ip.destination.is_multicast() {
            self.station_mut(id).multicast_received += 1;
            return;
        }
        match self.station(id).kernel.lookup(ip.destination) {
            RouteTarget::Local | RouteTarget::OffOverlay => self.deliver(id, ip.destination, packet),
            RouteTarget::Nowhere => self.station_mut(id).datapath.drop("kernel_no_route"),
            RouteTarget::Overlay(via) => {
                if ip::decrement_ttl(&mut packet.bytes).is_err() {
                    return self.station_mut(id).datapath.drop("kernel_ttl_exceeded");
                }
                self.route_into_tunnel(id, via.unwrap_or(ip.destination), packet);
            }
        }
    }

    /// A packet from a host behind a station, or of its own.
    pub(super) fn forward(&mut self, id: StationId, mut packet: Packet) {
        let Ok(ip) = Ip::parse(&packet.bytes) else { return };
        self.visit(id, &mut packet);
        match self.station(id).kernel.lookup(ip.destination) {
            RouteTarget::Local | RouteTarget::OffOverlay => self.deliver(id, ip.destination, packet),
            RouteTarget::Nowhere => self.station_mut(id).datapath.drop("kernel_no_route"),
            RouteTarget::Overlay(via) => {
                // The host is one hop away.
                let _ = ip::decrement_ttl(&mut packet.bytes);
                self.route_into_tunnel(id, via.unwrap_or(ip.destination), packet);
            }
        }
    }

    pub(super) fn route_into_tunnel(&mut self, id: StationId, next_hop: IpAddr, packet: Packet) {
        let now = self.now;
        let station = self.station_mut(id);
        let mac = match station.kernel.resolve(now, next_hop) {
            Resolution::Known(mac) => mac,
            Resolution::Ask => {
                let in_network = station.config.networks.iter().any(|n| n.contains(&next_hop));
                let (mac, tell) = match in_network {
                    true => station.datapath.answer(now, next_hop),
                    false => (BY_HUB_MAC, None),
                };
                station.kernel.learn(now, next_hop, mac);
                if let Some(input) = tell {
                    self.punt(id, input);
                }
                mac
            }
        };
        self.frame(id, mac, packet);
    }

    /// A frame reaches the datapath from the kernel.
    pub(super) fn frame(&mut self, id: StationId, mac: Mac, packet: Packet) {
        if let Some(path) = self.station_mut(id).datapath.outbound(mac) {
            self.transmit(id, path, None, packet);
        }
        self.note_activity(id);
    }

    pub(super) fn transmit(&mut self, id: StationId, path: Path, protocol: Option<u16>, packet: Packet) {
        let now = self.now;
        let mut tell = None;
        let mut shape = Shape::Clear;
        let datapath = &mut self.station_mut(id).datapath;
        if let Some(sas) = &mut datapath.sas {
            match sas.seal(path, packet.bytes.len()) {
                Some((spi, limit)) => (shape, tell) = (Shape::Esp(spi), limit),
                None => return datapath.drop("no_sa"),
            }
        }
        if let Some(input) = tell {
            self.punt(id, input);
        }
        let station = self.station(id);
        let protocol = protocol.unwrap_or_else(|| match ip::version(&packet.bytes) {
            Some(6) => Protocol::IPV6.0,
            _ => Protocol::IPV4.0,
        });
        let port = path.port().map(|_| station.config.udp_port);
        let source = Endpoint { address: station.config.nbma_address, port };
        let datagram = Datagram { source, destination: Endpoint::of(path), protocol, packet, shape };
        self.send(now, id, datagram);
    }

    /// An IKE message, or a keepalive, leaves.
    pub(super) fn transmit_ike(&mut self, id: StationId, transmit: ikev2::Transmit) {
        let ikev2::Transmit { address, kind } = transmit;
        let station = self.station(id);
        let port = match address.local {
            LocalPort::Ike => IKE,
            LocalPort::NatTraversal => station.config.udp_port,
        };
        let source = Endpoint { address: station.config.nbma_address, port: Some(port) };
        let destination = Endpoint { address: address.remote.ip(), port: Some(address.remote.port()) };
        let bytes = match kind {
            TransmitKind::Message(message) => message,
            TransmitKind::Keepalive => vec![0xff],
        };
        let packet = Packet { bytes, journey: None };
        let now = self.now;
        self.send(now, id, Datagram { source, destination, protocol: 0, packet, shape: Shape::Ike });
    }

    fn send(&mut self, now: Instant, id: StationId, datagram: Datagram) {
        match self.underlay.send(now, id, datagram, &mut self.rng) {
            Hop::Travels { to, datagram, at, again } => {
                if let Some(again) = again {
                    self.queue.push(again, Happening::Arrives(to, Box::new(datagram.clone())));
                }
                self.queue.push(at, Happening::Arrives(to, Box::new(datagram)));
            }
            Hop::Dropped(reason) => self.dropped(reason),
        }
    }

    pub(super) fn deliver(&mut self, id: StationId, destination: IpAddr, packet: Packet) {
        let now = self.now;
        let station = self.station_mut(id);
        let here = station.lans.iter().any(|n| n.contains(&destination))
            || station.config.addresses.contains(&destination);
        if !here {
            return station.datapath.drop("left_the_overlay");
        }
        if let Some(journey) = packet.journey
            && let Some(flow) = self.flows.get_mut(journey.flow)
        {
            flow.arrived(now, journey);
        }
    }

    pub(super) fn visit(&mut self, id: StationId, packet: &mut Packet) {
        if let Some(journey) = &mut packet.journey {
            let again = journey.stations.contains(&id);
            journey.stations.push(id);
            if again {
                self.loops.push((journey.flow, journey.sequence, journey.stations.clone()));
            }
        }
    }

    pub(super) fn dropped(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }
}
