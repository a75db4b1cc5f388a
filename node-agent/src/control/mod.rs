//! THE loop of one tunnel, and the only place that reads a clock.
//!
//! It waits for whatever comes first: a message of the datapath, the engine's timer, a change of the kernel's routes,
//! a name that resolved, a routing decision, a request. It hands that to the engine, drains the engine, and puts what
//! the engine wants done into the executor's queue, in order. It never waits for the outcome.
//!
//! A start goes through three things that come in any order: the connection to the datapath, the interface set up,
//! the kernel's routes read. Then there is an engine: a new one, or the one that a process before this had left in
//! the datapath's memory. A datapath that was lost is replaced, and filled from what the engine knows.

mod checkpoint;
mod command;
mod engine;
mod handshakes;
mod link;
mod requests;
mod routes;
mod security;
mod snapshot;
mod table;
mod whereabouts;

pub use command::{Command, Handle};
pub use handshakes::{FailedHandshake, Handshakes};
pub use snapshot::Snapshot;
#[cfg(test)]
pub(crate) use snapshot::for_tests as snapshot_for_tests;

use crate::clock::now;
use crate::config::{TunnelConfig, Underlay};
use crate::datapath::{self, Attachment, Connection, Message, Process};
use crate::disturbances::Disturbances;
use crate::dns::{Resolved, Resolver};
use crate::events::Events;
use crate::executor::{Executor, Interface, Report, Step};
use crate::kernel::link::Link;
use crate::kernel::monitor::{self, Change};
use crate::kernel::{self, Kernel};
use crate::keylog::KeyLog;
use crate::rib::Rib;
use crate::routing::{FromRouting, Origin, Routing, ToRouting, Wanted};
use crate::state::{RequestIds, StateDir};
use dataplane::messages::{HairpinRoute, PeerCounters, Request, SaCounters, TunnelSettings};
use dmvpn::Tunnel;
use packet::{Instant, PeerId};
use rpc::agent::CapturedPacket;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

/// The hairpin, and the guard of routes, follow the routing table and the peers at this distance, at least.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The underlay address is looked at this often; changes of addresses and routes are seen at once.
const UNDERLAY_INTERVAL: Duration = Duration::from_secs(30);
/// The time of day is told this often: a certificate that runs out must not be believed much longer.
const WALL_CLOCK_INTERVAL: Duration = Duration::from_secs(3);
/// How long to wait after something failed before it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a peer may take to answer our leave.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// Failures kept for `diagnose`.
const MAX_FAILURES: usize = 16;
/// And for how long.
const FAILURE_MEMORY: Duration = Duration::from_secs(300);

/// What a loop works with.
pub struct Parts {
    /// The kernel.
    pub kernel: Kernel,
    /// The datapath's process.
    pub process: Process,
    /// What survives.
    pub state: StateDir,
    /// Where exported keys go, in a folder below.
    pub run_dir: PathBuf,
    /// Where events go.
    pub live: broadcast::Sender<rpc::agent::Event>,
    /// Told when the tunnel, or one of its hubs, came up or went down: not every such turn is an event.
    pub turned: Arc<Notify>,
    /// Told when a route may be gone that protects a prefix: those are the agent's.
    pub bared: Arc<Notify>,
    /// Where it is counted what others removed.
    pub disturbances: Disturbances,
    /// Where captured packets go.
    pub captured: broadcast::Sender<CapturedPacket>,
}

/// The loop of one tunnel.
pub struct Control {
    parts: Parts,
    config: TunnelConfig,
    underlay: Option<Underlay>,
    executor: Executor,
    events: Events,
    request_ids: RequestIds,

    datapath: Datapath,
    /// Why the datapath was lost, as long as it is not known whether another has what it had.
    lost: Option<String>,
    /// What the datapath held when it was connected; used once, to fill it.
    attachment: Option<Attachment>,
    /// What the datapath was last told.
    settings: Option<TunnelSettings>,
    /// What the kernel was last told of the interface.
    interface: Option<Interface>,
    hairpin: Vec<HairpinRoute>,
    hairpin_pause: Duration,
    capturing: bool,

    link: Option<Link>,
    rib: Rib,
    rib_known: bool,
    engine: Option<Tunnel>,
    /// Routes that changed before there was an engine are told when there is.
    wanted: Wanted,
    /// Underlay addresses that no route by the tunnel may cover.
    guarded: BTreeSet<IpAddr>,
    /// The last inspection missed a route of ours.
    missed: bool,
    routing: Option<Routing>,
    /// BGP's neighbours, and when they were told.
    neighbours: (Instant, Vec<rpc::agent::BgpNeighbour>),
    resolver: Option<Resolver>,
    resolved: mpsc::Sender<Resolved>,

