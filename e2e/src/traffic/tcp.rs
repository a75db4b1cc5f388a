//! A TCP transfer whose content is checked.

use crate::error::{Error, Result};
use crate::topology::Node;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// A transfer that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Octets that arrived, in order and unchanged.
    pub octets: usize,
    /// From the connection's start to its end.
    pub took: Duration,
}

/// Sends `octets` of a pattern from one host to another's address and checks what arrives.
pub fn transfer(from: &Node, to: (&Node, &str), port: u16, octets: usize) -> Result<Transfer> {
    let to_ip: IpAddr = to.1.parse().map_err(|e| Error::other(format!("{}: {e}", to.1)))?;
    let address = SocketAddr::new(to_ip, port);
    let failed = || Error::io(format!("TCP from {} to {address}", from.name()));
    let listener = to.0.namespace().enter(|| TcpListener::bind(address))?.map_err(failed())?;
    let patience = Some(Duration::from_secs(20));
    let receiver = thread::spawn(move || -> std::io::Result<usize> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(patience)?;
        let mut buffer = vec![0; 1 << 16];
        let mut at = 0;
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(at);
            }
            if buffer[..n].iter().zip(at..).any(|(octet, at)| *octet != pattern(at)) {
                return Err(std::io::Error::other(format!("wrong octets after {at}")));
            }
            at += n;
        }
    });
    let start = Instant::now();
    let mut stream = from
        .namespace()
        .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(10)))?
        .map_err(failed())?;
    stream.set_write_timeout(patience).map_err(failed())?;
    let data: Vec<u8> = (0..octets).map(pattern).collect();
    stream.write_all(&data).map_err(failed())?;
    drop(stream);
    let arrived =
        receiver.join().map_err(|_| Error::other("the receiving thread panicked"))?.map_err(failed())?;
    if arrived != octets {
        return Err(Error::other(format!("TCP to {address}: {arrived} of {octets} octets arrived")));
    }
    Ok(Transfer { octets, took: start.elapsed() })
}

/// The octet at a place: does not repeat with any power of two.
const fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}
