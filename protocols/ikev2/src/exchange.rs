//! One IKE SA as a channel of exchanges: message IDs, retransmission, the window of one, and the kept answer. Nothing
//! else knows of message IDs.
//!
//! A session has one channel, and for moments several: while an IKE SA is replaced the new one is there already.

use crate::codes::{ExchangeType, NotifyType};
use crate::counters::Drop;
use crate::crypto::{IkeKeys, OpenError, Opened, Opener, Sealer};
use crate::fragment::{FragmentError, Reassembly};
use crate::malformed::Malformed;
use crate::payload::{Notify, Payload};
use crate::session::task::Task;
use crate::session::{Cx, Note};
use crate::timer::{Timer, Timers};
use crate::{Address, Header, Message};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// When to send a request again, after it was sent before; after the last of them nobody is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Patience {
    /// For the first message to where perhaps nobody is: about 8 s.
    First,
    /// For a peer that was there: about 32 s.
    Established,
    /// For taking leave: about 4 s.
    Leaving,
}

impl Patience {
    /// How long to wait for an answer after sending for the `sent`th time; `None`: no longer.
    ///
    /// //= rfc7296#2.4
    /// //# ... retransmission times MUST increase exponentially to avoid flooding the network
    pub(crate) fn wait(self, sent: u8) -> Option<Duration> {
        let most = match self {
            Self::First => 4,
            Self::Established => 6,
            Self::Leaving => 3,
        };
        (1..=most).contains(&sent).then(|| Duration::from_millis(500 << (sent - 1)))
    }
}

/// A request of ours that is not answered yet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub id: u32,
    pub exchange: ExchangeType,
    /// What to do with the answer.
    pub task: Task,
    datagrams: Vec<Vec<u8>>,
    /// How often it was sent.
    sent: u8,
    patience: Patience,
}

/// A request to be sent.
pub(crate) struct Question<'a> {
    pub exchange: ExchangeType,
    pub payloads: &'a [Payload],
    /// What to do with the answer.
    pub task: Task,
    pub patience: Patience,
}

/// The last answer of ours: the peer may ask again, not having got it.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    id: u32,
    datagrams: Vec<Vec<u8>>,
}

/// One IKE SA.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Channel {
    /// Our SPI.
    pub local: u64,
    /// The peer's SPI.
    pub remote: u64,
    /// Did we begin this IKE SA (or the exchange that made it, if it replaced another)?
    pub initiator: bool,
    /// Its secrets.
    pub keys: IkeKeys,
    /// Does the peer read fragments (RFC 7383)?
    pub fragmentation: bool,
    /// The lowest nonce of the exchange that made it: decides between two that were made at the same time.
    pub rank: Vec<u8>,
    /// What the peer made to replace it.
    pub theirs: Option<u64>,
    /// We are deleting it.
    pub deleting: bool,
    next_id: u32,
    expected: u32,
    pub request: Option<Request>,
    answer: Option<Answer>,
    /// Fragments of the peer's next request, and of its answer to ours.
    #[serde(skip)]
    fragments: (Reassembly, Reassembly),
    #[serde(skip)]
    protection: Option<Box<Protection>>,
    /// After a restart the peer may be ahead of what we remember, until its first request shows where it is.
    resuming: bool,
}

/// The keys at work.
struct Protection {
    sealer: Sealer,
    opener: Opener,
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protection")
    }
}

/// What a datagram is to a channel.
pub(crate) enum Incoming {
    /// A request, to be answered.
    Request(Message),
    /// The answer to our request, and what that was for.
    Response(Message, Task),
    /// A request that is authentic and malformed: its answer is this.
    Malformed(Notify),
    /// Nothing more to do with it.
    Done,
}

impl Channel {
    /// A new IKE SA. `spent`: messages that each side has sent already (the INIT).
    pub(crate) fn new(local: u64, remote: u64, initiator: bool, keys: IkeKeys, spent: (u32, u32)) -> Self {
        Self {
            local,
            remote,
            initiator,
            keys,
            fragmentation: false,
            rank: Vec::new(),
            theirs: None,
            deleting: false,
            next_id: spent.0,
            expected: spent.1,
            request: None,
            answer: None,
            fragments: Default::default(),
            protection: None,
            resuming: false,
        }
    }

    /// SPIs of the initiator and of the responder.
    pub(crate) const fn spis(&self) -> (u64, u64) {
        if self.initiator { (self.local, self.remote) } else { (self.remote, self.local) }
    }

    /// May a request be sent? The window is one.
    pub(crate) const fn idle(&self) -> bool {
        self.request.is_none() && !self.deleting
    }

