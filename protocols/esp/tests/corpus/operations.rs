//! Sequences of operations on the two ends of an SA, and a network between them that does what it likes. Shared by the
//! fuzz target and the replay of its corpus.

use arbitrary::{Arbitrary, Unstructured};
use dmvpn_esp::{Keys, OpenError, Opener, ReplayWindow, Sealer, Suite, WINDOW, Wrapped, spi_of};
use std::collections::{BTreeMap, BTreeSet};

/// A sequence is cut off here.
const MOST_OPERATIONS: usize = 300;
const SPI: u32 = 0x1234_5678;

#[derive(Clone, Debug)]
pub struct Operations {
    suite: u8,
    esn: bool,
    /// Where both ends stand at the beginning.
    start: Start,
    operations: Vec<Operation>,
}

/// As many operations as there are bytes for; the derived one would toss a coin after each.
impl<'a> Arbitrary<'a> for Operations {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let (suite, esn, start) = (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
        let mut operations = Vec::new();
        while !u.is_empty() && operations.len() < MOST_OPERATIONS {
            operations.push(u.arbitrary()?);
        }
        Ok(Self { suite, esn, start, operations })
    }
}

#[derive(Arbitrary, Clone, Debug)]
enum Start {
    New,
    At(u64),
    /// So far before the low half of the numbers ends.
    BeforeTheBorder(u8),
}

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    /// A packet with so many octets of payload, and so much room more or less than it needs.
    Seal { length: u16, next_header: u8, room: i8 },
    /// The sender skips numbers.
    Jump { ahead: u16 },
    /// A packet under way arrives; it may arrive again.
    Deliver { which: u16 },
    /// It arrives with an octet changed.
    Damage { which: u16, at: u16, change: u8 },
    /// It arrives cut off.
    Cut { which: u16, length: u16 },
    /// Octets that nobody sealed.
    Garbage { octets: Vec<u8> },
    /// The same behind a right SPI and a sequence number.
    Inject { sequence: u32, octets: Vec<u8> },
    /// Another process takes the receiver over.
    TakeOver,
}

pub fn run(operations: Operations) {
    let mut world = World::new(&operations);
    for operation in operations.operations {
        world.apply(operation);
    }
}

struct World {
    keys: Keys,
    sealer: Sealer,
    opener: Opener,
    /// Under way: sequence number, octets of payload, next header, packet.
    packets: Vec<(u64, usize, u8, Vec<u8>)>,
    received: BTreeSet<u64>,
    last: u64,
}

