//! What control wants of a tunnel's SAs, and the way to the workers that have them.

use super::{CONTROL_TOS, Error, Tunnel};
use crate::mailbox::Order;
use crate::messages::{SaCounters, SaLimits, TunnelSettings};
use crate::worker::Handle;
use esp::Keys;
use linux_io::{Outgoing, udp};
use packet::Path;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How long a worker may take to do what control wants; it takes a millisecond.
const OBEDIENCE: Duration = Duration::from_secs(5);

const EMSGSIZE: i32 = 90;

impl Tunnel {
    /// Sends an IKE message, behind the marker that tells it from ESP where they share a port; or a NAT keepalive.
    ///
    /// # Errors
    /// [`Error::NoIkeSocket`], or what the kernel says.
    pub fn transmit_ike(
        &mut self,
        remote: SocketAddr,
        nat_traversal: bool,
        message: Option<&[u8]>,
    ) -> Result<(), Error> {
        const MARKER: [u8; 4] = [0; 4];
        const KEEPALIVE: [u8; 1] = [0xff];
        self.encrypted()?;
        // The peer may send by a new SA as soon as it has this message.
        self.settle();
        let sockets = self.sockets.first().ok_or(Error::NotConfigured)?;
        let socket = sockets.for_ike(remote, nat_traversal).ok_or(Error::NoIkeSocket(remote))?;
        let data = match message {
            None => KEEPALIVE.to_vec(),
            Some(message) if nat_traversal => [&MARKER, message].concat(),
            Some(message) => message.to_vec(),
        };
        let outgoing = || [Outgoing { to: remote, tos: CONTROL_TOS, segment: None, data: &data }].into_iter();
        let sent = self.sender.send(socket, outgoing()).or_else(|_| self.sender.send(socket, outgoing()));
        if sent.is_err_and(|error| error.raw_os_error() == Some(EMSGSIZE)) {
            // A peer that knows no fragments of IKE's own (RFC 7383) gets those of IP.
            udp::allow_fragments(socket, remote.is_ipv6(), true);
            let sent = self.sender.send(socket, outgoing());
            udp::allow_fragments(socket, remote.is_ipv6(), false);
            sent?;
        }
        Ok(())
    }

    fn encrypted(&self) -> Result<&TunnelSettings, Error> {
        let settings = self.settings.as_ref().ok_or(Error::NotConfigured)?;
        if settings.encrypted { Ok(settings) } else { Err(Error::NotEncrypted) }
    }

    /// Receives by this SA, from [`Self::settle`] on.
    ///
    /// # Errors
    /// [`Error::Sa`].
    pub fn add_inbound_sa(&mut self, path: Path, keys: &Keys) -> Result<(), Error> {
        self.encrypted()?;
        let (to, sa) = self.directory.add_inbound(path, keys, self.workers.len())?;
        self.post(to, Order::AddInbound(Box::new(sa)))
    }

    /// No longer receives by this SA; one that is not there is none.
    ///
    /// # Errors
    /// [`Error::NotEncrypted`].
    pub fn remove_inbound_sa(&mut self, spi: u32) -> Result<(), Error> {
        self.encrypted()?;
        match self.directory.remove_inbound(spi, self.workers.len()) {
            Some(from) => self.post(from, Order::RemoveInbound(spi)),
            None => Ok(()),
        }
    }

    /// Sends by this SA instead of the one before it.
    ///
    /// # Errors
    /// [`Error::Sa`].
    pub fn set_outbound_sa(
        &mut self,
        path: Path,
        lane: u16,
        keys: &Keys,
        soft: SaLimits,
    ) -> Result<(), Error> {
        self.encrypted()?;
        let (workers, owners) = (self.workers.len(), &mut self.tables.outbound);
        let (to, sa) = self.directory.set_outbound((path, lane), keys, soft, workers, owners)?;
        self.changed = true;
        self.post(to, Order::SetOutbound(Box::new(sa)))
    }

    /// No longer sends by this SA; one that is not there, or not in use any more, is none.
    ///
    /// # Errors
    /// [`Error::NotEncrypted`].
    pub fn remove_outbound_sa(&mut self, path: Path, spi: u32) -> Result<(), Error> {
        self.encrypted()?;
        let Some(from) = self.directory.remove_outbound(path, spi, &mut self.tables.outbound) else {
            return Ok(());
        };
        // Others stop handing over before the owner forgets it.
        self.changed = true;
        self.publish();
        self.post(from, Order::RemoveOutbound(path, spi))
    }

    /// What each SA has done.
    #[must_use]
    pub fn sas(&self) -> Vec<SaCounters> {
        self.directory.counters(self.workers.len())
    }

    pub(super) fn post(&mut self, worker: usize, order: Order) -> Result<(), Error> {
        let port = self.workers.get(worker).and_then(Handle::port).ok_or(Error::NotConfigured)?;
        port.mailbox.post(order);
        self.posted.insert(worker);
        Ok(())
    }

    /// Waits until workers have done what was posted to them.
    pub(super) fn settle(&mut self) {
        let (report, reports): (_, Receiver<()>) = mpsc::channel();
        let posted = std::mem::take(&mut self.posted);
        for port in posted.iter().filter_map(|worker| self.workers.get(*worker)?.port()) {
            port.mailbox.post(Order::Report(report.clone()));
            port.bell.ring();
        }
        // Whoever takes an order lets go of it when it is done, or with the worker.
        drop(report);
        for _ in posted {
            if reports.recv_timeout(OBEDIENCE).is_err() {
                tracing::error!(interface = self.name, "a worker does not do what it is told");
                return;
            }
        }
    }
}
