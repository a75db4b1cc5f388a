//! The API server as source of the configuration, and what the node tells it.
//!
//! The node's own `DmvpnNode` and the Secrets it names are watched, one watch each, so that a token lets nobody read more
//! than that. Where certificates are issued to it, the node makes keys and asks for them. All of it becomes the same
//! outcomes as a folder of manifests does. What came last is kept on the node; so the server may be away for as long as it
//! likes, also while the agent starts. Back come the status of the `DmvpnNode`, and Events.

mod cache;
mod desired;
mod events;
mod file;
mod follow;
mod issue;
mod keys;
mod reach;
mod renewal;
mod request;
mod schedule;
mod status;
pub mod way;
mod writer;

pub use reach::Reach;

use crate::agent::Shared;
use crate::config::TunnelConfig;
use crate::source::{About, Outcome, Outcomes};
use cache::{Cache, Desired, Known};
use crds::DmvpnNode;
use desired::Circumstances;
use follow::{News, follow};
use issue::Want;
use k8s_openapi::api::core::v1::Secret;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// Objects that are applied together arrive one after another: how long to wait for the next.
const QUIET: Duration = Duration::from_millis(50);
/// How long to wait for Secrets that are named and have not been heard of, before what is there is told.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between attempts to find out how the API server is reached: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Tells what the API server says about this node; until it answers, what it said last.
pub fn start(about: &About, namespace: &str, shared: &Arc<Shared>) -> Outcomes {
    let (outcomes, receiver) = mpsc::channel(1);
    let (news, heard) = mpsc::channel(64);
    let state = about.state.path();
    let follower = Follower {
        about: about.clone(),
        shared: Arc::clone(shared),
        cache: Cache::new(state, &about.node),
        known: Known::default(),
        circumstances: Circumstances {
            certificates: state.join("certificates"),
            namespace: namespace.to_owned(),
            workers: about.workers,
            ..Circumstances::default()
        },
        last: BTreeMap::new(),
        told: None,
        object: watch::channel(None).0,
        followed: BTreeMap::new(),
        issued: BTreeMap::new(),
        news,
    };
    tokio::spawn(follower.run(heard, outcomes));
    receiver
}

struct Follower {
    about: About,
    shared: Arc<Shared>,
    cache: Cache,
    known: Known,
    circumstances: Circumstances,
    /// How each tunnel ran last.
    last: BTreeMap<String, TunnelConfig>,
    told: Option<Outcome>,
    /// The node's own object, for those who write about it.
    object: watch::Sender<Option<DmvpnNode>>,
    /// The watches of Secrets, by name.
    followed: BTreeMap<String, AbortOnDropHandle<()>>,
    /// Who sees to certificates, by tunnel.
    issued: BTreeMap<String, (Want, AbortOnDropHandle<()>)>,
    news: mpsc::Sender<News>,
}

impl Follower {
    async fn run(mut self, mut heard: mpsc::Receiver<News>, outcomes: mpsc::Sender<Outcome>) {
        if let Some(known) = self.cache.load() {
            tracing::info!("starting with what the API server said last");
            self.known = known;
            self.tell(&outcomes).await;
        }
        let (client, server) = tokio::select! {
            reached = reached(&self.shared.reach) => reached,
            () = outcomes.closed() => return,
        };
        let _way = server.map(|server| way::start(server, self.shared.disturbances.clone()));
        let node = Api::<DmvpnNode>::all(client.clone());
        let reach = &self.shared.reach;
        let make = |node: Result<Option<DmvpnNode>, String>| News::Node(node.map(|node| node.map(Box::new)));
        let _node = follow(&node, &self.about.node, "own DmvpnNode", reach, self.news.clone(), make);
        let object = || self.object.subscribe();
        let _writer = writer::start(node, &self.shared, object());
        let _events = events::start(client.clone(), &self.shared, object());
        let mut deadline = None;
        loop {
            self.follow_secrets(&client);
            self.follow_certificates(&client);
            // What is not known yet is waited for, but not forever.
            let incomplete = self.is_incomplete();
            let until = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            let news = tokio::select! {
                () = outcomes.closed() => return,
                news = heard.recv() => news,
                () = tokio::time::sleep_until(until), if incomplete => None,
            };
            let changed = news.is_some_and(|news| self.hear(news));
            while let Ok(Some(news)) = timeout_at(Instant::now() + QUIET, heard.recv()).await {
                self.hear(news);
            }
            if self.is_incomplete() && Instant::now() < until {
                continue;
            }
            if !self.is_incomplete() {
                deadline = None;
            }
            if changed {
                self.keep();
            }
            self.tell(&outcomes).await;
        }
    }

