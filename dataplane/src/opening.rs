//! What arrives in an encrypted tunnel, before it is GRE (step 2 of [`inbound`]): IKE goes to the agent, ESP is opened
//! by the SA that its SPI names, and nothing else goes any further.

use crate::exchange::{Batch as Handed, Way};
use crate::inbound::{self, Batch, From, Source, ToKernel, part};
use crate::io::{Tap, Underlay};
use crate::lane::Lane;
use crate::sa::{self, NEXT_HEADER_GRE};
use crate::stats::Counter;
use crate::tables::Tables;
use esp::{NO_NEXT_HEADER, Wrapped};
use linux_io::Arrived;
use packet::{Path, gre};
use std::ops::Range;

/// One datagram: `buffer[at]`, which came by `path`.
pub(crate) fn datagram<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    batch: &mut Batch<'_>,
    to_kernel: &mut ToKernel,
    (arrived, path): (&Arrived, Path),
    buffer: &mut [u8],
    at: Range<usize>,
) {
    let datagram = part(buffer, &at);
    let spi = match batch.source {
        Source::Udp => match Wrapped::of(datagram) {
            Wrapped::Esp(spi) => Some(spi),
            Wrapped::Ike(message) => {
                return lane.punts.ike(arrived.from, true, message, lane.now, &lane.stats);
            }
            Wrapped::Keepalive => return lane.stats.count(Counter::Keepalives),
            Wrapped::Malformed => None,
        },
        Source::Ike => return lane.punts.ike(arrived.from, false, datagram, lane.now, &lane.stats),
        Source::EspV4 | Source::EspV6 => esp::spi_of(datagram),
        Source::GreV4 | Source::GreV6 => return lane.stats.count(Counter::DropClear),
    };
    let Some(spi) = spi else { return lane.stats.count(Counter::DropBadEsp) };
    if !opened(lane, batch, to_kernel, (path, arrived.tos, spi), buffer, at.clone()) {
        // Steering is by the same bits; it is wrong for what arrived before it was set up, or was set up otherwise.
        let owner = sa::owner(spi, lane.exchange.workers());
        if owner == lane.exchange.number() {
            return unknown(lane, path, spi, part(buffer, &at));
        }
        let datagram = part(buffer, &at);
        let write = |room: &mut [u8]| room.copy_from_slice(datagram);
        if let Err(reason) = lane.hand(owner, Way::In(path, arrived.tos), datagram.len(), write) {
            lane.stats.count(reason);
        }
    }
}

/// What other workers have for us: packets to seal and send, and packets to open.
pub fn handed<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    to_kernel: &mut ToKernel,
    handed: &mut Handed,
) {
    let mut batch = Batch::new(tables, Source::Udp);
    let (buffer, packets) = handed.parts();
    for (way, at) in packets {
        match *way {
            Way::Out(path, outer) => lane.gather_handed(path, outer, part(buffer, at)),
            Way::In(path, tos) => {
                let Some(spi) = esp::spi_of(part(buffer, at)) else { continue };
                if !opened(lane, &mut batch, to_kernel, (path, tos, spi), buffer, at.clone()) {
                    unknown(lane, path, spi, part(buffer, at));
                }
            }
        }
    }
    to_kernel.flush(lane, buffer);
}

/// One ESP packet: `buffer[at]`. False: the SA is not ours.
fn opened<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    batch: &mut Batch<'_>,
    to_kernel: &mut ToKernel,
    (arrived_by, tos, spi): (Path, u8, u32),
    buffer: &mut [u8],
    at: Range<usize>,
) -> bool {
    let Some(sealed) = buffer.get_mut(at.clone()) else { return true };
    let (content, path) = match lane.inbound.open(spi, sealed) {
        Some(Ok(content)) => content,
        Some(Err(reason)) => {
            lane.stats.count(reason);
            return true;
        }
        None => return false,
    };
    if path != arrived_by {
        lane.punts.sa_moved(spi, arrived_by, lane.now, &lane.stats);
    }
    match content.next_header {
        NEXT_HEADER_GRE => {
            let at = at.start + content.payload.start..at.start + content.payload.end;
            let from = From { path, tos, row: batch.row(path) };
            inbound::datagram(lane, batch, to_kernel, from, buffer, at);
        }
        NO_NEXT_HEADER => lane.stats.count(Counter::EspDummies),
        _ => lane.stats.count(Counter::DropNextHeader),
    }
    true
}

