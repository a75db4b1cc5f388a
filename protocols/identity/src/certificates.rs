//! What an IKE endpoint asks of certificates.

use crate::certificate::{Certificate, authority};
use crate::chain::{MAX_CERTIFICATES, Path, Revocation, Trust};
use crate::crl::Crl;
use crate::key::PrivateKey;
use crate::signature::{Hash, KeyKind, Scheme, split_identifier};
use crate::{refused, text};
use claims::{Certified, Identity, Proof};
use der::Encode as _;
use ikev2::{AuthMethod, Authentication, CertificateError, Credentials, HashAlgorithm, Identification};
use zeroize::Zeroizing;

/// Our certificates and key, and the roots and revocation lists by which peers are judged.
#[derive(Debug)]
pub struct Certificates {
    chain: Vec<Certificate>,
    key: PrivateKey,
    trust: Trust,
    local_id: Identification,
}

impl Certificates {
    /// All in PEM: our chain, our own certificate first (`tls.crt`); its key (`tls.key`); the roots we trust
    /// (`ca.crt`); revocation lists (`crl.pem`), which may be empty.
    ///
    /// # Errors
    /// What cannot be read, or does not go together, and what to do.
    pub fn new(chain: &[u8], key: &[u8], roots: &[u8], crls: &[u8]) -> Result<Self, CertificateError> {
        let chain = certificates(chain, "tls.crt")?;
        let own = chain.first().ok_or_else(|| refused("tls.crt holds no certificate"))?;
        if chain.len() > MAX_CERTIFICATES {
            return Err(refused(format!(
                "tls.crt holds {} certificates, and peers read at most {MAX_CERTIFICATES}: leave out what is not needed",
                chain.len()
            )));
        }
        let key = PrivateKey::from_pem(key, &own.key).map_err(|e| refused(format!("tls.key: {}", e.0)))?;
        let local_id = local_id(own)?;
        let roots = certificates(roots, "ca.crt")?;
        if roots.is_empty() {
            return Err(refused("ca.crt holds no certificate: no peer could be believed"));
        }
        if let Some(node) = roots.iter().find(|r| r.ca.is_none()) {
            return Err(refused(format!("ca.crt: `{}` is no CA's certificate", node.shown())));
        }
        let crls = pem_blocks(crls, "crl.pem", &["X509 CRL"])?
            .iter()
            .map(|der| Crl::from_der(der))
            .collect::<Result<_, _>>()
            .map_err(|e| refused(format!("crl.pem: {}", e.0)))?;
        Ok(Self { chain, key, trust: Trust::new(roots, crls), local_id })
    }

    /// What becomes of peers when there is no current revocation list.
    #[must_use]
    pub fn with_revocation(mut self, revocation: Revocation) -> Self {
        self.trust.revocation = revocation;
        self
    }

    /// Ourselves as peers with the same roots see us: our name, and what we may claim.
    ///
    /// # Errors
    /// Why they would refuse us.
    pub fn own_identity(&self, unix_now: u64) -> Result<Identity, CertificateError> {
        let path = self.trust.judge(unix_now, &self.chain())?;
        identity(&self.trust, &path, &self.local_id)
    }

    /// Last second of our chain's validity, seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.chain.iter().map(|c| c.validity.1).min().unwrap_or_default()
    }
}

impl Credentials for Certificates {
    fn local_id(&self) -> Identification {
        self.local_id.clone()
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        self.chain.iter().map(|c| c.der.clone()).collect()
    }

    fn authorities(&self) -> Vec<[u8; 20]> {
        self.trust.roots.iter().filter_map(|root| authority(&root.key)).collect()
    }

    fn sign(&self, peer_hashes: &[HashAlgorithm], octets: &[u8]) -> Result<Authentication, CertificateError> {
        self.key.sign(peer_hashes, octets)
    }

    fn shared_key(&self, _: &Identification) -> Option<Zeroizing<Vec<u8>>> {
        None
    }

