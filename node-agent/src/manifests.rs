//! The folder of manifests: read, planned and parsed as a whole, and watched.
//!
//! A folder with a mistake anywhere changes nothing: what runs goes on, and every mistake is told.

use crate::config::TunnelConfig;
use crds::manifest;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use plan::NodeFacts;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How long a folder must be quiet before it is read: editors and `kubectl cp` write in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// It is read at the latest after so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// It is read again this often in any case, as some file systems tell nothing.
const REREAD: Duration = Duration::from_secs(60);

/// What a node is to do; or everything that is wrong with the folder.
pub type Outcome = Result<Vec<TunnelConfig>, Vec<String>>;

/// Reads the folder for this node. `workers`: datapath threads per tunnel.
pub fn load(folder: &Path, node: &str, workers: u16) -> Outcome {
    let manifests = manifest::read_folder(folder).map_err(lines)?;
    let spec = plan::standalone(&manifests, &NodeFacts::named(node)).map_err(lines)?;
    let mut tunnels = Vec::new();
    let mut errors = Vec::new();
    for tunnel in &spec.tunnels {
        match TunnelConfig::parse(tunnel, &manifests.secrets, workers) {
            Ok(config) => tunnels.push(config),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(tunnels) } else { Err(errors) }
}

/// Watches the folder and reads it when it changed. Only a different outcome is told. Ends with the receiver.
pub fn watch(
    folder: PathBuf,
    node: String,
    workers: u16,
    first: Outcome,
) -> notify::Result<mpsc::Receiver<Outcome>> {
    let (touched, touches) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is no change; to hear of our own reading would never end.
        if event.is_ok_and(|e| !e.kind.is_access()) {
            let _ = touched.try_send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    let (outcomes, receiver) = mpsc::channel(1);
    tokio::spawn(follow(watcher, touches, outcomes, first, move || load(&folder, &node, workers)));
    Ok(receiver)
}

async fn follow(
    _watcher: RecommendedWatcher,
    mut touches: mpsc::Receiver<()>,
    outcomes: mpsc::Sender<Outcome>,
    mut last: Outcome,
    load: impl Fn() -> Outcome,
) {
    loop {
        tokio::select! {
            () = outcomes.closed() => return,
            touch = touches.recv() => if touch.is_none() { return },
            () = tokio::time::sleep(REREAD) => {}
        }
        let patience = Instant::now() + PATIENCE;
        while timeout_at(patience.min(Instant::now() + QUIET), touches.recv()).await.is_ok() {
            if Instant::now() >= patience {
                break;
            }
        }
        let outcome = load();
        if outcome != last {
            last.clone_from(&outcome);
            if outcomes.send(outcome).await.is_err() {
                return;
            }
        }
    }
}

fn lines(error: impl std::fmt::Display) -> Vec<String> {
    error.to_string().lines().map(str::to_owned).collect()
}
