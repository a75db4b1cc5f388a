//! Metrics and the two health questions of a kubelet, over plain HTTP, by TCP or by a unix socket.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// The longest request head that is read: the least that hyper takes.
const MAX_HEAD: usize = 8 << 10;
/// A client has so long for its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients served at a time.
const MAX_CLIENTS: usize = 32;
/// Before the next client, when one could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to serve; nowhere, if it is `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(pub Option<SocketAddr>);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        // Kubernetes puts a node's address in as it is, an IPv6 one without brackets: then the port is what is last.
        let bare = || {
            let (address, port) = text.rsplit_once(':')?;
            Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
        };
        let address = text.parse().ok().or_else(bare);
        address.map(|a| Self(Some(a))).ok_or_else(|| "write ADDRESS:PORT, or off".to_owned())
    }
}

/// What is answered to a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: String,
}

impl Answer {
    /// All is well.
    pub fn good(body: impl Into<String>) -> Self {
        Self::plain(StatusCode::OK, body)
    }

    /// All is not well: why.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::plain(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    /// Metrics in the text format of OpenMetrics.
    #[must_use]
    pub fn metrics(body: String) -> Self {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Self { status: StatusCode::OK, kind, body }
    }

    /// There is nothing by that name.
    #[must_use]
    pub fn unknown() -> Self {
        Self::plain(StatusCode::NOT_FOUND, "try /metrics, /healthz, /readyz\n")
    }

    fn plain(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain", body: body.into() }
    }
}

impl From<Answer> for Response<Full<Bytes>> {
    fn from(Answer { status, kind, body }: Answer) -> Self {
        let mut response = Self::new(Full::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
        response
    }
}

/// Where clients come from.
pub trait Listener {
    /// What connects them.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next client.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Answers GETs by their paths until the task is aborted: one request a connection, a bounded number at a time.
pub async fn serve<F, A>(listener: impl Listener, answer: F)
where
    F: Fn(String) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let clients = Arc::new(tokio::sync::Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
        let stream = match listener.next().await {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, usually; it passes.
                tracing::warn!(%error, "cannot accept a metrics client");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(Response::from(told(&request, answer).await)) }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            // A client that went away, or said nothing that can be understood, is its own loss.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(permit);
        });
    }
}

async fn told<A: Future<Output = Answer>>(
    request: &Request<Incoming>,
    answer: impl Fn(String) -> A,
) -> Answer {
    if request.method() == Method::GET {
        answer(request.uri().path().to_owned()).await
    } else {
        Answer::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is understood\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, async |path| match path.as_str() {
            "/healthz" => Answer::good("ok\n"),
            "/readyz" => Answer::unavailable("not up: dmvpn0\n"),
            _ => Answer::unknown(),
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        server.abort();
        reply
    }

    #[test]
    fn an_endpoint_is_an_address_and_a_port_with_brackets_or_without() {
        let read = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.0.map(|a| a.to_string()));
        assert_eq!(read("192.0.2.1:9477"), Ok(Some("192.0.2.1:9477".to_owned())));
        for text in ["[2001:db8::1]:9477", "2001:db8::1:9477"] {
            assert_eq!(read(text), Ok(Some("[2001:db8::1]:9477".to_owned())));
        }
        assert_eq!(read("off"), Ok(None));
        for wrong in ["", "192.0.2.1", ":9477", "2001:db8::1", "node:9477", "192.0.2.1:99999"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_as_good() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("probe.sock");
        let server = tokio::spawn({
            let listener = UnixListener::bind(&socket).unwrap();
            serve(listener, async |path| match path.as_str() {
                "/healthz" => Answer::good("ok\n"),
                _ => Answer::unavailable("not up: dmvpn0\n"),
            })
        });
        assert_eq!(crate::ask(&socket, "/healthz").await, Ok("ok\n".to_owned()));
        assert_eq!(crate::ask(&socket, "/readyz").await, Err("not up: dmvpn0".to_owned()));
        server.abort();
        let _ = server.await;
        assert!(crate::ask(&socket, "/healthz").await.unwrap_err().contains("nobody answers"));
    }

    #[tokio::test]
    async fn a_probe_is_answered_and_the_connection_ends() {
        let reply = ask("GET /healthz?verbose HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("\r\n\r\nok\n"), "{reply}");
    }

    #[tokio::test]
    async fn what_is_not_well_says_so_by_its_status() {
        let reply = ask("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 503 ") && reply.ends_with("not up: dmvpn0\n"), "{reply}");
    }

    #[tokio::test]
    async fn only_questions_are_answered() {
        assert!(ask("POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 405 "));
        assert!(ask("GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
        let head = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
        assert!(ask(&head).await.starts_with("HTTP/1.1 431 "), "a head that is too long");
    }
}
