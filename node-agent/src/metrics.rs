//! Prometheus metrics, and the two health questions of a kubelet, over plain HTTP.

use crate::agent::Shared;
use crate::control::Snapshot;
use crate::disturbances::Disturbances;
use crate::gateways::View;
use crate::kubernetes::Reach;
use crate::routing::Origin;
use crate::sessions;
use dmvpn::view::{Role, ShortcutState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use telemetry::Answer;
use tokio::net::TcpListener;

/// How long to wait for the port before the next try.
const PORT_RETRY: Duration = Duration::from_millis(200);

/// Serves metrics until the task is aborted.
pub async fn serve(address: SocketAddr, shared: Arc<Shared>) -> io::Result<()> {
    let listener = listen(address).await?;
    telemetry::serve(listener, move |path| {
        let shared = Arc::clone(&shared);
        async move { answer(&path, &shared).await }
    })
    .await;
    Ok(())
}

/// In an upgrade, the agent before this one may hold the port a moment longer.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%address, "somebody else listens where metrics should be served: waiting");
                }
                tokio::time::sleep(PORT_RETRY).await;
            }
            Err(e) => {
                return Err(io::Error::new(e.kind(), format!("cannot serve metrics on {address}: {e}")));
            }
            Ok(listener) => return Ok(listener),
        }
    }
}

pub(crate) async fn answer(path: &str, shared: &Shared) -> Answer {
    match path {
        "/metrics" => {
            let snapshots = snapshots(shared).await;
            Answer::metrics(render(
                &snapshots,
                &shared.by_gateways.all(),
                &shared.disturbances,
                &shared.reach,
            ))
        }
        "/healthz" => match dead(shared).await {
            None => Answer::good("ok\n"),
            Some(interface) => Answer::unavailable(format!("the loop of {interface} does not answer\n")),
        },
        "/readyz" => {
            let snapshots = snapshots(shared).await;
            let waiting: Vec<&str> =
                snapshots.iter().filter(|s| !s.up).map(|s| s.config.interface()).collect();
            if snapshots.is_empty() && shared.is_idle_on_purpose() {
                Answer::good("no tunnel for this node\n")
            } else if snapshots.is_empty() {
                Answer::unavailable("no tunnel is configured\n")
            } else if waiting.is_empty() {
                Answer::good("ok\n")
            } else {
                Answer::unavailable(format!("not up: {}\n", waiting.join(" ")))
            }
        }
        _ => Answer::unknown(),
    }
}

/// A tunnel whose loop has ended.
async fn dead(shared: &Shared) -> Option<String> {
    for tunnel in shared.tunnels() {
        if tunnel.snapshot().await.is_none() {
            return Some(tunnel.interface().to_owned());
        }
    }
    None
}

