//! The lab: an Internet, sites that are attached to it, routers with NAT, and hosts on LANs behind the sites.
//!
//! ```text
//!   host ── lan ─ site ─ wan ── p0 ┐
//!                                  │ internet (a router)
//!   host ── lan ─ site ─ wan ─ nat ─ wan ── p1 ┘
//! ```
//!
//! Every box is a network namespace, every line a veth pair or, where a [`Shape`] is given, a relayed link. A site
//! has its address as a host address and the router before it on the link as its default gateway, so any address can
//! be anywhere, and can change. A router has the same link-local address on all its ports, and no two have the same:
//! a node would not answer an ARP request that comes from an address of its own.

use crate::error::{Error, Result};
use crate::keys::Keyring;
use crate::kubernetes::cgroup;
use crate::leaks;
use crate::losses;
use crate::nat::NatRouter;
use crate::netns::{self, Namespace};
use crate::relay::{Link, Relay, Shape};
use crate::security::Pki;
use ipnet::IpNet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Names of namespaces and folders of any lab begin with this, followed by the checkout and the process that made it.
pub(crate) const MARK: &str = "kdlab";

/// A lab under construction, or under test. Dropping it removes everything it made, also after a panic.
pub struct Lab {
    inner: Arc<Inner>,
    internet: Node,
}

/// What the nodes of a lab share.
pub(crate) struct Inner {
    name: String,
    id: String,
    directory: PathBuf,
    relay: Relay,
    nodes: Mutex<Vec<Arc<Namespace>>>,
    ports: AtomicU32,
    routers: AtomicU32,
    on_failure: Mutex<Vec<Evidence>>,
    machine: losses::Machine,
    keys: Arc<Keyring>,
    pki: Mutex<Option<Arc<Pki>>>,
}

/// Writes what it knows into the folder that is kept when a story fails.
type Evidence = Box<dyn Fn(&Path) + Send>;

/// One namespace of the lab. Clones are the same namespace.
#[derive(Clone)]
pub struct Node {
    name: String,
    namespace: Arc<Namespace>,
    lab: Arc<Inner>,
    /// Its IPv4 and IPv6 address as a router, on every port.
    gateway: (String, String),
}

/// How a site is attached to the router before it.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Relayed, both ways like this; `None`: a plain veth pair.
    pub shape: Option<Shape>,
    /// MTU of both ends; `None`: 1500.
    pub mtu: Option<u32>,
    /// The kernel cuts super-frames into packets before they leave, so that captures see what a wire would.
    pub segmented: bool,
}

impl Default for Uplink {
    fn default() -> Self {
        Self { shape: None, mtu: None, segmented: true }
    }
}

impl Uplink {
    /// A relayed link.
    #[must_use]
    pub const fn relayed(shape: Shape) -> Self {
        Self { shape: Some(shape), mtu: None, segmented: true }
    }

    /// A relayed link that takes so many milliseconds each way.
    #[must_use]
    pub fn delay_ms(ms: u64) -> Self {
        Self::relayed(Shape::delay(Duration::from_millis(ms)))
    }

    /// A plain link with this MTU.
    #[must_use]
    pub const fn mtu(mtu: u32) -> Self {
        Self { shape: None, mtu: Some(mtu), segmented: true }
    }
}

