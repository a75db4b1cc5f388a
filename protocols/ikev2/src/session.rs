//! A session: what we and one peer, at the end of one path, have agreed upon. States hold only what is legal then.
//!
//! ```text
//!   we begin:    ExpectInit --IKE_SA_INIT--> ExpectAuthReply --IKE_AUTH--> Established
//!   peer begins:        ExpectAuth (half-open) --IKE_AUTH--> Established
//!   Established --delete, timeout--> Over
//! ```
//!
//! Child SAs belong to the session, not to its IKE SA: replacing the IKE SA inherits them by doing nothing
//! (RFC 7296 §2.18), and a collision of replacements (§2.8.2) is only a question of which channel is used.

pub(crate) mod auth;
pub(crate) mod child;
pub(crate) mod create_child;
pub(crate) mod delete;
pub(crate) mod dpd;
pub(crate) mod established;
pub(crate) mod init;
pub(crate) mod natd;
pub(crate) mod peer;
pub(crate) mod rekey_child;
pub(crate) mod rekey_ike;
pub(crate) mod selectors;
pub(crate) mod task;

use crate::counters::{Counters, Drop};
use crate::settings::Settings;
use crate::timer::Timers;
use crate::{Address, Credentials, Event, Failure, Header, LocalPort, Transmit, TransmitKind};
use established::Established;
use packet::{Encapsulation, Instant, Path};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;

/// A session's name within its endpoint; never used twice.
pub(crate) type Id = u64;

/// What sessions put out, directly.
#[derive(Default)]
pub(crate) struct Out {
    pub events: VecDeque<Event>,
    pub transmits: VecDeque<Transmit>,
    pub counters: Counters,
}

/// What a session has at hand while it is called.
pub(crate) struct Cx<'a> {
    pub now: Instant,
    /// Seconds since 1970.
    pub unix: u64,
    pub settings: &'a Settings,
    pub credentials: &'a dyn Credentials,
    pub rng: &'a mut StdRng,
    pub out: &'a mut Out,
    /// Tells the endpoint.
    pub notes: &'a mut Vec<Note>,
    /// SPIs of child SAs that are taken.
    pub spis: &'a HashMap<u32, Id>,
    /// Identities and addresses that this process had a session with.
    pub met: &'a BTreeSet<String>,
    /// Who has to be at the end of the session's path, if that is known.
    pub expect: Option<String>,
    /// The highest generation of the sessions established on the session's path.
    pub generation: Option<u16>,
}

impl Cx<'_> {
    /// Sends a message.
    pub(crate) fn transmit(&mut self, address: Address, datagram: Vec<u8>) {
        self.out.counters.sent += 1;
        self.out.transmits.push_back(Transmit { address, kind: TransmitKind::Message(datagram) });
    }

    /// Tells the driver.
    pub(crate) fn event(&mut self, event: Event) {
        self.out.events.push_back(event);
    }

    /// Drops a message.
    pub(crate) fn drop(&mut self, reason: Drop) {
        self.out.counters.drop(reason);
    }

    /// Our end of an exchange, as bound; `None` if we don't know our address there.
    pub(crate) fn local_end(&self, address: Address) -> Option<SocketAddr> {
        let ip = self.settings.local_ip(address.remote.ip())?;
        let (ike, natt) = self.settings.config.ports;
        Some(SocketAddr::new(ip, if address.local == LocalPort::Ike { ike } else { natt }))
    }
}

/// What a session tells its endpoint, which knows the other sessions.
#[derive(Debug)]
pub(crate) enum Note {
    /// Messages with this SPI are for this session.
    Spi(u64),
    /// No longer.
    SpiGone(u64),
    /// The peer is authenticated. `restarted`: it says that it has no other session with us (INITIAL_CONTACT).
    Established {
        /// INITIAL_CONTACT was received.
        restarted: bool,
        /// The path on which it began.
        began: Path,
    },
    /// The peer certainly receives by this child (named by our SPI).
    Ready(u32),
    /// This child is no longer sent by.
    Removed {
        /// The path it was bound to.
        path: Path,
        /// Which lane it carried.
        lane: u16,
        /// Our SPI.
        inbound: u32,
    },
    /// The peer is at another path now.
    Moved {
        /// Where it was.
        from: Path,
    },
    /// The peer, or somebody who sees its packets, says that it has lost an SA.
    Suspect,
    /// The handshake came to nothing; only courtesy is left.
    Refused(Failure),
    /// It is to be closed.
    Leaving(Failure),
    /// It is over.
    Over(Failure),
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub base: Base,
    pub state: State,
}

/// What a session has in every state.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Base {
    pub id: Id,
    pub path: Path,
    /// Where messages go.
    pub address: Address,
    /// Did we begin?
    pub initiator: bool,
    /// Sessions that are to replace others on the same path have a higher one.
    pub generation: u16,
    /// When its first message was sent, or came.
    pub born: Instant,
    pub timers: Timers,
    /// By whom, and with which SPI, it was begun; while it is half-open.
    pub stranger: Option<(Address, u64)>,
    /// Its end is told already.
    pub told: bool,
}

