//! How the overlays of the stories are protected: each story by the setting that falls to its name, so that all of them
//! together use every cipher, certificates and pre-shared keys; or all by one setting, from the environment.
//!
//! | variable | values |
//! |---|---|
//! | `DMVPN_SECURITY` | `cert`, `psk`, `none`, or `varied` (the default) |
//! | `DMVPN_ESP` | an ESP proposal; without it, that of the story's name |

use crate::error::{Error, Result};
use crate::manifest::Manifest;
use identity::pki::{Authority, Claims, Confines, Described, Made, Revoked, Validity, describe};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// The Secret with the node's certificate.
const NODE_SECRET: &str = "node-certificate";
/// The Secret with the roots and revocation lists.
const TRUST_SECRET: &str = "roots";
/// The key that all share.
pub const SHARED_KEY: &str = "lab-pre-shared-key-0123456789abcdef";

/// How peers prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nobody does: everything is in the clear.
    None,
    /// By one key for all.
    SharedKey,
    /// Each by its certificate.
    Certificates,
}

/// The ciphers that stories use.
const CIPHERS: [&str; 3] = ["aes128gcm16", "aes256gcm16", "chacha20poly1305"];

thread_local! {
    /// The story that this thread tells.
    static STORY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// This thread tells that story from now on.
pub(crate) fn tells(story: &str) {
    STORY.with_borrow_mut(|name| story.clone_into(name));
}

/// How this story is protected, unless it says something else itself.
#[must_use]
pub fn proof() -> Proof {
    match std::env::var("DMVPN_SECURITY").as_deref() {
        Ok("none") => Proof::None,
        Ok("psk") => Proof::SharedKey,
        Ok("cert") => Proof::Certificates,
        Ok("varied") | Err(_) => STORY.with_borrow(|name| by_name(name).0),
        Ok(other) => panic!("DMVPN_SECURITY={other}: varied, cert, psk or none"),
    }
}

/// The ESP proposal of this story.
#[must_use]
pub fn esp() -> String {
    std::env::var("DMVPN_ESP").unwrap_or_else(|_| STORY.with_borrow(|name| by_name(name).1.to_owned()))
}

/// How this story is protected, in words.
pub(crate) fn described() -> String {
    match proof() {
        Proof::None => "in clear unless it says otherwise".to_owned(),
        proof => format!("{proof:?}, {} unless it says otherwise", esp()),
    }
}

/// What falls to a name, always the same: each cipher a third of the stories, and of those a quarter with a pre-shared
/// key. Certificates are what most users have, and what a story can ask more of.
fn by_name(story: &str) -> (Proof, &'static str) {
    // FNV-1a, whose low bits are good enough for so few.
    let hash = story.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    });
    let number = (hash % 12) as usize;
    let proof = if number / 3 == 0 { Proof::SharedKey } else { Proof::Certificates };
    (proof, CIPHERS[number % 3])
}

/// What a manifest says of it.
pub(crate) fn spec(proof: Proof) -> Value {
    let authentication = match proof {
        Proof::None => return json!({"mode": "None"}),
        Proof::SharedKey => json!({"preSharedKey": {"secret": "lab-psk"}}),
        Proof::Certificates => json!({"certificates": {
            "issuedBy": "Secret", "secret": NODE_SECRET, "trust": TRUST_SECRET,
        }}),
    };
    json!({"mode": "Encrypted", "esp": [esp()], "exportKeys": true, "authentication": authentication})
}

/// The Secret of [`Proof::SharedKey`].
pub(crate) fn shared_key(key: &str) -> Value {
    secret("lab-psk", json!({"psk": key}))
}

