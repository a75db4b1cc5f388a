//! The CAs that sign nodes' certificates: their Secrets, and whether they can sign what the nodes need. That is found out
//! when a CA is put in place and not only when a node asks, which for most is weeks later, and at night.

use crate::apply::{WriteError, patiently};
use crate::world::{Resource, World};
use crds::conditions::reasons;
use identity::pki::{Authority, Claims, date};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// How long a CA that was read is used without reading its Secret again: a thousand nodes ask at once after an install.
/// No longer: who replaced a CA wants what is asked for then signed by the new one.
const KEPT: Duration = Duration::from_secs(1);
/// Seconds before its end from which a CA cuts nodes' certificates short, which are asked for with 30 days.
const SOON: u64 = 30 * 24 * 3600;

/// A CA, or why its Secret holds none that can be used.
pub type Read = Result<Arc<Authority>, String>;

/// CAs by their Secrets, and when they were read.
#[derive(Default)]
pub struct Authorities(Mutex<BTreeMap<String, (Instant, Read)>>);

impl Authorities {
    /// The CA in this Secret.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn get(&self, client: &Client, namespace: &str, name: &str) -> Result<Read, WriteError> {
        // Held while it is read: others who want the same wait for it.
        let mut all = self.0.lock().await;
        all.retain(|_, (read, _)| read.elapsed() < KEPT);
        if let Some((_, known)) = all.get(name) {
            return Ok(known.clone());
        }
        let read = read(client, namespace, name).await?;
        all.insert(name.to_owned(), (Instant::now(), read.clone()));
        Ok(read)
    }
}

async fn read(client: &Client, namespace: &str, name: &str) -> Result<Read, WriteError> {
    let unusable = |what: String| Ok(Err(format!("Secret {namespace}/{name}{what}")));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match patiently(secrets.get(name)).await {
        Ok(secret) => secret,
        Err(error) if error.is_gone() => {
            return unusable(
                ", which caSecret names, is not there: make it with tls.crt and tls.key of the cluster's CA (dmvpnctl \
                 pki makes them)"
                    .to_owned(),
            );
        }
        Err(error) if error.is_forbidden() => {
            return unusable(
                ", which caSecret names, may not be read by the operator: add it to the chart's value caSecrets"
                    .to_owned(),
            );
        }
        Err(error) => return Err(error),
    };
    let mut data = secret.data.unwrap_or_default();
    let mut entry = |key: &str| data.remove(key).map(|ByteString(value)| Zeroizing::new(value));
    let (Some(certificate), Some(key)) = (entry("tls.crt"), entry("tls.key")) else {
        return unusable(", which caSecret names, must have the entries tls.crt and tls.key".to_owned());
    };
    match Authority::from_pem(&certificate, &key) {
        Ok(authority) => Ok(Ok(Arc::new(authority))),
        Err(error) => unusable(format!(": {}", error.0)),
    }
}

/// What a look at a CA has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It can sign whatever the nodes need, for a while yet.
    Usable,
    /// It can't, or not for long: reason and message of the condition.
    Bad(&'static str, String),
}

/// What one resource's CA was seen to permit, so that only what is new is tried.
#[derive(Debug, Default)]
pub struct Examined {
    chain: String,
    permitted: BTreeMap<String, Claims>,
}

impl Examined {
    /// Looks whether the CA of Secret `name` can sign these claims, by nodes, at this time (seconds since 1970).
    pub fn look(
        &mut self,
        name: &str,
        authority: &Authority,
        wanted: &BTreeMap<String, Claims>,
        now: u64,
    ) -> Finding {
        let chain = authority.chain_pem();
        if self.chain != chain {
            *self = Self { chain, ..Self::default() };
        }
        self.permitted.retain(|node, claims| wanted.get(node) == Some(claims));
        let mut refused = Vec::new();
        for (node, claims) in wanted {
            if self.permitted.contains_key(node) {
                continue;
            }
            match authority.permits(claims) {
                Ok(()) => drop(self.permitted.insert(node.clone(), claims.clone())),
                Err(error) => refused.push(format!("node {node}: {}", error.0)),
            }
        }
        let (end, another) = (authority.not_after(), "make another (dmvpnctl pki intermediate)");
        let ends = format!("{}, and {another} before that", date(end));
        match refused.as_slice() {
            _ if end <= now => {
                let message = format!("Secret {name}: the CA ran out at {}: {another}", date(end));
                Finding::Bad(reasons::CA_EXPIRED, message)
            }
            [first, others @ ..] => {
                let more = match others.len() {
                    0 => String::new(),
                    count => format!("; and {count} more nodes"),
                };
                let message = format!(
                    "Secret {name}: the CA may not issue what nodes are to claim ({first}{more}): give the cluster a CA \
                     that covers it"
                );
                Finding::Bad(reasons::CA_REFUSES, message)
            }
            [] if end - now < SOON => Finding::Bad(
                reasons::CA_EXPIRES_SOON,
                format!("Secret {name}: the CA signs, but what it signs ends with it at {ends}"),
            ),
            [] => Finding::Usable,
        }
    }
}

