//! The lab itself: what it says of links and NATs is so, and it leaves nothing behind.

use lab::relay::Shape;
use lab::traffic::{Flow, Ping, transfer};
use lab::{Capture, Lab, Nat, NatRouter, Node, Result, Uplink, heavy_story, story};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn hosts_of_two_sites_reach_each_other_by_static_routes() {
    story("static_routes", |lab| {
        let (a, b) = (lab.site("a", &["198.51.100.1"])?, lab.site("b", &["198.51.100.2"])?);
        let capture = Capture::start(lab.internet(), &["p0"])?;
        Ping::default().expect(&a, "198.51.100.2")?;
        let requests = capture.count(|p| !p.outgoing && p.ip.goes("198.51.100.1", "198.51.100.2"));
        let answers = capture.count(|p| p.outgoing && p.ip.goes("198.51.100.2", "198.51.100.1"));
        assert_eq!((requests, answers), (3, 3));
        let done = transfer(&a, (&b, "198.51.100.2"), 5001, 4 << 20)?;
        assert_eq!(done.octets, 4 << 20);
        Ok(())
    });
}

#[test]
fn ipv6_sites_reach_each_other() {
    story("ipv6_sites", |lab| {
        let a = lab.site("a", &["2001:db8::1"])?;
        let _b = lab.site_by("b", &["2001:db8::2"], &Uplink::delay_ms(1))?;
        Ping::default().expect(&a, "2001:db8::2").map(drop)
    });
}

#[test]
fn a_site_that_changes_its_address_is_reached_at_the_new_one_only() {
    story("readdress", |lab| {
        let (a, b) = (lab.site("a", &["198.51.100.1"])?, lab.site("b", &["198.51.100.2"])?);
        b.readdress(lab.internet(), "198.51.100.2", "203.0.113.7")?;
        Ping::default().expect(&a, "203.0.113.7")?;
        let gone = Ping { patience: 200 * MS, ..Ping::times(1) }.run(&a, "198.51.100.2")?;
        assert!(!gone.complete());
        Ok(())
    });
}

#[test]
fn a_relayed_link_takes_its_delay_and_keeps_order_under_jitter() {
    heavy_story("relay_delay", |lab| {
        let shape = Shape::delay(10 * MS).jitter(5 * MS);
        let (a, link) = lab.site_by("a", &["198.51.100.1"], &Uplink::relayed(shape))?;
        let b = lab.site("b", &["198.51.100.2"])?;
        // Packets that waited for an ARP answer may be overtaken by those after it: not the link's doing.
        Ping::times(1).expect(&a, "198.51.100.2")?;
        let flow = Flow::start((&a, "198.51.100.1"), (&b, "198.51.100.2"), 7000, 5000, 100)?;
        std::thread::sleep(2000 * MS);
        let report = flow.stop();
        report.assert_nothing_lost();
        assert_eq!(report.reordered, 0, "{report}");
        let mut delays: Vec<_> = report.arrivals.iter().map(lab::traffic::Arrival::delay).collect();
        delays.sort_unstable();
        let (least, median) = (delays[0], delays[delays.len() / 2]);
        assert!(least >= 10 * MS && median >= 11 * MS && median < 16 * MS, "{least:?} {median:?}");
        let counters = link.map(|l| l.up.counters()).unwrap_or_default();
        assert!(counters.received >= report.sent && counters.refused == 0, "{counters:?}");
        Ok(())
    });
}

#[test]
fn a_relayed_link_loses_what_it_is_told_to_and_nothing_when_told_so() {
    story("relay_loss", |lab| {
        let (a, link) = lab.site_by("a", &["198.51.100.1"], &Uplink::relayed(Shape::default().loss(0.1)))?;
        let Some(link) = link else { unreachable!("a relayed link") };
        let b = lab.site("b", &["198.51.100.2"])?;
        let flow = Flow::start((&a, "198.51.100.1"), (&b, "198.51.100.2"), 7000, 2000, 100)?;
        std::thread::sleep(1000 * MS);
        let report = flow.stop();
        let part = report.lost as f64 / report.sent as f64;
        assert!((0.05..0.15).contains(&part), "{report}");
        link.blackhole(true);
        let report = Ping { patience: 200 * MS, ..Ping::times(1) }.run(&a, "198.51.100.2")?;
        assert!(report.round_trips.is_empty());
        link.set(|shape| *shape = Shape::default());
        Ping::times(10).expect(&a, "198.51.100.2").map(drop)
    });
}