/// A Secret object.
pub(crate) fn secret(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// The lab's certificates: a root, and an intermediate CA that signs the nodes'.
pub struct Pki {
    root: Authority,
    issuer: Authority,
}

impl Pki {
    /// Makes the two CAs.
    pub fn new() -> Result<Self> {
        let root = Authority::root("Lab Root", validity()).map_err(Error::other)?;
        let everything = ["0.0.0.0/0", "::/0"].iter().filter_map(|p| p.parse().ok()).collect::<Vec<IpNet>>();
        let confines = Confines { prefixes: everything, ..Confines::default() };
        let issuer = root.intermediate("Lab Nodes", &confines, validity()).map_err(Error::other)?;
        Ok(Self { root, issuer })
    }

    /// The root, in PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.root.chain_pem()
    }

    /// The root itself, for CAs of a story's own.
    #[must_use]
    pub const fn root(&self) -> &Authority {
        &self.root
    }

    /// The CA that signs nodes' certificates.
    #[must_use]
    pub const fn issuer(&self) -> &Authority {
        &self.issuer
    }

    /// A node's certificate that says all of this.
    pub fn node(&self, claims: &Claims) -> Result<Made> {
        self.issuer.node(claims, validity()).map_err(Error::other)
    }

    /// The same that is good until then.
    pub fn node_until(&self, claims: &Claims, not_after: u64) -> Result<Made> {
        self.issuer.node(claims, Validity { not_after, ..validity() }).map_err(Error::other)
    }

    /// A revocation list of the nodes' CA with these serial numbers on it.
    pub fn revoke(&self, serials: &[Vec<u8>], number: u64) -> Result<String> {
        let revoked: Vec<_> =
            serials.iter().map(|serial| Revoked { serial: serial.clone(), since: now() - 1 }).collect();
        self.issuer.revocation_list(&revoked, number, validity()).map_err(Error::other)
    }

    /// A certificate for more than its CA may give: of a CA that is confined to 10.1.0.0/16, for all of 10.0.0.0/8. Our
    /// own tools refuse to make such a one.
    pub fn too_wide(&self, claims: &Claims) -> Result<Made> {
        let confines =
            Confines { prefixes: "10.1.0.0/16".parse().into_iter().collect(), ..Confines::default() };
        let confined = self.root.intermediate("Lab Branch", &confines, validity()).map_err(Error::other)?;
        let key = rcgen::KeyPair::from_pem(confined.key_pem()).map_err(Error::other)?;
        let issuer = rcgen::Issuer::from_ca_cert_pem(&confined.chain_pem(), key).map_err(Error::other)?;
        let mut params = rcgen::CertificateParams::new([claims.name.clone()]).map_err(Error::other)?;
        params
            .subject_alt_names
            .extend(claims.tunnel_addresses.iter().map(|a| rcgen::SanType::IpAddress(*a)));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        // RFC 3779 §2.2.3: IPv4, the prefix 10/8.
        let blocks = vec![0x30, 0x0c, 0x30, 0x0a, 4, 2, 0, 1, 0x30, 4, 3, 2, 0, 0x0a];
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 7];
        let mut extension = rcgen::CustomExtension::from_oid_content(&oid, blocks);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
        let own = rcgen::KeyPair::generate().map_err(Error::other)?;
        let certificate = params.signed_by(&own, &issuer).map_err(Error::other)?;
        Ok(Made { chain: certificate.pem() + &confined.chain_pem(), key: own.serialize_pem().into() })
    }

    /// The file with a node's credentials.
    #[must_use]
    pub fn file(&self, node: &Made, revocation_list: Option<&str>) -> String {
        let own = secret(NODE_SECRET, json!({"tls.crt": node.chain, "tls.key": node.key.as_str()}));
        let mut trust = json!({"ca.crt": self.root_pem()});
        if let Some(list) = revocation_list {
            trust["crl.pem"] = list.into();
        }
        crate::manifest::documents(&[own, secret(TRUST_SECRET, trust)])
    }
}

/// The serial number of a node's certificate.
pub fn serial(made: &Made) -> Result<Vec<u8>> {
    let described = describe(made.chain.as_bytes()).map_err(Error::other)?;
    let Some(Described::Certificate(own)) = described.first() else {
        return Err(Error::other("no certificate"));
    };
    let digits: String = own.serial.chars().filter(char::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits
        .as_bytes()
        .chunks(2)
        .map(octet)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::other("a serial number"))
}

/// What the node of a manifest may claim: its own tunnel addresses, and what it announces; a hub, whatever it carries.
#[must_use]
pub fn claims(name: &str, manifest: &Manifest) -> Claims {
    let spec = manifest.spec();
    let addresses = ["addresses", "addressesV6"].iter().filter_map(|field| spec["tunnel"][field].as_str());
    let own = addresses.flat_map(|list| list.split(',')).filter_map(|a| a.trim().parse::<IpNet>().ok());
    let tunnel_addresses = own.map(|net| net.addr()).collect();
    let announced = spec["announce"]["prefixes"].as_array().into_iter().flatten();
    let prefixes: Vec<&str> = if manifest.is_hub() {
        vec!["0.0.0.0/0", "::/0"]
    } else {
        announced.filter_map(Value::as_str).collect()
    };
    let prefixes = prefixes.iter().filter_map(|p| p.parse().ok()).collect();
    Claims { name: name.to_owned(), tunnel_addresses, prefixes }
}

/// From an hour ago until tomorrow.
#[must_use]
pub fn validity() -> Validity {
    Validity { not_before: now() - 3600, not_after: now() + 86_400 }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_dozen_stories_use_everything() {
        let chosen: Vec<_> = (0..60).map(|n| by_name(&format!("story_{n}"))).collect();
        for cipher in CIPHERS {
            for (proof, least) in [(Proof::SharedKey, 1), (Proof::Certificates, 8)] {
                let count = chosen.iter().filter(|c| **c == (proof, cipher)).count();
                assert!(count >= least, "{count} of 60 with {proof:?} and {cipher}");
            }
        }
        assert_eq!(by_name("phase_3"), by_name("phase_3"));
    }
}
