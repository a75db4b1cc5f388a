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
mod snapshot;

pub use command::{Command, Handle};
pub use snapshot::Snapshot;

use crate::clock::{self, now};
use crate::config::{TunnelConfig, Underlay};
use crate::datapath::{self, Attachment, Connection, Message, Process};
use crate::dns::{Resolved, Resolver};
use crate::events::Events;
use crate::executor::{Executor, Report, Step};
use crate::kernel::link::Link;
use crate::kernel::monitor::{self, Change};
use crate::kernel::{self, Kernel, sysctl};
use crate::rib::{Rib, Told};
use crate::routing::{FromRouting, Origin, RouteStep, Routing, ToRouting, Wanted};
use crate::state::{RequestIds, StateDir};
use crate::{bgp, guard, hairpin, standing, underlay};
use dataplane::messages::{HairpinRoute, PeerCounters, ReceivedKind, Request, TunnelSettings};
use dmvpn::view::Role;
use dmvpn::{Activity, Event, Input, Tunnel};
use ipnet::IpNet;
use packet::{Instant, PeerId};
use rpc::agent::{CapturedPacket, Severity};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

/// The hairpin follows the routing table and the peers at this distance.
const HAIRPIN_DEBOUNCE: Duration = Duration::from_millis(20);
/// The underlay address is looked at this often; changes of addresses and routes are seen at once.
const UNDERLAY_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait after something failed before it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a peer may take to answer our leave.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// Failures kept for `diagnose`.
const MAX_FAILURES: usize = 16;

/// What a loop works with.
pub struct Parts {
    /// The kernel.
    pub kernel: Kernel,
    /// The datapath's process.
    pub process: Process,
    /// What survives.
    pub state: StateDir,
    /// Where events go.
    pub live: broadcast::Sender<rpc::agent::Event>,
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
    /// What the datapath held when it was connected; used once, to fill it.
    attachment: Option<Attachment>,
    /// What the datapath was last told.
    settings: Option<TunnelSettings>,
    hairpin: Vec<HairpinRoute>,
    capturing: bool,

    link: Option<Link>,
    rib: Rib,
    rib_known: bool,
    engine: Option<Tunnel>,
    /// Routes that changed before there was an engine are told when there is.
    wanted: Wanted,
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
    conflicts: BTreeMap<String, IpAddr>,
    unresolved: BTreeMap<String, String>,
    failures: VecDeque<String>,
    up: bool,
    state_since: Instant,
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
    repair: Instant,
    snapshot: Instant,
}

impl Due {
    fn next(&self) -> Instant {
        self.hairpin.min(self.underlay).min(self.repair).min(self.snapshot)
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
            attachment: None,
            settings: None,
            hairpin: Vec::new(),
            capturing: false,
            link: None,
            rib: Rib::default(),
            rib_known: false,
            engine: None,
            wanted: Wanted::default(),
            routing: None,
            neighbours: (start, Vec::new()),
            resolver: None,
            resolved,
            checkpoint: checkpoint::Schedule::default(),
            due: Due {
                hairpin: Instant::NEVER,
                underlay: start,
                repair: Instant::NEVER,
                snapshot: Instant::NEVER,
            },
            totals: BTreeMap::new(),
            counters: BTreeMap::new(),
            waiting: Vec::new(),
            conflicts: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            failures: VecDeque::new(),
            up: false,
            state_since: start,
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
    }

    // ---- the datapath ----

