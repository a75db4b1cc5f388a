//! Fixed replies, with one of everything that is worth showing.

use rpc::agent::*;
use std::collections::BTreeMap;

fn traffic(rx_bytes: u64, tx_bytes: u64) -> Option<Traffic> {
    Some(Traffic { rx_bytes, tx_bytes, rx_packets: rx_bytes / 1000, tx_packets: tx_bytes / 1000 })
}

fn hub(name: &str, identity: &str, path: &str, up: bool, reason: &str) -> Hub {
    Hub {
        name: name.into(),
        tunnel_address: if up { "10.200.0.1".into() } else { String::new() },
        up,
        since_ms: 352_800_000,
        path: path.into(),
        by_hub: up,
        reason: reason.into(),
        identity: identity.into(),
        rtt_us: if up { 12_345 } else { 0 },
        ..Hub::default()
    }
}

pub(crate) fn status() -> StatusReply {
    let spoke = Tunnel {
        interface: "dmvpn0".into(),
        name: "branch-a".into(),
        role: Role::Spoke.into(),
        phase: 3,
        networks: vec!["10.200.0.0/16".into()],
        addresses: vec!["10.200.16.1".into()],
        identity: "a-1.branch.example.com".into(),
        state: TunnelState::Up.into(),
        since_ms: 352_800_000,
        protection: "aes128gcm16, rekeyed 12m ago".into(),
        encrypted: true,
        identity_unverified: true,
        sessions: 2,
        warnings: vec!["the keys of every SA are written to /run/kube-dmvpn/keys/dmvpn0".into()],
        nbma: "192.168.1.7".into(),
        udp_port: 4500,
        mtu: 1400,
        observed: "198.51.100.7:31337".into(),
        hubs: vec![
            hub("198.51.100.1", "hq-1", "198.51.100.1:4500", true, ""),
            hub(
                "hub2.example.com",
                "",
                "",
                false,
                "its name does not resolve: check DNS, or write its address",
            ),
        ],
        traffic: traffic(1_234_567_890, 834_000_000),
        counters: BTreeMap::from([("drop_unknown_peer".into(), 3)]),
        peers: 12,
        shortcuts: 1,
        bgp_neighbours: vec![
            BgpNeighbour {
                address: "10.200.0.1".into(),
                asn: 65000,
                state: "Established".into(),
                since_ms: 352_000_000,
                prefixes_received: 12,
                prefixes_sent: 1,
                prefixes_refused: 2,
                ..BgpNeighbour::default()
            },
            BgpNeighbour {
                address: "10.200.0.2".into(),
                state: "Active".into(),
                since_ms: 5_000,
                last_error: "connection refused".into(),
                ..BgpNeighbour::default()
            },
        ],
        datapath_connected: true,
        static_routes: vec![StaticRoute {
            prefix: "10.98.0.0/16".into(),
            via: "10.200.99.1".into(),
            installed: false,
            reason: "the next hop has no path".into(),
        }],
        ..Tunnel::default()
    };
    let hub = Tunnel {
        interface: "dmvpn1".into(),
        name: "hq".into(),
        role: Role::Hub.into(),
        phase: 2,
        addresses: vec!["10.201.0.1".into(), "fd00:c8::1".into()],
        state: TunnelState::Starting.into(),
        since_ms: 800,
        reason: "waits for the interface's address".into(),
        protection: "none".into(),
        registrations: 7,
        peers: 1,
        address_conflict: true,
        ..Tunnel::default()
    };
    StatusReply {
        node: "a-1".into(),
        version: "0.1.0".into(),
        uptime_ms: 352_900_000,
        tunnels: vec![spoke, hub],
        configuration: Some(Configuration {
            source: "/etc/kube-dmvpn".into(),
            applied_ms: 3_600_000,
            errors: vec![
                "branch.yaml:3: DmvpnSpoke branch-a: spec.tunnel.phase: is 4: write 1, 2 or 3".into(),
            ],
        }),
    }
}

pub(crate) fn sas() -> SasReply {
    let sa = |lane: u32, replayed: u64| Sa {
        suite: "aes128gcm16".into(),
        esn: lane == 1,
        inbound_spi: format!("c0ffee0{lane}"),
        outbound_spi: format!("0badcaf{lane}"),
        lane,
        age_ms: 720_000,
        rekey_in_ms: 2_700_000,
        traffic: traffic(1_234_567_890, 834_000_000),
        replayed,
        ..Sa::default()
    };
    let session = |identity: &str, path: &str, state: &str, sas: Vec<Sa>| Session {
        interface: "dmvpn0".into(),
        identity: identity.into(),
        verified: true,
        path: path.into(),
        state: state.into(),
        ike: "aes256gcm16-prfsha384-x25519".into(),
        sas,
        ..Session::default()
    };
    SasReply {
        sessions: vec![
            session("hq-1.hq.example.com", "198.51.100.1:4500", "Established", vec![sa(0, 0), sa(1, 3)]),
            Session {
                verified: false,
                peer_behind_nat: true,
                ..session("b-2", "203.0.113.9:31337", "Established", vec![sa(0, 0)])
            },
            Session { ike: String::new(), ..session("", "203.0.113.77 (gre)", "ExpectInit", vec![]) },
        ],
    }
}

