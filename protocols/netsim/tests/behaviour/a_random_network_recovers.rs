use crate::common::*;
use dmvpn::Phase;
use netsim::{FlowId, Link, NatKind, Net, StationId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::net::IpAddr;
use std::time::Duration;

/// How many networks are tried; more by `SEEDS` in the environment.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok());
    0..count.unwrap_or(4)
}

/// A network that nobody thought of.
struct Random {
    rng: StdRng,
    net: Net,
    hubs: Vec<StationId>,
    spokes: Vec<StationId>,
    /// Those not behind a translator.
    movable: Vec<StationId>,
    /// What was done, for whoever has to find out.
    story: Vec<String>,
}

impl Random {
    fn new(seed: u64, phases: &[Phase], loss: f64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut net = network(seed, phases[rng.random_range(0..phases.len())]);
        let (latency, jitter) = (rng.random_range(5..60), rng.random_range(0..20));
        let link = Link::latency_ms(latency).jitter_ms(jitter).loss(loss);
        net.set_default_link(Link { reordering: 0.02, ..link });
        let hubs: Vec<_> = (0..rng.random_range(1..3)).map(|i| net.hub(&format!("hub{i}"))).collect();
        let kinds = [NatKind::PortPreserving, NatKind::Symmetric, NatKind::EndpointIndependent];
        let shared = net.nat(kinds[rng.random_range(0..3)]);
        let mut random = Self { rng, net, hubs, spokes: Vec::new(), movable: Vec::new(), story: Vec::new() };
        for i in 0..random.rng.random_range(3..6) {
            let (name, hubs) = (format!("spoke{i}"), random.hubs.clone());
            let spoke = match random.rng.random_range(0..5) {
                0 => random.net.spoke_behind(&name, shared, &hubs),
                1 => {
                    let nat = random.net.nat(kinds[random.rng.random_range(0..3)]);
                    random.net.spoke_behind(&name, nat, &hubs)
                }
                _ => {
                    let spoke = random.net.spoke(&name, &hubs);
                    random.movable.push(spoke);
                    spoke
                }
            };
            random.spokes.push(spoke);
        }
        let holding_time = secs(random.pick(&[20, 60, 600]));
        let idle_timeout = secs(random.pick(&[3, 10, 60]));
        for id in random.all() {
            random.net.configure(id, |c| {
                c.nhrp.holding_time = holding_time;
                c.idle_timeout = idle_timeout;
            });
        }
        random.net.run_for(secs(5));
        // What a routing protocol would do: every hub knows the way to every spoke.
        for hub in random.hubs.clone().into_iter().skip(1) {
            for spoke in random.spokes.clone() {
                let lan = random.net.lan(spoke);
                random.net.set_route_via(hub, lan, spoke);
            }
        }
        random.net.run_for(secs(5));
        random
    }

    fn all(&self) -> Vec<StationId> {
        self.hubs.iter().chain(&self.spokes).copied().collect()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    /// Two different spokes.
    fn pair(&mut self) -> (StationId, StationId) {
        let spokes = self.spokes.clone();
        let first = self.rng.random_range(0..spokes.len());
        let second = (first + self.rng.random_range(1..spokes.len())) % spokes.len();
        (spokes[first], spokes[second])
    }

    fn wait(&mut self, most: Duration) {
        let part = self.rng.random_range(0.0..1.0);
        self.net.run_for(most.mul_f64(part));
    }

    fn note(&mut self, what: String) {
        self.story.push(format!("{:?} {what}", self.net.now()));
    }

    #[track_caller]
    fn end(&mut self, seed: u64, (flow, from, to): (FlowId, StationId, StationId)) {
        let report = self.net.finish(flow);
        let story = &self.story;
        assert!(report.is_whole(), "seed {seed}, {from:?} to {to:?}: {report:#?}\n{story:#?}");
    }
}

/// Shortcuts form, are renewed, go idle and come back, control processes die and return, all of it at any moment: not a
/// packet is lost in any network.
#[test]
fn planned_changes_lose_nothing_in_any_network() {
    for seed in seeds() {
        let mut random = Random::new(seed, &BOTH, 0.0);
        let mut flows = Vec::new();
        for _ in 0..25 {
            match random.rng.random_range(0..5) {
                0 | 1 => {
                    let (from, to) = random.pair();
                    let rate = random.pick(&[2, 20, 100]);
                    flows.push((random.net.flow(from, to, rate), from, to));
                    random.note(format!("{from:?} sends to {to:?}"));
                }
                2 if !flows.is_empty() => {
                    let at = random.rng.random_range(0..flows.len());
                    let flow = flows.swap_remove(at);
                    random.end(seed, flow);
                }
                3 => {
                    let all = random.all();
                    let victim = random.pick(&all);
                    random.note(format!("control of {victim:?} is killed"));
                    random.net.kill_control(victim);
                    random.wait(ms(1500));
                    random.net.restart_control(victim);
                }
                _ => random.wait(secs(20)),
            }
            random.wait(secs(2));
        }
        for flow in flows {
            random.end(seed, flow);
        }
        let all = random.all();
        sane(&mut random.net, &all);
    }
}

/// Links are cut, stations lose their power and boot again, spokes move: once that is over, everybody reaches everybody,
/// and nothing ever went round.
#[test]
fn whatever_happened_everybody_is_reached_again() {
    for seed in seeds() {
        let mut random = Random::new(seed, &[Phase::One, Phase::Two, Phase::Three], 0.02);
        for _ in 0..6 {
            let (from, to) = random.pair();
            random.net.flow(from, to, 5);
        }
        let all = random.all();
        for round in 0..20u8 {
            let (x, y) = (random.pick(&all), random.pick(&all));
            match random.rng.random_range(0..5) {
                0 | 1 if x != y => {
                    random.net.cut(x, y);
                    random.note(format!("nothing passes between {x:?} and {y:?}"));
                }
                2 if x != y => random.net.mend(x, y),
                3 => {
                    random.note(format!("{x:?} loses its power"));
                    random.net.power_off(x);
                    random.wait(secs(20));
                    random.net.power_on(x);
                }
                _ if !random.movable.is_empty() => {
                    let movable = random.movable.clone();
                    let who = random.pick(&movable);
                    random.net.move_to(who, IpAddr::from([203, 0, 113, round]));
                    random.note(format!("{who:?} moves"));
                }
                _ => {}
            }
            random.wait(secs(8));
        }
        for x in &all {
            for y in all.iter().filter(|y| *y != x) {
                random.net.set_link(*x, *y, Link::latency_ms(20));
            }
        }
        random.note("everything works again".into());
        random.net.run_for(secs(140));
        let mut flows = Vec::new();
        for from in random.spokes.clone() {
            for to in random.spokes.clone().into_iter().filter(|to| *to != from) {
                flows.push((random.net.flow(from, to, 10), from, to));
            }
        }
        random.net.run_for(secs(15));
        for flow in flows {
            random.end(seed, flow);
        }
        sane(&mut random.net, &all);
    }
}
