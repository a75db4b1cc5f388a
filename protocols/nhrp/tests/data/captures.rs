//! Reads NHRP messages out of the captures; see `README.md` beside them.

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

pub(crate) const CAPTURES: [(&str, &[u8]); 4] = [
    ("demo-plain", include_bytes!("demo-plain.pcap")),
    ("plain-phase3", include_bytes!("plain-phase3.pcap")),
    ("plain-auth", include_bytes!("plain-auth.pcap")),
    ("ospf", include_bytes!("ospf.pcap")),
];

/// The NHRP messages of a capture of Ethernet frames.
pub(crate) fn messages(capture: &[u8]) -> Vec<Vec<u8>> {
    frames(capture).iter().filter_map(|frame| nhrp(frame).map(<[u8]>::to_vec)).collect()
}

fn frames(capture: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    if capture.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
        let mut reader = PcapNgReader::new(capture).unwrap();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                frames.push(packet.data.to_vec());
            }
        }
    } else {
        let mut reader = PcapReader::new(capture).unwrap();
        while let Some(packet) = reader.next_packet() {
            frames.push(packet.unwrap().data.to_vec());
        }
    }
    frames
}

/// Ethernet, IPv4, GRE with protocol 0x2001.
fn nhrp(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let gre = ip.get(usize::from(ip[0] & 15) * 4..length).filter(|_| ip[9] == 47)?;
    let optional = [0x80, 0x20, 0x10].iter().filter(|bit| gre[0] & **bit != 0).count();
    gre.get(4 + 4 * optional..).filter(|_| gre[2..4] == [0x20, 0x01])
}
