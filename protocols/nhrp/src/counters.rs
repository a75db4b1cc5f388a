//! What is counted: messages by type, drops by reason.

use crate::Error;
use crate::packet::MessageType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counts since the station came to be; kept over a restart from a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Messages received that could be decoded.
    pub received: BTreeMap<MessageType, u64>,
    /// Messages sent.
    pub sent: BTreeMap<MessageType, u64>,
    /// Messages dropped.
    pub dropped: BTreeMap<Error, u64>,
}

pub(crate) fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let count = counts.entry(key).or_insert(0);
    *count = count.saturating_add(1);
}
