//! Datasets, questions and views, asked of a gateway.

use api::{
    transport::Channel,
    v1::{self, catalog_client::CatalogClient},
};
use futures::TryStreamExt as _;
use model::{Block, Name, view::ViewState};
use storage::Dataset;
use tonic::Streaming;

use super::{Remote, registry::document};
use crate::{
    AddReport, Adding, Asked, Changes, Error, Explanation, FileReport, Question, Source, TakenOut,
    ViewReport, wire,
};

/// Bytes of a question with its small tables, as the gateway takes them.
const QUESTION_BYTES: usize = 20 << 20;

fn client(channel: Channel) -> CatalogClient<Channel> {
    CatalogClient::new(channel).max_encoding_message_size(QUESTION_BYTES)
}

impl Remote {
    pub(crate) async fn datasets(&self) -> Result<Vec<Dataset>, Error> {
        let asked = self.look(v1::ListDatasetsRequest {}, async |channel, request| {
            client(channel).list_datasets(request).await
        });
        let datasets = self.told(asked.await?).await;
        datasets
            .and_then(async |dataset| Ok(wire::dataset(dataset)?))
            .try_collect()
            .await
    }

    pub(crate) async fn dataset(&self, name: &Name, describe: bool) -> Result<Dataset, Error> {
        let request = v1::GetDatasetRequest {
            name: name.to_string(),
            describe,
        };
        let asked = self.look(request, async |channel, request| {
            client(channel).get_dataset(request).await
        });
        Ok(wire::dataset(asked.await?)?)
    }

    pub(crate) async fn compact_dataset(&self, name: &Name) -> Result<Dataset, Error> {
        let request = v1::DatasetReference {
            name: name.to_string(),
        };
        let asked = self.change(request, async |channel, request| {
            client(channel).compact_dataset(request).await
        });
        Ok(wire::dataset(asked.await?)?)
    }

    pub(crate) async fn blocks(&self, dataset: &Name, limit: u32) -> Result<Vec<(u32, Block)>, Error> {
        let request = v1::ListBlocksRequest {
            dataset: dataset.to_string(),
            limit,
        };
        let asked = self.look(request, async |channel, request| {
            client(channel).list_blocks(request).await
        });
        let blocks = self.told(asked.await?).await;
        blocks
            .and_then(async |block| Ok((block.number.unwrap_or(0), Block::try_from(block)?)))
            .try_collect()
            .await
    }

    pub(crate) async fn add_files(&self, adding: &Adding) -> Result<AddReport, Error> {
        let asked = self.change(wire::adding_message(adding), async |channel, request| {
            client(channel).add_files(request).await
        });
        Ok(wire::read_added(asked.await?)?)
    }

    pub(crate) async fn refresh_dataset(&self, name: &Name, block_size: u64) -> Result<AddReport, Error> {
        let request = v1::RefreshDatasetRequest {
            name: name.to_string(),
            block_size: Some(block_size),
        };
        let asked = self.change(request, async |channel, request| {
            client(channel).refresh_dataset(request).await
        });
        Ok(wire::read_added(asked.await?)?)
    }

    pub(crate) async fn look_at_files(&self, name: &Name) -> Result<Vec<FileReport>, Error> {
        let request = v1::DatasetReference {
            name: name.to_string(),
        };
        let asked = self.look(request, async |channel, request| {
            client(channel).look_at_files(request).await
        });
        let reports = asked.await?.reports.into_iter().map(wire::report);
        Ok(reports.collect::<Result<_, _>>()?)
    }

    pub(crate) async fn remove_file(&self, name: &Name, file: &Source) -> Result<TakenOut, Error> {
        let request = v1::RemoveFileRequest {
            dataset: name.to_string(),
            place: file.as_str().to_string(),
        };
        let asked = self.change(request, async |channel, request| {
            client(channel).remove_file(request).await
        });
        let reply = asked.await?;
        Ok(TakenOut {
            dataset: reply.dataset.map(wire::dataset).transpose()?,
            blocks: reply.blocks,
            bytes: reply.bytes,
            back: 0,
        })
    }