impl Lab {
    /// A lab with nothing but its Internet. Removes first what a killed run may have left.
    pub fn new(name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        leaks::sweep();
        leaks::adopt_orphans();
        leaks::clean_up_when_interrupted();
        let id = format!("{}{}", leaks::prefix(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&id);
        fs::create_dir_all(&directory).map_err(Error::io(format!("make {}", directory.display())))?;
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            id,
            directory,
            relay: Relay::new()?,
            nodes: Mutex::default(),
            ports: AtomicU32::new(0),
            routers: AtomicU32::new(0),
            on_failure: Mutex::default(),
            machine: losses::Machine::now(),
            keys: Arc::default(),
            pki: Mutex::default(),
        });
        let internet = Node::create(&inner, "internet")?;
        internet.forward()?;
        Ok(Self { inner, internet })
    }

    /// The story's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A folder of this lab, removed with it. Its path is short, since sockets live there.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The name of a folder in memory, for machines; whoever wants it makes it. It is removed with the lab.
    pub(crate) fn memory(&self) -> PathBuf {
        Path::new(leaks::MEMORY).join(&self.inner.id)
    }

    /// The keys by which captures read what is encrypted.
    #[must_use]
    pub fn keys(&self) -> &Keyring {
        &self.inner.keys
    }

    /// The lab's certificates.
    pub fn pki(&self) -> Result<Arc<Pki>> {
        self.internet.pki()
    }

    /// The router in the middle.
    #[must_use]
    pub const fn internet(&self) -> &Node {
        &self.internet
    }

    /// A site with public addresses on a plain link.
    pub fn site(&self, name: &str, addresses: &[&str]) -> Result<Node> {
        Ok(self.site_by(name, addresses, &Uplink::default())?.0)
    }

    /// A site with public addresses; the link is returned if it is relayed.
    pub fn site_by(&self, name: &str, addresses: &[&str], uplink: &Uplink) -> Result<(Node, Option<Link>)> {
        self.internet.attach(name, addresses, uplink)
    }

    /// A router with public addresses that hides the sites attached to it.
    pub fn nat(&self, name: &str, addresses: &[&str], router: &NatRouter) -> Result<Node> {
        let node = self.site(name, addresses)?;
        let outer = parse(addresses)?;
        if let Some(seconds) = router.udp_timeout {
            let seconds = seconds.to_string();
            node.namespace.sysctls(&[
                ("net/netfilter/nf_conntrack_udp_timeout", &seconds),
                ("net/netfilter/nf_conntrack_udp_timeout_stream", &seconds),
            ])?;
        }
        node.namespace.nft(&router.rules(&outer))?;
        Ok(node)
    }

    /// Registers what shall be said when the story fails, such as a node's log. It is given a folder for files that
    /// stay when the lab is gone.
    pub fn on_failure(&self, tell: impl Fn(&Path) + Send + 'static) {
        lock(&self.inner.on_failure).push(Box::new(tell));
    }

    /// Says all that was registered.
    pub fn tell_all(&self) {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab-failures").join(&self.inner.name);
        let _ = fs::create_dir_all(&folder);
        let folder = folder.canonicalize().unwrap_or(folder);
        for tell in lock(&self.inner.on_failure).iter() {
            tell(&folder);
        }
        let _ = fs::write(folder.join("keys.txt"), self.inner.keys.wireshark());
        for line in self.losses() {
            eprintln!("lost at {line}");
        }
    }

    /// Where packets were lost, as far as the kernel and the relay counted them, in words. Links that were told to lose
    /// some count these too.
    #[must_use]
    pub fn losses(&self) -> Vec<String> {
        let nodes = lock(&self.inner.nodes).clone();
        let mut lines = self.inner.machine.since();
        lines.extend(self.inner.relay.losses());
        lines.extend(nodes.iter().flat_map(|node| losses::of(node)));
        lines
    }

    /// A namespace that is attached to nothing yet.
    pub fn node(&self, name: &str) -> Result<Node> {
        Node::create(&self.inner, name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The order matters: nothing may run, or be in flight, where the ground is removed.
        let nodes = std::mem::take(&mut *lock(&self.inner.nodes));
        for node in &nodes {
            node.kill_processes();
        }
        leaks::reap_orphans();
        self.inner.relay.stop();
        for node in &nodes {
            node.remove();
        }
        let _ = fs::remove_dir_all(&self.inner.directory);
        let _ = fs::remove_dir_all(self.memory());
        cgroup::remove(&self.inner.id);
        let left = leaks::of_lab(&self.inner.id, &self.inner.directory);
        if !left.is_empty() && !std::thread::panicking() {
            panic!("the lab of {:?} left behind: {left:#?}", self.inner.name);
        }
    }
}

impl Node {
    fn create(lab: &Arc<Inner>, name: &str) -> Result<Self> {
        let namespace = Arc::new(Namespace::create(&format!("{}-{name}", lab.id))?);
        lock(&lab.nodes).push(Arc::clone(&namespace));
        let number = lab.routers.fetch_add(1, Ordering::Relaxed);
        let gateway =
            (format!("169.254.{}.{}", number / 250, number % 250 + 1), format!("fe80::{:x}", number + 1));
        Ok(Self { name: name.to_owned(), namespace, lab: Arc::clone(lab), gateway })
    }

