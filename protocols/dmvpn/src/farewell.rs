//! Leaving in good order: what was answered is withdrawn, and only then the registrations are taken back. A hub passes
//! withdrawals on for those who are registered with it and for nobody else, so a withdrawal that is lost and repeated
//! after the deregistration would be refused.

use crate::tunnel::Tunnel;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use packet::Instant;
use std::time::Duration;

/// Withdrawals are given this long to be acknowledged: one repetition.
const WITHDRAWING: Duration = Duration::from_millis(1500);
/// Deregistrations are given this long.
const DEREGISTERING: Duration = Duration::from_secs(1);

/// Deletes of sessions are given this long.
const CLOSING: Duration = Duration::from_millis(500);

/// How far a shutdown got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Nobody wants to leave.
    #[default]
    Staying,
    /// Those who were answered are told; at most until then.
    Withdrawing(Instant),
    /// The hubs are told; at most until then.
    Deregistering(Instant),
    /// Peers are told that the sessions end; at most until then.
    Closing(Instant),
    /// There is nothing left to wait for.
    Over,
}

impl Farewell {
    /// Are the sessions ended, or being so?
    pub(crate) const fn is_closing(self) -> bool {
        matches!(self, Self::Closing(_) | Self::Over)
    }

    /// When the next step is taken at the latest.
    pub(crate) const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Withdrawing(at) | Self::Deregistering(at) | Self::Closing(at) => Some(at),
            Self::Staying | Self::Over => None,
        }
    }
}

impl Tunnel {
    /// Withdraws every answer and deregisters from every hub. Drive the engine until [`Self::is_shut_down`], at most
    /// a few seconds; paths are received from until the end.
    pub fn shutdown(&mut self, now: Instant) {
        self.clear_shortcuts(now, None);
        // What was answered is withdrawn while there is still a hub to carry that.
        self.node.withdraw(now, IpNet::V4(Ipv4Net::default()));
        self.node.withdraw(now, IpNet::V6(Ipv6Net::default()));
        self.with_node(|node, world| node.handle_timeout(now, world));
        self.farewell = Farewell::Withdrawing(now + WITHDRAWING);
        self.settle(now);
    }

    /// Is there nothing left to wait for after [`Self::shutdown`]?
    #[must_use]
    pub const fn is_shut_down(&self) -> bool {
        matches!(self.farewell, Farewell::Over)
    }

    /// The next step, if it is time. Answers whether it was.
    pub(crate) fn take_leave(&mut self, now: Instant) -> bool {
        let quiet = !self.node.is_purging();
        let next = match self.farewell {
            Farewell::Withdrawing(until) if quiet || now >= until => {
                self.node.deregister(now);
                self.with_node(|node, world| node.handle_timeout(now, world));
                Farewell::Deregistering(now + DEREGISTERING)
            }
            Farewell::Deregistering(until) if quiet || now >= until => match &mut self.gate {
                Some(gate) => {
                    gate.close_all(now);
                    Farewell::Closing(now + CLOSING)
                }
                None => Farewell::Over,
            },
            Farewell::Closing(until)
                if now >= until || self.gate.as_ref().is_none_or(|gate| gate.is_deserted()) =>
            {
                Farewell::Over
            }
            _ => return false,
        };
        self.farewell = next;
        true
    }
}
