//! The agent's API, as a story asks it: blocking, and with patience.

use crate::error::{Error, Result};
use crate::wait::{self, PATIENCE};
use rpc::AgentClient;
use rpc::agent::{
    CacheEntry, CacheRequest, Check, ClearRequest, Clearing, DiagnoseRequest, Hub, PathReply, PathRequest,
    Peer, PeersRequest, RekeyRequest, SasRequest, Session, Shortcut, ShortcutsRequest, StatusReply,
    StatusRequest, Tunnel,
};
use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Asks one agent.
pub struct Ask {
    name: String,
    socket: PathBuf,
}

impl Ask {
    pub(crate) fn new(name: &str, socket: &Path) -> Self {
        Self { name: name.to_owned(), socket: socket.to_owned() }
    }

    /// The whole status.
    pub fn status(&self) -> Result<StatusReply> {
        self.call(async |mut c| c.status(StatusRequest {}).await)
    }

    /// The only tunnel there is.
    pub fn tunnel(&self) -> Result<Tunnel> {
        let mut tunnels = self.status()?.tunnels;
        match tunnels.len() {
            1 => Ok(tunnels.remove(0)),
            n => Err(Error::other(format!("{} has {n} tunnels", self.name))),
        }
    }

    /// The hubs, by priority.
    pub fn hubs(&self) -> Result<Vec<Hub>> {
        Ok(self.tunnel()?.hubs)
    }

    /// Counters by name.
    pub fn counters(&self) -> Result<HashMap<String, u64>> {
        Ok(self.tunnel()?.counters.into_iter().collect())
    }

    /// One counter; one that was never counted is 0.
    pub fn counter(&self, name: &str) -> Result<u64> {
        Ok(self.counters()?.get(name).copied().unwrap_or(0))
    }

    /// All peers.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        Ok(self.call(async |mut c| c.peers(PeersRequest::default()).await)?.peers)
    }

    /// The peer with this tunnel address.
    pub fn peer(&self, tunnel_address: &str) -> Result<Peer> {
        let found =
            self.peers()?.into_iter().find(|p| p.tunnel_addresses.iter().any(|a| a == tunnel_address));
        found.ok_or_else(|| Error::other(format!("{} knows no peer {tunnel_address}", self.name)))
    }

    /// NHRP's cache.
    pub fn cache(&self) -> Result<Vec<CacheEntry>> {
        Ok(self.call(async |mut c| c.cache(CacheRequest::default()).await)?.entries)
    }

    /// Direct paths.
    pub fn shortcuts(&self) -> Result<Vec<Shortcut>> {
        Ok(self.call(async |mut c| c.shortcuts(ShortcutsRequest::default()).await)?.shortcuts)
    }

    /// Which way a packet goes.
    pub fn path(&self, source: &str, destination: &str) -> Result<PathReply> {
        let request = || PathRequest { source: source.to_owned(), destination: destination.to_owned() };
        self.call(async |mut c| c.path(request()).await)
    }

    /// The checks.
    pub fn diagnose(&self) -> Result<Vec<Check>> {
        Ok(self.call(async |mut c| c.diagnose(DiagnoseRequest {}).await)?.checks)
    }

    /// Gives up shortcuts, all of them with an empty prefix.
    pub fn clear(&self, prefix: &str) -> Result<u32> {
        let request = || ClearRequest { prefix: prefix.to_owned(), ..ClearRequest::default() };
        Ok(self.call(async |mut c| c.clear(request()).await)?.shortcuts)
    }

    /// IKE sessions and their SAs.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        Ok(self.call(async |mut c| c.sas(SasRequest::default()).await)?.sessions)
    }

    /// The session with who has this tunnel address.
    pub fn session(&self, tunnel_address: &str) -> Result<Session> {
        let sessions = self.sessions()?;
        let found = sessions.iter().find(|s| s.tunnel_addresses.iter().any(|a| a == tunnel_address));
        found.cloned().ok_or_else(|| {
            Error::other(format!("{} has no session with {tunnel_address}: {sessions:?}", self.name))
        })
    }

    /// Ends IKE sessions, all of them, or those with one peer.
    pub fn clear_sessions(&self, peer: &str) -> Result<u32> {
        let request = || ClearRequest {
            what: Clearing::Sessions.into(),
            peer: peer.to_owned(),
            ..ClearRequest::default()
        };
        Ok(self.call(async |mut c| c.clear(request()).await)?.sessions)
    }

    /// Replaces the keys of the sessions with a peer: of the IKE SA, or of its children.
    pub fn rekey(&self, peer: &str, ike: bool) -> Result<u32> {
        let request = || RekeyRequest { interface: String::new(), peer: peer.to_owned(), ike };
        Ok(self.call(async |mut c| c.rekey(request()).await)?.sessions)
    }

    /// Waits until the agent answers at all.
    pub fn wait_ready(&self) -> Result {
        wait::until(&format!("{} to answer", self.name), PATIENCE, || self.status().map(drop))
    }

    /// Waits until this many hubs are up.
    pub fn wait_hubs(&self, count: usize) -> Result {
        wait::until(&format!("{count} hubs of {} to be up", self.name), PATIENCE, || {
            let hubs = self.hubs()?;
            let up = hubs.iter().filter(|h| h.up).count();
            if up >= count { Ok(()) } else { Err(Error::other(format!("{hubs:?}"))) }
        })
    }

    /// Waits until this many spokes are registered here.
    pub fn wait_registrations(&self, count: u32) -> Result {
        wait::until(&format!("{count} registrations at {}", self.name), PATIENCE, || {
            let tunnel = self.tunnel()?;
            if tunnel.registrations >= count {
                Ok(())
            } else {
                Err(Error::other(format!("{}", tunnel.registrations)))
            }
        })
    }

    /// Waits until BGP to this many neighbours is established.
    pub fn wait_bgp(&self, count: usize) -> Result {
        wait::until(&format!("{count} BGP sessions of {}", self.name), PATIENCE, || {
            let neighbours = self.tunnel()?.bgp_neighbours;
            let up = neighbours.iter().filter(|n| n.state == "Established").count();
            if up >= count { Ok(()) } else { Err(Error::other(format!("{neighbours:?}"))) }
        })
    }

    /// Waits until packets to a destination go this way (`kind` of the path).
    pub fn wait_path(&self, destination: &str, kind: &str) -> Result<PathReply> {
        self.wait_path_for(destination, kind, PATIENCE)
    }

    /// The same with another patience.
    pub fn wait_path_for(&self, destination: &str, kind: &str, patience: Duration) -> Result<PathReply> {
        wait::until(&format!("the path from {} to {destination} by {kind}", self.name), patience, || {
            let path = self.path("", destination)?;
            if path.kind == kind { Ok(path) } else { Err(Error::other(format!("{path:?}"))) }
        })
    }

    fn call<T, F>(&self, request: impl FnOnce(AgentClient) -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    {
        let ask = async {
            let client = rpc::connect(&self.socket).await.map_err(|e| Error::other(chain(&e)))?;
            request(client).await.map_err(|s| Error::other(format!("{}: {}", s.code(), s.message())))
        };
        // The timer must be made where there is a runtime.
        let outcome = runtime()?.block_on(async { tokio::time::timeout(Duration::from_secs(10), ask).await });
        let answer = outcome.unwrap_or_else(|_| Err(Error::other("no answer within 10 s")));
        answer
            .map(tonic::Response::into_inner)
            .map_err(|e| Error::other(format!("ask the agent of {}: {e}", self.name)))
    }
}

/// One runtime for all stories of a test program.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| e.to_string())
    });
    made.as_ref().map_err(Error::other)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
