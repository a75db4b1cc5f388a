//! What one tunnel needs, from the node's specification: parsed once, so that nothing later can find it wrong.

use crate::dns::HubName;
use crate::executor::Interface;
use crate::security::{self, Protection};
use crate::underlay::Source;
use crds::manifest::{Secret, resolve};
use crds::node::{NodeBgp, NodeHub, NodeTunnel};
use crds::spec::{HubEncapsulation, PeerEncapsulation, Phase};
use dataplane::messages::TunnelSettings;
use dmvpn::{HubConfig, NhrpConfig, StaticPeer};
use ipnet::IpNet;
use nhrp::{NhsId, Quirks};
use packet::{Encapsulation, Path};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// What one tunnel needs.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelConfig {
    /// Name of the resource it comes from.
    pub name: String,
    /// For the engine; `nbma_address` and `mtu` are filled in when the underlay is known.
    engine: dmvpn::Config,
    /// For the datapath; `bind` and `mtu` are filled in when the underlay is known.
    settings: TunnelSettings,
    /// How our underlay address is found.
    pub source: Source,
    /// The address that others use instead (1:1 NAT).
    pub advertise: Option<IpAddr>,
    /// MTU of the interface; `None`: what the underlay leaves.
    mtu: Option<u16>,
    /// Hubs whose address must be looked up.
    pub names: Vec<HubName>,
    /// Routes by hand.
    pub static_routes: Vec<(IpNet, IpAddr)>,
    /// The BGP speaker.
    pub bgp: Option<NodeBgp>,
    /// What we announce.
    pub announce: Vec<IpNet>,
    /// Never by another way than the overlay.
    pub protected: Vec<IpNet>,
    /// How it is protected; `None`: everything is in clear.
    pub protection: Option<Protection>,
    /// Files and folders it is made from, besides the manifests.
    pub files: Vec<PathBuf>,
}

/// What is known of the underlay now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Our address on it.
    pub address: IpAddr,
    /// MTU of the interface that has it.
    pub mtu: u16,
}

/// Why a tunnel can't be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `mode: Encrypted` without credentials.
    #[error(
        "tunnel {0}: encryption needs credentials: set security.authentication.certificates or .preSharedKey; an \
         unencrypted overlay must be asked for with mode: None"
    )]
    NoCredentials(String),
    /// Credentials that can't be used.
    #[error("tunnel {0}: {1}; nothing is sent in clear instead")]
    Credentials(String, String),
    /// Proposals that IKE can't be told.
    #[error("tunnel {0}: security: {1}; nothing weaker is used instead")]
    Proposals(String, String),
    /// An address outside every network of the tunnel.
    #[error("tunnel {0}: address {1} lies in none of its networks")]
    StrayAddress(String, IpAddr),
    /// A tunnel without an address.
    #[error(
        "tunnel {0}: no tunnel address for this node; set tunnel.addresses to one host, or tunnel.pinned"
    )]
    NoAddress(String),
    /// A Secret or file that is named and not there.
    #[error("tunnel {0}: {1}")]
    Secret(String, String),
    /// NHRP authentication of a length that Cisco's extension can't carry.
    #[error("tunnel {0}: the NHRP authentication in Secret {1} must have 1 to 8 octets")]
    Authentication(String, String),
    /// An interface name that the kernel refuses.
    #[error("tunnel {0}: interface name {1:?} is not 1 to 15 letters, digits, dashes, dots or underscores")]
    Interface(String, String),
}

/// Secrets by name.
pub type Secrets = BTreeMap<String, Secret>;

