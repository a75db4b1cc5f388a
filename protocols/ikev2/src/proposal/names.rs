//! Reads the names of proposals.

use super::{EspProposal, IkeProposal};
use crate::crypto::{Cipher, Group, Integrity, Prf};

/// What is wrong with a proposal's name, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposalError {
    /// No proposal at all.
    #[error("no proposals: write for example `{0}`")]
    Nothing(&'static str),
    /// An algorithm that is broken, and therefore not here.
    #[error(
        "`{algorithm}` in `{proposal}` does not exist here, since it is broken or too weak: write {instead}"
    )]
    Weak {
        /// Which.
        algorithm: String,
        /// In which proposal.
        proposal: String,
        /// Better.
        instead: &'static str,
    },
    /// An algorithm that strongSwan knows, and we don't have.
    #[error("`{algorithm}` in `{proposal}` does not exist here: write {instead}")]
    Missing {
        /// Which.
        algorithm: String,
        /// In which proposal.
        proposal: String,
        /// One that is here.
        instead: &'static str,
    },
    /// No algorithm.
    #[error("`{algorithm}` in `{proposal}` is no algorithm: {example} is how a proposal looks")]
    Unknown {
        /// What stands there.
        algorithm: String,
        /// In which proposal.
        proposal: String,
        /// How it looks.
        example: &'static str,
    },
    /// It lacks an algorithm of a kind.
    #[error("`{proposal}` lacks {what}")]
    Incomplete {
        /// Which proposal.
        proposal: String,
        /// What, and how it is written.
        what: &'static str,
    },
    /// It has an algorithm of a kind that doesn't go with the others.
    #[error("`{proposal}`: {why}")]
    Contradiction {
        /// Which proposal.
        proposal: String,
        /// Why not.
        why: &'static str,
    },
}

const IKE_EXAMPLE: &str = "aes256gcm16-prfsha384-x25519";
const ESP_EXAMPLE: &str = "aes128gcm16";

