//! Without Kubernetes: the manifests of a folder, for this one node.

use crate::error::{PlanError, PlanErrors, ResourceName};
use crate::node::{Member, node as plan_node};
use crate::select::needs_labels;
use crate::tunnel::{Network, of_node};
use crate::{AllocateError, NodeFacts};
use crds::DmvpnNodeSpec;
use crds::manifest::{Manifests, resolve};
use crds::spec::{
    AnnounceMode, Authentication, Certificates, IssuedBy, PreSharedKey, Revocation, SecurityMode,
};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What this node does, from the manifests of its folder. There every resource is meant for this node; its tunnel
/// address is `tunnel.pinned` of its name, or `tunnel.addresses` where that is a single host.
///
/// # Errors
/// With everything that must be changed in the manifests.
pub fn standalone(manifests: &Manifests, node: &NodeFacts) -> Result<DmvpnNodeSpec, PlanErrors> {
    let hubs = manifests.hubs.iter().map(|hub| (hub.metadata.name.as_deref(), Network::from(&hub.spec)));
    let spokes =
        manifests.spokes.iter().map(|spoke| (spoke.metadata.name.as_deref(), Network::from(&spoke.spec)));
    let mut errors = Vec::new();
    let mut members = Vec::new();
    for (name, network) in hubs.chain(spokes) {
        let name = name.unwrap_or_default();
        let resource = network.name(name);
        if needs_labels(network.nodes) {
            errors.push(PlanError::SelectorWithoutKubernetes { resource: resource.clone() });
        }
        if network.announce.mode == AnnounceMode::Gateways {
            errors.push(PlanError::GatewaysWithoutKubernetes { resource: resource.clone() });
        }
        check_secrets(&resource, &network, &node.name, manifests, &mut errors);
        let addresses = addresses(&resource, &network, &node.name).unwrap_or_else(|found| {
            errors.extend(found);
            // Stand-ins, so that what is wrong elsewhere is said in the same breath.
            network.networks().iter().filter_map(|network| network.hosts().next()).collect()
        });
        members.push(Member { name, network, addresses });
    }
    if members.is_empty() && errors.is_empty() {
        errors.push(PlanError::Nothing);
    }
    match plan_node(node, &members, None) {
        Ok(spec) if errors.is_empty() => Ok(spec),
        Ok(_) => Err(PlanErrors(errors)),
        Err(PlanErrors(more)) => {
            errors.extend(more);
            Err(PlanErrors(errors))
        }
    }
}

fn addresses(
    resource: &ResourceName,
    network: &Network<'_>,
    node: &str,
) -> Result<Vec<IpAddr>, Vec<PlanError>> {
    let tunnel = network.tunnel;
    let first =
        address(resource, node, tunnel.addresses, &tunnel.pinned, ["spec.tunnel.addresses", "pinned"]);
    let second = tunnel.network_v6.map(|_| {
        address(
            resource,
            node,
            tunnel.addresses_v6,
            &tunnel.pinned_v6,
            ["spec.tunnel.addressesV6", "pinnedV6"],
        )
    });
    let (good, bad): (Vec<_>, Vec<_>) = std::iter::once(first).chain(second).partition(Result::is_ok);
    if bad.is_empty() {
        Ok(good.into_iter().filter_map(Result::ok).collect())
    } else {
        Err(bad.into_iter().filter_map(Result::err).map(|error| *error).collect())
    }
}

fn address(
    resource: &ResourceName,
    node: &str,
    range: Option<IpNet>,
    pinned: &BTreeMap<String, IpAddr>,
    [field, pin]: [&'static str; 2],
) -> Result<IpAddr, Box<PlanError>> {
    let resource = resource.clone();
    if let Some(address) = pinned.get(node) {
        if let Some((second, _)) = pinned.iter().find(|(other, same)| *other != node && *same == address) {
            let source = AllocateError::PinnedTwice {
                first: node.to_owned(),
                second: second.clone(),
                address: *address,
            };
            return Err(PlanError::Allocate { resource, source }.into());
        }
        return Ok(*address);
    }
    let node = node.to_owned();
    match range {
        Some(range) if range.prefix_len() == range.max_prefix_len() => Ok(range.addr()),
        Some(range) => {
            let host = range.max_prefix_len();
            Err(PlanError::AddressNotChosen { resource, field, range, node, host, pin }.into())
        }
        None => Err(PlanError::NotPinned { resource, node, pin }.into()),
    }
}

/// The entry of a Secret that holds Cisco's plain-text authentication.
const NHRP_KEY: &str = "key";

/// Every Secret that is named must be there, with the entries that are read.
fn check_secrets(
    resource: &ResourceName,
    network: &Network<'_>,
    node: &str,
    manifests: &Manifests,
    errors: &mut Vec<PlanError>,
) {
    let mut check = |field: &'static str, secret: &str, entries: &[&'static str]| {
        let resource = resource.clone();
        if secret.starts_with("file:") {
            return;
        }
        let missing =
            || PlanError::SecretMissing { resource: resource.clone(), field, secret: secret.to_owned() };
        if !manifests.secrets.contains_key(secret) {
            return errors.push(missing());
        }
        for entry in entries {
            let (resource, secret) = (resource.clone(), secret.to_owned());
            match resolve(&manifests.secrets, &secret, entry) {
                Ok(value) if *entry == NHRP_KEY && !(1..=8).contains(&value.len()) => {
                    errors.push(PlanError::SecretLength {
                        resource,
                        field,
                        secret,
                        entry,
                        length: value.len(),
                    });
                }
                Ok(_) => {}
                Err(_) => errors.push(PlanError::SecretEntryMissing { resource, field, secret, entry }),
            }
        }
    };
    if let Some(secret) = &network.nhrp.authentication_secret {
        check("spec.nhrp.authenticationSecret", secret, &[NHRP_KEY]);
    }
    if network.security.mode == SecurityMode::None {
        return;
    }
    let Some(Authentication { certificates, pre_shared_key }) = &network.security.authentication else {
        return;
    };
    if let Some(PreSharedKey { secret }) = pre_shared_key {
        check("spec.security.authentication.preSharedKey.secret", secret, &["psk"]);
    }
    let Some(Certificates {
        issued_by,
        ca_secret: _,
        secret,
        issuer_ref: _,
        issued_after: _,
        trust,
        revocation,
    }) = certificates
    else {
        return;
    };
    let roots: &[&str] = match revocation {
        Revocation::IfPresent => &["ca.crt"],
        Revocation::Required => &["ca.crt", "crl.pem"],
    };
    check("spec.security.authentication.certificates.trust", trust, roots);
    if let Some(secret) = secret {
        let secret = of_node(secret, node);
        check("spec.security.authentication.certificates.secret", &secret, &["tls.crt", "tls.key"]);
    }
    let issued_by = match issued_by {
        IssuedBy::Secret => return,
        IssuedBy::Operator => "Operator",
        IssuedBy::CertManager => "CertManager",
    };
    errors.push(PlanError::IssuerWithoutKubernetes { resource: resource.clone(), issued_by });
}
