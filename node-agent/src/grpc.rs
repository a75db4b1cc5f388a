//! The API on a unix socket that only root may open.

use crate::agent::Shared;
use crate::control::Handle;
use crate::{cni, diagnose, sessions, status};
use dmvpn::Clear;
use ipnet::IpNet;
use rpc::agent::agent_server::{Agent, AgentServer};
use rpc::agent::{
    CacheReply, CacheRequest, CaptureRequest, CapturedPacket, ClearReply, ClearRequest, Clearing,
    DiagnoseReply, DiagnoseRequest, Event, PathReply, PathRequest, PeersReply, PeersRequest, RekeyReply,
    RekeyRequest, SasReply, SasRequest, ShortcutsReply, ShortcutsRequest, StatusReply, StatusRequest,
    WatchRequest,
};
use rpc::cni::cni_server::CniServer;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::{fs, io};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// Serves the API until the task is aborted.
pub async fn serve(socket: &Path, shared: Arc<Shared>, cni: cni::Service) -> io::Result<()> {
    let listener = listen(socket)?;
    let service = AgentServer::new(Api { shared });
    let incoming = UnixListenerStream::new(listener);
    tonic::transport::Server::builder()
        .add_service(service)
        .add_service(CniServer::new(cni))
        .serve_with_incoming(incoming)
        .await
        .map_err(io::Error::other)
}

