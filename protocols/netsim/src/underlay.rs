//! The network below: who is attached where, and what becomes of a datagram between two of them.

use crate::link::{Fate, Link};
use crate::nat::{Nat, NatKind};
use crate::station::StationId;
use packet::{Encapsulation, Instant, Path};
use rand::rngs::StdRng;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

/// One end of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    /// UDP port; `None` for raw GRE.
    pub(crate) port: Option<u16>,
}

impl Endpoint {
    pub(crate) const fn of(path: Path) -> Self {
        Self { address: path.remote, port: path.port() }
    }

    pub(crate) const fn path(self) -> Path {
        let encapsulation = match self.port {
            Some(port) => Encapsulation::Udp { port },
            None => Encapsulation::Gre,
        };
        Path { remote: self.address, encapsulation }
    }
}

/// An outer packet: GRE, in UDP or not.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    /// GRE protocol type.
    pub(crate) protocol: u16,
    pub(crate) packet: Packet,
    /// How it is protected.
    pub(crate) shape: Shape,
}

/// How a datagram is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// GRE in clear.
    Clear,
    /// GRE in ESP, with this SPI.
    Esp(u32),
    /// An IKE message.
    Ike,
}

impl Datagram {
    /// Octets of the outer IP packet.
    pub(crate) fn size(&self) -> usize {
        let ip = if self.destination.address.is_ipv4() { 20 } else { 40 };
        let udp = if self.destination.port.is_some() { 8 } else { 0 };
        // SPI, sequence number, IV, padding and trailer, ICV: about.
        let esp = if matches!(self.shape, Shape::Esp(_)) { 36 } else { 0 };
        ip + udp + esp + 4 + self.packet.bytes.len()
    }
}

/// What is carried, and where it has been.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) journey: Option<Journey>,
}

/// A test packet's way so far; not on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Journey {
    pub(crate) flow: usize,
    pub(crate) sequence: u64,
    pub(crate) stations: Vec<StationId>,
}

/// A translator's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatId(pub(crate) usize);

/// A place that links lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Site {
    Station(StationId),
    Nat(NatId),
}

#[derive(Clone, Copy, Debug)]
struct Attachment {
    address: IpAddr,
    behind: Option<NatId>,
}

/// Where a datagram goes from here.
#[derive(Debug)]
pub(crate) enum Hop {
    /// It arrives at this site at this moment, perhaps twice.
    Travels { to: Site, datagram: Datagram, at: Instant, again: Option<Instant> },
    /// It does not arrive.
    Dropped(&'static str),
}

/// Everything between the stations.
#[derive(Debug, Default)]
pub(crate) struct Underlay {
    attached: HashMap<StationId, Attachment>,
    public: HashMap<IpAddr, Site>,
    inside: HashMap<(NatId, IpAddr), StationId>,
    nats: Vec<Nat>,
    default_link: Link,
    links: HashMap<(Site, Site), Link>,
    /// When the last datagram of each direction arrives.
    last: HashMap<(Site, Site), Instant>,
}

/// Behind a translator, two stations are on one LAN.
const LAN: Link = Link::latency_ms(1);

impl Underlay {
    pub(crate) fn add_nat(&mut self, public: IpAddr, kind: NatKind, hairpin: bool) -> NatId {
        let id = NatId(self.nats.len());
        self.nats.push(Nat::new(public, kind, hairpin));
        self.public.insert(public, Site::Nat(id));
        id
    }

    pub(crate) fn public_address(&self, nat: NatId) -> Option<IpAddr> {
        self.nats.get(nat.0).map(|n| n.public)
    }

    /// Plugs a station in; where it was before it is no more.
    pub(crate) fn attach(&mut self, station: StationId, address: IpAddr, behind: Option<NatId>) {
        if let Some(old) = self.attached.insert(station, Attachment { address, behind }) {
            match old.behind {
                Some(nat) => drop(self.inside.remove(&(nat, old.address))),
                None => drop(self.public.remove(&old.address)),
            }
        }
        match behind {
            Some(nat) => drop(self.inside.insert((nat, address), station)),
            None => drop(self.public.insert(address, Site::Station(station))),
        }
    }

    pub(crate) const fn set_default_link(&mut self, link: Link) {
        self.default_link = link;
    }

