//! How a tunnel is protected, from its specification: what IKE is told, and the credentials. Whatever would make it
//! weaker than what was asked for is refused here, in words; then there is no tunnel at all.

use crate::clock;
use crate::config::{ConfigError, Secrets};
use crds::manifest::{resolve, resolve_optional};
use crds::node::NodeTunnel;
use crds::spec::{
    Authentication, Certificates, EspEncapsulation, PreSharedKey, Rekey, Revocation, Security, SecurityMode,
};
use dmvpn::Credentials;
use esp::Suite;
use identity::SharedKey;
use ikev2::proposal::{EspProposals, IkeProposals, ProposalError};
use ikev2::{Credentials as _, Identification};
use ring::digest::{SHA256, digest};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A pre-shared key of fewer octets can be guessed by who recorded a handshake (RFC 7296 §2.15).
const STRONG_KEY: usize = 20;
/// Seconds.
const WEEK: u64 = 7 * 86_400;

/// How a tunnel is protected.
#[derive(Clone, Debug)]
pub struct Protection {
    /// For IKE; our addresses are filled in when the underlay is known.
    ike: ikev2::Config,
    credentials: Credentials,
    /// Tells credentials apart by what they are made of.
    digest: [u8; 32],
    /// How peers prove who they are.
    pub proof: Proof,
    /// The name that we prove, where a certificate says it.
    pub identity: Option<String>,
    /// Last second of our certificates' validity, seconds since 1970.
    pub not_after: Option<u64>,
    /// When they should have been renewed.
    pub renew_by: Option<u64>,
    /// What is allowed and should be told.
    pub warnings: Vec<String>,
}

/// How peers prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By knowing the one key that all know: their names are what they say.
    SharedKey,
    /// By certificates.
    Certificates,
}

impl PartialEq for Protection {
    fn eq(&self, other: &Self) -> bool {
        (&self.ike, &self.digest) == (&other.ike, &other.digest)
    }
}

impl Protection {
    /// The protection of a tunnel; `None` where `mode: None` asks for that. `workers`: datapath threads.
    pub fn parse(tunnel: &NodeTunnel, secrets: &Secrets, workers: u16) -> Result<Option<Self>, ConfigError> {
        let Security { mode, ike, esp, authentication, domain: _, encapsulation, rekey, export_keys } =
            &tunnel.security;
        if *mode == SecurityMode::None {
            return Ok(None);
        }
        let name = || tunnel.name.clone();
        let Some(authentication) = authentication else { return Err(ConfigError::NoCredentials(name())) };
        let proposals = |error: ProposalError| ConfigError::Proposals(name(), error.to_string());
        IkeProposals::parse(ike).map_err(proposals)?;
        EspProposals::parse(esp).map_err(proposals)?;
        let made = credentials(tunnel, authentication, secrets)?;
        let Rekey { child, ike: ike_life } = rekey;
        let defaults = ikev2::Config::default();
        let config = ikev2::Config {
            ike: ike.clone(),
            esp: esp.clone(),
            local: Vec::new(),
            ports: (tunnel.underlay.ike_port.unwrap_or(0), tunnel.underlay.port),
            workers: workers.max(1),
            lanes: workers.max(1),
            lifetimes: ikev2::config::Lifetimes { ike: *ike_life, child: *child, ..defaults.lifetimes },
            force_encapsulation: *encapsulation == EspEncapsulation::Udp,
            export_keys: *export_keys,
            ..defaults
        };
        Ok(Some(Self {
            ike: config,
            credentials: Credentials(made.credentials),
            digest: made.digest,
            proof: made.proof,
            identity: made.identity,
            not_after: made.not_after,
            renew_by: made.renew_by,
            warnings: made.warnings,
        }))
    }

    /// What the engine is told, with our addresses on the underlay.
    #[must_use]
    pub fn security(&self, local: Vec<IpAddr>) -> dmvpn::Security {
        let ike = ikev2::Config { local, ..self.ike.clone() };
        dmvpn::Security { ike, credentials: self.credentials.clone() }
    }

    /// Takes the credentials of `other` where they are made of the same, so that nobody takes them for new ones.
    pub fn keep_credentials(&mut self, other: &Self) {
        if self.digest == other.digest {
            self.credentials = other.credentials.clone();
        }
    }

    /// Are the secrets of SAs written into files?
    #[must_use]
    pub const fn exports_keys(&self) -> bool {
        self.ike.export_keys
    }

