//! Asks a program of ours how it is, as a kubelet does by running a command in its container.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// A program that does not answer within this is not well.
const PATIENCE: Duration = Duration::from_secs(4);
/// Nobody has more to say.
const MAX_ANSWER: usize = 64 << 10;

/// Asks for `path` by a unix socket, and returns what it says.
///
/// # Errors
/// It is not well, and why; or nobody answers.
pub async fn ask(socket: &Path, path: &str) -> Result<String, String> {
    let nobody = |why: &dyn std::fmt::Display| format!("nobody answers at {}: {why}", socket.display());
    let answer = tokio::time::timeout(PATIENCE, exchange(socket, path)).await;
    let (status, said) = answer.map_err(|late| nobody(&late))?.map_err(|error| nobody(&error))?;
    if status == StatusCode::OK { Ok(said) } else { Err(said.trim_end().to_owned()) }
}

async fn exchange(socket: &Path, path: &str) -> Result<(StatusCode, String), Box<dyn Error + Send + Sync>> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    // It ends with the answer, or when that is no longer waited for.
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, "probe").body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await;
    let (head, body) = answer.inspect_err(|_| connection.abort())?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
    Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
}
