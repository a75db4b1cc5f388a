//! To the agent's socket.

use crate::error::Error;
use rpc::AgentClient;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Connects to the agent that listens on `socket`.
///
/// # Errors
/// With what to do when nobody is there, or we may not.
pub async fn connect(socket: &Path) -> Result<AgentClient, Error> {
    // Tried by hand first: the transport would bury the reason under layers of its own.
    UnixStream::connect(socket).map_err(|source| {
        let socket = socket.to_owned();
        match source.kind() {
            ErrorKind::NotFound => Error::NoSocket(socket),
            ErrorKind::ConnectionRefused => Error::NotListening(socket),
            ErrorKind::PermissionDenied => Error::Forbidden(socket),
            _ => Error::Connect { socket, source },
        }
    })?;
    rpc::connect(socket)
        .await
        .map_err(|error| Error::Protocol { socket: socket.to_owned(), reason: error.to_string() })
}
