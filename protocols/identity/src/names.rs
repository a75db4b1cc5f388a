//! Name constraints (RFC 5280 §4.2.1.10): what confines a cluster's CA to its own names and tunnel addresses.

use crate::certificate::Certificate;
use crate::{refused, text};
use ikev2::CertificateError;
use std::mem::discriminant;
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// Comparisons of names with constraints for one certificate, at most: both are the peer's to choose.
const MAX_COMPARISONS: usize = 65_536;

/// The names that certificates below a CA may bear.
#[derive(Clone, Debug)]
pub(crate) struct Constraints {
    permitted: Vec<GeneralName>,
    excluded: Vec<GeneralName>,
}

impl Constraints {
    pub(crate) fn new(constraints: NameConstraints) -> Result<Self, CertificateError> {
        let bases = |subtrees: Option<Vec<x509_cert::ext::pkix::constraints::name::GeneralSubtree>>| {
            let subtrees = subtrees.unwrap_or_default();
            //= rfc5280#4.2.1.10
            // "the minimum MUST be zero, and maximum MUST be absent"
            if subtrees.iter().any(|s| s.minimum != 0 || s.maximum.is_some()) {
                return Err(refused(
                    "its name constraints have a minimum or a maximum, which nobody understands",
                ));
            }
            Ok(subtrees.into_iter().map(|s| s.base).collect::<Vec<_>>())
        };
        Ok(Self {
            permitted: bases(constraints.permitted_subtrees)?,
            excluded: bases(constraints.excluded_subtrees)?,
        })
    }

    /// Does a CA with these constraints allow the names of `certificate`?
    pub(crate) fn allow(&self, certificate: &Certificate) -> Result<(), CertificateError> {
        let subject = GeneralName::DirectoryName(certificate.subject.clone());
        let subject = (!certificate.subject.is_empty()).then_some(&subject);
        let names = certificate.names.iter().chain(subject);
        if (certificate.names.len() + 1) * (self.permitted.len() + self.excluded.len()) > MAX_COMPARISONS {
            return Err(refused("it has too many names to compare with its CA's name constraints"));
        }
        names.into_iter().try_for_each(|name| self.allow_name(name))
    }

    /// What is permitted and what excluded, for people.
    pub(crate) fn shown(&self) -> (Vec<String>, Vec<String>) {
        let all = |names: &[GeneralName]| names.iter().map(shown).collect();
        (all(&self.permitted), all(&self.excluded))
    }

    fn allow_name(&self, name: &GeneralName) -> Result<(), CertificateError> {
        for excluded in self.excluded.iter().filter(|e| discriminant(*e) == discriminant(name)) {
            if within(name, excluded)? {
                return Err(refused(format!("its CA must not issue for {}", shown(name))));
            }
        }
        let mut constrained = false;
        for permitted in self.permitted.iter().filter(|p| discriminant(*p) == discriminant(name)) {
            if within(name, permitted)? {
                return Ok(());
            }
            constrained = true;
        }
        if constrained {
            let allowed = self.permitted.iter().filter(|p| discriminant(*p) == discriminant(name));
            let allowed: Vec<String> = allowed.take(8).map(shown).collect();
            return Err(refused(format!(
                "its CA may not issue for {}, only for {}",
                shown(name),
                allowed.join(", ")
            )));
        }
        Ok(())
    }
}

/// Is `name` inside the subtree `base`, of the same form? A form that is not known here cannot be judged, so that
/// the certificate is refused (RFC 5280 §4.2.1.10: process the constraint or reject).
fn within(name: &GeneralName, base: &GeneralName) -> Result<bool, CertificateError> {
    match (name, base) {
        (GeneralName::DnsName(name), GeneralName::DnsName(base)) => {
            Ok(dns_within(name.as_str(), base.as_str()))
        }
        (GeneralName::Rfc822Name(name), GeneralName::Rfc822Name(base)) => {
            Ok(email_within(name.as_str(), base.as_str()))
        }
        (GeneralName::IpAddress(name), GeneralName::IpAddress(base)) => {
            ip_within(name.as_bytes(), base.as_bytes())
        }
        (GeneralName::DirectoryName(name), GeneralName::DirectoryName(base)) => Ok(dn_within(name, base)),
        _ => Err(refused("its CA constrains a form of name that is not known here")),
    }
}