/// Takes the place of a socket that a killed agent left; a living one holds the lock on the run directory.
pub(crate) fn listen(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

struct Api {
    shared: Arc<Shared>,
}

impl Api {
    /// The tunnels with this interface; an empty name means all.
    fn tunnels(&self, interface: &str) -> Result<Vec<Handle>, Status> {
        let mut tunnels = self.shared.tunnels();
        if !interface.is_empty() {
            tunnels.retain(|t| t.interface() == interface);
            if tunnels.is_empty() {
                return Err(Status::not_found(format!("no tunnel has interface {interface}")));
            }
        }
        Ok(tunnels)
    }
}

type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Agent for Api {
    type WatchStream = Streaming<Event>;
    type CaptureStream = Streaming<CapturedPacket>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let mut tunnels = Vec::new();
        for tunnel in self.tunnels("")? {
            tunnels.extend(tunnel.snapshot().await.as_ref().map(status::tunnel));
        }
        Ok(Response::new(StatusReply {
            node: self.shared.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.shared.uptime_ms(),
            tunnels,
            configuration: Some(self.shared.configuration()),
        }))
    }

    async fn peers(&self, request: Request<PeersRequest>) -> Result<Response<PeersReply>, Status> {
        let mut peers = Vec::new();
        for tunnel in self.tunnels(&request.get_ref().interface)? {
            peers.extend(tunnel.snapshot().await.as_ref().map(status::peers).unwrap_or_default());
        }
        Ok(Response::new(PeersReply { peers }))
    }

    async fn cache(&self, request: Request<CacheRequest>) -> Result<Response<CacheReply>, Status> {
        let mut entries = Vec::new();
        for tunnel in self.tunnels(&request.get_ref().interface)? {
            entries.extend(tunnel.snapshot().await.as_ref().map(status::cache).unwrap_or_default());
        }
        Ok(Response::new(CacheReply { entries }))
    }

    async fn shortcuts(
        &self,
        request: Request<ShortcutsRequest>,
    ) -> Result<Response<ShortcutsReply>, Status> {
        let mut shortcuts = Vec::new();
        for tunnel in self.tunnels(&request.get_ref().interface)? {
            shortcuts.extend(tunnel.snapshot().await.as_ref().map(status::shortcuts).unwrap_or_default());
        }
        Ok(Response::new(ShortcutsReply { shortcuts }))
    }

    async fn sas(&self, request: Request<SasRequest>) -> Result<Response<SasReply>, Status> {
        let mut sessions = Vec::new();
        for tunnel in self.tunnels(&request.get_ref().interface)? {
            sessions.extend(tunnel.snapshot().await.as_ref().map(sessions::sessions).unwrap_or_default());
        }
        Ok(Response::new(SasReply { sessions }))
    }

    async fn path(&self, request: Request<PathRequest>) -> Result<Response<PathReply>, Status> {
        let destination = parse::<IpAddr>("destination", &request.get_ref().destination)?;
        let source = match request.get_ref().source.as_str() {
            "" => None,
            source => Some(parse::<IpAddr>("source", source)?),
        };
        let mut best = None;
        for tunnel in self.tunnels("")? {
            let Some(view) = tunnel.explain(destination).await else { continue };
            let mut reply = status::path(tunnel.interface(), &view);
            if let Some(source) = source
                && let Some(way) = tunnel.explain(source).await
            {
                status::path_from(&mut reply, &way);
            }
            // The tunnel that carries it knows more than one that says "not mine".
            if best.is_none() || ["shortcut", "hub", "local"].contains(&reply.kind.as_str()) {
                best = Some(reply);
            }
        }
        best.map(Response::new).ok_or_else(|| Status::unavailable("no tunnel has started yet"))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let live = self.shared.live.subscribe();
        let mut history = Vec::new();
        let count = usize::try_from(request.get_ref().history).unwrap_or(usize::MAX);
        for tunnel in self.tunnels("")? {
            history.extend(tunnel.history(count).await);
        }
        history.sort_by_key(|event| event.time_ms);
        let skip = history.len().saturating_sub(count);
        let past = tokio_stream::iter(history.into_iter().skip(skip).map(Ok));
        Ok(Response::new(Box::pin(past.chain(follow(live)))))
    }

    async fn diagnose(&self, _: Request<DiagnoseRequest>) -> Result<Response<DiagnoseReply>, Status> {
        let mut snapshots = Vec::new();
        for tunnel in self.tunnels("")? {
            snapshots.extend(tunnel.snapshot().await);
        }
        let (by_gateways, configuration) = (self.shared.by_gateways.all(), self.shared.configuration());
        let checks = diagnose::run(&snapshots, &by_gateways, &configuration).await;
        Ok(Response::new(DiagnoseReply { checks }))
    }

    async fn capture(
        &self,
        request: Request<CaptureRequest>,
    ) -> Result<Response<Self::CaptureStream>, Status> {
        let CaptureRequest { interface, count } = request.into_inner();
        let mut tunnels = self.tunnels(&interface)?;
        let first = tunnels.pop().ok_or_else(|| Status::unavailable("there is no tunnel"))?;
        let packets = first.capture().await;
        for tunnel in &tunnels {
            tunnel.follow_captures().await;
        }
        let wanted = move |p: &CapturedPacket| interface.is_empty() || p.interface == interface;
        let packets = follow(packets).filter(move |p| p.as_ref().map_or(true, &wanted));
        let count = if count == 0 { usize::MAX } else { usize::try_from(count).unwrap_or(usize::MAX) };
        Ok(Response::new(Box::pin(packets.take(count))))
    }

    async fn clear(&self, request: Request<ClearRequest>) -> Result<Response<ClearReply>, Status> {
        let ClearRequest { interface, prefix, what, peer } = request.into_inner();
        let mut reply = ClearReply::default();
        let tunnels = self.tunnels(&interface)?;
        match Clearing::try_from(what) {
            Ok(Clearing::Shortcuts) => {
                let what = match prefix.as_str() {
                    "" => Clear::Shortcuts,
                    text => Clear::Shortcut(match text.parse::<IpNet>() {
                        Ok(prefix) => prefix.network(),
                        Err(_) => parse("prefix", text)?,
                    }),
                };
                for tunnel in tunnels {
                    reply.shortcuts = reply.shortcuts.saturating_add(count(tunnel.clear(what).await));
                }
            }
            Ok(Clearing::Sessions) => {
                for tunnel in tunnels {
                    reply.sessions = reply.sessions.saturating_add(count(tunnel.clear_sessions(&peer).await));
                }
            }
            Ok(Clearing::Registrations) => {
                for tunnel in tunnels {
                    let forgotten = count(tunnel.clear_registrations(&peer).await);
                    reply.registrations = reply.registrations.saturating_add(forgotten);
                }
            }
            Err(_) => return Err(Status::invalid_argument("this agent knows nothing of that kind to clear")),
        }
        Ok(Response::new(reply))
    }

    async fn rekey(&self, request: Request<RekeyRequest>) -> Result<Response<RekeyReply>, Status> {
        let RekeyRequest { interface, peer, ike } = request.into_inner();
        let mut reply = RekeyReply::default();
        for tunnel in self.tunnels(&interface)? {
            reply.sessions = reply.sessions.saturating_add(count(tunnel.rekey(&peer, ike).await));
        }
        Ok(Response::new(reply))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Follows a broadcast for as long as the client listens. A client that is too slow misses some, and goes on.
fn follow<T: Clone + Send + 'static>(mut live: broadcast::Receiver<T>) -> ReceiverStream<Result<T, Status>> {
    let (send, receive) = mpsc::channel(256);
    tokio::spawn(async move {
        loop {
            let item = tokio::select! {
                () = send.closed() => return,
                item = live.recv() => item,
            };
            match item {
                Ok(item) => {
                    if send.send(Ok(item)).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    ReceiverStream::new(receive)
}

fn parse<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{what} {text:?} is not an address")))
}