impl TunnelConfig {
    /// Parses the specification of one tunnel. `workers`: how many datapath threads it gets.
    pub fn parse(tunnel: &NodeTunnel, secrets: &Secrets, workers: u16) -> Result<Self, ConfigError> {
        let name = || tunnel.name.clone();
        if !is_interface_name(&tunnel.interface) {
            return Err(ConfigError::Interface(name(), tunnel.interface.clone()));
        }
        if tunnel.addresses.is_empty() {
            return Err(ConfigError::NoAddress(name()));
        }
        if let Some(stray) = tunnel.addresses.iter().find(|a| !tunnel.networks.iter().any(|n| n.contains(*a)))
        {
            return Err(ConfigError::StrayAddress(name(), *stray));
        }
        let ids = hub_ids(&tunnel.hubs);
        let hubs = tunnel.hubs.iter().zip(&ids).map(|(hub, id)| hub_config(hub, *id)).collect();
        let names = tunnel.hubs.iter().zip(&ids).filter(|(hub, _)| hub.literal().is_none());
        let names = names
            .map(|(hub, id)| HubName { id: *id, name: hub.address.clone(), wrappings: wrappings(hub) })
            .collect();
        let literals = tunnel.hubs.iter().filter_map(NodeHub::literal).collect();
        let source = match (&tunnel.underlay.address, &tunnel.underlay.interface) {
            (Some(address), _) => Source::Fixed(*address),
            (None, Some(interface)) => Source::Interface(interface.clone()),
            (None, None) => Source::RouteTo(literals),
        };
        let protection = Protection::parse(tunnel, secrets, workers)?;
        let static_peers = tunnel.static_peers.iter().map(|p| static_peer(p, tunnel.underlay.port));
        let by_hand = tunnel.static_routes.iter().map(|r| (r.prefix, r.via));
        Ok(Self {
            engine: dmvpn::Config {
                identity: protection
                    .as_ref()
                    .and_then(|p| p.identity.clone())
                    .unwrap_or_else(|| tunnel.identity.clone()),
                networks: tunnel.networks.clone(),
                addresses: tunnel.addresses.clone(),
                phase: match tunnel.phase {
                    Phase::One => dmvpn::Phase::One,
                    Phase::Two => dmvpn::Phase::Two,
                    Phase::Three => dmvpn::Phase::Three,
                },
                hub: tunnel.is_hub(),
                nbma_address: Ipv4Addr::UNSPECIFIED.into(),
                udp_port: tunnel.underlay.port,
                hubs,
                static_peers: static_peers.collect(),
                nhrp: NhrpConfig {
                    holding_time: tunnel.nhrp.holding_time,
                    authentication: authentication(tunnel, secrets)?,
                    unique: tunnel.nhrp.unique_registration,
                    group: tunnel.nhrp.group.clone(),
                    quirks: Quirks {
                        pad_error_indications: tunnel.nhrp.quirks.pad_error_indications,
                        fixed_request_id: tunnel.nhrp.quirks.fixed_request_id,
                    },
                },
                admission: tunnel.admission.iter().map(class).collect(),
                // Without the built-in BGP and without a list, others decide what is routed here: the kernel knows.
                behind: (tunnel.bgp.is_some() || !tunnel.announce.is_empty())
                    .then(|| tunnel.announce.clone()),
                mtu: 0,
                idle_timeout: tunnel.nhrp.idle_timeout,
                security: None,
            },
            settings: TunnelSettings {
                interface: tunnel.interface.clone(),
                workers: workers.max(1),
                addresses: tunnel.addresses.clone(),
                networks: tunnel.networks.clone(),
                bind: Vec::new(),
                udp_port: tunnel.underlay.port,
                encrypted: protection.is_some(),
                ike_port: protection.as_ref().and(tunnel.underlay.ike_port),
                raw_gre: true,
                gre_key: tunnel.key,
                mtu: 0,
                ttl: tunnel.ttl,
                indicate_hairpins: tunnel.is_hub() && tunnel.phase == Phase::Three,
            },
            name: name(),
            source,
            advertise: tunnel.underlay.advertise,
            mtu: tunnel.mtu.octets(),
            names,
            static_routes: by_hand.collect(),
            bgp: tunnel.bgp.clone(),
            announce: tunnel.announce.clone(),
            protected: tunnel.protected_prefixes.clone(),
            protection,
            files: security::files(tunnel),
        })
    }

