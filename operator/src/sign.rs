//! Judges one CertificateSigningRequest: pure. A request is signed if it comes from the agent of the very node that it
//! is for, and asks for no more than the operator itself told that node to be.

use crds::DmvpnNode;
use crds::conditions::reasons;
use crds::kubernetes::{NODE, SIGNER, TOKEN_NODE, TUNNEL};
use crds::node::NodeTunnel;
use crds::spec::{Authentication, IssuedBy, SecurityMode};
use identity::pki::{Authority, Claims, Request, Validity};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};

/// Validity of a certificate whose request names none.
const DEFAULT_LIFETIME: u64 = 30 * DAY;
/// The longest validity that may be asked for.
const MAX_LIFETIME: u64 = 90 * DAY;
/// The shortest: the API takes nothing below.
const MIN_LIFETIME: u64 = 600;
/// Certificates are valid from a little before now, as clocks differ.
const BACKDATED: u64 = 300;
const DAY: u64 = 24 * 3600;

/// Reasons that depend on what the node's `DmvpnNode` says.
const NO_SUCH_TUNNEL: &str = "NoSuchTunnel";
const NOT_ISSUED_HERE: &str = "NotIssuedHere";
const WRONG_CLAIMS: &str = "WrongClaims";

/// Usages that a node's certificate has.
const USAGES: [&str; 6] =
    ["digital signature", "client auth", "server auth", "ipsec end system", "ipsec tunnel", "ipsec user"];

/// What is to become of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It is good: sign it with the CA of this Secret.
    Sign {
        /// Secret of the CA.
        ca_secret: String,
        /// The key, with what is asked for it.
        request: Box<Request>,
        /// How long it is to be good.
        validity: Validity,
    },
    /// It is not, and will not become good.
    Refuse(Refusal),
    /// Nothing: it is signed, denied or failed already, or for another signer.
    Nothing,
}

/// Why a request is refused: reason and message of its condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// CamelCase.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Refusal {
    /// Could the request be good by a `DmvpnNode` that is newer than the one it was held against?
    #[must_use]
    pub fn may_be_early(&self) -> bool {
        matches!(self.reason, NO_SUCH_TUNNEL | NOT_ISSUED_HERE | WRONG_CLAIMS)
    }
}

fn refuse(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// The Node and the tunnel that a request says it is for.
pub fn subject(csr: &CertificateSigningRequest) -> (Option<&str>, Option<&str>) {
    let annotations = csr.metadata.annotations.as_ref();
    let of = |key: &str| annotations.and_then(|annotations| annotations.get(key)).map(String::as_str);
    (of(NODE), of(TUNNEL))
}

/// Has somebody approved it already?
pub fn is_approved(csr: &CertificateSigningRequest) -> bool {
    has_condition(csr, &["Approved"])
}

/// Judges a request. `agent` is the name of the agents' user, `node` what the operator told the node that the request
/// says it is for, `now` seconds since 1970.
pub fn judge(csr: &CertificateSigningRequest, agent: &str, node: Option<&DmvpnNode>, now: u64) -> Verdict {
    let signed = csr.status.as_ref().is_some_and(|status| status.certificate.is_some());
    if csr.spec.signer_name != SIGNER || signed || has_condition(csr, &["Denied", "Failed"]) {
        return Verdict::Nothing;
    }
    let tunnel = match requester(csr, agent).and_then(|name| tunnel(csr, name, node)) {
        Ok(tunnel) => tunnel,
        Err(refusal) => return Verdict::Refuse(refusal),
    };
    let good = || {
        let ca_secret = ca_secret(tunnel)?;
        usages(&csr.spec)?;
        let validity = validity(&csr.spec, now)?;
        let request = Request::from_pem(&csr.spec.request.0).map_err(|e| refuse("Malformed", e.0))?;
        claims(&request.claims, tunnel)?;
        Ok(Verdict::Sign { ca_secret, request: Box::new(request), validity })
    };
    good().unwrap_or_else(Verdict::Refuse)
}

/// Signs what was judged to be good, and returns the chain in PEM.
///
/// # Errors
/// The CA has run out, or may not issue for these claims: its name constraints or address blocks leave them out.
pub fn sign(authority: &Authority, request: &Request, validity: Validity) -> Result<String, Refusal> {
    // The API server's clock and ours may differ; a CA that runs out this minute is of no use either.
    if authority.not_after() <= validity.not_before + BACKDATED {
        return Err(refuse(
            reasons::CA_EXPIRED,
            "the CA's certificate has run out: put a new one, with its key, into the Secret (dmvpnctl pki makes them)",
        ));
    }
    authority.sign(request, &request.claims, validity).map_err(|e| {
        refuse(
            reasons::CA_REFUSES,
            format!("the CA may not issue this certificate: {}; give the cluster a CA that covers it", e.0),
        )
    })
}

/// The node whose agent made the request: the API server wrote both into it, from a token bound to a pod of that node.
fn requester<'a>(csr: &'a CertificateSigningRequest, agent: &str) -> Result<&'a str, Refusal> {
    let user = csr.spec.username.as_deref().unwrap_or_default();
    if user != agent {
        return Err(refuse(
            "WrongRequester",
            format!("only agents ({agent}) get certificates from this signer, and {user} asks"),
        ));
    }
    let nodes = csr.spec.extra.as_ref().and_then(|extra| extra.get(TOKEN_NODE));
    match nodes.map(Vec::as_slice) {
        Some([node]) if !node.is_empty() => Ok(node),
        _ => Err(refuse(
            "NodeUnproven",
            "the request was made with a token that is bound to no node: agents use the token of their own pod",
        )),
    }
}

