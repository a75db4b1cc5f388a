//! Whether the API server answers. Said once when it stops and once when it does again, however many requests fail
//! meanwhile: it may be away for hours, and nothing depends on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How it goes with each thing we ask of the API server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    used: bool,
    errors: u64,
    /// What fails, and why.
    failing: BTreeMap<String, String>,
}

impl Reach {
    /// Something went well, so the server answers.
    pub fn well(&self, what: &str) {
        let mut state = self.lock();
        state.used = true;
        for what in [SERVER, what] {
            if state.failing.remove(what).is_some() {
                tracing::info!("{what}: as it should be again");
            }
        }
    }

    /// Something failed.
    pub fn failed(&self, what: &str, error: &kube::Error) {
        match error {
            kube::Error::Api(status) => self.refused(what, &status.message),
            // All that we ask fails for one reason then.
            error => self.refused(SERVER, &error.to_string()),
        }
    }

    /// A watch failed.
    pub fn watch_failed(&self, what: &str, error: &kube::runtime::watcher::Error) {
        use kube::runtime::watcher::Error;
        match error {
            Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
                self.failed(what, error);
            }
            // The server ended an old watch: another one begins.
            Error::WatchError(_) | Error::NoResourceVersion => {}
        }
    }

    /// For the metrics: does everything go well, and how often did something not? `None`: nothing was ever asked.
    #[must_use]
    pub fn metrics(&self) -> Option<(bool, u64)> {
        let state = self.lock();
        state.used.then(|| (state.failing.is_empty(), state.errors))
    }

    /// Why this fails, if it does.
    #[must_use]
    pub fn why(&self, what: &str) -> Option<String> {
        let state = self.lock();
        state.failing.get(SERVER).or_else(|| state.failing.get(what)).cloned()
    }

    pub(super) fn refused(&self, what: &str, why: &str) {
        let mut state = self.lock();
        state.used = true;
        state.errors = state.errors.saturating_add(1);
        if state.failing.insert(what.to_owned(), why.to_owned()).is_none() {
            tracing::warn!(%why, "{what}: does not work; what runs goes on, and it is tried again");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What fails when the server doesn't answer.
const SERVER: &str = "API server";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_counts_and_the_first_success_ends_it() {
        let reach = Reach::default();
        assert_eq!(reach.metrics(), None);
        for _ in 0..3 {
            reach.refused(SERVER, "connection refused");
        }
        assert_eq!(reach.metrics(), Some((false, 3)));
        assert!(reach.why("Secret psk").is_some());
        reach.well("own DmvpnNode");
        assert_eq!(reach.metrics(), Some((true, 3)));
    }

    #[test]
    fn what_is_refused_stays_refused_while_other_things_go_well() {
        let reach = Reach::default();
        reach.refused("Secret psk", "forbidden");
        reach.well("own DmvpnNode");
        assert_eq!(reach.why("Secret psk").as_deref(), Some("forbidden"));
        assert_eq!(reach.why("Secret other"), None);
    }
}
