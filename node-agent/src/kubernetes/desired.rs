//! From a node's specification and Secrets to what it is to run. Pure, but for certificates, which lie in files.
//!
//! A tunnel that can't be read as it stands now keeps what it had: a Secret that was deleted by mistake, or a certificate
//! that is not signed yet, takes no network down. Other tunnels of the node are not concerned.

use super::cache::Known;
use super::issue::Want;
use super::request::Subject;
use crate::config::TunnelConfig;
use crate::security;
use crate::source::{Outcome, Problem};
use crds::conditions::reasons;
use crds::manifest::{resolve, resolve_optional};
use crds::node::NodeTunnel;
use crds::spec::{Certificates, IssuedBy};
use identity::pki::Claims;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What is known besides.
#[derive(Debug, Default)]
pub(super) struct Circumstances {
    /// Secrets that are not to be had, and why.
    pub(super) missing: BTreeMap<String, String>,
    /// What is wrong with certificates that are issued to this node, by tunnel.
    pub(super) issuance: BTreeMap<String, Problem>,
    /// Where those certificates lie, in a folder by tunnel.
    pub(super) certificates: PathBuf,
    /// Namespace of the Secrets.
    pub(super) namespace: String,
    /// Datapath threads per tunnel.
    pub(super) workers: u16,
}

/// What the node is to do. `last` holds how each tunnel ran last.
pub(super) fn outcome(
    known: &Known,
    circumstances: &Circumstances,
    last: &mut BTreeMap<String, TunnelConfig>,
) -> Outcome {
    let Some(desired) = &known.desired else {
        last.clear();
        return Outcome { tunnels: Some(Vec::new()), ..Outcome::default() };
    };
    let tunnels = &desired.spec.tunnels;
    last.retain(|name, _| tunnels.iter().any(|tunnel| tunnel.name == *name));
    let mut problems = Vec::new();
    for tunnel in tunnels {
        match read(tunnel, known, circumstances) {
            Ok(config) => {
                last.insert(tunnel.name.clone(), config);
                problems.extend(circumstances.issuance.get(&tunnel.name).cloned());
                problems.extend(lost(tunnel, circumstances));
            }
            Err(problem) => problems.push(problem),
        }
    }
    let by_gateways = desired.spec.by_gateways.clone();
    let protected = tunnels.iter().flat_map(|tunnel| &tunnel.protected_prefixes);
    let protected = protected.chain(by_gateways.iter().flat_map(|told| &told.prefixes));
    Outcome {
        tunnels: Some(last.values().cloned().collect()),
        protected: protected.map(IpNet::trunc).collect(),
        by_gateways,
        problems,
        generation: Some(desired.generation),
    }
}

/// Every Secret that the tunnels name.
pub(super) fn secrets(known: &Known) -> BTreeSet<String> {
    let tunnels = known.desired.iter().flat_map(|desired| &desired.spec.tunnels);
    tunnels.flat_map(security::secrets).collect()
}

/// Certificates of a tunnel that this node asks somebody for.
fn issued(tunnel: &NodeTunnel) -> Option<&Certificates> {
    let certificates = tunnel.security.authentication.as_ref()?.certificates.as_ref()?;
    (certificates.issued_by != IssuedBy::Secret).then_some(certificates)
}

/// The certificates that are to be asked for, by tunnel. What they are judged by must be known.
pub(super) fn wants(known: &Known, certificates: &Path, node: &str) -> BTreeMap<String, Want> {
    let tunnels = known.desired.iter().flat_map(|desired| &desired.spec.tunnels);
    let want = |tunnel: &NodeTunnel| {
        let issued = issued(tunnel)?;
        let roots = resolve(&known.secrets, &issued.trust, "ca.crt").ok()?;
        let lists = resolve_optional(&known.secrets, &issued.trust, "crl.pem").ok()?;
        let want = Want {
            subject: Subject { node: node.to_owned(), tunnel: tunnel.name.clone() },
            interface: tunnel.interface.clone(),
            claims: Claims {
                name: tunnel.identity.clone(),
                tunnel_addresses: tunnel.addresses.clone(),
                prefixes: tunnel.announce.clone(),
            },
            issuer: issued.issuer_ref.clone(),
            issued_after: issued.issued_after.as_ref().and_then(|time| time.0.as_second().try_into().ok()),
            trust: (roots, lists.unwrap_or_default()),
            folder: folder(certificates, &tunnel.name),
        };
        Some((tunnel.name.clone(), want))
    };
    tunnels.filter_map(want).collect()
}

/// Is there a tunnel of this name whose certificate is issued to this node?
pub(super) fn has_issued(known: &Known, name: &str) -> bool {
    let mut tunnels = known.desired.iter().flat_map(|desired| &desired.spec.tunnels);
    tunnels.any(|tunnel| tunnel.name == name && issued(tunnel).is_some())
}

/// Where the certificate of a tunnel lies that was issued to this node. Names of resources are good names of folders.
fn folder(certificates: &Path, tunnel: &str) -> PathBuf {
    certificates.join(tunnel)
}

/// A Secret that the tunnel was made from, and that is not to be had any more.
fn lost(tunnel: &NodeTunnel, circumstances: &Circumstances) -> Option<Problem> {
    let (name, why) = security::secrets(tunnel)
        .into_iter()
        .find_map(|name| circumstances.missing.get(&name).map(|why| (name, why)))?;
    let namespace = &circumstances.namespace;
    let message =
        format!("Secret {namespace}/{name}: {why}; the tunnel goes on with what the Secret said last");
    Some(Problem::of_tunnel(&tunnel.name, reasons::REFERENCE_MISSING, message))
}

