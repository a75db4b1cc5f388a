//! The agent's part in attaching pods. The plugin tells what the runtime asks; here it is decided.
//!
//! Which pods there are comes from two sides: from the plugin, as they are attached, and from the API server, for those
//! that are older than the plugin. Those that may not use the overlay (by annotation of the pod or its namespace) are
//! kept from it by a table of ours. All of it is remembered, for a start without API server.

pub mod facts;
pub mod firewall;
pub mod notes;
pub mod pods;
pub mod registry;
pub mod service;

pub use registry::Registry;
pub use service::Service;

use crate::agent::{Options, Shared};
use std::sync::Arc;

/// Begins: takes up what is remembered and what plugins left, so that a pod that is attached next finds everything.
pub async fn start(options: &Options, shared: &Arc<Shared>) -> Arc<Registry> {
    let source = facts::Source::new(Arc::clone(shared));
    let registry = Arc::new(Registry::open(&options.state_dir, &options.run_dir, source));
    registry.tell(registry.take_notes().await);
    if let Err(error) = registry.apply().await {
        tracing::warn!(%error, "cannot keep pods from the overlay that don't want it");
    }
    registry
}
