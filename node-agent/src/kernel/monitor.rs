//! Watches routes, addresses and links, and tells of them in order.
//!
//! Routes are told one by one as they change. The kernel is silent about some (IPv4 routes that go with an interface
//! or an address), and a socket may overflow: after either, everything is read again and told as a snapshot.

use super::route::{KernelRoute, parse};
use super::{Error, Kernel};
use futures::StreamExt as _;
use netlink_packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All routes there are; replaces what was told before.
    Snapshot(Vec<KernelRoute>),
    /// A route appeared, or (`replaced`) took the place of one with the same prefix and metric.
    Added {
        /// The route.
        route: KernelRoute,
        /// It replaced another.
        replaced: bool,
    },
    /// A route went.
    Removed(KernelRoute),
}

/// How long to wait for more before everything is read again.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Starts the watch. The first thing told is a snapshot. Ends when the receiver is dropped.
pub fn watch(kernel: Kernel) -> Result<mpsc::Receiver<Change>, Error> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    let (changes, receiver) = mpsc::channel(1024);
    tokio::spawn(async move {
        // The handle keeps the connection's driver alive.
        let _handle = handle;
        run(kernel, messages, changes).await;
    });
    Ok(receiver)
}

type Messages =
    futures::channel::mpsc::UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, netlink_sys::SocketAddr)>;

async fn run(kernel: Kernel, mut messages: Messages, changes: mpsc::Sender<Change>) {
    let mut resync = Some(Instant::now());
    loop {
        let due = async {
            match resync {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changes.closed() => return,
            message = messages.next() => {
                let Some((message, _)) = message else { return };
                match classify(message) {
                    // Until the snapshot is taken, single changes would only confuse.
                    Some(Heard::Route(change)) if resync.is_none() => match changes.send(change).await {
                        Ok(()) => {}
                        Err(_) => return,
                    },
                    Some(Heard::Resync) if resync.is_none() => resync = Some(Instant::now() + DEBOUNCE),
                    _ => {}
                }
            }
            () = due => {
                resync = None;
                match kernel.routes().await {
                    Ok(routes) => if changes.send(Change::Snapshot(routes)).await.is_err() { return },
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the routing table, trying again");
                        resync = Some(Instant::now() + Duration::from_secs(1));
                    }
                }
            }
        }
    }
}

enum Heard {
    Route(Change),
    Resync,
}

fn classify(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Heard> {
    let replaced = message.header.flags & NLM_F_REPLACE != 0;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(m)) => {
            parse(&m).map(|route| Heard::Route(Change::Added { route, replaced }))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(m)) => {
            parse(&m).map(|route| Heard::Route(Change::Removed(route)))
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(_)
            | RouteNetlinkMessage::DelLink(_)
            | RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_),
        )
        | NetlinkPayload::Overrun(_) => Some(Heard::Resync),
        _ => None,
    }
}
