//! A link of 1280 octets in the middle: discovered, told to inner senders, and TCP gets through.

use lab::network::{hub, spoke, start_and_join};
use lab::traffic::{Ping, transfer};
use lab::wait::{self, PATIENCE};
use lab::{Lab, Result, Site, Uplink, story};
use std::time::Duration;

/// A spoke behind a router that is attached by a link of this MTU.
fn behind_narrow_link(lab: &Lab, n: u8, mtu: u32) -> Result<Site> {
    let plan = spoke(n, &[1]);
    let (middle, _) = lab.site_by("middle", &["198.51.100.200"], &Uplink::mtu(mtu))?;
    let port = lab.internet().route_get("198.51.100.200")?["dev"].as_str().unwrap_or_default().to_owned();
    let route = format!("route add {}/32 via 198.51.100.200 dev {port} onlink", plan.underlay);
    lab.internet().namespace().ip(&[&route])?;
    plan.start_behind(lab, &middle)
}

#[test]
fn a_narrow_link_is_discovered_and_inner_senders_are_told() {
    story("mtu_1280", |lab| {
        let hub1 = hub(1).start(lab)?;
        let b = behind_narrow_link(lab, 2, 1280)?;
        let spokes = start_and_join(lab, &[&hub1], vec![spoke(1, &[1])])?;
        let [a] = &spokes[..] else { unreachable!("one spoke") };
        b.wait_joined(1)?;
        a.wait_route_to(&b)?;
        b.wait_route_to(a)?;
        a.wait_direct(&b)?;
        let wire = b.wire()?;
        for (from, to, port) in [(a, &b, 5001), (&b, a, 5002)] {
            transfer(&from.host, (&to.host, &to.host_address), port, 4 << 20)?;
        }
        let fragments = wire.count(|p| p.ip.fragment);
        assert_eq!(fragments, 0, "outer packets are not fragmented");
        // 1280 octets outside leave room for 1240 inside (IPv4, UDP, GRE with room for a key) and not for 1300.
        let probe = |size: usize| Ping {
            size,
            dont_fragment: true,
            interval: Duration::from_millis(200),
            ..Ping::times(5)
        };
        wait::until("small packets to pass", PATIENCE, || {
            probe(1200 - 28).expect(&a.host, &b.host_address).map_err(|e| e.to_string())
        })?;
        let too_long = probe(1300 - 28).run(&a.host, &b.host_address)?;
        assert!(too_long.round_trips.is_empty(), "{too_long}");
        assert!(!too_long.refusals.is_empty(), "the host was told: {too_long}");
        Ok(())
    });
}

#[test]
fn an_mtu_by_configuration_is_the_interfaces() {
    story("mtu_configured", |lab| {
        let narrow = |m: lab::Manifest| m.with(serde_json::json!({"tunnel": {"mtu": 1300}}));
        let hub1 = hub(1).tuned(narrow).start(lab)?;
        let spokes =
            start_and_join(lab, &[&hub1], vec![spoke(1, &[1]).tuned(narrow), spoke(2, &[1]).tuned(narrow)])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        assert_eq!(a.node.namespace().ip_json("link show dmvpn0")?[0]["mtu"], 1300);
        a.wait_direct(b)?;
        let wire = a.wire()?;
        transfer(&a.host, (&b.host, &b.host_address), 5001, 4 << 20)?;
        let longest =
            wire.select(|p| a.carried(b)(p)).iter().filter_map(|p| p.ip.inner().map(|i| i.length)).max();
        assert!(longest.is_some_and(|l| l <= 1300), "{longest:?}");
        Ok(())
    });
}