    checkpoint: checkpoint::Schedule,
    due: Due,
    totals: BTreeMap<String, u64>,
    counters: BTreeMap<PeerId, PeerCounters>,
    waiting: Vec<oneshot::Sender<Snapshot>>,
    /// What each SA has done: those we send by, and those we receive by.
    sas: BTreeMap<(bool, u32), SaCounters>,
    /// SAs that the engine knew when the datapath was asked for its own after it was connected.
    expected_sas: Option<BTreeSet<(bool, u32)>>,
    /// Handshakes that failed lately, by path and by who began.
    handshakes: Handshakes,
    keylog: Option<KeyLog>,
    /// How far the time of day was ahead of the machine's clock when it was told.
    clock_offset: Duration,
    conflicts: BTreeMap<String, IpAddr>,
    unresolved: BTreeMap<String, String>,
    failures: VecDeque<(Instant, String)>,
    up: bool,
    state_since: Instant,
    /// Of each hub: does it hold our registration, does it answer, does it carry?
    hubs: Vec<[bool; 3]>,
}

/// The connection to the datapath.
enum Datapath {
    /// Being made.
    Connecting(JoinHandle<Result<Connection, datapath::Error>>),
    /// There.
    Connected(mpsc::Receiver<Message>),
}

/// Moments at which the loop itself has something to do; [`Instant::NEVER`]: nothing.
#[derive(Clone, Copy, Debug)]
struct Due {
    hairpin: Instant,
    underlay: Instant,
    routes: Instant,
    inspection: Instant,
    repair: Instant,
    snapshot: Instant,
    wall_clock: Instant,
}

impl Due {
    fn next(&self) -> Instant {
        let moments = [
            self.hairpin,
            self.underlay,
            self.routes,
            self.inspection,
            self.repair,
            self.snapshot,
            self.wall_clock,
        ];
        moments.into_iter().fold(Instant::NEVER, Instant::min)
    }
}

/// What woke the loop.
enum Wake {
    Message(Option<Message>),
    Connected(Result<Connection, datapath::Error>),
    Kernel(Option<Change>),
    Resolved(Resolved),
    Routing(Option<FromRouting>),
    Report(Report),
    Command(Option<Command>),
    Timer,
}

impl Control {
    /// Starts the loop. The handle commands it; it ends by [`Command::Shutdown`], or when every handle is gone.
    pub fn start(config: TunnelConfig, parts: Parts) -> Result<Handle, kernel::Error> {
        let changes = monitor::watch(parts.kernel.clone())?;
        let (executor, reports) = Executor::start(parts.kernel.clone());
        let (resolved, resolutions) = mpsc::channel(64);
        let (commands, receiver) = mpsc::channel(64);
        let request_ids = parts.state.request_ids(config.interface());
        let events = Events::new(config.interface(), parts.live.clone());
        let datapath = connect(&parts.process, config.interface(), Duration::ZERO);
        let handle = Handle::new(config.interface(), commands, parts.captured.clone());
        let start = now();
        let control = Self {
            underlay: None,
            executor,
            events,
            request_ids,
            datapath,
            lost: None,
            attachment: None,
            settings: None,
            interface: None,
            hairpin: Vec::new(),
            hairpin_pause: DEBOUNCE,
            capturing: false,
            link: None,
            rib: Rib::default(),
            rib_known: false,
            engine: None,
            wanted: Wanted::default(),
            guarded: BTreeSet::new(),
            missed: false,
            routing: None,
            neighbours: (start, Vec::new()),
            resolver: None,
            resolved,
            checkpoint: checkpoint::Schedule::default(),
            due: Due {
                hairpin: Instant::NEVER,
                underlay: start,
                routes: Instant::NEVER,
                inspection: Instant::NEVER,
                repair: Instant::NEVER,
                snapshot: Instant::NEVER,
                wall_clock: Instant::NEVER,
            },
            totals: BTreeMap::new(),
            counters: BTreeMap::new(),
            waiting: Vec::new(),
            sas: BTreeMap::new(),
            expected_sas: None,
            handshakes: Handshakes::default(),
            keylog: None,
            clock_offset: Duration::ZERO,
            conflicts: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            failures: VecDeque::new(),
            up: false,
            state_since: start,
            hubs: Vec::new(),
            config,
            parts,
        };
        tokio::spawn(control.run(changes, reports, resolutions, receiver));
        Ok(handle)
    }