    /// Octets of the largest plaintext whose ESP packet, by any of the suites that we offer, has at most this many.
    #[must_use]
    pub fn plaintext(&self, space: u16) -> u16 {
        let within = |shape: Shape| {
            let body = space.saturating_sub(Shape::HEADER + shape.iv + shape.icv);
            (body - body % shape.block).saturating_sub(Shape::TRAILER)
        };
        self.shapes().map(within).min().unwrap_or(0)
    }

    /// Octets of the largest ESP packet of a plaintext of this many.
    #[must_use]
    pub fn protected(&self, plaintext: u16) -> u16 {
        let around = |shape: Shape| {
            let body = plaintext.saturating_add(Shape::TRAILER).next_multiple_of(shape.block);
            body.saturating_add(Shape::HEADER + shape.iv + shape.icv)
        };
        self.shapes().map(around).max().unwrap_or(u16::MAX)
    }

    fn shapes(&self) -> impl Iterator<Item = Shape> + '_ {
        self.ike.esp.iter().map(|proposal| {
            let of = |suite: &&Suite| {
                let rest = proposal.strip_prefix(suite.name());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            };
            // A name that we know by another spelling is taken for the largest.
            Shape::of(Suite::ALL.iter().find(of).copied().unwrap_or(Suite::Aes256CbcSha256))
        })
    }
}

/// What a suite adds to a packet, in octets (RFC 4303 §2).
#[derive(Clone, Copy)]
struct Shape {
    iv: u16,
    /// The ciphertext is a multiple of this.
    block: u16,
    icv: u16,
}

impl Shape {
    /// SPI and sequence number.
    const HEADER: u16 = 8;
    /// Pad length and next header.
    const TRAILER: u16 = 2;

    const fn of(suite: Suite) -> Self {
        if suite.is_aead() { Self { iv: 8, block: 4, icv: 16 } } else { Self { iv: 16, block: 16, icv: 16 } }
    }
}

/// Credentials, and what was noticed while they were made.
struct Made {
    credentials: Arc<dyn ikev2::Credentials>,
    digest: [u8; 32],
    proof: Proof,
    identity: Option<String>,
    not_after: Option<u64>,
    renew_by: Option<u64>,
    warnings: Vec<String>,
}

fn credentials(
    tunnel: &NodeTunnel,
    authentication: &Authentication,
    secrets: &Secrets,
) -> Result<Made, ConfigError> {
    let Authentication { certificates, pre_shared_key } = authentication;
    match (certificates, pre_shared_key) {
        (None, Some(key)) => shared_key(tunnel, key, secrets),
        (Some(certificates), _) => self::certificates(tunnel, certificates, secrets),
        (None, None) => Err(ConfigError::NoCredentials(tunnel.name.clone())),
    }
}

fn shared_key(tunnel: &NodeTunnel, key: &PreSharedKey, secrets: &Secrets) -> Result<Made, ConfigError> {
    let PreSharedKey { secret } = key;
    let refused = |why: String| ConfigError::Credentials(tunnel.name.clone(), why);
    let key = resolve(secrets, secret, "psk").map_err(|e| refused(e.to_string()))?;
    let mut warnings = Vec::from_iter(readable_by_others(secret));
    if key.len() < STRONG_KEY {
        warnings.push(format!(
            "the pre-shared key {secret} has {} octets, and who records a handshake can guess short ones: make \
             one of 32 random octets (openssl rand -base64 32)",
            key.len()
        ));
    }
    let digest = fingerprint(&[b"psk", tunnel.identity.as_bytes(), &key]);
    let credentials = SharedKey::new(tunnel.identity.clone(), key).map_err(|e| refused(e.to_string()))?;
    Ok(Made {
        credentials: Arc::new(credentials),
        digest,
        proof: Proof::SharedKey,
        identity: None,
        not_after: None,
        renew_by: None,
        warnings,
    })
}

