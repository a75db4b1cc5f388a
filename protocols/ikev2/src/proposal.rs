//! What we propose, what of a peer's proposals we choose, and whether an answer is one we asked for (RFC 7296 §3.3).
//!
//! A proposal has a name, as strongSwan users know it: `aes256gcm16-prfsha384-x25519`. Several algorithms of a kind in
//! one name are alternatives, by preference.

mod describe;
mod names;
mod select;

pub use describe::describe;
pub use names::ProposalError;
pub use select::{Choice, Unasked};

use crate::codes::{EncryptionId, EsnId, GroupId, IntegrityId, PrfId, ProtocolId, TransformType};
use crate::crypto::{Cipher, Group, IkeSuite, Integrity, Prf};
use crate::payload::{Proposal, Transform};
use select::{Template, Wanted};
use std::fmt;

/// Proposals for an IKE SA, by preference; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeProposals(Vec<IkeProposal>);

/// Proposals for a child SA, by preference; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspProposals(Vec<EspProposal>);

/// One proposal for an IKE SA; nothing in it is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
struct IkeProposal {
    ciphers: Vec<Cipher>,
    prfs: Vec<Prf>,
    groups: Vec<Group>,
}

/// One proposal for a child SA.
#[derive(Clone, PartialEq, Eq, Debug)]
struct EspProposal {
    suites: Vec<esp::Suite>,
    /// Named groups are required of an exchange that rekeys; without any, it is the IKE SA's, and none will do too.
    groups: Vec<Group>,
    /// 64-bit sequence numbers may be had.
    esn: bool,
}

/// In which exchange a child SA is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// IKE_AUTH: its keys come from IKE_SA_INIT, so no group belongs into its proposals (RFC 7296 §1.2).
    Auth,
    /// CREATE_CHILD_SA, under an IKE SA of this group.
    Create(Group),
}

/// What a child SA is going to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EspSuite {
    /// The cipher.
    pub suite: esp::Suite,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// A key exchange of its own, with this group.
    pub group: Option<Group>,
}

impl IkeProposals {
    /// Reads names.
    ///
    /// # Errors
    /// What is wrong with which name, and what to write instead.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, ProposalError> {
        names::parse_all(names, names::ike).map(Self)
    }

    /// The group we like best: what the first KE payload is made with.
    #[must_use]
    pub fn first_group(&self) -> Group {
        self.0.iter().flat_map(|p| &p.groups).copied().next().unwrap_or(Group::X25519)
    }

    /// Is there a proposal with this group (which a peer asks for by INVALID_KE_PAYLOAD)?
    #[must_use]
    pub fn has_group(&self, group: Group) -> bool {
        self.0.iter().any(|p| p.groups.contains(&group))
    }

    /// What to send. `spi` is there when an IKE SA is rekeyed.
    #[must_use]
    pub fn offer(&self, spi: Option<u64>) -> Vec<Proposal> {
        let spi = spi.map_or_else(Vec::new, |spi| spi.to_be_bytes().to_vec());
        select::offer(&self.templates(), ProtocolId::IKE, &spi)
    }

    /// Chooses among a peer's proposals.
    #[must_use]
    pub fn select(&self, offered: &[Proposal]) -> Option<Choice<IkeSuite>> {
        select::select(&self.templates(), ProtocolId::IKE, offered, ike_suite)
    }

    /// Reads what a peer chose among ours.
    ///
    /// # Errors
    /// We did not offer that.
    pub fn accept(&self, answer: &[Proposal]) -> Result<Choice<IkeSuite>, Unasked> {
        select::accept(&self.templates(), ProtocolId::IKE, answer, ike_suite)
    }

    fn templates(&self) -> Vec<Template> {
        self.0.iter().map(IkeProposal::template).collect()
    }
}

impl EspProposals {
    /// Reads names.
    ///
    /// # Errors
    /// What is wrong with which name, and what to write instead.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, ProposalError> {
        names::parse_all(names, names::esp).map(Self)
    }

    /// The group of the KE payload of an exchange that makes or rekeys a child SA; none in IKE_AUTH.
    #[must_use]
    pub fn first_group(&self, stage: Stage) -> Option<Group> {
        let Stage::Create(ike) = stage else { return None };
        Some(self.0.first().and_then(|p| p.groups.first()).copied().unwrap_or(ike))
    }

    /// What to send, with the SPI that we are going to receive by.
    #[must_use]
    pub fn offer(&self, spi: u32, stage: Stage) -> Vec<Proposal> {
        select::offer(&self.offers(stage), ProtocolId::ESP, &spi.to_be_bytes())
    }

    /// Chooses among a peer's proposals.
    #[must_use]
    pub fn select(&self, offered: &[Proposal], stage: Stage) -> Option<Choice<EspSuite>> {
        let templates: Vec<Template> =
            self.0.iter().map(|p| p.template(p.acceptable_groups(stage))).collect();
        if stage == Stage::Auth {
            let stripped: Vec<Proposal> = offered.iter().map(without_groups).collect();
            return select::select(&templates, ProtocolId::ESP, &stripped, esp_suite);
        }
        select::select(&templates, ProtocolId::ESP, offered, esp_suite)
    }

    /// Reads what a peer chose among ours.
    ///
    /// # Errors
    /// We did not offer that.
    pub fn accept(&self, answer: &[Proposal], stage: Stage) -> Result<Choice<EspSuite>, Unasked> {
        select::accept(&self.offers(stage), ProtocolId::ESP, answer, esp_suite)
    }

    /// Those with a key exchange of their own come first, then the same without, where that will do.
    fn offers(&self, stage: Stage) -> Vec<Template> {
        let Stage::Create(ike) = stage else {
            return self.0.iter().map(|p| p.template(None)).collect();
        };
        let with = self.0.iter().map(|p| {
            let groups = if p.groups.is_empty() { vec![ike] } else { p.groups.clone() };
            p.template(Some((groups, true)))
        });
        let without = self.0.iter().filter(|p| p.groups.is_empty()).map(|p| p.template(None));
        with.chain(without).collect()
    }
}

