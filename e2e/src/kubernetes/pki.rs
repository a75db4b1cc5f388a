//! A cluster's certificates: a CA, and a certificate for each who speaks to the API server.

use crate::error::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// The CA, and the folder of all keys and certificates.
pub struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes a CA (`ca.crt`) and the keys of service account tokens (`sa.key`, `sa.pub`).
    pub(super) fn new(folder: PathBuf, name: &str) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{name} CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(Error::other)?;
        let certificate = params.self_signed(&key).map_err(Error::other)?;
        write(&folder.join("ca.crt"), &certificate.pem())?;
        let tokens = KeyPair::generate().map_err(Error::other)?;
        write(&folder.join("sa.key"), &tokens.serialize_pem())?;
        write(&folder.join("sa.pub"), &tokens.public_key_pem())?;
        Ok(Self { folder, issuer: Issuer::new(params, key) })
    }

    /// A file of this folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes `NAME.crt` and `NAME.key` for a server of these names and addresses.
    pub(super) fn server(&self, name: &str, names: Vec<String>) -> Result {
        let mut params = CertificateParams::new(names).map_err(Error::other)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(name, params)
    }

    /// Makes a kubeconfig, and a certificate for it, of a user in these groups.
    pub fn kubeconfig(&self, name: &str, user: &str, group: Option<&str>, server: &str) -> Result<PathBuf> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params)?;
        let file = |suffix: &str| self.file(&format!("{name}.{suffix}"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": self.file("ca.crt")}}],
            "users": [{"name": "lab", "user": {"client-certificate": file("crt"), "client-key": file("key")}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        let path = file("kubeconfig");
        write(&path, &config.to_string())?;
        Ok(path)
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Result {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::other)?;
        write(&self.file(&format!("{name}.crt")), &certificate.pem())?;
        write(&self.file(&format!("{name}.key")), &key.serialize_pem())
    }
}

pub(super) fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
