//! IPv6 outside and inside.

use lab::network::{hub, spoke};
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Error, Manifest, Result, Site, story};
use serde_json::json;

#[test]
fn an_ipv6_underlay_carries_an_ipv4_overlay() {
    story("ipv6_underlay", |lab| {
        let by_v6 = |m: Manifest| m.with(json!({"hubs": [{"address": "2001:db8::1"}]}));
        let hub1 = hub(1).at("2001:db8::1").start(lab)?;
        let a = spoke(1, &[1]).at("2001:db8::11").tuned(by_v6).start(lab)?;
        let b = spoke(2, &[1]).at("2001:db8::12").tuned(by_v6).start(lab)?;
        for (here, there) in [(&a, &b), (&b, &a)] {
            here.wait_joined(1)?;
            here.wait_route_to(there)?;
        }
        let wire = a.wire()?;
        a.wait_direct(&b)?;
        assert!(wire.count(|p| a.between(&b)(p) && a.carried(&b)(p)) > 0);
        assert_eq!(wire.count(|p| p.ip.source.is_ipv4()), 0);
        drop(hub1);
        Ok(())
    });
}

/// A host that pings over IPv6 until its packets go directly.
fn wait_shortcut_v6(a: &Site, b: &Site, b_v6: &str) -> Result {
    wait::until("the first answer", PATIENCE, || Ping::times(1).expect(&a.host, b_v6).map(drop))?;
    wait::until("a shortcut for IPv6", PATIENCE, || {
        Ping::times(5).expect(&a.host, b_v6)?;
        let path = a.agent.ask().path("", b_v6)?;
        if path.kind == "shortcut" {
            Ok(())
        } else {
            Err(Error::other(format!("{b:?} {path:?}", b = b.tunnel)))
        }
    })
}

/// A site's LAN has IPv6 as well: `fd00:10:n::/64`.
fn with_v6(site: Site, n: u8) -> Result<(Site, String)> {
    site.node.lan_also("lan", &site.host, &format!("fd00:10:{n}::1/64"))?;
    Ok((site, format!("fd00:10:{n}::a")))
}

/// The tunnel has IPv6 addresses beside IPv4, and the LAN's prefix is announced.
fn dual(n: &str, tunnel_host: &str) -> impl Fn(Manifest) -> Manifest {
    let lan = format!("fd00:10:{n}::/64");
    let address = format!("fd00:200::{tunnel_host}/128");
    move |m| {
        m.with(json!({
            "tunnel": {"networkV6": "fd00:200::/64", "addressesV6": address},
            "announce": {"prefixes": [lan]},
        }))
    }
}

#[test]
fn an_overlay_carries_ipv6_with_shortcuts_of_its_own() {
    story("ipv6_overlay", |lab| {
        let summary = |m: Manifest| m.summaries(&["10.0.0.0/8", "fd00:10::/32"]);
        let _hub = hub(1).tuned(dual("100", "1")).tuned(summary).start(lab)?;
        let (a, a_v6) = with_v6(spoke(1, &[1]).tuned(dual("1", "16:1")).start(lab)?, 1)?;
        let (b, b_v6) = with_v6(spoke(2, &[1]).tuned(dual("2", "16:2")).start(lab)?, 2)?;
        for here in [&a, &b] {
            here.wait_joined(1)?;
        }
        let wire = a.wire()?;
        wait_shortcut_v6(&a, &b, &b_v6)?;
        let direct = |p: &lab::Packet| a.between(&b)(p) && p.ip.carries(&a_v6, &b_v6);
        assert!(wire.count(direct) > 0);
        let route = a.node.namespace().ip_json("-6 route show fd00:10:2::/64")?;
        assert_eq!(route[0]["gateway"], "fd00:200::16:2", "{route}");
        Ok(())
    });
}

#[test]
fn an_ipv6_overlay_runs_over_an_ipv6_underlay() {
    story("ipv6_all", |lab| {
        let by_v6 = |m: Manifest| m.with(json!({"hubs": [{"address": "2001:db8::1"}]}));
        let summary = |m: Manifest| m.summaries(&["10.0.0.0/8", "fd00:10::/32"]);
        let _hub = hub(1).at("2001:db8::1").tuned(dual("100", "1")).tuned(summary).start(lab)?;
        let plan = |n: u8| {
            let number = n.to_string();
            spoke(n, &[1])
                .at(&format!("2001:db8::1{n}"))
                .tuned(by_v6)
                .tuned(dual(&number, &format!("16:{n}")))
        };
        let (a, _) = with_v6(plan(1).start(lab)?, 1)?;
        let (b, b_v6) = with_v6(plan(2).start(lab)?, 2)?;
        for here in [&a, &b] {
            here.wait_joined(1)?;
        }
        let wire = a.wire()?;
        wait_shortcut_v6(&a, &b, &b_v6)?;
        assert!(
            wire.count(|p| p.ip.goes(&a.underlay, &b.underlay) && p.ip.carries("fd00:10:1::a", &b_v6)) > 0
        );
        Ok(())
    });
}
