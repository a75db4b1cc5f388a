//! The path attributes of a route (RFC 4271 §5), as values.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// How the prefix came into BGP (RFC 4271 §5.1.1). The lower is preferred.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// From inside the AS.
    Igp,
    /// By EGP.
    Egp,
    /// Otherwise.
    Incomplete,
}

/// A part of an AS path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Segment {
    /// One after the other, the latest first.
    Sequence(Vec<u32>),
    /// Any of these (RFC 6472 discourages it; accepted).
    Set(Vec<u32>),
}

/// An AS path (RFC 4271 §5.1.2), the latest AS first.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct AsPath(pub Vec<Segment>);

/// The attributes of a route.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// NEXT_HOP, or the one of MP_REACH_NLRI.
    pub next_hop: IpAddr,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<(u32, Ipv4Addr)>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<u32>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), the latest first.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Optional transitive attributes that we only carry.
    pub(crate) carried: Vec<Carried>,
}

/// An optional transitive attribute that we don't interpret (RFC 4271 §5).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Carried {
    pub(crate) code: u8,
    pub(crate) partial: bool,
    pub(crate) value: Box<[u8]>,
}

impl Attributes {
    /// Of a prefix of our own.
    pub(crate) const fn local(next_hop: IpAddr) -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath(Vec::new()),
            next_hop,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            carried: Vec::new(),
        }
    }

    pub(crate) fn has_community(&self, community: u32) -> bool {
        self.communities.contains(&community)
    }
}

impl Segment {
    fn numbers(&self) -> &[u32] {
        match self {
            Self::Sequence(numbers) | Self::Set(numbers) => numbers,
        }
    }

    fn numbers_mut(&mut self) -> &mut [u32] {
        match self {
            Self::Sequence(numbers) | Self::Set(numbers) => numbers,
        }
    }
}

impl AsPath {
    /// A path of one sequence.
    #[must_use]
    pub fn sequence(numbers: &[u32]) -> Self {
        if numbers.is_empty() { Self::default() } else { Self(vec![Segment::Sequence(numbers.to_vec())]) }
    }

    /// Its length as the decision counts it: a set is one (RFC 4271 §9.1.2.2).
    #[must_use]
    pub fn len(&self) -> usize {
        self.0
            .iter()
            .map(|segment| match segment {
                Segment::Sequence(numbers) => numbers.len(),
                Segment::Set(_) => 1,
            })
            .sum()
    }

    /// Does it hold nothing (a route of our own AS)?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is the AS in it?
    #[must_use]
    pub fn contains(&self, asn: u32) -> bool {
        self.iter().any(|number| number == asn)
    }

    /// All numbers, the latest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.0.iter().flat_map(|segment| segment.numbers().iter().copied())
    }

    /// The AS that we had it from.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        match self.0.first()? {
            Segment::Sequence(numbers) => numbers.first().copied(),
            Segment::Set(_) => None,
        }
    }

    /// RFC 4271 §5.1.2: as a route leaves the AS.
    pub(crate) fn prepend(&mut self, asn: u32) {
        match self.0.first_mut() {
            // A segment counts its numbers in one octet.
            Some(Segment::Sequence(numbers)) if numbers.len() < 255 => numbers.insert(0, asn),
            _ => self.0.insert(0, Segment::Sequence(vec![asn])),
        }
    }

    /// Replaces `asn` by `by` where the path began: all of its last occurrences in a row.
    pub(crate) fn override_origin(&mut self, asn: u32, by: u32) {
        for segment in self.0.iter_mut().rev() {
            for number in segment.numbers_mut().iter_mut().rev() {
                if *number != asn {
                    return;
                }
                *number = by;
            }
        }
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for segment in &self.0 {
            let (open, close) = if matches!(segment, Segment::Set(_)) { ("{", "}") } else { ("", "") };
            write!(f, "{gap}{open}")?;
            for (i, number) in segment.numbers().iter().enumerate() {
                write!(f, "{}{number}", if i == 0 { "" } else { " " })?;
            }
            write!(f, "{close}")?;
            gap = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_counts_once() {
        let path = AsPath(vec![Segment::Sequence(vec![1, 2]), Segment::Set(vec![3, 4, 5])]);
        assert_eq!(path.len(), 3);
        assert_eq!(path.to_string(), "1 2 {3 4 5}");
        assert_eq!(path.first(), Some(1));
    }

    #[test]
    fn a_full_segment_is_not_overfilled() {
        let mut path = AsPath::sequence(&[7; 255]);
        path.prepend(8);
        assert_eq!(path.0.len(), 2);
        assert_eq!(path.len(), 256);
    }

    #[test]
    fn only_where_the_path_began_is_replaced() {
        let mut path = AsPath::sequence(&[65010, 65001, 65010, 65010]);
        path.override_origin(65010, 65000);
        assert_eq!(path, AsPath::sequence(&[65010, 65001, 65000, 65000]));
        path.override_origin(65010, 65000);
        assert_eq!(path, AsPath::sequence(&[65010, 65001, 65000, 65000]));
    }
}
