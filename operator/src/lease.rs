//! Leader election by a Lease, as Kubernetes' own controllers do it: one acts, others stand by.
//!
//! Clocks are not compared: a candidate takes a Lease over when it has not seen it change for as long as its holder said.
//! A holder that cannot renew stops before that.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::{Duration, Instant};

/// Name of the Lease.
pub const NAME: &str = "dmvpn-operator";
/// A Lease that has not changed for so long is free.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long stops.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a holder renews, and a candidate looks.
const PERIOD: Duration = Duration::from_secs(3);

/// One replica's part in the election.
pub struct Election {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    watching: Watching,
}

impl Election {
    /// Of the replica `identity`, by a Lease in `namespace`.
    pub fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            watching: Watching::default(),
        }
    }

    /// Returns when we lead. `answered` is called whenever the API server has answered.
    pub async fn win(&mut self, answered: impl Fn()) {
        loop {
            match self.attempt(DURATION).await {
                Ok(true) => return,
                Ok(false) => answered(),
                Err(error) => tracing::warn!(%error, "the Lease cannot be read or written"),
            }
            tokio::time::sleep(crate::retry::jittered(PERIOD)).await;
        }
    }

    /// Renews, and returns when we lead no more.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt(DURATION)).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::warn!("another replica leads");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be renewed"),
                Err(_) => {
                    tracing::error!("the Lease could not be renewed in time: this replica stops acting");
                    return;
                }
            }
        }
    }

    /// Takes the Lease away from whoever has it, for so long; its holder stops when it sees that.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn seize(&mut self, duration: Duration) -> kube::Result<()> {
        let lease = self.api.get_opt(NAME).await?;
        self.write(lease, duration).await
    }

    /// How long a holder needs, at most, to see that it leads no more.
    pub const fn notice(&self) -> Duration {
        PERIOD.saturating_mul(2)
    }

    /// Frees the Lease, so that another can take it at once.
    pub async fn release(&mut self) {
        let freed = async {
            let Some(mut lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(PERIOD, freed).await {
            tracing::info!(%error, "the Lease could not be freed; it runs out by itself");
        }
    }

    /// Takes or renews the Lease, if it is ours or free. Do we have it?
    async fn attempt(&mut self, duration: Duration) -> kube::Result<bool> {
        let lease = self.api.get_opt(NAME).await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        if !self.watching.may_take(spec, &self.identity, Instant::now()) {
            return Ok(false);
        }
        match self.write(lease, duration).await {
            Ok(()) => Ok(true),
            // Another was faster.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, lease: Option<Lease>, duration: Duration) -> kube::Result<()> {
        let exists = lease.is_some();
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        lease.spec = Some(next(lease.spec.as_ref(), &self.identity, duration, Timestamp::now()));
        if exists {
            // With the version that was read: of several who try, one succeeds.
            self.api.replace(NAME, &PostParams::default(), &lease).await?;
        } else {
            self.api.create(&PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// What a candidate has seen of a Lease, and when it changed last.
#[derive(Debug, Default)]
struct Watching {
    seen: Option<(LeaseSpec, Instant)>,
}

impl Watching {
    fn may_take(&mut self, lease: Option<&LeaseSpec>, identity: &str, now: Instant) -> bool {
        let Some(lease) = lease else { return true };
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == identity {
            return true;
        }
        let since = match &self.seen {
            Some((seen, since)) if seen == lease => *since,
            _ => {
                self.seen = Some((lease.clone(), now));
                now
            }
        };
        let seconds = lease.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        now.duration_since(since) >= seconds.map_or(DURATION, Duration::from_secs)
    }
}

/// The Lease as `identity` has it from now on.
fn next(before: Option<&LeaseSpec>, identity: &str, duration: Duration, now: Timestamp) -> LeaseSpec {
    let held = before.filter(|lease| lease.holder_identity.as_deref() == Some(identity));
    let transitions = before.and_then(|lease| lease.lease_transitions).unwrap_or_default();
    LeaseSpec {
        acquire_time: held.and_then(|lease| lease.acquire_time.clone()).or(Some(MicroTime(now))),
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
        lease_transitions: Some(if held.is_some() { transitions } else { transitions.saturating_add(1) }),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: i64) -> LeaseSpec {
        next(None, holder, DURATION, Timestamp::from_second(renewed).unwrap())
    }

    #[test]
    fn a_lease_that_nobody_has_is_taken_at_once() {
        let now = Instant::now();
        assert!(Watching::default().may_take(None, "a", now));
        let free = LeaseSpec { holder_identity: None, ..lease("b", 0) };
        assert!(Watching::default().may_take(Some(&free), "a", now));
        assert!(Watching::default().may_take(Some(&lease("a", 0)), "a", now));
    }

    #[test]
    fn anothers_lease_is_taken_only_when_it_was_not_renewed_for_its_whole_duration() {
        let (mut watching, start) = (Watching::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!watching.may_take(Some(&lease("b", 0)), "a", start));
        assert!(!watching.may_take(Some(&lease("b", 0)), "a", after(14)));
        assert!(!watching.may_take(Some(&lease("b", 9)), "a", after(14)), "renewed meanwhile");
        assert!(!watching.may_take(Some(&lease("b", 9)), "a", after(28)));
        assert!(watching.may_take(Some(&lease("b", 9)), "a", after(29)));
    }

    #[test]
    fn clocks_that_differ_change_nothing() {
        let (mut watching, start) = (Watching::default(), Instant::now());
        assert!(!watching.may_take(Some(&lease("b", 4_000_000_000)), "a", start));
        assert!(watching.may_take(Some(&lease("b", 4_000_000_000)), "a", start + DURATION));
    }

    #[test]
    fn renewing_keeps_the_time_of_taking_and_taking_over_counts() {
        let first = lease("a", 1);
        let renewed = next(Some(&first), "a", DURATION, Timestamp::from_second(5).unwrap());
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_eq!(renewed.lease_transitions, first.lease_transitions);
        let taken = next(Some(&renewed), "b", DURATION, Timestamp::from_second(9).unwrap());
        assert_eq!(taken.lease_transitions, Some(2));
        assert_ne!(taken.acquire_time, first.acquire_time);
    }
}