/// "Any DNS name that can be constructed by simply adding zero or more labels to the left-hand side of the name
/// satisfies the name constraint"; with a leading dot, one or more (what implementations agree on).
fn dns_within(name: &str, base: &str) -> bool {
    let (name, base) = (name.strip_suffix('.').unwrap_or(name), base.strip_suffix('.').unwrap_or(base));
    let (base, itself) = base.strip_prefix('.').map_or((base, true), |parent| (parent, false));
    if base.is_empty() {
        return true;
    }
    let Some(at) = name.len().checked_sub(base.len()) else { return false };
    let (Some(labels), Some(tail)) = (name.get(..at), name.get(at..)) else { return false };
    tail.eq_ignore_ascii_case(base) && if labels.is_empty() { itself } else { labels.ends_with('.') }
}

/// A mailbox, a host, or (with a leading dot) the hosts of a domain.
fn email_within(name: &str, base: &str) -> bool {
    let Some((local, host)) = name.rsplit_once('@') else { return false };
    match base.rsplit_once('@') {
        Some((base_local, base_host)) => local == base_local && host.eq_ignore_ascii_case(base_host),
        None if base.starts_with('.') => dns_within(host, base),
        None => host.eq_ignore_ascii_case(base),
    }
}

fn ip_within(name: &[u8], base: &[u8]) -> Result<bool, CertificateError> {
    let (network, mask) = base.split_at(base.len() / 2);
    if !matches!((base.len(), network.len()), (8, 4) | (32, 16)) {
        return Err(refused("its CA's name constraints hold an address of a strange length"));
    }
    Ok(name.len() == network.len()
        && name.iter().zip(network).zip(mask).all(|((n, base), mask)| n & mask == base & mask))
}

/// A distinguished name is within another that it begins with.
fn dn_within(name: &Name, base: &Name) -> bool {
    base.len() <= name.len() && name.iter_rdn().zip(base.iter_rdn()).all(|(n, b)| n == b)
}

fn shown(name: &GeneralName) -> String {
    match name {
        GeneralName::DnsName(dns) => text::printable(dns.as_str()),
        GeneralName::Rfc822Name(email) => text::printable(email.as_str()),
        GeneralName::DirectoryName(dn) => text::name(dn),
        GeneralName::IpAddress(octets) => shown_ip(octets.as_bytes()),
        _ => "a name of another form".to_owned(),
    }
}

fn shown_ip(octets: &[u8]) -> String {
    let one = |part: &[u8]| match (<[u8; 4]>::try_from(part), <[u8; 16]>::try_from(part)) {
        (Ok(v4), _) => std::net::Ipv4Addr::from(v4).to_string(),
        (_, Ok(v6)) => std::net::Ipv6Addr::from(v6).to_string(),
        _ => text::hex(part),
    };
    match octets.len() {
        8 | 32 => {
            let (network, mask) = octets.split_at(octets.len() / 2);
            format!("{}/{}", one(network), mask.iter().map(|m| m.leading_ones()).sum::<u32>())
        }
        _ => one(octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_holds_itself_and_what_is_below() {
        assert!(dns_within("hq.example.com", "hq.example.com"));
        assert!(dns_within("a.b.HQ.example.com.", "hq.example.com"));
        assert!(!dns_within("evilhq.example.com", "hq.example.com"));
        assert!(!dns_within("example.com", "hq.example.com"));
        assert!(dns_within("anything", ""));
    }

    #[test]
    fn a_leading_dot_leaves_the_domain_itself_out() {
        assert!(dns_within("a.hq.example.com", ".hq.example.com"));
        assert!(!dns_within("hq.example.com", ".hq.example.com"));
    }

    #[test]
    fn a_name_of_another_script_does_not_split_a_character() {
        assert!(!dns_within("ä", "x"));
        assert!(!dns_within("aä", "xx"));
    }

    #[test]
    fn addresses_are_compared_under_the_mask() {
        let base = [10, 200, 0, 0, 255, 255, 255, 0];
        assert!(ip_within(&[10, 200, 0, 7], &base).unwrap());
        assert!(!ip_within(&[10, 200, 1, 7], &base).unwrap());
        assert!(!ip_within(&[0; 16], &base).unwrap());
        assert!(ip_within(&[10, 200, 0, 7], &[10, 200, 0]).is_err());
    }

    #[test]
    fn mailboxes_hosts_and_domains() {
        assert!(email_within("a@x.org", "a@x.org"));
        assert!(!email_within("b@x.org", "a@x.org"));
        assert!(email_within("b@x.org", "x.org"));
        assert!(!email_within("b@y.x.org", "x.org"));
        assert!(email_within("b@y.x.org", ".x.org"));
    }
}
