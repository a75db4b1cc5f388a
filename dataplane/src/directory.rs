//! Control's account of a tunnel's SAs: which there are, who owns them, what they have done. The SAs themselves are
//! with the workers.

use crate::messages::{SaCounters, SaLimits};
use crate::owners::Owners;
use crate::sa::{InboundNumbers, InboundSa, OutboundNumbers, OutboundSa, Parked, SaStats, owner};
use esp::{BadKeys, Keys, Limits};
use packet::Path;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An SA to receive by.
struct Receiving {
    path: Path,
    /// Kept for a successor.
    keys: Keys,
    stats: Arc<SaStats>,
}

/// An SA to send by.
struct Sending {
    lane: u16,
    spi: u32,
    /// Kept for a successor.
    keys: Keys,
    stats: Arc<SaStats>,
}

/// The SAs of a tunnel without the numbers that change with every packet.
#[derive(Default, Serialize, Deserialize)]
pub struct Secrets {
    inbound: Vec<(Path, Keys)>,
    outbound: Vec<(Path, u16, Keys)>,
}

/// See the module.
#[derive(Default)]
pub struct Directory {
    inbound: BTreeMap<u32, Receiving>,
    /// By path and owner, of which each has one at most.
    outbound: BTreeMap<(Path, usize), Sending>,
}

/// Why an SA is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No SA can be made of these keys.
    #[error("{0}")]
    Keys(#[from] BadKeys),
    /// Two SAs of one SPI can't be told apart.
    #[error("there is an SA with SPI {0:08x} already")]
    Taken(u32),
    /// Its steering bits name no worker.
    #[error("SPI {0:08x} names a worker that does not exist")]
    NoWorker(u32),
}

impl Directory {
    /// Makes an SA to receive by, and says which worker is to have it.
    ///
    /// # Errors
    /// [`Refused`]; then it is not noted.
    pub fn add_inbound(
        &mut self,
        path: Path,
        keys: &Keys,
        workers: usize,
    ) -> Result<(usize, InboundSa), Refused> {
        if self.inbound.contains_key(&keys.spi) {
            return Err(Refused::Taken(keys.spi));
        }
        let to = owner(keys.spi, workers);
        if keys.spi as usize & (workers.next_power_of_two() - 1) != to {
            return Err(Refused::NoWorker(keys.spi));
        }
        let stats = Arc::<SaStats>::default();
        let sa = InboundSa::new(path, keys, stats.clone())?;
        self.inbound.insert(keys.spi, Receiving { path, keys: keys.clone(), stats });
        Ok((to, sa))
    }

    /// What a successor needs before it needs the numbers.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        let outbound = self.outbound.iter().map(|((path, _), sa)| (*path, sa.lane, sa.keys.clone()));
        Secrets {
            inbound: self.inbound.values().map(|sa| (sa.path, sa.keys.clone())).collect(),
            outbound: outbound.collect(),
        }
    }

    /// Makes the SAs of a predecessor that has stopped. One without its numbers is left out: better none than one that
    /// begins anew.
    ///
    /// # Errors
    /// What the keys lack.
    pub fn inherit(
        &mut self,
        secrets: Secrets,
        (inbound, outbound): (Vec<InboundNumbers>, Vec<OutboundNumbers>),
        workers: usize,
        owners: &mut Arc<Owners>,
    ) -> Result<Parked, BadKeys> {
        let mut parked = Parked::default();
        let mut by_spi: BTreeMap<u32, InboundNumbers> = inbound.into_iter().map(|n| (n.spi, n)).collect();
        for (path, keys) in secrets.inbound {
            let Some(numbers) = by_spi.remove(&keys.spi) else { continue };
            let (sa, stats) = InboundSa::resume(path, &keys, numbers)?;
            parked.park_inbound(sa);
            self.inbound.insert(keys.spi, Receiving { path, keys, stats });
        }
        let mut by_path: BTreeMap<(Path, u32), OutboundNumbers> =
            outbound.into_iter().map(|n| ((n.path, n.spi), n)).collect();
        for (path, lane, keys) in secrets.outbound {
            let Some(numbers) = by_path.remove(&(path, keys.spi)) else { continue };
            let (sa, stats) = OutboundSa::resume(lane, &keys, numbers)?;
            parked.park_outbound(sa);
            let to = usize::from(lane) % workers.max(1);
            Arc::make_mut(owners).set(path, to, keys.spi, keys.suite);
            self.outbound.insert((path, to), Sending { lane, spi: keys.spi, keys, stats });
        }
        Ok(parked)
    }

    /// Forgets an SA to receive by, and says which worker has it, if there is one.
    pub fn remove_inbound(&mut self, spi: u32, workers: usize) -> Option<usize> {
        self.inbound.remove(&spi).map(|_| owner(spi, workers))
    }

    /// Makes an SA to send by in place of the one before it, and says which worker is to have it.
    ///
    /// # Errors
    /// [`Refused::Keys`]; then it is not noted.
    pub fn set_outbound(
        &mut self,
        (path, lane): (Path, u16),
        keys: &Keys,
        soft: SaLimits,
        workers: usize,
        owners: &mut Arc<Owners>,
    ) -> Result<(usize, OutboundSa), Refused> {
        let to = usize::from(lane) % workers.max(1);
        // Also a control that wants never to be told is told before the SA is used up.
        let limits = Limits { packets: soft.packets, octets: soft.octets }.within(keys.suite, keys.esn);
        let soft = SaLimits { packets: limits.packets, octets: limits.octets };
        let stats = Arc::<SaStats>::default();
        let sa = OutboundSa::new((path, lane), keys, soft, stats.clone())?;
        self.outbound.insert((path, to), Sending { lane, spi: keys.spi, keys: keys.clone(), stats });
        Arc::make_mut(owners).set(path, to, keys.spi, keys.suite);
        Ok((to, sa))
    }

    /// Forgets an SA to send by, and says which worker has it, if it is still in use.
    pub fn remove_outbound(&mut self, path: Path, spi: u32, owners: &mut Arc<Owners>) -> Option<usize> {
        let range = (path, 0)..=(path, usize::MAX);
        let key = self.outbound.range(range).find(|(_, sa)| sa.spi == spi).map(|(key, _)| *key)?;
        self.outbound.remove(&key);
        Arc::make_mut(owners).remove(path, key.1);
        Some(key.1)
    }

    /// What each SA has done.
    #[must_use]
    pub fn counters(&self, workers: usize) -> Vec<SaCounters> {
        let inbound = self
            .inbound
            .iter()
            .map(|(spi, sa)| counters(*spi, false, sa.path, owner(*spi, workers), &sa.stats));
        let outbound =
            self.outbound.iter().map(|((path, to), sa)| counters(sa.spi, true, *path, *to, &sa.stats));
        inbound.chain(outbound).collect()
    }

    /// There are so many workers now: who owns which SA changes as [`crate::sa::Parked::distribute`] changes it.
    pub fn rehome(&mut self, workers: usize, owners: &mut Arc<Owners>) {
        let to = |sa: &Sending| usize::from(sa.lane) % workers.max(1);
        if self.outbound.iter().all(|((_, worker), sa)| *worker == to(sa)) {
            return;
        }
        let mut known = Owners::default();
        let mut before: Vec<_> = std::mem::take(&mut self.outbound).into_iter().collect();
        before.sort_by_key(|(_, sa)| std::cmp::Reverse(sa.lane));
        for ((path, worker), sa) in before {
            let Some(suite) = owners.suite_of(path, worker) else { continue };
            let to = to(&sa);
            known.set(path, to, sa.spi, suite);
            self.outbound.insert((path, to), sa);
        }
        *owners = Arc::new(known);
    }
}

