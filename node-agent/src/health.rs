//! How this process is, told on a unix socket of its own from its first moment to its last: also while it waits for the
//! agent before it to end. The port for metrics is the node's, and whoever runs has it; a kubelet that asked there would
//! be told how that one is.

use crate::agent::Shared;
use crate::{grpc, metrics};
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use telemetry::Answer;

/// Who waits is well: an upgrade goes on by ending the agent before it.
const STANDING_BY: &str = "standing by until the agent before this one has ended\n";

/// What is told.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<OnceLock<Arc<Shared>>>);

impl Health {
    /// The agent runs: it is asked from here on.
    pub fn runs(&self, shared: &Arc<Shared>) {
        // It begins to run once.
        let _ = self.0.set(Arc::clone(shared));
    }

    /// Answers until the task is aborted.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub async fn serve(self, socket: &Path) -> io::Result<()> {
        let listener = grpc::listen(socket)?;
        telemetry::serve(listener, move |path| {
            let shared = self.0.get().cloned();
            async move {
                match (shared, path.as_str()) {
                    (Some(shared), path) => metrics::answer(path, &shared).await,
                    (None, "/healthz") => Answer::good(STANDING_BY),
                    (None, "/readyz") => Answer::unavailable(STANDING_BY),
                    (None, _) => Answer::unknown(),
                }
            }
        })
        .await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_another_to_end_is_well_and_carries_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("probe.sock");
        // One that a container before this one left.
        std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let served = socket.clone();
        tokio::spawn(async move { Health::default().serve(&served).await });
        while telemetry::ask(&socket, "/healthz").await.is_err_and(|why| why.contains("nobody answers")) {
            tokio::task::yield_now().await;
        }
        assert_eq!(telemetry::ask(&socket, "/healthz").await, Ok(STANDING_BY.to_owned()));
        assert_eq!(telemetry::ask(&socket, "/readyz").await, Err(STANDING_BY.trim_end().to_owned()));
    }
}
