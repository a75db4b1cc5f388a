//! One error for the lab: what was being done, and what went wrong.

use std::fmt;
use std::io;
use std::time::Duration;

/// What the lab's functions, and the stories, return.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Why a step of the lab failed.
#[derive(thiserror::Error)]
pub enum Error {
    /// A system call or file failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{line}` ended with {status}: {stderr}")]
    Command {
        /// The command line.
        line: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// Something did not happen in time.
    #[error("waited {waited:?} in vain for {what}; last seen: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was there instead.
        last: String,
    },
    /// The lab needs root to make namespaces.
    #[error("this needs root: it makes network namespaces, interfaces and nftables rules. Run it with sudo")]
    NotRoot,
    /// Something else, said in words.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An I/O error, with what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// The same, for the errors of `rustix`.
    pub fn sys(doing: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let doing = doing.into();
        move |e| Self::Io { doing, source: e.into() }
    }

    /// An error in words.
    pub fn other(message: impl fmt::Display) -> Self {
        Self::Other(message.to_string())
    }
}

/// A failing test prints its error by `Debug`: people want to read the sentence.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
