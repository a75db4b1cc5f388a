//! The OPEN message and its capabilities (RFC 4271 §4.2, RFC 5492).
//!
//! Parameters and capabilities are cut apart here and each capability is parsed from its own slice: one that can't be
//! read is ignored, and takes nothing else with it.

use crate::config::{AS_TRANS, Config};
use crate::error::Notification;
use crate::family::{Families, Family};
use crate::message::{self, Kind};
use netgauze_bgp_pkt::capabilities::{
    BgpCapability, ExtendedNextHopEncoding, ExtendedNextHopEncodingCapability, FourOctetAsCapability,
    GracefulRestartAddressFamily, GracefulRestartCapability, MultiProtocolExtensionsCapability,
};
use netgauze_iana::address_family::{AddressFamily, AddressType};
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFrom;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What a peer said of itself.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Open {
    pub(crate) asn: u32,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) hold_time: Duration,
    /// What it carries; IPv4 when it says nothing.
    pub(crate) families: Families,
    /// It writes ASNs in four octets (RFC 6793).
    pub(crate) asn4: bool,
    /// It understands ROUTE-REFRESH (RFC 2918).
    pub(crate) route_refresh: bool,
    /// It takes IPv6 next hops for IPv4 prefixes (RFC 8950).
    pub(crate) extended_next_hop: bool,
    pub(crate) graceful: Option<GracefulCapability>,
}

/// RFC 4724 §3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GracefulCapability {
    /// It has restarted (R).
    pub(crate) restarting: bool,
    /// How long its routes shall be kept.
    pub(crate) restart_time: Duration,
    /// For what it can restart gracefully.
    pub(crate) families: Families,
    /// Where it kept its forwarding state over the restart (F).
    pub(crate) forwarding: Families,
}

const VERSION: u8 = 4;
const CAPABILITIES: u8 = 2;
const EXTENDED_LENGTH: u8 = 255;

/// Reads an OPEN (RFC 4271 §6.2); what is acceptable beyond its form is for the session to say.
pub(crate) fn read(body: &[u8]) -> Result<Open, Notification> {
    let malformed = || Notification::OPEN_MALFORMED;
    let (fixed, parameters) = body.split_first_chunk::<9>().ok_or_else(malformed)?;
    let [version, as_high, as_low, hold_high, hold_low, id @ ..] = *fixed;
    if version != VERSION {
        return Err(Notification::BAD_VERSION.with(&[0, VERSION]));
    }
    let hold_time = u16::from_be_bytes([hold_high, hold_low]);
    if matches!(hold_time, 1 | 2) {
        return Err(Notification::UNACCEPTABLE_HOLD_TIME);
    }
    let router_id = Ipv4Addr::from(id);
    if router_id.is_unspecified() {
        return Err(Notification::BAD_IDENTIFIER);
    }
    let mut open = Open {
        asn: u32::from(u16::from_be_bytes([as_high, as_low])),
        router_id,
        hold_time: Duration::from_secs(hold_time.into()),
        families: Families::NONE,
        asn4: false,
        route_refresh: false,
        extended_next_hop: false,
        graceful: None,
    };
    let mut multiprotocol = false;
    for capability in capabilities(parameters)? {
        let Some(capability) = parse_capability(capability) else { continue };
        multiprotocol |= matches!(capability, BgpCapability::MultiProtocolExtensions(_));
        open.take(&capability);
    }
    if !multiprotocol {
        open.families.set(Family::Ipv4, true);
    }
    //= rfc7607#2: a BGP speaker that receives an OPEN with AS 0 MUST abort with "Bad Peer AS"
    if open.asn == 0 {
        return Err(Notification::BAD_PEER_AS);
    }
    Ok(open)
}

