//! What Linux and strongSwan encrypted opens, and holds what it should; see `vectors/README.md`.
#![allow(missing_docs)]

use dmvpn_esp::{Keys, OpenError, Opener, Suite, Wrapped, spi_of};
use pcap_file::pcap::PcapReader;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

#[test]
fn bare_esp_opens() {
    check(
        include_bytes!("vectors/trap.pcap"),
        include_str!("vectors/trap-sas.txt"),
        include_str!("vectors/trap-decrypted.txt"),
        186,
    );
}

#[test]
fn esp_in_udp_opens() {
    check(
        include_bytes!("vectors/natt.pcap"),
        include_str!("vectors/natt-sas.txt"),
        include_str!("vectors/natt-decrypted.txt"),
        20,
    );
}

fn check(capture: &[u8], sas: &str, decoded: &str, count: usize) {
    let mut openers = openers(sas);
    let mut lines = decoded.lines();
    let mut opened = 0;
    for (number, frame) in (1..).zip(frames(capture)) {
        let Some(packet) = esp(&frame) else { continue };
        let opener = openers.get_mut(&spi_of(packet).unwrap()).expect("a known SPI");
        let mut packet = packet.to_vec();
        let again = packet.clone();
        let content = opener.open(&mut packet).unwrap();
        assert_eq!(content.next_header, 47);
        let line = Line::parse(lines.next().unwrap());
        assert_eq!((line.frame, line.length), (number, frame.len()));
        let outer = (addr(&frame[26..30]), addr(&frame[30..34]));
        check_gre(&line, outer, &packet[content.payload]);
        assert_eq!(opener.open(&mut again.clone()), Err(OpenError::Replayed));
        opened += 1;
    }
    assert_eq!((opened, lines.next()), (count, None));
}

fn openers(sas: &str) -> BTreeMap<u32, Opener> {
    let sas = sas.lines().map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let spi = u32::from_str_radix(fields[0], 16).unwrap();
        let octet = |at: usize| u8::from_str_radix(&fields[3][at..at + 2], 16).unwrap();
        let material = (0..fields[3].len()).step_by(2).map(octet).collect::<Vec<u8>>().into();
        let keys = Keys { spi, suite: Suite::Aes128Gcm16, esn: false, material };
        (spi, Opener::new(&keys).unwrap())
    });
    sas.collect()
}

fn frames(capture: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(capture).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.unwrap().data.to_vec());
    }
    frames
}

/// Ethernet, IPv4, and either ESP or UDP port 4500.
fn esp(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let length = usize::from(be16(&ip[2..4]));
    let upper = ip.get(20..length)?;
    match ip[9] {
        50 => Some(upper),
        17 if be16(&upper[..2]) == 4500 || be16(&upper[2..4]) == 4500 => match Wrapped::of(&upper[8..]) {
            Wrapped::Esp(_) => Some(&upper[8..]),
            _ => None,
        },
        _ => None,
    }
}

/// One line of the decoded text.
struct Line<'a> {
    frame: usize,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: &'a str,
    length: usize,
    info: &'a str,
}

impl<'a> Line<'a> {
    /// `   41 140.006791 198.51.100.12 → 198.51.100.1 NHRP 170 NHRP Registration Request, ID=1`
    fn parse(line: &'a str) -> Self {
        let mut rest = line;
        let mut next = || {
            let (field, after) = rest.trim_start().split_once(' ').unwrap();
            rest = after;
            field
        };
        let (frame, _time) = (next().parse().unwrap(), next());
        let (source, _arrow, destination) = (next().parse().unwrap(), next(), next().parse().unwrap());
        let (protocol, length) = (next(), next().parse().unwrap());
        Self { frame, source, destination, protocol, length, info: rest }
    }

    fn says(&self, what: &str) {
        assert!(self.info.contains(what), "frame {}: {what:?} is not in {:?}", self.frame, self.info);
    }
}