    pub(crate) async fn undo_add(&self, name: &Name) -> Result<TakenOut, Error> {
        let request = v1::DatasetReference {
            name: name.to_string(),
        };
        let asked = self.change(request, async |channel, request| {
            client(channel).undo_add(request).await
        });
        let reply = asked.await?;
        Ok(TakenOut {
            dataset: reply.dataset.map(wire::dataset).transpose()?,
            blocks: reply.blocks,
            bytes: reply.bytes,
            back: reply.back,
        })
    }

    pub(crate) async fn set_dataset(&self, name: &Name, changes: &Changes) -> Result<Dataset, Error> {
        let request = wire::changes_message(name.as_str(), changes);
        let asked = self.change(request, async |channel, request| {
            client(channel).set_dataset(request).await
        });
        Ok(wire::dataset(asked.await?)?)
    }

    pub(crate) async fn remove_dataset(&self, name: &Name) -> Result<Dataset, Error> {
        let request = v1::DatasetReference {
            name: name.to_string(),
        };
        let asked = self.change(request, async |channel, request| {
            client(channel).remove_dataset(request).await
        });
        Ok(wire::dataset(asked.await?)?)
    }

    pub(crate) async fn head(&self, dataset: &Name, lines: u32) -> Result<Vec<u8>, Error> {
        let request = v1::HeadRequest {
            dataset: dataset.to_string(),
            lines: Some(lines),
        };
        let asked = self.look(request, async |channel, request| {
            client(channel).head(request).await
        });
        self.bytes(asked.await?).await
    }

    pub(crate) async fn ask(&self, question: &Question) -> Result<Asked, Error> {
        let request = wire::question_message(question);
        let asked = self.change(request, async |channel, request| {
            client(channel).ask(request).await
        });
        Ok(wire::asked(asked.await?)?)
    }

    pub(crate) async fn explain(&self, question: &Question) -> Result<Explanation, Error> {
        let request = wire::question_message(question);
        let asked = self.look(request, async |channel, request| {
            client(channel).explain(request).await
        });
        document(&asked.await?.document_json)
    }

    pub(crate) async fn create_view(
        &self,
        name: &Name,
        question: &Question,
        every_ms: u64,
    ) -> Result<String, Error> {
        let request = v1::CreateViewRequest {
            name: name.to_string(),
            question: Some(wire::question_message(question)),
            every_ms,
        };
        let asked = self.change(request, async |channel, request| {
            client(channel).create_view(request).await
        });
        Ok(asked.await?.database)
    }

    pub(crate) async fn views(&self) -> Result<Vec<ViewReport>, Error> {
        let asked = self.look(v1::ListViewsRequest {}, async |channel, request| {
            client(channel).list_views(request).await
        });
        let views = self.told(asked.await?).await;
        views
            .and_then(async |view| Ok(wire::view(view)?))
            .try_collect()
            .await
    }

    pub(crate) async fn view(&self, name: &Name) -> Result<ViewReport, Error> {
        let asked = self.look(view_of(name), async |channel, request| {
            client(channel).get_view(request).await
        });
        Ok(wire::view(asked.await?)?)
    }

    pub(crate) async fn set_view_state(&self, name: &Name, state: ViewState) -> Result<ViewReport, Error> {
        let request = v1::SetViewStateRequest {
            name: name.to_string(),
            state: wire::view_state_message(state).into(),
        };
        let asked = self.change(request, async |channel, request| {
            client(channel).set_view_state(request).await
        });
        Ok(wire::view(asked.await?)?)
    }

    pub(crate) async fn view_answer(&self, name: &Name) -> Result<Vec<u8>, Error> {
        let asked = self.look(view_of(name), async |channel, request| {
            client(channel).view_answer(request).await
        });
        self.bytes(asked.await?).await
    }

    /// All chunks together.
    async fn bytes(&self, chunks: Streaming<v1::Chunk>) -> Result<Vec<u8>, Error> {
        let chunks = self.told(chunks).await;
        let together = chunks.try_fold(Vec::new(), async |mut bytes, chunk| {
            bytes.extend_from_slice(&chunk.data);
            Ok(bytes)
        });
        together.await
    }
}

fn view_of(name: &Name) -> v1::ViewReference {
    v1::ViewReference {
        name: name.to_string(),
    }
}
