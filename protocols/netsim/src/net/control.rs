//! Control and its machine: everything it is told takes a moment, and everything it orders is done one after another.

use super::{Happening, Net};
use crate::station::{StationId, Step};
use crate::underlay::{Packet, WAKE};
use dmvpn::{Action, Input};
use packet::Instant;
use rand::RngExt;
use std::time::Duration;

/// How often the datapath tells which peers moved packets.
const ACTIVITY_EVERY: Duration = Duration::from_millis(100);

/// An engine that asks to be woken this often without time going on never comes to rest.
const SPIN: u32 = 10_000;

impl Net {
    /// The datapath tells control, which takes a moment.
    pub(super) fn punt(&mut self, id: StationId, input: Input) {
        let epoch = self.station(id).epoch;
        let at = self.now + WAKE.mul_f64(self.rng.random_range(0.2..2.0));
        self.queue.push(at, Happening::Told(id, epoch, Box::new(input)));
    }

    pub(super) fn tell(&mut self, id: StationId, input: Input) {
        let now = self.now;
        if let Some(tunnel) = &mut self.station_mut(id).tunnel {
            tunnel.handle_input(now, input);
            self.drain(id);
        }
    }

    pub(super) fn note_activity(&mut self, id: StationId) {
        let at = self.now + ACTIVITY_EVERY;
        let station = self.station_mut(id);
        if !station.reporting {
            station.reporting = true;
            self.queue.push(at, Happening::Activity(id));
        }
    }

    pub(super) fn activity(&mut self, id: StationId) {
        let station = self.station_mut(id);
        station.reporting = false;
        let active = station.datapath.take_activity();
        if !active.is_empty() {
            self.tell(id, Input::Activity(active));
        }
    }

    pub(super) fn timer(&mut self, id: StationId, at: Instant) {
        let now = self.now;
        let station = self.station_mut(id);
        if station.timer != Some(at) {
            return; // another moment was set since
        }
        station.timer = None;
        if let Some(tunnel) = &mut station.tunnel {
            tunnel.handle_timeout(now);
            self.drain(id);
        }
    }

    /// Takes over what the engine wants.
    pub(super) fn drain(&mut self, id: StationId) {
        let (now, checkpoints) = (self.now, self.checkpoints);
        let station = self.station_mut(id);
        let Some(tunnel) = &mut station.tunnel else { return };
        let mut ordered = false;
        while let Some(action) = tunnel.poll_action() {
            station.steps.push_back(Step::Do(action));
            ordered = true;
        }
        while let Some(event) = tunnel.poll_event() {
            station.events.push((now, event));
        }
        let wake = tunnel.poll_timeout().filter(|at| *at != Instant::NEVER).map(|at| at.max(now));
        if checkpoints && ordered {
            station.steps.push_back(Step::Keep(tunnel.checkpoint(now).to_vec()));
        }
        if wake != station.timer {
            station.timer = wake;
            if let Some(at) = wake {
                self.queue.push(at, Happening::Timer(id, at));
            }
        }
        if wake == Some(now) {
            self.watch_for_spinning(id);
        }
        self.step(id);
    }

    pub(super) fn watch_for_spinning(&mut self, id: StationId) {
        let (at, count) = self.spins;
        self.spins = if at == self.now { (at, count + 1) } else { (self.now, 1) };
        assert!(self.spins.1 < SPIN, "{} never comes to rest", self.station(id).name);
    }

    /// Begins the next step, if none is under way.
    pub(super) fn step(&mut self, id: StationId) {
        let station = self.station_mut(id);
        if station.stepping || station.steps.is_empty() {
            return;
        }
        station.stepping = true;
        let epoch = station.epoch;
        let took = Duration::from_micros(self.rng.random_range(10..200));
        self.queue.push(self.now + took, Happening::Stepped(id, epoch));
    }

    pub(super) fn stepped(&mut self, id: StationId) {
        let station = self.station_mut(id);
        station.stepping = false;
        match station.steps.pop_front() {
            Some(Step::Do(Action::Transmit { path, protocol, payload })) => {
                let packet = Packet { bytes: payload, journey: None };
                self.transmit(id, path, Some(protocol), packet);
            }
            Some(Step::Do(Action::TransmitIke(transmit))) => self.transmit_ike(id, transmit),
            Some(step) => station.carry_out(step),
            None => {}
        }
        self.step(id);
    }
}
