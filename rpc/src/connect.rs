//! The client's end of the agent's socket.

use crate::agent::agent_client;
use crate::cni::cni_client;
use hyper_util::rt::TokioIo;
use std::path::Path;
use tonic::transport::{Channel, Endpoint, Error, Uri};

/// A connected client of the agent.
pub type AgentClient = agent_client::AgentClient<Channel>;

/// A connected client of the agent's service for the CNI plugin.
pub type CniClient = cni_client::CniClient<Channel>;

/// Connects to the agent that listens on `socket`.
pub async fn connect(socket: &Path) -> Result<AgentClient, Error> {
    channel(socket).await.map(AgentClient::new)
}

/// The same, for the CNI plugin.
pub async fn connect_cni(socket: &Path) -> Result<CniClient, Error> {
    channel(socket).await.map(CniClient::new)
}

async fn channel(socket: &Path) -> Result<Channel, Error> {
    let socket = socket.to_owned();
    // The URI is required by HTTP/2 and means nothing on a unix socket.
    Endpoint::from_static("http://agent.invalid")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
}
