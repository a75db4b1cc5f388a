//! A whole cluster: its network, its control plane and its nodes.

use super::control_plane::ControlPlane;
use super::image;
use super::machine::{Machine, Proxy};
use crate::error::{Error, Result};
use crate::nat::NatRouter;
use crate::topology::{Lab, Node, Uplink};
use serde_json::json;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What a cluster is, before it is started. See [`super`] for its addresses.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name; its nodes are `NAME-1`, `NAME-2`, ...
    pub name: String,
    /// Its number, 1 to 15, from which all its addresses come.
    pub index: u8,
    /// How many nodes.
    pub nodes: u8,
    /// Its nodes have private addresses behind such a router.
    pub nat: Option<NatRouter>,
    /// Its nodes and pods have IPv6 addresses too.
    pub dual_stack: bool,
    /// How Services work.
    pub proxy: Proxy,
    /// How its router is attached to the Internet.
    pub uplink: Uplink,
}

impl Plan {
    /// A public cluster of two nodes.
    #[must_use]
    pub fn new(name: &str, index: u8) -> Self {
        Self {
            name: name.to_owned(),
            index,
            nodes: 2,
            nat: None,
            dual_stack: false,
            proxy: Proxy::default(),
            uplink: Uplink::default(),
        }
    }

    /// With so many nodes.
    #[must_use]
    pub fn nodes(self, nodes: u8) -> Self {
        Self { nodes, ..self }
    }

    /// Behind a NAT.
    #[must_use]
    pub fn behind(self, router: NatRouter) -> Self {
        Self { nat: Some(router), ..self }
    }

    /// With IPv6 beside IPv4, for nodes and pods.
    #[must_use]
    pub fn dual_stack(self) -> Self {
        Self { dual_stack: true, ..self }
    }

    /// With kube-proxy in this mode.
    #[must_use]
    pub fn proxy(self, proxy: Proxy) -> Self {
        Self { proxy, ..self }
    }

    /// The address by which the Internet knows its router, and behind a NAT all its nodes.
    #[must_use]
    pub fn public(&self) -> String {
        format!("203.0.113.{}", u16::from(self.index) * 16 + 14)
    }

    /// Address `k` of its LAN: nodes 1 to 11, the control plane 13, the router 14.
    #[must_use]
    pub fn address(&self, k: u8) -> String {
        match self.nat {
            Some(_) => format!("192.168.{}.{k}", self.index),
            None => format!("203.0.113.{}", u16::from(self.index) * 16 + u16::from(k)),
        }
    }

    /// Addresses `k` of its LAN, IPv4 first.
    #[must_use]
    pub fn addresses(&self, k: u8) -> Vec<String> {
        let v6 = self.dual_stack.then(|| format!("fd00:192:{}::{k}", self.index));
        std::iter::once(self.address(k)).chain(v6).collect()
    }

    /// The ranges of the pods of node `k`, IPv4 first.
    #[must_use]
    pub fn pods(&self, k: u8) -> Vec<String> {
        let v6 = self.dual_stack.then(|| format!("fd00:10:{}:{k}::/64", self.index));
        std::iter::once(format!("10.{}.{k}.0/24", self.index)).chain(v6).collect()
    }
}

/// A running cluster. It is its control plane, and has nodes. It ends with the lab.
pub struct Cluster {
    plan: Plan,
    router: Node,
    control: ControlPlane,
    machines: Mutex<Vec<Machine>>,
    images: PathBuf,
}

impl Deref for Cluster {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.control
    }
}

const CONTROL: u8 = 13;
const ROUTER: u8 = 14;

impl Cluster {
    /// Starts several side by side.
    pub fn start_all<const N: usize>(lab: &Lab, plans: &[Plan; N]) -> Result<[Self; N]> {
        let clusters = Self::start_each(lab, plans)?;
        Ok(clusters.try_into().unwrap_or_else(|_| unreachable!("a cluster for each plan")))
    }