/// No SA has this SPI. It may be a peer that does not know of our restart, or no ESP at all.
fn unknown<T: Tap, U: Underlay>(lane: &mut Lane<T, U>, path: Path, spi: u32, datagram: &[u8]) {
    if is_clear(datagram) {
        lane.stats.count(Counter::DropClear);
        return;
    }
    lane.stats.count(Counter::DropUnknownSpi);
    lane.punts.unknown_spi(path, spi, lane.now, &lane.stats);
}

/// Is it GRE in clear, as far as one can tell? A peer that is configured without encryption is told apart from one
/// that lost its keys.
fn is_clear(datagram: &[u8]) -> bool {
    let known = [gre::Protocol::IPV4, gre::Protocol::IPV6, gre::Protocol::NHRP];
    gre::decode(datagram).is_ok_and(|(header, _)| known.contains(&header.protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{FromDatapath, Peer, ReceivedKind};
    use crate::testing::*;
    use esp::{Keys, Sealer, Suite};
    use packet::probe::{Kind, Probe};

    const SUITE: Suite = Suite::Aes128Gcm16;

    /// An encrypted tunnel, and what peer 1 seals by.
    fn setup() -> (Bench, Sealer) {
        (Bench::encrypted(SUITE), Sealer::new(&keys(inbound_spi(1, 0), SUITE)).unwrap())
    }

    fn arrives(bench: &mut Bench, path: Path, datagram: &[u8]) {
        bench.datagrams(path, 0, &mut datagram.to_vec(), datagram.len());
    }

    #[test]
    fn what_a_peer_sealed_reaches_the_kernel() {
        for suite in Suite::ALL {
            let mut bench = Bench::encrypted(suite);
            let mut sealer = Sealer::new(&keys(inbound_spi(1, 0), suite)).unwrap();
            let packet = packet("10.11.0.5", "10.1.0.5", 200);
            arrives(&mut bench, path(1), &seal(&mut sealer, &packet));
            assert_eq!(bench.delivered()[0].packet, packet, "{suite}");
            assert_eq!(bench.count(Counter::PacketsReceived), 1);
        }
    }

    #[test]
    fn bare_esp_is_opened_too() {
        let (mut bench, mut sealer) = setup();
        let one = packet("10.11.0.5", "10.1.0.5", 200);
        let sealed = seal(&mut sealer, &one);
        bench.datagrams_of(Source::EspV6, path(1), 0, &mut sealed.clone(), sealed.len());
        let two = seal(&mut sealer, &one);
        let mut behind_header = with_protocol("192.0.2.1", "192.0.2.9", 50, 64, &two);
        let length = behind_header.len();
        bench.datagrams_of(Source::EspV4, path(1), 0, &mut behind_header, length);
        assert_eq!(bench.delivered().len(), 2);
    }

    #[test]
    fn datagrams_of_two_sas_may_come_glued_together() {
        let (mut bench, mut one) = setup();
        let mut two = Sealer::new(&keys(inbound_spi(2, 0), SUITE)).unwrap();
        let packets = ["10.11.0.5", "10.12.0.5"].map(|source| packet(source, "10.1.0.5", 200));
        let mut glued = [seal(&mut one, &packets[0]), seal(&mut two, &packets[1])].concat();
        let size = glued.len() / 2;
        bench.datagrams(path(1), 0, &mut glued, size);
        let delivered = bench.delivered();
        assert_eq!(delivered.iter().map(|d| d.packet.clone()).collect::<Vec<_>>(), packets);
        assert_eq!([delivered[0].from, delivered[1].from], [id(1).mac(), id(2).mac()]);
    }

    #[test]
    fn nothing_is_accepted_in_clear() {
        let (mut bench, _) = setup();
        let inner = packet("10.11.0.5", "10.1.0.5", 200);
        let clear = gre(gre::Protocol::IPV4, KEY, &inner);
        arrives(&mut bench, path(1), &clear);
        arrives(&mut bench, path(1), &gre(gre::Protocol::NHRP, KEY, b"purge everything"));
        bench.datagrams_of(Source::GreV6, path(1), 0, &mut clear.clone(), clear.len());
        assert_eq!((bench.delivered(), bench.punted(), bench.sent_raw()), (vec![], vec![], vec![]));
        assert_eq!(bench.count(Counter::DropClear), 3);
    }

    #[test]
    fn replayed_changed_and_truncated_packets_are_dropped_by_reason() {
        let (mut bench, mut sealer) = setup();
        let sealed = seal(&mut sealer, &packet("10.11.0.5", "10.1.0.5", 200));
        arrives(&mut bench, path(1), &sealed);
        arrives(&mut bench, path(1), &sealed);
        let mut changed = seal(&mut sealer, &packet("10.11.0.5", "10.1.0.5", 200));
        changed[60] ^= 1;
        arrives(&mut bench, path(1), &changed);
        arrives(&mut bench, path(1), &changed[..20]);
        arrives(&mut bench, path(1), &changed[..6]);
        arrives(&mut bench, path(1), &[]);
        assert_eq!(bench.delivered().len(), 1);
        let reasons = [Counter::DropReplayed, Counter::DropForged, Counter::DropBadEsp];
        assert_eq!(reasons.map(|r| bench.count(r)), [1, 1, 2]);
    }

    #[test]
    fn what_we_sent_ourselves_is_no_sa_of_ours() {
        let (mut bench, _) = setup();
        bench.kernel_sends(id(1).mac(), &packet(OWN, "10.11.0.1", 100));
        let (_, reflected) = bench.sent_raw().remove(0);
        arrives(&mut bench, path(1), &reflected);
        assert_eq!((bench.delivered(), bench.count(Counter::DropUnknownSpi)), (vec![], 1));
    }

    #[test]
    fn an_unknown_spi_is_told_once_a_second() {
        let (mut bench, _) = setup();
        let mut stranger = Sealer::new(&keys(0x7700, SUITE)).unwrap();
        for _ in 0..5 {
            arrives(&mut bench, path(1), &seal(&mut stranger, &packet("10.11.0.5", "10.1.0.5", 200)));
        }
        assert_eq!(bench.punted(), [FromDatapath::UnknownSpi { path: path(1), spi: 0x7700 }]);
        assert_eq!(bench.count(Counter::DropUnknownSpi), 5);
    }

    #[test]
    fn a_packet_counts_as_come_by_its_sas_path_wherever_it_came_from() {
        let (mut bench, mut sealer) = setup();
        let elsewhere = Path::udp(path(2).remote, 9999);
        arrives(&mut bench, elsewhere, &seal(&mut sealer, &packet("10.11.0.5", "10.1.0.5", 200)));
        assert_eq!(bench.delivered()[0].from, id(1).mac());
        let moved = FromDatapath::SaMoved { spi: inbound_spi(1, 0), path: elsewhere };
        assert_eq!(bench.punted(), [moved]);
        let nhrp = gre(gre::Protocol::NHRP, KEY, b"nhrp");
        arrives(&mut bench, elsewhere, &seal_payload(&mut sealer, &nhrp, 47));
        let (path, kind, payload) = (path(1), ReceivedKind::Nhrp, b"nhrp".to_vec());
        assert_eq!(bench.punted(), [FromDatapath::Received { path, kind, payload }]);
    }

    #[test]
    fn one_peers_sa_does_not_speak_for_another_peers_sources() {
        let (mut bench, mut sealer) = setup();
        let sources = Some(vec!["10.11.0.0/16".parse().unwrap()]);
        bench.tables.set_peer(id(1), Peer { sources, ..peer(1) }, 1);
        arrives(&mut bench, path(2), &seal(&mut sealer, &packet("10.12.0.5", "10.1.0.5", 200)));
        assert_eq!((bench.delivered(), bench.count(Counter::DropSource)), (vec![], 1));
    }

    #[test]
    fn a_probe_is_answered_sealed() {
        let (mut bench, mut sealer) = setup();
        let (source, destination) = ("10.200.0.11".parse().unwrap(), OWN.parse().unwrap());
        let probe = Probe { kind: Kind::Request, source, destination, token: 5, opaque: 6 };
        arrives(&mut bench, path(1), &seal(&mut sealer, &probe.to_vec()));
        let (to, sealed) = bench.sent_raw().remove(0);
        let mut opener = esp::Opener::new(&keys(outbound_spi(1), SUITE)).unwrap();
        assert_eq!((to, open(&mut opener, &sealed)), (path(1), probe.reply().to_vec()));
    }

    #[test]
    fn only_gre_is_taken_out_of_esp() {
        let (mut bench, mut sealer) = setup();
        arrives(&mut bench, path(1), &seal_payload(&mut sealer, &[0; 100], 59));
        arrives(&mut bench, path(1), &seal_payload(&mut sealer, &packet("10.11.0.5", OWN, 100), 4));
        let counts = [Counter::EspDummies, Counter::DropNextHeader].map(|c| bench.count(c));
        assert_eq!((bench.delivered(), counts), (vec![], [1, 1]));
    }

    #[test]
    fn ike_is_told_from_esp_by_its_marker_or_its_port() {
        let (mut bench, _) = setup();
        let message = vec![7; 100];
        arrives(&mut bench, path(1), &[&[0; 4][..], &message].concat());
        bench.datagrams_of(Source::Ike, path(1), 0, &mut message.clone(), 100);
        arrives(&mut bench, path(1), &[0xff]);
        arrives(&mut bench, path(1), &[0, 0, 0, 0, 1]);
        let remote = std::net::SocketAddr::new(path(1).remote, 4754);
        let ike = |nat_traversal| FromDatapath::Ike { remote, nat_traversal, message: message.clone() };
        assert_eq!(bench.punted(), [ike(true), ike(false)]);
        let counts = [Counter::Keepalives, Counter::DropBadIke].map(|c| bench.count(c));
        assert_eq!((counts, bench.delivered()), ([1, 1], vec![]));
    }

    fn two_workers() -> (Bench, Bench) {
        let mut workers = Bench::of_workers(2, Some(SUITE));
        let (one, zero) = (workers.pop().unwrap(), workers.pop().unwrap());
        (zero, one)
    }

    #[test]
    fn a_packet_at_the_wrong_worker_is_opened_by_its_owner() {
        let (mut zero, mut one) = two_workers();
        let owned_by_one: Keys = keys(inbound_spi(1, 1), SUITE);
        one.receive_by(1, &owned_by_one);
        let mut sealer = Sealer::new(&owned_by_one).unwrap();
        let packet = packet("10.11.0.5", "10.1.0.5", 200);
        let sealed = seal(&mut sealer, &packet);
        arrives(&mut zero, path(1), &sealed);
        assert_eq!((zero.delivered(), zero.count(Counter::HandedOff)), (vec![], 1));
        one.take_handed();
        assert_eq!(one.delivered()[0].packet, packet);
        // A replay is one wherever it arrives, and an unknown SPI ends with its owner.
        arrives(&mut one, path(1), &sealed);
        arrives(&mut zero, path(1), &seal(&mut Sealer::new(&keys(0x7701, SUITE)).unwrap(), &packet));
        one.take_handed();
        let reasons = [Counter::DropReplayed, Counter::DropUnknownSpi, Counter::HandedOff];
        assert_eq!(reasons.map(|r| one.count(r)), [1, 1, 0]);
    }

    #[test]
    fn a_frame_at_a_worker_without_an_sa_is_sealed_by_the_owner_in_order() {
        let (mut zero, mut one) = two_workers();
        let sends = keys(outbound_spi(1), SUITE);
        one.send_by(1, &sends, NO_LIMIT);
        zero.tables_say_sender(1, 1, &sends);
        let (vnet, big) = super_frame("10.200.0.11", 20_000, 1360);
        zero.frame(&vnet, id(1).mac(), 0x0800, &big);
        let small = packet(OWN, "10.200.0.11", 100);
        zero.kernel_sends(id(1).mac(), &small);
        assert_eq!(zero.sent_raw(), []);
        one.take_handed();
        assert_eq!(one.runs(), [15], "the next is kept back until the owner is there");
        zero.lane.flush_all();
        one.take_handed();
        assert_eq!(one.runs(), [15, 1]);
        let sent = one.sent_raw();
        let mut opener = esp::Opener::new(&sends).unwrap();
        let opened: Vec<_> = sent.iter().map(|(_, sealed)| open(&mut opener, sealed)).collect();
        assert_eq!(opened[15], small);
        assert!(sent.windows(2).all(|pair| pair[0].1[4..8] < pair[1].1[4..8]));
        assert_eq!(zero.count(Counter::HandedOff), 16);
        assert_eq!(zero.count(Counter::PacketsSent), 16);
    }

    #[test]
    fn an_owner_that_does_not_keep_up_costs_packets_and_nothing_else() {
        let (mut zero, mut one) = two_workers();
        let sends = keys(outbound_spi(1), SUITE);
        zero.tables_say_sender(1, 1, &sends);
        let small = packet(OWN, "10.200.0.11", 100);
        for _ in 0..4000 {
            zero.kernel_sends(id(1).mac(), &small);
        }
        // The first went alone, and then fifteen full batches.
        assert_eq!([Counter::HandedOff, Counter::DropHandoffFull].map(|c| zero.count(c)), [3841, 159]);
        // The owner has lost the SA in between: nothing leaves, nothing goes back.
        one.take_handed();
        assert_eq!((one.sent_raw(), one.count(Counter::DropNoSa)), (vec![], 3841));
        one.send_by(1, &sends, NO_LIMIT);
        zero.kernel_sends(id(1).mac(), &small);
        one.take_handed();
        assert_eq!(one.sent_raw().len(), 1);
    }

    #[test]
    fn opening_sealing_and_handing_over_do_not_allocate() {
        let (mut zero, mut one) = two_workers();
        let (sends, receives) = (keys(outbound_spi(1), SUITE), keys(inbound_spi(1, 1), SUITE));
        one.send_by(1, &sends, NO_LIMIT);
        one.receive_by(1, &receives);
        zero.tables_say_sender(1, 1, &sends);
        let (vnet, packet_out) = super_frame("10.200.0.11", 50_000, 1360);
        let big = frame(&vnet, id(1).mac(), 0x0800, &packet_out);
        let mut sealer = Sealer::new(&receives).unwrap();
        assert_no_alloc::reset_violation_count();
        for _ in 0..10 {
            let packets: Vec<_> = (0..20u32)
                .map(|i| seal(&mut sealer, &tcp("10.11.0.5", "10.1.0.5", 1 + 1000 * i, false, &[5; 1000])))
                .collect();
            let (size, mut at_owner, mut elsewhere) =
                (packets[0].len(), packets[..10].concat(), packets[10..].concat());
            assert_no_alloc::assert_no_alloc(|| {
                one.read(&big);
                zero.read(&big);
                one.datagrams(path(1), 0, &mut at_owner, size);
                one.take_handed();
                zero.datagrams(path(1), 0, &mut elsewhere, size);
                one.take_handed();
            });
        }
        assert_eq!(assert_no_alloc::violation_count(), 0);
        assert_eq!((one.sent_raw().len(), one.delivered().len()), (10 * 2 * 37, 20));
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_panics(
            mut octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            like in 0..3u8, segment in 1..200usize, tos: u8,
        ) {
            let spi = inbound_spi(1, 0).to_be_bytes();
            let head: &[u8] = match like {
                0 => &[],
                1 => &[0, 0, 0, 0],
                _ => &spi,
            };
            let length = octets.len().min(head.len());
            octets[..length].copy_from_slice(&head[..length]);
            for suite in [Suite::ChaCha20Poly1305, Suite::Aes256CbcSha256] {
                let mut bench = Bench::encrypted(suite);
                for source in [Source::Udp, Source::EspV4, Source::EspV6, Source::Ike] {
                    bench.datagrams_of(source, path(1), tos, &mut octets.clone(), segment);
                }
                assert_eq!(bench.delivered(), []);
            }
        }
    }
}