    /// Sets the link between the sites of two stations, both ways.
    pub(crate) fn set_link(&mut self, a: StationId, b: StationId, link: Link) {
        let (a, b) = (self.site(a), self.site(b));
        self.links.insert((a, b), link);
        self.links.insert((b, a), link);
    }

    /// Sets the link in one direction.
    pub(crate) fn set_link_one_way(&mut self, from: StationId, to: StationId, link: Link) {
        self.links.insert((self.site(from), self.site(to)), link);
    }

    pub(crate) fn link(&self, a: StationId, b: StationId) -> Link {
        self.link_between(self.site(a), self.site(b))
    }

    fn link_between(&self, a: Site, b: Site) -> Link {
        if a == b { LAN } else { self.links.get(&(a, b)).copied().unwrap_or(self.default_link) }
    }

    fn site(&self, station: StationId) -> Site {
        match self.attached.get(&station).and_then(|a| a.behind) {
            Some(nat) => Site::Nat(nat),
            None => Site::Station(station),
        }
    }

    /// A station sends.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        from: StationId,
        mut datagram: Datagram,
        rng: &mut StdRng,
    ) -> Hop {
        let Some(attachment) = self.attached.get(&from).copied() else { return Hop::Dropped("not attached") };
        datagram.source.address = attachment.address;
        let Some(nat) = attachment.behind else {
            return self.travel(now, Site::Station(from), datagram, rng);
        };
        if let Some(neighbour) = self.inside.get(&(nat, datagram.destination.address)) {
            let to = Site::Station(*neighbour);
            return self.pass(now, Site::Nat(nat), to, LAN, datagram, rng);
        }
        let Some(translator) = self.nats.get_mut(nat.0) else { return Hop::Dropped("no such translator") };
        datagram.source = translator.outbound(now, datagram.source, datagram.destination, rng);
        if datagram.destination.address == translator.public {
            if !translator.hairpin {
                return Hop::Dropped("no hairpin at the translator");
            }
            return self.pass(now, Site::Nat(nat), Site::Nat(nat), LAN, datagram, rng);
        }
        self.travel(now, Site::Nat(nat), datagram, rng)
    }

    fn travel(&mut self, now: Instant, from: Site, datagram: Datagram, rng: &mut StdRng) -> Hop {
        let Some(to) = self.public.get(&datagram.destination.address).copied() else {
            return Hop::Dropped("nobody has this address");
        };
        let link = self.link_between(from, to);
        self.pass(now, from, to, link, datagram, rng)
    }

    fn pass(
        &mut self,
        now: Instant,
        from: Site,
        to: Site,
        link: Link,
        datagram: Datagram,
        rng: &mut StdRng,
    ) -> Hop {
        let last = self.last.entry((from, to)).or_default();
        match link.fate(now, datagram.size(), last, rng) {
            Fate::Arrives(at, again) => Hop::Travels { to, datagram, at, again },
            Fate::Lost => Hop::Dropped("lost by the link"),
            Fate::TooBig => Hop::Dropped("too big for the link"),
        }
    }

    /// Which station a datagram that reached a site is for, as it looks there.
    pub(crate) fn arrive(
        &self,
        now: Instant,
        site: Site,
        mut datagram: Datagram,
    ) -> Result<(StationId, Datagram), &'static str> {
        let nat = match site {
            Site::Station(station) => {
                // It may have moved while the datagram was under way.
                let here = self.attached.get(&station).map(|a| a.address);
                return match here == Some(datagram.destination.address) {
                    true => Ok((station, datagram)),
                    false => Err("the station has moved"),
                };
            }
            Site::Nat(nat) => nat,
        };
        let mut insiders: Vec<_> = self.inside.keys().filter(|(n, _)| *n == nat).map(|(_, a)| *a).collect();
        insiders.sort();
        let translator = self.nats.get(nat.0).ok_or("no such translator")?;
        let inside = translator
            .inbound(now, datagram.destination, datagram.source, &insiders)
            .ok_or("no mapping at the translator")?;
        datagram.destination = inside;
        let station = self.inside.get(&(nat, inside.address)).ok_or("nobody has this address")?;
        Ok((*station, datagram))
    }

    /// Who has which address, for messages.
    pub(crate) fn addresses(&self) -> BTreeMap<StationId, IpAddr> {
        self.attached.iter().map(|(id, a)| (*id, a.address)).collect()
    }
}

/// Time that the stations' own machines take; see [`crate::Net`].
pub(crate) const WAKE: Duration = Duration::from_micros(200);