    async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut reports: mpsc::UnboundedReceiver<Report>,
        mut resolutions: mpsc::Receiver<Resolved>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        self.underlay = self.find_underlay().await;
        self.judge_security();
        loop {
            let timer = sleep_until(self.next_timer());
            let wake = tokio::select! {
                biased;
                command = commands.recv() => Wake::Command(command),
                report = reports.recv() => match report {
                    Some(report) => Wake::Report(report),
                    None => return,
                },
                wake = self.datapath.next() => wake,
                change = changes.recv() => Wake::Kernel(change),
                resolved = resolutions.recv() => match resolved {
                    Some(resolved) => Wake::Resolved(resolved),
                    None => return,
                },
                event = next_routing(&mut self.routing) => Wake::Routing(event),
                () = timer => Wake::Timer,
            };
            match wake {
                Wake::Command(Some(Command::Shutdown { deregister, done })) => {
                    self.shutdown(deregister).await;
                    let _ = done.send(());
                    return;
                }
                Wake::Command(Some(command)) => self.on_command(command).await,
                Wake::Command(None) => return,
                Wake::Message(Some(message)) => self.on_message(message),
                Wake::Message(None) => self.on_datapath_lost("it closed the connection"),
                Wake::Connected(connection) => self.on_connected(connection),
                Wake::Kernel(Some(change)) => self.on_kernel(change),
                Wake::Kernel(None) => return,
                Wake::Resolved(resolved) => self.on_resolved(resolved),
                Wake::Routing(event) => self.on_routing(event),
                Wake::Report(report) => self.on_report(report),
                Wake::Timer => {}
            }
            self.on_time().await;
            self.drain();
        }
    }

    fn next_timer(&self) -> Instant {
        let engine = self.engine.as_ref().and_then(Tunnel::poll_timeout).unwrap_or(Instant::NEVER);
        let checkpoint =
            self.checkpoint.next().filter(|_| self.datapath.is_connected()).unwrap_or(Instant::NEVER);
        engine.min(checkpoint).min(self.due.next())
    }

    /// Does what is due. Cheap when nothing is.
    async fn on_time(&mut self) {
        let now = now();
        if let Some(engine) = &mut self.engine
            && engine.poll_timeout().is_some_and(|at| at <= now)
        {
            engine.handle_timeout(now);
            self.checkpoint.touch();
        }
        if self.due.underlay <= now {
            self.due.underlay = now + UNDERLAY_INTERVAL;
            self.check_underlay().await;
        }
        if self.due.routes <= now {
            self.due.routes = Instant::NEVER;
            self.judge_routes();
        }
        if self.due.inspection <= now {
            self.due.inspection = Instant::NEVER;
            self.inspect();
        }
        if self.due.repair <= now {
            self.due.repair = Instant::NEVER;
            self.repair();
        }
        if self.due.hairpin <= now {
            self.due.hairpin = Instant::NEVER;
            self.update_hairpin();
        }
        if self.due.snapshot <= now {
            self.answer_snapshots();
        }
        self.tell_time();
    }

    /// Leaves in good order. With `deregister`, hubs and peers are told, and the datapath lets go of the tunnel; the
    /// interface stays. Without, everything stays as it is, for a successor.
    async fn shutdown(&mut self, deregister: bool) {
        if let Some(mut routing) = self.routing.take() {
            let _ = routing.commands.send(ToRouting::Shutdown { keep_routes: !deregister });
            // Its last words leave by the tunnel.
            let ended = async { while routing.events.recv().await.is_some() {} };
            let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, ended).await;
        }
        if !deregister {
            self.checkpoint.touch();
            self.leave_checkpoint(true);
            return self.executor.settled().await;
        }
        if let Some(engine) = &mut self.engine {
            engine.shutdown(now());
        }
        self.drain();
        let deadline = now() + SHUTDOWN_TIMEOUT;
        while self.engine.as_ref().is_some_and(|e| !e.is_shut_down()) && now() < deadline {
            let next = self.engine.as_ref().and_then(Tunnel::poll_timeout).unwrap_or(deadline).min(deadline);
            tokio::select! {
                wake = self.datapath.next() => match wake {
                    Wake::Message(Some(message)) => self.on_message(message),
                    _ => break,
                },
                () = sleep_until(next) => {}
            }
            if let Some(engine) = &mut self.engine {
                engine.handle_timeout(now());
            }
            self.drain();
        }
        for origin in [Origin::Static, Origin::Bgp] {
            self.executor.push(Step::Sweep { protocol: origin.protocol(), keep: Default::default() });
        }
        self.executor.push(Step::Reconcile { neighbours: BTreeMap::new(), shortcuts: Vec::new() });
        self.executor.push(Step::Datapath(Request::Remove { delete_interface: false }));
        self.executor.settled().await;
    }
}

impl Datapath {
    const fn is_connected(&self) -> bool {
        matches!(self, Self::Connected(_))
    }

    async fn next(&mut self) -> Wake {
        match self {
            Self::Connected(messages) => Wake::Message(messages.recv().await),
            Self::Connecting(task) => match task.await {
                Ok(connection) => Wake::Connected(connection),
                // Only if it panicked; then it is as if nobody had answered.
                Err(_) => Wake::Connected(Err(datapath::Error::Closed)),
            },
        }
    }
}

fn connect(process: &Process, tunnel: &str, after: Duration) -> Datapath {
    let (process, tunnel) = (process.clone(), tunnel.to_owned());
    Datapath::Connecting(tokio::spawn(async move {
        tokio::time::sleep(after).await;
        Connection::open(&process, &tunnel).await
    }))
}

async fn next_routing(routing: &mut Option<Routing>) -> Option<FromRouting> {
    match routing {
        Some(routing) => routing.events.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(moment: Instant) {
    if moment == Instant::NEVER {
        return std::future::pending().await;
    }
    tokio::time::sleep(moment - now()).await;
}