    /// A host whose namespace somebody else made and removes.
    pub(crate) fn adopt(&self, name: &str, namespace: Namespace) -> Self {
        Self { name: name.to_owned(), namespace: Arc::new(namespace), ..self.clone() }
    }

    /// Its name within the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// As [`Lab::on_failure`].
    pub(crate) fn on_failure(&self, tell: impl Fn(&Path) + Send + 'static) {
        lock(&self.lab.on_failure).push(Box::new(tell));
    }

    pub(crate) fn pki(&self) -> Result<Arc<Pki>> {
        let mut pki = lock(&self.lab.pki);
        if let Some(pki) = &*pki {
            return Ok(Arc::clone(pki));
        }
        Ok(Arc::clone(pki.insert(Arc::new(Pki::new()?))))
    }

    pub(crate) fn keys(&self) -> Arc<Keyring> {
        Arc::clone(&self.lab.keys)
    }

    /// Its address as a router, of this IP version.
    pub(crate) fn gateway(&self, v4: bool) -> &str {
        if v4 { &self.gateway.0 } else { &self.gateway.1 }
    }

    /// A folder for this node's files, removed with the lab.
    pub fn directory(&self) -> Result<PathBuf> {
        let path = self.lab.directory.join(&self.name);
        fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        Ok(path)
    }

    /// Attaches a new node behind this router: interface `wan` there, a port here.
    pub fn attach(&self, name: &str, addresses: &[&str], uplink: &Uplink) -> Result<(Self, Option<Link>)> {
        let site = Self::create(&self.lab, name)?;
        site.forward()?;
        let port = format!("p{}", self.lab.ports.fetch_add(1, Ordering::Relaxed));
        let link = self.wire(&port, &site, "wan", uplink)?;
        self.take_gateway(&port)?;
        for address in parse(addresses)? {
            self.route_to(address, &port)?;
            site.take_address(address, self)?;
        }
        Ok((site, link))
    }

    /// The same on a plain link.
    pub fn site(&self, name: &str, addresses: &[&str]) -> Result<Self> {
        Ok(self.attach(name, addresses, &Uplink::default())?.0)
    }

    /// Gives up one underlay address for another, as a site whose provider renumbers it. `router` is what it is
    /// attached to.
    pub fn readdress(&self, router: &Self, old: &str, new: &str) -> Result {
        let [old, new] = parse(&[old, new])?[..] else { return Err(Error::other("two addresses")) };
        let routes = router.namespace.ip_json(&format!("route get {old}"))?;
        let port =
            routes[0]["dev"].as_str().ok_or_else(|| Error::other(format!("no route to {old}")))?.to_owned();
        let length = if old.is_ipv4() { 32 } else { 128 };
        router.namespace.ip(&[&format!("route del {old}/{length} dev {port}")])?;
        router.route_to(new, &port)?;
        // The routes by the old address go with it.
        self.namespace.ip(&[&format!("addr del {old}/{length} dev wan")])?;
        self.take_address(new, router)
    }

    /// A LAN behind this node, with this node's address on it (the router's) and one host.
    ///
    /// `lan` is the router's address with the prefix length; the host gets the tenth address of the LAN.
    pub fn lan(&self, interface: &str, lan: &str) -> Result<Self> {
        let router: IpNet = lan.parse().map_err(|e| Error::other(format!("{lan}: {e}")))?;
        let host_address = nth(router, 10);
        let host = Self::create(&self.lab, &format!("{}-{interface}", self.name))?;
        // A host's kernel hands TCP over in super-frames, as a machine with a real network card would.
        self.wire(interface, &host, "eth0", &Uplink { segmented: false, ..Uplink::default() })?;
        let gateway = router.addr();
        let nodad = if gateway.is_ipv6() { " nodad" } else { "" };
        self.namespace.ip(&[&format!("addr add {router} dev {interface}{nodad}")])?;
        host.namespace.ip(&[
            &format!("addr add {host_address}/{} dev eth0{nodad}", router.prefix_len()),
            &format!("route add default via {gateway}"),
        ])?;
        Ok(host)
    }

