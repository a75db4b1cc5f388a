//! What the operator and the agent tell of themselves: their log, and over HTTP their metrics and health.
#![forbid(unsafe_code)]

mod http;
mod log;

pub use http::{Answer, Endpoint, serve};
pub use log::{LogFormat, init};
