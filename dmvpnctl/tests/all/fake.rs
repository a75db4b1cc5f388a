//! An agent that answers with the fixed replies, on a unix socket in a folder of its own.

use crate::replies;
use rpc::agent::agent_server::{Agent, AgentServer};
use rpc::agent::*;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// The fake; its folder goes when it goes.
pub(crate) struct Fake {
    pub(crate) socket: PathBuf,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let service = AgentServer::new(Service { asked: Arc::clone(&asked) });
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { socket, asked, _folder: folder }
    }
}

struct Service {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn note(&self, request: &impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{request:?}"));
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn items<T: Send + 'static>(items: Vec<T>) -> Answer<Items<T>> {
    Ok(Response::new(Box::pin(tokio_stream::iter(items.into_iter().map(Ok)))))
}

#[tonic::async_trait]
impl Agent for Service {
    type WatchStream = Items<Event>;
    type CaptureStream = Items<CapturedPacket>;

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusReply> {
        Ok(Response::new(replies::status()))
    }

    async fn peers(&self, request: Request<PeersRequest>) -> Answer<PeersReply> {
        self.note(request.get_ref());
        Ok(Response::new(replies::peers()))
    }

    async fn cache(&self, _: Request<CacheRequest>) -> Answer<CacheReply> {
        Ok(Response::new(replies::cache()))
    }

    async fn shortcuts(&self, _: Request<ShortcutsRequest>) -> Answer<ShortcutsReply> {
        Err(Status::unimplemented("unknown method"))
    }

    async fn sas(&self, _: Request<SasRequest>) -> Answer<SasReply> {
        Ok(Response::new(replies::sas()))
    }

    async fn path(&self, request: Request<PathRequest>) -> Answer<PathReply> {
        self.note(request.get_ref());
        Ok(Response::new(replies::path()))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        items(replies::events())
    }

    async fn diagnose(&self, _: Request<DiagnoseRequest>) -> Answer<DiagnoseReply> {
        Ok(Response::new(replies::diagnose(true)))
    }

    async fn capture(&self, _: Request<CaptureRequest>) -> Answer<Self::CaptureStream> {
        items(replies::packets())
    }

    async fn clear(&self, request: Request<ClearRequest>) -> Answer<ClearReply> {
        if request.get_ref().interface == "dmvpn9" {
            return Err(Status::not_found("no tunnel dmvpn9: this node has dmvpn0"));
        }
        self.note(request.get_ref());
        Ok(Response::new(ClearReply { shortcuts: 3, sessions: 1, registrations: 0 }))
    }

    async fn rekey(&self, request: Request<RekeyRequest>) -> Answer<RekeyReply> {
        self.note(request.get_ref());
        Ok(Response::new(RekeyReply { sessions: u32::from(request.get_ref().ike) }))
    }
}