    fn on_connected(&mut self, connection: Result<Connection, datapath::Error>) {
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                self.fail(format!("no datapath: {error}"));
                self.datapath = connect(&self.parts.process, self.config.interface(), RETRY);
                return;
            }
        };
        if let Err(error) = self.parts.state.remember_interface(self.config.interface()) {
            self.fail(format!("cannot write the state directory: {error}"));
        }
        let known = connection.attachment.settings.clone();
        self.datapath = Datapath::Connected(connection.messages);
        self.attachment = Some(connection.attachment);
        self.settings = known;
        self.hairpin.clear();
        self.capturing = false;
        self.executor.push(Step::Attach(Some(connection.sender)));
        self.configure();
    }

    fn on_datapath_lost(&mut self, why: &str) {
        if !self.datapath.is_connected() {
            return;
        }
        self.events.agent(
            Severity::Warning,
            "DatapathLost",
            format!("the datapath is gone: {why}; starting another"),
        );
        self.settings = None;
        self.executor.push(Step::Attach(None));
        self.datapath = connect(&self.parts.process, self.config.interface(), Duration::ZERO);
    }

    /// Tells the datapath and the kernel how the tunnel is configured, where that changed.
    fn configure(&mut self) {
        let settings = self.config.settings(self.underlay);
        // Even when it knows: the interface may have been deleted meanwhile, and this makes it again.
        self.executor.push(Step::Datapath(Request::Configure(settings.clone())));
        self.settings = Some(settings);
        self.executor.push(Step::Prepare(self.config.kernel_interface(self.underlay)));
    }

    fn on_message(&mut self, message: Message) {
        let input = match message {
            Message::Received { path, kind: ReceivedKind::Nhrp, payload } => Input::Nhrp { path, payload },
            Message::Received { path, kind: ReceivedKind::Echo, payload } => {
                Input::Echo { path, packet: payload }
            }
            Message::NextHopWanted(address) => Input::NextHopWanted { address },
            Message::Hairpin { from, to, head } => Input::Hairpin { from, to, head },
            Message::Activity(list) => Input::Activity(
                list.into_iter().map(|(peer, sent, received)| Activity { peer, sent, received }).collect(),
            ),
            Message::Counters { totals, peers } => {
                self.totals = totals;
                self.counters = peers.into_iter().collect();
                return self.answer_snapshots();
            }
            Message::PathMtu { path, mtu } => {
                return tracing::info!(interface = self.config.interface(), %path, mtu, "path MTU discovered");
            }
            Message::Captured { time, peer, outbound, packet } => {
                return self.on_captured(time, peer, outbound, packet);
            }
            Message::Refused { number, error } => {
                return self.fail(format!("the datapath refused request {number}: {error}"));
            }
        };
        self.input(input);
    }

    fn on_captured(&mut self, time_ns: u64, peer: Option<PeerId>, outbound: bool, packet: Vec<u8>) {
        let packet = CapturedPacket {
            time_ns,
            interface: self.config.interface().to_owned(),
            peer: peer.map(|id| self.name_of(id)).unwrap_or_default(),
            outbound,
            packet,
        };
        if self.parts.captured.send(packet).is_err() {
            self.follow_captures();
        }
    }

    fn follow_captures(&mut self) {
        let wanted = self.parts.captured.receiver_count() > 0;
        if wanted != self.capturing {
            self.capturing = wanted;
            self.executor.push(Step::Datapath(Request::Capture(wanted)));
        }
    }

    fn name_of(&self, peer: PeerId) -> String {
        let entry = self.engine.as_ref().and_then(|engine| engine.standing().peers.get(&peer));
        entry.and_then(|entry| entry.addresses.first()).map(ToString::to_string).unwrap_or_default()
    }

    // ---- the engine ----

    fn input(&mut self, input: Input) {
        if let Some(engine) = &mut self.engine {
            engine.handle_input(now(), input);
            self.checkpoint.touch();
        }
    }

    /// Makes the engine once everything it needs is there, and fills a datapath that was just connected.
    fn maybe_fill(&mut self) {
        if self.link.is_none() || !self.rib_known {
            return;
        }
        let Some(attachment) = self.attachment.take() else { return };
        if self.engine.is_none() {
            let engine = self.make_engine(attachment.checkpoint.as_deref());
            self.engine = Some(engine);
            for (prefix, target) in self.rib.all() {
                self.input(Input::Route { prefix, target });
            }
            self.resolver = Some(Resolver::start(self.config.names.clone(), &self.resolved));
            self.settle_static_routes();
            self.restart_bgp();
        }
        let Some(engine) = &self.engine else { return };
        for step in standing::refill(engine.standing(), &attachment.peers) {
            self.executor.push(step);
        }
        self.follow_captures();
        self.due.hairpin = now();
    }

    fn make_engine(&mut self, checkpoint: Option<&[u8]>) -> Tunnel {
        let config = self.config.engine(self.underlay);
        if let Some(checkpoint) = checkpoint {
            match Tunnel::restore(config.clone(), checkpoint, rand::random(), now()) {
                Ok(engine) => {
                    self.events.agent(
                        Severity::Normal,
                        "Resumed",
                        "took over where the agent before left off",
                    );
                    return engine;
                }
                Err(error) => self.fail(format!("starting anew: {error}")),
            }
        }
        let first = self.request_ids.first();
        self.request_ids.used(first);
        Tunnel::new(config, rand::random(), now(), first)
    }

    /// Takes everything out of the engine and has it done.
    fn drain(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let mut steps = Vec::new();
        let mut lasting = false;
        while let Some(action) = engine.poll_action() {
            let step = standing::step(action);
            lasting |= !matches!(step, Step::Datapath(Request::Transmit { .. }));
            steps.push(step);
        }
        self.request_ids.used(engine.request_id());
        let mut events = Vec::new();
        while let Some(event) = engine.poll_event() {
            events.push(event);
        }
        // The successor must know what was decided before anybody acts on it.
        self.leave_checkpoint(lasting);
        for step in steps {
            self.executor.push(step);
        }
        for event in events {
            self.on_event(event);
        }
        if lasting {
            self.due.hairpin = self.due.hairpin.min(now() + HAIRPIN_DEBOUNCE);
            self.settle_routes();
        }
        self.judge_state();
    }

    fn leave_checkpoint(&mut self, urgent: bool) {
        let now = now();
        let Some(engine) = &self.engine else { return };
        if !self.datapath.is_connected() || self.attachment.is_some() || !self.checkpoint.is_due(now, urgent)
        {
            return;
        }
        let checkpoint = engine.checkpoint(now);
        self.checkpoint.written(now, checkpoint.len());
        self.executor.push(Step::Datapath(Request::StoreCheckpoint(checkpoint)));
    }

    fn on_event(&mut self, event: Event) {
        self.events.engine(&event);
        let identity = |address| self.engine.as_ref().and_then(|e| e.identity_of(address)).map(str::to_owned);
        let tell = match event {
            Event::HubUp { hub, address, .. } => {
                self.conflicts.remove(&hub);
                Some(ToRouting::HubUp { address, identity: identity(address) })
            }
            Event::HubDown { hub, .. } => {
                let hubs = self.engine.as_ref().map(Tunnel::hubs).unwrap_or_default();
                let address = hubs.iter().find(|h| h.name == hub).and_then(|h| h.addresses.first().copied());
                address.map(|address| ToRouting::HubDown { address })
            }
            Event::AddressConflict { address, hub } => {
                self.conflicts.insert(hub, address);
                None
            }
            Event::PeerRegistered { address, identity, .. } => Some(ToRouting::PeerUp { address, identity }),
            Event::PeerUnregistered { address, .. } => Some(ToRouting::PeerDown { address }),
            _ => None,
        };
        if let (Some(tell), Some(routing)) = (tell, &self.routing) {
            let _ = routing.commands.send(tell);
        }
    }

    fn judge_state(&mut self) {
        let Some(engine) = &self.engine else { return };
        let hubs = engine.hubs();
        let served = hubs.is_empty() || hubs.iter().any(|h| h.registered && h.reachable);
        let up = served && self.datapath.is_connected() && self.link.is_some();
        if up != self.up {
            self.up = up;
            self.state_since = now();
        }
    }

    // ---- the kernel ----

    fn on_kernel(&mut self, change: Change) {
        if matches!(change, Change::Snapshot(_)) {
            self.rib_known = true;
            // A link or an address changed.
            self.due.underlay = now();
        }
        let told = self.rib.apply(change);
        self.tell_routes(told);
        self.maybe_fill();
    }

    fn tell_routes(&mut self, told: Vec<Told>) {
        if told.is_empty() {
            return;
        }
        for (prefix, target) in told {
            self.input(Input::Route { prefix, target });
        }
        self.due.hairpin = self.due.hairpin.min(now() + HAIRPIN_DEBOUNCE);
        self.settle_routes();
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Prepared(link) => self.on_prepared(link),
            Report::KernelFailed(error) => {
                self.fail(error.to_string());
                self.due.repair = self.due.repair.min(now() + RETRY);
            }
            Report::DatapathFailed(error) => self.on_datapath_lost(&error.to_string()),
        }
    }

    fn on_prepared(&mut self, link: Link) {
        let switches = sysctl::needed(&link.name, self.config.carries_v6());
        for (switch, error) in sysctl::apply(&switches, &sysctl::Memory::new(self.parts.state.path())) {
            tracing::warn!(key = switch.key, wanted = switch.wanted, %error, "cannot set a kernel switch: {}", switch.why);
        }
        if self.link.as_ref().is_none_or(|old| old.index != link.index) {
            // Another interface holds none of our routes.
            self.wanted.forget_installed();
            let told = self.rib.set_interface(link.index);
            self.link = Some(link);
            self.tell_routes(told);
            // Sockets are bound to the interface.
            self.restart_bgp();
        } else {
            self.link = Some(link);
        }
        self.maybe_fill();
        self.settle_routes();
    }

    /// Puts right what failed, or what somebody disturbed.
    fn repair(&mut self) {
        if !self.datapath.is_connected() {
            return;
        }
        self.configure();
        if let Some(engine) = &self.engine {
            self.executor.push(standing::reconcile(engine.standing()));
        }
        self.wanted.forget_installed();
        self.settle_routes();
    }

    fn update_hairpin(&mut self) {
        let Some(engine) = &self.engine else { return };
        if !self.config.is_hub() {
            return;
        }
        let snapshot = hairpin::snapshot(self.rib.in_force(), &standing::direct(engine.standing()));
        if snapshot != self.hairpin {
            self.hairpin.clone_from(&snapshot);
            self.executor.push(Step::Datapath(Request::SetHairpin(snapshot)));
        }
    }

    // ---- the underlay ----

    async fn check_underlay(&mut self) {
        let found = self.find_underlay().await;
        if found == self.underlay || found.is_none() {
            return;
        }
        let before = self.underlay.map(|u| u.address);
        self.underlay = found;
        if self.settings.as_ref().is_some_and(|s| *s != self.config.settings(self.underlay)) {
            self.configure();
        }
        let address = found.map(|u| u.address).filter(|a| Some(*a) != before);
        if let (Some(address), None) = (address, self.config.advertise) {
            self.events.agent(
                Severity::Normal,
                "UnderlayAddress",
                format!("our underlay address is {address}"),
            );
            self.input(Input::UnderlayAddress(address));
        }
    }

    async fn find_underlay(&self) -> Option<Underlay> {
        let links = self.parts.kernel.links().await.ok()?;
        let addresses = self.parts.kernel.addresses().await.ok()?;
        let of_interface = |name: &str| {
            let link = links.iter().find(|l| l.name == name && !l.is_tunnel());
            let on_link = |(index, _): &&(u32, IpNet)| link.is_some_and(|l| l.index == *index);
            addresses.iter().filter(on_link).map(|(_, a)| a.addr()).collect()
        };
        let address = match &self.config.source {
            underlay::Source::RouteTo(literals) => {
                let hubs = self.engine.as_ref().map(Tunnel::hubs).unwrap_or_default();
                let known = hubs.iter().filter_map(|h| h.path.map(|p| p.remote));
                underlay::Source::RouteTo(literals.iter().copied().chain(known).collect())
                    .resolve(of_interface)?
            }
            source => source.resolve(of_interface)?,
        };
        let holder = addresses.iter().find(|(_, a)| a.addr() == address).map(|(index, _)| *index);
        let mtu = links.iter().find(|l| Some(l.index) == holder);
        let mtu = mtu.map_or(1500, |l| u16::try_from(l.mtu).unwrap_or(u16::MAX));
        Some(Underlay { address, mtu })
    }

    fn on_resolved(&mut self, resolved: Resolved) {
        match resolved.paths {
            Ok(paths) => {
                self.unresolved.remove(&resolved.name);
                self.input(Input::HubPaths { hub: resolved.id, paths });
                self.due.underlay = now();
            }
            Err(reason) => {
                let message = format!("the name of hub {} does not resolve: {reason}", resolved.name);
                self.events.agent(Severity::Warning, "NameNotResolved", message);
                self.unresolved.insert(resolved.name, reason);
            }
        }
    }

    // ---- routes ----

    /// Starts BGP, or starts it anew, or ends it, as the configuration says. Routes that the kernel holds of the one
    /// before stay until the new one has told what it knows.
    fn restart_bgp(&mut self) {
        let (Some(engine), Some(link)) = (&self.engine, &self.link) else { return };
        let hubs = engine.hubs();
        let known = hubs.iter().flat_map(|hub| hub.addresses.first().copied()).collect();
        let setup = bgp::Setup::new(&self.config, known);
        if let Some(old) = self.routing.take() {
            let _ = old.commands.send(ToRouting::Shutdown { keep_routes: setup.is_some() });
        }
        self.wanted.abandon(Origin::Bgp);
        self.neighbours.1.clear();
        let Some(setup) = setup else { return self.sweep(Origin::Bgp) };
        let routing = bgp::start(setup, self.parts.kernel.clone(), link.index);
        let identity = |address| engine.identity_of(address).map(str::to_owned);
        for peer in engine.peers().into_iter().filter(|p| p.role == Role::Registered) {
            for address in peer.addresses {
                let _ = routing.commands.send(ToRouting::PeerUp { address, identity: identity(address) });
            }
        }
        for address in hubs.into_iter().filter(|h| h.registered).filter_map(|h| h.addresses.first().copied())
        {
            let _ = routing.commands.send(ToRouting::HubUp { address, identity: identity(address) });
        }
        self.routing = Some(routing);
    }

    /// Tells BGP what changed, or starts it anew if it must know more.
    fn reconfigure_bgp(&mut self, old: &TunnelConfig) {
        let (before, after) = (bgp::Setup::new(old, Vec::new()), bgp::Setup::new(&self.config, Vec::new()));
        match (before, after, &self.routing) {
            (Some(before), Some(after), Some(routing)) if before.differs_in_details_only(&after) => {
                let _ = routing.commands.send(ToRouting::Claims(after.claims));
                let _ = routing.commands.send(ToRouting::Announce(after.config.announce));
            }
            (None, None, None) => {}
            _ => self.restart_bgp(),
        }
    }

    fn on_routing(&mut self, event: Option<FromRouting>) {
        match event {
            None => self.routing = None,
            Some(FromRouting::Install { prefix, via }) => {
                self.wanted.install(Origin::Bgp, prefix, via);
                self.settle_routes();
            }
            Some(FromRouting::Withdraw { prefix }) => {
                let removed = self.wanted.withdraw(Origin::Bgp, prefix);
                self.route_steps(removed);
            }
            Some(FromRouting::Converged) => self.sweep(Origin::Bgp),
            Some(FromRouting::Neighbours(neighbours)) => self.neighbours = (now(), neighbours),
            Some(FromRouting::Told { severity, reason, message }) => {
                self.events.agent(severity, reason, message)
            }
        }
    }

    fn settle_static_routes(&mut self) {
        let removed = self.wanted.replace_all(Origin::Static, &self.config.static_routes);
        self.route_steps(removed);
        self.settle_routes();
        self.sweep(Origin::Static);
    }

    /// Installs what is wanted and harmless, removes what became harmful.
    fn settle_routes(&mut self) {
        let (Some(engine), Some(_)) = (&self.engine, &self.link) else { return };
        let underlay = standing::underlay(engine.standing());
        let rib = &self.rib;
        let steps = self.wanted.settle(|prefix| {
            guard::captured(prefix, underlay.iter().copied(), rib)
                .map(|address| format!("it covers {address}, which the tunnel itself needs"))
        });
        self.route_steps(steps);
    }

    fn route_steps(&self, steps: impl IntoIterator<Item = RouteStep>) {
        for step in steps {
            self.executor.push(match step {
                RouteStep::Add(route) => Step::AddRoute(route),
                RouteStep::Remove(route) => Step::RemoveRoute(route),
            });
        }
    }

    fn sweep(&self, origin: Origin) {
        self.executor.push(Step::Sweep { protocol: origin.protocol(), keep: self.wanted.installed(origin) });
    }

    // ---- requests ----

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Reconfigure(config) => self.reconfigure(*config).await,
            Command::Snapshot(reply) => {
                self.waiting.push(reply);
                if self.datapath.is_connected() {
                    self.executor.push(Step::Datapath(Request::GetCounters));
                    self.due.snapshot = self.due.snapshot.min(now() + Duration::from_millis(300));
                } else {
                    self.answer_snapshots();
                }
            }
            Command::Explain(destination, reply) => {
                let _ = reply.send(self.engine.as_ref().map(|e| e.explain_path(now(), destination)));
            }
            Command::Clear(what, reply) => {
                let before = self.engine.as_ref().map_or(0, |e| e.shortcuts().len());
                if let Some(engine) = &mut self.engine {
                    engine.clear(now(), what);
                }
                self.checkpoint.touch();
                self.drain();
                let after = self.engine.as_ref().map_or(0, |e| e.shortcuts().len());
                let _ = reply.send(before.saturating_sub(after));
            }
            Command::History(count, reply) => drop(reply.send(self.events.last(count))),
            Command::FollowCaptures => self.follow_captures(),
            Command::Shutdown { done, .. } => drop(done.send(())),
        }
    }

    async fn reconfigure(&mut self, config: TunnelConfig) {
        if config == self.config {
            return;
        }
        let old = std::mem::replace(&mut self.config, config);
        self.underlay = self.find_underlay().await.or(self.underlay);
        if self.settings.as_ref().is_some_and(|s| *s != self.config.settings(self.underlay))
            || old.kernel_interface(self.underlay) != self.config.kernel_interface(self.underlay)
        {
            self.configure();
        }
        let engine_config = self.config.engine(self.underlay);
        if let Some(engine) = &mut self.engine
            && old.engine(self.underlay) != engine_config
        {
            engine.reconfigure(now(), engine_config);
            self.checkpoint.touch();
        }
        if self.engine.is_some() {
            if old.names != self.config.names {
                self.unresolved.clear();
                self.resolver = Some(Resolver::start(self.config.names.clone(), &self.resolved));
            }
            self.settle_static_routes();
        }
        self.reconfigure_bgp(&old);
        self.due.hairpin = now();
        self.events.agent(Severity::Normal, "Reconfigured", "a new configuration is in force");
    }

    fn answer_snapshots(&mut self) {
        self.due.snapshot = Instant::NEVER;
        let Some(last) = self.waiting.pop() else { return };
        let snapshot = self.snapshot();
        for reply in self.waiting.drain(..) {
            let _ = reply.send(snapshot.clone());
        }
        let _ = last.send(snapshot);
    }

    fn snapshot(&self) -> Snapshot {
        let routes = [Origin::Static, Origin::Bgp].into_iter().flat_map(|origin| {
            self.wanted
                .list(origin)
                .map(move |(prefix, via, why)| (origin, prefix, via, why.map(str::to_owned)))
        });
        Snapshot {
            now: now(),
            config: self.config.clone(),
            underlay: self.underlay,
            datapath: self.datapath.is_connected(),
            link: self.link.clone(),
            peers: self.engine.as_ref().map(Tunnel::peers).unwrap_or_default(),
            hubs: self.engine.as_ref().map(Tunnel::hubs).unwrap_or_default(),
            shortcuts: self.engine.as_ref().map(Tunnel::shortcuts).unwrap_or_default(),
            cache: self.engine.as_ref().map(Tunnel::cache).unwrap_or_default(),
            totals: self.totals.clone(),
            counters: self.counters.clone(),
            conflicts: self.conflicts.clone(),
            unresolved: self.unresolved.clone(),
            routes: routes.collect(),
            bgp: self.bgp_neighbours(),
            recursive: self.recursive(),
            failures: self.failures.iter().cloned().collect(),
            state_since: self.state_since,
            up: self.up,
        }
    }

    /// BGP's neighbours, grown older since they were told.
    fn bgp_neighbours(&self) -> Vec<rpc::agent::BgpNeighbour> {
        let (told, neighbours) = &self.neighbours;
        let age = clock::millis_since(now(), *told);
        let aged = |n: &rpc::agent::BgpNeighbour| rpc::agent::BgpNeighbour {
            since_ms: n.since_ms + age,
            ..n.clone()
        };
        neighbours.iter().map(aged).collect()
    }

    /// Routes in force that would carry the tunnel's own packets: other programs install routes too.
    fn recursive(&self) -> std::collections::BTreeSet<(IpNet, IpAddr)> {
        let Some(engine) = &self.engine else { return Default::default() };
        let underlay = standing::underlay(engine.standing());
        underlay.into_iter().filter_map(|address| Some((self.rib.tunnel_match(address)?, address))).collect()
    }

    fn fail(&mut self, message: String) {
        tracing::warn!(interface = self.config.interface(), "{message}");
        if self.failures.back() == Some(&message) {
            return;
        }
        if self.failures.len() == MAX_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(message);
    }

    // ---- the end ----

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