fn counters(spi: u32, outbound: bool, path: Path, owner: usize, stats: &SaStats) -> SaCounters {
    let [sequence, packets, octets, replayed, forged] = stats.get();
    let owner = u16::try_from(owner).unwrap_or(u16::MAX);
    SaCounters { spi, outbound, path, owner, sequence, packets, octets, replayed, forged }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NO_LIMIT, keys, path};
    use esp::Suite;

    const SUITE: Suite = Suite::Aes128Gcm16;

    #[test]
    fn an_spi_is_one_sas_and_names_a_worker() {
        let mut directory = Directory::default();
        let mut add = |spi| directory.add_inbound(path(1), &keys(spi, SUITE), 3).map(|(to, _)| to).err();
        assert_eq!(add(0x1002), None);
        assert_eq!(add(0x1002), Some(Refused::Taken(0x1002)));
        assert_eq!(add(0x1003), Some(Refused::NoWorker(0x1003)));
        assert_eq!(add(12), Some(Refused::Keys(BadKeys::Spi)));
        assert_eq!(directory.remove_inbound(0x1002, 3), Some(2));
        assert_eq!(directory.remove_inbound(0x1002, 3), None);
    }

    #[test]
    fn what_was_replaced_is_not_taken_away_twice() {
        let (mut directory, mut owners) = (Directory::default(), Arc::default());
        for (lane, spi) in [(0, 0x1000), (1, 0x1001), (0, 0x2000)] {
            let keys = keys(spi, SUITE);
            directory.set_outbound((path(1), lane), &keys, NO_LIMIT, 2, &mut owners).unwrap();
        }
        assert_eq!(directory.remove_outbound(path(1), 0x1000, &mut owners), None);
        assert_eq!(directory.remove_outbound(path(2), 0x1001, &mut owners), None);
        let spis: Vec<_> = directory.counters(2).iter().map(|sa| (sa.owner, sa.spi)).collect();
        assert_eq!(spis, [(0, 0x2000), (1, 0x1001)]);
        assert_eq!(directory.remove_outbound(path(1), 0x2000, &mut owners), Some(0));
        assert_eq!(owners.owner(path(1), 0), Some(1));
    }

    #[test]
    fn fewer_workers_keep_the_lowest_lanes() {
        let (mut directory, mut owners) = (Directory::default(), Arc::default());
        for lane in 0..4 {
            let keys = keys(0x1000 + u32::from(lane), SUITE);
            directory.set_outbound((path(1), lane), &keys, NO_LIMIT, 4, &mut owners).unwrap();
        }
        directory.rehome(2, &mut owners);
        let spis: Vec<_> = directory.counters(2).iter().map(|sa| (sa.owner, sa.spi)).collect();
        assert_eq!(spis, [(0, 0x1000), (1, 0x1001)]);
        assert_eq!([0, 1].map(|worker| owners.owner(path(1), worker)), [Some(0), Some(1)]);
        assert!(owners.sends_by(path(1), 0x1001) && !owners.sends_by(path(1), 0x1003));
    }
}