fn tunnel<'a>(
    csr: &CertificateSigningRequest,
    requester: &str,
    node: Option<&'a DmvpnNode>,
) -> Result<&'a NodeTunnel, Refusal> {
    let (for_node, for_tunnel) = subject(csr);
    let (Some(for_node), Some(for_tunnel)) = (for_node, for_tunnel) else {
        return Err(refuse("Malformed", format!("annotations {NODE} and {TUNNEL} must be there")));
    };
    if for_node != requester {
        return Err(refuse(
            "WrongNode",
            format!("the agent of node {requester} asks for a certificate of node {for_node}"),
        ));
    }
    let tunnels = node.map(|node| node.spec.tunnels.as_slice()).unwrap_or_default();
    tunnels
        .iter()
        .find(|tunnel| tunnel.name == for_tunnel)
        .ok_or_else(|| refuse(NO_SUCH_TUNNEL, format!("DmvpnNode {for_node} has no tunnel {for_tunnel}")))
}

fn ca_secret(tunnel: &NodeTunnel) -> Result<String, Refusal> {
    let encrypted = tunnel.security.mode == SecurityMode::Encrypted;
    let authentication = tunnel.security.authentication.as_ref().filter(|_| encrypted);
    let certificates = authentication.and_then(|Authentication { certificates, .. }| certificates.as_ref());
    match certificates {
        Some(certificates) if certificates.issued_by == IssuedBy::Operator => certificates
            .ca_secret
            .clone()
            .ok_or_else(|| refuse(NOT_ISSUED_HERE, format!("tunnel {} names no caSecret", tunnel.name))),
        _ => Err(refuse(
            NOT_ISSUED_HERE,
            format!(
                "certificates of tunnel {} don't come from the operator (spec.security.authentication)",
                tunnel.name
            ),
        )),
    }
}

fn usages(spec: &CertificateSigningRequestSpec) -> Result<(), Refusal> {
    let asked = spec.usages.as_deref().unwrap_or_default();
    match asked.iter().find(|usage| !USAGES.contains(&usage.as_str())) {
        None => Ok(()),
        Some(usage) => Err(refuse(
            "WrongUsages",
            format!("a node's certificate is not for {usage:?}, only for {}", USAGES.join(", ")),
        )),
    }
}

fn validity(spec: &CertificateSigningRequestSpec, now: u64) -> Result<Validity, Refusal> {
    let asked = spec.expiration_seconds.map_or(Some(DEFAULT_LIFETIME), |seconds| u64::try_from(seconds).ok());
    match asked {
        Some(lifetime) if (MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime) => {
            Ok(Validity { not_before: now.saturating_sub(BACKDATED), not_after: now + lifetime })
        }
        _ => Err(refuse(
            "LifetimeTooLong",
            format!("spec.expirationSeconds must be {MIN_LIFETIME} to {MAX_LIFETIME} (90 days)"),
        )),
    }
}

/// Nothing may be asked for that the node was not told to be.
fn claims(asked: &Claims, tunnel: &NodeTunnel) -> Result<(), Refusal> {
    let Claims { name, tunnel_addresses, prefixes } = asked;
    if !name.eq_ignore_ascii_case(&tunnel.identity) {
        return Err(refuse(
            WRONG_CLAIMS,
            format!("it asks for the name {name}, and the node is {}", tunnel.identity),
        ));
    }
    if let Some(address) = tunnel_addresses.iter().find(|address| !tunnel.addresses.contains(address)) {
        return Err(refuse(
            WRONG_CLAIMS,
            format!("it asks for the tunnel address {address}, which the node was not given"),
        ));
    }
    // A request writes prefixes that lie side by side as one.
    let given = ipnet::IpNet::aggregate(&tunnel.announce);
    let announced = |prefix: &ipnet::IpNet| given.iter().any(|given| given.contains(prefix));
    if let Some(prefix) = prefixes.iter().find(|prefix| !announced(prefix)) {
        return Err(refuse(
            WRONG_CLAIMS,
            format!("it asks for the prefix {prefix}, which the node is not to announce"),
        ));
    }
    Ok(())
}

fn has_condition(csr: &CertificateSigningRequest, types: &[&str]) -> bool {
    let conditions = csr.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is = |condition: &CertificateSigningRequestCondition| {
        types.contains(&condition.type_.as_str()) && condition.status == "True"
    };
    conditions.into_iter().flatten().any(is)
}

#[cfg(test)]
mod tests;