impl Open {
    fn take(&mut self, capability: &BgpCapability) {
        match capability {
            BgpCapability::MultiProtocolExtensions(m) => {
                if let Some(family) = Family::from_address_type(m.address_type()) {
                    self.families.set(family, true);
                }
            }
            BgpCapability::FourOctetAs(four) => {
                self.asn4 = true;
                self.asn = four.asn4();
            }
            BgpCapability::RouteRefresh => self.route_refresh = true,
            BgpCapability::ExtendedNextHopEncoding(encodings) => {
                self.extended_next_hop |= encodings.encodings().iter().any(|e| {
                    e.address_type() == AddressType::Ipv4Unicast && e.next_hop_afi() == AddressFamily::IPv6
                });
            }
            BgpCapability::GracefulRestartCapability(graceful) => {
                let families = |wanted: fn(&GracefulRestartAddressFamily) -> bool| {
                    let families = graceful.address_families().iter().filter(|f| wanted(f));
                    families.filter_map(|f| Family::from_address_type(f.address_type())).collect()
                };
                self.graceful = Some(GracefulCapability {
                    restarting: graceful.restart(),
                    restart_time: Duration::from_secs(graceful.time().into()),
                    families: families(|_| true),
                    forwarding: families(GracefulRestartAddressFamily::forwarding_state),
                });
            }
            _ => {}
        }
    }
}

/// The capabilities in the optional parameters, each with its code and length (RFC 5492 §4, RFC 9072 §2).
fn capabilities(parameters: &[u8]) -> Result<Vec<&[u8]>, Notification> {
    let malformed = || Notification::OPEN_MALFORMED;
    let (length, mut rest, extended) = match parameters {
        [EXTENDED_LENGTH, EXTENDED_LENGTH, high, low, rest @ ..] => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest, true)
        }
        [length, rest @ ..] => (usize::from(*length), rest, false),
        [] => return Err(malformed()),
    };
    if rest.len() != length {
        return Err(malformed());
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (kind, length, after) = match rest {
            [kind, high, low, after @ ..] if extended => {
                (*kind, usize::from(u16::from_be_bytes([*high, *low])), after)
            }
            [kind, length, after @ ..] if !extended => (*kind, usize::from(*length), after),
            _ => return Err(malformed()),
        };
        let (mut value, after) = after.split_at_checked(length).ok_or_else(malformed)?;
        rest = after;
        if kind != CAPABILITIES {
            return Err(Notification::UNSUPPORTED_PARAMETER.with(&[kind]));
        }
        while let [_, length, ..] = value {
            let (one, after) = value.split_at_checked(2 + usize::from(*length)).ok_or_else(malformed)?;
            found.push(one);
            value = after;
        }
        if !value.is_empty() {
            return Err(malformed());
        }
    }
    Ok(found)
}

/// Parses one capability from its own slice.
//= rfc5492#3: a speaker ignores capabilities that it does not understand
fn parse_capability(bytes: &[u8]) -> Option<BgpCapability> {
    let mut reader = SliceReader::new(bytes);
    let capability = BgpCapability::parse(&mut reader).ok()?;
    reader.is_empty().then_some(capability)
}

