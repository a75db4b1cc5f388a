//! The agent's side: a unix socket where each connection drives one tunnel. A tunnel survives the end of its connection,
//! and is handed to the next with all that it holds.

use crate::codec::{self, Incoming};
use crate::messages::{FromDatapath, PROTOCOL_VERSION, Request, ToDatapath, TunnelSettings};
use crate::punt::{self, PuntDrain};
use crate::tunnel::{self, Tunnel, TunnelState, Unfit};
use linux_io::poll::{self, Ready};
use packet::PeerId;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use zeroize::{Zeroize, Zeroizing};

/// How often the agent is told which peers moved packets.
const ACTIVITY: Duration = Duration::from_millis(100);
/// An agent that does not read for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Octets of messages written at once.
const BATCH: usize = 256 << 10;

/// A tunnel and what is shared around it.
struct Slot {
    tunnel: Mutex<Tunnel>,
    drain: Mutex<PuntDrain>,
    /// The connection that drives it now.
    driver: Mutex<Option<Arc<Connection>>>,
}

/// One connection, for its two threads.
struct Connection {
    stream: UnixStream,
    /// Whose turn it is to write.
    turn: Mutex<()>,
    ended: AtomicBool,
}

/// All tunnels of this process.
#[derive(Clone, Default)]
pub struct Server {
    slots: Arc<Mutex<HashMap<String, Arc<Slot>>>>,
    ports: Ports,
}

/// Who has which UDP ports, those for IKE among them. Workers share a port (`SO_REUSEPORT`), so the kernel would let tunnels share one as well, and
/// each would get some of the other's packets.
#[derive(Clone, Default)]
struct Ports(Arc<Mutex<HashMap<String, Binding>>>);

/// Underlay addresses and the UDP ports at them.
type Binding = (Vec<IpAddr>, Vec<u16>);