/// GRE with key 42, then NHRP or IPv4.
fn check_gre(line: &Line<'_>, outer: (Ipv4Addr, Ipv4Addr), gre: &[u8]) {
    assert_eq!((&gre[..2], &gre[4..8]), (&[0x20, 0][..], &[0, 0, 0, 42][..]));
    let (ends, payload) = match be16(&gre[2..4]) {
        0x2001 => (outer, &gre[8..]),
        0x0800 => ((addr(&gre[20..24]), addr(&gre[24..28])), &gre[8..]),
        other => panic!("frame {}: GRE protocol {other:#x}", line.frame),
    };
    assert_eq!(ends, (line.source, line.destination), "frame {}", line.frame);
    if be16(&gre[2..4]) == 0x2001 {
        check_nhrp(line, payload);
        return;
    }
    assert_eq!(usize::from(be16(&payload[2..4])), payload.len(), "frame {}", line.frame);
    let (protocol, upper) = (payload[9], &payload[20..]);
    match protocol {
        1 => check_icmp(line, payload[8], upper),
        6 => check_tcp(line, upper),
        17 => {
            let (source, destination) = (be16(&upper[..2]), be16(&upper[2..4]));
            let text = format!("{source} → {destination} Len={}", upper.len() - 8);
            assert_eq!((line.protocol, line.info), ("UDP", &text[..]));
        }
        other => panic!("frame {}: IP protocol {other}", line.frame),
    }
}

fn check_nhrp(line: &Line<'_>, nhrp: &[u8]) {
    assert_eq!(line.protocol, "NHRP");
    let kind = match nhrp[17] {
        1 => "Resolution Request",
        2 => "Resolution Reply",
        3 => "Registration Request",
        4 => "Registration Reply",
        8 => return line.says("NHRP Traffic Indication"),
        other => panic!("frame {}: NHRP message {other}", line.frame),
    };
    let id = u32::from_be_bytes(nhrp[24..28].try_into().unwrap());
    line.says(&format!("NHRP {kind}, ID={id}"));
}

fn check_icmp(line: &Line<'_>, ttl: u8, icmp: &[u8]) {
    assert_eq!(line.protocol, "ICMP");
    let echo = |name: &str| {
        let (id, sequence) = (be16(&icmp[4..6]), be16(&icmp[6..8]));
        let swapped = sequence.swap_bytes();
        line.says(&format!("{name}id={id:#06x}, seq={sequence}/{swapped}, ttl={ttl}"));
    };
    match icmp[..2] {
        [8, 0] => echo("Echo (ping) request  "),
        [0, 0] => echo("Echo (ping) reply    "),
        [3, 3] => line.says("Destination unreachable (Port unreachable)"),
        _ => panic!("frame {}: ICMP {:?}", line.frame, &icmp[..2]),
    }
}

fn check_tcp(line: &Line<'_>, tcp: &[u8]) {
    let (source, destination) = (be16(&tcp[..2]), be16(&tcp[2..4]));
    let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
    if line.protocol == "BGP" {
        assert!(source == 179 || destination == 179);
        assert_eq!(bgp_messages(payload).join(", "), line.info);
        return;
    }
    assert_eq!(line.protocol, "TCP");
    let names = [(1, "FIN"), (2, "SYN"), (4, "RST"), (8, "PSH"), (16, "ACK")];
    let flags: Vec<&str> =
        names.into_iter().filter(|(bit, _)| tcp[13] & bit != 0).map(|(_, name)| name).collect();
    line.says(&format!("{source} → {destination} [{}]", flags.join(", ")));
    line.says(&format!("Len={}", payload.len()));
}

fn bgp_messages(mut octets: &[u8]) -> Vec<&'static str> {
    let mut names = Vec::new();
    while !octets.is_empty() {
        assert_eq!(octets[..16], [0xff; 16]);
        names.push(match octets[18] {
            1 => "OPEN Message",
            2 => "UPDATE Message",
            3 => "NOTIFICATION Message",
            4 => "KEEPALIVE Message",
            other => panic!("BGP message {other}"),
        });
        octets = &octets[usize::from(be16(&octets[16..18]))..];
    }
    names
}

fn addr(octets: &[u8]) -> Ipv4Addr {
    <[u8; 4]>::try_from(octets).unwrap().into()
}

fn be16(octets: &[u8]) -> u16 {
    u16::from_be_bytes(octets.try_into().unwrap())
}