impl IkeProposal {
    fn template(&self) -> Template {
        let integrity: Vec<Transform> =
            self.ciphers.iter().filter_map(|c| c.integrity()).map(integrity_transform).collect();
        let mut ciphers: Vec<Transform> = self.ciphers.iter().map(|c| cipher_transform(*c)).collect();
        dedup(&mut ciphers);
        let mut template = vec![
            Wanted::required(TransformType::ENCR, ciphers),
            Wanted::required(TransformType::PRF, self.prfs.iter().map(|p| prf_transform(*p)).collect()),
            Wanted::required(TransformType::KE, self.groups.iter().map(|g| group_transform(*g)).collect()),
        ];
        if !integrity.is_empty() {
            let mut integrity = integrity;
            dedup(&mut integrity);
            template.insert(2, Wanted::required(TransformType::INTEG, integrity));
        }
        Template(template)
    }
}

impl EspProposal {
    /// Groups that a peer's proposal may have, and whether it must have one.
    fn acceptable_groups(&self, stage: Stage) -> Option<(Vec<Group>, bool)> {
        match stage {
            Stage::Auth => None,
            Stage::Create(_) if !self.groups.is_empty() => Some((self.groups.clone(), true)),
            Stage::Create(ike) => {
                let others = Group::ALL.into_iter().filter(|group| *group != ike);
                Some((std::iter::once(ike).chain(others).collect(), false))
            }
        }
    }

    fn template(&self, groups: Option<(Vec<Group>, bool)>) -> Template {
        let mut ciphers: Vec<Transform> = self.suites.iter().map(|s| esp_transform(*s)).collect();
        dedup(&mut ciphers);
        let mut template = vec![Wanted::required(TransformType::ENCR, ciphers)];
        if self.suites.iter().any(|s| !s.is_aead()) {
            let integrity = vec![integrity_transform(Integrity::HmacSha256)];
            template.push(Wanted::required(TransformType::INTEG, integrity));
        }
        if let Some((groups, required)) = groups {
            let groups = groups.into_iter().map(group_transform).collect();
            template.push(Wanted { kind: TransformType::KE, transforms: groups, required });
        }
        // Offered both ways and never required: a peer without it gets 32 bits, and rekeying in time.
        let esn = if self.esn { vec![EsnId::ESN, EsnId::NONE] } else { vec![EsnId::NONE] };
        let transforms = esn.into_iter().map(|e| Transform::new(TransformType::ESN, e.0)).collect();
        template.push(Wanted { kind: TransformType::ESN, transforms, required: false });
        Template(template)
    }
}

fn without_groups(proposal: &Proposal) -> Proposal {
    let mut proposal = proposal.clone();
    proposal.transforms.retain(|t| t.kind != TransformType::KE);
    proposal
}

fn dedup(transforms: &mut Vec<Transform>) {
    let mut kept: Vec<Transform> = Vec::with_capacity(transforms.len());
    for transform in transforms.drain(..) {
        if !kept.contains(&transform) {
            kept.push(transform);
        }
    }
    *transforms = kept;
}

fn cipher_transform(cipher: Cipher) -> Transform {
    let aes = |id: EncryptionId, bits| Transform::with_key_length(TransformType::ENCR, id.0, bits);
    match cipher {
        Cipher::Aes128Gcm16 => aes(EncryptionId::AES_GCM_16, 128),
        Cipher::Aes256Gcm16 => aes(EncryptionId::AES_GCM_16, 256),
        Cipher::Aes128Cbc(_) => aes(EncryptionId::AES_CBC, 128),
        Cipher::Aes256Cbc(_) => aes(EncryptionId::AES_CBC, 256),
        Cipher::ChaCha20Poly1305 => Transform::new(TransformType::ENCR, EncryptionId::CHACHA20_POLY1305.0),
    }
}