#[test]
fn a_relay_carries_forty_thousand_frames_a_second() {
    heavy_story("relay_rate", |lab| {
        // Two flows of 10,000 a second over two links each: 40,000 frames a second on the relay.
        let uplink = Uplink::delay_ms(5);
        let (a, _) = lab.site_by("a", &["198.51.100.1"], &uplink)?;
        let (b, _) = lab.site_by("b", &["198.51.100.2"], &uplink)?;
        let flows = [
            Flow::start((&a, "198.51.100.1"), (&b, "198.51.100.2"), 7000, 10_000, 100)?,
            Flow::start((&b, "198.51.100.2"), (&a, "198.51.100.1"), 7001, 10_000, 100)?,
        ];
        std::thread::sleep(3000 * MS);
        for flow in flows {
            let report = flow.stop();
            assert!(report.sent > 25_000, "the senders got too little of this machine's time: {report}");
            report.assert_nothing_lost();
        }
        Ok(())
    });
}

#[test]
fn a_rate_and_a_frame_limit_hold() {
    story("relay_rate_limit", |lab| {
        let shape = Shape { frame_limit: 1000, queue: 20_000, ..Shape::default().rate(1_000_000) };
        let (a, _) = lab.site_by("a", &["198.51.100.1"], &Uplink::relayed(shape))?;
        let b = lab.site("b", &["198.51.100.2"])?;
        let too_long = Ping { size: 1100, patience: 200 * MS, ..Ping::times(1) }.run(&a, "198.51.100.2")?;
        assert!(too_long.round_trips.is_empty());
        // 2.2 Mbit/s offered to 1 Mbit/s.
        let flow = Flow::start((&a, "198.51.100.1"), (&b, "198.51.100.2"), 7000, 500, 500)?;
        std::thread::sleep(1500 * MS);
        let report = flow.stop();
        let part = report.received as f64 / report.sent as f64;
        assert!((0.35..0.75).contains(&part), "{report}");
        Ok(())
    });
}

/// What one UDP socket behind a NAT looks like from two servers outside, and who may answer it.
struct Seen {
    from_first: SocketAddr,
    from_second: SocketAddr,
    stranger_gets_in: bool,
}

fn look(inside: &Node, outside: &Node) -> Result<Seen> {
    let io = || lab::Error::io("probe the NAT");
    let socket = |node: &Node, address: &str| -> Result<UdpSocket> {
        let socket = node.namespace().enter(|| UdpSocket::bind(address))?.map_err(io())?;
        socket.set_read_timeout(Some(1000 * MS)).map_err(io())?;
        Ok(socket)
    };
    let client = socket(inside, "192.168.77.2:4754")?;
    let (first, second) = (socket(outside, "198.51.100.2:1001")?, socket(outside, "198.51.100.2:1002")?);
    let stranger = socket(outside, "198.51.100.2:1003")?;
    let mut seen = Vec::new();
    for server in [&first, &second] {
        client.send_to(b"hello", server.local_addr().map_err(io())?).map_err(io())?;
        seen.push(server.recv_from(&mut [0; 9]).map_err(io())?.1);
    }
    stranger.send_to(b"hi", seen[0]).map_err(io())?;
    client.set_read_timeout(Some(300 * MS)).map_err(io())?;
    Ok(Seen { from_first: seen[0], from_second: seen[1], stranger_gets_in: client.recv(&mut [0; 9]).is_ok() })
}

fn behind(lab: &Lab, router: &NatRouter) -> Result<Seen> {
    let nat = lab.nat("nat", &["198.51.100.1"], router)?;
    let inside = nat.site("inside", &["192.168.77.2"])?;
    let outside = lab.site("outside", &["198.51.100.2"])?;
    look(&inside, &outside)
}

