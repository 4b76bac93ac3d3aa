//! The leader's side of agents: seeing who waits, offering a worker, moving.

use model::{
    Name,
    znode::{self, ClientData, WorkerOffer},
};
use zookeeper_client as zk;
use zookeeper_client::{MultiWriteError, MultiWriter};

use super::{Found, look};
use crate::{
    batch::{ANY_VERSION, guard_failed},
    error::{Error, is_lost_reply},
    layout::{Place, UNOWNED, WorkerNumber, client_name},
    leader::Leader,
    listing::{self, ReadSize},
};

/// An agent that waits in `/unowned`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingClient {
    /// Who it is, with the last offer.
    pub data: ClientData,
    /// Version of its znode: an offer is written over this one alone.
    pub version: i32,
}

impl Leader {
    /// The agents that wait for a worker; those with unreadable data are left out.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn waiting(&self) -> Result<Vec<WaitingClient>, Error> {
        let names = listing::children(&self.term, UNOWNED)
            .await?
            .map(|(names, _)| names)
            .unwrap_or_default();
        let paths: Vec<String> = names
            .iter()
            .filter_map(|name| client_name(name))
            .map(|name| Place::Unowned.client(&name))
            .collect();
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let found = look(&self.term, paths, &ReadSize::default()).await?;
        let waiting = found.into_iter().filter_map(|found| {
            let version = found.version;
            let data = found.data.ok()?;
            Some(WaitingClient { data, version })
        });
        Ok(waiting.collect())
    }

    /// Offers a worker to an agent; false when the agent is not there any more as it was read.
    ///
    /// Safe to repeat, and to drop half-way.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the candidate is gone; [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn offer(&self, client: &WaitingClient, offer: &WorkerOffer) -> Result<bool, Error> {
        let path = Place::Unowned.client(&client.data.agent);
        let data = ClientData {
            offer: Some(offer.clone()),
            ..client.data.clone()
        };
        let data = znode::encode(&data);
        crate::batch::check_size(&path, &data)?;
        let mut losses = 0;
        loop {
            let set = |writer: &mut MultiWriter<'_>| writer.add_set_data(&path, &data, Some(client.version));
            if let Some(done) = self.guarded(&path, set, &mut losses).await? {
                return Ok(done);
            }
            self.term.sync().await?;
            let found: Vec<Found> = look(&self.term, vec![path.clone()], &ReadSize::default()).await?;
            let Some(found) = found.first() else {
                return Ok(false);
            };
            if found.version != client.version {
                let written = found.data.as_ref().ok().and_then(|data| data.offer.as_ref());
                return Ok(written == Some(offer));
            }
        }
    }

    /// Takes an agent away from a worker, which tells it to ask for another; false when it is not there.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the candidate is gone; [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn move_client(&self, worker: WorkerNumber, name: &Name) -> Result<bool, Error> {
        let path = Place::Owned(worker).client(name);
        let mut losses = 0;
        let mut repeated = false;
        loop {
            let delete = |writer: &mut MultiWriter<'_>| writer.add_delete(&path, None);
            match self.guarded(&path, delete, &mut losses).await? {
                // After a lost reply it may have been deleted by the request before.
                Some(done) => return Ok(done || repeated),
                None => repeated = true,
            }
        }
    }

    /// One write beside the check of the candidate: whether it was done; none when the reply is lost.
    async fn guarded(
        &self,
        path: &str,
        write: impl FnOnce(&mut MultiWriter<'_>) -> Result<(), zk::Error>,
        losses: &mut u32,
    ) -> Result<Option<bool>, Error> {
        let reply = {
            let client = self.term.client()?;
            let mut writer = client.new_multi_writer();
            writer
                .add_check_version(&self.guard, ANY_VERSION)
                .and_then(|()| write(&mut writer))
                .map_err(|failure| Error::refused(path, failure))?;
            self.term.wait(writer.commit()).await?
        };
        match reply {
            Ok(_) => Ok(Some(true)),
            Err(MultiWriteError::OperationFailed { index: 0, source }) => {
                Err(guard_failed(&self.guard, source))
            }
            Err(MultiWriteError::OperationFailed {
                source: zk::Error::NoNode | zk::Error::BadVersion,
                ..
            }) => Ok(Some(false)),
            Err(MultiWriteError::RequestFailed { source }) if is_lost_reply(&source) => {
                self.term.after_loss(losses, path, &source).await?;
                Ok(None)
            }
            Err(failure) => Err(Error::refused(path, failure.into())),
        }
    }
}
