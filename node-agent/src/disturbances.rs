//! What of ours others removed, and was put back: counted, as one that comes again and again is a fight.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How often, by what. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Disturbances(Arc<Mutex<BTreeMap<&'static str, u64>>>);

/// A route by a tunnel.
pub const ROUTE: &str = "route";
/// A tunnel's interface, or an address of it.
pub const INTERFACE: &str = "interface";
/// The route that makes a protected prefix unreachable.
pub const PROTECTED_PREFIX: &str = "protected_prefix";
/// A route to a gateway of this cluster.
pub const GATEWAY_ROUTE: &str = "gateway_route";
/// The route to the API server.
pub const SERVER_ROUTE: &str = "server_route";
/// A table of nftables.
pub const TABLE: &str = "nftables_table";

impl Disturbances {
    /// It happened again.
    pub fn note(&self, what: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(what).or_default();
        *count = count.saturating_add(1);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
