//! What every worker knows of the SAs that others own: who sends for a path, and by which SPIs.

use esp::Suite;
use packet::Path;
use std::collections::HashMap;
use std::sync::Arc;

/// The workers that have an SA for each path.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    // Copied whenever anything changes.
    by_path: HashMap<Path, Arc<[Owner]>>,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    worker: usize,
    spi: u32,
    suite: Suite,
}

impl Owners {
    /// The worker that seals what worker `asking` has for this path: itself if it can, and always the same one, so
    /// that a flow keeps its order.
    #[must_use]
    pub fn owner(&self, path: Path, asking: usize) -> Option<usize> {
        let owners = self.by_path.get(&path)?;
        let own = owners.iter().find(|owner| owner.worker == asking);
        let other = || owners.get(asking.checked_rem(owners.len())?);
        own.or_else(other).map(|owner| owner.worker)
    }

    /// How packets by this path are sealed.
    #[must_use]
    pub fn suite(&self, path: Path) -> Option<Suite> {
        // One that is worse to fit into stands for all.
        self.by_path.get(&path)?.iter().map(|owner| owner.suite).max_by_key(|suite| suite.overhead())
    }

    /// How one worker's packets by this path are sealed.
    #[must_use]
    pub fn suite_of(&self, path: Path, worker: usize) -> Option<Suite> {
        self.by_path.get(&path)?.iter().find(|owner| owner.worker == worker).map(|owner| owner.suite)
    }

    /// Do we send by this SPI there?
    #[must_use]
    pub fn sends_by(&self, path: Path, spi: u32) -> bool {
        self.by_path.get(&path).is_some_and(|owners| owners.iter().any(|owner| owner.spi == spi))
    }

    /// Worker `worker` sends by this SPI from now on.
    pub fn set(&mut self, path: Path, worker: usize, spi: u32, suite: Suite) {
        let mut owners = self.others(path, worker);
        let place = owners.partition_point(|owner| owner.worker < worker);
        owners.insert(place, Owner { worker, spi, suite });
        self.by_path.insert(path, owners.into());
    }

    /// Worker `worker` has no SA for this path any more.
    pub fn remove(&mut self, path: Path, worker: usize) {
        let owners = self.others(path, worker);
        if owners.is_empty() {
            self.by_path.remove(&path);
        } else {
            self.by_path.insert(path, owners.into());
        }
    }

    fn others(&self, path: Path, worker: usize) -> Vec<Owner> {
        let owners = self.by_path.get(&path).map(Arc::as_ref).unwrap_or_default();
        owners.iter().filter(|owner| owner.worker != worker).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite::Aes128Gcm16;

    fn path() -> Path {
        Path::gre([192, 0, 2, 1].into())
    }

    #[test]
    fn a_worker_without_an_sa_always_asks_the_same_one() {
        let mut owners = Owners::default();
        assert_eq!(owners.owner(path(), 0), None);
        owners.set(path(), 3, 1000, SUITE);
        owners.set(path(), 1, 1001, SUITE);
        let asked = [0, 1, 2, 3, 4].map(|worker| owners.owner(path(), worker));
        assert_eq!(asked, [1, 1, 1, 3, 1].map(Some));
        owners.remove(path(), 1);
        assert_eq!(owners.owner(path(), 1), Some(3));
        owners.remove(path(), 3);
        assert_eq!((owners.owner(path(), 3), owners.by_path.len()), (None, 0));
    }

    #[test]
    fn only_the_spis_in_use_are_ours() {
        let mut owners = Owners::default();
        owners.set(path(), 0, 1000, SUITE);
        owners.set(path(), 0, 2000, Suite::Aes256CbcSha256);
        assert_eq!([1000, 2000].map(|spi| owners.sends_by(path(), spi)), [false, true]);
        assert_eq!(owners.suite(path()), Some(Suite::Aes256CbcSha256));
    }
}
