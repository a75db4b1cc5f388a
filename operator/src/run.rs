//! One replica: waits until it leads, acts while it does, and stands by again.

use crate::context::Context;
use crate::lease::Election;
use crate::{approve, reconcile, watch};
use std::sync::Arc;

/// Runs the operator until `stop` returns.
pub async fn run(context: &Arc<Context>, leader_elect: bool, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut election = Election::new(context.client.clone(), &context.namespace, &context.identity);
    loop {
        if leader_elect {
            tokio::select! {
                () = &mut stop => return,
                () = election.win(|| context.metrics.synced(true)) => {}
            }
        }
        context.metrics.leads(true);
        tracing::info!(identity = context.identity, "leading");
        // Watches begin with leading: their first listing has everything that a leader before us wrote.
        let (stores, mut tasks) = watch::Stores::follow(context);
        tasks.spawn(reconcile::run(Arc::clone(context), Arc::clone(&stores)));
        tasks.spawn(approve::run(Arc::clone(context), stores));
        let hold = async { if leader_elect { election.hold().await } else { std::future::pending().await } };
        let stopped = tokio::select! {
            () = &mut stop => true,
            () = hold => false,
            // None of them ends by itself: it panicked, and half an operator is worse than a restart.
            _ = tasks.join_next() => {
                tracing::error!("a part of the operator ended");
                true
            }
        };
        context.metrics.leads(false);
        tasks.shutdown().await;
        if stopped {
            if leader_elect {
                election.release().await;
            }
            return;
        }
    }
}
