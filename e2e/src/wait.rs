//! Waiting for something to become true, with patience, and saying what was there instead.

use crate::error::{Error, Result};
use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long a story waits for what should take a moment: a machine with two cores runs several stories at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until there is an answer. The failure says what the last attempt saw.
pub fn until<T, E: Display>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> std::result::Result<T, E>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= patience => {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    waited: start.elapsed(),
                    last: last.to_string(),
                });
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
