//! TCP sockets that live on the tunnel interface and nowhere else.

use socket2::SockRef;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// Connections that wait to be accepted: a hub that restarts is called by all its spokes at once.
const BACKLOG: u32 = 1024;
/// Network control (CS6), as routers mark BGP.
const TOS: u32 = 0xc0;

/// Listens on a tunnel address.
pub(super) fn listen(interface: &str, address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = socket(interface, address)?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(address, port))?;
    socket.listen(BACKLOG)
}

/// The kernel asks a second time after a second, which is long for who waits for his routes: a first packet that was lost
/// is sent again after this, and after twice as long each time.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);

/// Connects from a tunnel address. Ends only when the other end refuses: whoever asks gives up in time.
pub(super) async fn connect(interface: &str, from: IpAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let mut patience = FIRST_PATIENCE;
    loop {
        match timeout(patience, connect_once(interface, from, remote)).await {
            Ok(done) => return done,
            Err(_) => patience *= 2,
        }
    }
}

async fn connect_once(interface: &str, from: IpAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(interface, from)?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(remote).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn socket(interface: &str, address: IpAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind_device(Some(interface.as_bytes()))?;
    let options = SockRef::from(&socket);
    // Only a mark; what can't be marked is sent all the same.
    let _ = if address.is_ipv4() { options.set_tos_v4(TOS) } else { options.set_tclass_v6(TOS) };
    Ok(socket)
}
