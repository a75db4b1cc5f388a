//! How others talk to the loop.

use super::Snapshot;
use crate::config::TunnelConfig;
use dmvpn::Clear;
use dmvpn::view::PathView;
use rpc::agent::CapturedPacket;
use std::net::IpAddr;
use tokio::sync::{broadcast, mpsc, oneshot};

/// A request to the loop.
#[derive(Debug)]
pub enum Command {
    /// A new configuration of the same tunnel. Answered by whether it was taken: another station's is not.
    Reconfigure(Box<TunnelConfig>, oneshot::Sender<bool>),
    /// What is it like now, with fresh counters?
    Snapshot(oneshot::Sender<Snapshot>),
    /// Which way does a packet go?
    Explain(IpAddr, oneshot::Sender<Option<PathView>>),
    /// Clear something. Answered by the number of shortcuts that went.
    Clear(Clear, oneshot::Sender<usize>),
    /// End IKE sessions: of a peer by identity, tunnel address or path; empty: all. Answered by how many.
    ClearSessions(String, oneshot::Sender<usize>),
    /// Replace the keys of IKE sessions (of their IKE SAs, if so, or of their children): of a peer by identity, tunnel
    /// address or path; empty: all. Answered by how many.
    Rekey(String, bool, oneshot::Sender<usize>),
    /// (Hub) forget registrations: of a peer by identity or tunnel address; empty: all. Answered by how many.
    ClearRegistrations(String, oneshot::Sender<usize>),
    /// The last events.
    History(usize, oneshot::Sender<Vec<rpc::agent::Event>>),
    /// Somebody began or ended to receive captured packets.
    FollowCaptures,
    /// End.
    Shutdown {
        /// Tell hubs and peers, and let go of the datapath; otherwise leave everything to a successor.
        deregister: bool,
        /// Told when done.
        done: oneshot::Sender<()>,
    },
}

/// The other end of a loop's ear. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    interface: String,
    commands: mpsc::Sender<Command>,
    captured: broadcast::Sender<CapturedPacket>,
}

impl Handle {
    pub(super) fn new(
        interface: &str,
        commands: mpsc::Sender<Command>,
        captured: broadcast::Sender<CapturedPacket>,
    ) -> Self {
        Self { interface: interface.to_owned(), commands, captured }
    }

    /// The interface of the tunnel.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// A new configuration of the same tunnel. False: it makes another station of this node, and nothing was changed.
    /// End this tunnel and begin another.
    pub async fn reconfigure(&self, config: TunnelConfig) -> bool {
        self.ask(|taken| Command::Reconfigure(Box::new(config), taken)).await.unwrap_or(false)
    }

    /// What the tunnel is like now; `None`: it has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        self.ask(Command::Snapshot).await
    }

    /// Which way a packet goes; `None`: the tunnel has not started yet.
    pub async fn explain(&self, destination: IpAddr) -> Option<PathView> {
        self.ask(|reply| Command::Explain(destination, reply)).await?
    }

    /// Clears. Returns how many shortcuts went.
    pub async fn clear(&self, what: Clear) -> usize {
        self.ask(|reply| Command::Clear(what, reply)).await.unwrap_or(0)
    }

    /// Ends IKE sessions of a peer, or all. Returns how many.
    pub async fn clear_sessions(&self, peer: &str) -> usize {
        self.ask(|reply| Command::ClearSessions(peer.to_owned(), reply)).await.unwrap_or(0)
    }

    /// Replaces the keys of IKE sessions of a peer, or all: those of IKE SAs, or of their children. Returns how many.
    pub async fn rekey(&self, peer: &str, ike: bool) -> usize {
        self.ask(|reply| Command::Rekey(peer.to_owned(), ike, reply)).await.unwrap_or(0)
    }

    /// Forgets registrations of a peer, or all. Returns how many.
    pub async fn clear_registrations(&self, peer: &str) -> usize {
        self.ask(|reply| Command::ClearRegistrations(peer.to_owned(), reply)).await.unwrap_or(0)
    }

    /// The last `count` events, oldest first.
    pub async fn history(&self, count: usize) -> Vec<rpc::agent::Event> {
        self.ask(|reply| Command::History(count, reply)).await.unwrap_or_default()
    }

    /// Overlay packets, of every tunnel of the node, for as long as the receiver lives.
    pub async fn capture(&self) -> broadcast::Receiver<CapturedPacket> {
        let receiver = self.captured.subscribe();
        let _ = self.commands.send(Command::FollowCaptures).await;
        receiver
    }

    /// Looks whether anybody still wants captured packets.
    pub async fn follow_captures(&self) {
        let _ = self.commands.send(Command::FollowCaptures).await;
    }

    /// Ends the loop and waits for it.
    pub async fn shutdown(&self, deregister: bool) {
        self.ask(|done| Command::Shutdown { deregister, done }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
