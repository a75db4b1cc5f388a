//! Prometheus metrics, and the two health questions of a kubelet, over plain HTTP.

use crate::world::World;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use telemetry::Answer;
use tokio::net::TcpListener;

/// A loop that did not go round for so long is stuck.
const STUCK: Duration = Duration::from_secs(900);
/// Seconds of a reconcile.
const BUCKETS: [f64; 9] = [0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    writes: Family<Write, Counter>,
    requests: Family<Outcome, Counter>,
    watches: Family<Kind, Counter>,
    reconciles: Histogram,
    objects: Family<Kind, Gauge>,
    leader: Gauge,
    authorities: Family<Ca, Gauge>,
    /// May we be asked for? A follower is ready too: it is there to take over.
    ready: AtomicBool,
    /// When a leader's loop went round the last time.
    beat: Mutex<Option<Instant>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Write {
    kind: &'static str,
    what: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ca {
    secret: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("dmvpn_operator"),
            writes: Family::default(),
            requests: Family::default(),
            watches: Family::default(),
            reconciles: Histogram::new(BUCKETS),
            objects: Family::default(),
            leader: Gauge::default(),
            authorities: Family::default(),
            ready: AtomicBool::new(false),
            beat: Mutex::new(None),
        };
        let Self {
            registry,
            writes,
            requests,
            watches,
            reconciles,
            objects,
            leader,
            authorities,
            ready: _,
            beat: _,
        } = &mut metrics;
        registry.register("writes", "Writes to the API server", writes.clone());
        registry.register("certificate_requests", "Requests for certificates, by outcome", requests.clone());
        registry.register("watch_failures", "Watches that failed and began again", watches.clone());
        registry.register("reconcile_seconds", "How long a reconcile took", reconciles.clone());
        registry.register("objects", "Objects known, by kind", objects.clone());
        registry.register("leader", "1 on the replica that acts", leader.clone());
        registry.register(
            "ca_expiry_timestamp_seconds",
            "When a CA runs out, by Secret",
            authorities.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// A write to the API server.
    pub fn wrote(&self, kind: &'static str, what: &'static str) {
        self.writes.get_or_create(&Write { kind, what }).inc();
    }

    /// A request for a certificate was settled.
    pub fn signed(&self, outcome: &'static str) {
        self.requests.get_or_create(&Outcome { outcome }).inc();
    }

    /// The CAs in use, by Secret: their last seconds.
    pub fn authorities(&self, all: &BTreeMap<String, u64>) {
        self.authorities.clear();
        for (secret, end) in all {
            let gauge = self.authorities.get_or_create(&Ca { secret: secret.clone() });
            gauge.set(i64::try_from(*end).unwrap_or(i64::MAX));
        }
    }

    /// A watch failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watches.get_or_create(&Kind { kind }).inc();
    }

    /// A reconcile has ended.
    pub fn reconciled(&self, took: Duration) {
        self.reconciles.observe(took.as_secs_f64());
        *self.beat() = Some(Instant::now());
    }

    /// Does the loop of a leader still go round? It does at least every five minutes.
    fn is_alive(&self) -> bool {
        self.beat().is_none_or(|beat| beat.elapsed() < STUCK)
    }

    fn beat(&self) -> MutexGuard<'_, Option<Instant>> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much there is.
    pub fn world(&self, world: &World) {
        let set = |kind, count: usize| {
            self.objects.get_or_create(&Kind { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set("Node", world.nodes.len());
        set("DmvpnNode", world.dmvpn_nodes.len());
        set("resource", world.declared.len());
    }

    /// Are we the one that acts?
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        *self.beat() = None;
    }

    /// As a leader, everything is known; as a follower, the API server answers.
    pub fn synced(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Something with metrics.
pub trait Measured: Send + Sync + 'static {
    /// They.
    fn metrics(&self) -> &Metrics;
}

impl Measured for crate::context::Context {
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// Serves metrics until the task is dropped.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, measured: Arc<impl Measured>) -> io::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot serve metrics on {address}: {e}")))?;
    telemetry::serve(listener, move |path| std::future::ready(answer(&path, measured.metrics()))).await;
    Ok(())
}

fn answer(path: &str, metrics: &Metrics) -> Answer {
    match path {
        "/metrics" => Answer::metrics(metrics.text()),
        "/healthz" if !metrics.is_alive() => {
            Answer::unavailable(format!("nothing was reconciled for {} s\n", STUCK.as_secs()))
        }
        "/healthz" => Answer::good("ok\n"),
        "/readyz" if metrics.ready.load(Ordering::Relaxed) => Answer::good("ok\n"),
        "/readyz" => Answer::unavailable("waiting for the API server: not everything has been listed yet\n"),
        _ => Answer::unknown(),
    }
}
