//! The agent of one node: builds everything from a validated configuration, follows its changes, and takes everything
//! down in order.
//!
//! In an upgrade two agents meet: the new one waits for the lock on the run directory, and says by a second lock that it
//! waits. The old one, told to end, sees that and leaves everything as it is; without a successor it takes its leave.

use crate::config::TunnelConfig;
use crate::control::{Control, Handle, Parts};
use crate::datapath::Process;
use crate::disturbances::{self, Disturbances};
use crate::gateways::{self, Gateways};
use crate::health::Health;
use crate::kernel::{Kernel, sysctl};
use crate::source::{About, Outcome, Outcomes, Problem, Source};
use crate::sources::{self, Sources};
use crate::state::StateDir;
use crate::{clock, cni, grpc, kubernetes, manifests, metrics};
use crds::conditions::reasons;
use crds::node::NodeByGateways;
use ipnet::IpNet;
use packet::Instant;
use rpc::agent::{CapturedPacket, Configuration, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// A successor looks so often whether the agent before it has ended.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// It is looked so often whether somebody changed nftables; what ours lacks is put back.
const REPAIR_INTERVAL: Duration = Duration::from_secs(1);
/// And so often at the routes that protect prefixes, while no tunnel watches the kernel's.
const LOOK: Duration = Duration::from_secs(30);

/// How the agent was started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the configuration comes from.
    pub source: Source,
    /// Name of this node.
    pub node: String,
    /// Sockets.
    pub run_dir: PathBuf,
    /// What survives.
    pub state_dir: PathBuf,
    /// The datapath's binary; `None`: somebody else starts the datapath, and again when it ends.
    pub datapath: Option<PathBuf>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where this process alone says how it is.
    pub probe_socket: Option<PathBuf>,
    /// Datapath threads per tunnel.
    pub workers: u16,
    /// Leave everything to a successor at the end, also when none waits yet.
    pub keep_datapath: bool,
    /// Where another agent runs, wait until it has ended.
    pub succeed: bool,
    /// Where to install the CNI plugin, if anywhere.
    pub cni: Option<cni::Folders>,
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
    /// Told when a configuration was applied.
    pub changed: Notify,
    /// Told when a tunnel, or one of its hubs, came up or went down.
    pub turned: Arc<Notify>,
    /// What others removed, and was put back.
    pub disturbances: Disturbances,
    /// How it goes with DMVPNs by other nodes' tunnels.
    pub by_gateways: gateways::Views,
    /// How it goes with the API server, where there is one.
    pub reach: kubernetes::Reach,
    started: Instant,
    source: Source,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tunnels: BTreeMap<String, Handle>,
    applied: Instant,
    /// A configuration was in force since the start.
    configured: bool,
    problems: Vec<Problem>,
    generation: Option<i64>,
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
            source: self.source.to_string(),
            applied_ms: clock::millis_since(clock::now(), state.applied),
            errors: state.problems.iter().map(|problem| problem.message.clone()).collect(),
        }
    }

    /// What is wrong with the configuration, and which generation of it is in force.
    #[must_use]
    pub fn applied(&self) -> (Vec<Problem>, Option<i64>) {
        let state = self.lock();
        (state.problems.clone(), state.generation)
    }

    /// Does the node do what it is told, even if that is nothing? A folder without a tunnel is taken for a mistake.
    #[must_use]
    pub fn is_idle_on_purpose(&self) -> bool {
        let state = self.lock();
        matches!(self.source, Source::Kubernetes { .. }) && state.configured && state.problems.is_empty()
    }

    /// A panic elsewhere leaves plain data behind, which is as good as before.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the agent until `stop` is told.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let mut stop = std::pin::pin!(stop);
    let (health, mut servers) = (Health::default(), JoinSet::new());
    if let Some(socket) = options.probe_socket.clone() {
        let health = health.clone();
        servers.spawn(async move { health.serve(&socket).await });
    }
    let lock = tokio::select! {
        lock = lock_run_dir(&options) => lock?,
        () = &mut stop => return Ok(()),
    };
    let state = StateDir::open(&options.state_dir).map_err(named(&options.state_dir))?;
    let mut agent = Agent::new(&options, state)?;
    health.runs(&agent.shared);
    let (socket, shared) = (options.run_dir.join("agent.sock"), Arc::clone(&agent.shared));
    let cni = cni::start(&options, &agent.state, &shared, &mut servers).await;
    servers.spawn(async move { grpc::serve(&socket, shared, cni).await });
    if let Some(address) = options.metrics {
        let shared = Arc::clone(&agent.shared);
        servers.spawn(async move { metrics::serve(address, shared).await });
    }
    let mut outcomes = agent.source(&options)?;
    let mut repair = tokio::time::interval(REPAIR_INTERVAL);
    repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let bared = Arc::clone(&agent.bared);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(outcome) = outcomes.recv() => agent.apply(outcome).await,
            _ = repair.tick() => agent.repair(),
            () = bared.notified() => agent.protect_again().await,
            _ = look.tick(), if agent.shared.tunnels().is_empty() => agent.protect_again().await,
            Some(ended) = servers.join_next() => match ended {
                // The network goes on without its API; the log says so.
                Ok(Err(error)) => tracing::error!(%error, "a server ended"),
                other => tracing::error!(?other, "a server ended"),
            },
        }
    }
    let keep = options.keep_datapath || is_awaited(&options.run_dir);
    if keep {
        tracing::info!("ending; a successor goes on");
    }
    agent.shutdown(!keep).await;
    let _ = fs::remove_file(options.run_dir.join("agent.sock"));
    drop(lock);
    Ok(())
}

