//! nf_tables by netlink: tables of our own, put in place as a whole. No `nft` is needed on the node, and a table of
//! another name is never touched.

mod message;

use ipnet::IpNet;
use message::Batch;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name.
    pub name: String,
    /// Named sets.
    pub sets: Vec<Set>,
    /// Chains at a hook.
    pub chains: Vec<Chain>,
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Name.
    pub name: String,
    /// What is in it.
    pub elements: Elements,
}

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// IPv4 addresses.
    V4(Vec<Ipv4Addr>),
    /// IPv6 addresses.
    V6(Vec<Ipv6Addr>),
    /// Names of interfaces.
    Interfaces(Vec<String>),
}

/// A chain at a hook, that lets through what no rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// Where.
    pub hook: Hook,
    /// Lower is earlier.
    pub priority: i32,
    /// Rules, in order.
    pub rules: Vec<Vec<Expression>>,
}

/// What a chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Accepts and drops.
    Filter,
    /// Translates addresses.
    Nat,
}

/// Where a chain sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this node.
    Input,
    /// Through this node.
    Forward,
    /// From this node.
    Output,
    /// About to leave.
    Postrouting,
}

/// A step of a rule; the rule ends at the first that doesn't match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Is it IPv4?
    IsV4,
    /// Is it IPv6?
    IsV6,
    /// Is the incoming interface in this set?
    FromInterfaceIn(String),
    /// Is this the incoming interface?
    FromInterface(String),
    /// Is this the outgoing interface?
    ToInterface(String),
    /// Does the source address (of the version asked for before) lie within this prefix?
    SourceWithin(IpNet),
    /// Does the destination address?
    DestinationWithin(IpNet),
    /// Is this the next hop it was routed to? (An address on link is its own.)
    NextHop(IpAddr),
    /// (Nat, after routing) translate the source to itself, so that nobody after us translates it.
    KeepSource(Version),
    /// Is the outgoing interface in this set?
    ToInterfaceIn(String),
    /// Is the source address (of the version asked for before) in this set?
    SourceIn(Version, String),
    /// Is the destination address in this set?
    DestinationIn(Version, String),
    /// Count it.
    Count,
    /// Drop it.
    Drop,
    /// Let it through this table.
    Accept,
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// The version of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Puts the table in place of the one of its name, if there is one, at once: no packet sees half of it.
pub fn replace(table: &Table) -> io::Result<()> {
    let mut batch = Batch::new();
    // A table can only be deleted when it is there.
    batch.add_table(&table.name);
    batch.delete_table(&table.name);
    batch.add(table);
    exchange(&batch.finish())
}

/// Removes the table; it may be gone already.
pub fn remove(name: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.add_table(name);
    batch.delete_table(name);
    exchange(&batch.finish())
}

/// Is there a table of this name?
pub fn exists(name: &str) -> io::Result<bool> {
    match exchange(&message::get_table(name)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Number of the kernel's whole ruleset: another one after each change that anybody made. Cheap to ask for.
pub fn generation() -> io::Result<u32> {
    let mut generation = None;
    ask(&message::get_generation(), |answer| {
        generation = message::generation(answer);
        true
    })?;
    generation.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Does the kernel still hold this table with all its rules? Others are known to flush everything, and to flush a table
/// and leave it empty.
pub fn holds(table: &Table) -> io::Result<bool> {
    let mut rules = 0;
    ask(&message::get_rules(&table.name), |answer| message::count_rules(answer, &mut rules))?;
    let wanted: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
    Ok(rules == wanted && exists(&table.name)?)
}

/// Chains of any table that drop what is forwarded unless a rule accepts it, in words.
pub fn forward_drops() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    ask(&message::get_chains(), |answer| message::forward_drops(answer, &mut found))?;
    Ok(found)
}

/// Asks, and reads answers until one is the last.
fn ask(question: &[u8], mut last: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    socket.send_to(question, &SocketAddr::new(0, 0), 0)?;
    // The kernel continues a list whenever some of it was read.
    while let Ok((answer, _)) = socket.recv_from_full() {
        message::first_error(&answer)?;
        if last(&answer) {
            break;
        }
    }
    Ok(())
}

/// Sends, and reads what the kernel says. It answers before the sending ends, so there is nothing to wait for.
fn exchange(messages: &[u8]) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    socket.send_to(messages, &SocketAddr::new(0, 0), 0)?;
    loop {
        match socket.recv_from_full() {
            Ok((answer, _)) => message::first_error(&answer)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
