//! The loop around a speaker.

use super::claims::{Claims, Who};
use super::connection::{Connection, Happened};
use super::{Setup, events, socket};
use crate::clock;
use crate::kernel::Kernel;
use crate::kernel::route::BGP;
use crate::routing::{FromRouting, Routing, ToRouting};
use bgp::{Command, Config, ConnectionId, Event, Speaker, State};
use packet::Instant;
use rpc::agent::Severity;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often an address that can't be listened on yet is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(1);
/// Neighbours are told at most this often.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// How long the last words of all connections may take.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// Starts a speaker for a tunnel whose interface, with this index, is there.
pub fn start(setup: Setup, kernel: Kernel, index: u32) -> Routing {
    let (commands, receiver) = mpsc::unbounded_channel();
    let (tell, events) = mpsc::channel(256);
    tokio::spawn(async move {
        let interface = setup.interface.clone();
        let ended = run(setup, &kernel, index, receiver, &tell).await;
        if let Err(error) = ended {
            let message = format!("BGP does not run on {interface}: {error}");
            let _ = tell
                .send(FromRouting::Told { severity: Severity::Warning, reason: "BgpFailed", message })
                .await;
        }
    });
    Routing { commands, events }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] bgp::ConfigError),
    #[error(transparent)]
    Kernel(#[from] crate::kernel::Error),
}

async fn run(
    mut setup: Setup,
    kernel: &Kernel,
    index: u32,
    commands: mpsc::UnboundedReceiver<ToRouting>,
    tell: &mpsc::Sender<FromRouting>,
) -> Result<(), Error> {
    let held = kernel.tunnel_routes(index, BGP).await?;
    setup.resume(held.iter().map(|route| route.via).collect());
    let resumed = setup.config.restart.is_some();
    let speaker = Speaker::new(clock::now(), setup.config.clone(), rand::random())?;
    let (happened, happenings) = mpsc::channel(64);
    let mut driver = Driver {
        listeners: Listeners::new(&setup),
        claims: Claims::new(setup.claims),
        connections: BTreeMap::new(),
        down_hubs: BTreeSet::new(),
        tasks: JoinSet::new(),
        happened,
        tell: tell.clone(),
        status_due: None,
        interface: setup.interface,
        port: setup.port,
        speaker,
    };
    if !resumed {
        // The kernel holds nothing of a process before us.
        let _ = tell.send(FromRouting::Converged).await;
    }
    driver.run(commands, happenings).await;
    Ok(())
}

struct Driver {
    speaker: Speaker,
    interface: String,
    port: u16,
    claims: Claims,
    listeners: Listeners,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Hubs that NHRP says are down: they are not called again until it says otherwise.
    down_hubs: BTreeSet<IpAddr>,
    tasks: JoinSet<()>,
    happened: mpsc::Sender<Happened>,
    tell: mpsc::Sender<FromRouting>,
    status_due: Option<Instant>,
}