/// What a session waits for.
#[derive(Debug)]
pub(crate) enum State {
    /// We began, and wait for the answer to IKE_SA_INIT.
    ExpectInit(Box<init::ExpectInit>),
    /// We began, and wait for the answer to IKE_AUTH.
    ExpectAuthReply(Box<auth::ExpectAuthReply>),
    /// A peer began, and has to authenticate itself.
    ExpectAuth(Box<auth::ExpectAuth>),
    /// Both are authenticated.
    Established(Box<Established>),
    /// Nothing more.
    Over,
}

impl State {
    /// In a word.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::ExpectInit(_) => "ExpectInit",
            Self::ExpectAuthReply(_) => "ExpectAuthReply",
            Self::ExpectAuth(_) => "ExpectAuth",
            Self::Established(e) if e.closing.is_some() => "Closing",
            Self::Established(_) => "Established",
            Self::Over => "Over",
        }
    }

    /// SPIs of an IKE SA that is not established.
    pub(crate) const fn spis(&self) -> (u64, u64) {
        match self {
            Self::ExpectInit(state) => state.spis(),
            Self::ExpectAuthReply(state) => state.spis(),
            Self::ExpectAuth(state) => state.spis(),
            Self::Established(_) | Self::Over => (0, 0),
        }
    }

    /// Our SPIs.
    pub(crate) fn locals(&self) -> Vec<u64> {
        match self {
            Self::ExpectInit(state) => vec![state.spis().0],
            Self::ExpectAuthReply(state) => vec![state.spis().0],
            Self::ExpectAuth(state) => vec![state.spis().1],
            Self::Established(state) => state.channels.iter().map(|c| c.local).collect(),
            Self::Over => Vec::new(),
        }
    }
}

impl Session {
    /// What it has once it is established.
    pub(crate) fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }

    /// As [`Self::established`], to change it.
    pub(crate) fn established_mut(&mut self) -> Option<&mut Established> {
        match &mut self.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }

    /// As [`Self::established`], unless it is being closed.
    pub(crate) fn live(&self) -> Option<&Established> {
        self.established().filter(|e| e.closing.is_none())
    }

    /// Decides between sessions of one path: the higher one stays.
    pub(crate) fn precedence(&self) -> (u16, &[u8]) {
        (self.base.generation, self.established().map_or(&[], |e| e.rank.as_slice()))
    }

    /// Takes a message with an SPI of ours.
    pub(crate) fn handle(&mut self, cx: &mut Cx<'_>, from: Address, header: &Header, datagram: &[u8]) {
        let base = &mut self.base;
        let next = match std::mem::replace(&mut self.state, State::Over) {
            State::ExpectInit(state) => state.handle(base, cx, from, datagram),
            State::ExpectAuthReply(state) => state.handle(base, cx, from, header, datagram),
            State::ExpectAuth(state) => state.handle(base, cx, from, header, datagram),
            State::Established(mut state) => {
                state.handle(base, cx, from, header, datagram);
                State::Established(state)
            }
            State::Over => {
                cx.drop(Drop::State);
                State::Over
            }
        };
        self.state = next;
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        while let Some(timer) = self.base.timers.expired(cx.now) {
            let base = &mut self.base;
            match &mut self.state {
                State::ExpectInit(state) => state.handle_timeout(base, cx, timer),
                State::ExpectAuthReply(state) => state.handle_timeout(base, cx, timer),
                State::ExpectAuth(state) => state.handle_timeout(base, cx),
                State::Established(state) => state.handle_timeout(base, cx, timer),
                State::Over => {}
            }
        }
    }
}

impl Base {
    /// Ends the session: the endpoint tidies up.
    pub(crate) fn over(&mut self, cx: &mut Cx<'_>, reason: Failure) {
        self.timers.clear();
        cx.notes.push(Note::Over(reason));
    }
}

/// Where IKE messages for a path go: ESP in UDP shares its port with IKE; bare ESP has no port, IKE has 500.
pub(crate) fn address_of(path: Path, ports: (u16, u16)) -> Address {
    match path.encapsulation {
        Encapsulation::Udp { port } => {
            Address { remote: SocketAddr::new(path.remote, port), local: LocalPort::NatTraversal }
        }
        Encapsulation::Gre => {
            Address { remote: SocketAddr::new(path.remote, ports.0), local: LocalPort::Ike }
        }
    }
}

/// The path that a peer at this address uses.
pub(crate) fn path_of(address: Address) -> Path {
    match address.local {
        LocalPort::NatTraversal => Path::udp(address.remote.ip(), address.remote.port()),
        LocalPort::Ike => Path::gre(address.remote.ip()),
    }
}

/// The lower one of two nonces (RFC 7296 §2.8: compared octet by octet; a shorter one that is a prefix is lower).
pub(crate) fn lower_nonce(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.min(b).to_vec()
}
