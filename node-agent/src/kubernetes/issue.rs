//! Keeps one tunnel of this node in certificates: asks for one, waits for it as long as it takes, renews it in time.

use super::follow::News;
use super::keys::{Keys, KeysError};
use super::renewal::{Due, due};
use super::request::{self, Subject, Verdict};
use crate::agent::Shared;
use crate::clock;
use crate::source::Problem;
use crds::conditions::reasons;
use crds::spec::IssuerRef;
use futures::{StreamExt as _, TryStreamExt as _};
use identity::pki::Claims;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{DynamicObject, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use rpc::agent::{Event, Severity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

/// After something went wrong, at first and at most. Each attempt is another object of the API server's.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// Somebody may set the clock: it is looked at this often.
const LOOK: Duration = Duration::from_secs(600);
/// An operator signs within a second; who waits longer says so.
const SOON: Duration = Duration::from_secs(5);

/// What certificate is wanted, and of whom.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) subject: Subject,
    /// Name of the tunnel's interface, by which events are known.
    pub(super) interface: String,
    pub(super) claims: Claims,
    /// cert-manager's issuer; `None`: the operator.
    pub(super) issuer: Option<IssuerRef>,
    /// One that was got before this second since 1970 is replaced.
    pub(super) issued_after: Option<u64>,
    /// What certificates are judged by: roots, and lists of revoked ones.
    pub(super) trust: (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>),
    pub(super) folder: PathBuf,
}

/// Sees to it until the handle is dropped.
pub(super) fn start(
    want: Want,
    client: Client,
    namespace: &str,
    shared: &Arc<Shared>,
    news: mpsc::Sender<News>,
) -> AbortOnDropHandle<()> {
    let namespace = namespace.to_owned();
    let issue = Issue { want, client, namespace, shared: Arc::clone(shared), news };
    AbortOnDropHandle::new(tokio::spawn(issue.run()))
}

struct Issue {
    want: Want,
    client: Client,
    namespace: String,
    shared: Arc<Shared>,
    news: mpsc::Sender<News>,
}

/// Why there is no certificate.
enum Failure {
    /// The API server did not take the request, or does not answer.
    Server(kube::Error),
    /// The request is gone, and nobody answered it.
    Gone,
    /// The signer said no.
    Refused(String),
    /// What came can't be used, or the files can't be written.
    Keys(KeysError),
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        Self::Keys(error)
    }
}

