//! What fits: the interface's MTU by configuration, a path's by what ICMP says of our own packets, and IP fragments
//! where the sender allows them.

use esp::Suite;
use packet::segment::Segments;
use packet::vnet::{self, Gso};
use packet::{Encapsulation, Instant, Malformed, Path};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a path is believed to be narrower than its link (RFC 1191 §6.3).
const BELIEVED: Duration = Duration::from_secs(600);

/// Nobody is believed who says less (Linux's `min_pmtu`, for the same reason).
const LEAST_V4: u16 = 552;
/// RFC 8200 §5.
const LEAST_V6: u16 = 1280;

/// The MTU of the path a peer is sent to by, as far as ICMP said one. Any worker may write it.
#[derive(Debug, Default)]
pub struct PathMtu {
    /// Octets of outer packet in the low 16 bits, milliseconds of the monotonic clock in the others; 0 is unknown.
    said: AtomicU64,
}

impl PathMtu {
    /// Octets of outer packet that fit, if that is known.
    #[inline]
    #[must_use]
    pub fn get(&self, now: Instant) -> Option<u16> {
        let said = self.said.load(Ordering::Relaxed);
        if said == 0 {
            return None;
        }
        let since = Duration::from_millis(said >> 16);
        let age = Duration::from_nanos(now.as_nanos()).saturating_sub(since);
        (age < BELIEVED).then_some((said & 0xffff) as u16)
    }

    /// What was said, for a successor on the same machine.
    #[must_use]
    pub fn state(&self) -> u64 {
        self.said.load(Ordering::Relaxed)
    }

    /// Takes over what was said.
    pub fn resume(&self, state: u64) {
        self.said.store(state, Ordering::Relaxed);
    }

    /// ICMP said so. Returns whether that is news.
    pub fn set(&self, path: Path, mtu: u32, now: Instant) -> Option<u16> {
        let least = if path.remote.is_ipv4() { LEAST_V4 } else { LEAST_V6 };
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).max(least);
        let news = self.get(now).is_none_or(|known| mtu < known);
        if news {
            let millis = (now.as_nanos() / 1_000_000).max(1);
            self.said.store(millis << 16 | u64::from(mtu), Ordering::Relaxed);
        }
        news.then_some(mtu)
    }
}

/// Octets of the longest inner packet whose outer packet has `outer` octets at most; `suite` is how it is sealed.
#[must_use]
pub fn inner(outer: u16, path: Path, key: Option<u32>, suite: Option<Suite>) -> u16 {
    let ip = if path.remote.is_ipv4() { 20 } else { 40 };
    let udp = match path.encapsulation {
        Encapsulation::Udp { .. } => 8,
        Encapsulation::Gre => 0,
    };
    let room = usize::from(outer).saturating_sub(ip + udp);
    let payload = suite.map_or(room, |suite| suite.largest_payload(room).unwrap_or(0));
    // No more than `outer`, which is a u16.
    payload.saturating_sub(packet::gre::encoded_len(key)) as u16
}

/// The packets of a frame, none longer than `mtu`.
///
/// # Errors
/// [`Cut::TooLong`] with the packets as they are, when they can't be cut that small: only TCP doesn't mind where its
/// stream is cut.
#[inline]
pub fn segments<'a>(
    vnet: &vnet::Header,
    frame: &'a [u8],
    l2_len: usize,
    mtu: u16,
) -> Result<Segments<'a>, Cut<'a>> {
    let segments = Segments::new(vnet, frame, l2_len)?;
    let longest = segments.next_len().unwrap_or(0);
    let Some(excess) = longest.checked_sub(usize::from(mtu)).filter(|excess| *excess > 0) else {
        return Ok(segments);
    };
    match usize::from(vnet.gso_size).checked_sub(excess) {
        Some(size @ 1..) if matches!(vnet.gso, Gso::TcpV4 | Gso::TcpV6) => {
            let smaller = vnet::Header { gso_size: size as u16, ..*vnet };
            Ok(Segments::new(&smaller, frame, l2_len)?)
        }
        _ => Err(Cut::TooLong(segments)),
    }
}

/// Why a frame is not cut.
#[derive(Debug)]
pub enum Cut<'a> {
    /// Its headers are wrong.
    Malformed(Malformed),
    /// It stands for packets that don't fit.
    TooLong(Segments<'a>),
}

impl From<Malformed> for Cut<'_> {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const NOW: Instant = Instant::from_nanos(5_000_000_000);

    fn path() -> Path {
        Path::udp(IpAddr::from([192, 0, 2, 1]), 4754)
    }

    #[test]
    fn a_smaller_mtu_is_news_once() {
        let mtu = PathMtu::default();
        assert_eq!(mtu.get(NOW), None);
        assert_eq!(mtu.set(path(), 1280, NOW), Some(1280));
        assert_eq!(mtu.set(path(), 1280, NOW), None);
        assert_eq!(mtu.set(path(), 1400, NOW), None);
        assert_eq!(mtu.get(NOW), Some(1280));
    }

    #[test]
    fn an_absurd_mtu_is_raised() {
        assert_eq!(PathMtu::default().set(path(), 68, NOW), Some(552));
        let path6 = Path::gre("2001:db8::1".parse().unwrap());
        assert_eq!(PathMtu::default().set(path6, 68, NOW), Some(1280));
    }

    #[test]
    fn what_was_said_is_forgotten() {
        let mtu = PathMtu::default();
        mtu.set(path(), 1280, NOW);
        assert_eq!(mtu.get(NOW + BELIEVED), None);
        assert_eq!(mtu.set(path(), 1400, NOW + BELIEVED), Some(1400));
    }

    #[test]
    fn the_overhead_counts_every_header() {
        let v4 = Path::gre(IpAddr::from([192, 0, 2, 1]));
        let v6 = Path::udp("2001:db8::1".parse().unwrap(), 1);
        assert_eq!(inner(1280, path(), None, None), 1280 - 32);
        assert_eq!(inner(1280, v4, Some(1), None), 1280 - 28);
        assert_eq!(inner(1280, v6, None, None), 1280 - 52);
    }

    #[test]
    fn esp_takes_what_its_padding_takes_too() {
        let v6 = Path::udp("2001:db8::1".parse().unwrap(), 1);
        for suite in Suite::ALL {
            for (path, outside) in [(path(), 28), (Path::gre(path().remote), 20), (v6, 48)] {
                for outer in 1280..1320 {
                    let payload = usize::from(inner(outer, path, Some(1), Some(suite))) + 8;
                    assert!(suite.sealed_len(payload) + outside <= usize::from(outer));
                    assert!(suite.sealed_len(payload + 1) + outside > usize::from(outer));
                }
            }
        }
    }
}
