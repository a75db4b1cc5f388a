//! From a tunnel's configuration to a speaker's. Pure.

use crate::config::TunnelConfig;
use bgp::{Config, Graceful, ImportRules, Phase, Restart, Role};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// How long a restarted speaker waits for its neighbours before it says that it knows everything.
const DEFERRAL: Duration = Duration::from_secs(60);

/// What a speaker is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The tunnel's interface: sockets are bound to it.
    pub interface: String,
    /// TCP port.
    pub port: u16,
    /// The speaker's configuration.
    pub config: Config,
    /// What peers may announce.
    pub claims: ::claims::Policy,
    /// Hubs whose tunnel addresses are known: after a restart they are waited for.
    pub hubs: Vec<IpAddr>,
}

impl Setup {
    /// For a tunnel; `None`: it has no BGP.
    #[must_use]
    pub fn new(tunnel: &TunnelConfig, hubs: Vec<IpAddr>) -> Option<Self> {
        let node = tunnel.bgp.as_ref()?;
        let engine = tunnel.engine(None);
        let role = if engine.hub { Role::Hub } else { Role::Spoke };
        let phase = match engine.phase {
            dmvpn::Phase::One => Phase::One,
            dmvpn::Phase::Two => Phase::Two,
            dmvpn::Phase::Three => Phase::Three,
        };
        let mut config = Config::new(node.settings.asn, node.router_id, role, phase);
        config.networks.clone_from(&engine.networks);
        config.local_addresses = one_per_version(&engine.addresses);
        config.listen_ranges.clone_from(&node.dynamic_neighbors);
        config.announce.clone_from(&tunnel.announce);
        config.summaries.clone_from(&node.settings.summaries);
        config.hold_time = Duration::from_secs(node.settings.hold_time.as_secs());
        config.graceful = Graceful { restart_time: node.settings.graceful_restart, ..Graceful::default() };
        config.import = ImportRules { own_as: node.settings.allow_own_asn, ..ImportRules::default() };
        Some(Self {
            interface: tunnel.interface().to_owned(),
            port: node.settings.port,
            config,
            claims: ::claims::Policy::new(engine.networks, engine.admission),
            hubs,
        })
    }

    /// Can a speaker that was started with this go on with `new`, told of claims and announcements?
    #[must_use]
    pub fn differs_in_details_only(&self, new: &Self) -> bool {
        let mut config = new.config.clone();
        config.announce.clone_from(&self.config.announce);
        (&self.interface, self.port, &self.config) == (&new.interface, new.port, &config)
    }

    /// The kernel holds routes of the process before us, with these next hops. A hub's next hops are its neighbours; a
    /// spoke's neighbours are its hubs, which it may not know yet.
    pub(super) fn resume(&mut self, next_hops: BTreeSet<IpAddr>) {
        if next_hops.is_empty() {
            return;
        }
        let mut expected = self.hubs.clone();
        if self.config.role == Role::Hub || expected.is_empty() {
            expected.extend(next_hops);
        }
        self.config.restart = Some(Restart { expected, deferral: DEFERRAL });
    }
}

fn one_per_version(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = |version: fn(&IpAddr) -> bool| addresses.iter().copied().find(version);
    first(IpAddr::is_ipv4).into_iter().chain(first(IpAddr::is_ipv6)).collect()
}
