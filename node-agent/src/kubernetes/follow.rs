//! Follows one object of the API server by its name.

use super::Reach;
use crate::source::Problem;
use crds::DmvpnNode;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Error, watch_object};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Something was heard. An object that does not exist is `None`; one that may not be read, the server's refusal.
#[derive(Debug)]
pub(super) enum News {
    /// Of the node's own `DmvpnNode`.
    Node(Result<Option<Box<DmvpnNode>>, String>),
    /// Of the certificate that is issued to a tunnel of this node: there is one, maybe a new one; or what is wrong.
    Certificate(String, Result<(), Problem>),
    /// Of a Secret.
    Secret(String, Result<Option<Box<Secret>>, String>),
}

/// Tells the object `name` as it is, and each change, until the handle is dropped. `what` it is, in words.
pub(super) fn follow<K, M>(
    api: &Api<K>,
    name: &str,
    what: &str,
    reach: &Reach,
    news: mpsc::Sender<News>,
    make: M,
) -> AbortOnDropHandle<()>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    M: Fn(Result<Option<K>, String>) -> News + Send + 'static,
{
    let (reach, what) = (reach.clone(), what.to_owned());
    // Backs off to half a minute, with jitter.
    let stream = watch_object(api.clone(), name).default_backoff();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(told) = stream.next().await {
            let heard = match told {
                Ok(object) => {
                    reach.well(&what);
                    Ok(object)
                }
                Err(error) => {
                    reach.watch_failed(&what, &error);
                    // Only the server can say no; that it is silent changes nothing.
                    let Some(why) = refusal(&error) else { continue };
                    Err(why)
                }
            };
            if news.send(make(heard)).await.is_err() {
                return;
            }
        }
    }))
}

fn refusal(error: &Error) -> Option<String> {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 403 =>
        {
            Some(format!("the agent may not read it ({})", status.message))
        }
        _ => None,
    }
}
