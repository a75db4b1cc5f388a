//! Carries out what the control loop decided, strictly in order, without blocking the loop.
//!
//! Requests to the datapath are sent one after another and acknowledged in order; before a step of the kernel, and
//! after it, everything before is waited for. So a neighbour never names a row that does not exist yet, and a row is
//! never removed while a neighbour names it.

use crate::datapath::{self, Sender};
use crate::kernel::link::Link;
use crate::kernel::route::{NHRP, TunnelRoute};
use crate::kernel::{self, Kernel};
use dataplane::messages::Request;
use ipnet::IpNet;
use packet::peer::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, oneshot};

/// One thing to do.
#[derive(Debug)]
pub enum Step {
    /// From now on this is the datapath; `None`: there is none, and requests to it are dropped.
    Attach(Option<Sender>),
    /// A request to the datapath.
    Datapath(Request),
    /// Set the interface up: needed once the datapath has made it, and whenever its settings change.
    Prepare(Interface),
    /// Install a permanent neighbour.
    SetNeighbour(IpAddr, Mac),
    /// Give it up, without loss.
    RemoveNeighbour(IpAddr),
    /// Install a route by the tunnel.
    AddRoute(TunnelRoute),
    /// Remove it.
    RemoveRoute(TunnelRoute),
    /// Make the kernel's neighbours and shortcut routes on the interface exactly these.
    Reconcile {
        /// Neighbours.
        neighbours: BTreeMap<IpAddr, Mac>,
        /// Shortcut routes.
        shortcuts: Vec<TunnelRoute>,
    },
    /// Remove the routes of this protocol by the tunnel whose prefix is not among these.
    Sweep {
        /// Route protocol.
        protocol: u8,
        /// What stays.
        keep: BTreeSet<IpNet>,
    },
    /// Tell when everything before is done.
    Barrier(oneshot::Sender<()>),
}

/// The interface as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// MTU, octets of an inner IP packet.
    pub mtu: u32,
    /// Our addresses, with the networks' prefix lengths.
    pub addresses: Vec<IpNet>,
    /// The tunnel's networks.
    pub networks: Vec<IpNet>,
}

/// What the executor reports.
#[derive(Debug)]
pub enum Report {
    /// The interface is set up.
    Prepared(Link),
    /// The kernel refused something.
    KernelFailed(kernel::Error),
    /// The datapath does not answer any more.
    DatapathFailed(datapath::Error),
}

/// The queue of steps.
#[derive(Clone, Debug)]
pub struct Executor {
    steps: mpsc::UnboundedSender<Step>,
    /// Steps pushed and not done.
    pending: Arc<AtomicUsize>,
}

impl Executor {
    /// Starts it. The queue is not bounded: what fills it is bounded by the engine, and dropping a step is no option.
    #[must_use]
    pub fn start(kernel: Kernel) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (steps, receiver) = mpsc::unbounded_channel();
        let (reports, report_receiver) = mpsc::unbounded_channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let worker =
            Worker { kernel, datapath: None, interface: None, reports, pending: Arc::clone(&pending) };
        tokio::spawn(worker.run(receiver));
        (Self { steps, pending }, report_receiver)
    }

    /// Puts a step at the end of the queue.
    pub fn push(&self, step: Step) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        // The worker ends only with the last `Executor`.
        let _ = self.steps.send(step);
    }

    /// Is everything done that was pushed?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.load(Ordering::Relaxed) == 0
    }

    /// Waits until everything pushed so far is done.
    pub async fn settled(&self) {
        let (tell, told) = oneshot::channel();
        self.push(Step::Barrier(tell));
        let _ = told.await;
    }
}

struct Worker {
    kernel: Kernel,
    datapath: Option<Sender>,
    interface: Option<u32>,
    reports: mpsc::UnboundedSender<Report>,
    pending: Arc<AtomicUsize>,
}

