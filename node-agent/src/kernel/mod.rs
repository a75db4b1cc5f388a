//! The kernel, by rtnetlink: the tunnel interface, its addresses, neighbours and routes, and what others change.
//!
//! Everything is idempotent, and everything made is found again by what it carries (interface, route protocol), never
//! only by what is remembered: so a new process, or `uninstall`, can take over from one that was killed.

pub mod address;
pub mod link;
pub mod monitor;
pub mod neighbour;
pub mod route;
pub mod sysctl;

use futures::{Stream, TryStreamExt as _};
use netlink_packet_core::ErrorMessage;
use rtnetlink::Handle;
use std::sync::Arc;
use tokio::sync::Mutex;

/// An open rtnetlink socket. Cheap to clone.
#[derive(Clone)]
pub struct Kernel {
    handle: Handle,
    /// Held while a table is read: the kernel reads one at a time for a socket, and refuses a second (EBUSY).
    reading: Arc<Mutex<()>>,
}

/// What the kernel did not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[from] std::io::Error),
    /// The request was refused.
    #[error("{what}: {source}")]
    Refused {
        /// What was wanted, in words.
        what: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// There is no such interface.
    #[error("interface {0} does not exist")]
    NoInterface(String),
    /// A route that can't be written down.
    #[error("{0}")]
    Malformed(String),
}

impl Kernel {
    /// Opens a socket; its driver runs until the last clone is dropped.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle, reading: Arc::default() })
    }

    /// Reads a whole table. The request leaves when `read` is called.
    async fn collect<T, S>(&self, what: &str, read: impl FnOnce(&Handle) -> S) -> Result<Vec<T>, Error>
    where
        S: Stream<Item = Result<T, rtnetlink::Error>>,
    {
        let _reading = self.reading.lock().await;
        read(&self.handle).try_collect().await.map_err(|e| refused(what, e))
    }
}

fn refused(what: impl Into<String>, source: rtnetlink::Error) -> Error {
    Error::Refused { what: what.into(), source }
}

/// Is this "it is already gone"?
fn is_gone(error: &rtnetlink::Error) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(code), .. }) => {
            // ESRCH: no such route; ENOENT: no such neighbour; ENODEV: no such interface; EADDRNOTAVAIL: no such address.
            [3, 2, 19, 99].contains(&-code.get())
        }
        _ => false,
    }
}
