//! Keys of SAs in files that Wireshark reads from its profile's folder: `esp_sa` and `ikev2_decryption_table`. Off
//! unless asked for, and said loudly: whoever reads them reads all traffic, past and present.

use esp::{Keys, Suite};
use packet::Path;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A file that has grown to so many octets is begun anew: peers could fill the memory that `/run` is made of.
const LARGEST: u64 = 8 << 20;

/// The files of one tunnel.
#[derive(Debug)]
pub struct KeyLog {
    folder: PathBuf,
}

impl KeyLog {
    /// Makes the folder, for its owner only. Keys of an agent before this one stay: its SAs live on.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).recursive(true).create(&folder)?;
        Ok(Self { folder })
    }

    /// Removes what was ever written there.
    pub fn remove(folder: &std::path::Path) -> io::Result<()> {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Where the files are.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Writes the keys of an SA.
    pub fn esp(&self, path: Path, keys: &Keys) -> io::Result<()> {
        self.append("esp_sa", &esp_line(path, keys))
    }

    /// Writes the keys of an IKE SA, in a line that IKE has made.
    pub fn ike(&self, line: &str) -> io::Result<()> {
        self.append("ikev2_decryption_table", &Zeroizing::new(format!("{line}\n")))
    }

    fn append(&self, name: &str, line: &str) -> io::Result<()> {
        let path = self.folder.join(name);
        let open = |options: &mut OpenOptions| options.create(true).mode(0o600).open(&path);
        let mut file: File = open(OpenOptions::new().append(true))?;
        if file.metadata()?.len() > LARGEST {
            file.set_len(0)?;
        }
        file.write_all(line.as_bytes())
    }
}

/// A line of Wireshark's `esp_sa`. Addresses are `*`: a NAT shows others to whoever captures behind it, and the SPI
/// tells SAs apart.
fn esp_line(path: Path, keys: &Keys) -> Zeroizing<String> {
    let version = if path.remote.is_ipv4() { "IPv4" } else { "IPv6" };
    let (cipher, integrity) = match keys.suite {
        Suite::Aes128Gcm16 | Suite::Aes256Gcm16 => ("AES-GCM with 16 octet ICV [RFC4106]", None),
        Suite::ChaCha20Poly1305 => ("ChaCha20 with Poly1305 [RFC7634]", None),
        Suite::Aes128CbcSha256 => ("AES-CBC [RFC3602]", Some(16)),
        Suite::Aes256CbcSha256 => ("AES-CBC [RFC3602]", Some(32)),
    };
    let all = keys.material.as_slice();
    let (cipher_key, integrity_key) = all.split_at(integrity.unwrap_or(all.len()).min(all.len()));
    let authentication = if integrity.is_some() { "HMAC-SHA-256-128 [RFC4868]" } else { "NULL" };
    let mut line =
        Zeroizing::new(format!("\"{version}\",\"*\",\"*\",\"0x{:08x}\",\"{cipher}\",\"", keys.spi));
    hexadecimal(&mut line, cipher_key);
    let _ = write!(line, "\",\"{authentication}\",\"");
    hexadecimal(&mut line, integrity_key);
    // Only newer versions of Wireshark know these two fields, and take 32 bits where they are missing.
    line.push_str(if keys.esn { "\",\"64-bit\",\"0\"\n" } else { "\"\n" });
    line
}

fn hexadecimal(line: &mut String, octets: &[u8]) {
    if octets.is_empty() {
        return;
    }
    line.push_str("0x");
    for octet in octets {
        // Writing into a string does not fail.
        let _ = write!(line, "{octet:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn keys(suite: Suite, esn: bool) -> Keys {
        let material = (0..suite.key_len()).map(|i| u8::try_from(i).unwrap()).collect();
        Keys { spi: 0xc0ff_ee01, suite, esn, material: Zeroizing::new(material) }
    }

    #[test]
    fn an_aead_has_its_salt_behind_the_key() {
        let path = Path::udp("192.0.2.1".parse().unwrap(), 4500);
        assert_eq!(
            *esp_line(path, &keys(Suite::Aes128Gcm16, false)),
            "\"IPv4\",\"*\",\"*\",\"0xc0ffee01\",\"AES-GCM with 16 octet ICV [RFC4106]\",\
             \"0x000102030405060708090a0b0c0d0e0f10111213\",\"NULL\",\"\"\n"
        );
        assert!(
            esp_line(path, &keys(Suite::Aes128Gcm16, true)).ends_with("\"NULL\",\"\",\"64-bit\",\"0\"\n")
        );
    }

    #[test]
    fn a_cipher_with_integrity_apart_has_two_keys() {
        let path = Path::gre("2001:db8::1".parse().unwrap());
        let line = esp_line(path, &keys(Suite::Aes128CbcSha256, false));
        assert!(line.starts_with("\"IPv6\",") && line.contains("\"AES-CBC [RFC3602]\",\"0x00"), "{}", *line);
        assert!(line.contains("0e0f\",\"HMAC-SHA-256-128 [RFC4868]\",\"0x1011"), "{}", *line);
    }

    #[test]
    fn only_the_owner_may_read_and_what_is_written_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let keys_of = folder.path().join("keys/dmvpn0");
        let log = KeyLog::open(keys_of.clone()).unwrap();
        log.ike("a line").unwrap();
        log.ike("another").unwrap();
        let file = keys_of.join("ikev2_decryption_table");
        assert_eq!(fs::read_to_string(&file).unwrap(), "a line\nanother\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&keys_of).unwrap().permissions().mode() & 0o777, 0o700);
        KeyLog::remove(&keys_of).unwrap();
        KeyLog::remove(&keys_of).unwrap();
        assert!(!keys_of.exists());
    }
}