    fn verify(
        &self,
        unix_now: u64,
        claimed: &Identification,
        chain: &[Vec<u8>],
        octets: &[u8],
        authentication: &Authentication,
    ) -> Result<Identity, CertificateError> {
        if authentication.method == AuthMethod::SharedKey {
            return Err(refused(format!(
                "`{}` authenticates by a pre-shared key, and this node believes only certificates: \
                 configure the same method on both",
                shown(claimed)
            )));
        }
        let path = self.trust.judge(unix_now, chain)?;
        let own = path.certificates.first().ok_or_else(|| refused("the peer sent no certificate"))?;
        signed(own, octets, authentication).map_err(|e| own.blame(&e))?;
        identity(&self.trust, &path, claimed)
    }

    fn still_holds(&self, unix_now: u64, identity: &Identity) -> Result<(), CertificateError> {
        let Proof::Certificate(certified) = &identity.proof else {
            return Err(refused(format!(
                "`{}` was believed by a pre-shared key, and this node now believes only certificates",
                identity.name
            )));
        };
        let path = self.trust.judge(unix_now, certified.chain.certificates())?;
        let again = self::certified(&self.trust, &path, &identity.name)?;
        if (&again.tunnel_addresses, &again.prefixes) != (&certified.tunnel_addresses, &certified.prefixes) {
            return Err(refused(format!(
                "what `{}` may claim has changed with the roots trusted here: it must authenticate again",
                identity.name
            )));
        }
        Ok(())
    }
}

/// Did the key of `own` sign `octets`?
fn signed(own: &Certificate, octets: &[u8], authentication: &Authentication) -> Result<(), CertificateError> {
    let data = authentication.data.as_slice();
    match authentication.method {
        AuthMethod::Signature => {
            //= rfc7427#3
            // "ASN.1 Length (1 octet) - The length of the ASN.1-encoded AlgorithmIdentifier object."
            let (length, rest) = data.split_first().ok_or_else(|| refused("its AUTH payload is empty"))?;
            let (identifier, signature) = split_identifier(rest)?;
            if rest.len() - signature.len() != usize::from(*length) {
                return Err(refused(
                    "its AUTH payload's algorithm identifier has another length than it says",
                ));
            }
            Scheme::from_identifier(&identifier)?.verify(&own.key, octets, signature)
        }
        AuthMethod::EcdsaP256 => Scheme::EcdsaFixed(Hash::Sha256).verify(&own.key, octets, data),
        AuthMethod::EcdsaP384 => Scheme::EcdsaFixed(Hash::Sha384).verify(&own.key, octets, data),
        AuthMethod::Rsa => signed_by_rsa(own, octets, data),
        AuthMethod::SharedKey => Err(refused("it did not sign")),
    }
}

/// Method 1 does not say by which hash; PKCS#1 does, inside. SHA-1, its default, is recognised to be refused by name.
fn signed_by_rsa(own: &Certificate, octets: &[u8], signature: &[u8]) -> Result<(), CertificateError> {
    if KeyKind::of(&own.key)? != KeyKind::Rsa {
        return Err(refused("it says that it signed by RSA, and its key is another"));
    }
    let by = |scheme: Scheme| scheme.verify(&own.key, octets, signature);
    if [Hash::Sha256, Hash::Sha384, Hash::Sha512].into_iter().any(|hash| by(Scheme::RsaPkcs1(hash)).is_ok()) {
        return Ok(());
    }
    Err(if by(Scheme::RsaSha1).is_ok() {
        refused(
            "it signed with SHA-1, which is not believed any more: let the peer use digital signatures (RFC 7427) \
             with SHA-256, or give it an ECDSA key",
        )
    } else {
        refused("the signature (RSA) is wrong")
    })
}

/// Whom a good path belongs to, if the peer calls itself by one of its names.
fn identity(trust: &Trust, path: &Path, claimed: &Identification) -> Result<Identity, CertificateError> {
    let own = path.certificates.first().ok_or_else(|| refused("the peer sent no certificate"))?;
    if !bears(own, claimed) {
        let names: Vec<String> = own
            .dns_names()
            .map(text::printable)
            .chain(own.addresses().map(|a| a.to_string()))
            .take(8)
            .collect();
        return Err(own.blame(&refused(format!(
            "the peer calls itself `{}`, and its certificate is for {}: let it use one of those as its IKE identity, \
             or issue a certificate with that name as a subject alternative name",
            shown(claimed),
            if names.is_empty() { format!("`{}`", text::name(&own.subject)) } else { names.join(", ") }
        ))));
    }
    let name = match claimed {
        Identification::Fqdn(name) => plain(name),
        _ => host_names(own).next().map_or_else(|| other_name(own, claimed), plain),
    };
    let certified = certified(trust, path, &name)?;
    Ok(Identity { name, proof: Proof::Certificate(certified) })
}