    /// The same for as many plans as there are.
    pub fn start_each(lab: &Lab, plans: &[Plan]) -> Result<Vec<Self>> {
        thread::scope(|scope| {
            let starting: Vec<_> =
                plans.iter().map(|plan| scope.spawn(|| Self::start(lab, plan.clone()))).collect();
            let join = |t: thread::ScopedJoinHandle<'_, Result<Self>>| {
                t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            // All have ended, well or not, before the first error is returned.
            let ended: Vec<_> = starting.into_iter().map(join).collect();
            ended.into_iter().collect()
        })
    }

    /// Starts a cluster and waits until its nodes are ready.
    pub fn start(lab: &Lab, plan: Plan) -> Result<Self> {
        let images = image::basics(lab)?;
        let router = router(lab, &plan)?;
        let node = on_lan(lab, &router, &plan, "control", CONTROL)?;
        let address = plan.address(CONTROL).parse().map_err(Error::other)?;
        let services = format!("10.{}.0.0/16", 100 + u16::from(plan.index));
        let control = ControlPlane::prepare(lab, node, address, &services)?;
        control.start_api()?;
        control.start_controllers()?;
        control.start_scheduler()?;
        let nodes = plan.nodes;
        let this = Self { plan, router, control, machines: Mutex::default(), images };
        thread::scope(|scope| {
            let cluster = &this;
            let booting: Vec<_> =
                (1..=nodes).map(|k| scope.spawn(move || cluster.add_node(lab, k))).collect();
            let join = |t: thread::ScopedJoinHandle<'_, Result<Machine>>| {
                t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
            };
            let ended: Vec<Result> = booting.into_iter().map(join).collect();
            ended.into_iter().collect::<Result>()
        })?;
        Ok(this)
    }

    /// Adds node `k` and waits until it is ready.
    pub fn add_node(&self, lab: &Lab, k: u8) -> Result<Machine> {
        let plan = &self.plan;
        let pods = plan.pods(k);
        let node = on_lan(lab, &self.router, plan, &k.to_string(), k)?;
        let machine = Machine::prepare(
            lab,
            node,
            &self.control,
            (plan.addresses(k), pods.clone()),
            plan.proxy,
            &self.images,
        )?;
        self.lock().push(machine.clone());
        self.route(&machine)?;
        // Made before kubelet registers, so that the prefix of its pods is as planned.
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": machine.name()},
            "spec": {"podCIDR": pods[0], "podCIDRs": pods},
        });
        self.apply(&object.to_string())?;
        machine.boot()?;
        self.wait_node(machine.name(), true)?;
        Ok(machine)
    }

    /// A cloud's route table: pods of this cluster's other nodes are behind these, and this node's behind it.
    fn route(&self, machine: &Machine) -> Result {
        let route = |on: &Machine, to: &Machine| {
            let addresses = to.addresses();
            let by_version = to.pods().iter().zip(&addresses);
            let lines: Vec<_> =
                by_version.map(|(pods, address)| format!("route replace {pods} via {address}")).collect();
            on.node().namespace().ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())
        };
        for other in self.lock().iter().filter(|other| other.name() != machine.name()) {
            route(other, machine)?;
            route(machine, other)?;
        }
        Ok(())
    }

    /// Switches a node off, gives it address `k` of the LAN, and switches it on again.
    pub fn move_node(&self, name: &str, k: u8) -> Result {
        let machine = self.machine_named(name)?;
        machine.power_off();
        machine.readdress(self.plan.addresses(k));
        machine.node().namespace().ip(&["addr flush dev eth0"])?;
        connect(machine.node(), &self.plan, k)?;
        self.route(&machine)?;
        machine.boot()
    }

    /// Waits until a Node is ready, or is not.
    pub fn wait_node(&self, name: &str, ready: bool) -> Result {
        let what = format!("node {name} to be ready: {ready}");
        self.wait_for(&what, Duration::from_secs(120), &["node", name], |node| {
            let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            let seen = conditions.filter(|c| c["type"] == "Ready").find_map(|c| c["status"].as_str());
            if (seen == Some("True")) == ready { Ok(()) } else { Err(format!("Ready is {seen:?}")) }
        })
    }

    /// Takes a node away for good: power, its Node object, and the way to it.
    pub fn remove_node(&self, name: &str) -> Result {
        let mut machines = self.lock();
        let at = machines.iter().position(|m| m.name() == name);
        let machine = machines.remove(at.ok_or_else(|| Error::other(format!("no node {name}")))?);
        machine.power_off();
        for other in machines.iter() {
            for range in machine.pods() {
                other.node().namespace().ip(&[&format!("route del {range}")])?;
            }
        }
        drop(machines);
        self.kubectl(&["delete", "node", name, "--ignore-not-found"]).map(drop)
    }

    /// What it was planned to be.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its router, whose interface `wan` is the wire between clusters.
    #[must_use]
    pub const fn router(&self) -> &Node {
        &self.router
    }

    /// Its nodes.
    #[must_use]
    pub fn machines(&self) -> Vec<Machine> {
        let mut machines = self.lock().clone();
        machines.sort_by(|a, b| a.name().cmp(b.name()));
        machines
    }

    /// One of its nodes, counted from 1.
    pub fn machine(&self, k: u8) -> Result<Machine> {
        self.machine_named(&format!("{}-{k}", self.plan.name))
    }

    /// One of its nodes.
    pub fn machine_named(&self, name: &str) -> Result<Machine> {
        let found = self.lock().iter().find(|m| m.name() == name).cloned();
        found.ok_or_else(|| Error::other(format!("no node {name}")))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The router between a cluster's LAN and the Internet.
fn router(lab: &Lab, plan: &Plan) -> Result<Node> {
    let (name, public) = (format!("{}-router", plan.name), plan.public());
    let router = match &plan.nat {
        Some(nat) => lab.nat(&name, &[&public], nat)?,
        None => {
            let (router, _) = lab.site_by(&name, &[&public], &plan.uplink)?;
            let network = plan.address(0);
            lab.internet().namespace().ip(&[&format!("route add {network}/28 via {public}")])?;
            router
        }
    };
    let address = plan.address(ROUTER);
    let length = if plan.nat.is_some() { 24 } else { 28 };
    router.namespace().ip(&[
        "link add lan type bridge",
        "link set lan up",
        &format!("addr add {address}/{length} dev lan"),
    ])?;
    Ok(router)
}

/// A namespace on a cluster's LAN with this address.
fn on_lan(lab: &Lab, router: &Node, plan: &Plan, name: &str, k: u8) -> Result<Node> {
    let node = lab.node(&format!("{}-{name}", plan.name))?;
    let port = format!("lan{k}");
    // A node's kernel hands TCP over in super-frames, as a machine with a real network card would.
    router.wire(&port, &node, "eth0", &Uplink { segmented: false, ..Uplink::default() })?;
    router.namespace().ip(&[&format!("link set {port} master lan")])?;
    connect(&node, plan, k)?;
    node.namespace().sysctls(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
    Ok(node)
}

/// Gives a namespace on a cluster's LAN its addresses and the way out. There is no IPv6 beyond the LAN.
fn connect(node: &Node, plan: &Plan, k: u8) -> Result {
    let length = if plan.nat.is_some() { 24 } else { 28 };
    let v4 = format!("addr add {}/{length} dev eth0", plan.address(k));
    let v6 = plan.addresses(k).into_iter().skip(1).map(|v6| format!("addr add {v6}/64 dev eth0 nodad"));
    let out = format!("route add default via {}", plan.address(ROUTER));
    let lines: Vec<String> = [v4, out].into_iter().chain(v6).collect();
    node.namespace().ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}
