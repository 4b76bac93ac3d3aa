//! Views: queries whose answer is kept current.

#[cfg(feature = "sql")]
use model::JobId;
use model::{
    Name, View,
    name::nearest,
    processor::Merged,
    view::{Seen, ViewState},
};
use tokio::time::{Duration, Instant, sleep};

use crate::{Control, Error, ViewReport, reason};

/// How often a change is tried again while others change the same view.
const TRIES: u32 = 20;
/// Pause between two looks whether a view is removed.
const PAUSE: Duration = Duration::from_millis(50);

impl Control {
    /// Keeps a view that was planned; `tables` has the bytes of its small tables, in the order of its query. The leader
    /// computes its answer.
    ///
    /// # Errors
    /// [`Error::BadProcessor`] for a query that is too long; [`Error::Storage`], also where the name is taken.
    #[cfg(feature = "sql")]
    pub(crate) async fn keep_new_view(&self, mut view: View, tables: Vec<Vec<u8>>) -> Result<(), Error> {
        self.store_tables(JobId(view.id), &mut view.query, tables).await?;
        model::Processor::Query(view.query.clone()).check()?;
        Ok(self.store()?.create_view(&view).await?)
    }

    /// All views by name.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn views(&self) -> Result<Vec<View>, Error> {
        let views: Result<Vec<View>, storage::Error> = self.store()?.views().await?.into_iter().collect();
        Ok(views?)
    }

    /// The view of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchView`], [`Error::Storage`].
    pub async fn view(&self, name: &Name) -> Result<View, Error> {
        if let Some(found) = self.store()?.view(name).await? {
            return Ok(found);
        }
        let all = self.views().await?;
        let near = nearest(name.as_str(), all.iter().map(|view| view.name.as_str()));
        Err(Error::NoSuchView {
            name: name.clone(),
            near: near.and_then(|near| Name::new(near).ok()),
        })
    }

    /// Changes what is wanted of a view; gives it as it is then.
    ///
    /// # Errors
    /// [`Error::NoSuchView`], [`Error::ViewKeepsChanging`], [`Error::Storage`].
    pub async fn change_view(&self, name: &Name, change: impl Fn(&mut View)) -> Result<View, Error> {
        for _ in 0..TRIES {
            let mut view = self.view(name).await?;
            change(&mut view);
            if self.store()?.replace_view(&view).await? {
                return Ok(view);
            }
        }
        Err(Error::ViewKeepsChanging { name: name.clone() })
    }

    /// The datasets of a view as they stand.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn seen_by(&self, view: &View) -> Result<Vec<Seen>, Error> {
        Ok(self.store()?.seen_by(view).await?)
    }

    /// A merged state, as it was recorded.
    ///
    /// # Errors
    /// [`Error::ResultsGone`], [`Error::Storage`], [`Error::Unreadable`].
    pub async fn merged_state(&self, merged: Merged) -> Result<Vec<u8>, Error> {
        let found = self.store()?.result(merged.job, merged.index).await?;
        let found = found.ok_or(Error::ResultsGone {
            job: merged.job,
            found: 0,
            expected: 1,
        })?;
        self.partial_bytes(found).await
    }

    /// All views by name, as they stand.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn view_reports(&self) -> Result<Vec<ViewReport>, Error> {
        if let Some(remote) = self.remote() {
            return remote.views().await;
        }
        let mut reports = Vec::new();
        for view in self.views().await? {
            reports.push(self.report(&view).await?);
        }
        Ok(reports)
    }

    /// The view of this name as it stands, with the number of its rows.
    ///
    /// # Errors
    /// [`Error::NoSuchView`], [`Error::Storage`].
    pub async fn view_report(&self, name: &Name) -> Result<ViewReport, Error> {
        if let Some(remote) = self.remote() {
            return remote.view(name).await;
        }
        let view = self.view(name).await?;
        let rows = match view.merged {
            Some(_) => Some(self.store()?.view_rows(name).await?),
            None => None,
        };
        Ok(ViewReport {
            rows,
            ..self.report(&view).await?
        })
    }

    async fn report(&self, view: &View) -> Result<ViewReport, Error> {
        let seen = self.seen_by(view).await?;
        Ok(ViewReport::new(view, &seen, self.store()?.database()))
    }

    /// Pauses, resumes or removes a view; a view that is being removed is left alone. Gives it as it is then.
    ///
    /// # Errors
    /// [`Error::NoSuchView`], [`Error::ViewKeepsChanging`], [`Error::Storage`].
    pub async fn set_view_state(&self, name: &Name, state: ViewState) -> Result<ViewReport, Error> {
        if let Some(remote) = self.remote() {
            return remote.set_view_state(name, state).await;
        }
        let changed = self.change_view(name, |view| match (view.state, state) {
            // What is to be removed stays so.
            (ViewState::Removed, _) => {}
            (_, ViewState::Active) => view.resume(),
            (_, state) => view.state = state,
        });
        self.report(&changed.await?).await
    }

    /// Waits until a view that is to be removed is gone, at most for so long; whether it is.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn view_is_gone(&self, view: &ViewReport, within: Duration) -> Result<bool, Error> {
        let begun = Instant::now();
        loop {
            match self.view_report(&view.name).await {
                Ok(found) if found.id == view.id => {}
                Ok(_) => return Ok(true),
                Err(error) if error.is(reason::NO_SUCH_VIEW) => return Ok(true),
                Err(error) => return Err(error),
            }
            if begun.elapsed() >= within {
                return Ok(false);
            }
            sleep(PAUSE).await;
        }
    }
}
