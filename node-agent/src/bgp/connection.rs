//! The tasks of a connection: one makes it, one reads, one writes. They tell the driver what happens, in order.

use super::socket;
use bgp::ConnectionId;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// How long the last words of a connection may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Happened {
    /// It is there.
    Connected(ConnectionId, TcpStream),
    /// Octets arrived.
    Received(ConnectionId, Vec<u8>),
    /// Octets left.
    Sent(ConnectionId, usize),
    /// It broke, was closed, or could not be made.
    Closed(ConnectionId),
}

/// A connection that is being made, or is there.
#[derive(Debug)]
pub(super) struct Connection {
    /// What to send. The speaker hands out no more than a window, so this queue is bounded. When it is dropped, the
    /// writer sends what is left and closes.
    outbox: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// Makes the connection, later reads from it.
    task: AbortHandle,
}

impl Connection {
    /// Connects.
    pub(super) fn make(
        id: ConnectionId,
        interface: String,
        from: IpAddr,
        to: SocketAddr,
        tell: mpsc::Sender<Happened>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let task = tasks.spawn(async move {
            let happened = match socket::connect(&interface, from, to).await {
                Ok(stream) => Happened::Connected(id, stream),
                Err(error) => {
                    tracing::debug!(%interface, %to, %error, "BGP connection failed");
                    Happened::Closed(id)
                }
            };
            let _ = tell.send(happened).await;
        });
        Self { outbox: None, task }
    }

    /// Uses a connection that is there.
    pub(super) fn run(
        id: ConnectionId,
        stream: TcpStream,
        tell: &mpsc::Sender<Happened>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (reader, writer) = stream.into_split();
        let (outbox, messages) = mpsc::unbounded_channel();
        tasks.spawn(write(id, writer, messages, tell.clone()));
        Self { outbox: Some(outbox), task: tasks.spawn(read(id, reader, tell.clone())) }
    }

    /// Sends.
    pub(super) fn send(&self, bytes: Vec<u8>) {
        if let Some(outbox) = &self.outbox {
            // A writer that is gone has said why.
            let _ = outbox.send(bytes);
        }
    }
}

impl Drop for Connection {
    /// Nothing more is read; what was to be sent still is.
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(id: ConnectionId, mut reader: OwnedReadHalf, tell: mpsc::Sender<Happened>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let happened = match reader.read(&mut buffer).await {
            Ok(length @ 1..) => Happened::Received(id, buffer.get(..length).unwrap_or_default().to_vec()),
            Ok(0) | Err(_) => Happened::Closed(id),
        };
        let last = matches!(happened, Happened::Closed(_));
        // The queue to the driver is short: a peer that talks too fast waits in its own kernel.
        if tell.send(happened).await.is_err() || last {
            return;
        }
    }
}

async fn write(
    id: ConnectionId,
    mut writer: OwnedWriteHalf,
    mut messages: mpsc::UnboundedReceiver<Vec<u8>>,
    tell: mpsc::Sender<Happened>,
) {
    while let Some(message) = messages.recv().await {
        let closing = messages.is_closed();
        let written = writer.write_all(&message);
        let written =
            if closing { tokio::time::timeout(LAST_WORDS, written).await.ok() } else { Some(written.await) };
        match written {
            Some(Ok(())) if !closing => {
                if tell.send(Happened::Sent(id, message.len())).await.is_err() {
                    return;
                }
            }
            Some(Ok(())) => {}
            Some(Err(_)) | None => {
                let _ = tell.send(Happened::Closed(id)).await;
                return;
            }
        }
    }
    let _ = writer.shutdown().await;
}
