//! What goes wrong, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a command failed. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket.
    #[error(
        "no agent at {}: start dmvpn-agent, or name its socket with --socket (RUN_DIR/agent.sock, as given to its --run-dir)",
        .0.display()
    )]
    NoSocket(PathBuf),
    /// There is a socket and nobody behind it.
    #[error("the agent at {} is not running: its socket is there, and nobody listens; start dmvpn-agent and look at its log", .0.display())]
    NotListening(PathBuf),
    /// We may not talk to it.
    #[error("not allowed to talk to the agent at {}: use sudo, or join the group that owns the socket", .0.display())]
    Forbidden(PathBuf),
    /// Something else is wrong with the socket.
    #[error("cannot talk to the agent at {}: {source}", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It answers, and doesn't speak our language.
    #[error("what listens at {} is not a dmvpn-agent: {reason}", socket.display())]
    Protocol {
        /// Where.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is older than we are.
    #[error("the agent is older than this dmvpnctl and doesn't know this command: upgrade it")]
    TooOld,
    /// It went away while answering.
    #[error("the agent went away while answering: {0}; look at its log, and try again")]
    Gone(String),
    /// It refused, in its own words.
    #[error("{0}")]
    Refused(String),
    /// pcapng is no reading for people.
    #[error(
        "capture writes binary: send it to a program (dmvpnctl capture | wireshark -k -i -) or a file (dmvpnctl capture > overlay.pcapng)"
    )]
    Terminal,
    /// A certificate could not be made, or a file of the PKI not be read.
    #[error("{0}")]
    Pki(String),
    /// What a cluster was asked by way of kubectl.
    #[error(transparent)]
    Kubernetes(#[from] crate::kubernetes::Error),
    /// Our output can't be written.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

impl Error {
    /// Did the reader of our output leave?
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::Unimplemented => Self::TooOld,
            tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Unknown => {
                Self::Gone(status.message().to_owned())
            }
            _ => Self::Refused(status.message().to_owned()),
        }
    }
}

impl From<identity::CertificateError> for Error {
    fn from(error: identity::CertificateError) -> Self {
        Self::Pki(error.0)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Write(error.into())
    }
}
