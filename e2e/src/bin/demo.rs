//! The main job, shown step by step: `make demo`.
//!
//! A hub, two spokes (one behind a NAT) with a host each, and a third spoke that joins later, all as network
//! namespaces of this machine. Every step is checked on the wire; the first that does not happen ends the demo with
//! an error. Whatever happens, nothing is left behind.
//!
//! Everything is encrypted, with certificates that are made here; `MODE=psk` takes one key for all, `MODE=none` none.
//! The agents export their keys, so that what ESP hides can be shown and checked.

use lab::capture::{Capture, Packet};
use lab::decode::nhrp::kind;
use lab::narration::{self, ensure, indent, title};
use lab::network::{Plan, Site, hub, spoke};
use lab::security::Proof;
use lab::traffic::Ping;
use lab::wait::PATIENCE;
use lab::{Error, Lab, Nat, NatRouter, Result};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    narration::perform("demo", "namespace", |lab| tell(lab, mode()?))
}

/// What the environment asks for.
fn mode() -> Result<Proof> {
    match std::env::var("MODE").unwrap_or_default().as_str() {
        "" | "cert" => Ok(Proof::Certificates),
        "psk" => Ok(Proof::SharedKey),
        "none" => Ok(Proof::None),
        other => Err(Error::other(format!("MODE={other}: write cert (the default), psk or none"))),
    }
}

fn tell(lab: &Lab, proof: Proof) -> Result {
    let protected = |plan: Plan| plan.tuned(|manifest| manifest.proven_by(proof));
    title("1. A hub, and two spokes, one of them behind a NAT");
    println!(
        "
      host 10.1.0.10                                    host 10.2.0.10
           |                                                 |
        spoke1 10.200.16.1      hub1 10.200.0.1           spoke2 10.200.16.2
        198.51.100.11           198.51.100.1              192.168.77.2
           |                         |                       | NAT 198.51.100.99
           +---------------------- Internet -----------------+
"
    );
    let hub1 = protected(hub(1)).start(lab)?;
    let nat = lab.nat("nat", &["198.51.100.99"], &NatRouter::new(Nat::PortPreserving))?;
    let at_hub = Capture::start(&hub1.node, &["wan"])?;
    let spoke1 = protected(spoke(1, &[1])).start(lab)?;
    let at_spoke1 = Capture::start(&spoke1.node, &["wan"])?;
    let spoke2 = protected(spoke(2, &[1])).at("192.168.77.2").start_behind(lab, &nat)?;
    println!("The hub's whole configuration, which names no spoke:\n");
    print_file(&hub1)?;
    let checksum = checksum(&hub1)?;
    println!("\n{}", said_of(proof));

    title("2. The spokes register with the hub (NHRP)");
    for spoke in [&spoke1, &spoke2] {
        at_hub.wait_for("a registration request", PATIENCE, |p| {
            !p.outgoing
                && p.ip.nhrp().is_some_and(|m| m.kind == kind::REGISTRATION_REQUEST && m.from(&spoke.tunnel))
        })?;
        let reply = at_hub.wait_for("a registration reply", PATIENCE, |p| {
            p.outgoing
                && p.ip.nhrp().is_some_and(|m| {
                    m.kind == kind::REGISTRATION_REPLY && m.from(&spoke.tunnel) && m.code() == Some(0)
                })
        })?;
        println!("  {}  is registered, seen at {}", spoke.tunnel, reply.ip.destination);
        spoke.agent.ask().wait_hubs(1)?;
        spoke.agent.ask().wait_bgp(1)?;
        spoke.agent.ask().wait_path(&hub1.host_address, "hub")?;
    }
    hub1.agent.ask().wait_registrations(2)?;
    println!("\non the hub: dmvpnctl peers");
    indent(&hub1.agent.ctl(&["peers"])?);

    title("3. The path from host 10.1.0.10 to host 10.2.0.10, before");
    show_path(&spoke1, &spoke2, "hub")?;

    title("4. The first packet goes by the hub, which says: there is a better way");
    let started = Instant::now();
    let first = Ping::times(1).expect(&spoke1.host, &spoke2.host_address)?;
    println!("  ping 10.2.0.10: answered after {:.1?}", first.round_trips[0].1);
    let carried = |from: &Site, to: &Site| {
        let (from, to) = (from.host_address.clone(), to.host_address.clone());
        move |p: &Packet| p.ip.carries(&from, &to)
    };
    let through_hub = at_hub.wait_for("the first packet at the hub", PATIENCE, carried(&spoke1, &spoke2))?;
    line(&through_hub, "the first packet arrives at the hub, and leaves again to spoke2");
    let nhrp = |kind: u8| move |p: &Packet| p.ip.nhrp().is_some_and(|m| m.kind == kind);
    for (message, words) in [
        (kind::TRAFFIC_INDICATION, "the hub to spoke1: there is a better way (Traffic Indication)"),
        (kind::RESOLUTION_REQUEST, "who is the way to 10.2.0.10? (Resolution Request)"),
        (kind::RESOLUTION_REPLY, "10.2.0.0/24 is behind me (Resolution Reply)"),
    ] {
        line(&at_spoke1.wait_for(words, PATIENCE, nhrp(message))?, words);
    }

    title("5. The shortcut");
    let path = wait_while_pinging(&spoke1, &spoke2)?;
    let direct = at_spoke1.wait_for("a packet on the direct path", PATIENCE, |p| {
        p.outgoing && p.ip.goes("198.51.100.11", "198.51.100.99") && carried(&spoke1, &spoke2)(p)
    })?;
    println!("  {:.1?} after the first packet:", direct.at - started);
    line(&direct, "spoke1 sends straight to spoke2, through its NAT");
    indent(&path);
    at_hub.clear();
    let later = Ping::times(5).expect(&spoke1.host, &spoke2.host_address)?;
    let by_hub = at_hub.count(|p| carried(&spoke1, &spoke2)(p) || carried(&spoke2, &spoke1)(p));
    println!(
        "\n  5 more pings: {} answered, {by_hub} packets of them seen by the hub",
        later.round_trips.len()
    );
    ensure(by_hub == 0, "the hub still carries packets between the spokes")?;

    title("6. A third spoke joins; nothing is changed on the hub");
    println!("  sha256 of the hub's configuration before: {checksum}");
    let spoke3 = protected(spoke(3, &[1])).start(lab)?;
    spoke3.agent.ask().wait_hubs(1)?;
    spoke3.agent.ask().wait_bgp(1)?;
    spoke3.agent.ask().wait_path(&spoke1.host_address, "hub")?;
    Ping::times(3).expect(&spoke3.host, &spoke1.host_address)?;
    wait_while_pinging(&spoke3, &spoke1)?;
    let after = self::checksum(&hub1)?;
    println!("  sha256 of the hub's configuration after:  {after}");
    ensure(after == checksum, "the hub's configuration was changed")?;
    println!("\non the hub: dmvpnctl status");
    indent(&hub1.agent.ctl(&["status"])?);
    println!("\non spoke1: dmvpnctl shortcuts");
    indent(&spoke1.agent.ctl(&["shortcuts"])?);

    title("7. What a stranger sees on spoke1's wire");
    stranger(&spoke1, &spoke2, proof)?;
    if proof != Proof::None {
        println!("\non spoke1: dmvpnctl sa");
        indent(&spoke1.agent.ctl(&["sa"])?);
    }

    title("8. What was on spoke1's wire");
    summary(&at_spoke1, proof);
    let clear = at_spoke1.count(|p| p.ip.is_clear()) + at_hub.count(|p| p.ip.is_clear());
    match proof {
        Proof::None => ensure(clear > 0, "nothing was seen in clear, though that was asked for"),
        _ => ensure(clear == 0, &format!("{clear} overlay packets were in clear")),
    }
}