    /// One more prefix on an existing LAN, as for the second IP version.
    pub fn lan_also(&self, interface: &str, host: &Self, lan: &str) -> Result {
        let router: IpNet = lan.parse().map_err(|e| Error::other(format!("{lan}: {e}")))?;
        let host_address = nth(router, 10);
        self.namespace.ip(&[&format!("addr add {router} dev {interface} nodad")])?;
        host.namespace.ip(&[
            &format!("addr add {host_address}/{} dev eth0 nodad", router.prefix_len()),
            &format!("route add default via {}", router.addr()),
        ])
    }

    /// A veth pair, or a relayed link, between an interface here and one of another node, both up.
    pub fn wire(
        &self,
        interface: &str,
        other: &Self,
        other_interface: &str,
        uplink: &Uplink,
    ) -> Result<Option<Link>> {
        let (a, b) = (&self.namespace, &other.namespace);
        let link = match &uplink.shape {
            Some(shape) => Some(self.lab.relay.connect((b, other_interface), (a, interface), shape)?),
            None => {
                netns::run(
                    Command::new("ip")
                        .args(["link", "add", interface, "netns", a.name(), "type", "veth"])
                        .args(["peer", "name", other_interface, "netns", b.name()]),
                )?;
                None
            }
        };
        for (ns, name) in [(a, interface), (b, other_interface)] {
            ns.ip(&[&format!("link set {name} mtu {} up", uplink.mtu.unwrap_or(1500))])?;
            if link.is_none() {
                ns.keep_order(name)?;
            }
            if uplink.segmented && link.is_none() {
                ns.ip(&[&format!("link set {name} gso_max_segs 1")])?;
            }
        }
        Ok(link)
    }

    /// Makes this router drop what it would forward and what one of these nftables matches fits, such as
    /// `ip saddr 198.51.100.11 ip daddr 198.51.100.12`.
    pub fn cut(&self, matches: &[&str]) -> Result {
        let rules: String = matches.iter().map(|m| format!("    {m} drop\n")).collect();
        self.namespace.nft(&format!(
            "table inet cut {{\n  chain forward {{ type filter hook forward priority filter\n{rules}  }}\n}}\n"
        ))
    }

    /// Forwards everything again.
    pub fn heal(&self) -> Result {
        self.namespace.nft("delete table inet cut\n")
    }

    /// Changes an interface's MTU.
    pub fn set_mtu(&self, interface: &str, mtu: u32) -> Result {
        self.namespace.ip(&[&format!("link set {interface} mtu {mtu}")])
    }

    /// Runs a program here to its end; an error if it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        self.namespace.run(program, args)
    }

    /// Starts a program here. It is killed with the lab at the latest.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.namespace.spawn(command)
    }

    /// The kernel's route to an address, as `ip -json route get` tells it.
    pub fn route_get(&self, address: &str) -> Result<serde_json::Value> {
        Ok(self.namespace.ip_json(&format!("route get {address}"))?[0].clone())
    }

    fn forward(&self) -> Result {
        self.namespace.sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
        ])
    }

    fn route_to(&self, address: IpAddr, port: &str) -> Result {
        let length = if address.is_ipv4() { 32 } else { 128 };
        self.namespace.ip(&[&format!("route add {address}/{length} dev {port}")])
    }

    /// Is a router on this port.
    pub(crate) fn take_gateway(&self, port: &str) -> Result {
        let (v4, v6) = &self.gateway;
        self.namespace
            .ip(&[&format!("addr add {v4}/32 dev {port}"), &format!("addr add {v6}/64 dev {port} nodad")])
    }

    fn take_address(&self, address: IpAddr, router: &Self) -> Result {
        let (length, gateway, nodad) =
            if address.is_ipv4() { (32, &router.gateway.0, "") } else { (128, &router.gateway.1, "nodad") };
        self.namespace.ip(&[
            &format!("addr add {address}/{length} dev wan {nodad}"),
            &format!("route replace default via {gateway} dev wan onlink src {address}"),
        ])
    }
}

fn parse(addresses: &[&str]) -> Result<Vec<IpAddr>> {
    addresses.iter().map(|a| a.parse().map_err(|e| Error::other(format!("{a}: {e}")))).collect()
}

/// The address with number `n` in a prefix.
fn nth(net: IpNet, n: u32) -> IpAddr {
    match net {
        IpNet::V4(v4) => (u32::from(v4.network()) + n).to_be_bytes().into(),
        IpNet::V6(v6) => (u128::from(v6.network()) + u128::from(n)).to_be_bytes().into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
