//! DMVPNs that this node is in by other nodes' tunnels (`announce.mode: Gateways`): routes to the best gateway that answers.
//!
//! Routes are the kernel's own, so they stay when this process ends; each gateway is asked twice a second whether it is
//! there. Which is the best the operator says; who does not answer is passed over.

mod choice;
mod echo;

use crate::clock;
use crate::disturbances::{self, Disturbances};
use crate::kernel::Kernel;
use crate::kernel::monitor::{self, Change};
use choice::Answers;
use crds::node::{NodeByGateways, NodeGateway};
use echo::Echo;
use ipnet::IpNet;
use packet::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(500);
/// A gateway that the kernel took no route by is tried again after so long.
const RETRY: Duration = Duration::from_secs(30);

/// Who sees to the routes. It ends with this.
#[derive(Debug)]
pub struct Gateways {
    told: watch::Sender<Option<Vec<NodeByGateways>>>,
}

impl Gateways {
    /// Starts; nothing is touched until it is told what to do.
    #[must_use]
    pub fn start(kernel: Kernel, views: Views, turned: Arc<Notify>, disturbances: Disturbances) -> Self {
        let (told, receiver) = watch::channel(None);
        let router = Router {
            kernel,
            views,
            turned,
            disturbances,
            told: Vec::new(),
            echoes: BTreeMap::new(),
            answers: Answers::default(),
            routes: BTreeMap::new(),
            refused: BTreeMap::new(),
        };
        tokio::spawn(router.run(receiver));
        Self { told }
    }

    /// From now on exactly these.
    pub fn follow(&self, told: &[NodeByGateways]) {
        self.told.send_if_modified(|before| {
            let changed = before.as_deref() != Some(told);
            *before = Some(told.to_vec());
            changed
        });
    }
}

/// How it goes, for those who tell it.
#[derive(Clone, Debug, Default)]
pub struct Views(Arc<Mutex<Vec<View>>>);

/// How it goes with one DMVPN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Name of its resource.
    pub name: String,
    /// The node that is gone by.
    pub gateway: Option<String>,
    /// Why packets get nowhere, if so.
    pub problem: Option<String>,
}

impl Views {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True: they were others before.
    fn replace(&self, views: Vec<View>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *all != views;
        *all = views;
        changed
    }
}

struct Router {
    kernel: Kernel,
    views: Views,
    turned: Arc<Notify>,
    disturbances: Disturbances,
    told: Vec<NodeByGateways>,
    /// `None`: it could not even be asked.
    echoes: BTreeMap<IpAddr, Option<Echo>>,
    answers: Answers,
    /// The routes in the kernel.
    routes: BTreeMap<IpNet, IpAddr>,
    /// Gateways that the kernel takes no route by.
    refused: BTreeMap<IpAddr, Refusal>,
}

struct Refusal {
    why: String,
    /// Then it is tried again.
    until: Instant,
}