    /// Takes in what was heard. Does it have to be kept?
    fn hear(&mut self, news: News) -> bool {
        match news {
            News::Node(Ok(object)) => {
                self.known.desired = object.as_ref().map(|node| Desired {
                    generation: node.metadata.generation.unwrap_or_default(),
                    spec: node.spec.clone(),
                });
                self.object.send_replace(object.map(|node| *node));
                self.forget_certificates();
                true
            }
            // It is not known what the node should do: nothing changes.
            News::Node(Err(_)) => false,
            News::Certificate(tunnel, Ok(())) => {
                self.circumstances.issuance.remove(&tunnel);
                false
            }
            News::Certificate(tunnel, Err(problem)) => {
                self.circumstances.issuance.insert(tunnel, problem);
                false
            }
            News::Secret(name, Ok(Some(secret))) => {
                self.circumstances.missing.remove(&name);
                self.known.secrets.insert(name, (*secret).into());
                true
            }
            News::Secret(name, Ok(None)) => {
                self.circumstances.missing.insert(name, "it does not exist".to_owned());
                false
            }
            News::Secret(name, Err(why)) => {
                self.circumstances.missing.insert(name, why);
                false
            }
        }
    }

    /// Watches exactly the Secrets that the tunnels name, and forgets others.
    fn follow_secrets(&mut self, client: &Client) {
        let named = desired::secrets(&self.known);
        self.followed.retain(|name, _| named.contains(name));
        self.known.secrets.retain(|name, _| named.contains(name));
        self.circumstances.missing.retain(|name, _| named.contains(name));
        for name in named {
            if self.followed.contains_key(&name) {
                continue;
            }
            let api = Api::<Secret>::namespaced(client.clone(), &self.circumstances.namespace);
            let what = format!("Secret {name}");
            let of = name.clone();
            let make = move |secret: Result<Option<Secret>, String>| {
                News::Secret(of.clone(), secret.map(|secret| secret.map(Box::new)))
            };
            let task = follow(&api, &name, &what, &self.shared.reach, self.news.clone(), make);
            self.followed.insert(name, task);
        }
    }

    /// Keeps exactly those tunnels in certificates whose certificates are issued to this node.
    fn follow_certificates(&mut self, client: &Client) {
        let mut wanted = desired::wants(&self.known, &self.circumstances.certificates, &self.about.node);
        self.issued.retain(|tunnel, (want, _)| wanted.get(tunnel) == Some(want));
        wanted.retain(|tunnel, _| !self.issued.contains_key(tunnel));
        for (tunnel, want) in wanted {
            let (client, namespace) = (client.clone(), &self.circumstances.namespace);
            let task = issue::start(want.clone(), client, namespace, &self.shared, self.news.clone());
            self.issued.insert(tunnel, (want, task));
        }
        let issued = &self.issued;
        self.circumstances.issuance.retain(|tunnel, _| issued.contains_key(tunnel));
    }

    /// Removes keys of tunnels that this node has no more.
    fn forget_certificates(&self) {
        let folders = std::fs::read_dir(&self.circumstances.certificates).into_iter().flatten().flatten();
        for folder in folders {
            let named = |name: &str| desired::has_issued(&self.known, name);
            if folder.file_name().to_str().is_some_and(named) {
                continue;
            }
            if let Err(error) = std::fs::remove_dir_all(folder.path()) {
                tracing::warn!(%error, folder = %folder.path().display(), "cannot remove a key that is of no use");
            }
        }
    }

    /// Is a Secret named of which nothing has been heard?
    fn is_incomplete(&self) -> bool {
        let known = |name: &String| {
            self.known.secrets.contains_key(name) || self.circumstances.missing.contains_key(name)
        };
        !desired::secrets(&self.known).iter().all(known)
    }

    fn keep(&self) {
        if let Err(error) = self.cache.store(&self.known) {
            tracing::warn!(%error, "what the API server says can't be kept on this node: it can't start without it");
        }
    }

    async fn tell(&mut self, outcomes: &mpsc::Sender<Outcome>) {
        let outcome = desired::outcome(&self.known, &self.circumstances, &mut self.last);
        if self.told.as_ref() != Some(&outcome) {
            self.told = Some(outcome.clone());
            // If nobody listens, the loop ends as well.
            let _ = outcomes.send(outcome).await;
        }
    }
}

/// A client for the API server; it need not answer yet.
pub async fn client(reach: &Reach) -> Client {
    reached(reach).await.0
}

/// The same, and the server's address where it is not a name.
async fn reached(reach: &Reach) -> (Client, Option<IpAddr>) {
    let (mut pause, longest) = RETRY;
    loop {
        match configure().await {
            Ok(reached) => return reached,
            Err(why) => reach.refused("how to reach the API server", &why),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// By `KUBECONFIG`, where that is set; else as a pod of the cluster.
async fn configure() -> Result<(Client, Option<IpAddr>), String> {
    let config = if std::env::var_os("KUBECONFIG").is_some() {
        Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(|e| e.to_string())?
    } else {
        Config::incluster().map_err(|e| e.to_string())?
    };
    let host = config.cluster_url.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse().ok();
    Ok((Client::try_from(config).map_err(|e| e.to_string())?, address))
}