pub(crate) fn peers() -> PeersReply {
    PeersReply {
        peers: vec![
            Peer {
                interface: "dmvpn0".into(),
                tunnel_addresses: vec!["10.200.0.1".into()],
                kind: PeerKind::Hub.into(),
                identity: "hq-1".into(),
                identity_verified: true,
                protection: "aes128gcm16".into(),
                path: "198.51.100.1:4500".into(),
                mtu: 1434,
                rtt_us: 60_100,
                since_ms: 352_800_000,
                ours: true,
                traffic: traffic(1_200_000_000, 834_000_000),
                state: "carries".into(),
                ..Peer::default()
            },
            Peer {
                interface: "dmvpn0".into(),
                tunnel_addresses: vec!["10.200.17.2".into(), "fd00:c8::17:2".into()],
                kind: PeerKind::Direct.into(),
                identity: "b-2".into(),
                path: "203.0.113.9:4500".into(),
                natted: true,
                mtu: 1214,
                rtt_us: 850,
                since_ms: 192_000,
                traffic: traffic(0, 512),
                group: "branch-10M".into(),
                state: "carries".into(),
                ..Peer::default()
            },
            Peer {
                interface: "dmvpn0".into(),
                tunnel_addresses: vec!["10.200.99.1".into()],
                kind: PeerKind::Static.into(),
                state: "probing".into(),
                ..Peer::default()
            },
        ],
    }
}

pub(crate) fn cache() -> CacheReply {
    let entry = |kind: &str, prefix: &str| CacheEntry {
        interface: "dmvpn0".into(),
        kind: kind.into(),
        prefix: prefix.into(),
        tunnel_address: "10.200.17.2".into(),
        nbma: "192.168.9.9".into(),
        expires_ms: 412_000,
        ..CacheEntry::default()
    };
    CacheReply {
        entries: vec![
            CacheEntry {
                path: "203.0.113.9:4500".into(),
                identity: "b-2".into(),
                natted: true,
                unique: true,
                ..entry("registered", "10.200.17.2/32")
            },
            CacheEntry { expires_ms: 0, interface: "dmvpn1".into(), ..entry("static", "10.99.0.0/16") },
        ],
    }
}

pub(crate) fn shortcuts() -> ShortcutsReply {
    let shortcut = |prefix: &str, state: &str, reason: &str| Shortcut {
        interface: "dmvpn0".into(),
        prefix: prefix.into(),
        via: "10.200.17.2".into(),
        path: "203.0.113.9:4500".into(),
        identity: "b-2".into(),
        state: state.into(),
        since_ms: 192_000,
        reason: reason.into(),
        ..Shortcut::default()
    };
    ShortcutsReply {
        shortcuts: vec![
            Shortcut {
                expires_ms: 412_000,
                natted: true,
                rtt_us: 20_100,
                ..shortcut("10.2.3.0/24", "carries", "")
            },
            shortcut(
                "10.2.4.0/24",
                "failed",
                "no echo came back: both sides are behind NATs that map each peer apart",
            ),
        ],
    }
}

pub(crate) fn path() -> PathReply {
    PathReply {
        destination: "10.2.3.4".into(),
        prefix: "10.2.3.0/24".into(),
        kind: "shortcut".into(),
        via: "10.200.17.2".into(),
        identity: "b-2".into(),
        path: "203.0.113.9:4500".into(),
        natted: true,
        since_ms: 192_000,
        fallback: "hq-1".into(),
        interface: "dmvpn0".into(),
        ..PathReply::default()
    }
}

pub(crate) fn events() -> Vec<Event> {
    let event = |time_ms, reason: &str, severity: Severity, message: &str| Event {
        time_ms,
        interface: "dmvpn0".into(),
        reason: reason.into(),
        severity: severity.into(),
        message: message.into(),
        fields: BTreeMap::from([("peer".into(), "b-2".into())]),
    };
    vec![
        event(1_709_251_199_999, "ShortcutUp", Severity::Normal, "10.2.3.0/24 via b-2 (10.200.17.2), direct"),
        event(
            1_709_251_201_250,
            "ShortcutLost",
            Severity::Warning,
            "10.2.3.0/24: 3 echoes lost, back to the hub",
        ),
    ]
}

pub(crate) fn diagnose(failing: bool) -> DiagnoseReply {
    let check = |name: &str, verdict: Verdict, found: &str, advice: &str| Check {
        name: name.into(),
        verdict: verdict.into(),
        found: found.into(),
        advice: advice.into(),
    };
    let mut checks = vec![check("forwarding", Verdict::Ok, "net.ipv4.ip_forward is 1", "")];
    if failing {
        checks.push(check(
            "hub hub2.example.com",
            Verdict::Fail,
            "nothing comes back",
            "open UDP port 4754 on the way to it",
        ));
        checks.push(check(
            "masquerade",
            Verdict::Warn,
            "a rule masquerades 10.0.0.0/8",
            "exclude dmvpn0 from it",
        ));
    }
    DiagnoseReply { checks }
}

pub(crate) fn packets() -> Vec<CapturedPacket> {
    let packet = |time_ns, interface: &str, outbound, octet| CapturedPacket {
        time_ns,
        interface: interface.into(),
        peer: "10.200.17.2".into(),
        outbound,
        packet: vec![0x45, octet, 0, 3],
    };
    vec![
        packet(1_709_251_199_123_456_789, "dmvpn0", true, 1),
        packet(1_709_251_199_123_456_790, "dmvpn1", false, 2),
        packet(1_709_251_199_123_456_791, "dmvpn0", false, 3),
    ]
}