    /// Sends a request.
    pub(crate) fn ask(&mut self, cx: &mut Cx<'_>, timers: &mut Timers, to: Address, question: Question<'_>) {
        let Question { exchange, payloads, task, patience } = question;
        let id = self.next_id;
        let header = self.header(exchange, false, id);
        let Some(datagrams) = self.seal(cx, header, payloads, to) else { return };
        for datagram in &datagrams {
            cx.transmit(to, datagram.clone());
        }
        if let Some(wait) = patience.wait(1) {
            timers.set(Timer::Retransmit(self.local), cx.now + wait);
        }
        //= rfc7296#2.2
        //# The Message ID is a 32-bit quantity, which is zero for the IKE_SA_INIT messages ... and incremented for each
        //# subsequent exchange.
        self.next_id = id.wrapping_add(1);
        self.request = Some(Request { id, exchange, task, datagrams, sent: 1, patience });
    }

    /// Sends the request again. False: it was sent often enough.
    pub(crate) fn ask_again(&mut self, cx: &mut Cx<'_>, timers: &mut Timers, to: Address) -> bool {
        let Some(request) = &mut self.request else { return true };
        //= rfc7296#2.1
        //# A retransmission from the initiator MUST be bitwise identical to the original request.
        request.sent = request.sent.saturating_add(1);
        let Some(wait) = request.patience.wait(request.sent) else { return false };
        timers.set(Timer::Retransmit(self.local), cx.now + wait);
        cx.out.counters.retransmitted += 1;
        for datagram in &request.datagrams {
            cx.transmit(to, datagram.clone());
        }
        true
    }

    /// Answers the request that was received last.
    pub(crate) fn answer(
        &mut self,
        cx: &mut Cx<'_>,
        to: Address,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) {
        let id = self.expected;
        let header = self.header(exchange, true, id);
        self.expected = id.wrapping_add(1);
        let Some(datagrams) = self.seal(cx, header, payloads, to) else { return };
        for datagram in &datagrams {
            cx.transmit(to, datagram.clone());
        }
        self.answer = Some(Answer { id, datagrams });
    }

    /// Takes a datagram whose header bears our SPI.
    pub(crate) fn receive(
        &mut self,
        cx: &mut Cx<'_>,
        timers: &mut Timers,
        from: Address,
        header: &Header,
        datagram: &[u8],
    ) -> Incoming {
        //= rfc7296#3.1
        //# This bit MUST be set in messages sent by the original initiator of the IKE SA and MUST be cleared in messages
        //# sent by the original responder.
        let spis = (header.initiator_spi, header.responder_spi);
        if header.initiator == self.initiator || spis != self.spis() {
            cx.out.counters.drop(Drop::Reflected);
            return Incoming::Done;
        }
        if header.response {
            self.response(cx, timers, header, datagram)
        } else {
            self.incoming(cx, from, header, datagram)
        }
    }

    fn response(
        &mut self,
        cx: &mut Cx<'_>,
        timers: &mut Timers,
        header: &Header,
        datagram: &[u8],
    ) -> Incoming {
        let awaited = self.request.as_ref().filter(|r| r.id == header.message_id);
        let stale = awaited.is_some_and(|r| r.exchange != header.exchange);
        if awaited.is_none() || (stale && !self.resuming) {
            cx.drop(Drop::MessageId);
            return Incoming::Done;
        }
        let Ok(Some(message)) = self.open(cx, header, datagram) else { return Incoming::Done };
        if stale {
            // The answer to a request of before the restart, which we don't remember: what did it agree upon? Nothing
            // is certain any more but that the peer lives.
            cx.notes.push(Note::Suspect);
        }
        timers.stop(Timer::Retransmit(self.local));
        match self.request.take() {
            Some(request) if !stale => Incoming::Response(message, request.task),
            _ => Incoming::Done,
        }
    }

    fn incoming(&mut self, cx: &mut Cx<'_>, from: Address, header: &Header, datagram: &[u8]) -> Incoming {
        if header.message_id == self.expected || (self.resuming && header.message_id > self.expected) {
            return match self.open(cx, header, datagram) {
                Ok(None) => Incoming::Done,
                Ok(Some(message)) => {
                    self.resuming = false;
                    self.expected = header.message_id;
                    Incoming::Request(message)
                }
                Err(malformed) => {
                    self.expected = header.message_id;
                    Incoming::Malformed(blame(malformed))
                }
            };
        }
        //= rfc7296#2.1
        //# the responder MUST remember each response until it receives a request whose sequence number is larger than or
        //# equal to the sequence number in the response plus its window size
        if self.answer.as_ref().is_some_and(|answer| answer.id == header.message_id) {
            self.answer_again(cx, from, datagram);
        } else {
            cx.drop(Drop::MessageId);
        }
        Incoming::Done
    }

    /// Only says again what was said.
    pub(crate) fn repeat(&mut self, cx: &mut Cx<'_>, to: Address, header: &Header, datagram: &[u8]) {
        if !header.response && self.answer.as_ref().is_some_and(|answer| answer.id == header.message_id) {
            self.answer_again(cx, to, datagram);
        } else {
            cx.drop(Drop::State);
        }
    }

