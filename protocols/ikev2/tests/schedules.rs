//! Random schedules: both ends begin, replace and replace again, at any moment, over a network that loses, doubles and
//! reorders. Whatever happens, it ends with one IKE SA and one child pair for each lane, and no packet is lost.
//!
//! `SCHEDULES=10000` runs more of them.

mod pair;

use pair::{A, B, Net, Pair, Side, config};
use rand::RngExt;
use std::time::Duration;

fn schedules() -> u64 {
    std::env::var("SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000)
}

fn some_side(pair: &mut Pair) -> Side {
    if pair.rng.random() { A } else { B }
}

fn pause(pair: &mut Pair) {
    let pause = pair.rng.random_range(0..400);
    pair.run(Duration::from_millis(pause));
}

/// Replaces something, at one end.
fn replace(pair: &mut Pair) {
    let side = some_side(pair);
    let path = pair.path(side);
    if pair.rng.random_range(0..3) == 0 {
        pair.call(side, |endpoint, now| endpoint.rekey_ike(now, path));
    } else {
        let spis: Vec<u32> = pair.end(side).outbound.values().map(|(spi, _)| *spi).collect();
        if !spis.is_empty() {
            let spi = spis[pair.rng.random_range(0..spis.len())];
            pair.call(side, |endpoint, now| endpoint.rekey_child(now, spi));
        }
    }
}

fn schedule(seed: u64) {
    let lanes = [1, 1, 2, 4][usize::try_from(seed % 4).unwrap()];
    let with_lanes = |side| {
        let mut config = config(side);
        (config.workers, config.lanes) = (lanes, lanes);
        config
    };
    let mut pair = Pair::with(seed, with_lanes(A), with_lanes(B));
    pair.net = Net { lost: pair.rng.random_range(0..20), ..Net::BAD };
    pair.connect(A);
    if pair.rng.random() {
        pause(&mut pair);
        pair.connect(B);
    }
    for _ in 0..pair.rng.random_range(3..10) {
        pause(&mut pair);
        for _ in 0..pair.rng.random_range(1..4) {
            replace(&mut pair);
        }
    }
    pair.net = Net::GOOD;
    pair.run_secs(150);
    pair.assert_settled(usize::from(lanes));
}

/// As above, and worse: processes crash, control restarts, NATs give another port, networks are away, ends leave. What
/// is lost meanwhile is nobody's fault; afterwards all is as it should be.
fn disrupted(seed: u64) {
    let lanes = [1, 1, 2, 3][usize::try_from(seed % 4).unwrap()];
    let with_lanes = |side| {
        let mut config = config(side);
        (config.workers, config.lanes) = (lanes, lanes);
        config
    };
    let mut pair = Pair::with(seed, with_lanes(A), with_lanes(B));
    pair.net = Net { lost: pair.rng.random_range(0..20), ..Net::BAD };
    let behind_nat = seed.is_multiple_of(3);
    pair.nat = behind_nat.then_some(40_000);
    pair.connect(A);
    for _ in 0..pair.rng.random_range(2..6) {
        let wait = pair.rng.random_range(0..3_000);
        pair.run(Duration::from_millis(wait));
        let side = some_side(&mut pair);
        match pair.rng.random_range(0..9) {
            0 | 1 => pair.crash(side, with_lanes(side)),
            2 | 3 => pair.restart_control(side, with_lanes(side)),
            4 if behind_nat => pair.nat = pair.nat.map(|port| port + 1),
            5 => {
                let path = pair.path(side);
                pair.call(side, |endpoint, now| endpoint.disconnect(now, path));
            }
            6 => {
                pair.cut = true;
                let away = pair.rng.random_range(0..60_000);
                pair.run(Duration::from_millis(away));
                pair.cut = false;
            }
            7 if !behind_nat => pair.connect(B),
            _ => replace(&mut pair),
        }
    }
    pair.net = Net::GOOD;
    pair.run_secs(250);
    pair.esp_lost = 0;
    pair.run_secs(100);
    pair.assert_settled(usize::from(lanes));
}

fn all(of: u64, schedule: fn(u64)) {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|n| n.parse().ok()) {
        return schedule(seed);
    }
    for seed in 0..of {
        let outcome = std::panic::catch_unwind(|| schedule(seed));
        assert!(outcome.is_ok(), "schedule {seed}: SEED={seed} TRACE=1 shows it alone");
    }
}

#[test]
fn any_schedule_ends_with_one_ike_sa_and_one_pair_for_each_lane_and_loses_nothing() {
    all(schedules(), schedule);
}

#[test]
fn any_disruption_is_recovered_from() {
    all(schedules() / 2, disrupted);
}
