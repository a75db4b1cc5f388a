//! How a tunnel is protected, from its specification: what IKE is told, and the credentials. Whatever would make it
//! weaker than what was asked for is refused here, in words; then there is no tunnel at all.

use crate::config::{ConfigError, Secrets};
use crds::manifest::resolve;
use crds::node::NodeTunnel;
use crds::spec::{Authentication, PreSharedKey, Rekey, Security, SecurityMode};
use dmvpn::Credentials;
use esp::Suite;
use identity::SharedKey;
use ring::digest::{SHA256, digest};
use std::net::IpAddr;
use std::sync::Arc;

/// A pre-shared key of fewer octets can be guessed by who recorded a handshake (RFC 7296 §2.15).
const STRONG_KEY: usize = 20;

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
        let Security { mode, ike, esp, authentication, domain: _, rekey, export_keys } = &tunnel.security;
        if *mode == SecurityMode::None {
            return Ok(None);
        }
        let name = || tunnel.name.clone();
        let Some(authentication) = authentication else { return Err(ConfigError::NoCredentials(name())) };
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
            export_keys: *export_keys,
            ..defaults
        };
        Ok(Some(Self {
            ike: config,
            credentials: Credentials(made.credentials),
            digest: made.digest,
            proof: made.proof,
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
        (Some(_), _) => Err(ConfigError::Credentials(
            tunnel.name.clone(),
            "certificates are not available yet".to_owned(),
        )),
        (None, None) => Err(ConfigError::NoCredentials(tunnel.name.clone())),
    }
}

fn shared_key(tunnel: &NodeTunnel, key: &PreSharedKey, secrets: &Secrets) -> Result<Made, ConfigError> {
    let PreSharedKey { secret } = key;
    let refused = |why: String| ConfigError::Credentials(tunnel.name.clone(), why);
    let key = resolve(secrets, secret, "psk").map_err(|e| refused(e.to_string()))?;
    let mut warnings = Vec::new();
    if key.len() < STRONG_KEY {
        warnings.push(format!(
            "the pre-shared key in {secret} has {} octets, and who records a handshake can guess short ones: make \
             one of 32 random octets (openssl rand -base64 32)",
            key.len()
        ));
    }
    let digest = fingerprint(&[b"psk", tunnel.identity.as_bytes(), &key]);
    let credentials = SharedKey::new(tunnel.identity.clone(), key).map_err(|e| refused(e.to_string()))?;
    Ok(Made { credentials: Arc::new(credentials), digest, proof: Proof::SharedKey, warnings })
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
