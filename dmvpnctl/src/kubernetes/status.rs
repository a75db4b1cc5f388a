//! `status`: one line for each tunnel of each node. What the API server knows comes from the DmvpnNodes; SAs, traffic and
//! the hubs' names, which are no matter for an API server, from the agents.

use super::error::Error;
use super::kubectl::Kubectl;
use crate::cli::Output;
use crate::table::Table;
use crate::text::{octets, span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// In larger clusters the agents are not asked: it would take long, and nobody reads that far.
const MOST_ASKED: usize = 64;

/// One tunnel of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Row {
    pub node: String,
    pub tunnel: String,
    pub role: String,
    pub addresses: Vec<String>,
    pub hub: String,
    pub state: String,
    pub reason: String,
    pub message: String,
    pub since_ms: Option<u64>,
    pub sa: String,
    pub rx_bytes: Option<u64>,
    pub tx_bytes: Option<u64>,
}

/// All rows, by name of node.
pub(super) fn rows(kubectl: &Kubectl, with_agents: bool) -> Result<Vec<Row>, Error> {
    let nodes: DmvpnNodes = kubectl.json(&["get", "dmvpnnodes.kube-dmvpn.io", "--output", "json"])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut rows = read(&nodes, u64::try_from(now).unwrap_or(u64::MAX));
    if with_agents && !rows.is_empty() && nodes.items.len() <= MOST_ASKED {
        // Who may read DmvpnNodes may not be allowed to exec; then these columns stay empty.
        let agents = kubectl.agents().unwrap_or_default();
        let answers = kubectl.ask_each(&agents, |kubectl, node, pod| {
            let answer = kubectl.ask(pod, Output::Json, &["status"]).ok()?;
            Some((node.to_owned(), serde_json::from_str::<AgentStatus>(&answer.text).ok()?))
        });
        add(&mut rows, &answers.into_iter().flatten().collect());
    }
    Ok(rows)
}

/// What people read.
pub(super) fn render(rows: &[Row]) -> String {
    let mut table = Table::new(&["NODE", "TUNNEL", "TUNNEL ADDRESS", "HUB", "STATE", "SINCE", "SA", "RX/TX"]);
    for row in rows {
        let traffic = match (row.rx_bytes, row.tx_bytes) {
            (Some(rx), Some(tx)) => format!("{}/{}", octets(rx), octets(tx)),
            _ => String::new(),
        };
        table.row([
            row.node.clone(),
            row.tunnel.clone(),
            row.addresses.join(","),
            row.hub.clone(),
            row.state.clone(),
            row.since_ms.map(span).unwrap_or_default(),
            row.sa.clone(),
            traffic,
        ]);
    }
    let mut text = table.without_constant(&["TUNNEL"]).render(
        "no node is in a DMVPN: apply a DmvpnHub or a DmvpnSpoke whose spec.nodes selects nodes (kubectl get dmvpn)",
    );
    let mut gap = "\n";
    for row in rows.iter().filter(|row| row.state != UP && !row.message.is_empty()) {
        let _ = writeln!(text, "{gap}{} ({}): {}", row.node, row.reason, row.message);
        gap = "";
    }
    text
}

const UP: &str = "Up";

fn read(nodes: &DmvpnNodes, now_ms: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for item in &nodes.items {
        for tunnel in &item.spec.tunnels {
            let status = item.status.tunnels.iter().find(|status| status.name == tunnel.name);
            rows.push(row(item, tunnel, status, now_ms));
        }
        rows.extend(item.spec.by_gateways.iter().map(|told| by_gateways(item, told, now_ms)));
    }
    rows.sort_by(|a, b| (&a.node, &a.tunnel).cmp(&(&b.node, &b.tunnel)));
    rows
}

