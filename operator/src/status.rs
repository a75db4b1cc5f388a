//! The status of hubs and spokes, from what deciding found out and what the nodes report: pure.

use crate::authority::Finding;
use crate::decide::Report;
use crate::world::{Resource, World};
use crds::conditions::{self as types, reasons};
use crds::node::NodeTunnelStatus;
use crds::spec::{Authentication, Certificates, IssuedBy, SecurityMode};
use crds::status::{NetworkStatus, NotReadyNode, Summary};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use plan::{AllocateError, PlanError, ResourceKind};
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that are named one by one.
const MAX_NAMED: usize = 16;
/// Mistakes that are told one by one in a condition.
const MAX_TOLD: usize = 3;
/// Octets of a message, well below what the API takes.
const MAX_MESSAGE: usize = 1024;

/// How signing for one resource went the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signing {
    /// A certificate was signed.
    Signed,
    /// It failed: reason and message of the condition.
    Failed(&'static str, String),
}

/// What is known of certificates of one resource that the operator issues.
#[derive(Clone, Copy, Debug, Default)]
pub struct Issuance<'a> {
    /// How signing went the last time.
    pub signing: Option<&'a Signing>,
    /// What is to be said of the CA; `None`: the API server did not tell.
    pub authority: Option<&'a Finding>,
}

/// The status that a resource is to have.
pub fn status(
    resource: &Resource<'_>,
    report: &Report,
    world: &World,
    issuance: Issuance<'_>,
    now: &Time,
) -> NetworkStatus {
    let nodes: Vec<NodeView<'_>> =
        report.nodes.iter().map(|name| NodeView::new(name, resource, report, world)).collect();
    let not_ready: Vec<&NodeView<'_>> = nodes.iter().filter(|node| node.not_ready.is_some()).collect();
    let mut said = vec![
        accepted(report),
        conflict(report),
        ready(nodes.len(), &not_ready),
        encrypted(resource, &nodes),
        unverified(resource),
        address_conflict(&nodes),
    ];
    if !resource.network.hubs.is_empty() {
        said.push(hubs_reachable(&nodes));
    }
    let old = resource.status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    if issued_by_operator(resource) {
        said.push(certificates_issued(issuance.signing, old));
        said.extend(authority_healthy(issuance.authority, old));
    }
    let generation = resource.metadata.generation;
    let mut conditions: Vec<Condition> = said.into_iter().map(|c| c.dated(old, generation, now)).collect();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    let named = not_ready.iter().take(MAX_NAMED).filter_map(|node| {
        let (reason, message) = node.not_ready.clone()?;
        Some(NotReadyNode { name: node.name.to_owned(), reason, message: short(message) })
    });
    NetworkStatus {
        observed_generation: generation,
        summary: Some(summary(resource, &nodes, not_ready.len())),
        not_ready: named.collect(),
        conditions,
    }
}

/// Did anything turn, so that it is worth a write at once? Counts and messages alone can wait: during an outage messages
/// change with every attempt (who did not answer, for how long), and what people act by is the reason.
pub fn turned(old: Option<&NetworkStatus>, new: &NetworkStatus) -> bool {
    old.is_none_or(|old| skeleton(old) != skeleton(new))
}

/// A status without what can wait.
fn skeleton(status: &NetworkStatus) -> NetworkStatus {
    let NetworkStatus { observed_generation, conditions, summary, not_ready } = status;
    let silent = |condition: &Condition| Condition { message: String::new(), ..condition.clone() };
    let unexplained = |node: &NotReadyNode| NotReadyNode { message: String::new(), ..node.clone() };
    let nodes = |summary: &Summary| Summary { nodes: summary.nodes.clone(), ..Summary::default() };
    NetworkStatus {
        observed_generation: *observed_generation,
        conditions: conditions.iter().map(silent).collect(),
        summary: summary.as_ref().map(nodes),
        not_ready: not_ready.iter().map(unexplained).collect(),
    }
}

/// What is known of one selected node.
struct NodeView<'a> {
    name: &'a str,
    tunnel: Option<&'a NodeTunnelStatus>,
    hubs: Vec<&'a str>,
    /// Reason and message.
    not_ready: Option<(String, String)>,
}

