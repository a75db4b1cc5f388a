//! Tables as octets: the kernel's `nf_tables.h`. Numbers of netfilter's are big endian, those of netlink's the machine's.

use super::{Chain, Elements, Expression, Hook, Kind, Set, Table, Version};
use ipnet::IpNet;
use std::io;
use std::net::IpAddr;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`, in the upper octet of a message's type.
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;

const FAMILY_NONE: u8 = 0;
const FAMILY_INET: u8 = 1;

const NESTED: u16 = 0x8000;
/// `NFTA_LIST_ELEM`, `NFTA_DATA_VALUE`.
const ITEM: u16 = 1;
/// The register that comparisons load into.
const REGISTER: u32 = 1;
const INTERFACE_NAME: usize = 16;

/// Messages that take effect together, or not at all.
pub(super) struct Batch {
    octets: Vec<u8>,
    sequence: u32,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { octets: Vec::new(), sequence: 0 };
        batch.push(BATCH_BEGIN, REQUEST, FAMILY_NONE, NFTABLES, &[]);
        batch
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.push(BATCH_END, REQUEST, FAMILY_NONE, NFTABLES, &[]);
        self.octets
    }

    pub(super) fn add_table(&mut self, name: &str) {
        self.command(NEW_TABLE, CREATE, &string(1, name));
    }

    pub(super) fn delete_table(&mut self, name: &str) {
        self.command(DELETE_TABLE, 0, &string(1, name));
    }

    /// The table and everything in it.
    pub(super) fn add(&mut self, table: &Table) {
        self.add_table(&table.name);
        for (number, set) in (1..).zip(&table.sets) {
            self.add_set(&table.name, set, number);
        }
        for chain in &table.chains {
            self.add_chain(&table.name, chain);
            for rule in &chain.rules {
                let mut body = [string(1, &table.name), string(2, &chain.name)].concat();
                let expressions: Vec<u8> =
                    rule.iter().flat_map(steps).flat_map(|e| nested(ITEM, &e)).collect();
                body.extend(nested(4, &expressions));
                self.command(NEW_RULE, CREATE | APPEND, &body);
            }
        }
    }

    fn add_set(&mut self, table: &str, set: &Set, number: u32) {
        // The types are what `nft` shows elements as.
        let (kind, length, elements): (u32, u32, Vec<Vec<u8>>) = match &set.elements {
            Elements::V4(all) => (7, 4, all.iter().map(|a| a.octets().to_vec()).collect()),
            Elements::V6(all) => (8, 16, all.iter().map(|a| a.octets().to_vec()).collect()),
            Elements::Interfaces(all) => (41, 16, all.iter().map(|name| padded(name)).collect()),
        };
        let body = [
            string(1, table),
            string(2, &set.name),
            number_of(3, 0),
            number_of(4, kind),
            number_of(5, length),
            number_of(10, number),
        ];
        self.command(NEW_SET, CREATE, &body.concat());
        // An attribute holds 64 KiB.
        for some in elements.chunks(512) {
            let list: Vec<u8> =
                some.iter().flat_map(|e| nested(ITEM, &nested(1, &attribute(ITEM, e)))).collect();
            let body = [string(1, table), string(2, &set.name), nested(3, &list), number_of(4, number)];
            self.command(NEW_ELEMENTS, CREATE, &body.concat());
        }
    }

    fn add_chain(&mut self, table: &str, chain: &Chain) {
        let hook = match chain.hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        let kind = match chain.kind {
            Kind::Filter => "filter",
            Kind::Nat => "nat",
        };
        let place = [number_of(1, hook), attribute(2, &chain.priority.to_be_bytes())].concat();
        let body = [
            string(1, table),
            string(3, &chain.name),
            nested(4, &place),
            number_of(5, ACCEPT),
            string(7, kind),
        ];
        self.command(NEW_CHAIN, CREATE, &body.concat());
    }

    fn command(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.push((NFTABLES << 8) | kind, REQUEST | ACK | flags, FAMILY_INET, 0, body);
    }

    fn push(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        self.sequence += 1;
        self.octets.extend(message(kind, flags, self.sequence, family, resource, body));
    }
}

/// Asks for a table.
pub(super) fn get_table(name: &str) -> Vec<u8> {
    message((NFTABLES << 8) | GET_TABLE, REQUEST | ACK, 1, FAMILY_INET, 0, &string(1, name))
}

/// Asks for every chain of every table.
pub(super) fn get_chains() -> Vec<u8> {
    message((NFTABLES << 8) | GET_CHAIN, REQUEST | DUMP, 1, FAMILY_NONE, 0, &[])
}

/// Asks for every rule of a table.
pub(super) fn get_rules(table: &str) -> Vec<u8> {
    message((NFTABLES << 8) | GET_RULE, REQUEST | DUMP, 1, FAMILY_INET, 0, &string(1, table))
}

/// Asks for the number of the ruleset.
pub(super) fn get_generation() -> Vec<u8> {
    message((NFTABLES << 8) | GET_GENERATION, REQUEST, 1, FAMILY_NONE, 0, &[])
}

/// The number of the ruleset.
pub(super) fn generation(answers: &[u8]) -> Option<u32> {
    let mut number = None;
    each(answers, |kind, attributes| {
        if kind == (NFTABLES << 8) | NEW_GENERATION {
            number = find(attributes, 1).and_then(|id| Some(u32::from_be_bytes(*id.first_chunk()?)));
        }
    });
    number
}

/// Counts rules. True: the list ends.
pub(super) fn count_rules(answers: &[u8], count: &mut usize) -> bool {
    each(answers, |kind, _| *count += usize::from(kind == (NFTABLES << 8) | NEW_RULE))
}

/// Adds those of these chains that drop what is forwarded and no rule accepts, by table and name. True: the list ends.
pub(super) fn forward_drops(answers: &[u8], found: &mut Vec<String>) -> bool {
    each(answers, |_, chain| found.extend(forward_drop(chain)))
}

/// Shows each message: its type, and its attributes. True: the list ends, or can't be read.
fn each(answers: &[u8], mut show: impl FnMut(u16, &[u8])) -> bool {
    let mut rest = answers;
    while let Some((header, _)) = rest.split_first_chunk::<16>() {
        let [l0, l1, l2, l3, k0, k1, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let kind = u16::from_ne_bytes([k0, k1]);
        if kind == DONE {
            return true;
        }
        let Some(attributes) = rest.get(20..length) else { return true };
        show(kind, attributes);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn forward_drop(chain: &[u8]) -> Option<String> {
    let is = |value: Option<&[u8]>, wanted: u32| value == Some(&wanted.to_be_bytes()[..]);
    let text = |kind| {
        let value = find(chain, kind).unwrap_or_default();
        String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
    };
    let drops = is(find(find(chain, 4)?, 1), FORWARD) && is(find(chain, 5), DROP);
    drops.then(|| format!("table {}, chain {}", text(1), text(3)))
}

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, rest @ ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*a, *b])).checked_sub(4)?;
        if u16::from_ne_bytes([*c, *d]) & !NESTED == wanted {
            return rest.get(..length);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The first error among the kernel's answers.
pub(super) fn first_error(answers: &[u8]) -> io::Result<()> {
    let mut rest = answers;
    while let Some((header, _)) = rest.split_first_chunk::<16>() {
        let [l0, l1, l2, l3, k0, k1, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some(body) = rest.get(16..length) else { break };
        if let (ERROR, Some(code)) = (u16::from_ne_bytes([k0, k1]), body.first_chunk::<4>()) {
            match i32::from_ne_bytes(*code) {
                0 => {}
                code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
            }
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

fn message(kind: u16, flags: u16, sequence: u32, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut octets = Vec::with_capacity(20 + body.len());
    octets.extend(length.to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(flags.to_ne_bytes());
    octets.extend(sequence.to_ne_bytes());
    octets.extend([0; 4]);
    octets.extend([family, 0]);
    octets.extend(resource.to_be_bytes());
    octets.extend(body);
    octets
}

/// A step as the kernel's expressions: load, then compare.
fn steps(step: &Expression) -> Vec<Vec<u8>> {
    match step {
        Expression::IsV4 => vec![meta(15), equals(&[2])],
        Expression::IsV6 => vec![meta(15), equals(&[10])],
        Expression::FromInterfaceIn(set) => vec![meta(6), lookup(set)],
        Expression::ToInterfaceIn(set) => vec![meta(7), lookup(set)],
        Expression::SourceIn(Version::V4, set) => vec![header(12, 4), lookup(set)],
        Expression::DestinationIn(Version::V4, set) => vec![header(16, 4), lookup(set)],
        Expression::SourceIn(Version::V6, set) => vec![header(8, 16), lookup(set)],
        Expression::DestinationIn(Version::V6, set) => vec![header(24, 16), lookup(set)],
        Expression::FromInterface(name) => vec![meta(6), equals(&padded(name))],
        Expression::ToInterface(name) => vec![meta(7), equals(&padded(name))],
        Expression::SourceWithin(prefix) => within(prefix, true),
        Expression::DestinationWithin(prefix) => within(prefix, false),
        Expression::NextHop(IpAddr::V4(address)) => vec![route(1), equals(&address.octets())],
        Expression::NextHop(IpAddr::V6(address)) => vec![route(2), equals(&address.octets())],
        Expression::KeepSource(Version::V4) => vec![header(12, 4), source_nat(2)],
        Expression::KeepSource(Version::V6) => vec![header(8, 16), source_nat(10)],
        Expression::Count => vec![expression("counter", &[])],
        Expression::Drop => vec![verdict(0)],
        Expression::Accept => vec![verdict(ACCEPT)],
    }
}

const ACCEPT: u32 = 1;
const DROP: u32 = 0;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number_of(1, REGISTER), number_of(2, key)].concat())
}

/// Loads what routing decided: the next hop (`NFT_RT_NEXTHOP4`, `NFT_RT_NEXTHOP6`).
fn route(key: u32) -> Vec<u8> {
    expression("rt", &[number_of(1, REGISTER), number_of(2, key)].concat())
}

/// Loads octets of the network header.
fn header(offset: u32, length: u32) -> Vec<u8> {
    let place = [number_of(1, REGISTER), number_of(2, 1), number_of(3, offset), number_of(4, length)];
    expression("payload", &place.concat())
}

/// Is the source (or destination) within this prefix?
fn within(prefix: &IpNet, source: bool) -> Vec<Vec<u8>> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    if prefix.prefix_len() == 0 {
        return Vec::new();
    }
    let load = match (Version::of(prefix.addr()), source) {
        (Version::V4, true) => header(12, 4),
        (Version::V4, false) => header(16, 4),
        (Version::V6, true) => header(8, 16),
        (Version::V6, false) => header(24, 16),
    };
    vec![load, masked(&octets(prefix.netmask())), equals(&octets(prefix.network()))]
}

fn equals(value: &[u8]) -> Vec<u8> {
    let data = nested(3, &attribute(ITEM, value));
    expression("cmp", &[number_of(1, REGISTER), number_of(2, 0), data].concat())
}

/// Keeps those bits of what is loaded that are set in `mask`.
fn masked(mask: &[u8]) -> Vec<u8> {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    let data = |kind, value: &[u8]| nested(kind, &attribute(ITEM, value));
    let zero = vec![0; mask.len()];
    let place = [number_of(1, REGISTER), number_of(2, REGISTER), number_of(3, length)].concat();
    expression("bitwise", &[place, data(4, mask), data(5, &zero)].concat())
}

/// Translates the source to the address that is loaded.
fn source_nat(family: u32) -> Vec<u8> {
    expression("nat", &[number_of(1, 0), number_of(2, family), number_of(3, REGISTER)].concat())
}

fn lookup(set: &str) -> Vec<u8> {
    expression("lookup", &[string(1, set), number_of(2, REGISTER)].concat())
}

fn verdict(code: u32) -> Vec<u8> {
    let data = nested(2, &nested(2, &number_of(1, code)));
    expression("immediate", &[number_of(1, 0), data].concat())
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    [string(1, name), nested(2, data)].concat()
}

fn number_of(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn string(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

fn padded(name: &str) -> Vec<u8> {
    let mut octets = name.as_bytes().to_vec();
    octets.resize(INTERFACE_NAME, 0);
    octets
}

fn nested(kind: u16, content: &[u8]) -> Vec<u8> {
    attribute(NESTED | kind, content)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut octets = Vec::with_capacity(4 + value.len() + 3);
    octets.extend(length.to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_length_is_not() {
        assert_eq!(attribute(1, &[7]), [5_u16.to_ne_bytes(), 1_u16.to_ne_bytes(), [7, 0], [0, 0]].concat());
    }

    #[test]
    fn messages_follow_each_other_in_sequence_and_fill_the_batch() {
        let mut batch = Batch::new();
        batch.add_table("t");
        let octets = batch.finish();
        let mut rest = octets.as_slice();
        let mut sequences = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(*rest.first_chunk().unwrap()) as usize;
            sequences.push(u32::from_ne_bytes(rest[8..12].try_into().unwrap()));
            rest = &rest[length..];
        }
        assert_eq!(sequences, [1, 2, 3]);
    }

    #[test]
    fn the_kernels_refusal_is_an_error_and_its_consent_is_none() {
        let answer =
            |code: i32| message(ERROR, 0, 1, 0, 0, &[]).into_iter().take(16).chain(code.to_ne_bytes());
        let answer = |code| {
            let mut octets: Vec<u8> = answer(code).collect();
            octets[..4].copy_from_slice(&20_u32.to_ne_bytes());
            octets
        };
        assert!(first_error(&answer(0)).is_ok());
        let both = [answer(0), answer(-1)].concat();
        assert_eq!(first_error(&both).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_chain_that_drops_what_is_forwarded_is_told_from_others() {
        let chain = |hook: u32, policy: u32| {
            let hook = nested(4, &number_of(1, hook));
            let body = [string(1, "filter"), string(3, "FORWARD"), hook, number_of(5, policy)].concat();
            message((NFTABLES << 8) | NEW_CHAIN, 0, 1, FAMILY_INET, 0, &body)
        };
        let mut found = Vec::new();
        let answers = [chain(FORWARD, DROP), chain(FORWARD, ACCEPT), chain(4, DROP)].concat();
        assert!(!forward_drops(&answers, &mut found));
        assert_eq!(found, ["table filter, chain FORWARD"]);
        assert!(forward_drops(&message(DONE, 0, 1, 0, 0, &[0; 4]), &mut found));
        assert_eq!(find(&[3, 0, 1, 0], 1), None, "an attribute shorter than its head");
        assert_eq!(find(&[200, 0, 1, 0, 1], 1), None, "an attribute longer than what is there");
    }

    #[test]
    fn rules_are_counted_until_the_list_ends() {
        let rule = message((NFTABLES << 8) | NEW_RULE, 0, 1, FAMILY_INET, 0, &string(1, "t"));
        let mut count = 0;
        assert!(!count_rules(&[rule.clone(), rule].concat(), &mut count));
        assert!(count_rules(&message(DONE, 0, 1, 0, 0, &[0; 4]), &mut count));
        assert_eq!(count, 2);
        assert!(count_rules(&[255; 24], &mut count), "what can't be read ends it");
    }

    #[test]
    fn the_rulesets_number_is_read() {
        let answer = |kind| message((NFTABLES << 8) | kind, 0, 1, 0, 0, &number_of(1, 77));
        assert_eq!(generation(&answer(NEW_GENERATION)), Some(77));
        assert_eq!(generation(&answer(NEW_RULE)), None);
    }

    #[test]
    fn a_torn_answer_is_no_error_and_no_panic() {
        for length in 0..24 {
            let octets = message(ERROR, 0, 1, 0, 0, &[0; 4]);
            assert!(first_error(&octets[..length]).is_ok());
        }
    }
}