    /// Name of the interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.settings.interface
    }

    /// Does `other` make another station of this node? Then it can't be changed to, only ended and begun.
    #[must_use]
    pub fn is_other_station(&self, other: &Self) -> bool {
        let key = |config: &Self| {
            (
                config.engine.identity.clone(),
                config.engine.addresses.clone(),
                (config.engine.udp_port, config.settings.ike_port),
                config.engine.hub,
                // The datapath makes no tunnel weaker while it lives.
                config.protection.is_some(),
            )
        };
        key(self) != key(other)
    }

    /// Are we a hub?
    #[must_use]
    pub const fn is_hub(&self) -> bool {
        self.engine.hub
    }

    /// Underlay addresses of hubs that need no resolving.
    pub fn literal_hubs(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.engine.hubs.iter().flat_map(|hub| hub.paths.iter().map(|path| path.remote))
    }

    /// Is this an address of the overlay? Then it can't be one of the underlay.
    #[must_use]
    pub fn is_overlay(&self, address: IpAddr) -> bool {
        self.engine.networks.iter().any(|network| network.contains(&address))
    }

    /// Does the tunnel have IPv6 addresses?
    #[must_use]
    pub fn carries_v6(&self) -> bool {
        self.engine.addresses.iter().any(IpAddr::is_ipv6)
    }

    /// The engine's configuration on this underlay.
    #[must_use]
    pub fn engine(&self, underlay: Option<Underlay>) -> dmvpn::Config {
        let mut config = self.engine.clone();
        let bound = underlay.map(|u| u.address);
        config.nbma_address = self.advertise.or(bound).unwrap_or(config.nbma_address);
        config.mtu = self.mtu(underlay);
        config.security = self.protection.as_ref().map(|p| p.security(bound.into_iter().collect()));
        config
    }

    /// The datapath's settings on this underlay.
    #[must_use]
    pub fn settings(&self, underlay: Option<Underlay>) -> TunnelSettings {
        let mut settings = self.settings.clone();
        settings.bind = match (&self.source, underlay) {
            (Source::Fixed(address), _) => vec![*address],
            (Source::Interface(_), Some(underlay)) => vec![underlay.address],
            // The address may change; a socket bound to any stays good.
            _ => self.families(underlay),
        };
        settings.mtu = self.mtu(underlay);
        settings
    }

    /// The interface as the kernel should have it.
    #[must_use]
    pub fn kernel_interface(&self, underlay: Option<Underlay>) -> Interface {
        let with_length = |address: &IpAddr| {
            let network = self.engine.networks.iter().find(|n| n.contains(address))?;
            IpNet::new(*address, network.prefix_len()).ok()
        };
        Interface {
            name: self.settings.interface.clone(),
            mtu: u32::from(self.mtu(underlay)),
            addresses: self.engine.addresses.iter().filter_map(with_length).collect(),
            networks: self.engine.networks.clone(),
        }
    }

    /// MTU of the interface: as configured, or what the underlay leaves after IP, UDP, ESP (by the suite that adds most
    /// of those we offer) and GRE.
    #[must_use]
    pub fn mtu(&self, underlay: Option<Underlay>) -> u16 {
        if let Some(mtu) = self.mtu {
            return mtu;
        }
        let space = underlay.map_or(1500, |u| u.mtu).saturating_sub(self.around_gre(underlay));
        let plaintext = match &self.protection {
            Some(protection) => protection.plaintext(space),
            None => space,
        };
        let least = if self.carries_v6() { 1280 } else { 576 };
        plaintext.saturating_sub(self.gre()).clamp(least, 9216)
    }

    /// Octets of the largest outer packet that inner packets of this many become.
    #[must_use]
    pub fn outer(&self, inner: u16, underlay: Option<Underlay>) -> u16 {
        let plaintext = inner.saturating_add(self.gre());
        let payload = match &self.protection {
            Some(protection) => protection.protected(plaintext),
            None => plaintext,
        };
        payload.saturating_add(self.around_gre(underlay))
    }

    /// Octets of the headers around GRE, or around ESP: IP and UDP.
    const fn around_gre(&self, underlay: Option<Underlay>) -> u16 {
        const UDP: u16 = 8;
        // An IPv6 header is the longer one; without an address it is not known which it will be.
        match underlay {
            Some(Underlay { address: IpAddr::V4(_), .. }) => 20 + UDP,
            _ => 40 + UDP,
        }
    }

    const fn gre(&self) -> u16 {
        if self.settings.gre_key.is_some() { 8 } else { 4 }
    }

    fn families(&self, underlay: Option<Underlay>) -> Vec<IpAddr> {
        let literals = self.engine.hubs.iter().flat_map(|h| h.paths.iter().map(|p| p.remote));
        let peers = self.engine.static_peers.iter().map(|p| p.path.remote);
        let known: Vec<IpAddr> = literals.chain(peers).chain(underlay.map(|u| u.address)).collect();
        let mut bind: Vec<IpAddr> = Vec::new();
        if known.iter().any(IpAddr::is_ipv4) || known.is_empty() {
            bind.push(Ipv4Addr::UNSPECIFIED.into());
        }
        // A name may have addresses of either version.
        if known.iter().any(IpAddr::is_ipv6) || (!self.names.is_empty() && has_ipv6()) {
            bind.push(Ipv6Addr::UNSPECIFIED.into());
        }
        bind
    }
}

