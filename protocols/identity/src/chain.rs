//! From a peer's certificate to one of our roots, and every rule on the way (RFC 5280 §6, RFC 3779 §2.3).
//!
//! A path is looked for first (names and signatures), then checked from the root down: only what is signed by somebody
//! we trust is read closely. Everything a peer can make long is bounded.

use crate::blocks::Blocks;
use crate::certificate::{Certificate, sha256};
use crate::crl::Crl;
use crate::signature::Scheme;
use crate::{refused, text};
use claims::Chain;
use const_oid::ObjectIdentifier;
use der::Encode as _;
use ikev2::CertificateError;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Certificates that a peer may send, and the longest path.
pub(crate) const MAX_CERTIFICATES: usize = 8;
/// Signatures tried for one path, however many certificates bear the same name.
const MAX_SIGNATURES: usize = 24;
/// Signatures that are remembered as good, so that an intermediate's is computed once and not for each peer.
const REMEMBERED: usize = 8192;
/// Issuers of peers that are kept once for all of their peers.
const SHARED: usize = 64;
/// How far another clock may be ahead of ours: certificates and revocation lists made just now are no error.
const SKEW: u64 = 300;

/// Purposes that a node's certificate may be limited to (RFC 5280 §4.2.1.12, RFC 4945 §5.1.3.12): any, TLS server and
/// client (most PKIs issue nothing else), and those made for IPsec, old and new.
const PURPOSES: [&str; 8] = [
    "2.5.29.37.0",
    "1.3.6.1.5.5.7.3.1",
    "1.3.6.1.5.5.7.3.2",
    "1.3.6.1.5.5.7.3.5",
    "1.3.6.1.5.5.7.3.6",
    "1.3.6.1.5.5.7.3.7",
    "1.3.6.1.5.5.7.3.17",
    "1.3.6.1.5.5.8.2.2",
];

/// What becomes of a peer when there is no current revocation list of a CA on its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revocation {
    /// It is believed: lists revoke whom they name, also when they are stale, and not every CA has one.
    #[default]
    WherePresent,
    /// It is refused: every CA on the path below the root's own certificate must have a list that is current.
    Required,
}

/// Whom we trust.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    pub(crate) roots: Vec<Certificate>,
    pub(crate) crls: Vec<Crl>,
    pub(crate) revocation: Revocation,
    verified: Mutex<BTreeSet<[u8; 32]>>,
    issuers: Mutex<BTreeSet<Arc<[u8]>>>,
}

/// A peer's certificates, found good.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// The peer's own first, without the root.
    pub(crate) certificates: Vec<Certificate>,
    /// Last second at which all of them, and the root, are valid.
    pub(crate) not_after: u64,
    /// What the first may claim. `None`: nobody on the path says anything of prefixes.
    pub(crate) blocks: Option<Blocks>,
}

/// A certificate and its place above another.
type Link<'a> = &'a Certificate;

impl Trust {
    pub(crate) fn new(roots: Vec<Certificate>, crls: Vec<Crl>) -> Self {
        Self { roots, crls, ..Self::default() }
    }

    /// Judges a chain in DER, the peer's own certificate first, the others in any order.
    pub(crate) fn judge(&self, unix_now: u64, chain: &[impl AsRef<[u8]>]) -> Result<Path, CertificateError> {
        if chain.is_empty() {
            return Err(refused("the peer sent no certificate"));
        }
        if chain.len() > MAX_CERTIFICATES {
            return Err(refused(format!(
                "the peer sent {} certificates; at most {MAX_CERTIFICATES} are read",
                chain.len()
            )));
        }
        let mut sent = chain.iter().map(|der| Certificate::from_der(der.as_ref()));
        let leaf = sent.next().unwrap_or_else(|| Err(refused("the peer sent no certificate")))?;
        // What is not on the path may be unreadable.
        let others: Vec<Certificate> = sent.filter_map(Result::ok).collect();
        let mut search = Search { trust: self, others: &others, signatures: 0, failure: None };
        let mut path = vec![&leaf];
        let Some(root) = search.climb(&mut path) else {
            return Err(search.failure.unwrap_or_else(|| self.no_issuer(&leaf)));
        };
        let (not_after, blocks) = self.check(unix_now, root, &path)?;
        Ok(Path { certificates: path.into_iter().cloned().collect(), not_after, blocks })
    }