const fn said_of(proof: Proof) -> &'static str {
    match proof {
        Proof::None => "Everything is in clear: that was asked for (MODE=none).",
        Proof::SharedKey => {
            "Everything is encrypted, by one key that all know (MODE=psk): nobody's name is proven."
        }
        Proof::Certificates => {
            "Everything is encrypted. Each node has a certificate, made for this demo, that says its name, its tunnel\n\
             address and the prefixes it may announce, and holds every peer to what its certificate says."
        }
    }
}

/// In the payload of pings, to be looked for on the wire.
const MARKER: &[u8; 16] = b"PLAINTEXT-MARKER";

/// Sends a marker from host to host, and looks for it where strangers could.
fn stranger(from: &Site, to: &Site, proof: Proof) -> Result {
    let (lan, wire) = (Capture::start(&from.node, &["lan"])?, Capture::start(&from.node, &["wan"])?);
    let pattern: String = MARKER.iter().map(|octet| format!("{octet:02x}")).collect();
    from.host.run("ping", &["-q", "-c", "3", "-i", "0.2", "-p", &pattern, &to.host_address])?;
    let holds = |data: &[u8]| data.windows(MARKER.len()).any(|window| window == MARKER);
    let marked = |capture: &Capture| capture.frames().iter().filter(|frame| holds(&frame.data)).count();
    lan.wait_for("the marker on the LAN", PATIENCE, |p| p.ip.goes(&to.host_address, &from.host_address))?;
    let esp = wire.wait_for("the ping on the wire", PATIENCE, from.carried(to))?;
    let frame = wire.frames().into_iter().find(|frame| frame.at == esp.at);
    let (on_lan, on_wire) = (marked(&lan), marked(&wire));
    println!(
        "  \"{}\", in pings from {} to {}:",
        String::from_utf8_lossy(MARKER),
        from.host_address,
        to.host_address
    );
    println!("  {on_lan:>5}  packets with it on spoke1's LAN");
    println!("  {on_wire:>5}  packets with it on the underlay\n");
    if let Some(frame) = frame {
        println!("  One of these pings on the underlay, behind its Ethernet header:\n");
        dump(frame.data.get(14..).unwrap_or_default());
    }
    if let Some(esp) = esp.ip.esp() {
        println!(
            "\n  ESP, SPI {:08x}, sequence number {}: what follows is ciphertext.",
            esp.spi, esp.sequence
        );
    }
    ensure(on_lan > 0, "the marker was not seen on the LAN")?;
    match proof {
        Proof::None => ensure(on_wire > 0, "the marker is not on the wire, though nothing is encrypted"),
        _ => ensure(on_wire == 0 && esp.ip.esp().is_some(), "the marker left in clear"),
    }
}