/// What the nodes of a resource are to claim, as they were told.
pub fn claims(resource: &Resource<'_>, nodes: &BTreeSet<String>, world: &World) -> BTreeMap<String, Claims> {
    let role = resource.network.resource.role();
    let of = |name: &String| {
        let mut tunnels = world.dmvpn_nodes.get(name)?.spec.tunnels.iter();
        let tunnel = tunnels.find(|t| t.name == resource.name.name && t.role == role)?;
        let claims = Claims {
            name: tunnel.identity.clone(),
            tunnel_addresses: tunnel.addresses.clone(),
            prefixes: tunnel.announce.clone(),
        };
        Some((name.clone(), claims))
    };
    nodes.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::pki::{Confines, Validity};

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 24 * 3600;

    fn authority(days: u64, prefix: &str) -> Authority {
        let validity = Validity { not_before: NOW - DAY, not_after: NOW + days * DAY };
        let confines = Confines {
            domains: vec!["a.example.com".into()],
            tunnel_addresses: vec!["10.200.16.0/24".parse().unwrap()],
            prefixes: vec![prefix.parse().unwrap()],
        };
        let root = Authority::root("root", Validity { not_after: NOW + 4000 * DAY, ..validity }).unwrap();
        root.intermediate("a", &confines, validity).unwrap()
    }

    fn nodes(count: u8) -> BTreeMap<String, Claims> {
        let claims = |number: u8| Claims {
            name: format!("a-{number}.a.example.com"),
            tunnel_addresses: vec![[10, 200, 16, number].into()],
            prefixes: vec![format!("10.1.{number}.0/24").parse().unwrap()],
        };
        (1..=count).map(|number| (format!("a-{number}"), claims(number))).collect()
    }

    fn look(authority: &Authority, now: u64) -> (&'static str, String) {
        match Examined::default().look("ca", authority, &nodes(3), now) {
            Finding::Usable => ("Usable", String::new()),
            Finding::Bad(reason, message) => (reason, message),
        }
    }

    #[test]
    fn a_ca_that_covers_its_nodes_is_usable_until_it_cuts_their_certificates_short() {
        let good = authority(365, "10.1.0.0/16");
        assert_eq!(look(&good, NOW).0, "Usable");
        let (reason, message) = look(&good, NOW + 340 * DAY);
        assert_eq!(reason, "CAExpiresSoon");
        assert!(message.contains(&date(NOW + 365 * DAY)), "{message}");
        assert_eq!(look(&good, NOW + 365 * DAY).0, "CAExpired");
    }

    #[test]
    fn a_ca_that_is_too_narrow_says_for_whom_before_anybody_asks() {
        let (reason, message) = look(&authority(365, "10.1.2.0/24"), NOW);
        assert_eq!(reason, "CARefuses");
        assert!(message.contains("node a-1:") && message.contains("and 1 more nodes"), "{message}");
    }

    #[test]
    fn what_was_permitted_is_tried_again_only_when_it_changed_or_the_ca_did() {
        let (good, mut examined) = (authority(365, "10.1.0.0/16"), Examined::default());
        assert_eq!(examined.look("ca", &good, &nodes(2), NOW), Finding::Usable);
        assert_eq!(examined.permitted.len(), 2);
        assert_eq!(examined.look("ca", &good, &nodes(1), NOW), Finding::Usable);
        assert_eq!(examined.permitted.len(), 1, "forgotten");
        let narrow = authority(365, "10.2.0.0/16");
        assert!(matches!(examined.look("ca", &narrow, &nodes(1), NOW), Finding::Bad("CARefuses", _)));
        assert!(examined.permitted.is_empty());
    }
}