    /// Every rule, from the root down.
    fn check(
        &self,
        unix_now: u64,
        root: &Certificate,
        path: &[Link<'_>],
    ) -> Result<(u64, Option<Blocks>), CertificateError> {
        let mut not_after = u64::MAX;
        let mut blocks: Option<Blocks> = None;
        let mut above: Vec<Link<'_>> = Vec::new();
        let own = path.first().copied();
        for certificate in std::iter::once(root).chain(path.iter().rev().copied()) {
            let is_own = own.is_some_and(|own| std::ptr::eq(own, certificate));
            let checked =
                if is_own { node(certificate) } else { authority(certificate, path.len(), above.len()) }
                    .and_then(|()| valid(certificate, unix_now))
                    .and_then(|()| names(certificate, &above, is_own))
                    .and_then(|()| self.not_revoked(certificate, above.last().copied(), unix_now));
            checked.map_err(|e| certificate.blame(&e))?;
            if let Some(own) = &certificate.blocks {
                blocks = Some(own.below(blocks.as_ref()).map_err(|e| certificate.blame(&e))?);
            } else if is_own && blocks.is_some() {
                // Whoever gave it out may give out only some addresses, and gave it none.
                blocks = Some(Blocks::default());
            }
            not_after = not_after.min(certificate.validity.1);
            above.push(certificate);
        }
        Ok((not_after, blocks))
    }

    fn not_revoked(
        &self,
        certificate: &Certificate,
        issuer: Option<&Certificate>,
        unix_now: u64,
    ) -> Result<(), CertificateError> {
        let Some(issuer) = issuer else { return Ok(()) };
        let mut current = false;
        for crl in self.crls.iter().filter(|crl| crl.issuer == issuer.subject) {
            if !may_sign_lists(issuer)
                || !self.is_signed(crl.fingerprint, issuer, || crl.signed_by(&issuer.key))
            {
                continue; // Of another CA of this name.
            }
            if let Some(revocation) = crl.revocation(&certificate.serial) {
                return Err(refused(format!("{revocation}; give the node another one if it is still yours")));
            }
            current |= crl.this_update <= unix_now.saturating_add(SKEW) && crl.is_current(unix_now);
        }
        if !current && self.revocation == Revocation::Required {
            return Err(refused(format!(
                "there is no current revocation list of its issuer `{}`: put one into crl.pem",
                issuer.shown()
            )));
        }
        Ok(())
    }

    /// Did `issuer` sign what has this fingerprint? Good signatures are remembered.
    fn is_signed(
        &self,
        fingerprint: [u8; 32],
        issuer: &Certificate,
        verify: impl FnOnce() -> Result<(), CertificateError>,
    ) -> bool {
        let key = issuer.key.to_der().unwrap_or_default();
        let name = sha256(&[&fingerprint, &key]);
        if self.remembered().contains(&name) {
            return true;
        }
        let good = verify().is_ok();
        if good {
            let mut remembered = self.remembered();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(name);
        }
        good
    }

    /// The certificates of a path that was found good, as they are kept for each peer: a thousand peers have few issuers.
    pub(crate) fn kept(&self, path: &Path) -> Chain {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = |(above, certificate): (usize, &Certificate)| {
            let der = certificate.der.as_slice();
            if above == 0 {
                return Arc::from(der);
            }
            if let Some(known) = issuers.get(der) {
                return Arc::clone(known);
            }
            if issuers.len() >= SHARED {
                issuers.clear();
            }
            let new: Arc<[u8]> = Arc::from(der);
            issuers.insert(Arc::clone(&new));
            new
        };
        path.certificates.iter().enumerate().map(&mut kept).collect()
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, BTreeSet<[u8; 32]>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_issuer(&self, of: &Certificate) -> CertificateError {
        let roots: Vec<String> = self.roots.iter().take(8).map(|r| format!("`{}`", r.shown())).collect();
        let roots = if roots.is_empty() { "none".to_owned() } else { roots.join(", ") };
        of.blame(&refused(format!(
            "its issuer `{}` is not one of the roots trusted here ({roots}), and the peer sent no certificate of it: \
             add its root to ca.crt here, or its intermediates to tls.crt there",
            text::name(&of.issuer)
        )))
    }
}

/// A search for a path.
struct Search<'a> {
    trust: &'a Trust,
    others: &'a [Certificate],
    signatures: usize,
    /// Of the longest attempt: what is told when all fail.
    failure: Option<CertificateError>,
}

impl<'a> Search<'a> {
    /// Extends a path to a root, which it returns.
    fn climb(&mut self, path: &mut Vec<Link<'a>>) -> Option<&'a Certificate> {
        let of = path.last().copied()?;
        let mut wrong = None;
        for root in self.trust.roots.iter().filter(|r| r.subject == of.issuer) {
            match self.signed_by(of, root) {
                Ok(()) => return Some(root),
                Err(error) => wrong = Some(error),
            }
        }
        for other in self.others.iter().filter(|o| o.subject == of.issuer) {
            if path.len() >= MAX_CERTIFICATES
                || path.iter().any(|p| p.der == other.der)
                || other.self_issued()
            {
                continue;
            }
            match self.signed_by(of, other) {
                Ok(()) => {
                    path.push(other);
                    if let Some(root) = self.climb(path) {
                        return Some(root);
                    }
                    path.pop();
                }
                Err(error) => wrong = Some(error),
            }
        }
        let reason = wrong.map_or_else(|| self.trust.no_issuer(of), |error| of.blame(&error));
        self.failure.get_or_insert(reason);
        None
    }

    fn signed_by(&mut self, of: &Certificate, issuer: &Certificate) -> Result<(), CertificateError> {
        self.signatures += 1;
        if self.signatures > MAX_SIGNATURES {
            return Err(refused("too many certificates of the same name were sent"));
        }
        let mut reason = None;
        let good = self.trust.is_signed(of.fingerprint(), issuer, || {
            Scheme::from_identifier(&of.algorithm)
                .and_then(|scheme| scheme.verify(&issuer.key, of.signed(), &of.signature))
                .inspect_err(|error| reason = Some(error.0.clone()))
        });
        if good {
            return Ok(());
        }
        Err(refused(format!(
            "not signed by the `{}` that is known here: {}",
            issuer.shown(),
            reason.unwrap_or_default()
        )))
    }
}

fn valid(certificate: &Certificate, unix_now: u64) -> Result<(), CertificateError> {
    if let Some(unknown) = certificate.unknown_critical {
        return Err(refused(format!("it has the critical extension {unknown}, which is not known here")));
    }
    let (not_before, not_after) = certificate.validity;
    if unix_now.saturating_add(SKEW) < not_before {
        return Err(refused(format!(
            "valid only from {}; this node's clock says {}: set it, or wait",
            text::time(not_before),
            text::time(unix_now)
        )));
    }
    if unix_now > not_after {
        return Err(refused(format!(
            "expired at {}; this node's clock says {}: renew it, or set the clock",
            text::time(not_after),
            text::time(unix_now)
        )));
    }
    Ok(())
}

/// A certificate that issues others, with `below` certificates under the root and `depth` above this one.
fn authority(certificate: &Certificate, below: usize, depth: usize) -> Result<(), CertificateError> {
    //= rfc5280#6.1.4
    // "If certificate i is a version 3 certificate, verify that the basicConstraints extension is present and that cA
    // is set to TRUE."
    let Some(path_length) = certificate.ca else {
        return Err(refused("it is no CA's certificate, and issues others"));
    };
    //= rfc5280#6.1.4
    // "If a key usage extension is present, verify that the keyCertSign bit is set."
    if certificate.key_usage.is_some_and(|usage| !usage.key_cert_sign()) {
        return Err(refused("its key must not sign certificates (key usage)"));
    }
    let follow = below.saturating_sub(depth + 1);
    if path_length.is_some_and(|allowed| follow > usize::from(allowed)) {
        return Err(refused(format!("more CAs follow it ({follow}) than its path length allows")));
    }
    Ok(())
}

/// The certificate of somebody who authenticates.
fn node(certificate: &Certificate) -> Result<(), CertificateError> {
    if certificate.ca.is_some() {
        return Err(refused("it is a CA's certificate: issue one for the node itself"));
    }
    //= rfc4945#5.1.3.2
    // "If a KeyUsage extension is present, and it doesn't mention digitalSignature or nonRepudiation (both, in this
    // context) ... reject"
    if certificate.key_usage.is_some_and(|usage| !usage.digital_signature() && !usage.non_repudiation()) {
        return Err(refused("its key must not sign (key usage): it needs digitalSignature"));
    }
    let known =
        |oid: &ObjectIdentifier| PURPOSES.iter().any(|p| ObjectIdentifier::new(p).as_ref() == Ok(oid));
    if certificate.purposes.as_ref().is_some_and(|purposes| !purposes.iter().any(known)) {
        return Err(refused(
            "it is limited to other purposes (extended key usage): use none, ipsecIKE, serverAuth or clientAuth",
        ));
    }
    Ok(())
}

fn names(certificate: &Certificate, above: &[Link<'_>], is_own: bool) -> Result<(), CertificateError> {
    //= rfc5280#6.1.3
    // "If certificate i is self-issued and it is not the final certificate in the path, skip this step"
    if certificate.self_issued() && !is_own {
        return Ok(());
    }
    above.iter().filter_map(|a| a.constraints.as_ref()).try_for_each(|c| c.allow(certificate))
}

fn may_sign_lists(issuer: &Certificate) -> bool {
    issuer.key_usage.is_none_or(|usage| usage.crl_sign())
}