fn esp_transform(suite: esp::Suite) -> Transform {
    use esp::Suite as S;
    cipher_transform(match suite {
        S::Aes128Gcm16 => Cipher::Aes128Gcm16,
        S::Aes256Gcm16 => Cipher::Aes256Gcm16,
        S::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
        S::Aes128CbcSha256 => Cipher::Aes128Cbc(Integrity::HmacSha256),
        S::Aes256CbcSha256 => Cipher::Aes256Cbc(Integrity::HmacSha256),
    })
}

const fn prf_id(prf: Prf) -> PrfId {
    match prf {
        Prf::HmacSha256 => PrfId::HMAC_SHA2_256,
        Prf::HmacSha384 => PrfId::HMAC_SHA2_384,
    }
}

const fn prf_transform(prf: Prf) -> Transform {
    Transform::new(TransformType::PRF, prf_id(prf).0)
}

const fn integrity_id(integrity: Integrity) -> IntegrityId {
    match integrity {
        Integrity::HmacSha256 => IntegrityId::HMAC_SHA2_256_128,
        Integrity::HmacSha384 => IntegrityId::HMAC_SHA2_384_192,
    }
}

const fn integrity_transform(integrity: Integrity) -> Transform {
    Transform::new(TransformType::INTEG, integrity_id(integrity).0)
}

const fn group_transform(group: Group) -> Transform {
    Transform::new(TransformType::KE, group.id().0)
}

/// What chosen transforms amount to; `None` if that is nothing of ours.
fn ike_suite(chosen: &[Transform]) -> Option<IkeSuite> {
    let prf = PrfId(select::chosen(chosen, TransformType::PRF)?.id);
    let group = GroupId(select::chosen(chosen, TransformType::KE)?.id);
    Some(IkeSuite {
        cipher: cipher(chosen)?,
        prf: Prf::ALL.into_iter().find(|p| prf_id(*p) == prf)?,
        group: Group::from_id(group)?,
    })
}

fn esp_suite(chosen: &[Transform]) -> Option<EspSuite> {
    let suite = match cipher(chosen)? {
        Cipher::Aes128Gcm16 => esp::Suite::Aes128Gcm16,
        Cipher::Aes256Gcm16 => esp::Suite::Aes256Gcm16,
        Cipher::ChaCha20Poly1305 => esp::Suite::ChaCha20Poly1305,
        Cipher::Aes128Cbc(Integrity::HmacSha256) => esp::Suite::Aes128CbcSha256,
        Cipher::Aes256Cbc(Integrity::HmacSha256) => esp::Suite::Aes256CbcSha256,
        Cipher::Aes128Cbc(_) | Cipher::Aes256Cbc(_) => return None,
    };
    let group = match select::chosen(chosen, TransformType::KE).map(|t| GroupId(t.id)) {
        None | Some(GroupId::NONE) => None,
        Some(id) => Some(Group::from_id(id)?),
    };
    let esn = select::chosen(chosen, TransformType::ESN).is_some_and(|t| t.id == EsnId::ESN.0);
    Some(EspSuite { suite, esn, group })
}

fn cipher(chosen: &[Transform]) -> Option<Cipher> {
    let encryption = select::chosen(chosen, TransformType::ENCR)?;
    let integrity = match select::chosen(chosen, TransformType::INTEG).map(|t| IntegrityId(t.id)) {
        None | Some(IntegrityId::NONE) => None,
        Some(IntegrityId::HMAC_SHA2_256_128) => Some(Integrity::HmacSha256),
        Some(IntegrityId::HMAC_SHA2_384_192) => Some(Integrity::HmacSha384),
        Some(_) => return None,
    };
    let ciphers = match integrity {
        None => vec![Cipher::Aes128Gcm16, Cipher::Aes256Gcm16, Cipher::ChaCha20Poly1305],
        Some(integrity) => vec![Cipher::Aes128Cbc(integrity), Cipher::Aes256Cbc(integrity)],
    };
    ciphers.into_iter().find(|c| cipher_transform(*c) == *encryption)
}

impl fmt::Display for IkeProposals {
    /// The names, by preference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.offer(None)))
    }
}

impl fmt::Display for EspProposals {
    /// The names, by preference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<Template> = self
            .0
            .iter()
            .map(|p| p.template((!p.groups.is_empty()).then(|| (p.groups.clone(), true))))
            .collect();
        f.write_str(&describe(&select::offer(&named, ProtocolId::ESP, &[])))
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut transforms = vec![cipher_transform(self.cipher), prf_transform(self.prf)];
        transforms.extend(self.cipher.integrity().map(integrity_transform));
        transforms.push(group_transform(self.group));
        f.write_str(&describe::name(&transforms))
    }
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.suite)?;
        if let Some(group) = self.group {
            write!(f, "-{group}")?;
        }
        f.write_str(if self.esn { "-esn" } else { "" })
    }
}