impl Router {
    async fn run(mut self, mut told: watch::Receiver<Option<Vec<NodeByGateways>>>) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = None;
        loop {
            let idle = self.told.is_empty();
            tokio::select! {
                changed = told.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.told = told.borrow_and_update().clone().unwrap_or_default();
                    self.watch(&mut changes);
                    self.begin().await;
                }
                _ = tick.tick(), if !idle => self.look().await,
                change = next(&mut changes), if !idle => match change {
                    Some(change) => self.on_change(&change).await,
                    None => changes = None,
                },
            }
        }
    }

    /// Watches the kernel's routes while there are some of ours.
    fn watch(&self, changes: &mut Option<mpsc::Receiver<Change>>) {
        if self.told.is_empty() {
            *changes = None;
        } else if changes.is_none() {
            let watch = monitor::watch(self.kernel.clone());
            *changes = watch.inspect_err(|error| tracing::warn!(%error, "routes are not watched")).ok();
        }
    }

    /// Takes in what it was told, and what a process before this one left.
    async fn begin(&mut self) {
        let now = clock::now();
        match self.kernel.gateway_routes().await {
            Ok(routes) => self.routes = routes.into_iter().collect(),
            Err(error) => tracing::warn!(%error, "cannot read the routes to gateways"),
        }
        let all: BTreeSet<IpAddr> =
            self.told.iter().flat_map(gateways).flat_map(|g| g.addresses.clone()).collect();
        let all: Vec<IpAddr> = all.into_iter().collect();
        let used: BTreeSet<IpAddr> = self.routes.values().copied().collect();
        let fresh = self.echoes.is_empty();
        self.answers.know(&all, all.iter().any(|gateway| used.contains(gateway)), now);
        if fresh {
            used.iter().for_each(|gateway| self.answers.trust(*gateway, now));
        }
        self.echoes.retain(|address, _| all.contains(address));
        for address in all {
            self.echoes.entry(address).or_insert(None);
        }
        self.refused.clear();
        self.look().await;
    }

    /// Hears the answers, and asks again.
    async fn look(&mut self) {
        let now = clock::now();
        for (address, echo) in &mut self.echoes {
            if echo.as_mut().is_some_and(Echo::answered) {
                self.answers.heard(*address, now);
            }
            // A socket keeps the source address that it began with, and this node may have got another.
            if echo.is_none() || !self.answers.is_there(*address, now) {
                *echo = Echo::to(*address).ok();
            }
            if let Some(echo) = echo {
                echo.ask();
            }
        }
        self.settle().await;
    }

    /// Somebody may have removed routes of ours; the kernel does when a link goes down.
    async fn on_change(&mut self, change: &Change) {
        match change {
            // Links or addresses have changed.
            Change::Snapshot(_) => {
                let now = clock::now();
                self.refused.values_mut().for_each(|refusal| refusal.until = now);
            }
            // What we remove ourselves is not held any more.
            Change::Removed(route) if route.is_by_gateway() && self.routes.contains_key(&route.prefix) => {}
            Change::Removed(_) | Change::Added { .. } => return,
        }
        // What was told may be older than what we did since.
        let present = match self.kernel.gateway_routes().await {
            Ok(present) => present,
            Err(error) => return tracing::warn!(%error, "cannot read the routes to gateways"),
        };
        let lost: Vec<IpNet> = self
            .routes
            .iter()
            .filter(|(prefix, via)| !present.contains(&(**prefix, **via)))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in lost {
            self.routes.remove(&prefix);
            self.disturbances.note(disturbances::GATEWAY_ROUTE);
            tracing::warn!(%prefix, "a route to a gateway is gone: put back");
        }
        self.settle().await;
    }

    /// Brings the kernel's routes to what is best now.
    async fn settle(&mut self) {
        let now = clock::now();
        let mut wanted = self.wanted(now);
        // Whom the kernel refuses is passed over, one after the other.
        while let Some((prefix, via)) =
            wanted.iter().find(|(prefix, via)| self.routes.get(*prefix) != Some(via)).map(|(p, v)| (*p, *v))
        {
            match self.kernel.add_gateway_route(prefix, via).await {
                Ok(()) => {
                    tracing::info!(%prefix, %via, "routed to a gateway");
                    self.routes.insert(prefix, via);
                    self.refused.remove(&via);
                }
                Err(error) => {
                    let why = error.to_string();
                    if self.refused.get(&via).is_none_or(|before| before.why != why) {
                        tracing::warn!(%error, "no route to a gateway");
                    }
                    self.refused.insert(via, Refusal { why, until: now + RETRY });
                    wanted = self.wanted(now);
                }
            }
        }
        let stale: Vec<(IpNet, IpAddr)> =
            self.routes.iter().filter(|(p, _)| !wanted.contains_key(*p)).map(|(p, v)| (*p, *v)).collect();
        for (prefix, via) in stale {
            self.routes.remove(&prefix);
            if let Err(error) = self.kernel.remove_gateway_route(prefix, via).await {
                tracing::warn!(%error, "a route to a gateway stays");
            }
        }
        let views = self.told.iter().map(|told| self.view(told, now)).collect();
        if self.views.replace(views) {
            self.turned.notify_waiters();
        }
    }

    fn wanted(&self, now: Instant) -> BTreeMap<IpNet, IpAddr> {
        let mut wanted = BTreeMap::new();
        for told in &self.told {
            for prefix in &told.prefixes {
                let refused = |address: &IpAddr| self.refused.get(address).is_some_and(|r| now < r.until);
                let order: Vec<IpAddr> = gateways(told)
                    .flat_map(|gateway| &gateway.addresses)
                    .filter(|address| address.is_ipv4() == prefix.addr().is_ipv4() && !refused(address))
                    .copied()
                    .collect();
                let current = self.routes.get(prefix).copied();
                if let Some(via) = self.answers.choose(&order, current, now) {
                    wanted.entry(*prefix).or_insert(via);
                }
            }
        }
        wanted
    }

    fn view(&self, told: &NodeByGateways, now: Instant) -> View {
        let used = told.prefixes.iter().find_map(|prefix| self.routes.get(prefix)).copied();
        let node =
            |address: &IpAddr| gateways(told).find(|g| g.addresses.contains(address)).map(|g| g.node.clone());
        let missing = told.prefixes.iter().find(|prefix| !self.routes.contains_key(*prefix));
        let all = || gateways(told).map(|g| g.node.as_str()).collect::<Vec<_>>().join(", ");
        let problem = match (missing, used) {
            (Some(prefix), _) => {
                let why = gateways(told).flat_map(|g| &g.addresses).find_map(|a| self.refused.get(a));
                let why = why.map_or("none has an address of this IP version", |refusal| &refusal.why);
                Some(format!(
                    "{prefix} is not routed to any of {}: {why}; a gateway must be on a link of this node (where it is not, \
                     let spec.nodes select the gateways alone, and route {prefix} to them in your network)",
                    all()
                ))
            }
            (None, Some(used)) if !self.answers.is_there(used, now) => Some(format!(
                "none of {} answers: are they up, and do they answer ICMP echoes from this node?",
                all()
            )),
            _ => None,
        };
        View { name: told.name.clone(), gateway: used.as_ref().and_then(node), problem }
    }
}

fn gateways(told: &NodeByGateways) -> impl Iterator<Item = &NodeGateway> {
    told.via.iter()
}

async fn next(changes: &mut Option<mpsc::Receiver<Change>>) -> Option<Change> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}
