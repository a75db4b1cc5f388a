//! A running datapath gives all it has to its successor, so that an upgrade loses no packet:
//!
//! ```text
//!  successor                         the one that runs
//!     │  Hello{version} ──────────────>  │
//!     │  <────────────── Offer{tunnels}  │  settings, tables, keys, checkpoints; packets still pass
//!     │  <───────────────── descriptors  │  both listeners, queues, sockets
//!     │  Ready ───────────────────────>  │  (or it goes on as if nothing had been)
//!     │                                  │  ends its workers: from here on nobody sends or receives,
//!     │                                  │  and what arrives waits in the kernel's queues
//!     │  <──────────────── Go{numbers}   │  sequence numbers, replay windows; from here on it never sends again
//!     │  starts its workers              │  ends
//! ```
//!
//! At no moment can both send: the successor does nothing before `Go`, and whoever said `Go` nothing after it. So no
//! nonce is used twice, and outbound sequence numbers leave a gap besides. A datapath that crashed gave nothing to
//! anybody: its SAs are gone, and that is right.

use crate::control::Server;
use crate::tunnel::{Tunnel, TunnelNumbers, TunnelState, Unfit};
use linux_io::pass;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Of what passes here. A datapath of another version is not taken over, but replaced.
pub const VERSION: u32 = 1;

/// Neither waits longer for the other: while they do, packets wait as well.
const PATIENCE: Duration = Duration::from_secs(2);
/// Octets of the longest message: checkpoints, mostly.
const MAX_MESSAGE: usize = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Hello {
    version: u32,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Offer(Vec<TunnelState>),
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct Ready;

#[derive(Serialize, Deserialize)]
struct Go {
    numbers: Vec<TunnelNumbers>,
}

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other's messages are no such.
    #[error("a message can't be understood: {0}")]
    Encoding(#[from] postcard::Error),
    /// Too long.
    #[error("a message of {0} octets is too long")]
    TooLong(usize),
    /// Keys are not for everybody.
    #[error("the process at the other end is another user's")]
    Stranger,
    /// Another version.
    #[error("the other speaks version {0} of the handover, we speak {VERSION}")]
    Version(u32),
    /// The one that runs does not want to.
    #[error("refused: {0}")]
    Refused(String),
    /// A tunnel can't be taken over.
    #[error("tunnel {0}: {1}")]
    Tunnel(String, Unfit),
}

/// Where a datapath that listens for agents at `socket` listens for its successor.
#[must_use]
pub fn path_beside(socket: &Path) -> PathBuf {
    socket.with_extension("handover")
}

/// Gives everything to the successor at the other end of `stream`. On success this process must do no more than end.
///
/// # Errors
/// [`Error`]; then all goes on as before.
pub fn give(server: &Server, listeners: [&UnixListener; 2], stream: &UnixStream) -> Result<(), Error> {
    prepare(stream)?;
    let Hello { version } = read(stream)?;
    if version != VERSION {
        write(stream, &Answer::Refused(Error::Version(version).to_string()))?;
        return Err(Error::Version(version));
    }
    server.hold(|tunnels| {
        // Held still, they change no more but for the numbers of packets.
        offer(tunnels, listeners, stream)?;
        let start = Instant::now();
        for tunnel in tunnels.iter_mut() {
            tunnel.suspend();
        }
        let numbers = tunnels.iter().map(|tunnel| tunnel.numbers()).collect();
        // An error says that the successor has not read all of it, and so does not begin.
        match write(stream, &Go { numbers }) {
            Ok(()) => {
                for tunnel in tunnels.iter_mut() {
                    tunnel.surrender();
                }
                tracing::info!(tunnels = tunnels.len(), took = ?start.elapsed(), "handed over");
                Ok(())
            }
            Err(error) => {
                for tunnel in tunnels.iter_mut() {
                    if let Err(error) = tunnel.resume() {
                        tracing::error!(%error, "a tunnel does not go on after a handover that failed");
                    }
                }
                Err(error)
            }
        }
    })
}

/// From the offer until the successor has all of it in its place.
fn offer(tunnels: &[&mut Tunnel], listeners: [&UnixListener; 2], stream: &UnixStream) -> Result<(), Error> {
    write(stream, &Answer::Offer(tunnels.iter().map(|tunnel| tunnel.state()).collect()))?;
    let mut descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(|listener| listener.as_fd()).collect();
    descriptors.extend(tunnels.iter().flat_map(|tunnel| tunnel.descriptors()));
    pass::send(stream, &descriptors)?;
    let Ready = read(stream)?;
    Ok(())
}

/// What a predecessor left.
pub struct Taken {
    /// Its tunnels, at work.
    pub server: Server,
    /// Where agents connect to.
    pub listener: UnixListener,
    /// Where our own successor will.
    pub handover: UnixListener,
}

/// Takes over from the datapath that listens for a successor at `path`. `None`: nobody does.
///
/// # Errors
/// [`Error`]; then the other goes on as before.
pub fn take(path: &Path) -> Result<Option<Taken>, Error> {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    prepare(&stream)?;
    write(&stream, &Hello { version: VERSION })?;
    let tunnels = match read(&stream)? {
        Answer::Offer(tunnels) => tunnels,
        Answer::Refused(why) => return Err(Error::Refused(why)),
    };
    let count = 2 + tunnels.iter().map(TunnelState::descriptors).sum::<usize>();
    let mut descriptors = pass::receive(&stream, count)?.into_iter();
    let (listener, handover) = (listener(&mut descriptors)?, listener(&mut descriptors)?);
    let server = Server::default();
    for state in tunnels {
        let name = state.name().to_owned();
        server.adopt(state, &mut descriptors).map_err(|unfit| Error::Tunnel(name, unfit))?;
    }
    write(&stream, &Ready)?;
    let Go { numbers } = read(&stream)?;
    let start = Instant::now();
    let mut numbers: HashMap<String, TunnelNumbers> =
        numbers.into_iter().map(|numbers| (numbers.name().to_owned(), numbers)).collect();
    server.hold(|tunnels| {
        for tunnel in tunnels.iter_mut() {
            let Some(numbers) = numbers.remove(tunnel.name()) else { continue };
            if let Err(error) = tunnel.inherit(numbers) {
                tracing::error!(%error, "a tunnel that was taken over can't go on");
            }
        }
        tracing::info!(tunnels = tunnels.len(), took = ?start.elapsed(), "taken over");
    });
    // Who asks the kernel whom he is connected to is told of us from now on.
    pass::listen(&listener)?;
    pass::listen(&handover)?;
    Ok(Some(Taken { server, listener, handover }))
}

fn listener(descriptors: &mut impl Iterator<Item = OwnedFd>) -> Result<UnixListener, Error> {
    let missing = || Error::Io(io::ErrorKind::UnexpectedEof.into());
    descriptors.next().map(UnixListener::from).ok_or_else(missing)
}

fn prepare(stream: &UnixStream) -> Result<(), Error> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if pass::is_ours(stream)? { Ok(()) } else { Err(Error::Stranger) }
}

