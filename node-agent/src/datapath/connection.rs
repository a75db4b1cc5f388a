//! One connection: frames in and out, numbered requests, and what is told unasked.

use super::{Error, Process};
use dataplane::codec;
use dataplane::messages::{
    FromDatapath, MAX_MESSAGE, PROTOCOL_VERSION, Peer, PeerCounters, ReceivedKind, Request, SaCounters,
    ToDatapath, TunnelSettings,
};
use dmvpn::{Activity, Input};
use ikev2::LocalPort;
use packet::{Path, PeerId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

/// How long a request may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that drives one tunnel, and what the datapath held when it was made.
#[derive(Debug)]
pub struct Connection {
    /// For requests.
    pub sender: Sender,
    /// What the datapath tells; `None` at its end: the connection is lost.
    pub messages: mpsc::Receiver<Message>,
    /// What it held.
    pub attachment: Attachment,
}

/// What the datapath held before this connection.
#[derive(Debug, Default)]
pub struct Attachment {
    /// What the control process before left.
    pub checkpoint: Option<Vec<u8>>,
    /// How the tunnel is configured.
    pub settings: Option<TunnelSettings>,
    /// The peers it holds.
    pub peers: Vec<(PeerId, Peer)>,
}

/// What the datapath tells unasked, and answers that carry data.
#[derive(Debug)]
pub enum Message {
    /// Something that the engine has to know.
    Input(Input),
    /// Counters that were asked for.
    Counters {
        /// Totals by name.
        totals: BTreeMap<String, u64>,
        /// Per peer.
        peers: Vec<(PeerId, PeerCounters)>,
    },
    /// What each SA has done.
    Sas(Vec<SaCounters>),
    /// A path's MTU was discovered.
    PathMtu {
        /// Which path.
        path: Path,
        /// Octets of an outer packet.
        mtu: u16,
        /// Octets of the longest inner one.
        inner: u16,
    },
    /// A captured packet.
    Captured {
        /// Nanoseconds since the Unix epoch.
        time: u64,
        /// The other end.
        peer: Option<PeerId>,
        /// Towards the peer?
        outbound: bool,
        /// Inner IP packet.
        packet: Vec<u8>,
    },
    /// A request was refused.
    Refused {
        /// Its number.
        number: u64,
        /// Why.
        error: String,
    },
}

/// The sending half: requests are numbered and carried out in order.
#[derive(Debug)]
pub struct Sender {
    stream: OwnedWriteHalf,
    last: u64,
    done: watch::Receiver<u64>,
}

impl Connection {
    /// Connects to the datapath (starting it if need be) and attaches to the tunnel.
    pub async fn open(process: &Process, tunnel: &str) -> Result<Self, Error> {
        match Self::attach(process.connect().await?, tunnel).await {
            // It was ending when we knocked, killed together with the agent before us, say: nobody listens any more.
            Err(error) if error.is_end() => Self::attach(process.connect().await?, tunnel).await,
            attached => attached,
        }
    }

    async fn attach(stream: UnixStream, tunnel: &str) -> Result<Self, Error> {
        let (read, mut write) = stream.into_split();
        let mut reader = BufReader::with_capacity(1 << 16, read);
        let attach = Request::Attach { version: PROTOCOL_VERSION, tunnel: tunnel.to_owned() };
        write_frame(&mut write, &ToDatapath { number: 0, request: attach }).await?;
        let attachment = loop {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, read_frame(&mut reader)).await;
            match answer.map_err(|_| Error::Silent)?? {
                FromDatapath::Attached { version, .. } if version != PROTOCOL_VERSION => {
                    return Err(Error::Version { theirs: version, ours: PROTOCOL_VERSION });
                }
                FromDatapath::Attached { checkpoint, settings, peers, .. } => {
                    break Attachment { checkpoint, settings, peers };
                }
                FromDatapath::Done { error: Some(error), .. } => return Err(Error::Refused(error)),
                // What a running tunnel tells before it has seen our request.
                _ => {}
            }
        };
        let (messages, receiver) = mpsc::channel(4096);
        let (acknowledged, done) = watch::channel(0);
        tokio::spawn(async move {
            if let Err(error) = read_loop(reader, &messages, &acknowledged).await {
                tracing::debug!(%error, "datapath connection ended");
            }
        });
        Ok(Self { sender: Sender { stream: write, last: 0, done }, messages: receiver, attachment })
    }
}

impl Sender {
    /// Sends a request without waiting for its answer. Returns its number.
    pub async fn send(&mut self, request: Request) -> Result<u64, Error> {
        self.last += 1;
        write_frame(&mut self.stream, &ToDatapath { number: self.last, request }).await?;
        Ok(self.last)
    }