/// Our OPEN. `forwarding`: the kernel kept our routes over whatever ended the session before.
pub(crate) fn write(config: &Config, restarting: bool, forwarding: bool) -> Vec<u8> {
    let families = config.families();
    let mut capabilities: Vec<BgpCapability> = families
        .iter()
        .map(|f| {
            BgpCapability::MultiProtocolExtensions(MultiProtocolExtensionsCapability::new(f.address_type()))
        })
        .collect();
    capabilities.push(BgpCapability::RouteRefresh);
    if config.local_address(Family::Ipv6).is_some() {
        capabilities.push(BgpCapability::ExtendedNextHopEncoding(ExtendedNextHopEncodingCapability::new([
            ExtendedNextHopEncoding::new(AddressType::Ipv4Unicast, AddressFamily::IPv6),
        ])));
    }
    let restart_time = u16::try_from(config.graceful.restart_time.as_secs()).unwrap_or(u16::MAX).min(0xfff);
    if restart_time > 0 {
        let families: Vec<_> = families
            .iter()
            .map(|f| GracefulRestartAddressFamily::new(forwarding, f.address_type()))
            .collect();
        capabilities.push(BgpCapability::GracefulRestartCapability(GracefulRestartCapability::new(
            restarting,
            false,
            restart_time,
            families,
        )));
    }
    capabilities.push(BgpCapability::FourOctetAs(FourOctetAsCapability::new(config.asn)));

    let mut values = Vec::new();
    for capability in &capabilities {
        // Writing into memory can't fail; one that did would be left out.
        let start = values.len();
        if capability.write(&mut values).is_err() {
            values.truncate(start);
        }
    }
    let short_asn = u16::try_from(config.asn).unwrap_or(AS_TRANS as u16);
    let hold_time = u16::try_from(config.hold_time.as_secs()).unwrap_or(u16::MAX);
    let mut body = vec![VERSION];
    body.extend(short_asn.to_be_bytes());
    body.extend(hold_time.to_be_bytes());
    body.extend(config.router_id.octets());
    // At most five short capabilities: far below 255 octets.
    let length = u8::try_from(values.len()).unwrap_or(u8::MAX);
    body.extend([length + 2, CAPABILITIES, length]);
    body.extend(values);
    message::wrap(Kind::Open, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Phase, Role};

    fn config() -> Config {
        let mut config = Config::new(4_200_000_001, Ipv4Addr::new(10, 0, 0, 1), Role::Hub, Phase::Two);
        config.local_addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        config
    }

    fn body(message: &[u8]) -> &[u8] {
        &message[message::HEADER..]
    }

    #[test]
    fn what_we_write_we_read() {
        let open = read(body(&write(&config(), true, true))).unwrap();
        let both: Families = Family::ALL.into_iter().collect();
        assert_eq!(
            open,
            Open {
                asn: 4_200_000_001,
                router_id: Ipv4Addr::new(10, 0, 0, 1),
                hold_time: Duration::from_secs(30),
                families: both,
                asn4: true,
                route_refresh: true,
                extended_next_hop: true,
                graceful: Some(GracefulCapability {
                    restarting: true,
                    restart_time: Duration::from_secs(120),
                    families: both,
                    forwarding: both,
                }),
            }
        );
    }

    #[test]
    fn a_peer_without_capabilities_speaks_ipv4() {
        let open = read(&[4, 0xfd, 0xe8, 0, 10, 10, 0, 0, 2, 0]).unwrap();
        assert_eq!((open.asn, open.asn4), (65_000, false));
        assert_eq!(open.families, [Family::Ipv4].into_iter().collect());
        assert_eq!(open.graceful, None);
    }

    #[test]
    fn a_damaged_capability_takes_no_other_with_it() {
        // FourOctetAs with a length of 3, then route refresh.
        let open = read(&[4, 0xfd, 0xe8, 0, 10, 10, 0, 0, 2, 9, 2, 7, 65, 3, 0, 0, 1, 2, 0]).unwrap();
        assert_eq!((open.asn, open.asn4, open.route_refresh), (65_000, false, true));
    }

    #[test]
    fn extended_parameter_length_is_understood() {
        let open = read(&[4, 0xfd, 0xe8, 0, 10, 10, 0, 0, 2, 255, 255, 0, 5, 2, 0, 2, 2, 0]).unwrap();
        assert!(open.route_refresh);
    }

    #[test]
    fn open_errors_have_their_subcodes() {
        let error = |bytes: &[u8]| read(bytes).unwrap_err();
        assert_eq!(error(&[3, 0, 1, 0, 10, 1, 1, 1, 1, 0]), Notification::BAD_VERSION.with(&[0, 4]));
        assert_eq!(error(&[4, 0, 0, 0, 10, 1, 1, 1, 1, 0]), Notification::BAD_PEER_AS);
        assert_eq!(error(&[4, 0, 1, 0, 2, 1, 1, 1, 1, 0]), Notification::UNACCEPTABLE_HOLD_TIME);
        assert_eq!(error(&[4, 0, 1, 0, 10, 0, 0, 0, 0, 0]), Notification::BAD_IDENTIFIER);
        assert_eq!(
            error(&[4, 0, 1, 0, 10, 1, 1, 1, 1, 2, 1, 0]),
            Notification::UNSUPPORTED_PARAMETER.with(&[1])
        );
        assert_eq!(error(&[4, 0, 1, 0, 10, 1, 1, 1, 1, 2, 2, 9]), Notification::OPEN_MALFORMED);
        assert_eq!(error(&[4, 0, 1, 0, 10, 1, 1, 1, 1, 9]), Notification::OPEN_MALFORMED);
        assert_eq!(error(&[4, 0, 1]), Notification::OPEN_MALFORMED);
    }
}
