//! The route to the API server, with a real kernel, in both IP versions. Needs root.

use dmvpn_agent::disturbances::{Disturbances, SERVER_ROUTE};
use dmvpn_agent::kubernetes::way;
use lab::wait::{self, PATIENCE};
use lab::{Error, Lab, Node, Result, Uplink, story};
use std::thread;
use tokio::sync::oneshot;

/// One IP version: the node's own two addresses on `eth0`, two gateways there, the API server and an overlay that covers it.
struct Version {
    addresses: [&'static str; 2],
    gateways: [&'static str; 2],
    server: &'static str,
    all: &'static str,
    tunnel: [&'static str; 2],
}

const V4: Version = Version {
    addresses: ["192.0.2.7", "192.0.2.8"],
    gateways: ["192.0.2.1", "192.0.2.2"],
    server: "10.96.0.1",
    all: "10.0.0.0/8",
    tunnel: ["10.200.1.1/16", "10.200.0.1"],
};

const V6: Version = Version {
    addresses: ["2001:db8::7", "2001:db8::8"],
    gateways: ["2001:db8::1", "2001:db8::2"],
    server: "fd00:96::1",
    all: "fd00::/16",
    tunnel: ["fd00:200::1:1/64 nodad", "fd00:200::1"],
};

/// A node with one neighbour, and a thread in it that does what an agent in a cluster does.
struct Scene {
    node: Node,
    _neighbour: Node,
    disturbances: Disturbances,
    ended: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Scene {
    fn start(lab: &Lab, version: &Version) -> Result<Self> {
        let (node, neighbour) = (lab.node("node")?, lab.node("neighbour")?);
        node.wire("eth0", &neighbour, "eth0", &Uplink::default())?;
        let [one, two] = version.addresses;
        let (gateway, length) = (version.gateways[0], if one.contains(':') { "64 nodad" } else { "24" });
        node.namespace().ip(&[
            &format!("addr add dev eth0 {one}/{length}"),
            &format!("addr add dev eth0 {two}/{length}"),
            &format!("route add default via {gateway} dev eth0 src {two}"),
        ])?;
        let (inside, disturbances) = (node.namespace().handle()?, Disturbances::default());
        let (end, until) = oneshot::channel::<()>();
        let (server, noted) = (version.server.parse().map_err(Error::other)?, disturbances.clone());
        let agent = thread::spawn(move || {
            inside.join().expect("its own namespace");
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let _way = way::start(server, noted);
                let _ = until.await;
            });
        });
        Ok(Self { node, _neighbour: neighbour, disturbances, ended: Some((end, agent)) })
    }

    fn ip(&self, lines: &[&str]) -> Result {
        self.node.namespace().ip(lines)
    }

    /// Waits until packets to the server go so; `None`: the kernel knows no way.
    fn goes(&self, version: &Version, why: &str, expected: Option<(&str, Option<&str>, &str)>) -> Result {
        wait::until(why, PATIENCE, || {
            let route = self.node.route_get(version.server).ok();
            let text = |key: &str| route.as_ref().and_then(|route| route[key].as_str());
            let now = text("dev").zip(text("prefsrc")).map(|(dev, source)| (dev, text("gateway"), source));
            if now == expected { Ok(()) } else { Err(Error::other(format!("{route:?}"))) }
        })
    }

    fn ours(&self, version: &Version) -> Result<serde_json::Value> {
        let family = if version.server.contains(':') { "-6" } else { "-4" };
        self.node.namespace().ip_json(&format!("{family} route show protocol 195"))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some((end, agent)) = self.ended.take() {
            let _ = end.send(());
            let _ = agent.join();
        }
    }
}

fn stays_off_the_overlay(lab: &Lab, version: &Version) -> Result {
    let scene = Scene::start(lab, version)?;
    let ([_, source], [gateway, other]) = (version.addresses, version.gateways);
    let as_before = Some(("eth0", Some(gateway), source));
    scene.goes(version, "the way by default", as_before)?;

    let ([address, hub], all) = (version.tunnel, version.all);
    scene.ip(&[
        "tuntap add dmvpn0 mode tap",
        "link set dmvpn0 address 02:64:ff:ff:ff:fe up",
        &format!("addr add dev dmvpn0 {address}"),
        &format!("route add {all} via {hub} dev dmvpn0 protocol 186 metric 20"),
    ])?;
    scene.goes(version, "the way beside the overlay", as_before)?;
    assert_eq!(scene.ours(version)?[0]["dst"], version.server);

    scene.ip(&[&format!("route replace default via {other} dev eth0 src {source}")])?;
    scene.goes(version, "the way by the other gateway", Some(("eth0", Some(other), source)))?;
    scene.ip(&[&format!("route del {} proto 195", version.server)])?;
    scene.goes(version, "the route to be put back", Some(("eth0", Some(other), source)))?;
    assert_eq!(scene.disturbances.all().get(SERVER_ROUTE), Some(&1));

    scene.ip(&["link del dmvpn0"])?;
    wait::until("the route to go with the tunnel", PATIENCE, || {
        let ours = scene.ours(version)?;
        if ours == serde_json::json!([]) { Ok(()) } else { Err(Error::other(ours)) }
    })?;

    // Where nothing else leads to it, a protected prefix would keep the agent from ever hearing anything else.
    scene.ip(&[
        &format!("route del default via {other}"),
        &format!("route add default dev eth0 src {source}"),
        &format!("route add unreachable {all} protocol 193 metric 4294967295"),
    ])?;
    scene.goes(version, "the way on the link", Some(("eth0", None, source)))
}

#[test]
fn the_api_server_is_reached_beside_the_overlay() {
    story("server_way", |lab| stays_off_the_overlay(lab, &V4));
}

#[test]
fn the_api_server_is_reached_beside_the_overlay_by_ipv6() {
    story("server_way_v6", |lab| stays_off_the_overlay(lab, &V6));
}