    /// The peer has not got our answer. Only what is authentic is worth one, and of fragments the first.
    fn answer_again(&mut self, cx: &mut Cx<'_>, to: Address, datagram: &[u8]) {
        match self.protection(cx).opener.open(datagram) {
            Ok(Opened::Fragment(fragment)) if fragment.number != 1 => {}
            Ok(_) | Err(OpenError::Inner(_)) => {
                cx.out.counters.answered_again += 1;
                let datagrams = self.answer.iter().flat_map(|answer| &answer.datagrams);
                datagrams.for_each(|datagram| cx.transmit(to, datagram.clone()));
            }
            Err(_) => cx.drop(Drop::NotAuthentic),
        }
    }

    /// Opens a datagram. `Ok(None)`: there is no message (yet). `Err`: the peer made a malformed one.
    fn open(
        &mut self,
        cx: &mut Cx<'_>,
        header: &Header,
        datagram: &[u8],
    ) -> Result<Option<Message>, Malformed> {
        match self.protection(cx).opener.open(datagram) {
            Ok(Opened::Message(message)) => Ok(Some(message)),
            Ok(Opened::Fragment(fragment)) => {
                let half = if header.response { &mut self.fragments.1 } else { &mut self.fragments.0 };
                match half.add(fragment) {
                    Ok(message) => Ok(message),
                    Err(FragmentError::Inner(malformed)) => Err(malformed),
                    Err(_) => {
                        cx.drop(Drop::Fragment);
                        Ok(None)
                    }
                }
            }
            Err(OpenError::Inner(malformed)) => {
                cx.out.counters.drop_named(malformed.name());
                Err(malformed)
            }
            Err(OpenError::Outer(malformed)) => {
                cx.out.counters.drop_named(malformed.name());
                Ok(None)
            }
            Err(OpenError::Clear) => {
                cx.drop(Drop::Unprotected);
                Ok(None)
            }
            Err(OpenError::Forged) => {
                cx.drop(Drop::NotAuthentic);
                Ok(None)
            }
        }
    }

    /// Protects a message. One that can't be (far too many certificates) is not sent, and counted.
    fn seal(
        &mut self,
        cx: &mut Cx<'_>,
        header: Header,
        payloads: &[Payload],
        to: Address,
    ) -> Option<Vec<Vec<u8>>> {
        let limit = fragment_limit(cx.settings.config.fragment_size, to);
        let fragmentation = self.fragmentation;
        let sealer = &mut self.protection(cx).sealer;
        let sealed = if fragmentation {
            sealer.seal_within(limit, &header, payloads, cx.rng)
        } else {
            sealer.seal(&header, payloads, cx.rng).map(|datagram| vec![datagram])
        };
        sealed
            .inspect_err(|error| tracing::error!(%error, exchange = %header.exchange, "message was not sent"))
            .ok()
    }

    fn protection(&mut self, cx: &mut Cx<'_>) -> &mut Protection {
        let (keys, initiator) = (&self.keys, self.initiator);
        self.protection.get_or_insert_with(|| {
            let cipher = keys.suite.cipher;
            Box::new(Protection {
                sealer: Sealer::new(cipher, keys.side(initiator).clone(), cx.rng),
                opener: Opener::new(cipher, keys.side(!initiator).clone()),
            })
        })
    }

    const fn header(&self, exchange: ExchangeType, response: bool, message_id: u32) -> Header {
        let (initiator_spi, responder_spi) = self.spis();
        Header { initiator_spi, responder_spi, exchange, initiator: self.initiator, response, message_id }
    }

    /// After a restart: the peer may have had one more exchange than we remember.
    pub(crate) const fn resume(&mut self) {
        self.resuming = true;
    }
}

/// What the sender of a malformed message is told.
fn blame(malformed: Malformed) -> Notify {
    match malformed {
        Malformed::Critical(kind) => Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind.0]),
        _ => Notify::empty(NotifyType::INVALID_SYNTAX),
    }
}

/// Octets of IKE in an IP packet of this size: without the IP and UDP headers and the non-ESP marker.
fn fragment_limit(size: u16, to: Address) -> usize {
    const UDP_AND_MARKER: usize = 8 + 4;
    let ip = if to.remote.is_ipv4() { 20 } else { 40 };
    usize::from(size).saturating_sub(ip + UDP_AND_MARKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(patience: Patience) -> Duration {
        (1..).map_while(|sent| patience.wait(sent)).sum()
    }

    //= rfc7296#2.4
    //# To be a good network citizen, retransmission times MUST increase exponentially to avoid flooding the network and
    //# making an existing congestion situation worse.
    #[test]
    fn retransmission_times_grow_exponentially() {
        let waits: Vec<_> = (1..).map_while(|sent| Patience::Established.wait(sent)).collect();
        assert!(waits.windows(2).all(|w| w[1] == 2 * w[0]));
    }

    #[test]
    fn a_path_where_nobody_is_costs_less_patience_than_a_peer_that_was_there() {
        assert_eq!(total(Patience::First), Duration::from_millis(7_500));
        assert_eq!(total(Patience::Established), Duration::from_millis(31_500));
        assert_eq!(total(Patience::Leaving), Duration::from_millis(3_500));
    }
}
