//! Asks a program of ours how it is, as a kubelet does by running a command in its container.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A program that does not answer within this is not well.
const PATIENCE: Duration = Duration::from_secs(4);
/// Nobody has more to say.
const MAX_ANSWER: u64 = 64 << 10;

/// Asks for `path` by a unix socket, and returns what it says.
///
/// # Errors
/// It is not well, and why; or nobody answers.
pub fn ask(socket: &Path, path: &str) -> Result<String, String> {
    let answer =
        exchange(socket, path).map_err(|error| format!("nobody answers at {}: {error}", socket.display()))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.to_owned()) } else { Err(body.trim_end().to_owned()) }
}

fn exchange(socket: &Path, path: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