fn certificates(
    tunnel: &NodeTunnel,
    certificates: &Certificates,
    secrets: &Secrets,
) -> Result<Made, ConfigError> {
    let Certificates {
        issued_by: _,
        ca_secret: _,
        secret,
        issuer_ref: _,
        issued_after: _,
        trust,
        revocation,
    } = certificates;
    let refused = |why: String| ConfigError::Credentials(tunnel.name.clone(), why);
    let Some(secret) = secret else {
        return Err(refused("nobody has issued a certificate to this node".to_owned()));
    };
    let read =
        |reference: &str, entry: &str| resolve(secrets, reference, entry).map_err(|e| refused(e.to_string()));
    let (chain, key, roots) = (read(secret, "tls.crt")?, read(secret, "tls.key")?, read(trust, "ca.crt")?);
    let lists = resolve_optional(secrets, trust, "crl.pem").map_err(|e| refused(e.to_string()))?;
    let lists = lists.unwrap_or_default();
    let made = identity::Certificates::new(&chain, &key, &roots, &lists)
        .map_err(|e| refused(format!("certificates {secret}, trust {trust}: {e}")))?
        .with_revocation(match revocation {
            Revocation::IfPresent => identity::Revocation::WherePresent,
            Revocation::Required => identity::Revocation::Required,
        });
    let required = *revocation == Revocation::Required;
    let name = own_name(tunnel, secret, &made.local_id()).map_err(refused)?;
    let mut warnings = Vec::from_iter(readable_by_others(secret));
    match made.own_identity(clock::unix_millis() / 1000) {
        Ok(identity) => check_claims(tunnel, secret, &identity, &mut warnings).map_err(refused)?,
        // Peers may trust other roots than we do, and the time of day may still be wrong.
        Err(why) => warnings.push(format!("peers with the roots in {trust} will refuse this node: {why}")),
    }
    Ok(Made {
        digest: fingerprint(&[b"certificates", &chain, &key, &roots, &lists, &[u8::from(required)]]),
        not_after: Some(made.not_after()),
        renew_by: Some(made.not_after() - margin(&chain, made.not_after())),
        credentials: Arc::new(made),
        proof: Proof::Certificates,
        identity: Some(name),
        warnings,
    })
}

/// How long before its end a certificate should be renewed: a sixth of its life, a week at most.
fn margin(chain: &[u8], not_after: u64) -> u64 {
    let described = identity::pki::describe(chain).unwrap_or_default();
    let life = described.into_iter().find_map(|described| match described {
        identity::pki::Described::Certificate(own) => Some(not_after.saturating_sub(own.validity.0)),
        _ => None,
    });
    (life.unwrap_or(0) / 6).min(WEEK).min(not_after)
}

/// The name in our certificate, by which peers know us. Where the specification says one too, it must be the same.
fn own_name(tunnel: &NodeTunnel, secret: &str, id: &Identification) -> Result<String, String> {
    let Identification::Fqdn(name) = id else {
        return Err(format!(
            "the certificate in {secret} has no DNS name (subject alternative name), by which peers would know this \
             node: make one for {}",
            tunnel.identity
        ));
    };
    if tunnel.security.domain.is_some() && !name.eq_ignore_ascii_case(&tunnel.identity) {
        return Err(format!(
            "the certificate in {secret} is for {name}, and this node is {}, by its name and security.domain: leave \
             security.domain out to take the certificate's name, or give it a certificate of its own",
            tunnel.identity
        ));
    }
    Ok(name.clone())
}

/// What our certificate lets us claim must be enough for what we are configured to be.
fn check_claims(
    tunnel: &NodeTunnel,
    secret: &str,
    identity: &claims::Identity,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let Some(certified) = identity.certified() else { return Ok(()) };
    let allowed = &certified.tunnel_addresses;
    if let Some(stray) = tunnel.addresses.iter().find(|a| !allowed.is_empty() && !allowed.contains(a)) {
        let allowed = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(format!(
            "the certificate in {secret} is for tunnel address {allowed}, and this node has {stray}: every peer would \
             refuse it"
        ));
    }
    let Some(prefixes) = &certified.prefixes else { return Ok(()) };
    let beyond = |announced: &&ipnet::IpNet| !prefixes.iter().any(|allowed| allowed.contains(*announced));
    warnings.extend(tunnel.announce.iter().filter(beyond).map(|announced| {
        format!(
            "{announced} is announced, and the certificate in {secret} does not let this node claim it: peers refuse it"
        )
    }));
    Ok(())
}

/// A key in a file that others may read is not only ours.
fn readable_by_others(secret: &str) -> Option<String> {
    let path = Path::new(secret.strip_prefix("file:")?);
    let inside = ["tls.key", "psk"].map(|entry| path.join(entry)).into_iter().find(|file| file.is_file());
    let path = inside.unwrap_or_else(|| path.to_owned());
    let mode = std::fs::metadata(&path).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        format!(
            "the key in {} may be read by others than its owner (mode {:o}): chmod 600",
            path.display(),
            mode & 0o777
        )
    })
}

