//! Names of hubs, resolved again and again: a hub may move.

use dmvpn::HubConfig;
use nhrp::NhsId;
use packet::Path;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often a name that resolves is looked up again. The system's resolver keeps to the records' own time to live.
const REFRESH: Duration = Duration::from_secs(30);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// A name that does not answer in this time has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of one name that are used.
const MAX_ADDRESSES: usize = 16;

/// A hub whose address must be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// Which hub.
    pub id: NhsId,
    /// Its DNS name.
    pub name: String,
    /// How packets to it are wrapped: one path for each of these, in this order, per address.
    pub wrappings: Vec<packet::Encapsulation>,
}

impl HubName {
    /// The paths to try when the name has these addresses. Every address by the first wrapping comes before any
    /// address by the second.
    #[must_use]
    pub fn paths(&self, addresses: &[IpAddr]) -> Vec<Path> {
        let by = |encapsulation| addresses.iter().map(move |remote| Path { remote: *remote, encapsulation });
        self.wrappings.iter().flat_map(|e| by(*e)).collect()
    }
}

/// The outcome of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Which hub.
    pub id: NhsId,
    /// Its name.
    pub name: String,
    /// Its paths, or why there are none.
    pub paths: Result<Vec<Path>, String>,
}

/// Looks up every name, forever. Told at first and at every change; a failure is told once. Stops when dropped.
pub struct Resolver {
    _tasks: JoinSet<()>,
}

impl Resolver {
    /// Starts.
    #[must_use]
    pub fn start(names: Vec<HubName>, results: &mpsc::Sender<Resolved>) -> Self {
        let mut tasks = JoinSet::new();
        for name in names {
            tasks.spawn(follow(name, results.clone()));
        }
        Self { _tasks: tasks }
    }
}

async fn follow(hub: HubName, results: mpsc::Sender<Resolved>) {
    let mut told = None;
    loop {
        let paths = look_up(&hub.name).await.map(|addresses| hub.paths(&addresses));
        let pause = if paths.is_ok() { REFRESH } else { RETRY };
        if told.as_ref() != Some(&paths) {
            told = Some(paths.clone());
            let result = Resolved { id: hub.id, name: hub.name.clone(), paths };
            if results.send(result).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, 0))).await;
    let found = found.map_err(|_| "no answer from the resolver".to_owned())?.map_err(|e| e.to_string())?;
    let mut addresses: Vec<IpAddr> = found.map(|a| a.ip()).collect();
    // Resolvers rotate their answers; an order of our own keeps a rotation from looking like a move.
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
}

/// Does this hub need looking up?
#[must_use]
pub fn needs_resolving(hub: &HubConfig) -> bool {
    hub.paths.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::Encapsulation;

    #[test]
    fn every_address_is_tried_in_udp_before_any_in_plain_gre() {
        let hub = HubName {
            id: NhsId(1),
            name: "hub.example.com".to_owned(),
            wrappings: vec![Encapsulation::Udp { port: 4754 }, Encapsulation::Gre],
        };
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        assert_eq!(hub.paths(&[a, b]), [Path::udp(a, 4754), Path::udp(b, 4754), Path::gre(a), Path::gre(b)]);
    }

    #[tokio::test]
    async fn a_name_that_resolves_is_told_once() {
        let (send, mut receive) = mpsc::channel(4);
        let hub = HubName { id: NhsId(7), name: "localhost".to_owned(), wrappings: vec![Encapsulation::Gre] };
        let _resolver = Resolver::start(vec![hub], &send);
        let told = receive.recv().await.unwrap();
        assert_eq!(told.id, NhsId(7));
        assert!(told.paths.unwrap().iter().all(|p| p.remote.is_loopback()));
    }
}