impl Driver {
    async fn run(
        &mut self,
        mut commands: mpsc::UnboundedReceiver<ToRouting>,
        mut happenings: mpsc::Receiver<Happened>,
    ) {
        loop {
            // If the control loop is gone, so are we.
            if self.drain().await.is_err() {
                return;
            }
            let due = [self.speaker.poll_timeout(), self.status_due, self.listeners.due];
            let due = due.into_iter().flatten().min();
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(ToRouting::Shutdown { keep_routes }) => return self.shutdown(keep_routes).await,
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(happened) = happenings.recv() => self.on_happened(happened),
                (stream, remote) = self.listeners.accept() => self.on_accepted(stream, remote),
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => continue,
                () = sleep_until(due) => {
                    self.on_time().await;
                    continue;
                }
            }
            self.tell_status_soon(clock::now());
        }
    }

    async fn on_time(&mut self) {
        let now = clock::now();
        if self.speaker.poll_timeout().is_some_and(|due| due <= now) {
            self.speaker.handle_timeout(now);
            self.tell_status_soon(now);
        }
        if self.listeners.due.is_some_and(|due| due <= now) {
            self.listeners.open(now);
        }
        if self.status_due.is_some_and(|due| due <= now) {
            self.status_due = None;
            let neighbours = self.speaker.neighbours().map(|status| events::neighbour(now, status));
            let _ = self.tell.send(FromRouting::Neighbours(neighbours.collect())).await;
        }
    }

    fn tell_status_soon(&mut self, now: Instant) {
        self.status_due = self.status_due.or(Some(now + STATUS_INTERVAL));
    }

    fn on_command(&mut self, command: ToRouting) {
        let now = clock::now();
        match command {
            ToRouting::Announce(prefixes) => self.speaker.set_announced(now, prefixes, &self.claims),
            ToRouting::Claims(policy) => {
                if self.claims.set_policy(policy) {
                    self.speaker.review(now, &self.claims);
                }
            }
            ToRouting::HubUp { address, identity: _ } => {
                self.claims.hub_is(address);
                self.down_hubs.remove(&address);
                self.speaker.add_neighbour(now, address);
            }
            // A hub that does not answer may be back in a moment: its session is left to the hold timer, and its
            // routes are of use, since what is sent to it goes by another hub.
            ToRouting::HubDown { address } => {
                self.down_hubs.insert(address);
                self.leave_down_hubs(now);
            }
            ToRouting::PeerUp { address, identity, proven } => {
                if self.claims.peer_is(address, Who { asserted: identity, proven }) {
                    self.speaker.review(now, &self.claims);
                }
            }
            ToRouting::PeerDown { address } => {
                self.claims.gone(address);
                self.speaker.remove_neighbour(now, address);
            }
            ToRouting::Shutdown { .. } => {}
        }
    }

    fn on_happened(&mut self, happened: Happened) {
        let now = clock::now();
        match happened {
            Happened::Connected(id, stream) => {
                // The speaker may have given it up meanwhile.
                if self.connections.contains_key(&id) {
                    let connection = Connection::run(id, stream, &self.happened, &mut self.tasks);
                    self.connections.insert(id, connection);
                    self.speaker.handle_connected(now, id);
                }
            }
            Happened::Received(id, bytes) => self.speaker.handle_bytes(now, id, &bytes, &self.claims),
            Happened::Sent(id, octets) => self.speaker.handle_sent(now, id, octets),
            Happened::Closed(id) => {
                self.connections.remove(&id);
                self.speaker.handle_closed(now, id);
            }
        }
    }

    fn on_accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        let address = remote.ip().to_canonical();
        match self.speaker.handle_accepted(clock::now(), address) {
            Ok(id) => {
                let _ = stream.set_nodelay(true);
                let connection = Connection::run(id, stream, &self.happened, &mut self.tasks);
                self.connections.insert(id, connection);
            }
            Err(error) => {
                tracing::debug!(interface = self.interface, %remote, %error, "BGP connection not accepted");
            }
        }
    }

    /// Does what the speaker wants. An error: nobody listens any more.
    async fn drain(&mut self) -> Result<(), mpsc::error::SendError<FromRouting>> {
        while let Some(command) = self.speaker.poll_command() {
            self.carry_out(command);
        }
        while let Some(change) = self.speaker.poll_route() {
            let prefix = change.prefix;
            let told = match change.next_hops.first() {
                Some(via) => FromRouting::Install { prefix, via: *via },
                None => FromRouting::Withdraw { prefix },
            };
            self.tell.send(told).await?;
        }
        let mut ended = false;
        while let Some(event) = self.speaker.poll_event() {
            ended |= matches!(
                event,
                Event::Down { stale: false, .. } | Event::Failed { .. } | Event::StaleRemoved { .. }
            );
            if event == Event::Settled {
                self.tell.send(FromRouting::Converged).await?;
            }
            if let Some(told) = events::describe(&event) {
                self.tell.send(told).await?;
            }
        }
        if ended {
            self.leave_down_hubs(clock::now());
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Connect { connection, remote } => {
                let Some(from) = local_address(self.speaker.config(), remote) else {
                    return self.speaker.handle_closed(clock::now(), connection);
                };
                let (to, tell) = (SocketAddr::new(remote, self.port), self.happened.clone());
                let interface = self.interface.clone();
                let made = Connection::make(connection, interface, from, to, tell, &mut self.tasks);
                self.connections.insert(connection, made);
            }
            Command::Send { connection, bytes } => {
                if let Some(connection) = self.connections.get(&connection) {
                    connection.send(bytes);
                }
            }
            Command::Close { connection } => drop(self.connections.remove(&connection)),
        }
    }

    /// Gives up hubs that are down and whose session is over.
    fn leave_down_hubs(&mut self, now: Instant) {
        let over = |status: &bgp::NeighbourStatus| {
            self.down_hubs.contains(&status.address) && status.state < State::Established && !status.stale
        };
        let over: Vec<IpAddr> = self.speaker.neighbours().filter(over).map(|n| n.address).collect();
        for address in over {
            self.claims.gone(address);
            self.speaker.remove_neighbour(now, address);
        }
    }

    /// Without a word when a successor comes, so that neighbours keep our routes; else in good order.
    async fn shutdown(&mut self, keep_routes: bool) {
        if keep_routes {
            return;
        }
        self.speaker.shutdown(clock::now());
        while let Some(command) = self.speaker.poll_command() {
            self.carry_out(command);
        }
        self.connections.clear();
        let writers = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, writers).await;
    }
}

/// Sockets that wait for neighbours. A spoke has none: it calls.
struct Listeners {
    interface: String,
    port: u16,
    /// Addresses that are not listened on yet.
    wanted: Vec<IpAddr>,
    open: Vec<TcpListener>,
    due: Option<Instant>,
}

impl Listeners {
    fn new(setup: &Setup) -> Self {
        let listens = !setup.config.listen_ranges.is_empty();
        let mut listeners = Self {
            interface: setup.interface.clone(),
            port: setup.port,
            wanted: if listens { setup.config.local_addresses.clone() } else { Vec::new() },
            open: Vec::new(),
            due: None,
        };
        listeners.open(clock::now());
        listeners
    }

    /// Opens what is not open yet. An address may come up late: IPv6 looks for duplicates first.
    fn open(&mut self, now: Instant) {
        for address in std::mem::take(&mut self.wanted) {
            match socket::listen(&self.interface, address, self.port) {
                Ok(listener) => self.open.push(listener),
                Err(error) => {
                    let (interface, port) = (&self.interface, self.port);
                    tracing::debug!(interface, %address, port, %error, "cannot listen for BGP yet");
                    self.wanted.push(address);
                }
            }
        }
        self.due = (!self.wanted.is_empty()).then_some(now + LISTEN_RETRY);
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        let accepts = self.open.iter().map(|listener| Box::pin(accept(listener)));
        let mut accepts = accepts.collect::<Vec<_>>().into_iter();
        match (accepts.next(), accepts.next()) {
            (None, _) => std::future::pending().await,
            (Some(one), None) => one.await,
            (Some(one), Some(other)) => futures::future::select(one, other).await.factor_first().0,
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // A connection that was gone before it was taken, or no descriptor left: there is a next one.
            Err(error) => {
                tracing::debug!(%error, "accept");
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

fn local_address(config: &Config, remote: IpAddr) -> Option<IpAddr> {
    config.local_addresses.iter().copied().find(|own| own.is_ipv4() == remote.is_ipv4())
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep(due - clock::now()).await,
        None => std::future::pending().await,
    }
}