/// What the first certificate of a path says beyond the name. An address that is the peer's name is where it is on the
/// underlay, and no tunnel address.
fn certified(trust: &Trust, path: &Path, name: &str) -> Result<Certified, CertificateError> {
    let own = path.certificates.first().ok_or_else(|| refused("the peer sent no certificate"))?;
    Ok(Certified {
        tunnel_addresses: own.addresses().filter(|a| a.to_string() != name).collect(),
        prefixes: path.blocks.as_ref().map(|b| b.prefixes()).transpose().map_err(|e| own.blame(&e))?,
        fingerprint: own.fingerprint(),
        not_after: path.not_after,
        chain: trust.kept(path),
    })
}

/// RFC 4945 §3.1: the ID must be one of the certificate's names.
fn bears(own: &Certificate, claimed: &Identification) -> bool {
    match claimed {
        Identification::Fqdn(name) => host_names(own).any(|dns| plain(dns) == plain(name)),
        Identification::Address(address) => own.addresses().any(|a| a == *address),
        Identification::Email(email) => own.emails().any(|e| e.eq_ignore_ascii_case(email)),
        Identification::Dn(dn) => !own.subject.is_empty() && own.subject.to_der().is_ok_and(|der| der == *dn),
        Identification::KeyId(_) => false,
    }
}

/// The DNS names that name one node: a wildcard names many, and identities are also used as patterns.
fn host_names(own: &Certificate) -> impl Iterator<Item = &str> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    own.dns_names().filter(move |name| !name.is_empty() && name.bytes().all(plain))
}

/// Names without a DNS name among them.
fn other_name(own: &Certificate, claimed: &Identification) -> String {
    match claimed {
        Identification::Dn(_) | Identification::KeyId(_) => text::name(&own.subject),
        other => shown(other),
    }
}

/// DNS names have no case, and a trailing dot says nothing.
fn plain(name: &str) -> String {
    text::printable(name.strip_suffix('.').unwrap_or(name)).to_ascii_lowercase()
}

fn shown(id: &Identification) -> String {
    use der::Decode as _;
    match id {
        Identification::Dn(der) => {
            x509_cert::name::Name::from_der(der).map_or_else(|_| id.to_string(), |name| text::name(&name))
        }
        other => text::printable(&other.to_string()),
    }
}

fn local_id(own: &Certificate) -> Result<Identification, CertificateError> {
    if let Some(dns) = host_names(own).next() {
        return Ok(Identification::Fqdn(plain(dns)));
    }
    match own.subject.to_der() {
        Ok(dn) if !own.subject.is_empty() => Ok(Identification::Dn(dn)),
        _ => Err(refused(
            "tls.crt: the certificate bears no name: it needs a DNS name as a subject alternative name",
        )),
    }
}

fn certificates(text: &[u8], file: &str) -> Result<Vec<Certificate>, CertificateError> {
    pem_blocks(text, file, &["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"])?
        .iter()
        .map(|der| Certificate::from_der(der).map_err(|e| refused(format!("{file}: {}", e.0))))
        .collect()
}

pub(crate) fn pem_blocks(text: &[u8], file: &str, labels: &[&str]) -> Result<Vec<Vec<u8>>, CertificateError> {
    let blocks = all_pem_blocks(text, file)?;
    Ok(blocks.into_iter().filter(|b| labels.contains(&b.tag())).map(pem::Pem::into_contents).collect())
}

pub(crate) fn all_pem_blocks(text: &[u8], file: &str) -> Result<Vec<pem::Pem>, CertificateError> {
    let blocks = pem::parse_many(text).map_err(|e| refused(format!("{file} is not PEM: {e}")))?;
    if blocks.is_empty() && !text.iter().all(u8::is_ascii_whitespace) {
        return Err(refused(format!("{file} is not PEM: nothing in it begins with `-----BEGIN`")));
    }
    Ok(blocks)
}