#[test]
fn a_port_preserving_nat_keeps_the_port_and_lets_no_stranger_in() {
    story("nat_port_preserving", |lab| {
        let seen = behind(lab, &NatRouter::new(Nat::PortPreserving))?;
        assert_eq!(seen.from_first.to_string(), "198.51.100.1:4754");
        assert_eq!(seen.from_second, seen.from_first);
        assert!(!seen.stranger_gets_in);
        Ok(())
    });
}

#[test]
fn a_symmetric_nat_shows_each_destination_another_port() {
    story("nat_symmetric", |lab| {
        let seen = behind(lab, &NatRouter::new(Nat::Symmetric))?;
        assert_ne!(seen.from_first.port(), 4754);
        assert_ne!(seen.from_second, seen.from_first);
        assert!(!seen.stranger_gets_in);
        Ok(())
    });
}

#[test]
fn a_full_cone_lets_strangers_in() {
    story("nat_full_cone", |lab| {
        let seen = behind(lab, &NatRouter::new(Nat::FullCone))?;
        assert_eq!(seen.from_first.to_string(), "198.51.100.1:4754");
        assert_eq!(seen.from_second, seen.from_first);
        assert!(seen.stranger_gets_in);
        Ok(())
    });
}

#[test]
fn a_one_to_one_nat_passes_everything_both_ways() {
    story("nat_one_to_one", |lab| {
        let inner = "192.168.77.2".parse().map_err(lab::Error::other)?;
        let seen = behind(lab, &NatRouter::new(Nat::OneToOne { inner }))?;
        assert_eq!(seen.from_first.to_string(), "198.51.100.1:4754");
        assert!(seen.stranger_gets_in);
        Ok(())
    });
}

#[test]
fn only_a_hairpinning_nat_connects_its_own_by_their_outer_address() {
    for hairpin in [true, false] {
        story("nat_hairpin", |lab| {
            let router = NatRouter { hairpin, ..NatRouter::new(Nat::PortPreserving) };
            let nat = lab.nat("nat", &["198.51.100.1"], &router)?;
            let (a, b) = (nat.site("a", &["192.168.77.2"])?, nat.site("b", &["192.168.77.3"])?);
            let outside = lab.site("outside", &["198.51.100.2"])?;
            let io = || lab::Error::io("probe the hairpin");
            let bind = |node: &Node, address: &str| {
                node.namespace().enter(|| UdpSocket::bind(address))?.map_err(io())
            };
            let (a, b) = (bind(&a, "192.168.77.2:4754")?, bind(&b, "192.168.77.3:4755")?);
            let server = bind(&outside, "198.51.100.2:1001")?;
            for client in [&a, &b] {
                client.send_to(b"hello", "198.51.100.2:1001").map_err(io())?;
                server.recv_from(&mut [0; 9]).map_err(io())?;
                client.set_read_timeout(Some(300 * MS)).map_err(io())?;
            }
            a.send_to(b"hi", "198.51.100.1:4755").map_err(io())?;
            let got = b.recv_from(&mut [0; 9]).ok().map(|(_, from)| from.to_string());
            // RFC 4787 §6: the source is the outer address, so that the answer goes the same way.
            assert_eq!(got.as_deref(), hairpin.then_some("198.51.100.1:4754"));
            Ok(())
        });
    }
}

#[test]
fn a_story_that_fails_leaves_nothing_behind() {
    let told = std::panic::catch_unwind(|| {
        story("failing", |lab| {
            let node = lab.site("a", &["198.51.100.1"])?;
            node.spawn(std::process::Command::new("sleep").arg("1000"))?;
            panic!("{}", node.namespace().name().to_owned());
        });
    });
    let panic = told.expect_err("the story fails");
    let name = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(name.starts_with("kdlab-"), "{name}");
    assert_eq!(lab::netns::named(name.trim_end_matches("-a")), Vec::<String>::new());
}
