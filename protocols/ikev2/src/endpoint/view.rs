//! Sessions, as people see them.

use crate::SessionView;
use crate::event::ChildView;
use crate::session::Session;
use crate::session::child::Fate;

pub(super) fn of(session: &Session) -> SessionView {
    let base = &session.base;
    let established = session.established();
    let channel = established.and_then(|e| e.channels.iter().find(|c| c.local == e.current));
    SessionView {
        path: base.path,
        identity: established.map(|e| e.identity.clone()),
        remote_id: established.map(|e| e.remote_id.clone()),
        initiator: base.initiator,
        spis: channel.map_or_else(|| session.state.spis(), |c| c.spis()),
        state: session.state.name(),
        ike: channel.map(|c| c.keys.suite.to_string()),
        established: established.map(|e| e.at),
        rekeyed: established.and_then(|e| e.rekeyed),
        nat: established.map_or((false, false), |e| (e.nat.peer, e.nat.us)),
        children: established
            .into_iter()
            .flat_map(|e| &e.children)
            .filter(|c| c.fate != Fate::Draining)
            .map(|c| ChildView {
                inbound: c.inbound,
                outbound: c.outbound,
                suite: c.suite,
                esn: c.esn,
                lane: c.lane,
                installed: c.installed,
                rekey_at: c.rekey_at,
            })
            .collect(),
    }
}
