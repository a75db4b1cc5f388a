//! The gRPC service for the plugin.

use super::Registry;
use super::pods::{Key, Refused};
use rpc::cni::cni_server::Cni;
use rpc::cni::{
    AddReply, AddRequest, Attachment, CheckReply, CheckRequest, CollectReply, CollectRequest, DeleteReply,
    DeleteRequest, PrepareReply, PrepareRequest,
};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone)]
pub struct Service {
    registry: Arc<Registry>,
}

impl Service {
    /// Of these pods.
    #[must_use]
    pub const fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

#[tonic::async_trait]
impl Cni for Service {
    async fn prepare(&self, _: Request<PrepareRequest>) -> Result<Response<PrepareReply>, Status> {
        let facts = self.registry.facts().await;
        let text = |networks: &BTreeSet<ipnet::IpNet>| networks.iter().map(ToString::to_string).collect();
        Ok(Response::new(PrepareReply {
            mtu: facts.mtu,
            networks: text(&facts.networks),
            pod_networks: text(&facts.announced),
        }))
    }

    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddReply>, Status> {
        let request = request.into_inner();
        let mtu = self.registry.facts().await.mtu;
        let added = self.registry.change(|pods| pods.add(&request, mtu)).await;
        let overlay = added.map_err(kernel)?.map_err(|refused| refuse(&refused))?;
        tracing::debug!(attachment = ?request.attachment, pod = ?request.pod, overlay, "attached");
        Ok(Response::new(AddReply { overlay, mtu: if overlay { mtu } else { 0 } }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let key = key(request.into_inner().attachment.as_ref())?;
        // A table that can't be changed keeps an address too many, which the next pod's ADD sets right.
        let deleted = match self.registry.change(|pods| pods.delete(&key)).await {
            Ok(deleted) => deleted,
            Err(error) => {
                tracing::warn!(%error, "cannot take a pod's addresses from the table {}", super::firewall::TABLE);
                None
            }
        };
        tracing::debug!(?key, known = deleted.is_some(), "detached");
        Ok(Response::new(DeleteReply { mtu: deleted.map(|attached| attached.mtu).unwrap_or_default() }))
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckReply>, Status> {
        let CheckRequest { attachment, addresses } = request.into_inner();
        let key = key(attachment.as_ref())?;
        let Some(attached) = self.registry.read(|pods| pods.get(&key).cloned()) else {
            return Ok(Response::new(CheckReply { problems: Vec::new(), known: false }));
        };
        let mut problems = Vec::new();
        for address in &attached.addresses {
            if !addresses.contains(&address.to_string()) {
                problems.push(format!("the agent knows address {address}, which the pod has no more"));
            }
        }
        problems.extend(self.registry.problem().await);
        Ok(Response::new(CheckReply { problems, known: true }))
    }

    async fn collect(&self, request: Request<CollectRequest>) -> Result<Response<CollectReply>, Status> {
        let CollectRequest { network, valid } = request.into_inner();
        let valid: BTreeSet<Key> = valid.iter().map(Key::from).collect();
        let forgotten = self.registry.change(|pods| pods.collect(&network, &valid)).await.map_err(kernel)?;
        if forgotten > 0 {
            tracing::info!(network, forgotten, "attachments that nobody deleted are forgotten");
        }
        Ok(Response::new(CollectReply { forgotten: u32::try_from(forgotten).unwrap_or(u32::MAX) }))
    }
}

fn key(attachment: Option<&Attachment>) -> Result<Key, Status> {
    attachment.map(Key::from).ok_or_else(|| refuse(&Refused::Nameless))
}

fn refuse(refused: &Refused) -> Status {
    match refused {
        Refused::Full => Status::resource_exhausted(refused.to_string()),
        _ => Status::invalid_argument(refused.to_string()),
    }
}

fn kernel(error: io::Error) -> Status {
    Status::internal(format!("the kernel refused nftables rules for the pod: {error}"))
}
