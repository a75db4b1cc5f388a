//! Carries out what [`sign`] says about requests: reads the CA's Secret, approves, signs or denies.

use crate::apply::{WriteError, patiently};
use crate::context::Context;
use crate::events;
use crate::retry::Retries;
use crate::sign::{self, Refusal, Verdict};
use crate::status::Signing;
use crate::watch::Stores;
use crds::conditions::reasons;
use futures::StreamExt as _;
use identity::pki::{Request, Validity};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Seconds within which a change of a `DmvpnNode` has come to us, whom it has reached by then. A request that seems wrong
/// is looked at again for so long: a denial can't be taken back.
const NEWS_ARRIVE: u64 = 5;

/// The longest until a request that waits for its CA is looked at again.
const CA_AWAITED: Duration = Duration::from_secs(20);
/// Requests handled at a time.
const AT_ONCE: usize = 8;

/// Signs until the task is dropped.
pub async fn run(context: Arc<Context>, stores: Arc<Stores>) {
    let signer = Signer {
        agent: format!("system:serviceaccount:{}:{}", context.namespace, crds::kubernetes::AGENT_ACCOUNT),
        context,
    };
    stores.listed().await;
    let mut retries = Retries::within(CA_AWAITED);
    // Of what was handled, older states may still come along in the watch.
    let mut handled: BTreeSet<String> = BTreeSet::new();
    loop {
        let requests = stores.requests.snapshot();
        let uids: BTreeSet<String> = requests.values().filter_map(|csr| csr.uid()).collect();
        handled.retain(|uid| uids.contains(uid));
        retries.retain(|name| requests.contains_key(name));
        let due = requests.values().filter(|csr| {
            retries.is_due(&csr.name_any()) && csr.uid().is_some_and(|uid| !handled.contains(&uid))
        });
        let due = due.map(async |csr| (csr, signer.handle(csr, &stores).await));
        let mut settled = futures::stream::iter(due.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let mut all = Vec::new();
        while let Some(outcome) = settled.next().await {
            all.push(outcome);
        }
        for (csr, outcome) in all {
            let name = csr.name_any();
            match outcome {
                Ok(()) => {
                    retries.forget(&name);
                    handled.extend(csr.uid());
                }
                Err(error) => {
                    tracing::warn!(csr = name, "{error}");
                    retries.failed(&name);
                }
            }
        }
        tokio::select! {
            () = stores.requests_changed.notified() => {}
            () = retries.next_due() => {}
        }
    }
}

/// Why a request could not be handled now; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Authority(String),
    #[error("the API server: {0}")]
    Api(#[from] WriteError),
    /// The agent may have read the node's `DmvpnNode` before it came back to us.
    #[error("{0}; looking again, as the DmvpnNode may just have changed")]
    Early(String),
}

struct Signer {
    context: Arc<Context>,
    agent: String,
}

impl Signer {
    async fn handle(&self, csr: &CertificateSigningRequest, stores: &Stores) -> Result<(), Failed> {
        let (node, tunnel) = sign::subject(csr);
        let tunnel = tunnel.unwrap_or_default().to_owned();
        let node = node.and_then(|node| stores.dmvpn_nodes.get(node));
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        match sign::judge(csr, &self.agent, node.as_deref(), now) {
            Verdict::Nothing => Ok(()),
            Verdict::Refuse(refusal) if refusal.may_be_early() && is_new(csr, now) => {
                Err(Failed::Early(refusal.message))
            }
            Verdict::Refuse(refusal) => self.refuse(csr, refusal).await,
            Verdict::Sign { ca_secret, request, validity } => {
                match self.sign(&ca_secret, &request, validity).await {
                    Ok(Ok(chain)) => {
                        self.issue(csr, chain).await?;
                        self.context.note_signing(&tunnel, Signing::Signed);
                        Ok(())
                    }
                    Ok(Err(refusal)) => {
                        let message = format!("Secret {ca_secret}: {}", refusal.message);
                        self.context.note_signing(&tunnel, Signing::Failed(reasons::CA_REFUSES, message));
                        self.refuse(csr, refusal).await
                    }
                    Err(Failed::Authority(message)) => {
                        let failed = Signing::Failed(reasons::CA_UNUSABLE, message.clone());
                        self.context.note_signing(&tunnel, failed);
                        Err(Failed::Authority(message))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn sign(
        &self,
        ca_secret: &str,
        request: &Request,
        validity: Validity,
    ) -> Result<Result<String, Refusal>, Failed> {
        let Context { client, namespace, authorities, .. } = &*self.context;
        let authority = authorities.get(client, namespace, ca_secret).await?.map_err(Failed::Authority)?;
        Ok(sign::sign(&authority, request, validity))
    }

    async fn issue(&self, csr: &CertificateSigningRequest, chain: String) -> Result<(), Failed> {
        let api: Api<CertificateSigningRequest> = Api::all(self.context.client.clone());
        let name = csr.name_any();
        if !sign::is_approved(csr) {
            let approved = condition("Approved", "ClaimsMatch", "it asks for what the node was told to be");
            let patch = Patch::Merge(conditions(csr, approved));
            patiently(api.patch_approval(&name, &PatchParams::default(), &patch)).await?;
        }
        let patch = json!({"status": {"certificate": ByteString(chain.into_bytes())}});
        patiently(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        self.context.metrics.signed("signed");
        tracing::info!(csr = name, "certificate signed");
        Ok(())
    }

    /// Denies, or where somebody has approved already, says that signing failed.
    async fn refuse(&self, csr: &CertificateSigningRequest, refusal: Refusal) -> Result<(), Failed> {
        let api: Api<CertificateSigningRequest> = Api::all(self.context.client.clone());
        let name = csr.name_any();
        let Refusal { reason, message } = &refusal;
        if sign::is_approved(csr) {
            let patch = Patch::Merge(conditions(csr, condition("Failed", reason, message)));
            patiently(api.patch_status(&name, &PatchParams::default(), &patch)).await?;
        } else {
            let patch = Patch::Merge(conditions(csr, condition("Denied", reason, message)));
            patiently(api.patch_approval(&name, &PatchParams::default(), &patch)).await?;
        }
        self.context.metrics.signed("denied");
        tracing::warn!(csr = name, reason, "certificate denied: {message}");
        let about = csr.object_ref(&());
        events::publish(&self.context, &about, events::Kind::Warning, reason, message).await;
        Ok(())
    }
}

/// Is the request so young that its node's `DmvpnNode` may be newer than the one we know?
fn is_new(csr: &CertificateSigningRequest, now: u64) -> bool {
    let made = csr.metadata.creation_timestamp.as_ref().map(|made| made.0.as_second());
    made.and_then(|made| u64::try_from(made).ok()).is_some_and(|made| now < made.saturating_add(NEWS_ARRIVE))
}

fn condition(type_: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    let now = Some(Time(Timestamp::now()));
    CertificateSigningRequestCondition {
        last_transition_time: now.clone(),
        last_update_time: now,
        message: Some(message.to_owned()),
        reason: Some(reason.to_owned()),
        status: "True".to_owned(),
        type_: type_.to_owned(),
    }
}

/// A patch that adds a condition, of no effect if somebody else was faster.
fn conditions(csr: &CertificateSigningRequest, new: CertificateSigningRequestCondition) -> serde_json::Value {
    let before = csr.status.as_ref().and_then(|status| status.conditions.as_ref());
    let all: Vec<_> = before.into_iter().flatten().cloned().chain([new]).collect();
    json!({
        "metadata": {"resourceVersion": csr.metadata.resource_version},
        "status": {"conditions": all}
    })
}
