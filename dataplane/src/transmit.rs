//! What is to be sent to the underlay, gathered over a batch: outer payloads one behind the other in one buffer, and
//! runs of equal ones to the same path, each run one super-frame.
//!
//! This is the only way of an overlay packet to the underlay, and [`Transmit::gather`] the only way into it: in an
//! encrypted tunnel it seals, or nothing is gathered.

use crate::sa::{MAX_OVERHEAD, NotSealed, Outbound, Sealed};
use linux_io::offload::udp_segment::{MAX_OCTETS, MAX_SEGMENTS};
use packet::Path;

/// Octets that may be gathered before they must be sent: two super-frames with their headers, which stay in the cache
/// of most processors.
const CAPACITY: usize = 2 * 66_000;

/// The most runs gathered.
const MAX_RUNS: usize = 64;

/// Packets of one size to one path: what one segmented send takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where to.
    pub path: Path,
    /// What its outer headers say.
    pub outer: Outer,
    /// First octet in the buffer.
    pub start: usize,
    /// One behind the last octet.
    pub end: usize,
    /// Octets of each packet; the last may be shorter.
    pub segment: usize,
}

/// What of the outer header depends on the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// DSCP and ECN.
    pub tos: u8,
    /// May routers fragment it? No, but for what can't be helped otherwise.
    pub fragmentable: bool,
}

impl Outer {
    /// With this DSCP and ECN, not to be fragmented.
    #[must_use]
    pub const fn with_tos(tos: u8) -> Self {
        Self { tos, fragmentable: false }
    }
}

impl Run {
    /// How many packets it holds.
    #[must_use]
    pub const fn packets(&self) -> usize {
        (self.end - self.start).div_ceil(self.segment)
    }

    /// Is its last packet as long as the others, so that another may follow?
    const fn is_open(&self) -> bool {
        (self.end - self.start).is_multiple_of(self.segment)
    }
}

/// How what leaves is protected, for the life of a worker.
pub enum Wire {
    /// Not at all.
    Clear,
    /// By these SAs, or it does not leave.
    Sealed(Outbound),
}

/// The gathered packets.
pub struct Transmit {
    wire: Wire,
    buffer: Vec<u8>,
    used: usize,
    runs: Vec<Run>,
}

impl Transmit {
    /// Nothing yet.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        Self { wire, buffer: vec![0; CAPACITY], used: 0, runs: Vec::with_capacity(MAX_RUNS) }
    }

    /// Does nothing leave in clear?
    #[inline]
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.wire, Wire::Sealed(_))
    }

    /// The SAs, if the tunnel is encrypted.
    pub const fn sas(&mut self) -> Option<&mut Outbound> {
        match &mut self.wire {
            Wire::Clear => None,
            Wire::Sealed(outbound) => Some(outbound),
        }
    }

    /// Gives the SAs back.
    #[must_use]
    pub fn into_sas(self) -> Option<Outbound> {
        match self.wire {
            Wire::Clear => None,
            Wire::Sealed(outbound) => Some(outbound),
        }
    }

    /// Can a payload of `octets` more be gathered?
    #[inline]
    #[must_use]
    pub fn has_room(&self, octets: usize) -> bool {
        self.used + octets + MAX_OVERHEAD <= CAPACITY && self.runs.len() < MAX_RUNS
    }

    /// Is there nothing to send?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Gathers one outer payload: `write` puts `length` octets where they belong, and they are sealed there.
    ///
    /// # Errors
    /// Then nothing is gathered.
    #[inline]
    pub fn gather(
        &mut self,
        path: Path,
        outer: Outer,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<Sealed, NotSealed> {
        let room = self.buffer.get_mut(self.used..).unwrap_or_default();
        let sealed = match &mut self.wire {
            Wire::Clear => {
                write(room.get_mut(..length).ok_or(NotSealed::NoRoom)?);
                Sealed { length, at_limit: None }
            }
            Wire::Sealed(outbound) => outbound.seal(path, room, length, write)?,
        };
        self.commit(path, outer, sealed.length);
        Ok(sealed)
    }

    /// Takes the next `length` octets of the buffer as one packet.
    #[inline]
    fn commit(&mut self, path: Path, outer: Outer, length: usize) {
        if length == 0 || length > self.buffer.len() - self.used {
            return;
        }
        let start = self.used;
        self.used += length;
        if let Some(run) = self.runs.last_mut() {
            let same = run.path == path && run.outer == outer;
            let fits = length <= run.segment && run.is_open() && run.packets() < MAX_SEGMENTS;
            if same && fits && self.used - run.start <= MAX_OCTETS {
                run.end = self.used;
                return;
            }
        }
        self.runs.push(Run { path, outer, start, end: self.used, segment: length });
    }

    /// What was gathered.
    #[must_use]
    pub fn gathered(&self) -> (&[u8], &[Run]) {
        (&self.buffer[..self.used], &self.runs)
    }

    /// Forgets what was gathered: it has been sent.
    pub fn clear(&mut self) {
        self.used = 0;
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn path(last: u8) -> Path {
        Path::udp(IpAddr::from([192, 0, 2, last]), 4754)
    }

    #[test]
    fn without_an_sa_nothing_is_gathered_in_an_encrypted_tunnel() {
        let mut transmit = Transmit::new(Wire::Sealed(Outbound::default()));
        let refused = transmit.gather(path(1), Outer::with_tos(0), 100, |_| panic!("written"));
        assert_eq!((refused, transmit.is_empty()), (Err(NotSealed::NoSa), true));
    }

    fn runs(commits: &[(u8, usize)]) -> Vec<(usize, usize, usize)> {
        let mut transmit = Transmit::new(Wire::Clear);
        for &(to, length) in commits {
            transmit.gather(path(to), Outer::with_tos(0), length, |room| room.fill(1)).unwrap();
        }
        transmit.gathered().1.iter().map(|run| (run.start, run.end, run.segment)).collect()
    }

    #[test]
    fn equal_packets_to_one_path_are_one_run() {
        assert_eq!(runs(&[(1, 100), (1, 100), (1, 60)]), [(0, 260, 100)]);
    }

    #[test]
    fn a_short_packet_ends_a_run() {
        assert_eq!(runs(&[(1, 100), (1, 60), (1, 60)]), [(0, 160, 100), (160, 220, 60)]);
    }

    #[test]
    fn a_longer_packet_begins_a_run() {
        assert_eq!(runs(&[(1, 60), (1, 100)]), [(0, 60, 60), (60, 160, 100)]);
    }

    #[test]
    fn another_path_begins_a_run() {
        assert_eq!(runs(&[(1, 100), (2, 100)]), [(0, 100, 100), (100, 200, 100)]);
    }

    #[test]
    fn no_run_is_longer_than_a_send() {
        assert_eq!(runs(&[(1, 1000); 70]), [(0, 64_000, 1000), (64_000, 70_000, 1000)]);
        assert_eq!(runs(&[(1, 1400); 50]), [(0, 64_400, 1400), (64_400, 70_000, 1400)]);
    }
}
