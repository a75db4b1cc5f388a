//! What the operator and the agent tell of themselves: their log, and over HTTP their metrics and health.
#![forbid(unsafe_code)]

mod ask;
mod http;
mod log;

pub use ask::ask;
pub use http::{Answer, Endpoint, Listener, serve};
pub use log::{LogFormat, init};
