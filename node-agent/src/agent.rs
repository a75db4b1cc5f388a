//! The agent of one node: builds everything from a validated configuration, follows its changes, and takes everything
//! down in order.

use crate::config::TunnelConfig;
use crate::control::{Control, Handle, Parts};
use crate::datapath::Process;
use crate::kernel::Kernel;
use crate::state::StateDir;
use crate::{clock, grpc, manifests, metrics};
use ipnet::IpNet;
use packet::Instant;
use rpc::agent::{CapturedPacket, Configuration, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

/// Where in the state directory the manifests stand that were last in force.
const LAST_GOOD: &str = "manifests";

/// How the agent was started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of manifests.
    pub manifests: PathBuf,
    /// Name of this node.
    pub node: String,
    /// Sockets.
    pub run_dir: PathBuf,
    /// What survives.
    pub state_dir: PathBuf,
    /// The datapath's binary.
    pub datapath: PathBuf,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Datapath threads per tunnel.
    pub workers: u16,
    /// Leave everything to a successor at the end.
    pub keep_datapath: bool,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Files and sockets.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// Another agent runs with the same run directory.
    #[error("another agent runs with run directory {0}")]
    Running(PathBuf),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::Error),
    /// The manifests can't be watched.
    #[error("cannot watch the manifests: {0}")]
    Watch(#[from] notify::Error),
}

/// What the API and the metrics see.
#[derive(Debug)]
pub struct Shared {
    /// Name of the node.
    pub node: String,
    /// Events, as they happen.
    pub live: broadcast::Sender<Event>,
    started: Instant,
    source: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tunnels: BTreeMap<String, Handle>,
    applied: Instant,
    errors: Vec<String>,
}

impl Shared {
    /// The tunnels there are.
    #[must_use]
    pub fn tunnels(&self) -> Vec<Handle> {
        self.lock().tunnels.values().cloned().collect()
    }

    /// How long the agent runs, in milliseconds.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        clock::millis_since(clock::now(), self.started)
    }

    /// Where the configuration comes from, and what is wrong with it.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        let state = self.lock();
        Configuration {
            source: self.source.display().to_string(),
            applied_ms: clock::millis_since(clock::now(), state.applied),
            errors: state.errors.clone(),
        }
    }

    /// A panic elsewhere leaves plain data behind, which is as good as before.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the agent until `stop` is told.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let _lock = lock_run_dir(&options)?;
    let state = StateDir::open(&options.state_dir).map_err(named(&options.state_dir))?;
    let mut agent = Agent::new(&options, state)?;
    let mut servers = JoinSet::new();
    let (socket, shared) = (options.run_dir.join("agent.sock"), Arc::clone(&agent.shared));
    servers.spawn(async move { grpc::serve(&socket, shared).await });
    if let Some(address) = options.metrics {
        let shared = Arc::clone(&agent.shared);
        servers.spawn(async move { metrics::serve(address, shared).await });
    }

    let first = manifests::load(&options.manifests, &options.node, options.workers);
    if first.is_err()
        && let Ok(last) = manifests::load(&options.state_dir.join(LAST_GOOD), &options.node, options.workers)
    {
        tracing::warn!("the manifests can't be used: starting with those that were last in force");
        agent.apply(Ok(last)).await;
    }
    let watch =
        manifests::watch(options.manifests.clone(), options.node.clone(), options.workers, first.clone());
    let mut changes = watch?;
    follow(&mut agent, &options, first).await;
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(outcome) = changes.recv() => follow(&mut agent, &options, outcome).await,
            Some(ended) = servers.join_next() => match ended {
                // The network goes on without its API; the log says so.
                Ok(Err(error)) => tracing::error!(%error, "a server ended"),
                other => tracing::error!(?other, "a server ended"),
            },
        }
    }
    agent.shutdown(!options.keep_datapath).await;
    let _ = fs::remove_file(options.run_dir.join("agent.sock"));
    Ok(())
}

/// Applies what the folder says, and keeps a copy of it when it is good, so that a restart finds one whatever becomes
/// of the folder.
async fn follow(agent: &mut Agent, options: &Options, outcome: manifests::Outcome) {
    let good = outcome.is_ok();
    agent.apply(outcome).await;
    if good {
        let kept = options.state_dir.join(LAST_GOOD);
        let is_good = |folder: &Path| manifests::load(folder, &options.node, options.workers).is_ok();
        if let Err(error) = manifests::keep(&options.manifests, &kept, is_good) {
            tracing::warn!(%error, folder = %kept.display(), "cannot keep a copy of the manifests");
        }
    }
}

struct Agent {
    kernel: Kernel,
    process: Process,
    run_dir: PathBuf,
    state: StateDir,
    shared: Arc<Shared>,
    captured: broadcast::Sender<CapturedPacket>,
}

