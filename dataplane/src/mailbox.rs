//! From control to one worker: what only the owner of an SA can do. A worker looks once a round, by a flag.

use crate::sa::{InboundSa, OutboundSa};
use crate::transmit::Outer;
use packet::{Path, gre};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

/// What a worker is told to do.
pub enum Order {
    /// Receive by this SA too.
    AddInbound(Box<InboundSa>),
    /// No longer receive by it.
    RemoveInbound(u32),
    /// Send by this SA from now on.
    SetOutbound(Box<OutboundSa>),
    /// No longer send by it.
    RemoveOutbound(Path, u32),
    /// Send a control message of this protocol.
    Transmit(Path, Outer, gre::Protocol, Vec<u8>),
    /// Say that all before this is done.
    Report(Sender<()>),
}

/// Orders that wait for a worker.
#[derive(Default)]
pub struct Mailbox {
    orders: Mutex<Vec<Order>>,
    waiting: AtomicBool,
}

impl Mailbox {
    /// Leaves an order; the worker is to be woken after the last.
    pub fn post(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.waiting.store(true, Ordering::Release);
    }

    /// Takes all orders; nothing is locked when there are none.
    #[inline]
    pub fn take(&self) -> Option<Vec<Order>> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(false, Ordering::Release);
        Some(std::mem::take(&mut *orders))
    }
}