/// A little-endian u32 of octets, and so many of postcard. There are keys in it.
fn write<T: Serialize>(mut stream: &UnixStream, message: &T) -> Result<(), Error> {
    let octets = Zeroizing::new(postcard::to_stdvec(message)?);
    let length = u32::try_from(octets.len()).map_err(|_| Error::TooLong(octets.len()))?;
    stream.write_all(&length.to_le_bytes())?;
    Ok(stream.write_all(&octets)?)
}

/// Reads exactly one message: descriptors that come with what follows would be lost.
fn read<T: DeserializeOwned>(mut stream: &UnixStream) -> Result<T, Error> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(Error::TooLong(length));
    }
    let mut octets = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut octets)?;
    Ok(postcard::from_bytes(&octets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_of_another_version_is_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let directory = std::env::temp_dir().join(format!("handover-{}", std::process::id()));
        let listener = crate::control::listen(&directory.join("datapath.sock")).unwrap();
        write(&theirs, &Hello { version: 77 }).unwrap();
        let error = give(&Server::default(), [&listener, &listener], &ours).unwrap_err();
        assert!(matches!(error, Error::Version(77)));
        let answer = read(&theirs).unwrap();
        assert!(matches!(answer, Answer::Refused(why) if why.contains("77")));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn nobody_there_is_no_error() {
        assert!(take(Path::new("/nonexistent/datapath.handover")).unwrap().is_none());
    }
}
