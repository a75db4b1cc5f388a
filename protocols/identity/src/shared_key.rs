//! One pre-shared key for all: for labs, and for routers that have no certificates.

use claims::{Identity, Proof};
use ikev2::{Authentication, CertificateError, Credentials, HashAlgorithm, Identification};
use zeroize::Zeroizing;

/// A name of our own, and the key that every peer knows. Whoever knows it may call itself what it likes, so that peers
/// are `IdentityUnverified`, and only admission limits what they claim.
pub struct SharedKey {
    local_id: String,
    key: Zeroizing<Vec<u8>>,
}

impl SharedKey {
    /// `local_id` is our name (an FQDN, as peers see it in `dmvpnctl peers`), `key` the octets of the key.
    ///
    /// # Errors
    /// There is no name, or no key.
    pub fn new(
        local_id: impl Into<String>,
        key: impl Into<Zeroizing<Vec<u8>>>,
    ) -> Result<Self, CertificateError> {
        let (local_id, key) = (local_id.into(), key.into());
        if local_id.is_empty() {
            return Err(CertificateError("this node has no name to authenticate by".to_owned()));
        }
        if key.is_empty() {
            return Err(CertificateError("the pre-shared key is empty: anyone would know it".to_owned()));
        }
        Ok(Self { local_id, key })
    }
}

impl Credentials for SharedKey {
    fn local_id(&self) -> Identification {
        Identification::Fqdn(self.local_id.clone())
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn authorities(&self) -> Vec<[u8; 20]> {
        Vec::new()
    }

    fn sign(&self, _: &[HashAlgorithm], _: &[u8]) -> Result<Authentication, CertificateError> {
        Err(CertificateError("this node has a pre-shared key and no certificate to sign with".to_owned()))
    }

    fn shared_key(&self, _: &Identification) -> Option<Zeroizing<Vec<u8>>> {
        Some(self.key.clone())
    }

    fn verify(
        &self,
        _: u64,
        claimed: &Identification,
        _: &[Vec<u8>],
        _: &[u8],
        _: &Authentication,
    ) -> Result<Identity, CertificateError> {
        Err(CertificateError(format!(
            "`{claimed}` authenticates by a certificate, and this node believes only the pre-shared key: \
             configure the same method on both"
        )))
    }

    fn still_holds(&self, _: u64, identity: &Identity) -> Result<(), CertificateError> {
        match identity.proof {
            Proof::SharedKey => Ok(()),
            Proof::Certificate(_) => Err(CertificateError(format!(
                "`{}` was believed by its certificate, and this node now believes only the pre-shared key",
                identity.name
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims::Certified;
    use ikev2::AuthMethod;

    #[test]
    fn every_peer_has_the_same_key() {
        let credentials = SharedKey::new("a.example.com", b"secret".to_vec()).unwrap();
        let peer = Identification::Fqdn("b.example.com".into());
        assert_eq!(credentials.local_id(), Identification::Fqdn("a.example.com".into()));
        assert_eq!(credentials.shared_key(&peer).unwrap().as_slice(), b"secret");
        assert!(credentials.chain().is_empty());
    }

    #[test]
    fn an_empty_key_is_refused() {
        assert!(SharedKey::new("a.example.com", Vec::new()).is_err());
        assert!(SharedKey::new("", b"secret".to_vec()).is_err());
    }

    #[test]
    fn a_certificate_is_not_believed_where_a_key_is_configured() {
        let credentials = SharedKey::new("a.example.com", b"secret".to_vec()).unwrap();
        let authentication = Authentication { method: AuthMethod::Signature, data: vec![] };
        let peer = Identification::Fqdn("b.example.com".into());
        assert!(credentials.verify(0, &peer, &[], b"", &authentication).is_err());
        let proof = Proof::Certificate(Certified::default());
        assert!(credentials.still_holds(0, &Identity { name: "b".into(), proof }).is_err());
        assert!(credentials.still_holds(0, &Identity { name: "b".into(), proof: Proof::SharedKey }).is_ok());
    }
}