fn row(item: &DmvpnNode, tunnel: &Tunnel, status: Option<&TunnelStatus>, now_ms: u64) -> Row {
    let ready = |conditions: &[Condition]| conditions.iter().find(|c| c.kind == "Ready").cloned();
    let own = status.and_then(|status| ready(&status.conditions));
    let condition = own.or_else(|| ready(&item.status.conditions)).unwrap_or_else(|| Condition {
        reason: "NotReported".to_owned(),
        message: "its agent has not reported yet: does it run (kubectl get pods -o wide in the release's namespace)?"
            .to_owned(),
        ..Condition::default()
    });
    let hubs = status.map(|status| status.hubs.as_slice()).unwrap_or_default();
    let hub = match hubs.iter().find(|hub| hub.active).or_else(|| hubs.first()) {
        Some(hub) => hub.address.clone(),
        None if tunnel.role == "Hub" => "(is hub)".to_owned(),
        None => String::new(),
    };
    Row {
        node: item.metadata.name.clone(),
        tunnel: tunnel.name.clone(),
        role: tunnel.role.clone(),
        addresses: tunnel.addresses.clone(),
        hub,
        state: state(&condition).to_owned(),
        since_ms: unix_ms(&condition.last_transition_time).map(|since| now_ms.saturating_sub(since)),
        reason: condition.reason,
        message: condition.message,
        ..Row::default()
    }
}

/// A node without a tunnel of its own: where others have their hub it has the node that it sends by.
fn by_gateways(item: &DmvpnNode, told: &ByGateways, now_ms: u64) -> Row {
    let status = item.status.by_gateways.iter().find(|status| status.name == told.name);
    let tunnel = Tunnel { name: told.name.clone(), role: told.role.clone(), addresses: Vec::new() };
    let shown = status.map(|status| TunnelStatus {
        name: status.name.clone(),
        conditions: status.conditions.clone(),
        hubs: Vec::new(),
    });
    let gateway = status.map(|status| status.gateway.as_str()).filter(|gateway| !gateway.is_empty());
    let hub = gateway.map(|gateway| format!("(by {gateway})")).unwrap_or_default();
    Row { hub, ..row(item, &tunnel, shown.as_ref(), now_ms) }
}

fn state(ready: &Condition) -> &'static str {
    match (ready.status.as_str(), ready.reason.as_str()) {
        ("True", _) => UP,
        (_, "Starting") => "Starting",
        ("False", _) => "Down",
        _ => "Unknown",
    }
}

/// What agents know better.
fn add(rows: &mut [Row], agents: &BTreeMap<String, AgentStatus>) {
    for row in rows {
        let tunnels = agents.get(&row.node).map(|agent| agent.tunnels.as_slice()).unwrap_or_default();
        let Some(tunnel) = tunnels.iter().find(|tunnel| tunnel.name == row.tunnel) else { continue };
        row.sa.clone_from(&tunnel.protection);
        if let Some(AgentTraffic { rx_bytes, tx_bytes }) = tunnel.traffic {
            (row.rx_bytes, row.tx_bytes) = (Some(rx_bytes), Some(tx_bytes));
        }
        let carrying = tunnel.hubs.iter().find(|hub| hub.by_hub);
        if let Some(hub) = carrying.filter(|hub| !hub.identity.is_empty()) {
            row.hub.clone_from(&hub.identity);
        }
    }
}

