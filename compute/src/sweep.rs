//! Moving blocks that this node keeps and no dataset names any more into its trash.

use std::{convert::Infallible, time::Duration};

use storage::Store;

/// Pause between two looks: what they cost is a look through all blocks.
const EVERY: Duration = Duration::from_secs(1800);
/// Before the first one: a start has other things to do.
const FIRST: Duration = Duration::from_secs(60);

/// Sweeps for ever. Dropping the future loses nothing.
pub(crate) async fn now_and_then(store: &Store) -> Infallible {
    if store.local().is_none() {
        return std::future::pending().await;
    }
    tokio::time::sleep(FIRST).await;
    loop {
        match store.sweep_local().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(
                removed,
                "blocks that no dataset names were moved into the trash of this node's blocks"
            ),
            Err(failure) => tracing::warn!("blocks that no dataset names stay for now: {failure}"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
