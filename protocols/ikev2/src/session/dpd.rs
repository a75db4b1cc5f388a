//! Does the peer live? (RFC 7296 §2.4) And its NAT's mapping? (RFC 3948 §4)

use super::established::Established;
use super::task::{Job, Task};
use super::{Base, Cx};
use crate::codes::ExchangeType;
use crate::exchange::{Patience, Question};
use crate::timer::Timer;
use crate::{Transmit, TransmitKind};

/// The peer may have been silent for too long.
pub(crate) fn due(session: &mut Established, base: &mut Base, cx: &mut Cx<'_>) {
    let delay = cx.settings.config.dpd_delay;
    let silent = cx.now.since(session.heard);
    if silent >= delay {
        //= rfc7296#2.4
        //# If no cryptographically protected messages have been received on an IKE SA or any of its Child SAs recently,
        //# the system needs to perform a liveness check in order to prevent sending messages to a dead peer.
        // By an INFORMATIONAL exchange with nothing in it (§1.4).
        session.queue(Job::Liveness);
        base.timers.set(Timer::Liveness, cx.now + delay);
    } else {
        base.timers.set(Timer::Liveness, session.heard + delay);
    }
}

/// Asks.
pub(crate) fn ask(session: &mut Established, base: &mut Base, cx: &mut Cx<'_>) {
    let address = base.address;
    if let Some(channel) = session.channel() {
        let exchange = ExchangeType::INFORMATIONAL;
        let (task, patience) = (Task::Liveness, Patience::Established);
        channel.ask(cx, &mut base.timers, address, Question { exchange, payloads: &[], task, patience });
    }
}

/// Something has to pass now and then, or the NAT in front of us forgets us.
pub(crate) fn keep_mapping(session: &Established, base: &mut Base, cx: &mut Cx<'_>) {
    if session.nat.us {
        cx.out.transmits.push_back(Transmit { address: base.address, kind: TransmitKind::Keepalive });
        base.timers.set(Timer::Keepalive, cx.now + cx.settings.config.keepalive);
    }
}
