//! What guests are: FRR hubs and spokes, and an end of plain GRE.

use super::guest::Configuration;
use super::strongswan::StrongSwan;
use std::fmt::Write as _;

/// The GRE key of the interop stories.
pub const KEY: u32 = 42;

/// A Linux router with FRR: kernel mGRE, nhrpd, bgpd. Phase 3, the only one nhrpd speaks.
#[derive(Clone, Debug)]
pub struct Frr {
    address: String,
    tunnel: String,
    lan: String,
    authentication: Option<String>,
    /// NBMA and tunnel address of each hub; none: it is a hub.
    hubs: Vec<(String, String)>,
    mtu: u32,
    ike: Option<StrongSwan>,
}

impl Frr {
    /// A hub at an underlay address, with a tunnel address in 10.200.0.0/16 and a LAN (router's address and length).
    #[must_use]
    pub fn hub(address: &str, tunnel: &str, lan: &str) -> Self {
        Self {
            address: address.to_owned(),
            tunnel: tunnel.to_owned(),
            lan: lan.to_owned(),
            authentication: None,
            hubs: Vec::new(),
            mtu: 1400,
            ike: None,
        }
    }

    /// A spoke of a hub at this underlay and tunnel address.
    #[must_use]
    pub fn spoke(address: &str, tunnel: &str, lan: &str, hub: (&str, &str)) -> Self {
        let hubs = vec![(hub.0.to_owned(), hub.1.to_owned())];
        Self { hubs, ..Self::hub(address, tunnel, lan) }
    }

    /// With Cisco's plain-text authentication.
    #[must_use]
    pub fn authentication(self, password: &str) -> Self {
        Self { authentication: Some(password.to_owned()), ..self }
    }

    /// With its GRE encrypted.
    #[must_use]
    pub fn encrypted(self, ike: StrongSwan) -> Self {
        Self { ike: Some(ike), ..self }
    }

    /// The guest's configuration.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        Configuration {
            address: self.address.clone(),
            setup: self.setup(),
            frr: self.frr(),
            ike: self.ike.clone(),
        }
    }

    fn is_hub(&self) -> bool {
        self.hubs.is_empty()
    }

    fn setup(&self) -> String {
        let Self { address, tunnel, lan, mtu, .. } = self;
        let mut setup = format!(
            "ip link add lan0 type dummy
ip addr add {lan} dev lan0
ip link set lan0 up
ip link add gre1 type gre key {KEY} local {address} ttl 64
ip addr add {tunnel}/32 dev gre1
ip link set gre1 mtu {mtu} up
"
        );
        if self.is_hub() {
            // What enters and leaves by gre1 is shown to nhrpd, which makes Traffic Indications of it.
            setup.push_str(
                "iptables-legacy -A FORWARD -i gre1 -o gre1 -m hashlimit --hashlimit-upto 12/minute \
                 --hashlimit-burst 1 --hashlimit-mode srcip,dstip --hashlimit-name nhrp \
                 -j NFLOG --nflog-group 1 --nflog-size 128\n",
            );
        }
        setup
    }

    fn frr(&self) -> String {
        let lan = network(&self.lan);
        let tunnel = &self.tunnel;
        let auth = self
            .authentication
            .as_ref()
            .map(|p| format!(" ip nhrp authentication {p}\n"))
            .unwrap_or_default();
        let common = "frr defaults traditional\nlog file /var/log/frr/frr.log debugging\ndebug nhrp all\n";
        let nhrp =
            format!("{auth} ip nhrp holdtime 60\n ip nhrp network-id 1\n ip nhrp registration no-unique\n");
        if self.is_hub() {
            return format!(
                "{common}nhrp nflog-group 1
ip route 10.0.0.0/8 blackhole
interface gre1
{nhrp} ip nhrp redirect
exit
router bgp 65000
 bgp router-id {tunnel}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor SPOKES peer-group
 neighbor SPOKES remote-as external
 neighbor SPOKES disable-connected-check
 neighbor SPOKES timers 3 10
 bgp listen range 10.200.0.0/16 peer-group SPOKES
 address-family ipv4 unicast
  network 10.0.0.0/8
  network {lan}
  neighbor SPOKES activate
  neighbor SPOKES prefix-list SUMMARY out
 exit-address-family
exit
ip prefix-list SUMMARY permit 10.0.0.0/8
"
            );
        }
        let asn = 65000 + tunnel.rsplit('.').take(2).filter_map(|p| p.parse::<u32>().ok()).sum::<u32>();
        let (mut nhs, mut neighbours) = (String::new(), String::new());
        for (nbma, hub) in &self.hubs {
            // Writing to a string can't fail.
            let _ = writeln!(nhs, " ip nhrp nhs dynamic nbma {nbma}");
            let _ = write!(
                neighbours,
                " neighbor {hub} remote-as 65000
 neighbor {hub} disable-connected-check
 neighbor {hub} timers 3 10
 neighbor {hub} timers connect 2
"
            );
        }
        format!(
            "{common}interface gre1
{nhrp}{nhs} ip nhrp shortcut
exit
router bgp {asn}
 bgp router-id {tunnel}
 no bgp ebgp-requires-policy
{neighbours} address-family ipv4 unicast
  network {lan}
 exit-address-family
exit
"
        )
    }
}

/// A router with one plain GRE tunnel to a hub and no NHRP at all, as a MikroTik or an old Linux box.
#[must_use]
pub fn plain_gre(address: &str, tunnel: &str, lan: &str, hub: &str) -> Configuration {
    let setup = format!(
        "ip link add lan0 type dummy
ip addr add {lan} dev lan0
ip link set lan0 up
ip link add gre1 type gre key {KEY} local {address} remote {hub} ttl 64
ip addr add {tunnel}/32 dev gre1
ip link set gre1 mtu 1400 up
ip route add 10.0.0.0/8 dev gre1 src {tunnel}
"
    );
    Configuration { address: address.to_owned(), setup, ..Configuration::default() }
}

/// The network of a router's address: `10.11.0.1/24` is in `10.11.0.0/24`.
fn network(lan: &str) -> String {
    lan.parse::<ipnet::IpNet>().map_or_else(|_| lan.to_owned(), |net| net.trunc().to_string())
}
