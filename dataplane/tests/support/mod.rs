//! Network namespaces of the test's own, a datapath in each, and a client that speaks for the agent. All of it goes
//! when it is dropped.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use dmvpn_dataplane::codec::{self, Incoming};
use dmvpn_dataplane::messages::{
    FromDatapath, PROTOCOL_VERSION, Peer, Request, SaCounters, SaLimits, ToDatapath, TunnelSettings,
};
use esp::{Keys, Suite};
use packet::PeerId;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Are we allowed to make namespaces? Tests that can't say so and pass.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Runs a command and expects success.
pub fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A network namespace.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(label: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // As the lab names its own, so that what a killed run leaves is found and removed.
        let mark = std::env::var("DMVPN_TEST_MARK").unwrap_or_default();
        let mark = if mark.is_empty() { "x" } else { &mark };
        let name = format!("kdlab-{mark}-{}-dp{number}-{label}", std::process::id());
        run(&format!("ip netns add {name}; ip -n {name} link set lo up"));
        run(&format!(
            "ip netns exec {name} sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"
        ));
        Self { name }
    }

    /// Runs a command in it.
    pub fn run(&self, line: &str) -> String {
        run(&format!("ip netns exec {} sh -ec '{line}'", self.name))
    }

    /// Runs a command in it that may fail.
    pub fn try_run(&self, line: &str) -> bool {
        Command::new("ip")
            .args(["netns", "exec", &self.name, "sh", "-ec", line])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    /// What its interfaces and sockets dropped, for a test that misses a packet.
    pub fn drops(&self) -> String {
        self.run("cat /proc/net/dev; grep ^Udp: /proc/net/snmp; cat /proc/net/raw /proc/net/icmp")
    }

    /// Runs `f` on a thread that lives in it.
    pub fn spawn<R: Send + 'static>(
        &self,
        f: impl FnOnce() -> R + Send + 'static,
    ) -> std::thread::JoinHandle<R> {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            f()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Connects two namespaces by a veth pair `eth0`, with these addresses (and prefix lengths).
pub fn connect(a: &Namespace, b: &Namespace, addresses: [&str; 2]) {
    run(&format!("ip link add eth0 netns {} type veth peer name eth0 netns {}", a.name, b.name));
    for (namespace, list) in [a, b].into_iter().zip(addresses) {
        for address in list.split(' ') {
            namespace
                .run(&format!("ip addr add {address} dev eth0 $(case {address} in *:*) echo nodad;; esac)"));
        }
        namespace.run("ip link set eth0 up");
    }
}

/// A datapath process in a namespace, and a connection to it.
pub struct Datapath {
    process: Child,
    pub agent: Agent,
    socket: PathBuf,
}

impl Datapath {
    pub fn start(namespace: &Namespace) -> Self {
        Self::start_with(namespace, &[])
    }

    pub fn start_with(namespace: &Namespace, more: &[&str]) -> Self {
        let socket = std::env::temp_dir().join(format!("{}.sock", namespace.name));
        let process = spawn(namespace, &socket, more);
        let agent = Agent::connect(&socket);
        Self { process, agent, socket }
    }

    /// Another process takes over, and the one before ends.
    pub fn take_over(&mut self, namespace: &Namespace) {
        let successor = spawn(namespace, &self.socket, &["--takeover"]);
        let mut before = std::mem::replace(&mut self.process, successor);
        assert!(before.wait().unwrap().success());
    }

    /// Its number.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens for its successor.
    pub fn handover_socket(&self) -> PathBuf {
        self.socket.with_extension("handover")
    }

    /// Processor time it has used so far: in user mode, and in the kernel.
    pub fn cpu_seconds(&self) -> [f64; 2] {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // utime and stime, in hundredths of a second.
        [fields[11], fields[12]].map(|ticks| ticks.parse::<f64>().unwrap() / 100.0)
    }

    /// Another agent takes over.
    pub fn reconnect(&mut self) {
        self.agent = Agent::connect(&self.socket);
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn spawn(namespace: &Namespace, socket: &Path, more: &[&str]) -> Child {
    Command::new("ip")
        .args(["netns", "exec", &namespace.name, env!("CARGO_BIN_EXE_dmvpn-datapath"), "--socket"])
        .arg(socket)
        .args(more)
        .spawn()
        .unwrap()
}

/// The agent's end of a connection.
pub struct Agent {
    stream: UnixStream,
    incoming: Incoming,
    number: u64,
    /// What arrived that was no answer.
    pub events: Vec<FromDatapath>,
    pub attached: Option<FromDatapath>,
}

impl Agent {
    fn connect(socket: &Path) -> Self {
        let deadline = Instant::now() + Duration::from_secs(5);
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < deadline, "{e}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut agent =
            Self { stream, incoming: Incoming::default(), number: 0, events: Vec::new(), attached: None };
        agent.ask(Request::Attach { version: PROTOCOL_VERSION, tunnel: "dmvpn0".to_owned() });
        agent
    }

    /// Who is at the other end.
    pub fn process(&self) -> u32 {
        let peer = rustix::net::sockopt::socket_peercred(&self.stream).unwrap();
        peer.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends a request and waits for its answer, which must be good.
    pub fn ask(&mut self, request: Request) {
        let text = format!("{request:?}");
        assert_eq!(self.answer(request), None, "{text}");
    }

    /// Sends a request that must be refused, and says why it was.
    pub fn refused(&mut self, request: Request) -> String {
        let text = format!("{request:?}");
        self.answer(request).unwrap_or_else(|| panic!("not refused: {text}"))
    }

    fn answer(&mut self, request: Request) -> Option<String> {
        self.number += 1;
        self.send(request);
        loop {
            match self.receive() {
                FromDatapath::Done { number, error } if number == self.number => return error,
                attached @ FromDatapath::Attached { .. } => self.attached = Some(attached),
                other => self.events.push(other),
            }
        }
    }

    /// The tunnel's counters.
    pub fn counters(&mut self) -> BTreeMap<String, u64> {
        self.number += 1;
        self.send(Request::GetCounters);
        loop {
            match self.receive() {
                FromDatapath::Counters { totals, .. } => return totals,
                other => self.events.push(other),
            }
        }
    }

    /// The tunnel's SAs.
    pub fn sas(&mut self) -> Vec<SaCounters> {
        self.number += 1;
        self.send(Request::GetSas);
        loop {
            match self.receive() {
                FromDatapath::Sas { sas, .. } => return sas,
                other => self.events.push(other),
            }
        }
    }

    /// Waits for something that is no answer.
    pub fn wait_for(&mut self, what: impl Fn(&FromDatapath) -> bool) -> FromDatapath {
        if let Some(at) = self.events.iter().position(&what) {
            return self.events.remove(at);
        }
        loop {
            let event = self.receive();
            if what(&event) {
                return event;
            }
            self.events.push(event);
        }
    }

    fn send(&mut self, request: Request) {
        let mut octets = Vec::new();
        codec::append(&mut octets, &ToDatapath { number: self.number, request }).unwrap();
        self.stream.write_all(&octets).unwrap();
    }

    fn receive(&mut self) -> FromDatapath {
        let mut buffer = vec![0; 65_536];
        loop {
            if let Some(message) = self.incoming.take().unwrap() {
                return message;
            }
            let n = self.stream.read(&mut buffer).expect("an answer in time");
            assert!(n > 0, "the datapath closed the connection");
            self.incoming.push(&buffer[..n]);
        }
    }
}

pub fn id(index: u32) -> PeerId {
    PeerId { index, generation: 0 }
}

pub fn settings(address: &str, bind: &str) -> TunnelSettings {
    TunnelSettings {
        interface: "dmvpn0".to_owned(),
        workers: 1,
        addresses: vec![address.parse().unwrap()],
        networks: vec!["10.200.0.0/16".parse().unwrap(), "fd00:200::/64".parse().unwrap()],
        bind: vec![bind.parse().unwrap()],
        udp_port: 4754,
        encrypted: false,
        ike_port: None,
        raw_gre: true,
        gre_key: Some(42),
        mtu: 1400,
        ttl: 64,
        indicate_hairpins: false,
    }
}

pub fn peer(address: &str, path: packet::Path) -> Peer {
    Peer {
        addresses: vec![
            address.parse().unwrap(),
            address.replace("10.200.0.", "fd00:200::").parse().unwrap(),
        ],
        send: Some(path),
        receive: vec![path],
        sources: None,
        ours: true,
    }
}

/// Keys that both ends of a test know.
pub fn keys(spi: u32, suite: Suite) -> Keys {
    let material = (0..suite.key_len()).map(|i| (i as u32 ^ spi) as u8).collect::<Vec<_>>();
    Keys { spi, suite, esn: false, material: material.into() }
}

/// The SPI of a lane: the owner is in its low bits.
pub fn spi(base: u32, lane: u16) -> u32 {
    base << 8 | u32::from(lane)
}

pub const NO_LIMIT: SaLimits = SaLimits { packets: u64::MAX, octets: u64::MAX };

/// SAs of these lanes for what `from`, which is at the first path, sends to `to`, which is at the second.
pub fn key(from: &mut Agent, to: &mut Agent, paths: [packet::Path; 2], base: u32, suite: Suite, lanes: u16) {
    for lane in 0..lanes {
        let keys = keys(spi(base, lane), suite);
        to.ask(Request::AddInboundSa { path: paths[0], keys: keys.clone() });
        from.ask(Request::SetOutboundSa { path: paths[1], lane, keys, soft: NO_LIMIT });
    }
}

/// Settings of an encrypted tunnel.
pub fn encrypted(own: &str, bind: &str, workers: u16) -> TunnelSettings {
    TunnelSettings { encrypted: true, ike_port: Some(500), workers, ..settings(own, bind) }
}

/// The path to an underlay address, by either encapsulation.
pub fn path(underlay: &str, raw: bool) -> packet::Path {
    let remote: IpAddr = underlay.parse().unwrap();
    if raw { packet::Path::gre(remote) } else { packet::Path::udp(remote, 4754) }
}

/// Gives the tunnel interface an address and brings it up, as the agent does.
pub fn bring_up(namespace: &Namespace, addresses: &str) {
    namespace.run("sysctl -qw net.ipv6.conf.dmvpn0.addr_gen_mode=1");
    for address in addresses.split(' ') {
        namespace
            .run(&format!("ip addr add {address} dev dmvpn0 $(case {address} in *:*) echo nodad;; esac)"));
    }
    namespace.run("ip link set dmvpn0 up");
}

/// Sends octets by TCP from one namespace to an address in the other for a while, and says how many Gbit/s arrived.
pub fn tcp_gbits(from: &Namespace, to: &Namespace, address: &str, time: Duration) -> f64 {
    use std::net::{TcpListener, TcpStream};
    let at = std::net::SocketAddr::new(address.parse().unwrap(), 5201);
    let (ready, wait) = std::sync::mpsc::channel();
    let server = to.spawn(move || {
        let listener = TcpListener::bind(at).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 256 << 10];
        let (start, mut total) = (Instant::now(), 0u64);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return total as f64 * 8e-9 / start.elapsed().as_secs_f64(),
                n => total += n as u64,
            }
        }
    });
    wait.recv().unwrap();
    let client = from.spawn(move || {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let buffer = vec![7; 256 << 10];
        let start = Instant::now();
        while start.elapsed() < time {
            stream.write_all(&buffer).unwrap();
        }
    });
    client.join().unwrap();
    server.join().unwrap()
}
