//! SAs in a station's datapath: which path they belong to, and nothing of their keys.

use dmvpn::Input;
use esp::Keys;
use packet::{Instant, Path};
use std::collections::HashMap;
use std::time::Duration;

/// The datapath tells of the same unknown SPI, or of the same move, no oftener than this.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// The SAs of an encrypted tunnel.
#[derive(Default)]
pub(crate) struct Sas {
    inbound: HashMap<u32, Path>,
    outbound: HashMap<Path, Outbound>,
    told: HashMap<(u32, Path), Instant>,
}

struct Outbound {
    spi: u32,
    /// Packets and octets.
    sent: (u64, u64),
    soft: (u64, u64),
    told: bool,
}

impl Sas {
    pub(crate) fn add_inbound(&mut self, path: Path, keys: &Keys) {
        self.inbound.insert(keys.spi, path);
    }

    pub(crate) fn remove_inbound(&mut self, spi: u32) {
        self.inbound.remove(&spi);
    }

    pub(crate) fn set_outbound(&mut self, path: Path, keys: &Keys, soft: (u64, u64)) {
        self.outbound.insert(path, Outbound { spi: keys.spi, sent: (0, 0), soft, told: false });
    }

    pub(crate) fn remove_outbound(&mut self, path: Path, spi: u32) {
        if self.outbound.get(&path).is_some_and(|sa| sa.spi == spi) {
            self.outbound.remove(&path);
        }
    }

    /// The SPI to send with, and what control is told.
    pub(crate) fn seal(&mut self, path: Path, octets: usize) -> Option<(u32, Option<Input>)> {
        let sa = self.outbound.get_mut(&path)?;
        sa.sent = (sa.sent.0 + 1, sa.sent.1 + octets as u64);
        let worn = sa.sent.0 >= sa.soft.0 || sa.sent.1 >= sa.soft.1;
        let tell =
            (worn && !std::mem::replace(&mut sa.told, worn)).then_some(Input::SaLimit { path, spi: sa.spi });
        Some((sa.spi, tell))
    }

    /// The path that a packet which came by `path` counts for, and what control is told.
    pub(crate) fn open(&mut self, now: Instant, spi: u32, path: Path) -> (Option<Path>, Option<Input>) {
        let (own, news) = match self.inbound.get(&spi).copied() {
            Some(own) if own == path => return (Some(own), None),
            Some(own) => (Some(own), Input::SaMoved { spi, path }),
            None => (None, Input::UnknownSpi { path, spi }),
        };
        let told = self.told.get(&(spi, path)).is_some_and(|at| now.since(*at) < TOLD_EVERY);
        if told {
            return (own, None);
        }
        self.told.insert((spi, path), now);
        (own, Some(news))
    }

    /// How many of each direction there are.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.inbound.len(), self.outbound.len())
    }
}
