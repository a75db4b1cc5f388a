//! Graceful restart (RFC 4724), as the one that helps: whose routes are kept, and for how long.
//!
//! When a peer's control process goes away, its TCP connections break without a NOTIFICATION; its datapath forwards on.
//! So its routes stay, marked stale, until it is back and has sent its table, or its restart time has passed. A hold
//! timer that expires is something else: the node is gone, and its routes go at once.
//!
//! As the one that restarts, [`crate::Speaker`] holds back its End-of-RIB until it has heard that of the neighbours it
//! expects, and then says [`crate::Event::Settled`], so that the kernel's routes are pruned no earlier.

use crate::config::Graceful;
use crate::event::DownReason;
use crate::family::Families;
use crate::session::Agreed;
use std::time::Duration;

/// The families whose routes are kept after a session ended, and for how long.
pub(crate) fn kept(reason: &DownReason, agreed: &Agreed, config: &Graceful) -> (Families, Duration) {
    //= rfc4724#4.2: routes are kept when the session ends without a NOTIFICATION
    let broke = matches!(reason, DownReason::Closed | DownReason::Replaced);
    match agreed.open.graceful {
        Some(graceful) if broke => {
            (agreed.families.and(graceful.families), graceful.restart_time.min(config.max_restart_time))
        }
        _ => (Families::NONE, Duration::ZERO),
    }
}

/// Those of the `stale` families that wait on for the End-of-RIB, now that the peer is back.
pub(crate) fn still_waiting(stale: Families, agreed: &Agreed) -> Families {
    //= rfc4724#4.2: without the capability, the family, or the F bit, stale routes are removed at once
    agreed.open.graceful.map_or(Families::NONE, |graceful| {
        stale.and(agreed.families).and(graceful.families).and(graceful.forwarding)
    })
}