impl<'a> NodeView<'a> {
    fn new(name: &'a str, resource: &Resource<'_>, report: &Report, world: &'a World) -> Self {
        let node = world.dmvpn_nodes.get(name);
        let wanted = resource.name.name.as_str();
        let role = resource.network.resource.role();
        let spec = node.and_then(|node| {
            node.spec.tunnels.iter().find(|tunnel| tunnel.name == wanted && tunnel.role == role)
        });
        let reported = node.and_then(|node| node.status.as_ref());
        let tunnel = reported.and_then(|status| status.tunnels.iter().find(|tunnel| tunnel.name == wanted));
        let tunnel = tunnel.filter(|_| spec.is_some());
        let by_gateways = node.and_then(|node| {
            node.spec.by_gateways.iter().find(|told| told.name == wanted && told.role == role)
        });
        let reported = reported.filter(|_| by_gateways.is_some()).into_iter();
        let mut reported = reported.flat_map(|status| &status.by_gateways);
        let conditions = match tunnel {
            Some(tunnel) => Some(&tunnel.conditions),
            None => reported.find(|told| told.name == wanted).map(|told| &told.conditions),
        };
        let is_up = world.nodes.get(name).is_some_and(|node| node.ready);
        let refused = report.refused.iter().find(|(node, _)| node == name).map(|(_, error)| error);
        let ready = conditions.and_then(|conditions| find(conditions, types::READY));
        let is_told = spec.is_some() || by_gateways.is_some();
        let not_ready = match (is_told, refused, ready) {
            (false, Some(error), _) => Some((reasons::INVALID.to_owned(), error.to_string())),
            _ if !is_up => Some((
                reasons::NODE_NOT_READY.to_owned(),
                "the Node is not ready, so that nothing is known of its tunnels: see its own conditions"
                    .to_owned(),
            )),
            (_, _, None) => Some((
                reasons::NOT_REPORTED.to_owned(),
                "no agent has reported: is a pod of DaemonSet dmvpn-agent running on the node?".to_owned(),
            )),
            (_, _, Some(ready)) if ready.status != "True" => {
                Some((ready.reason.clone(), ready.message.clone()))
            }
            _ => None,
        };
        let hubs = spec.map(|spec| spec.hubs.iter().map(|hub| hub.address.as_str()).collect());
        Self { name, tunnel, hubs: hubs.unwrap_or_default(), not_ready }
    }

    fn condition(&self, type_: &str) -> Option<&Condition> {
        find(&self.tunnel?.conditions, type_)
    }
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn summary(resource: &Resource<'_>, nodes: &[NodeView<'_>], not_ready: usize) -> Summary {
    let tunnels = || nodes.iter().filter_map(|node| node.tunnel);
    // Up where every node that reports it says so.
    let mut hubs: BTreeMap<&str, Option<bool>> =
        nodes.iter().flat_map(|node| &node.hubs).map(|hub| (*hub, None)).collect();
    for hub in tunnels().flat_map(|tunnel| &tunnel.hubs) {
        if let Some(up) = hubs.get_mut(hub.address.as_str()) {
            *up = Some(up.unwrap_or(true) && hub.state == "Up");
        }
    }
    let reachable = hubs.values().filter(|up| **up == Some(true)).count();
    let is_hub = resource.network.resource == ResourceKind::Hub;
    Summary {
        nodes: format!("{}/{}", nodes.len() - not_ready, nodes.len()),
        hubs: (!resource.network.hubs.is_empty()).then(|| format!("{reachable}/{}", hubs.len())),
        // Every spoke registers with every hub node, so that the sum would count it several times.
        registrations: is_hub.then(|| tunnels().map(|tunnel| tunnel.registrations).max().unwrap_or_default()),
        shortcuts: tunnels().map(|tunnel| tunnel.shortcuts).fold(0, u32::saturating_add),
    }
}

/// A condition before it has a date.
struct Said {
    type_: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

impl Said {
    fn new(type_: &'static str, status: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { type_, status, reason: reason.to_owned(), message: message.into() }
    }

    /// As it was said before.
    fn again(type_: &'static str, old: &Condition) -> Self {
        let status = match old.status.as_str() {
            "True" => "True",
            "False" => "False",
            _ => "Unknown",
        };
        Self::new(type_, status, &old.reason, old.message.clone())
    }

