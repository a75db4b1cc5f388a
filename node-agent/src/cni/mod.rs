//! The agent's part in attaching pods. The plugin tells what the runtime asks; here it is decided.
//!
//! Which pods there are comes from two sides: from the plugin, as they are attached, and from the API server, for those
//! that are older than the plugin. Those that may not use the overlay (by annotation of the pod or its namespace) are
//! kept from it by a table of ours. All of it is remembered, for a start without API server.

pub mod conflist;
pub mod events;
pub mod facts;
pub mod firewall;
pub mod install;
pub mod notes;
pub mod pods;
pub mod registry;
pub mod service;
pub mod watch;

pub use install::Folders;
pub use registry::Registry;
pub use service::Service;

use crate::agent::{Options, Shared};
use crate::kubernetes;
use crate::source::Source;
use crate::state::StateDir;
use install::Install;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, io};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Begins: takes up what is remembered and what plugins left, so that a pod that is attached next finds everything. What
/// goes on beside the service is spawned on `tasks`.
pub async fn start(
    options: &Options,
    state: &StateDir,
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<io::Result<()>>,
) -> Service {
    let source = facts::Source::new(Arc::clone(shared), state.clone());
    let (missed, told) = mpsc::channel(rpc::cni::MISSED_MOST);
    let registry = Arc::new(Registry::open(&options.state_dir, &options.run_dir, source, missed));
    registry.take_notes().await;
    if let Err(error) = registry.apply().await {
        tracing::warn!(%error, "cannot keep pods from the overlay that don't want it");
    }
    place(options, tasks);
    if matches!(options.source, Source::Kubernetes { .. }) {
        let (shared, registry, node) = (Arc::clone(shared), Arc::clone(&registry), options.node.clone());
        // Without the plugin an agent may not read pods, and has no use for it.
        if options.cni.is_some() {
            tasks.spawn(async move {
                let client = kubernetes::client(&shared.reach).await;
                tokio::join!(
                    watch::follow(client.clone(), node.clone(), registry),
                    events::tell(client, node, told)
                );
                Ok(())
            });
        }
    }
    let watched = Arc::clone(&registry);
    tasks.spawn(async move { watched.watch().await });
    Service::new(registry)
}

/// Puts the plugin in its place, or takes it out where an agent before this one put it.
fn place(options: &Options, tasks: &mut JoinSet<io::Result<()>>) {
    let remembered = install::remembered(&options.state_dir);
    if let Some(old) = remembered.filter(|old| options.cni.as_ref() != Some(old)) {
        if old.configuration.is_dir() {
            for what in install::restore(&old) {
                tracing::warn!("CNI: not removed: {what}");
            }
            install::forget(&options.state_dir);
        } else {
            // In a container that doesn't see the folder any more.
            let folder = old.configuration.display();
            tracing::warn!("CNI: the plugin stays in the lists of {folder}, which can't be seen from here");
        }
    }
    let Some(folders) = options.cni.clone() else { return };
    let install = Install { folders, binary: beside_this(), run_dir: options.run_dir.clone() };
    if let Err(error) = install.remember(&options.state_dir) {
        tracing::warn!(%error, "where the CNI plugin is installed can't be kept: uninstall needs the same flags");
    }
    tasks.spawn(install.keep());
}

/// Takes everything of the plugin off the node. Returns what could not be removed, in words.
#[must_use]
pub fn uninstall(given: Option<&Folders>, state_dir: &Path) -> Vec<String> {
    let remembered = install::remembered(state_dir);
    let mut left: Vec<String> =
        given.into_iter().chain(remembered.as_ref()).flat_map(install::restore).collect();
    left.extend(firewall::remove().err().map(|e| format!("nftables table {}: {e}", firewall::TABLE)));
    left
}

fn beside_this() -> PathBuf {
    env::current_exe().unwrap_or_default().with_file_name(conflist::PLUGIN)
}
