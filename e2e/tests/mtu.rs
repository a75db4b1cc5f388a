//! A link of 1280 octets in the middle: discovered, told to inner senders, and TCP gets through.

use lab::network::{hub, spoke, start_and_join};
use lab::traffic::{Flow, Ping, transfer};
use lab::wait::{self, PATIENCE};
use lab::{Error, Lab, Node, Result, Site, Uplink, story};
use std::thread::sleep;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// Octets of IPv4 and UDP headers, and of IPv4 and ICMP headers.
const HEADERS: usize = 28;

/// The link between the Internet and a router with a spoke behind it.
struct Middle {
    router: Node,
    internet: Node,
    port: String,
}

impl Middle {
    fn set_mtu(&self, mtu: u32) -> Result {
        self.internet.set_mtu(&self.port, mtu)?;
        self.router.set_mtu("wan", mtu)
    }
}

/// A spoke behind a router that is attached by a link of this MTU.
fn behind_link(lab: &Lab, n: u8, mtu: u32) -> Result<(Site, Middle)> {
    let plan = spoke(n, &[1]);
    let (router, _) = lab.site_by("middle", &["198.51.100.200"], &Uplink::mtu(mtu))?;
    let internet = lab.internet().clone();
    let port = internet.route_get("198.51.100.200")?["dev"].as_str().unwrap_or_default().to_owned();
    let route = format!("route add {}/32 via 198.51.100.200 dev {port} onlink", plan.underlay);
    internet.namespace().ip(&[&route])?;
    let site = plan.start_behind(lab, &router)?;
    Ok((site, Middle { router, internet, port }))
}

/// Pings of packets of `length` octets that nobody may fragment.
fn whole(length: usize) -> Ping {
    Ping { size: length - HEADERS, dont_fragment: true, interval: 200 * MS, ..Ping::times(5) }
}

#[test]
fn a_narrow_link_is_discovered_and_inner_senders_are_told() {
    story("mtu_1280", |lab| {
        let hub1 = hub(1).start(lab)?;
        let (b, _) = behind_link(lab, 2, 1280)?;
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
        wait::until("small packets to pass", PATIENCE, || {
            whole(1200).expect(&a.host, &b.host_address).map_err(|e| e.to_string())
        })?;
        let too_long = whole(1300).run(&a.host, &b.host_address)?;
        assert!(too_long.round_trips.is_empty(), "{too_long}");
        assert!(!too_long.refusals.is_empty(), "the host was told: {too_long}");
        Ok(())
    });
}

#[test]
fn a_middle_that_narrows_under_a_flow_is_learnt_for_that_peer_and_the_sender_adapts() {
    const RATE: u32 = 500;
    story("mtu_narrows", |lab| {
        let hub1 = hub(1).start(lab)?;
        let (b, middle) = behind_link(lab, 2, 1500)?;
        let spokes = start_and_join(lab, &[&hub1], vec![spoke(1, &[1]), spoke(3, &[1])])?;
        let [a, c] = &spokes[..] else { unreachable!("two spokes") };
        b.wait_joined(1)?;
        a.wait_route_to(&b)?;
        b.wait_route_to(a)?;
        for far in [&b, c] {
            a.wait_direct(far)?;
        }
        let mtu_to = |far: &Site| Ok::<_, Error>(a.agent.ask().peer(&far.tunnel)?.mtu);
        let wide = mtu_to(&b)?;
        assert_eq!((wide, mtu_to(c)?), (a.agent.ask().tunnel()?.mtu, wide));
        let longest = wide as usize;
        for far in [&b, c] {
            whole(longest).expect(&a.host, &far.host_address)?;
        }

        let (near, far) = ((&a.host, &*a.host_address), (&b.host, &*b.host_address));
        let flows = [
            Flow::start(near, far, 7001, RATE, longest - HEADERS)?,
            Flow::start(far, near, 7002, RATE, longest - HEADERS)?,
        ];
        sleep(1000 * MS);
        middle.set_mtu(1280)?;
        let narrow = wait::until("the narrow link to be known", PATIENCE, || {
            let narrow = mtu_to(&b)?;
            if narrow < wide { Ok(narrow) } else { Err(Error::other(narrow)) }
        })?;
        wait::until("the host to have been told", PATIENCE, || {
            let route = a.host.route_get(&b.host_address)?;
            if route["metrics"][0]["mtu"] == narrow { Ok(()) } else { Err(Error::other(route)) }
        })?;
        sleep(2000 * MS);
        for report in flows.map(Flow::stop) {
            println!("{report}");
            // What was on its way, one to teach the datapath, one to teach the host, and what followed these in the
            // meantime: the host's kernel sends fragments from then on.
            assert!(report.lost > 0 && report.lost <= u64::from(RATE / 10), "{report}");
        }
        whole(narrow as usize).expect(&a.host, &b.host_address)?;
        let too_long = whole(longest).run(&a.host, &b.host_address)?;
        assert!(too_long.round_trips.is_empty() && !too_long.refusals.is_empty(), "{too_long}");
        transfer(&a.host, (&b.host, &b.host_address), 5001, 4 << 20)?;
        // Others are not concerned.
        assert_eq!((mtu_to(c)?, mtu_to(&hub1)?), (wide, wide));
        whole(longest).expect(&a.host, &c.host_address)?;
        let said = a.agent.ask().diagnose()?;
        let said = said.iter().find(|check| check.name.contains("MTU")).map(|check| check.found.clone());
        assert!(said.is_some_and(|found| found.contains(&format!("{narrow} to {}", b.tunnel))));
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
