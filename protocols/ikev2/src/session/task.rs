//! What requests of ours are for, and what is to be done next.

use crate::crypto::KeyPair;
use serde::{Deserialize, Serialize};

/// What an unanswered request of ours is for, and what its answer needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// IKE_AUTH.
    Auth,
    /// Does the peer live? Or: it shall know that we have its answer.
    Liveness,
    /// A further child SA.
    CreateChild(PendingChild),
    /// A child SA in place of the one that we receive by `old`.
    RekeyChild {
        /// Our SPI of the old one.
        old: u32,
        /// The new one.
        new: PendingChild,
    },
    /// A new IKE SA in place of the one that carries the request.
    RekeyIke(PendingIke),
    /// Deleting child SAs, named by our SPIs.
    DeleteChild(u32),
    /// Deleting the IKE SA that carries the request.
    DeleteIke,
}

/// A child SA that we have proposed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PendingChild {
    /// The worker it is for.
    pub lane: u16,
    /// Our SPI.
    pub inbound: u32,
    /// Our nonce.
    pub nonce: Vec<u8>,
    /// Our half of the secret. Never written down: after a restart what the peer has made of it is deleted.
    #[serde(skip)]
    pub pair: Option<KeyPair>,
}

/// An IKE SA that we have proposed in place of one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PendingIke {
    /// Our SPI.
    pub local: u64,
    /// Our nonce.
    pub nonce: Vec<u8>,
    /// Our half of the secret. Never written down: after a restart the session is replaced.
    #[serde(skip)]
    pub pair: Option<KeyPair>,
}

/// What is to be asked of the peer, as soon as the window is open. Never twice in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Delete the child SA that we receive by this SPI.
    DeleteChild(u32),
    /// Delete an IKE SA that was replaced, or made in vain.
    DeleteChannel(u64),
    /// Make a child SA for a lane.
    CreateChild(u16),
    /// Replace the child SA that we receive by this SPI.
    RekeyChild(u32),
    /// Replace the IKE SA.
    RekeyIke,
    /// Ask whether the peer lives.
    Liveness,
    /// Take leave.
    Close,
}