/// Does this machine speak IPv6 at all?
fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|table| !table.is_empty())
}

/// A hub's ID says what the hub is and not where it stands in the list: a list in another order, or with one more in
/// it, leaves the others as they are, and so does a restart in between.
fn hub_ids(hubs: &[NodeHub]) -> Vec<NhsId> {
    let mut ids: Vec<NhsId> = Vec::new();
    for hub in hubs {
        // FNV-1a, which will be the same in the next version, too.
        let step = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
        let key = hub.address.bytes().chain(hub.port.to_be_bytes());
        let mut id = NhsId(key.fold(0x811c_9dc5, step));
        while ids.contains(&id) {
            id = NhsId(id.0.wrapping_add(1));
        }
        ids.push(id);
    }
    ids
}

fn hub_config(hub: &NodeHub, id: NhsId) -> HubConfig {
    let paths = hub
        .literal()
        .map(|remote| wrappings(hub).into_iter().map(move |encapsulation| Path { remote, encapsulation }));
    HubConfig {
        id,
        name: hub.address.clone(),
        tunnel_address: hub.tunnel_address,
        priority: hub.priority,
        paths: paths.map(Iterator::collect).unwrap_or_default(),
        identity: hub.identity.clone(),
    }
}

fn wrappings(hub: &NodeHub) -> Vec<Encapsulation> {
    let udp = Encapsulation::Udp { port: hub.port };
    match hub.encapsulation {
        HubEncapsulation::Auto => vec![udp, Encapsulation::Gre],
        HubEncapsulation::Udp => vec![udp],
        HubEncapsulation::Gre => vec![Encapsulation::Gre],
    }
}

fn static_peer(peer: &crds::spec::StaticPeer, our_port: u16) -> StaticPeer {
    let encapsulation = match peer.encapsulation {
        PeerEncapsulation::Gre => Encapsulation::Gre,
        PeerEncapsulation::Udp => Encapsulation::Udp { port: peer.port.unwrap_or(our_port) },
    };
    StaticPeer {
        tunnel_address: peer.tunnel_address,
        path: Path { remote: peer.nbma, encapsulation },
        prefixes: peer.prefixes.clone(),
    }
}

fn class(class: &crds::spec::AdmissionClass) -> claims::Class {
    claims::Class {
        identity: class.identity.clone(),
        tunnel_addresses: class.tunnel_addresses.clone(),
        prefixes: class.prefixes.clone(),
    }
}

fn authentication(tunnel: &NodeTunnel, secrets: &Secrets) -> Result<Option<Vec<u8>>, ConfigError> {
    let Some(name) = &tunnel.nhrp.authentication_secret else { return Ok(None) };
    let key =
        resolve(secrets, name, "key").map_err(|e| ConfigError::Secret(tunnel.name.clone(), e.to_string()))?;
    if key.is_empty() || key.len() > 8 {
        return Err(ConfigError::Authentication(tunnel.name.clone(), name.clone()));
    }
    Ok(Some(key.to_vec()))
}