fn read(tunnel: &NodeTunnel, known: &Known, circumstances: &Circumstances) -> Result<TunnelConfig, Problem> {
    let problem = |reason, message: String| Problem::of_tunnel(&tunnel.name, reason, message);
    for name in security::secrets(tunnel) {
        if known.secrets.contains_key(&name) {
            continue;
        }
        let why = circumstances.missing.get(&name).map_or("it has not been read yet", String::as_str);
        let namespace = &circumstances.namespace;
        let message = format!(
            "Secret {namespace}/{name} is not there: {why}; make it, and name it in the chart's value `secrets`, so \
             that the agents may read it"
        );
        return Err(problem(reasons::REFERENCE_MISSING, message));
    }
    let mut tunnel = tunnel.clone();
    if issued(&tunnel).is_some() {
        let folder = folder(&circumstances.certificates, &tunnel.name);
        if !folder.join(super::keys::CERTIFICATE).is_file() {
            let pending = || problem(reasons::CERTIFICATE_PENDING, "asking for a certificate".to_owned());
            return Err(circumstances.issuance.get(&tunnel.name).cloned().unwrap_or_else(pending));
        }
        let authentication = tunnel.security.authentication.as_mut();
        if let Some(certificates) = authentication.and_then(|a| a.certificates.as_mut()) {
            certificates.secret = Some(format!("file:{}", folder.display()));
        }
    }
    TunnelConfig::parse(&tunnel, &known.secrets, circumstances.workers)
        .map_err(|error| problem(reasons::INVALID, error.to_string()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::cache::Desired;
    use super::*;
    use crds::manifest::Secret;

    const SPOKE: &str = "apiVersion: kube-dmvpn.io/v1alpha1
kind: DmvpnSpoke
metadata: {name: site}
spec:
  tunnel: {network: 10.200.0.0/16, addresses: 10.200.16.1/32}
  security: {authentication: {preSharedKey: {secret: psk}}}
  hubs: [{address: 198.51.100.1}]
  protectedPrefixes: [10.0.0.0/8]
---
apiVersion: v1
kind: Secret
metadata: {name: psk}
stringData: {psk: thirty-two octets of random text}
";

    pub(crate) fn known() -> Known {
        let manifests = crds::manifest::read_text("site.yaml", SPOKE).unwrap();
        let spec = plan::standalone(&manifests, &plan::NodeFacts::named("a-1")).unwrap();
        Known { desired: Some(Desired { generation: 3, spec }), secrets: manifests.secrets }
    }

    fn names(outcome: &Outcome) -> Vec<&str> {
        outcome.tunnels.iter().flatten().map(|tunnel| tunnel.name.as_str()).collect()
    }

    #[test]
    fn a_specification_and_its_secrets_become_tunnels() {
        let known = known();
        assert_eq!(secrets(&known), BTreeSet::from(["psk".to_owned()]));
        let outcome = outcome(&known, &Circumstances::default(), &mut BTreeMap::new());
        assert_eq!((names(&outcome), outcome.generation), (vec!["site"], Some(3)));
        assert!(outcome.problems.is_empty());
    }

    #[test]
    fn without_its_secret_a_tunnel_does_not_start_and_its_prefixes_are_protected_all_the_same() {
        let known = Known { secrets: BTreeMap::new(), ..known() };
        let outcome = outcome(&known, &Circumstances::default(), &mut BTreeMap::new());
        assert_eq!(names(&outcome), [""; 0]);
        assert_eq!(outcome.problems[0].reason, reasons::REFERENCE_MISSING);
        assert_eq!(outcome.protected, BTreeSet::from(["10.0.0.0/8".parse().unwrap()]));
    }

    #[test]
    fn a_secret_that_went_bad_takes_no_tunnel_down() {
        let (good, mut last) = (known(), BTreeMap::new());
        let before = outcome(&good, &Circumstances::default(), &mut last);
        let empty = Secret::new("psk", BTreeMap::from([("psk".to_owned(), Vec::new())]));
        let bad = Known { secrets: BTreeMap::from([("psk".to_owned(), empty)]), ..good };
        let after = outcome(&bad, &Circumstances::default(), &mut last);
        assert_eq!(after.tunnels, before.tunnels);
        assert_eq!(after.problems[0].reason, reasons::INVALID);
    }

    #[test]
    fn a_secret_that_was_deleted_is_missed_and_used_on() {
        let missing = BTreeMap::from([("psk".to_owned(), "it does not exist".to_owned())]);
        let circumstances = Circumstances { missing, ..Circumstances::default() };
        let outcome = outcome(&known(), &circumstances, &mut BTreeMap::new());
        assert_eq!(names(&outcome), ["site"]);
        assert_eq!(outcome.problems[0].reason, reasons::REFERENCE_MISSING);
    }

    #[test]
    fn a_node_that_nobody_selects_runs_nothing() {
        let (good, mut last) = (known(), BTreeMap::new());
        outcome(&good, &Circumstances::default(), &mut last);
        let none = outcome(&Known::default(), &Circumstances::default(), &mut last);
        assert_eq!(none.tunnels, Some(Vec::new()));
        assert!(last.is_empty() && none.protected.is_empty());
    }
}