struct Agent {
    kernel: Kernel,
    process: Process,
    run_dir: PathBuf,
    state: StateDir,
    sources: Sources,
    gateways: Gateways,
    shared: Arc<Shared>,
    /// Prefixes that are to be unreachable by other ways than tunnels.
    protected: BTreeSet<IpNet>,
    /// Told when a route may be gone that makes one so.
    bared: Arc<Notify>,
    captured: broadcast::Sender<CapturedPacket>,
}

impl Agent {
    fn new(options: &Options, state: StateDir) -> Result<Self, Error> {
        let (now, kernel) = (clock::now(), Kernel::open()?);
        let shared = Arc::new(Shared {
            node: options.node.clone(),
            live: broadcast::channel(1024).0,
            changed: Notify::new(),
            turned: Arc::default(),
            disturbances: Disturbances::default(),
            by_gateways: gateways::Views::default(),
            reach: kubernetes::Reach::default(),
            started: now,
            source: options.source.clone(),
            state: Mutex::new(State {
                tunnels: BTreeMap::new(),
                applied: now,
                configured: false,
                problems: Vec::new(),
                generation: None,
            }),
        });
        let (views, turned) = (shared.by_gateways.clone(), Arc::clone(&shared.turned));
        Ok(Self {
            gateways: Gateways::start(kernel.clone(), views, turned, shared.disturbances.clone()),
            kernel,
            process: Process {
                socket: options.run_dir.join("datapath.sock"),
                binary: options.datapath.clone(),
                log: options.run_dir.join("datapath.log"),
            },
            run_dir: options.run_dir.clone(),
            state,
            sources: Sources::default(),
            shared,
            protected: BTreeSet::new(),
            bared: Arc::default(),
            captured: broadcast::channel(4096).0,
        })
    }

    fn source(&self, options: &Options) -> Result<Outcomes, Error> {
        let Options { node, workers, source, .. } = options;
        let about = About { node: node.clone(), workers: *workers, state: self.state.clone() };
        Ok(match source {
            Source::Manifests(folder) => manifests::start(folder, &about)?,
            Source::Kubernetes { namespace } => kubernetes::start(&about, namespace, &self.shared),
        })
    }