/// What a part of a name says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Aead(Cipher),
    /// AES-CBC with so many bits.
    Cbc(u16),
    Integrity(Integrity),
    Prf(Prf),
    Group(Group),
    Esn,
    NoEsn,
    Weak(&'static str),
    Missing(&'static str),
}

fn token(text: &str) -> Option<Token> {
    const CIPHER: &str = "`aes128gcm16`, `aes256gcm16` or `chacha20poly1305` (old routers: `aes128-sha256`)";
    const HASH: &str = "`sha256` or `sha384`";
    const PRF: &str = "`prfsha256` or `prfsha384`";
    const GROUP: &str = "`x25519`, `ecp256` or `ecp384` (old routers: `modp2048`)";
    Some(match text {
        "aes128gcm16" | "aes128gcm128" => Token::Aead(Cipher::Aes128Gcm16),
        "aes256gcm16" | "aes256gcm128" => Token::Aead(Cipher::Aes256Gcm16),
        "chacha20poly1305" => Token::Aead(Cipher::ChaCha20Poly1305),
        "aes" | "aes128" => Token::Cbc(128),
        "aes256" => Token::Cbc(256),
        "sha256" | "sha2_256" => Token::Integrity(Integrity::HmacSha256),
        "sha384" | "sha2_384" => Token::Integrity(Integrity::HmacSha384),
        "prfsha256" => Token::Prf(Prf::HmacSha256),
        "prfsha384" => Token::Prf(Prf::HmacSha384),
        "x25519" | "curve25519" => Token::Group(Group::X25519),
        "ecp256" => Token::Group(Group::Ecp256),
        "ecp384" => Token::Group(Group::Ecp384),
        "modp2048" => Token::Group(Group::Modp2048),
        "esn" => Token::Esn,
        "noesn" => Token::NoEsn,
        "des" | "3des" | "null" | "cast128" | "blowfish" | "blowfish128" | "blowfish192" | "blowfish256" => {
            Token::Weak(CIPHER)
        }
        "md5" | "md5_128" | "sha" | "sha1" | "sha1_160" | "sha256_96" => Token::Weak(HASH),
        "prfmd5" | "prfsha1" => Token::Weak(PRF),
        "modp768" | "modp1024" | "modp1024s160" | "modp1536" | "ecp192" | "ecp224" | "modpnull" => {
            Token::Weak(GROUP)
        }
        "sha512" | "sha2_512" | "aesxcbc" | "aescmac" => Token::Missing(HASH),
        "prfsha512" | "prfaesxcbc" | "prfaescmac" => Token::Missing(PRF),
        _ if text.starts_with("prf") => Token::Missing(PRF),
        _ if text.starts_with("aes") || text.starts_with("camellia") => Token::Missing(CIPHER),
        _ if ["modp", "ecp", "x448", "curve448", "mlkem", "ke1_"].iter().any(|g| text.starts_with(g)) => {
            Token::Missing(GROUP)
        }
        _ => return None,
    })
}

/// The parts of a name, by kind.
#[derive(Default)]
struct Parts {
    aeads: Vec<Cipher>,
    cbc: Vec<u16>,
    integrity: Vec<Integrity>,
    prfs: Vec<Prf>,
    groups: Vec<Group>,
    esn: bool,
    no_esn: bool,
}

impl Parts {
    fn read(proposal: &str, example: &'static str) -> Result<Self, ProposalError> {
        let mut parts = Self::default();
        for text in proposal.trim().to_ascii_lowercase().split('-') {
            let (algorithm, proposal) = (text.to_owned(), proposal.to_owned());
            match token(text) {
                Some(Token::Aead(cipher)) => parts.aeads.push(cipher),
                Some(Token::Cbc(bits)) => parts.cbc.push(bits),
                Some(Token::Integrity(integrity)) => parts.integrity.push(integrity),
                Some(Token::Prf(prf)) => parts.prfs.push(prf),
                Some(Token::Group(group)) => parts.groups.push(group),
                Some(Token::Esn) => parts.esn = true,
                Some(Token::NoEsn) => parts.no_esn = true,
                Some(Token::Weak(instead)) => {
                    return Err(ProposalError::Weak { algorithm, proposal, instead });
                }
                Some(Token::Missing(instead)) => {
                    return Err(ProposalError::Missing { algorithm, proposal, instead });
                }
                None => return Err(ProposalError::Unknown { algorithm, proposal, example }),
            }
        }
        Ok(parts)
    }

    /// AEAD ciphers or such that need an integrity algorithm, never both: RFC 7296 §3.3 has them in proposals of
    /// their own.
    fn check_ciphers(&self, proposal: &str) -> Result<(), ProposalError> {
        let incomplete = |what| Err(ProposalError::Incomplete { proposal: proposal.to_owned(), what });
        let contradiction = |why| Err(ProposalError::Contradiction { proposal: proposal.to_owned(), why });
        match (self.aeads.is_empty(), self.cbc.is_empty(), self.integrity.is_empty()) {
            (true, true, _) => incomplete("a cipher: write for example `aes128gcm16`"),
            (false, false, _) => contradiction("ciphers of both kinds: write two proposals"),
            (true, false, true) => incomplete("an integrity algorithm: write for example `sha256`"),
            (false, true, false) => {
                contradiction("its cipher needs no integrity algorithm (a PRF is written `prfsha256`)")
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn parse_all<S: AsRef<str>, P>(
    names: &[S],
    read: fn(&str) -> Result<P, ProposalError>,
) -> Result<Vec<P>, ProposalError> {
    if names.is_empty() {
        return Err(ProposalError::Nothing(ESP_EXAMPLE));
    }
    names.iter().map(|name| read(name.as_ref())).collect()
}

/// `aes256gcm16-prfsha384-x25519`, `aes128-sha256-modp2048` (the PRF is then the integrity algorithm's).
pub(super) fn ike(proposal: &str) -> Result<IkeProposal, ProposalError> {
    let mut parts = Parts::read(proposal, IKE_EXAMPLE)?;
    parts.check_ciphers(proposal)?;
    if parts.prfs.is_empty() {
        parts.prfs.extend(parts.integrity.iter().map(|integrity| match integrity {
            Integrity::HmacSha256 => Prf::HmacSha256,
            Integrity::HmacSha384 => Prf::HmacSha384,
        }));
    }
    let proposal = proposal.to_owned();
    if parts.prfs.is_empty() {
        let what = "a PRF: write for example `prfsha256`";
        return Err(ProposalError::Incomplete { proposal, what });
    }
    if parts.groups.is_empty() {
        let what = "a group: write for example `x25519`";
        return Err(ProposalError::Incomplete { proposal, what });
    }
    if parts.esn || parts.no_esn {
        let why = "`esn` and `noesn` belong into ESP proposals";
        return Err(ProposalError::Contradiction { proposal, why });
    }
    let cbc = parts.cbc.iter().flat_map(|bits| {
        parts.integrity.iter().map(|integrity| match bits {
            128 => Cipher::Aes128Cbc(*integrity),
            _ => Cipher::Aes256Cbc(*integrity),
        })
    });
    let ciphers = parts.aeads.iter().copied().chain(cbc).collect();
    Ok(IkeProposal { ciphers, prfs: parts.prfs, groups: parts.groups })
}

/// `aes128gcm16`, `aes128gcm16-x25519`, `aes128-sha256`, with `-noesn` if wanted. (`-esn` says nothing: it is offered
/// and never required.)
pub(super) fn esp(proposal: &str) -> Result<EspProposal, ProposalError> {
    let parts = Parts::read(proposal, ESP_EXAMPLE)?;
    parts.check_ciphers(proposal)?;
    let contradiction = |why| Err(ProposalError::Contradiction { proposal: proposal.to_owned(), why });
    if !parts.prfs.is_empty() {
        return contradiction("a PRF belongs into IKE proposals");
    }
    if parts.integrity.contains(&Integrity::HmacSha384) {
        return contradiction("ESP has `sha256` only (or a cipher that needs none: `aes128gcm16`)");
    }
    let aeads = parts.aeads.iter().map(|cipher| match cipher {
        Cipher::Aes256Gcm16 => esp::Suite::Aes256Gcm16,
        Cipher::ChaCha20Poly1305 => esp::Suite::ChaCha20Poly1305,
        _ => esp::Suite::Aes128Gcm16,
    });
    let cbc = parts.cbc.iter().map(|bits| match bits {
        128 => esp::Suite::Aes128CbcSha256,
        _ => esp::Suite::Aes256CbcSha256,
    });
    let suites = aeads.chain(cbc).collect();
    Ok(EspProposal { suites, groups: parts.groups, esn: parts.esn || !parts.no_esn })
}
