//! Keeps views current: submits a refresh for each that is due, and takes over what it gave.
//!
//! All that is known of a view is in its document, which changes together with the job that is submitted for it. So a new
//! leader goes on from the documents alone, and no refresh is submitted twice.

use std::time::{Duration, Instant};

use model::{
    JobId, View,
    view::{MOST_LEFT_OUT, ViewState},
};
use uuid::Uuid;

use crate::{Error, leading::Leading};

/// How often views are looked at.
const INTERVAL: Duration = Duration::from_millis(250);

impl Leading {
    /// Looks after all views when it is time to; whether anything moved.
    pub(crate) async fn look_after_views(&mut self) -> Result<bool, Error> {
        let due = self.views_at.is_none_or(|at| at.elapsed() >= INTERVAL);
        let Some(version) = self.config.query_version.clone().filter(|_| due) else {
            return Ok(false);
        };
        self.views_at = Some(Instant::now());
        let mut moved = false;
        for view in self.store.views().await? {
            let looked = match view {
                Ok(view) => self.look_after_view(view, &version).await,
                Err(error) => Err(error.into()),
            };
            match looked {
                Ok(any) => moved |= any,
                Err(error) if error.is_retryable() || error.is_deposed() => return Err(error),
                Err(error) => {
                    let told = error.to_string();
                    if self.reported.insert(told.clone()) {
                        tracing::error!("a view can't be looked after: {told}");
                    }
                }
            }
        }
        Ok(moved)
    }

    async fn look_after_view(&mut self, mut view: View, version: &str) -> Result<bool, Error> {
        if let Some(job) = view.under_way {
            return self.follow_refresh(view, job).await;
        }
        if view.state == ViewState::Removed {
            let removed = self.store.remove_view(self.epoch, &view).await?;
            tracing::info!(view = %view.name, "removed");
            return Ok(removed);
        }
        let now_ms = self.store.now_ms().await?;
        if !view.may_refresh(now_ms) {
            return Ok(false);
        }
        let seen = self.store.seen_by(&view).await?;
        let id = JobId(Uuid::now_v7());
        let job = match view.refresh(&seen, version, id, now_ms) {
            Ok(None) => return Ok(false),
            Ok(Some(job)) => Some(job),
            Err(why) => {
                view.failed(why.to_string());
                None
            }
        };
        view.tried_ms = Some(now_ms);
        view.under_way = job.as_ref().map(|job| job.id);
        let kept = self.store.keep_view(self.epoch, &view, job.as_ref()).await?;
        if let Some(job) = job.filter(|_| kept) {
            tracing::debug!(view = %view.name, job = %job.id, blocks = job.blocks, "refreshing");
        }
        Ok(kept)
    }

    /// Takes over the end of a refresh.
    async fn follow_refresh(&self, mut view: View, id: JobId) -> Result<bool, Error> {
        let progress = self.store.progress(&[id]).await?;
        match progress.first() {
            Some(progress) if !progress.state.is_final() => {
                if view.state == ViewState::Removed && !progress.cancel_requested {
                    self.store.request_cancel(id).await?;
                }
                return Ok(false);
            }
            _ => {}
        }
        // What a run of its merge puts in place from now on would be older than what comes next.
        self.store.end_filling(id).await?;
        match self.store.job(id).await? {
            Some(job) => {
                let most = u32::try_from(MOST_LEFT_OUT + 1).unwrap_or(u32::MAX);
                let failed = self.store.failed_results(id, most).await?;
                view.ended(&job, &failed);
            }
            None => view.failed(format!("its job {id} is gone")),
        }
        if let Some(error) = &view.error {
            tracing::warn!(view = %view.name, job = %id, "not refreshed: {error}");
        }
        Ok(self.store.keep_view(self.epoch, &view, None).await?)
    }
}