    /// The time of the last transition changes only with the status, as the API conventions ask.
    fn dated(self, old: &[Condition], generation: Option<i64>, now: &Time) -> Condition {
        let Self { type_, status, reason, message } = self;
        let since = find(old, type_).filter(|old| old.status == status).map(|c| &c.last_transition_time);
        Condition {
            last_transition_time: since.unwrap_or(now).clone(),
            message: short(message),
            observed_generation: generation,
            reason,
            status: status.to_owned(),
            type_: type_.to_owned(),
        }
    }
}

fn short(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE - 4).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// The first few of a list, and how many more there are.
fn told<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let mut seen = BTreeSet::new();
    let all: Vec<String> =
        all.into_iter().map(|one| one.to_string()).filter(|one| seen.insert(one.clone())).collect();
    let mut text = all.iter().take(MAX_TOLD).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > MAX_TOLD {
        text.push_str(&format!("; and {} more of the kind", all.len() - MAX_TOLD));
    }
    text
}

fn accepted(report: &Report) -> Said {
    let Report { nodes, refused, conflicts: _, overlaps: _, without_pod_ranges } = report;
    let Some((_, first)) = refused.first() else {
        let mut message = match nodes.len() {
            0 => "spec.nodes selects no node of this cluster".to_owned(),
            1 => "planned for 1 node".to_owned(),
            count => format!("planned for {count} nodes"),
        };
        if !without_pod_ranges.is_empty() {
            let some = without_pod_ranges.iter().take(MAX_TOLD).cloned().collect::<Vec<_>>().join(", ");
            message.push_str(&format!(
                "; {} of them ({some}) have no ranges of pods where spec.announce.podCIDRs.from looks for them, and \
                 announce none: write where your CNI plugin keeps them (Calico, Cilium, or Static and cidrs)",
                without_pod_ranges.len()
            ));
        }
        return Said::new(types::ACCEPTED, "True", reasons::PLANNED, message);
    };
    let reason = match first {
        PlanError::Allocate { source: AllocateError::Exhausted { .. }, .. } => reasons::ADDRESSES_EXHAUSTED,
        PlanError::HubRefUnknown { .. } | PlanError::PodCidrSourceMissing { .. } => {
            reasons::REFERENCE_MISSING
        }
        PlanError::PinTaken { .. } => reasons::CONFLICTS,
        error if error.both().is_some() => reasons::CONFLICTS,
        _ => reasons::INVALID,
    };
    Said::new(types::ACCEPTED, "False", reason, told(refused.iter().map(|(_, error)| error)))
}

fn conflict(report: &Report) -> Said {
    if !report.conflicts.is_empty() {
        return Said::new(types::CONFLICT, "True", reasons::SAME_NODE, told(&report.conflicts));
    }
    let overlaps = report.overlaps.iter().map(|overlap| {
        let ((older, one), (younger, other)) = (&overlap.older, &overlap.younger);
        format!(
            "{older} and {younger} give out the same tunnel addresses ({one} and {other}): no address is given twice, \
             but give {younger} another part of the network in spec.tunnel.addresses"
        )
    });
    if !report.overlaps.is_empty() {
        return Said::new(types::CONFLICT, "True", reasons::ADDRESSES_OVERLAP, told(overlaps));
    }
    Said::new(types::CONFLICT, "False", reasons::NO_CONFLICT, "no other resource wants the same")
}