async fn snapshots(shared: &Shared) -> Vec<Snapshot> {
    let mut snapshots = Vec::new();
    for tunnel in shared.tunnels() {
        snapshots.extend(tunnel.snapshot().await);
    }
    snapshots
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Interface {
    interface: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Drop {
    interface: String,
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Hub {
    interface: String,
    hub: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Gateway {
    network: String,
    gateway: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Message {
    interface: String,
    direction: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    interface: String,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Suite {
    interface: String,
    suite: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Direction {
    interface: String,
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Rekey {
    interface: String,
    of: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct What {
    what: &'static str,
}

#[derive(Default)]
struct Families {
    up: Family<Interface, Gauge>,
    datapath: Family<Interface, Gauge>,
    peers: Family<Interface, Gauge>,
    registrations: Family<Interface, Gauge>,
    shortcuts: Family<Interface, Gauge>,
    cache: Family<Interface, Gauge>,
    conflict: Family<Interface, Gauge>,
    bgp_sessions: Family<Interface, Gauge>,
    bgp_received: Family<Interface, Gauge>,
    bgp_refused: Family<Interface, Gauge>,
    bgp_routes: Family<Interface, Gauge>,
    hub_up: Family<Hub, Gauge>,
    hub_rtt: Family<Hub, Gauge<f64, std::sync::atomic::AtomicU64>>,
    nhrp_messages: Family<Message, Counter>,
    nhrp_drops: Family<Drop, Counter>,
    drops: Family<Drop, Counter>,
    datapath_events: Family<Drop, Counter>,
    encrypted: Family<Interface, Gauge>,
    keys_exported: Family<Interface, Gauge>,
    sessions: Family<Interface, Gauge>,
    handshakes: Family<Outcome, Counter>,
    rekeys: Family<Rekey, Counter>,
    ike_messages: Family<Direction, Counter>,
    ike_drops: Family<Drop, Counter>,
    held_drops: Family<Drop, Counter>,
    sas: Family<Suite, Gauge>,
    certificate_expiry: Family<Interface, Gauge>,
    bytes_sent: Family<Interface, Counter>,
    bytes_received: Family<Interface, Counter>,
    packets_sent: Family<Interface, Counter>,
    packets_received: Family<Interface, Counter>,
}

/// Metrics of every tunnel, and of the ways by other nodes' tunnels, as text.
#[must_use]
pub fn render(
    snapshots: &[Snapshot],
    by_gateways: &[View],
    disturbances: &Disturbances,
    reach: &Reach,
) -> String {
    let families = Families::default();
    for snapshot in snapshots {
        families.add(snapshot);
    }
    let mut registry = Registry::with_prefix("dmvpn");
    families.register(&mut registry);
    let disturbed = Family::<What, Counter>::default();
    for (what, count) in disturbances.all() {
        disturbed.get_or_create(&What { what }).inc_by(count);
    }
    let gateways = Family::<Gateway, Gauge>::default();
    for View { name, gateway, problem } in by_gateways {
        let labels = Gateway { network: name.clone(), gateway: gateway.clone().unwrap_or_default() };
        gateways.get_or_create(&labels).set(i64::from(problem.is_none()));
    }
    registry.register(
        "gateway_up",
        "1 while the gateway answers that this node, without a tunnel of its own, sends by",
        gateways,
    );
    registry.register("disturbances", "What others removed of ours, and was put back", disturbed);
    if let Some((up, errors)) = reach.metrics() {
        let (answers, failures) = (Gauge::<i64>::default(), Counter::<u64>::default());
        answers.set(i64::from(up));
        failures.inc_by(errors);
        registry.register(
            "kubernetes_api_up",
            "1 while the API server answers, and allows what we ask",
            answers,
        );
        registry.register(
            "kubernetes_api_errors",
            "Requests that the API server did not answer, or refused",
            failures,
        );
    }
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

impl Families {
    fn add(&self, snapshot: &Snapshot) {
        let interface = || Interface { interface: snapshot.config.interface().to_owned() };
        let set = |family: &Family<Interface, Gauge>, value: usize| {
            family.get_or_create(&interface()).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.up, usize::from(snapshot.up));
        set(&self.datapath, usize::from(snapshot.datapath));
        set(&self.peers, snapshot.peers.len());
        set(&self.registrations, snapshot.peers.iter().filter(|p| p.role == Role::Registered).count());
        set(&self.shortcuts, snapshot.shortcuts.iter().filter(|s| s.state == ShortcutState::Up).count());
        set(&self.cache, snapshot.cache.len());
        set(&self.conflict, usize::from(!snapshot.conflicts.is_empty()));
        if snapshot.config.bgp.is_some() {
            let sum = |count: fn(&rpc::agent::BgpNeighbour) -> u32| {
                snapshot.bgp.iter().map(|n| usize::try_from(count(n)).unwrap_or(usize::MAX)).sum()
            };
            set(&self.bgp_sessions, snapshot.bgp.iter().filter(|n| n.state == "Established").count());
            set(&self.bgp_received, sum(|n| n.prefixes_received));
            set(&self.bgp_refused, sum(|n| n.prefixes_refused));
            let installed = |(origin, _, _, refused): &&(Origin, _, _, Option<String>)| {
                *origin == Origin::Bgp && refused.is_none()
            };
            set(&self.bgp_routes, snapshot.routes.iter().filter(installed).count());
        }
        for hub in &snapshot.hubs {
            let labels = Hub { interface: interface().interface, hub: hub.name.clone() };
            self.hub_up.get_or_create(&labels).set(i64::from(hub.registered && hub.reachable));
            if let Some(rtt) = hub.rtt {
                self.hub_rtt.get_or_create(&labels).set(rtt.as_secs_f64());
            }
        }
        self.add_nhrp(snapshot);
        self.add_security(snapshot);
        for (name, value) in &snapshot.totals {
            let traffic = match name.as_str() {
                "bytes_sent" => Some(&self.bytes_sent),
                "bytes_received" => Some(&self.bytes_received),
                "packets_sent" => Some(&self.packets_sent),
                "packets_received" => Some(&self.packets_received),
                _ => None,
            };
            if let Some(family) = traffic {
                family.get_or_create(&interface()).inc_by(*value);
                continue;
            }
            let (family, reason) = match name.strip_prefix("drop_") {
                Some(reason) => (&self.drops, reason),
                None => (&self.datapath_events, name.as_str()),
            };
            let labels = Drop { interface: interface().interface, reason: reason.to_owned() };
            family.get_or_create(&labels).inc_by(*value);
        }
    }

    fn add_nhrp(&self, snapshot: &Snapshot) {
        let interface = || snapshot.config.interface().to_owned();
        let sent = snapshot.nhrp.sent.iter().map(|(kind, n)| ("sent", kind, n));
        let received = snapshot.nhrp.received.iter().map(|(kind, n)| ("received", kind, n));
        for (direction, kind, n) in sent.chain(received) {
            let labels = Message { interface: interface(), direction, r#type: kind.name() };
            self.nhrp_messages.get_or_create(&labels).inc_by(*n);
        }
        for (reason, n) in &snapshot.nhrp.dropped {
            let labels = Drop { interface: interface(), reason: reason.name().to_owned() };
            self.nhrp_drops.get_or_create(&labels).inc_by(*n);
        }
    }

    fn add_security(&self, snapshot: &Snapshot) {
        let interface = || snapshot.config.interface().to_owned();
        let set = |family: &Family<Interface, Gauge>, value: usize| {
            family
                .get_or_create(&Interface { interface: interface() })
                .set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.encrypted, usize::from(snapshot.config.protection.is_some()));
        if snapshot.config.protection.is_none() {
            return;
        }
        set(&self.keys_exported, usize::from(snapshot.key_folder.is_some()));
        set(&self.sessions, sessions::up(snapshot).count());
        if let Some(not_after) = snapshot.config.protection.as_ref().and_then(|p| p.not_after) {
            set(&self.certificate_expiry, usize::try_from(not_after).unwrap_or(usize::MAX));
        }
        let handshakes = &snapshot.handshakes;
        let count = |outcome, reason, n| {
            let labels = Outcome { interface: interface(), outcome, reason };
            self.handshakes.get_or_create(&labels).inc_by(n);
        };
        count("up", "", handshakes.up);
        handshakes.failed.iter().for_each(|(reason, n)| count("failed", reason, *n));
        handshakes.ended.iter().for_each(|(reason, n)| count("ended", reason, *n));
        if let Some(ike) = &snapshot.ike {
            for (of, n) in [("ike", ike.rekeyed_ike), ("child", ike.rekeyed_child)] {
                self.rekeys.get_or_create(&Rekey { interface: interface(), of }).inc_by(n);
            }
            for (direction, n) in
                [("received", ike.received), ("sent", ike.sent), ("sent_again", ike.retransmitted)]
            {
                self.ike_messages.get_or_create(&Direction { interface: interface(), direction }).inc_by(n);
            }
            let cookies = ("cookie_asked_for", &ike.cookies);
            for (reason, n) in ike.dropped.iter().map(|(reason, n)| (*reason, n)).chain([cookies]) {
                self.ike_drops
                    .get_or_create(&Drop { interface: interface(), reason: reason.to_owned() })
                    .inc_by(*n);
            }
        }
        let dmvpn::GateDrops { no_room, failed, probes, no_session } = snapshot.gate;
        for (reason, n) in [
            ("no_room", no_room),
            ("handshake_failed", failed),
            ("probe", probes),
            ("session_ended", no_session),
        ] {
            let labels = Drop { interface: interface(), reason: reason.to_owned() };
            self.held_drops.get_or_create(&labels).inc_by(n);
        }
        for child in snapshot.sessions.iter().flat_map(|session| &session.children) {
            let labels = Suite { interface: interface(), suite: child.suite.name() };
            self.sas.get_or_create(&labels).inc();
        }
    }

    fn register(self, registry: &mut Registry) {
        registry.register("tunnel_up", "1 while a hub carries (a spoke) or serves (a hub)", self.up);
        registry.register("datapath_connected", "1 while the datapath answers", self.datapath);
        registry.register("peers", "Peers known", self.peers);
        registry.register("encrypted", "1 if nothing leaves or enters in clear", self.encrypted);
        registry.register("keys_exported", "1 while keys are written into files", self.keys_exported);
        registry.register("ike_sessions", "IKE sessions that are up", self.sessions);
        registry.register(
            "ike_handshakes",
            "Sessions that came up, ended, or came to nothing, by reason",
            self.handshakes,
        );
        registry.register("rekeys", "SAs that were replaced", self.rekeys);
        registry.register("ike_messages", "IKE messages by direction", self.ike_messages);
        registry.register("ike_drops", "IKE messages dropped, by reason", self.ike_drops);
        registry.register(
            "held_drops",
            "NHRP messages and probes that waited for a session in vain, or came after its end",
            self.held_drops,
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When our certificates run out",
            self.certificate_expiry,
        );
        registry.register("sas", "Pairs of ESP SAs, by suite", self.sas);
        registry.register("registrations", "Registrations held (a hub)", self.registrations);
        registry.register("shortcuts", "Direct paths that carry", self.shortcuts);
        registry.register("nhrp_cache_entries", "Entries of the NHRP cache", self.cache);
        registry.register(
            "address_conflict",
            "1 while another identity holds our tunnel address",
            self.conflict,
        );
        registry.register("bgp_sessions", "BGP sessions that are established", self.bgp_sessions);
        registry.register(
            "bgp_prefixes_received",
            "Prefixes that BGP neighbours announce",
            self.bgp_received,
        );
        registry.register("bgp_prefixes_refused", "Announcements that were not believed", self.bgp_refused);
        registry.register("bgp_routes", "Routes that BGP has in the kernel", self.bgp_routes);
        registry.register("hub_up", "1 while registered with the hub and its path answers", self.hub_up);
        registry.register("hub_rtt_seconds", "Round trip to the hub through the tunnel", self.hub_rtt);
        registry.register("nhrp_messages", "NHRP messages, by direction and type", self.nhrp_messages);
        registry.register("nhrp_drops", "NHRP messages dropped, by reason", self.nhrp_drops);
        registry.register("drops", "Packets dropped by the datapath, by reason", self.drops);
        registry.register("datapath_events", "Other counters of the datapath, by name", self.datapath_events);
        registry.register("sent_bytes", "Overlay octets sent to peers", self.bytes_sent);
        registry.register("received_bytes", "Overlay octets received from peers", self.bytes_received);
        registry.register("sent_packets", "Overlay packets sent to peers", self.packets_sent);
        registry.register("received_packets", "Overlay packets received from peers", self.packets_received);
    }
}
