//! The agent, on its unix socket. It may be away: that is an ordinary answer, and decided upon by the verbs.

use rpc::CniClient;
use rpc::cni::{
    AddReply, AddRequest, CheckReply, CheckRequest, CollectReply, CollectRequest, DeleteReply, DeleteRequest,
    PrepareReply, PrepareRequest,
};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::{Code, Status};

/// How long the agent may take. A pod's start waits for it.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why the agent could not be asked, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Away(String);

/// The agent of this node.
pub(crate) struct Agent {
    socket: PathBuf,
}

impl Agent {
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self { socket: run_dir.join("agent.sock") }
    }

    pub(crate) fn prepare(&self) -> Result<PrepareReply, Away> {
        self.ask(async |mut client: CniClient| client.prepare(PrepareRequest {}).await)
    }

    pub(crate) fn add(&self, request: AddRequest) -> Result<AddReply, Away> {
        self.ask(async |mut client: CniClient| client.add(request).await)
    }

    pub(crate) fn delete(&self, request: DeleteRequest) -> Result<DeleteReply, Away> {
        self.ask(async |mut client: CniClient| client.delete(request).await)
    }

    pub(crate) fn check(&self, request: CheckRequest) -> Result<CheckReply, Away> {
        self.ask(async |mut client: CniClient| client.check(request).await)
    }

    pub(crate) fn collect(&self, request: CollectRequest) -> Result<CollectReply, Away> {
        self.ask(async |mut client: CniClient| client.collect(request).await)
    }

    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(CniClient) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Away> {
        let socket = self.socket.display();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Away(e.to_string()))?;
        let asking = async {
            let client = rpc::connect_cni(&self.socket).await;
            let client =
                client.map_err(|_| Away(format!("nobody listens on {socket}: is the agent running?")))?;
            question(client).await.map(tonic::Response::into_inner).map_err(|s| away(&s))
        };
        let answered = runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await });
        answered
            .unwrap_or_else(|_| Err(Away(format!("no answer on {socket} within {} s", PATIENCE.as_secs()))))
    }
}

fn away(status: &Status) -> Away {
    match status.code() {
        Code::Unimplemented => Away("the agent is older than this plugin and does not know it".to_owned()),
        _ => Away(status.message().to_owned()),
    }
}
