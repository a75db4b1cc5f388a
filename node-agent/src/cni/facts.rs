//! What the tunnels of this node mean for its pods.

use crate::agent::Shared;
use crate::clock;
use crate::control::Snapshot;
use crate::disturbances::Disturbances;
use crate::state::StateDir;
use ipnet::IpNet;
use packet::Instant;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::futures::Notified;

/// A snapshot costs more than many pods that start at once should cause, and may have to wait for a busy tunnel.
const AGE: Duration = Duration::from_secs(10);

/// What pods need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The largest packet that every tunnel takes; 0: there is no tunnel.
    pub mtu: u32,
    /// What is reached by the overlay.
    pub networks: BTreeSet<IpNet>,
    /// What this node announces: its pods' addresses come from there.
    pub announced: BTreeSet<IpNet>,
}

impl Facts {
    fn of(snapshots: &[Snapshot]) -> Self {
        let mut facts = Self::default();
        for snapshot in snapshots {
            let interface = snapshot.config.kernel_interface(snapshot.underlay);
            facts.mtu = if facts.mtu == 0 { interface.mtu } else { facts.mtu.min(interface.mtu) };
            facts.networks.extend(&interface.networks);
            facts.networks.extend(&snapshot.config.protected);
            facts.networks.extend(snapshot.config.static_routes.iter().map(|(prefix, _)| prefix));
            facts.announced.extend(&snapshot.config.announce);
        }
        facts
    }
}

/// Facts that are always at hand.
pub struct Source {
    shared: Arc<Shared>,
    state: StateDir,
    last: Mutex<Option<Last>>,
}

struct Last {
    when: Instant,
    /// The tunnels there were.
    tunnels: BTreeSet<String>,
    facts: Facts,
}

impl Source {
    /// Of the tunnels of this agent.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, state: StateDir) -> Self {
        Self { shared, state, last: Mutex::new(None) }
    }

    /// The facts: of the tunnels there are now, and a few seconds old at most.
    pub async fn facts(&self) -> Facts {
        match self.known() {
            Some(facts) => facts,
            None => self.refresh().await,
        }
    }

    /// Asks the tunnels.
    pub async fn refresh(&self) -> Facts {
        let tunnels = self.shared.tunnels();
        let mut snapshots = Vec::new();
        for tunnel in &tunnels {
            snapshots.extend(tunnel.snapshot().await);
        }
        let facts = Facts::of(&snapshots);
        let tunnels = tunnels.iter().map(|tunnel| tunnel.interface().to_owned()).collect();
        *self.lock() = Some(Last { when: clock::now(), tunnels, facts: facts.clone() });
        facts
    }

    fn known(&self) -> Option<Facts> {
        let last = self.lock();
        let last = last.as_ref()?;
        let is_good = clock::now().since(last.when) < AGE && last.tunnels == self.tunnels();
        is_good.then(|| last.facts.clone())
    }

    /// Plain data, which a panic elsewhere leaves whole.
    fn lock(&self) -> MutexGuard<'_, Option<Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Interfaces of tunnels: those there are, and those that were made before and may be again in a moment.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<String> {
        let mut interfaces = self.tunnels();
        interfaces.extend(self.state.interfaces().unwrap_or_default());
        interfaces
    }

    /// Where it is counted what others removed.
    #[must_use]
    pub fn disturbances(&self) -> &Disturbances {
        &self.shared.disturbances
    }

    /// Waits until the tunnels may be others.
    pub fn changed(&self) -> Notified<'_> {
        self.shared.changed.notified()
    }

    fn tunnels(&self) -> BTreeSet<String> {
        self.shared.tunnels().iter().map(|tunnel| tunnel.interface().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_tunnel_limits_nothing() {
        assert_eq!(Facts::of(&[]), Facts::default());
    }

    #[test]
    fn the_smallest_tunnel_counts() {
        let one = crate::control::snapshot_for_tests();
        let facts = Facts::of(&[one.clone(), one.clone()]);
        assert_eq!(facts.mtu, u32::from(one.config.mtu(one.underlay)));
        assert!(facts.networks.contains(&"10.200.0.0/16".parse().unwrap()));
    }
}