/// Milliseconds since 1970 of `2026-11-22T21:16:04Z`, the one form that the API server writes; fractions are left out.
fn unix_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':').map(|part| part.split('.').next()?.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin on 1 March here, so that the leap day is the last.
    let year = year - u64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// What `kubectl get dmvpnnodes -o json` says, of which we need little.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DmvpnNodes {
    items: Vec<DmvpnNode>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DmvpnNode {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    tunnels: Vec<Tunnel>,
    by_gateways: Vec<ByGateways>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ByGateways {
    name: String,
    role: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tunnel {
    name: String,
    role: String,
    addresses: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    conditions: Vec<Condition>,
    tunnels: Vec<TunnelStatus>,
    by_gateways: Vec<ByGatewaysStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ByGatewaysStatus {
    name: String,
    gateway: String,
    conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TunnelStatus {
    name: String,
    conditions: Vec<Condition>,
    hubs: Vec<Hub>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Hub {
    address: String,
    active: bool,
}

/// What `dmvpnctl status -o json` says, of which we need little.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AgentStatus {
    tunnels: Vec<AgentTunnel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AgentTunnel {
    name: String,
    protection: String,
    traffic: Option<AgentTraffic>,
    hubs: Vec<AgentHub>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct AgentTraffic {
    rx_bytes: u64,
    tx_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AgentHub {
    identity: String,
    by_hub: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nodes() -> DmvpnNodes {
        let condition = |status: &str, reason: &str, message: &str| {
            json!([{"type": "Ready", "status": status, "reason": reason, "message": message,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        serde_json::from_value(json!({"items": [
            {"metadata": {"name": "b-1"}, "spec": {"tunnels": [{"name": "hq", "role": "Spoke", "addresses": ["10.200.16.2"]}]}},
            {"metadata": {"name": "a-1"},
             "spec": {"tunnels": [
                {"name": "hq", "role": "Hub", "addresses": ["10.200.0.1", "fd00::1"]},
                {"name": "lab", "role": "Spoke", "addresses": ["10.9.0.1"]}]},
             "status": {"tunnels": [
                {"name": "hq", "conditions": condition("True", "Forwarding", "packets were forwarded")},
                {"name": "lab", "conditions": condition("False", "NoHub", "no hub answers: look at UDP 4500"),
                 "hubs": [{"address": "192.0.2.1", "state": "Down"}, {"address": "192.0.2.2", "active": true}]}]}},
            {"metadata": {"name": "a-2"}, "spec": {"byGateways": [{"name": "hq", "role": "Hub"}]},
             "status": {"byGateways": [
                {"name": "hq", "gateway": "a-1", "conditions": condition("True", "Forwarding", "")}]}},
        ]}))
        .unwrap()
    }

    const NOW: u64 = 1_767_225_600_000 + 3_725_000; // 2026-01-01T01:02:05Z

    #[test]
    fn rows_are_sorted_by_node_and_say_what_is_wrong() {
        assert_eq!(
            render(&read(&nodes(), NOW)),
            "NODE  TUNNEL  TUNNEL ADDRESS      HUB        STATE    SINCE  SA  RX/TX\n\
             a-1   hq      10.200.0.1,fd00::1  (is hub)   Up       1h2m   -   -\n\
             a-1   lab     10.9.0.1            192.0.2.2  Down     1h2m   -   -\n\
             a-2   hq      -                   (by a-1)   Up       1h2m   -   -\n\
             b-1   hq      10.200.16.2         -          Unknown  -      -   -\n\
             \n\
             a-1 (NoHub): no hub answers: look at UDP 4500\n\
             b-1 (NotReported): its agent has not reported yet: does it run (kubectl get pods -o wide in the release's namespace)?\n"
        );
    }

    #[test]
    fn agents_add_sa_traffic_and_the_hubs_name() {
        let mut rows = read(&nodes(), NOW);
        let agent = json!({"tunnels": [{"name": "lab", "protection": "aes128gcm16", "traffic": {"rx_bytes": 1200, "tx_bytes": 5},
            "hubs": [{"identity": "other", "by_hub": false}, {"identity": "hq-1.example.com", "by_hub": true}]}]});
        add(&mut rows, &BTreeMap::from([("a-1".to_owned(), serde_json::from_value(agent).unwrap())]));
        assert_eq!(
            (rows[1].sa.as_str(), rows[1].rx_bytes, rows[1].hub.as_str()),
            ("aes128gcm16", Some(1200), "hq-1.example.com")
        );
        assert_eq!((rows[0].sa.as_str(), rows[0].hub.as_str()), ("", "(is hub)"));
    }

    #[test]
    fn one_dmvpn_needs_no_column_for_its_name() {
        let mut rows = read(&nodes(), NOW);
        rows.retain(|row| row.tunnel == "hq");
        assert!(render(&rows).starts_with("NODE  TUNNEL ADDRESS "));
    }

    #[test]
    fn no_dmvpn_says_what_to_do() {
        assert!(render(&[]).starts_with("no node is in a DMVPN: apply"));
    }

    #[test]
    fn times_of_the_api_server_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400_000)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199_000)),
            ("2025-01-01T00:00:00.001Z", Some(1_735_689_600_000)),
            ("2100-01-01T00:00:00Z", Some(4_102_444_800_000)),
            ("2025-13-01T00:00:00Z", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(unix_ms(text), ms, "{text}");
        }
    }
}