impl Agent {
    fn new(options: &Options, state: StateDir) -> Result<Self, Error> {
        let now = clock::now();
        Ok(Self {
            kernel: Kernel::open()?,
            process: Process {
                socket: options.run_dir.join("datapath.sock"),
                binary: options.datapath.clone(),
                log: options.run_dir.join("datapath.log"),
            },
            run_dir: options.run_dir.clone(),
            state,
            shared: Arc::new(Shared {
                node: options.node.clone(),
                live: broadcast::channel(1024).0,
                started: now,
                source: options.manifests.clone(),
                state: Mutex::new(State { tunnels: BTreeMap::new(), applied: now, errors: Vec::new() }),
            }),
            captured: broadcast::channel(4096).0,
        })
    }

    /// Brings the node to a new configuration; a wrong one changes nothing.
    async fn apply(&mut self, outcome: manifests::Outcome) {
        let tunnels = match outcome {
            Ok(tunnels) => tunnels,
            Err(errors) => {
                for error in &errors {
                    tracing::error!("manifest not applied: {error}");
                }
                self.shared.lock().errors = errors;
                return;
            }
        };
        let mut errors = self.protect(&tunnels).await;
        let wanted: BTreeSet<&str> = tunnels.iter().map(TunnelConfig::interface).collect();
        let gone: Vec<Handle> =
            self.shared.tunnels().into_iter().filter(|t| !wanted.contains(t.interface())).collect();
        for tunnel in gone {
            tunnel.shutdown(true).await;
            self.shared.lock().tunnels.remove(tunnel.interface());
            errors.extend(self.remove_interface(tunnel.interface()).await.err());
        }
        for config in tunnels {
            errors.extend(self.apply_tunnel(config).await.err());
        }
        let mut state = self.shared.lock();
        state.applied = clock::now();
        state.errors = errors;
    }

    async fn apply_tunnel(&self, config: TunnelConfig) -> Result<(), String> {
        let running = self.shared.lock().tunnels.get(config.interface()).cloned();
        if let Some(handle) = running {
            if handle.reconfigure(config.clone()).await {
                return Ok(());
            }
            // Another identity or address: leave as who we were, come back as who we are.
            handle.shutdown(true).await;
            self.shared.lock().tunnels.remove(config.interface());
        }
        let interface = config.interface().to_owned();
        let parts = Parts {
            kernel: self.kernel.clone(),
            process: self.process.clone(),
            state: self.state.clone(),
            run_dir: self.run_dir.clone(),
            live: self.shared.live.clone(),
            captured: self.captured.clone(),
        };
        let handle = Control::start(config, parts).map_err(|e| e.to_string())?;
        self.shared.lock().tunnels.insert(interface, handle);
        Ok(())
    }

    /// Makes exactly the protected prefixes of all tunnels unreachable by other ways, before anything else.
    async fn protect(&self, tunnels: &[TunnelConfig]) -> Vec<String> {
        let wanted: BTreeSet<IpNet> =
            tunnels.iter().flat_map(|t| t.protected.iter().map(IpNet::trunc)).collect();
        let mut errors = Vec::new();
        let present = match self.kernel.protected().await {
            Ok(present) => present.into_iter().collect(),
            Err(error) => {
                errors.push(error.to_string());
                BTreeSet::new()
            }
        };
        for prefix in wanted.difference(&present) {
            errors.extend(self.kernel.protect(*prefix).await.err().map(|e| e.to_string()));
        }
        for prefix in present.difference(&wanted) {
            errors.extend(self.kernel.unprotect(*prefix).await.err().map(|e| e.to_string()));
        }
        errors
    }

    async fn remove_interface(&self, interface: &str) -> Result<(), String> {
        self.kernel.delete_link(interface).await.map_err(|e| e.to_string())?;
        self.state.forget_interface(interface).map_err(|e| e.to_string())
    }

    /// Leaves in good order: tunnels first, all at once, then the datapath.
    async fn shutdown(&self, deregister: bool) {
        let mut tunnels = JoinSet::new();
        for tunnel in self.shared.tunnels() {
            tunnels.spawn(async move { tunnel.shutdown(deregister).await });
        }
        while tunnels.join_next().await.is_some() {}
        if deregister && let Err(error) = self.process.stop().await {
            tracing::warn!(%error, "cannot stop the datapath");
        }
    }
}

/// Two agents with one run directory would undo each other's work.
fn lock_run_dir(options: &Options) -> Result<fs::File, Error> {
    let path = options.run_dir.join("agent.lock");
    fs::create_dir_all(&options.run_dir).map_err(named(&options.run_dir))?;
    let file = fs::File::create(&path).map_err(named(&path))?;
    file.try_lock().map_err(|_| Error::Running(options.run_dir.clone()))?;
    Ok(file)
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::Io(path, error)
}
