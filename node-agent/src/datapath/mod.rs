//! The client of `dmvpn-datapath`: starts it where none runs, connects, and speaks its language.

pub mod connection;
pub mod process;

pub use connection::{Attachment, Connection, Message, Sender};
pub use process::Process;

/// What went wrong between control and datapath.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket, or the process.
    #[error("datapath: {0}")]
    Io(#[from] std::io::Error),
    /// It speaks another version of the language.
    #[error("the datapath speaks version {theirs}, this agent {ours}: restart dmvpn-datapath")]
    Version {
        /// The datapath's.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// It sent what can't be read.
    #[error("the datapath sent what can't be read: {0}")]
    Malformed(String),
    /// It closed the connection.
    #[error("the datapath closed the connection")]
    Closed,
    /// It did not answer in time.
    #[error("the datapath does not answer")]
    Silent,
    /// It refused a request.
    #[error("the datapath refused: {0}")]
    Refused(String),
}

impl Error {
    /// Did the process at the other end of the connection end, rather than answer?
    fn is_end(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self {
            Self::Io(error) => matches!(error.kind(), BrokenPipe | ConnectionReset),
            Self::Closed => true,
            _ => false,
        }
    }
}