    /// Brings the node to a new configuration; a wrong one changes nothing.
    async fn apply(&mut self, outcome: Outcome) {
        let Outcome { tunnels, by_gateways, protected, mut problems, generation } = outcome;
        for Problem { tunnel, reason, message } in &problems {
            tracing::error!(tunnel, reason, "not applied: {message}");
        }
        let Some(tunnels) = tunnels else {
            self.shared.lock().problems = problems;
            self.shared.changed.notify_waiters();
            return;
        };
        self.gateways.follow(&by_gateways);
        let mut errors = self.protect(&protected).await;
        self.protected = protected;
        let wanted: BTreeSet<&str> = tunnels.iter().map(TunnelConfig::interface).collect();
        let gone: Vec<Handle> =
            self.shared.tunnels().into_iter().filter(|t| !wanted.contains(t.interface())).collect();
        for tunnel in gone {
            tunnel.shutdown(true).await;
            self.shared.lock().tunnels.remove(tunnel.interface());
            errors.extend(self.remove_interface(tunnel.interface()).await.err());
        }
        errors.extend(self.keep_sources(&tunnels, &by_gateways).err());
        let idle = tunnels.is_empty();
        for config in tunnels {
            errors.extend(self.apply_tunnel(config).await.err());
        }
        if idle && self.is_in_cluster() {
            // A node that is in no DMVPN any more is left as it was found.
            let restored = sysctl::Memory::new(self.state.path()).restore();
            errors.extend(restored.err().map(|e| format!("cannot put kernel switches back: {e}")));
        }
        problems.extend(errors.into_iter().map(|e| Problem::of_node(reasons::KERNEL_REFUSED, e)));
        {
            let mut state = self.shared.lock();
            state.applied = clock::now();
            state.configured = true;
            state.problems = problems;
            state.generation = generation;
        }
        self.shared.changed.notify_waiters();
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
            turned: Arc::clone(&self.shared.turned),
            bared: Arc::clone(&self.bared),
            disturbances: self.shared.disturbances.clone(),
            captured: self.captured.clone(),
        };
        let handle = Control::start(config, parts).map_err(|e| e.to_string())?;
        self.shared.lock().tunnels.insert(interface, handle);
        Ok(())
    }

    /// Makes exactly the protected prefixes of all tunnels unreachable by other ways, before anything else.
    async fn protect(&self, wanted: &BTreeSet<IpNet>) -> Vec<String> {
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
        for prefix in present.difference(wanted) {
            errors.extend(self.kernel.unprotect(*prefix).await.err().map(|e| e.to_string()));
        }
        errors
    }

    /// A cluster's network plugin masquerades; elsewhere, what is rewritten is what the administrator wants.
    fn keep_sources(
        &mut self,
        tunnels: &[TunnelConfig],
        by_gateways: &[NodeByGateways],
    ) -> Result<(), String> {
        if !self.is_in_cluster() {
            return Ok(());
        }
        let kept = self.sources.follow(tunnels, by_gateways);
        kept.map_err(|e| {
            format!("nftables table {}: {e}; overlay packets may be masqueraded", sources::TABLE)
        })
    }

    /// Somebody may have removed routes that protect prefixes.
    async fn protect_again(&self) {
        if self.protected.is_empty() {
            return;
        }
        let present = match self.kernel.protected().await {
            Ok(present) => present,
            Err(error) => return tracing::warn!(%error, "cannot look whether prefixes are protected"),
        };
        for prefix in self.protected.iter().filter(|prefix| !present.contains(prefix)) {
            match self.kernel.protect(*prefix).await {
                Ok(()) => {
                    self.shared.disturbances.note(disturbances::PROTECTED_PREFIX);
                    tracing::warn!(%prefix, "somebody removed the route that protects a prefix: put it back");
                }
                Err(error) => tracing::warn!(%error, "a prefix is not protected"),
            }
        }
    }

    fn repair(&mut self) {
        match self.sources.repair() {
            Ok(false) => {}
            Ok(true) => {
                self.shared.disturbances.note(disturbances::TABLE);
                tracing::warn!("somebody removed the nftables table {}: put it back", sources::TABLE);
            }
            Err(error) => tracing::warn!(%error, "nftables table {}", sources::TABLE),
        }
    }

    fn is_in_cluster(&self) -> bool {
        matches!(self.shared.source, Source::Kubernetes { .. })
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
        // Somebody else's is not ours to stop; it has let go of the tunnels already.
        let ours = self.process.binary.is_some();
        if ours
            && deregister
            && let Err(error) = self.process.stop().await
        {
            tracing::warn!(%error, "cannot stop the datapath");
        }
    }
}

/// Held for as long as an agent runs.
struct Lock {
    _running: fs::File,
}

/// Two agents with one run directory would undo each other's work.
async fn lock_run_dir(options: &Options) -> Result<Lock, Error> {
    fs::create_dir_all(&options.run_dir).map_err(named(&options.run_dir))?;
    let running = open_lock(&options.run_dir.join(RUNNING))?;
    if running.try_lock().is_ok() {
        return Ok(Lock { _running: running });
    }
    if !options.succeed {
        return Err(Error::Running(options.run_dir.clone()));
    }
    tracing::info!("another agent runs here: waiting until it ends");
    let waiting = open_lock(&options.run_dir.join(WAITING))?;
    loop {
        // With the first, the agent that runs knows of us; with the second, there is none.
        if waiting.try_lock().is_ok() {
            break;
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
    while running.try_lock().is_err() {
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
    Ok(Lock { _running: running })
}

/// Does a successor wait for us to end?
fn is_awaited(run_dir: &Path) -> bool {
    fs::File::open(run_dir.join(WAITING)).is_ok_and(|lock| lock.try_lock().is_err())
}

fn open_lock(path: &Path) -> Result<fs::File, Error> {
    fs::File::create(path).map_err(named(path))
}

/// The lock of the agent that runs.
pub const RUNNING: &str = "agent.lock";
/// The lock of one that waits to run.
pub const WAITING: &str = "agent.next";

fn named(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::Io(path, error)
}
