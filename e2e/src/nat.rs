//! NAT routers, by nftables in a namespace of their own.
//!
//! Names follow RFC 4787. What nftables can do decides what there is: its connection tracking always filters by
//! address and port (§5), so a full cone is made of a learned map from outer port to inner address beside it.

use std::fmt::Write as _;
use std::net::IpAddr;

/// How a NAT router maps and filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Keeps the source port where it is free, as nearly every home router does: one mapping for all destinations
    /// in effect, filtered by address and port. Two sides that send at the same time get through.
    PortPreserving,
    /// Another random port for each destination: nobody but the destination can use the mapping.
    Symmetric,
    /// Keeps the source port, and lets anybody in who sends to it.
    FullCone,
    /// One outer address for one inner address, both ways, all protocols: how clouds publish a machine.
    OneToOne {
        /// The machine inside.
        inner: IpAddr,
    },
}

/// A NAT router's behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatRouter {
    /// How it maps and filters.
    pub kind: Nat,
    /// Two machines inside can reach each other by their outer address.
    pub hairpin: bool,
    /// Seconds an idle UDP mapping is kept; `None`: the kernel's 30, and 120 once both sides have sent.
    pub udp_timeout: Option<u32>,
}

impl NatRouter {
    /// A router of this kind that does not hairpin.
    #[must_use]
    pub const fn new(kind: Nat) -> Self {
        Self { kind, hairpin: false, udp_timeout: None }
    }

    /// The same with hairpinning.
    #[must_use]
    pub fn hairpin(self) -> Self {
        Self { hairpin: true, ..self }
    }

    /// The rules for a router whose outer interface is `wan` with these addresses; all others are inside.
    #[must_use]
    pub fn rules(&self, outer: &[IpAddr]) -> String {
        let mut rules = String::new();
        for address in outer {
            let (family, ip) = match address {
                IpAddr::V4(_) => ("ip", "ipv4_addr"),
                IpAddr::V6(_) => ("ip6", "ipv6_addr"),
            };
            let same_family = match self.kind {
                Nat::OneToOne { inner } => inner.is_ipv4() == address.is_ipv4(),
                _ => true,
            };
            if same_family {
                // Writing to a string can't fail.
                let _ = write!(rules, "table {family} lab {{\n{}\n}}\n", self.table(family, ip, *address));
            }
        }
        rules
    }

    fn table(&self, family: &str, ip_type: &str, outer: IpAddr) -> String {
        let source = match &self.kind {
            Nat::PortPreserving | Nat::FullCone => format!("oifname wan snat {family} to {outer}"),
            Nat::Symmetric => {
                format!(
                    "oifname wan meta l4proto {{ tcp, udp }} snat {family} to {outer}:32768-60999 fully-random\n    oifname wan snat {family} to {outer}"
                )
            }
            Nat::OneToOne { .. } => format!("oifname wan snat {family} to {outer}"),
        };
        // Who has sent from which port, so that packets to that port find the way in (full cone), or back (hairpin).
        let learns = self.kind == Nat::FullCone || (self.hairpin && self.kind == Nat::PortPreserving);
        let map = format!(
            "map cone {{ type inet_service : {ip_type}; flags dynamic, timeout; timeout 2m; size 4096; }}"
        );
        let learn = format!("oifname wan meta l4proto udp update @cone {{ udp sport : {family} saddr }}");
        let inward = match &self.kind {
            Nat::OneToOne { inner } => format!("iifname wan {family} daddr {outer} dnat to {inner}"),
            Nat::FullCone => format!("iifname wan {family} daddr {outer} dnat to udp dport map @cone"),
            _ => String::new(),
        };
        let (back, hidden) = match (&self.kind, self.hairpin) {
            (Nat::OneToOne { inner }, true) => (
                format!("iifname != wan {family} daddr {outer} dnat to {inner}"),
                format!("oifname != wan ct status dnat snat {family} to {outer}"),
            ),
            (_, true) => (
                format!("iifname != wan {family} daddr {outer} dnat to udp dport map @cone"),
                format!("iifname != wan oifname != wan ct status dnat snat {family} to {outer}"),
            ),
            (_, false) => Default::default(),
        };
        let (map, learn) = if learns { (map, learn) } else { Default::default() };
        format!(
            "  {map}
  chain before {{ type nat hook prerouting priority dstnat;
    {inward}
    {back}
  }}
  chain learn {{ type filter hook postrouting priority srcnat - 10;
    {learn}
  }}
  chain after {{ type nat hook postrouting priority srcnat;
    {source}
    {hidden}
  }}
  chain own {{ type filter hook input priority filter;
    iifname wan meta l4proto {{ tcp, udp }} drop
    {family} daddr {outer} meta l4proto {{ tcp, udp }} drop
  }}"
        )
    }
}