impl Worker {
    async fn run(mut self, mut steps: mpsc::UnboundedReceiver<Step>) {
        while let Some(step) = steps.recv().await {
            if !matches!(step, Step::Datapath(_)) {
                self.settle().await;
            }
            match step {
                Step::Attach(sender) => self.datapath = sender,
                Step::Datapath(request) => self.request(request).await,
                Step::Barrier(tell) => drop(tell.send(())),
                step => {
                    if let Err(error) = self.kernel_step(step).await {
                        let _ = self.reports.send(Report::KernelFailed(error));
                    }
                }
            }
            self.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn request(&mut self, request: Request) {
        let Some(datapath) = &mut self.datapath else { return };
        if let Err(error) = datapath.send(request).await {
            self.lose(error);
        }
    }

    async fn settle(&mut self) {
        let Some(datapath) = &mut self.datapath else { return };
        if let Err(error) = datapath.settled().await {
            self.lose(error);
        }
    }

    fn lose(&mut self, error: datapath::Error) {
        self.datapath = None;
        let _ = self.reports.send(Report::DatapathFailed(error));
    }

    async fn kernel_step(&mut self, step: Step) -> Result<(), kernel::Error> {
        if let Step::Prepare(wanted) = step {
            let link = prepare(&self.kernel, &wanted).await?;
            self.interface = Some(link.index);
            let _ = self.reports.send(Report::Prepared(link));
            return Ok(());
        }
        // Without an interface there is nothing to change; `Reconcile` comes after the next `Prepare`.
        let Some(index) = self.interface else { return Ok(()) };
        match step {
            Step::SetNeighbour(address, mac) => self.kernel.set_neighbour(index, address, mac).await,
            Step::RemoveNeighbour(address) => self.kernel.release_neighbour(index, address).await,
            Step::AddRoute(route) => self.kernel.add_route(index, &route).await,
            Step::RemoveRoute(route) => self.kernel.remove_route(index, &route).await,
            Step::Reconcile { neighbours, shortcuts } => {
                reconcile(&self.kernel, index, &neighbours, &shortcuts).await
            }
            Step::Sweep { protocol, keep } => {
                for route in self.kernel.tunnel_routes(index, protocol).await? {
                    if !keep.contains(&route.prefix) {
                        self.kernel.remove_route(index, &route).await?;
                    }
                }
                Ok(())
            }
            Step::Attach(_) | Step::Datapath(_) | Step::Prepare(_) | Step::Barrier(_) => Ok(()),
        }
    }
}

async fn prepare(kernel: &Kernel, wanted: &Interface) -> Result<Link, kernel::Error> {
    let link = kernel.prepare_link(&wanted.name, wanted.mtu).await?;
    kernel.set_addresses(link.index, &wanted.addresses, &wanted.networks).await?;
    Ok(link)
}

/// Repairs what differs. New rows first, so that a packet always finds a way.
async fn reconcile(
    kernel: &Kernel,
    index: u32,
    neighbours: &BTreeMap<IpAddr, Mac>,
    shortcuts: &[TunnelRoute],
) -> Result<(), kernel::Error> {
    let present = kernel.permanent_neighbours(index).await?;
    for (address, mac) in neighbours.iter().filter(|(a, m)| present.get(a) != Some(m)) {
        kernel.set_neighbour(index, *address, *mac).await?;
    }
    let routes = kernel.tunnel_routes(index, NHRP).await?;
    for route in shortcuts.iter().filter(|r| !routes.contains(r)) {
        kernel.add_route(index, route).await?;
    }
    // A replaced route has another next hop and the same prefix and metric: it is gone already.
    let kept = |r: &TunnelRoute| shortcuts.iter().any(|s| (s.prefix, s.metric) == (r.prefix, r.metric));
    for route in routes.iter().filter(|r| !kept(r)) {
        kernel.remove_route(index, route).await?;
    }
    for address in present.keys().filter(|a| !neighbours.contains_key(a)) {
        kernel.release_neighbour(index, *address).await?;
    }
    Ok(())
}