impl World {
    fn new(operations: &Operations) -> Self {
        let suite = Suite::ALL[usize::from(operations.suite) % Suite::ALL.len()];
        let material = vec![operations.suite; suite.key_len()].into();
        let keys = Keys { spi: SPI, suite, esn: operations.esn, material };
        let last = if keys.esn { u64::MAX } else { u64::from(u32::MAX) };
        let start = match operations.start {
            Start::New => 0,
            Start::At(sequence) => sequence % last,
            Start::BeforeTheBorder(distance) => u64::from(u32::MAX) - u64::from(distance),
        };
        let mut sealer = Sealer::new(&keys).expect("good keys");
        sealer.jump(start);
        let opener = Opener::resume(&keys, window(start)).expect("good keys");
        Self { keys, sealer, opener, packets: Vec::new(), received: BTreeSet::from([0, start]), last }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Seal { length, next_header, room } => self.seal(length, next_header, room),
            Operation::Jump { ahead } => self.sealer.jump(ahead.into()),
            Operation::Deliver { which } => self.deliver(which),
            Operation::Damage { which, at, change } => {
                let Some((.., mut packet)) = self.pick(which) else { return };
                let at = usize::from(at) % packet.len();
                packet[at] ^= change;
                if change != 0 {
                    self.refused(&mut packet);
                }
            }
            Operation::Cut { which, length } => {
                let Some((.., mut packet)) = self.pick(which) else { return };
                packet.truncate(usize::from(length) % packet.len());
                self.refused(&mut packet);
            }
            Operation::Garbage { mut octets } => {
                let _ = (spi_of(&octets), Wrapped::of(&octets));
                self.refused(&mut octets);
            }
            Operation::Inject { sequence, octets } => {
                let mut packet = [&SPI.to_be_bytes()[..], &sequence.to_be_bytes(), &octets].concat();
                self.refused(&mut packet);
            }
            Operation::TakeOver => {
                let stored = postcard::to_stdvec(self.opener.window()).expect("it can be written down");
                let window = postcard::from_bytes(&stored).expect("and read again");
                self.opener = Opener::resume(&self.keys, window).expect("good keys");
            }
        }
    }

    fn seal(&mut self, length: u16, next_header: u8, room: i8) {
        let length = usize::from(length) % 2000;
        let needed = self.sealer.sealed_len(length);
        let mut packet = vec![0xee; needed.saturating_add_signed(room.into())];
        let before = self.sealer.sequence();
        let start = self.sealer.header_len();
        if let Some(place) = packet.get_mut(start..start + length) {
            place.copy_from_slice(&payload(before.wrapping_add(1), length));
        }
        match self.sealer.seal(&mut packet, length, next_header) {
            Ok(sealed) => {
                assert!(room >= 0 && sealed == needed && before < self.last);
                assert!(packet[sealed..].iter().all(|octet| *octet == 0xee), "it wrote behind the packet");
                packet.truncate(sealed);
                self.packets.push((before + 1, length, next_header, packet));
            }
            Err(_) => assert!(room < 0 || before == self.last),
        }
    }

    fn pick(&self, which: u16) -> Option<(u64, usize, u8, Vec<u8>)> {
        let count = self.packets.len();
        (count > 0).then(|| self.packets[usize::from(which) % count].clone())
    }

    /// What was sealed opens exactly once, unless it comes too late.
    fn deliver(&mut self, which: u16) {
        let Some((sequence, length, next_header, mut packet)) = self.pick(which) else { return };
        let highest = *self.received.last().expect("never empty");
        let opened = self.opener.open(&mut packet);
        if highest.saturating_sub(sequence) >= WINDOW {
            // With ESN an old number means a future one, and then the packet is no longer authentic.
            assert!(matches!(opened, Err(OpenError::TooOld | OpenError::Forged)), "{opened:?}");
        } else if self.received.contains(&sequence) {
            assert_eq!(opened, Err(OpenError::Replayed));
        } else {
            let opened = opened.expect("it is new and authentic");
            assert_eq!((opened.sequence, opened.next_header), (sequence, next_header));
            assert_eq!(packet[opened.payload], payload(sequence, length));
            self.received.insert(sequence);
        }
        assert_eq!(self.opener.window().highest(), highest.max(*self.received.last().expect("never empty")));
    }

    /// What nobody sealed is refused, and changes nothing.
    fn refused(&mut self, packet: &mut [u8]) {
        let before = self.opener.window().clone();
        assert!(self.opener.open(packet).is_err());
        assert_eq!(self.opener.window(), &before);
    }
}

/// A window that has received this number only, as it is stored.
fn window(sequence: u64) -> ReplayWindow {
    let mut words: BTreeMap<u64, u64> = BTreeMap::new();
    for number in [0, sequence] {
        if sequence - number < WINDOW {
            *words.entry(number / 64 % 65).or_default() |= 1 << (number % 64);
        }
    }
    let words: Vec<u64> = (0..65).map(|word| words.get(&word).copied().unwrap_or_default()).collect();
    let stored = postcard::to_stdvec(&(sequence, words)).expect("it can be written down");
    postcard::from_bytes(&stored).expect("and read again")
}

fn payload(sequence: u64, length: usize) -> Vec<u8> {
    sequence.to_le_bytes().into_iter().cycle().take(length).collect()
}