fn ready(selected: usize, not_ready: &[&NodeView<'_>]) -> Said {
    let first = not_ready
        .first()
        .and_then(|node| node.not_ready.as_ref().map(|(_, message)| format!("{}: {message}", node.name)));
    let first = first.unwrap_or_default();
    match (selected, not_ready.len()) {
        (0, _) => Said::new(
            types::READY,
            "False",
            reasons::NO_NODE_SELECTED,
            "spec.nodes selects no node of this cluster: label nodes, or change the selector",
        ),
        (_, 0) => Said::new(types::READY, "True", reasons::FORWARDING, "every selected node forwards"),
        (all, some) if all == some => Said::new(
            types::READY,
            "False",
            reasons::NO_NODE_READY,
            format!("none of {all} nodes is ready; {first}"),
        ),
        (all, some) => Said::new(
            types::READY,
            "False",
            reasons::SOME_NODES_NOT_READY,
            format!("{some} of {all} nodes are not ready; {first}"),
        ),
    }
}

/// A condition that holds if it holds on every node that reports it; the first node where it doesn't gives the reason.
fn on_all_nodes(type_: &'static str, good: &'static str, nodes: &[NodeView<'_>], message: &str) -> Said {
    let mut reported = nodes.iter().filter_map(|node| node.condition(type_).map(|c| (node.name, c)));
    if reported.clone().next().is_none() {
        return Said::new(type_, "Unknown", reasons::NOT_REPORTED, "no node has reported yet");
    }
    match reported.find(|(_, condition)| condition.status != "True") {
        None => Said::new(type_, "True", good, message),
        Some((node, bad)) => Said::new(type_, "False", &bad.reason, format!("node {node}: {}", bad.message)),
    }
}

fn hubs_reachable(nodes: &[NodeView<'_>]) -> Said {
    on_all_nodes(
        types::HUBS_REACHABLE,
        reasons::REGISTERED,
        nodes,
        "every node is registered with at least one hub",
    )
}

fn encrypted(resource: &Resource<'_>, nodes: &[NodeView<'_>]) -> Said {
    match resource.network.security.mode {
        SecurityMode::None => Said::new(
            types::ENCRYPTED,
            "False",
            reasons::ASKED_FOR_NONE,
            "spec.security.mode is None: everything leaves in clear",
        ),
        SecurityMode::Encrypted => on_all_nodes(
            types::ENCRYPTED,
            reasons::ALL_ENCRYPTED,
            nodes,
            "every packet leaves encrypted, on every node",
        ),
    }
}

fn certificates<'a>(resource: &Resource<'a>) -> Option<&'a Certificates> {
    let Authentication { certificates, pre_shared_key: _ } =
        resource.network.security.authentication.as_ref()?;
    certificates.as_ref().filter(|_| resource.network.security.mode == SecurityMode::Encrypted)
}

fn issued_by_operator(resource: &Resource<'_>) -> bool {
    certificates(resource).is_some_and(|certificates| certificates.issued_by == IssuedBy::Operator)
}

/// The Secret of the CA that signs for a resource's nodes, if the operator does.
pub fn ca_secret<'a>(resource: &Resource<'a>) -> Option<&'a str> {
    certificates(resource).filter(|_| issued_by_operator(resource))?.ca_secret.as_deref()
}

fn unverified(resource: &Resource<'_>) -> Said {
    let type_ = types::IDENTITY_UNVERIFIED;
    match resource.network.security.mode {
        SecurityMode::None => {
            Said::new(type_, "True", reasons::NO_ENCRYPTION, "without encryption nobody proves who they are")
        }
        SecurityMode::Encrypted if certificates(resource).is_some() => {
            Said::new(type_, "False", reasons::CERTIFICATES, "peers prove who they are by certificates")
        }
        SecurityMode::Encrypted => Said::new(
            type_,
            "True",
            reasons::PRE_SHARED_KEY,
            "whoever has the key can call itself as it likes: use certificates where that matters",
        ),
    }
}

fn address_conflict(nodes: &[NodeView<'_>]) -> Said {
    let type_ = types::ADDRESS_CONFLICT;
    let bad = nodes.iter().find_map(|node| {
        node.condition(type_).filter(|condition| condition.status == "True").map(|c| (node.name, c))
    });
    match bad {
        Some((node, condition)) => {
            Said::new(type_, "True", &condition.reason, format!("node {node}: {}", condition.message))
        }
        None => Said::new(type_, "False", reasons::NO_CONFLICT, "no other holds an address of these nodes"),
    }
}

/// What an operator before this one found out stands until a node asks again.
fn certificates_issued(signing: Option<&Signing>, old: &[Condition]) -> Said {
    let type_ = types::CERTIFICATES_ISSUED;
    match (signing, find(old, type_)) {
        (Some(Signing::Signed), _) => {
            Said::new(type_, "True", reasons::SIGNED, "the last certificate that was asked for was signed")
        }
        (Some(Signing::Failed(reason, message)), _) => Said::new(type_, "False", reason, message.clone()),
        (None, Some(old)) => Said::again(type_, old),
        (None, None) => {
            Said::new(type_, "Unknown", reasons::NOT_ASKED, "no node has asked for a certificate")
        }
    }
}

fn authority_healthy(finding: Option<&Finding>, old: &[Condition]) -> Option<Said> {
    let type_ = types::AUTHORITY_HEALTHY;
    match finding {
        Some(Finding::Usable) => {
            let message = "the CA can sign what every node is to claim";
            Some(Said::new(type_, "True", reasons::USABLE, message))
        }
        Some(Finding::Bad(reason, message)) => Some(Said::new(type_, "False", reason, message.clone())),
        None => find(old, type_).map(|old| Said::again(type_, old)),
    }
}

#[cfg(test)]
mod tests;