impl Ports {
    /// Notes what a request means for a tunnel's port.
    ///
    /// # Errors
    /// In a person's words: another tunnel has it.
    fn claim(&self, name: &str, request: &Request) -> Result<(), String> {
        let mut ports = locked(&self.0);
        match request {
            Request::Configure(settings) => {
                let wanted = binding(settings);
                if let Some((other, _)) =
                    ports.iter().find(|(other, has)| *other != name && overlap(has, &wanted))
                {
                    let (_, ports) = &wanted;
                    return Err(format!("of the UDP ports {ports:?} one is used by tunnel {other}"));
                }
                ports.insert(name.to_owned(), wanted);
            }
            Request::Remove { .. } => {
                ports.remove(name);
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes what a tunnel really has, after a request that failed.
    fn set(&self, name: &str, settings: Option<&TunnelSettings>) {
        let mut ports = locked(&self.0);
        match settings {
            Some(settings) => ports.insert(name.to_owned(), binding(settings)),
            None => ports.remove(name),
        };
    }
}

fn binding(settings: &TunnelSettings) -> Binding {
    let ports = std::iter::once(settings.udp_port).chain(settings.ike_port);
    (settings.bind.clone(), ports.collect())
}

fn overlap((a, ports): &Binding, (b, other_ports): &Binding) -> bool {
    let same = |a: &IpAddr, b: &IpAddr| {
        a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
    };
    let shared = ports.iter().any(|port| other_ports.contains(port));
    shared && a.iter().any(|a| b.iter().any(|b| same(a, b)))
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Codec(#[from] codec::Error),
    #[error("the first message is not Attach")]
    NotAttached,
    #[error("the agent speaks version {0}, this datapath speaks {PROTOCOL_VERSION}; upgrade both")]
    Version(u32),
    #[error("not a name of a tunnel: {0:?}")]
    Name(String),
}

/// Binds the socket, which nobody but its owner may use. One that a dead process left is replaced.
///
/// # Errors
/// `AddrInUse` when somebody listens there, or what the kernel says.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another datapath listens at {}", path.display()),
        ));
    }
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Server {
    /// Accepts connections for ever, a thread for each.
    pub fn serve(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => {
                    let server = self.clone();
                    std::thread::spawn(move || server.connection(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// Closes all tunnels; the interfaces stay.
    pub fn close(&self) {
        for slot in locked(&self.slots).values() {
            if let Err(error) = locked(&slot.tunnel).close(false) {
                tracing::warn!(%error, "a tunnel was not closed cleanly");
            }
        }
    }

    fn connection(&self, stream: UnixStream) {
        let connection = Arc::new(Connection { stream, turn: Mutex::new(()), ended: AtomicBool::new(false) });
        match self.drive(&connection) {
            Ok(()) => tracing::info!("the agent left; its tunnel goes on"),
            Err(end) => tracing::warn!(%end, "the agent's connection ended; its tunnel goes on"),
        }
        connection.end();
    }

    /// Attaches, then carries out requests until the connection ends.
    fn drive(&self, connection: &Arc<Connection>) -> Result<(), End> {
        connection.stream.set_write_timeout(Some(PATIENCE))?;
        let mut incoming = Incoming::default();
        let mut buffer = Zeroizing::new(vec![0; 64 << 10]);
        let first = loop {
            if let Some(message) = incoming.take::<ToDatapath>()? {
                break message;
            }
            match (&connection.stream).read(&mut buffer)? {
                0 => return Ok(()),
                n => take_in(&mut incoming, &mut buffer[..n]),
            }
        };
        let Request::Attach { version, tunnel: name } = first.request else {
            connection.refuse(first.number, &End::NotAttached)?;
            return Err(End::NotAttached);
        };
        let end = match (version, tunnel::is_name(&name)) {
            (PROTOCOL_VERSION, true) => None,
            (PROTOCOL_VERSION, false) => Some(End::Name(name.clone())),
            _ => Some(End::Version(version)),
        };
        if let Some(end) = end {
            connection.refuse(first.number, &end)?;
            return Err(end);
        }
        let slot = self.slot(&name)?;
        let pump = slot.attach(connection, first.number)?;
        tracing::info!(tunnel = name, "an agent is attached");
        let result = self.requests(&name, &slot, connection, &mut incoming, &mut buffer);
        connection.end();
        if pump.join().is_err() {
            tracing::error!("the thread that feeds the agent panicked");
        }
        slot.detach(connection);
        result
    }

    fn requests(
        &self,
        name: &str,
        slot: &Slot,
        connection: &Connection,
        incoming: &mut Incoming,
        buffer: &mut [u8],
    ) -> Result<(), End> {
        let mut answers = Vec::new();
        loop {
            // All that is here is carried out, then shown to the workers at once, then acknowledged.
            let mut tunnel = locked(&slot.tunnel);
            if connection.has_ended() {
                return Ok(());
            }
            while let Some(message) = incoming.take::<ToDatapath>()? {
                let answer = match self.ports.claim(name, &message.request) {
                    Ok(()) => {
                        let answer = carry_out(&mut tunnel, message);
                        if matches!(answer, FromDatapath::Done { error: Some(_), .. }) {
                            self.ports.set(name, tunnel.settings());
                        }
                        answer
                    }
                    Err(taken) => FromDatapath::Done { number: message.number, error: Some(taken) },
                };
                codec::append(&mut answers, &answer)?;
            }
            tunnel.publish();
            drop(tunnel);
            connection.write(&mut answers)?;
            match (&connection.stream).read(buffer)? {
                0 => return Ok(()),
                n => take_in(incoming, &mut buffer[..n]),
            }
        }
    }

    /// Holds all tunnels still: no request is carried out before `f` is done.
    pub fn hold<R>(&self, f: impl FnOnce(&mut [&mut Tunnel]) -> R) -> R {
        let slots = locked(&self.slots);
        let mut guards: Vec<_> = slots.values().map(|slot| locked(&slot.tunnel)).collect();
        let mut tunnels: Vec<&mut Tunnel> = guards.iter_mut().map(|guard| &mut **guard).collect();
        f(&mut tunnels)
    }

    /// Takes a tunnel in that another process had.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn adopt(
        &self,
        state: TunnelState,
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<(), Unfit> {
        let name = state.name().to_owned();
        let (source, drain) = punt::queues()?;
        let tunnel = Tunnel::adopt(state, descriptors, source)?;
        self.ports.set(&name, tunnel.settings());
        locked(&self.slots).insert(name, Slot::new(tunnel, drain));
        Ok(())
    }

    fn slot(&self, name: &str) -> io::Result<Arc<Slot>> {
        let mut slots = locked(&self.slots);
        if let Some(slot) = slots.get(name) {
            return Ok(slot.clone());
        }
        let (source, drain) = punt::queues()?;
        let slot = Slot::new(Tunnel::new(name, source), drain);
        slots.insert(name.to_owned(), slot.clone());
        Ok(slot)
    }
}

impl Slot {
    fn new(tunnel: Tunnel, drain: PuntDrain) -> Arc<Self> {
        Arc::new(Self { tunnel: Mutex::new(tunnel), drain: Mutex::new(drain), driver: Mutex::new(None) })
    }

    /// Makes `connection` the one that drives the tunnel, tells it what is there, and starts the thread that feeds it.
    fn attach(self: &Arc<Self>, connection: &Arc<Connection>, number: u64) -> Result<JoinHandle<()>, End> {
        if let Some(before) = locked(&self.driver).replace(connection.clone()) {
            tracing::info!("another agent takes over");
            before.end();
        }
        let tunnel = locked(&self.tunnel);
        let attached = FromDatapath::Attached {
            version: PROTOCOL_VERSION,
            checkpoint: tunnel.checkpoint().cloned(),
            settings: tunnel.settings().cloned(),
            peers: tunnel.peers(),
        };
        drop(tunnel);
        let mut answers = Zeroizing::new(Vec::new());
        codec::append(&mut answers, &attached)?;
        if let FromDatapath::Attached { checkpoint: Some(mut checkpoint), .. } = attached {
            checkpoint.zeroize();
        }
        codec::append(&mut answers, &FromDatapath::Done { number, error: None })?;
        connection.write(&mut answers)?;
        let (slot, connection) = (self.clone(), connection.clone());
        Ok(std::thread::Builder::new().name("feed".to_owned()).spawn(move || slot.feed(&connection))?)
    }

    fn detach(&self, connection: &Arc<Connection>) {
        let mut driver = locked(&self.driver);
        if driver.as_ref().is_some_and(|driver| Arc::ptr_eq(driver, connection)) {
            *driver = None;
            let mut tunnel = locked(&self.tunnel);
            tunnel.set_capture(false);
            tunnel.publish();
        }
    }

    /// Hands the agent what workers have for it, and the activity of peers, until the connection ends.
    fn feed(&self, connection: &Connection) {
        // Held until the end: an agent that takes over waits here for the one before it.
        let drain = locked(&self.drain);
        drain.set_attached(true);
        let mut activity = Activity::since_now(&locked(&self.tunnel));
        while !connection.has_ended() {
            if let Err(error) = self.feed_once(connection, &drain, &mut activity) {
                if !connection.has_ended() {
                    tracing::warn!(%error, "the agent can't be fed");
                }
                connection.end();
            }
        }
        drain.set_attached(false);
    }

    fn feed_once(
        &self,
        connection: &Connection,
        drain: &PuntDrain,
        activity: &mut Activity,
    ) -> Result<(), End> {
        let timeout = activity.due.saturating_duration_since(Instant::now());
        poll::wait(&[drain.waker().as_fd()], &mut [Ready::default()], Some(timeout))?;
        drain.waker().clear();
        let mut messages = Vec::new();
        for message in drain.take() {
            codec::append(&mut messages, &message)?;
            if messages.len() >= BATCH {
                // The rest waits for the next turn, so that activity is told even in a flood.
                drain.waker().wake();
                break;
            }
        }
        if Instant::now() >= activity.due
            && let Some(message) = activity.tell(&locked(&self.tunnel))
        {
            codec::append(&mut messages, &message)?;
        }
        Ok(connection.write(&mut messages)?)
    }
}

/// What the agent was told of each peer's packets.
struct Activity {
    due: Instant,
    told: HashMap<PeerId, (u64, u64)>,
}

impl Activity {
    fn since_now(tunnel: &Tunnel) -> Self {
        let told = tunnel.peer_counters().map(|(id, c)| (id, (c.packets_sent, c.packets_received))).collect();
        Self { due: Instant::now() + ACTIVITY, told }
    }

    /// Who moved packets since last told, and how many.
    fn tell(&mut self, tunnel: &Tunnel) -> Option<FromDatapath> {
        self.due = Instant::now() + ACTIVITY;
        let mut before = std::mem::take(&mut self.told);
        let mut moved = Vec::new();
        for (id, counters) in tunnel.peer_counters() {
            let (sent, received) = before.remove(&id).unwrap_or_default();
            let now = (counters.packets_sent, counters.packets_received);
            if now != (sent, received) {
                moved.push((id, now.0.saturating_sub(sent), now.1.saturating_sub(received)));
            }
            self.told.insert(id, now);
        }
        (!moved.is_empty()).then_some(FromDatapath::Activity(moved))
    }
}

impl Connection {
    /// Writes whole messages, and empties the buffer.
    fn write(&self, messages: &mut Vec<u8>) -> io::Result<()> {
        let _turn = locked(&self.turn);
        let result = (&self.stream).write_all(messages);
        messages.clear();
        result
    }

    fn refuse(&self, number: u64, end: &End) -> Result<(), End> {
        let mut answer = Vec::new();
        codec::append(&mut answer, &FromDatapath::Done { number, error: Some(end.to_string()) })?;
        Ok(self.write(&mut answer)?)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        // One that is closed already can't be shut down, and needn't.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// There may be keys in what arrived.
fn take_in(incoming: &mut Incoming, octets: &mut [u8]) {
    incoming.push(octets);
    octets.zeroize();
}

/// Does what one request asks, and says what to answer.
fn carry_out(tunnel: &mut Tunnel, message: ToDatapath) -> FromDatapath {
    let ToDatapath { number, request } = message;
    let result = match request {
        Request::Attach { .. } => Err(tunnel::Error::Settings("this connection is attached already")),
        Request::Configure(settings) => tunnel.configure(settings),
        Request::SetPeer(id, peer) => tunnel.set_peer(id, peer),
        Request::RemovePeer(id) => {
            tunnel.remove_peer(id);
            Ok(())
        }
        Request::SetByHub(id) => {
            tunnel.set_by_hub(id);
            Ok(())
        }
        Request::SetMulticast(ids) => {
            tunnel.set_multicast(ids);
            Ok(())
        }
        Request::SetHairpin(routes) => {
            tunnel.set_hairpin(&routes);
            Ok(())
        }
        Request::AddInboundSa { path, keys } => tunnel.add_inbound_sa(path, &keys),
        Request::RemoveInboundSa { spi } => tunnel.remove_inbound_sa(spi),
        Request::SetOutboundSa { path, lane, keys, soft } => tunnel.set_outbound_sa(path, lane, &keys, soft),
        Request::RemoveOutboundSa { path, spi } => tunnel.remove_outbound_sa(path, spi),
        Request::TransmitIke { remote, nat_traversal, message } => {
            tunnel.transmit_ike(remote, nat_traversal, message.as_deref())
        }
        Request::GetSas => return FromDatapath::Sas { number, sas: tunnel.sas() },
        Request::Transmit { path, protocol, payload } => tunnel.transmit(path, protocol, payload),
        Request::StoreCheckpoint(checkpoint) => {
            tunnel.store_checkpoint(checkpoint);
            Ok(())
        }
        Request::GetCounters => {
            let (totals, peers) = tunnel.counters();
            return FromDatapath::Counters { number, totals, peers };
        }
        Request::Capture(on) => {
            tunnel.set_capture(on);
            Ok(())
        }
        Request::Remove { delete_interface } => tunnel.close(delete_interface),
    };
    FromDatapath::Done { number, error: result.err().map(|error| error.to_string()) }
}

/// A thread that panicked left nothing half done that matters more than going on.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::settings;

    #[test]
    fn tunnels_do_not_share_a_port() {
        let ports = Ports::default();
        let configure = |bind: &str, udp_port| {
            let bind = vec![bind.parse().unwrap()];
            Request::Configure(TunnelSettings { bind, udp_port, ..settings() })
        };
        assert_eq!(ports.claim("a", &configure("192.0.2.1", 4754)), Ok(()));
        assert_eq!(ports.claim("a", &configure("192.0.2.1", 4754)), Ok(()));
        assert!(ports.claim("b", &configure("192.0.2.1", 4754)).is_err());
        assert!(ports.claim("b", &configure("0.0.0.0", 4754)).is_err());
        assert_eq!(ports.claim("b", &configure("::", 4754)), Ok(()));
        assert_eq!(ports.claim("b", &configure("192.0.2.1", 4755)), Ok(()));
        assert_eq!(ports.claim("a", &Request::Remove { delete_interface: false }), Ok(()));
        assert_eq!(ports.claim("b", &configure("0.0.0.0", 4754)), Ok(()));
    }
}
