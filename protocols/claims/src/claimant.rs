//! Who claims, and how much is known of it.

use crate::{Certified, Identity};
use ipnet::IpNet;

/// Who claims something, and how well that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimant<'a> {
    /// Whoever calls itself so, or says nothing: a tunnel in clear. Only admission limits it.
    Asserted(Option<&'a str>),
    /// A peer that has proven who it is; what its certificate says limits it besides admission.
    Proven(&'a Identity),
    /// A proven peer whose claim was passed on by a hub of ours. That lets a foreign router claim prefixes although
    /// neither its certificate nor a class says any: the hub knows it, and has checked.
    Vouched(&'a Identity),
}

impl<'a> Claimant<'a> {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> Option<&'a str> {
        match self {
            Self::Asserted(name) => name,
            Self::Proven(identity) | Self::Vouched(identity) => Some(&identity.name),
        }
    }

    /// What its certificate says, if it has one.
    #[must_use]
    pub const fn certified(self) -> Option<&'a Certified> {
        match self {
            Self::Asserted(_) => None,
            Self::Proven(identity) | Self::Vouched(identity) => identity.certified(),
        }
    }

    pub(crate) fn certified_prefixes(self) -> Option<&'a [IpNet]> {
        self.certified().and_then(|c| c.prefixes.as_deref())
    }

    /// A certificate that says nothing of prefixes, and nobody who vouches for it.
    pub(crate) fn needs_a_voucher(self) -> bool {
        matches!(self, Self::Proven(_)) && self.certified().is_some_and(|c| c.prefixes.is_none())
    }
}

impl<'a> From<Option<&'a str>> for Claimant<'a> {
    fn from(name: Option<&'a str>) -> Self {
        Self::Asserted(name)
    }
}

impl<'a> From<&'a Identity> for Claimant<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self::Proven(identity)
    }
}
