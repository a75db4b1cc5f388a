//! Prints a capture of the lab, a line a packet: `cargo run -p dmvpn-e2e --example show -- FILE.pcap [KEYS]`, where KEYS
//! is the `keys.txt` that is kept beside it.
//!
//! Wireshark and tcpdump don't look into GRE in UDP on its port unless they are told to.

use lab::decode::{Content, Ip, Payload};
use lab::keys::Keyring;
use pcap_file::pcap::PcapReader;
use std::error::Error;
use std::fs::File;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("name a capture")?;
    let keys = Keyring::default();
    if let Some(file) = std::env::args().nth(2) {
        let known = lab::keys::of_wireshark(&std::fs::read_to_string(file)?);
        keys.add_source(move || known.clone());
    }
    let mut reader = PcapReader::new(File::open(path)?)?;
    let mut first = None;
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        let start = *first.get_or_insert(packet.timestamp);
        if let Some(ip) = Ip::in_frame(&packet.data, &keys) {
            println!("{:10.6} {}", (packet.timestamp - start).as_secs_f64(), line(&ip));
        }
    }
    Ok(())
}

fn line(ip: &Ip) -> String {
    let ends = format!("{} > {}", ip.source, ip.destination);
    match &ip.payload {
        Payload::Gre(gre) => {
            let ports = gre.ports.map_or_else(|| "gre".to_owned(), |(from, to)| format!("udp {from} > {to}"));
            let esp = gre.esp.map(|e| format!(" esp {:08x} {}", e.spi, e.sequence)).unwrap_or_default();
            let content = match &gre.content {
                Content::Ip(inner) => format!("[{}]", line(inner)),
                Content::Nhrp(m) => {
                    format!(
                        "NHRP {} {:?} > {:?} id {} {:?}",
                        m.kind, m.source, m.destination, m.request_id, m.entries
                    )
                }
                Content::Other => format!("protocol {:#06x}", gre.protocol),
            };
            format!("{ends} {ports}{esp} {content}")
        }
        Payload::Esp(esp) => format!("{ends} esp {:08x} {} length {}", esp.spi, esp.sequence, ip.length),
        Payload::Ike(ike) => {
            let (from, to) = ike.ports;
            let what = if ike.is_response() { "response" } else { "request" };
            format!(
                "{ends} udp {from} > {to} ike {what} exchange {} id {} first {}",
                ike.exchange, ike.id, ike.first
            )
        }
        Payload::Udp { source, destination, .. } => {
            format!("{ends} udp {source} > {destination} length {}", ip.length)
        }
        Payload::Tcp { source, destination } => {
            format!("{ends} tcp {source} > {destination} length {}", ip.length)
        }
        Payload::Icmp { kind, code, data } => {
            let marked = if data.get(4..10) == Some(b"kdmvpn") { " probe" } else { "" };
            format!("{ends} icmp {kind}/{code}{marked} ttl {}", ip.ttl)
        }
        Payload::Other => format!("{ends} protocol {} length {}", ip.protocol, ip.length),
    }
}