/// As the kernel takes it, and harmless in a path below `/proc/sys`.
fn is_interface_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (1..=15).contains(&name.len())
        && name.chars().all(allowed)
        && ![".", ".."].contains(&name)
        && name != "all"
        && name != "default"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::manifest::read_text;
    use plan::NodeFacts;

    fn parse(spec: &str) -> Result<TunnelConfig, ConfigError> {
        let text = format!(
            "apiVersion: kube-dmvpn.io/v1alpha1\nkind: DmvpnSpoke\nmetadata: {{name: site}}\nspec:\n{spec}\n"
        );
        let manifests = read_text("site.yaml", &text).unwrap();
        let spec = plan::standalone(&manifests, &NodeFacts::named("a-1")).unwrap();
        TunnelConfig::parse(&spec.tunnels[0], &manifests.secrets, 2)
    }

    const PLAIN: &str = "  tunnel: {network: 10.200.0.0/16, addresses: 10.200.16.1/32}
  security: {mode: None}
  hubs:
  - {address: 198.51.100.1}
  - {address: hub2.example.com, priority: 1, encapsulation: Gre}";

    fn underlay(address: &str, mtu: u16) -> Option<Underlay> {
        Some(Underlay { address: address.parse().unwrap(), mtu })
    }

    fn crds_tunnel(spec: &str) -> NodeTunnel {
        let text = format!(
            "apiVersion: kube-dmvpn.io/v1alpha1\nkind: DmvpnSpoke\nmetadata: {{name: site}}\nspec:\n{spec}\n"
        );
        let manifests = read_text("site.yaml", &text).unwrap();
        plan::standalone(&manifests, &NodeFacts::named("a-1")).unwrap().tunnels.remove(0)
    }

    #[test]
    fn a_hub_is_tried_in_udp_first_and_a_name_is_looked_up() {
        let config = parse(PLAIN).unwrap();
        let hub: IpAddr = "198.51.100.1".parse().unwrap();
        let engine = config.engine(None);
        assert_eq!(engine.hubs[0].paths, [Path::udp(hub, 4754), Path::gre(hub)]);
        assert!(engine.hubs[1].paths.is_empty());
        assert_eq!(config.names[0].name, "hub2.example.com");
        assert_eq!(config.names[0].wrappings, [Encapsulation::Gre]);
    }

    #[test]
    fn a_hub_keeps_its_id_when_the_list_is_written_in_another_order() {
        let reversed = PLAIN
            .replace("address: 198.51.100.1}", "address: X}")
            .replace("address: hub2.example.com, priority: 1, encapsulation: Gre", "address: 198.51.100.1")
            .replace("address: X}", "address: hub2.example.com, priority: 1, encapsulation: Gre}");
        let ids = |spec: &str| {
            let mut ids: Vec<_> =
                parse(spec).unwrap().engine(None).hubs.into_iter().map(|h| (h.name, h.id)).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(PLAIN), ids(&reversed));
        assert_ne!(ids(PLAIN)[0].1, ids(PLAIN)[1].1);
    }

    #[test]
    fn the_mtu_is_what_the_underlay_leaves() {
        let config = parse(PLAIN).unwrap();
        assert_eq!(config.mtu(underlay("192.0.2.1", 1500)), 1468);
        assert_eq!(config.mtu(underlay("2001:db8::1", 1500)), 1448);
        assert_eq!(config.mtu(None), 1448);
    }

    const PSK: &str = "{authentication: {preSharedKey: {secret: 'file:/dev/null'}}}";

    fn encrypted(security: &str) -> Result<TunnelConfig, ConfigError> {
        let mut tunnel = crds_tunnel(&PLAIN.replace("{mode: None}", security));
        tunnel.security.authentication.as_mut().unwrap().pre_shared_key.as_mut().unwrap().secret =
            "psk".to_owned();
        let entries = BTreeMap::from([("psk".to_owned(), b"thirty-two octets of random text".to_vec())]);
        let secrets = Secrets::from([("psk".to_owned(), Secret::new("psk", entries))]);
        TunnelConfig::parse(&tunnel, &secrets, 2)
    }

    #[test]
    fn encryption_without_usable_credentials_is_refused_and_nothing_is_sent_in_clear() {
        let mut tunnel = crds_tunnel(&PLAIN.replace("{mode: None}", PSK));
        let said =
            |tunnel: &NodeTunnel| TunnelConfig::parse(tunnel, &Secrets::new(), 1).unwrap_err().to_string();
        assert_eq!(
            said(&tunnel),
            "tunnel site: the pre-shared key is empty: anyone would know it; nothing is sent in clear instead"
        );
        tunnel.security.authentication = None;
        assert_eq!(
            TunnelConfig::parse(&tunnel, &Secrets::new(), 1),
            Err(ConfigError::NoCredentials("site".to_owned()))
        );
    }

    #[test]
    fn an_encrypted_tunnel_is_told_so_to_the_datapath_and_to_the_engine() {
        let config = encrypted(PSK).unwrap();
        let settings = config.settings(None);
        assert_eq!((settings.encrypted, settings.udp_port, settings.ike_port), (true, 4500, Some(500)));
        let security = config.engine(underlay("192.0.2.1", 1500)).security.unwrap();
        assert_eq!(security.ike.local, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((security.ike.ports, security.ike.workers, security.ike.lanes), ((500, 4500), 2, 2));
        let hub: IpAddr = "198.51.100.1".parse().unwrap();
        assert_eq!(config.engine(None).hubs[0].paths, [Path::udp(hub, 4500), Path::gre(hub)]);
    }

    #[test]
    fn the_mtu_leaves_room_for_the_largest_suite_on_offer() {
        let aead = encrypted(PSK).unwrap();
        let eth = underlay("192.0.2.1", 1500);
        // 20 IP, 8 UDP, 8 ESP, 8 IV, 4 GRE, inner, 2 trailer, 16 ICV: a multiple of 4 from GRE to trailer.
        assert_eq!(aead.mtu(eth), 1434);
        assert_eq!(aead.outer(1434, eth), 1500);
        let old =
            encrypted(&PSK.replace("{auth", "{esp: [aes128gcm16, aes256-sha256-modp2048], auth")).unwrap();
        assert_eq!(old.mtu(eth), 1418);
        assert!(old.outer(1418, eth) <= 1500 && old.outer(1419, eth) > 1500);
    }

    #[test]
    fn the_same_secrets_make_the_same_tunnel_and_others_do_not() {
        let (one, two) = (encrypted(PSK).unwrap(), encrypted(PSK).unwrap());
        assert_eq!(one, two);
        let mut tunnel = crds_tunnel(&PLAIN.replace("{mode: None}", PSK));
        tunnel.security.authentication.as_mut().unwrap().pre_shared_key.as_mut().unwrap().secret =
            "psk".to_owned();
        let entries = BTreeMap::from([("psk".to_owned(), b"another key of thirty-two octets".to_vec())]);
        let secrets = Secrets::from([("psk".to_owned(), Secret::new("psk", entries))]);
        assert_ne!(one, TunnelConfig::parse(&tunnel, &secrets, 2).unwrap());
        assert!(one.is_other_station(&parse(PLAIN).unwrap()));
    }

    #[test]
    fn the_tunnel_address_gets_the_length_of_its_network() {
        let interface = parse(PLAIN).unwrap().kernel_interface(None);
        assert_eq!(interface.addresses, ["10.200.16.1/16".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn behind_a_one_to_one_nat_others_are_told_the_advertised_address() {
        let spec = format!("{PLAIN}\n  underlay: {{address: 10.9.0.5, advertise: {{a-1: 203.0.113.5}}}}");
        let config = parse(&spec).unwrap();
        let underlay = underlay("10.9.0.5", 1500);
        assert_eq!(config.engine(underlay).nbma_address, "203.0.113.5".parse::<IpAddr>().unwrap());
        assert_eq!(config.settings(underlay).bind, ["10.9.0.5".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn an_address_that_may_change_is_not_bound_to() {
        let config = parse(PLAIN).unwrap();
        let bind = config.settings(underlay("192.0.2.1", 1500)).bind;
        assert!(bind.iter().all(IpAddr::is_unspecified) && bind.iter().any(IpAddr::is_ipv4));
    }

    #[test]
    fn an_authentication_longer_than_the_extension_is_refused() {
        let mut tunnel = crds_tunnel(PLAIN);
        tunnel.nhrp.authentication_secret = Some("key".to_owned());
        let secret = |text: &str| {
            let entries = BTreeMap::from([("key".to_owned(), text.as_bytes().to_vec())]);
            Secrets::from([("key".to_owned(), Secret::new("key", entries))])
        };
        assert!(TunnelConfig::parse(&tunnel, &secret("eightchr"), 1).is_ok());
        assert!(matches!(
            TunnelConfig::parse(&tunnel, &secret("ninechars"), 1),
            Err(ConfigError::Authentication(..))
        ));
        assert!(matches!(TunnelConfig::parse(&tunnel, &Secrets::new(), 1), Err(ConfigError::Secret(..))));
    }

    #[test]
    fn an_interface_name_that_means_something_else_is_refused() {
        for name in ["", "all", "..", "a/b", "sixteen-letters!"] {
            assert!(!is_interface_name(name), "{name}");
        }
        assert!(is_interface_name("dmvpn0.7"));
    }
}