    /// Waits until everything sent so far has been carried out.
    pub async fn settled(&mut self) -> Result<(), Error> {
        let last = self.last;
        let wait = self.done.wait_for(|done| *done >= last);
        match tokio::time::timeout(ANSWER_TIMEOUT, wait).await {
            Err(_) => Err(Error::Silent),
            Ok(Err(_)) => Err(Error::Closed),
            Ok(Ok(_)) => Ok(()),
        }
    }
}

async fn read_loop(
    mut reader: BufReader<OwnedReadHalf>,
    messages: &mpsc::Sender<Message>,
    acknowledged: &watch::Sender<u64>,
) -> Result<(), Error> {
    loop {
        let message = match read_frame(&mut reader).await? {
            FromDatapath::Done { number, error } => {
                if let Some(error) = error {
                    // Told before the acknowledgement, so that whoever waits for that can know.
                    let _ = messages.send(Message::Refused { number, error }).await;
                }
                // The answer to `Attach` may be acknowledged late; numbers never go back.
                acknowledged.send_modify(|done| *done = number.max(*done));
                continue;
            }
            FromDatapath::Counters { number, totals, peers } => {
                acknowledged.send_modify(|done| *done = number.max(*done));
                Message::Counters { totals, peers }
            }
            FromDatapath::Sas { number, sas } => {
                acknowledged.send_modify(|done| *done = number.max(*done));
                Message::Sas(sas)
            }
            FromDatapath::PathMtu { path, mtu, inner } => Message::PathMtu { path, mtu, inner },
            FromDatapath::Captured { time, peer, outbound, packet } => {
                Message::Captured { time, peer, outbound, packet }
            }
            other => match input(other) {
                Some(input) => Message::Input(input),
                None => continue,
            },
        };
        if messages.send(message).await.is_err() {
            return Ok(());
        }
    }
}

/// What of it is for the engine.
fn input(message: FromDatapath) -> Option<Input> {
    Some(match message {
        FromDatapath::Received { path, kind: ReceivedKind::Nhrp, payload } => Input::Nhrp { path, payload },
        FromDatapath::Received { path, kind: ReceivedKind::Echo, payload } => {
            Input::Echo { path, packet: payload }
        }
        FromDatapath::NextHopWanted(address) => Input::NextHopWanted { address },
        FromDatapath::Hairpin { from, to, head } => Input::Hairpin { from, to, head },
        FromDatapath::Activity(list) => Input::Activity(
            list.into_iter().map(|(peer, sent, received)| Activity { peer, sent, received }).collect(),
        ),
        FromDatapath::Ike { remote, nat_traversal, message } => {
            let local = if nat_traversal { LocalPort::NatTraversal } else { LocalPort::Ike };
            Input::Ike { address: ikev2::Address { remote, local }, message }
        }
        FromDatapath::NobodyThere(path) => Input::NobodyThere(path),
        FromDatapath::UnknownSpi { path, spi } => Input::UnknownSpi { path, spi },
        FromDatapath::SaLimit { path, spi } => Input::SaLimit { path, spi },
        FromDatapath::SaMoved { spi, path } => Input::SaMoved { spi, path },
        FromDatapath::Attached { .. }
        | FromDatapath::Done { .. }
        | FromDatapath::Counters { .. }
        | FromDatapath::Sas { .. }
        | FromDatapath::PathMtu { .. }
        | FromDatapath::Captured { .. } => return None,
    })
}

async fn read_frame(reader: &mut BufReader<OwnedReadHalf>) -> Result<FromDatapath, Error> {
    let length = match reader.read_u32_le().await {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Err(Error::Closed),
        other => usize::try_from(other?).unwrap_or(usize::MAX),
    };
    if length > MAX_MESSAGE {
        return Err(Error::Malformed(format!("a message of {length} octets")));
    }
    let mut frame = vec![0; length];
    reader.read_exact(&mut frame).await?;
    postcard::from_bytes(&frame).map_err(|e| Error::Malformed(e.to_string()))
}

async fn write_frame(stream: &mut OwnedWriteHalf, message: &ToDatapath) -> Result<(), Error> {
    let frame = encode(message)?;
    stream.write_all(&frame).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => Error::Closed,
        _ => e.into(),
    })
}

/// There are keys in some.
fn encode(message: &ToDatapath) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut frame = Zeroizing::new(Vec::new());
    codec::append(&mut frame, message).map_err(|e| Error::Malformed(e.to_string()))?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_begins_with_the_length_of_the_rest() {
        let frame = encode(&ToDatapath { number: 1, request: Request::GetCounters }).unwrap();
        assert_eq!(frame.len() - 4, u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize);
        let back: ToDatapath = postcard::from_bytes(&frame[4..]).unwrap();
        assert_eq!(back.request, Request::GetCounters);
    }

    #[test]
    fn a_message_that_is_too_long_is_not_sent() {
        let request = Request::StoreCheckpoint(vec![0; MAX_MESSAGE].into());
        assert!(matches!(encode(&ToDatapath { number: 1, request }), Err(Error::Malformed(_))));
    }
}
