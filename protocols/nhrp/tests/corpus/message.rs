//! One message, from any bytes. Shared by the fuzz target and the replay of its corpus.

use dmvpn_nhrp::packet::Packet;
use dmvpn_nhrp::vendor::{self, Station};

/// What decodes must encode, and decode to the same again.
pub fn check(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), with_checksum(bytes)] {
        let Ok(packet) = Packet::decode(&bytes) else { continue };
        let again = packet.encode(0).expect("as long as it was, or shorter");
        assert_eq!(Packet::decode(&again).as_ref(), Ok(&packet));
        let _ = vendor::group(&packet);
        for extension in &packet.extensions {
            let _ = extension.entries();
            if let Some(station) = Station::from_extension(extension) {
                assert_eq!(Station::from_extension(&station.to_extension()), Some(station));
            }
        }
    }
}

/// The bytes as a message whose size and checksum are right: what is behind those gates is reached sooner.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Ok(size) = u16::try_from(bytes.len()) else { return bytes };
    if bytes.len() < 20 {
        return bytes;
    }
    bytes[10..12].copy_from_slice(&size.to_be_bytes());
    bytes[12..14].fill(0);
    let words = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[12..14].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    bytes
}