impl Issue {
    async fn run(self) {
        let mut pause = RETRY.0;
        loop {
            match self.due() {
                Ok(Due::At(at)) => {
                    pause = RETRY.0;
                    self.tell(Ok(())).await;
                    let wait = Duration::from_secs(at.saturating_sub(unix_seconds()));
                    tokio::time::sleep(wait.min(LOOK)).await;
                    continue;
                }
                Ok(Due::Now(why)) => {
                    let Subject { tunnel, .. } = &self.want.subject;
                    tracing::info!(%tunnel, %why, "asking for a certificate");
                    match self.obtain().await {
                        Ok(()) => {
                            self.say(Severity::Normal, "CertificateIssued", "there is a new certificate");
                            self.tell(Ok(())).await;
                        }
                        Err(failure) => self.fail(failure).await,
                    }
                }
                Err(error) => self.fail(error.into()).await,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    fn due(&self) -> Result<Due, KeysError> {
        let now = unix_seconds();
        let held = Keys::open(&self.want.folder)?.held(self.trust(), now);
        Ok(due(held.as_ref(), &self.want.claims, self.want.issued_after, now))
    }

    /// Asks, and waits for the answer.
    async fn obtain(&self) -> Result<(), Failure> {
        let keys = Keys::open(&self.want.folder)?;
        let request = keys.request(&self.want.claims)?;
        let name = self.want.subject.name(&request);
        let answer = match &self.want.issuer {
            None => {
                let api = Api::<CertificateSigningRequest>::all(self.client.clone());
                let object = request::to_operator(&self.want.subject, &request);
                self.ask(&api, &name, &object, request::from_operator).await
            }
            Some(issuer) => {
                let kind = request::cert_manager();
                let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &kind);
                let object = request::to_cert_manager(&self.want.subject, &request, issuer);
                self.ask(&api, &name, &object, request::from_cert_manager).await
            }
        };
        match answer {
            Ok(chain) => Ok(keys.accept(&chain, self.trust())?),
            Err(failure) => {
                if matches!(failure, Failure::Refused(_)) {
                    // To ask the same again is of no use.
                    keys.discard()?;
                }
                Err(failure)
            }
        }
    }

    async fn ask<K>(
        &self,
        api: &Api<K>,
        name: &str,
        object: &K,
        judge: impl Fn(&K) -> Verdict,
    ) -> Result<Vec<u8>, Failure>
    where
        K: kube::Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
    {
        match api.create(&PostParams::default(), object).await {
            // An agent before this one has filed it.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Failure::Server(error)),
            Ok(_) => {}
        }
        let told = watch_object(api.clone(), name).default_backoff();
        // While the server is away, it is waited for.
        let told = told.inspect_err(|e| self.shared.reach.watch_failed("certificate request", e));
        let mut told = std::pin::pin!(told.filter_map(|told| std::future::ready(told.ok())));
        let late = tokio::time::sleep(SOON);
        let mut late = std::pin::pin!(late);
        let mut said = false;
        loop {
            tokio::select! {
                heard = told.next() => match heard {
                    Some(Some(object)) => match judge(&object) {
                        Verdict::Pending => {}
                        Verdict::Issued(chain) => return Ok(chain),
                        Verdict::Refused(why) => return Err(Failure::Refused(why)),
                    },
                    _ => return Err(Failure::Gone),
                },
                () = &mut late, if !said => {
                    said = true;
                    self.tell(Err(self.problem(reasons::CERTIFICATE_PENDING, self.waiting(name)))).await;
                }
            }
        }
    }

    fn waiting(&self, name: &str) -> String {
        let Subject { node, .. } = &self.want.subject;
        match &self.want.issuer {
            None => format!(
                "nobody has signed node {node}'s request yet: is the operator running? kubectl describe csr {name}"
            ),
            Some(issuer) => format!(
                "{} {} has not signed node {node}'s request yet: kubectl -n {} describe certificaterequest {name}",
                issuer.kind, issuer.name, self.namespace
            ),
        }
    }

    async fn fail(&self, failure: Failure) {
        let problem = match failure {
            Failure::Gone => return,
            Failure::Server(error) => {
                self.shared.reach.failed("certificate request", &error);
                let kube::Error::Api(status) = error else { return };
                let message = format!("the API server did not take this node's request: {}", status.message);
                self.problem(reasons::CERTIFICATE_DENIED, message)
            }
            Failure::Refused(why) => {
                let message = format!("the signer refused this node's certificate: {why}");
                self.say(Severity::Warning, "CertificateDenied", &message);
                self.problem(reasons::CERTIFICATE_DENIED, message)
            }
            Failure::Keys(error) => {
                self.problem(reasons::INVALID, format!("this node's certificate: {error}"))
            }
        };
        self.tell(Err(problem)).await;
    }

    fn problem(&self, reason: &'static str, message: String) -> Problem {
        Problem::of_tunnel(&self.want.subject.tunnel, reason, message)
    }

    async fn tell(&self, how: Result<(), Problem>) {
        // If nobody listens, this task ends as well.
        let _ = self.news.send(News::Certificate(self.want.subject.tunnel.clone(), how)).await;
    }

    fn say(&self, severity: Severity, reason: &str, message: &str) {
        // Nobody may be watching.
        let _ = self.shared.live.send(Event {
            time_ms: clock::unix_millis(),
            interface: self.want.interface.clone(),
            reason: reason.to_owned(),
            severity: severity.into(),
            message: message.to_owned(),
            ..Event::default()
        });
    }

    fn trust(&self) -> (&[u8], &[u8]) {
        (&self.want.trust.0, &self.want.trust.1)
    }
}

fn unix_seconds() -> u64 {
    clock::unix_millis() / 1000
}