/// The files and folders that the specification of a tunnel names, whose change changes the tunnel.
pub fn files(tunnel: &NodeTunnel) -> Vec<PathBuf> {
    let paths = references(tunnel).into_iter().filter_map(|reference| reference.strip_prefix("file:"));
    paths.map(PathBuf::from).collect()
}

/// The Secrets that it names.
pub fn secrets(tunnel: &NodeTunnel) -> Vec<String> {
    let references = references(tunnel).into_iter();
    references.filter(|reference| !reference.starts_with("file:")).cloned().collect()
}

fn references(tunnel: &NodeTunnel) -> Vec<&String> {
    let mut references: Vec<&String> = tunnel.nhrp.authentication_secret.iter().collect();
    if let Some(Authentication { certificates, pre_shared_key }) = &tunnel.security.authentication {
        references.extend(pre_shared_key.iter().map(|key| &key.secret));
        references.extend(certificates.iter().flat_map(|c| c.secret.iter().chain(Some(&c.trust))));
    }
    references
}

/// A digest of parts that can't be mistaken for other parts.
fn fingerprint(parts: &[&[u8]]) -> [u8; 32] {
    let mut all = zeroize::Zeroizing::new(Vec::new());
    for part in parts {
        all.extend_from_slice(&part.len().to_le_bytes());
        all.extend_from_slice(part);
    }
    let mut octets = [0; 32];
    octets.copy_from_slice(digest(&SHA256, &all).as_ref());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::manifest::{Secret, read_text};
    use identity::pki::{Authority, Claims, Made, Validity};
    use std::collections::BTreeMap;

    const SPOKE: &str = "apiVersion: kube-dmvpn.io/v1alpha1
kind: DmvpnSpoke
metadata: {name: site}
spec:
  tunnel: {network: 10.200.0.0/16, addresses: 10.200.16.1/32}
  hubs: [{address: 198.51.100.1}]
  announce: {prefixes: [10.1.0.0/16]}
  security: {authentication: {certificates: {issuedBy: Secret, secret: 'file:/n', trust: 'file:/r'}}}
";

    fn valid() -> Validity {
        let now = clock::unix_millis() / 1000;
        Validity { not_before: now - 3600, not_after: now + 3600 }
    }

    fn made(name: &str, tunnel_address: &str) -> (Authority, Made) {
        let root = Authority::root("test", valid()).unwrap();
        let claims = Claims {
            name: name.to_owned(),
            tunnel_addresses: vec![tunnel_address.parse().unwrap()],
            prefixes: vec!["10.1.0.0/16".parse().unwrap()],
        };
        let node = root.node(&claims, valid()).unwrap();
        (root, node)
    }

    /// The protection of a tunnel with these certificates, after the specification was changed.
    fn protection(
        (root, node): &(Authority, Made),
        change: impl FnOnce(&mut NodeTunnel),
    ) -> Result<Protection, String> {
        let manifests = read_text("site.yaml", SPOKE).unwrap();
        let spec = plan::standalone(&manifests, &plan::NodeFacts::named("a-1")).unwrap();
        let mut tunnel = spec.tunnels[0].clone();
        let certificates = tunnel.security.authentication.as_mut().unwrap().certificates.as_mut().unwrap();
        (certificates.secret, certificates.trust) = (Some("node".to_owned()), "roots".to_owned());
        change(&mut tunnel);
        let secret = |name: &str, entries: &[(&str, &str)]| {
            let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()));
            (name.to_owned(), Secret::new(name, entries.collect()))
        };
        let secrets = BTreeMap::from([
            secret("node", &[("tls.crt", &node.chain), ("tls.key", &node.key)]),
            secret("roots", &[("ca.crt", &root.chain_pem())]),
        ]);
        Protection::parse(&tunnel, &secrets, 1).map(Option::unwrap).map_err(|e| e.to_string())
    }

    #[test]
    fn the_name_in_the_certificate_is_ours() {
        let pki = made("a-1.branch.example.com", "10.200.16.1");
        let protection = protection(&pki, |_| {}).unwrap();
        assert_eq!(protection.identity.as_deref(), Some("a-1.branch.example.com"));
        assert_eq!((protection.proof, protection.warnings), (Proof::Certificates, vec![]));
        let (now, not_after) = (clock::unix_millis() / 1000, protection.not_after.unwrap());
        assert!(not_after > now);
        assert_eq!(protection.renew_by, Some(not_after - 7200 / 6), "a sixth of two hours before");
    }

    #[test]
    fn a_certificate_for_another_name_than_the_domain_says_is_refused() {
        let pki = made("a-1.branch.example.com", "10.200.16.1");
        let with_domain = |domain: &str, identity: &str| {
            protection(&pki, |tunnel| {
                tunnel.security.domain = Some(domain.to_owned());
                tunnel.identity = identity.to_owned();
            })
        };
        assert!(with_domain("branch.example.com", "a-1.branch.example.com").is_ok());
        assert_eq!(
            with_domain("example.com", "a-1.example.com").unwrap_err(),
            "tunnel site: the certificate in node is for a-1.branch.example.com, and this node is a-1.example.com, by \
             its name and security.domain: leave security.domain out to take the certificate's name, or give it a \
             certificate of its own; nothing is sent in clear instead"
        );
    }

    #[test]
    fn a_certificate_for_another_tunnel_address_is_refused_here_and_not_by_every_peer() {
        let said = protection(&made("a-1", "10.200.16.9"), |_| {}).unwrap_err();
        assert!(said.contains("is for tunnel address 10.200.16.9, and this node has 10.200.16.1"), "{said}");
    }

    #[test]
    fn an_algorithm_that_does_not_exist_is_refused_by_name() {
        let pki = made("a-1", "10.200.16.1");
        let said = |change: fn(&mut Security)| {
            let refused = protection(&pki, |tunnel| change(&mut tunnel.security)).unwrap_err();
            assert!(refused.ends_with("; nothing weaker is used instead"), "{refused}");
            refused
        };
        assert!(said(|security| security.esp = vec!["aes128gcm17".to_owned()]).contains("aes128gcm17"));
        assert!(said(|security| security.ike = vec!["3des-sha1-modp1024".to_owned()]).contains("3des"));
    }

    #[test]
    fn esp_goes_in_udp_unless_the_specification_leaves_it_to_ike() {
        let forced = |encapsulation| {
            let change = |tunnel: &mut NodeTunnel| tunnel.security.encapsulation = encapsulation;
            let protection = protection(&made("a-1", "10.200.16.1"), change).unwrap();
            protection.security(Vec::new()).ike.force_encapsulation
        };
        assert!(forced(EspEncapsulation::Udp));
        assert!(!forced(EspEncapsulation::Auto));
    }

    #[test]
    fn where_revocation_lists_are_required_their_absence_is_told_and_makes_other_credentials() {
        let pki = made("a-1", "10.200.16.1");
        let require = |tunnel: &mut NodeTunnel| {
            let authentication = tunnel.security.authentication.as_mut().unwrap();
            authentication.certificates.as_mut().unwrap().revocation = Revocation::Required;
        };
        let (lenient, strict) = (protection(&pki, |_| {}).unwrap(), protection(&pki, require).unwrap());
        assert!(lenient.warnings.is_empty());
        assert!(
            matches!(&strict.warnings[..], [one] if one.contains("no current revocation list")),
            "{:?}",
            strict.warnings
        );
        assert_ne!(lenient, strict);
    }

    #[test]
    fn an_announcement_beyond_the_certificate_is_told() {
        let announce = |tunnel: &mut NodeTunnel| tunnel.announce.push("10.2.0.0/16".parse().unwrap());
        let protection = protection(&made("a-1", "10.200.16.1"), announce).unwrap();
        assert!(matches!(&protection.warnings[..], [one] if one.starts_with("10.2.0.0/16 is announced")));
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused() {
        let (root, node) = made("a-1", "10.200.16.1");
        let (_, other) = made("a-1", "10.200.16.1");
        let mixed = (root, Made { chain: node.chain, key: other.key });
        let said = protection(&mixed, |_| {}).unwrap_err();
        assert!(said.contains("tls.key") && said.ends_with("nothing is sent in clear instead"), "{said}");
    }

    #[test]
    fn a_node_that_its_own_roots_refuse_starts_and_is_told() {
        let (_, node) = made("a-1", "10.200.16.1");
        let (stranger, _) = made("a-1", "10.200.16.1");
        let warnings = protection(&(stranger, node), |_| {}).unwrap().warnings;
        assert!(matches!(&warnings[..], [one] if one.contains("will refuse this node")), "{warnings:?}");
    }

    #[test]
    fn a_key_that_others_may_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("tls.key");
        std::fs::write(&key, "key").unwrap();
        let set = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let reference = format!("file:{}", folder.path().display());
        set(0o644);
        assert!(readable_by_others(&reference).is_some_and(|told| told.contains("chmod 600")));
        set(0o600);
        assert_eq!(readable_by_others(&reference), None);
    }
}