/// The first octets, as people read them.
fn dump(octets: &[u8]) {
    for line in octets.chunks(16).take(8) {
        let hex: Vec<String> = line.iter().map(|octet| format!("{octet:02x}")).collect();
        let shown = |octet: &u8| if octet.is_ascii_graphic() { char::from(*octet) } else { '.' };
        let text: String = line.iter().map(shown).collect();
        println!("    {:<47}  {text}", hex.join(" "));
    }
}

/// Keeps the traffic going until it goes directly both ways; returns what `dmvpnctl path` says then.
fn wait_while_pinging(from: &Site, to: &Site) -> Result<String> {
    lab::wait::until("the direct path", PATIENCE, || -> Result<()> {
        Ping { interval: Duration::from_millis(20), ..Ping::times(5) }
            .expect(&from.host, &to.host_address)?;
        for (here, there) in [(from, to), (to, from)] {
            let path = here.agent.ask().path("", &there.host_address)?;
            ensure(path.kind == "shortcut", &format!("{path:?}"))?;
        }
        Ok(())
    })?;
    show_path(from, to, "shortcut")?;
    from.agent.ctl(&["shortcuts"])
}

fn show_path(from: &Site, to: &Site, kind: &str) -> Result {
    let path = from.agent.ask().path(&from.host_address, &to.host_address)?;
    println!("on {}: dmvpnctl path {} {}", from.agent.name(), from.host_address, to.host_address);
    indent(&from.agent.ctl(&["path", &from.host_address, &to.host_address])?);
    ensure(path.kind == kind, &format!("the path goes by {:?}, not by {kind:?}", path.kind))
}

fn summary(capture: &Capture, proof: Proof) {
    if proof != Proof::None {
        println!("  (by the keys that the agents exported for this; a stranger sees ESP only)\n");
        let ike = capture.count(|p| p.ip.ike().is_some());
        println!("  {ike:>5}  IKE messages");
    }
    let names = [
        (kind::REGISTRATION_REQUEST, "NHRP Registration Request"),
        (kind::REGISTRATION_REPLY, "NHRP Registration Reply"),
        (kind::TRAFFIC_INDICATION, "NHRP Traffic Indication"),
        (kind::RESOLUTION_REQUEST, "NHRP Resolution Request"),
        (kind::RESOLUTION_REPLY, "NHRP Resolution Reply"),
    ];
    for (message, name) in names {
        let count = capture.count(|p| p.ip.nhrp().is_some_and(|m| m.kind == message));
        println!("  {count:>5}  {name}");
    }
    for (peer, name) in
        [("198.51.100.1", "hub1"), ("198.51.100.99", "spoke2, by its NAT"), ("198.51.100.13", "spoke3")]
    {
        let peer = peer.parse().ok();
        let of_peer = |p: &Packet| Some(p.ip.source) == peer || Some(p.ip.destination) == peer;
        let count = capture.count(|p| of_peer(p) && p.ip.inner().is_some());
        println!("  {count:>5}  overlay packets exchanged with {name}");
    }
}

fn line(packet: &Packet, words: &str) {
    let port = packet.ip.gre().and_then(|g| g.ports).map_or(String::new(), |(_, to)| format!(":{to}"));
    println!("  {} -> {}{port}  {words}", packet.ip.source, packet.ip.destination);
}

fn print_file(site: &Site) -> Result {
    let path = site.agent.manifests().join("lab.yaml");
    indent(&std::fs::read_to_string(&path).map_err(Error::io("read the hub's manifest"))?);
    Ok(())
}

/// The sum of the folder the hub's agent reads.
fn checksum(site: &Site) -> Result<String> {
    let mut sum = Command::new("sha256sum");
    let output = lab::netns::run(sum.arg(site.agent.manifests().join("lab.yaml")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
