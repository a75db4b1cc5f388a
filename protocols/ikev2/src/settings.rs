//! The configuration, read once: proposals by meaning, our addresses.

use crate::codes::{GroupId, NotifyType};
use crate::crypto::{Group, IkeSuite};
use crate::payload::{Notify, Proposal};
use crate::proposal::{EspProposals, EspSuite, IkeProposals, ProposalError, Stage, describe};
use crate::{Config, Failure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A configuration that has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An IKE proposal.
    #[error("IKE proposals: {0}")]
    Ike(ProposalError),
    /// An ESP proposal.
    #[error("ESP proposals: {0}")]
    Esp(ProposalError),
}

/// The configuration as sessions need it.
pub(crate) struct Settings {
    pub config: Config,
    ike: IkeProposals,
    esp: EspProposals,
}

/// What is chosen for an IKE SA.
pub(crate) struct IkeChoice {
    pub suite: IkeSuite,
    /// The peer's SPI, when it replaces another.
    pub spi: u64,
    /// What the peer is told.
    pub answer: Proposal,
}

/// What is chosen for a child SA.
#[derive(Clone, Copy)]
pub(crate) struct EspChoice {
    pub suite: EspSuite,
    /// The peer's SPI.
    pub spi: u32,
}

impl Settings {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let ike = IkeProposals::parse(&config.ike).map_err(ConfigError::Ike)?;
        let esp = EspProposals::parse(&config.esp).map_err(ConfigError::Esp)?;
        Ok(Self { config, ike, esp })
    }

    /// Child SAs with one of ours.
    pub(crate) fn lanes(&self) -> u16 {
        self.config.lanes.min(self.config.workers).max(1)
    }

    /// Our address of the IP version of a peer.
    pub(crate) fn local_ip(&self, remote: IpAddr) -> Option<IpAddr> {
        self.config.local.iter().copied().find(|ip| ip.is_ipv4() == remote.is_ipv4())
    }

    /// As [`Self::local_ip`]; where we don't know it, the peer sees a NAT and puts the right one in its place.
    pub(crate) fn local_or_any(&self, remote: IpAddr) -> IpAddr {
        self.local_ip(remote).unwrap_or(match remote {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        })
    }

    /// The group to begin with.
    pub(crate) fn ike_group(&self) -> Group {
        self.ike.first_group()
    }

    /// Do we offer this one?
    pub(crate) fn offers_ike_group(&self, group: Group) -> bool {
        self.ike.has_group(group)
    }

    /// IKE proposals; with an SPI when an IKE SA is replaced.
    pub(crate) fn propose_ike(&self, spi: Option<u64>) -> Vec<Proposal> {
        self.ike.offer(spi)
    }

    /// Chooses among a peer's IKE proposals; `group` is the one of its KE payload.
    pub(crate) fn choose_ike(
        &self,
        offered: &[Proposal],
        spi: Option<u64>,
        group: GroupId,
    ) -> Result<IkeChoice, Notify> {
        let choice = self.ike.select(offered).ok_or_else(|| Notify::empty(NotifyType::NO_PROPOSAL_CHOSEN))?;
        //= rfc7296#3.3.6
        //# If the responder selects a proposal using a different Diffie-Hellman group (other than NONE), the responder
        //# will indicate the correct group in the response
        if choice.suite.group.id() != group {
            return Err(wrong_group(choice.suite.group));
        }
        let theirs = match spi {
            None => 0,
            Some(_) => choice
                .ike_spi()
                .filter(|spi| *spi != 0)
                .ok_or_else(|| Notify::empty(NotifyType::INVALID_SYNTAX))?,
        };
        let answer = choice.answer(&spi.map_or_else(Vec::new, |spi| spi.to_be_bytes().to_vec()));
        Ok(IkeChoice { suite: choice.suite, spi: theirs, answer })
    }

    /// Reads what the peer has chosen of [`Self::propose_ike`]: the suite, and the SPI if one is replaced.
    pub(crate) fn accept_ike(&self, answer: &[Proposal]) -> Result<(IkeSuite, u64), Failure> {
        let choice = self.ike.accept(answer).map_err(|error| Failure::Protocol(error.to_string()))?;
        Ok((choice.suite, choice.ike_spi().unwrap_or_default()))
    }

    /// The group of the KE payload when a child SA is made under an IKE SA of this group.
    pub(crate) fn esp_group(&self, ike: Group) -> Group {
        self.esp.first_group(Stage::Create(ike)).unwrap_or(ike)
    }

    /// ESP proposals.
    pub(crate) fn propose_esp(&self, spi: u32, stage: Stage) -> Vec<Proposal> {
        self.esp.offer(spi, stage)
    }

    /// Chooses among a peer's ESP proposals; `group` is the one of its KE payload.
    pub(crate) fn choose_esp(
        &self,
        offered: &[Proposal],
        stage: Stage,
        inbound: u32,
        group: Option<GroupId>,
    ) -> Result<(EspChoice, Proposal), Box<(Notify, Failure)>> {
        let none = || {
            let failure = Failure::NoProposal {
                what: "ESP".to_owned(),
                ours: self.esp.to_string(),
                theirs: describe(offered),
            };
            Box::new((Notify::empty(NotifyType::NO_PROPOSAL_CHOSEN), failure))
        };
        let choice = self.esp.select(offered, stage).ok_or_else(none)?;
        if let Some(wanted) = choice.suite.group.filter(|wanted| Some(wanted.id()) != group) {
            let failure = Failure::Protocol("its public value is of another group".to_owned());
            return Err(Box::new((wrong_group(wanted), failure)));
        }
        let spi = choice.esp_spi().filter(|spi| *spi >= 256).ok_or_else(none)?;
        let answer = choice.answer(&inbound.to_be_bytes());
        Ok((EspChoice { suite: choice.suite, spi }, answer))
    }

    /// Reads what the peer has chosen of [`Self::propose_esp`].
    pub(crate) fn accept_esp(&self, answer: &[Proposal], stage: Stage) -> Result<EspChoice, Failure> {
        let choice = self.esp.accept(answer, stage).map_err(|error| Failure::Protocol(error.to_string()))?;
        let spi = choice.esp_spi().filter(|spi| *spi >= 256);
        let spi = spi.ok_or_else(|| Failure::Protocol("its SPI is reserved".to_owned()))?;
        Ok(EspChoice { suite: choice.suite, spi })
    }

    /// Nothing of what a stranger proposes is ours.
    pub(crate) fn no_ike_proposal(&self, offered: &[Proposal]) -> Failure {
        Failure::NoProposal { what: "IKE".to_owned(), ours: self.ike.to_string(), theirs: describe(offered) }
    }

    /// What an error that the peer sent means.
    pub(crate) fn failure_of(&self, what: &str, error: NotifyType) -> Failure {
        match error {
            NotifyType::NO_PROPOSAL_CHOSEN => Failure::NoProposal {
                what: what.to_owned(),
                ours: if what == "IKE" { self.ike.to_string() } else { self.esp.to_string() },
                theirs: "unknown".to_owned(),
            },
            NotifyType::AUTHENTICATION_FAILED => Failure::Refused,
            NotifyType::TS_UNACCEPTABLE => Failure::Selectors,
            error => Failure::Notify(error.to_string()),
        }
    }
}

fn wrong_group(wanted: Group) -> Notify {
    Notify::new(NotifyType::INVALID_KE_PAYLOAD, wanted.id().0.to_be_bytes().to_vec())
}
