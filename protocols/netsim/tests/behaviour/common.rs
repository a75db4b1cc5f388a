//! Networks that several tests begin with.

use dmvpn::{Event, Phase};
use netsim::{Link, Net, Report, StationId};
use packet::Instant;
use std::time::Duration;

pub(crate) const BOTH: [Phase; 2] = [Phase::Two, Phase::Three];

/// A network in the mode of this run.
pub(crate) fn network(seed: u64, phase: Phase) -> Net {
    let net = Net::new(seed, phase);
    if crate::ENCRYPTED { net.with_encryption() } else { net }
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A hub and two spokes: 30 ms to the hub, 20 ms between the spokes, 5 ms jitter. So 60 ms by the hub, 20 directly.
pub(crate) struct Triangle {
    pub(crate) net: Net,
    pub(crate) hub: StationId,
    pub(crate) a: StationId,
    pub(crate) b: StationId,
}

impl Triangle {
    /// Registered, and with no shortcut yet.
    pub(crate) fn new(seed: u64, phase: Phase) -> Self {
        let mut triangle = Self::unregistered(network(seed, phase));
        triangle.register();
        triangle
    }

    pub(crate) fn unregistered(mut net: Net) -> Self {
        net.set_default_link(Link::latency_ms(30).jitter_ms(5));
        let hub = net.hub("hub");
        let a = net.spoke("a", &[hub]);
        let b = net.spoke("b", &[hub]);
        net.set_link(a, b, Link::latency_ms(20).jitter_ms(5));
        Self { net, hub, a, b }
    }

    pub(crate) fn register(&mut self) {
        let (a, b) = (self.a, self.b);
        let done = self.net.run_until(secs(10), |net| [a, b].into_iter().all(|id| is_registered(net, id)));
        assert!(done, "the spokes register");
        self.net.run_for(secs(1));
    }

    /// Traffic both ways until it goes directly both ways; nothing may be lost.
    pub(crate) fn form_shortcut(&mut self) {
        let there = self.net.flow(self.a, self.b, 100);
        let back = self.net.flow(self.b, self.a, 100);
        let direct = |net: &Net| [there, back].iter().all(|f| net.is_direct(*f));
        assert!(self.net.run_until(secs(10), direct), "a shortcut forms");
        for flow in [there, back] {
            whole(&self.net.finish(flow));
        }
    }
}

pub(crate) fn is_registered(net: &Net, id: StationId) -> bool {
    net.told(id, Instant::ZERO, |event| matches!(event, Event::HubUp { .. }))
}

/// Nothing lost, nothing twice.
#[track_caller]
pub(crate) fn whole(report: &Report) {
    assert!(report.is_whole(), "{report:#?}");
}

/// No packet came to a station where it had been, and these machines are as their engines believe.
#[track_caller]
pub(crate) fn sane(net: &mut Net, stations: &[StationId]) {
    assert!(net.loops().is_empty(), "loops: {:?}", net.loops());
    for id in stations {
        assert!(net.run_until(secs(1), |net| net.differences(*id).is_some()), "{id:?} is never done");
        assert_eq!(net.differences(*id), Some(vec![]), "{id:?} differs from what its engine believes");
    }
}

pub(crate) fn is_shortcut_down(event: &Event) -> bool {
    matches!(event, Event::ShortcutDown { .. })
}

pub(crate) fn is_shortcut_up(event: &Event) -> bool {
    matches!(event, Event::ShortcutUp { .. })
}
