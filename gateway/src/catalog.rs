//! `sawmill.v1.Catalog`: datasets, queries and views.

use api::{
    transport::holder,
    v1::{self, catalog_server::Catalog},
};
use control::{Control, Question, wire};
use model::Name;
use pki::Peer;
use tonic::{Code, Request, Response, Status};

use crate::{
    feed::{Answers, Feed, Feeds},
    journal::Journal,
    queue::{MOST_LISTED, SHORT_LIST, chunks, told},
    refuse,
    room::{Room, Taken},
};

/// Lines of a dataset that are shown where nobody says how many, and at most.
const HEAD_LINES: u32 = 10;
const MOST_HEAD_LINES: u32 = 10_000;

/// The service.
pub(crate) struct Service {
    control: Control,
    feeds: Feeds,
    room: Room,
    journal: Journal,
}

impl Service {
    pub(crate) fn new(control: Control, feeds: Feeds, room: Room, journal: Journal) -> Self {
        Self {
            control,
            feeds,
            room,
            journal,
        }
    }

    /// Writes down a change that was made.
    async fn log(&self, peer: &Peer, what: &str, subject: &Name, details: String) {
        self.control
            .log(&peer.to_string(), what, subject.as_str(), details)
            .await;
    }

    /// A stream of messages that are at hand, and take a place until they are read where there are many.
    fn list<T: Send + 'static>(&self, messages: Vec<T>, taken: Option<Taken>) -> Response<Answers<T>> {
        Response::new(self.feeds.stream(async move |feed: Feed<T>| {
            let _taken = taken;
            for message in messages {
                feed.put(message).await?;
            }
            Ok(())
        }))
    }
}

pub(crate) fn named(text: &str) -> Result<Name, Status> {
    wire::name("name", text).map_err(|error| wire::malformed(&error))
}

fn understood<T>(read: Result<T, api::Malformed>) -> Result<T, Status> {
    read.map_err(|error| wire::malformed(&error))
}

fn question(message: Option<v1::Question>) -> Result<Question, Status> {
    let given = message.ok_or_else(|| api::Malformed::new("question", "it is missing"));
    understood(given.and_then(wire::question))
}

#[tonic::async_trait]
impl Catalog for Service {
    type ListDatasetsStream = Answers<v1::Dataset>;

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<Self::ListDatasetsStream>, Status> {
        let taken = self.room.list(&holder(&request)).await?;
        let datasets = self.control.datasets().await.map_err(told)?;
        let messages = datasets.iter().map(wire::dataset_message).collect();
        Ok(self.list(messages, Some(taken)))
    }

    async fn get_dataset(
        &self,
        request: Request<v1::GetDatasetRequest>,
    ) -> Result<Response<v1::Dataset>, Status> {
        let who = holder(&request);
        let request = request.get_ref();
        let name = named(&request.name)?;
        let dataset = match request.describe {
            true => {
                let _taken = self.room.plan(&who).await?;
                self.control.described(&name).await
            }
            false => self.control.dataset(&name).await,
        };
        Ok(Response::new(wire::dataset_message(&dataset.map_err(told)?)))
    }

    type ListBlocksStream = Answers<v1::Block>;

    async fn list_blocks(
        &self,
        request: Request<v1::ListBlocksRequest>,
    ) -> Result<Response<Self::ListBlocksStream>, Status> {
        let who = holder(&request);
        let request = request.get_ref();
        let taken = match request.limit {
            0..=SHORT_LIST => None,
            _ => Some(self.room.list(&who).await?),
        };
        let dataset = self
            .control
            .dataset(&named(&request.dataset)?)
            .await
            .map_err(told)?;
        let blocks = self
            .control
            .first_blocks(&dataset, request.limit.min(MOST_LISTED))
            .await;
        let message = |(number, block): &(u32, model::Block)| v1::Block {
            number: Some(*number),
            ..v1::Block::from(block)
        };
        Ok(self.list(blocks.map_err(told)?.iter().map(message).collect(), taken))
    }

    async fn add_files(
        &self,
        request: Request<v1::AddFilesRequest>,
    ) -> Result<Response<v1::AddFilesReply>, Status> {
        let peer = refuse::asker(&request);
        // Whatever the mill can read is shown to whoever may add it.
        refuse::may_read_files(&peer)?;
        let who = holder(&request);
        let adding = understood(wire::adding(request.into_inner()))?;
        let _taken = self.room.plan(&who).await?;
        let added = self.control.add_files(&adding).await.map_err(told)?;
        let places: Vec<&str> = adding.sources.iter().map(control::Source::as_str).collect();
        self.log(&peer, "dataset.add", &adding.dataset, places.join(" "))
            .await;
        Ok(Response::new(wire::added_message(&added)))
    }

    async fn refresh_dataset(
        &self,
        request: Request<v1::RefreshDatasetRequest>,
    ) -> Result<Response<v1::AddFilesReply>, Status> {
        let peer = refuse::asker(&request);
        let who = holder(&request);
        let request = request.get_ref();
        let name = named(&request.name)?;
        let _taken = self.room.plan(&who).await?;
        let block_size = wire::block_size(request.block_size);
        let added = self
            .control
            .refresh_dataset(&name, block_size)
            .await
            .map_err(told)?;
        self.log(&peer, "dataset.refresh", &name, format!("{} bytes", added.bytes))
            .await;
        Ok(Response::new(wire::added_message(&added)))
    }

    async fn look_at_files(
        &self,
        request: Request<v1::DatasetReference>,
    ) -> Result<Response<v1::LookAtFilesReply>, Status> {
        let who = holder(&request);
        let name = named(&request.get_ref().name)?;
        let _taken = self.room.plan(&who).await?;
        let reports = self.control.look_at_files(&name).await.map_err(told)?;
        Ok(Response::new(v1::LookAtFilesReply {
            reports: reports.iter().map(wire::report_message).collect(),
        }))
    }

    async fn remove_file(
        &self,
        request: Request<v1::RemoveFileRequest>,
    ) -> Result<Response<v1::RemoveFileReply>, Status> {
        let peer = refuse::asker(&request);
        let who = holder(&request);
        let request = request.get_ref();
        let name = named(&request.dataset)?;
        let file = understood(wire::source("place", &request.place))?;
        let _taken = self.room.plan(&who).await?;
        let taken_out = self.control.remove_file(&name, &file).await.map_err(told)?;
        self.log(&peer, "dataset.remove-file", &name, file.as_str().into())
            .await;
        Ok(Response::new(v1::RemoveFileReply {
            dataset: taken_out.dataset.as_ref().map(wire::dataset_message),
            blocks: taken_out.blocks,
            bytes: taken_out.bytes,
        }))
    }

    async fn undo_add(
        &self,
        request: Request<v1::DatasetReference>,
    ) -> Result<Response<v1::UndoAddReply>, Status> {
        let peer = refuse::asker(&request);
        let name = named(&request.get_ref().name)?;
        let undone = self.control.undo_add(&name).await.map_err(told)?;
        self.log(&peer, "dataset.undo", &name, format!("{} blocks", undone.blocks))
            .await;
        Ok(Response::new(v1::UndoAddReply {
            dataset: undone.dataset.as_ref().map(wire::dataset_message),
            blocks: undone.blocks,
            bytes: undone.bytes,
            back: undone.back,
        }))
    }

    async fn set_dataset(
        &self,
        request: Request<v1::SetDatasetRequest>,
    ) -> Result<Response<v1::Dataset>, Status> {
        let peer = refuse::asker(&request);
        let request = request.into_inner();
        let name = named(&request.name)?;
        let changes = understood(wire::changes(request))?;
        let dataset = self.control.set_dataset(&name, &changes).await.map_err(told)?;
        self.log(&peer, "dataset.set", &name, format!("{changes:?}"))
            .await;
        Ok(Response::new(wire::dataset_message(&dataset)))
    }

    async fn compact_dataset(
        &self,
        request: Request<v1::DatasetReference>,
    ) -> Result<Response<v1::Dataset>, Status> {
        let peer = refuse::asker(&request);
        let name = named(&request.get_ref().name)?;
        let dataset = self.control.compact_dataset(&name).await.map_err(told)?;
        self.log(&peer, "dataset.compact", &name, dataset.id.to_string())
            .await;
        Ok(Response::new(wire::dataset_message(&dataset)))
    }

    async fn remove_dataset(
        &self,
        request: Request<v1::DatasetReference>,
    ) -> Result<Response<v1::Dataset>, Status> {
        let peer = refuse::asker(&request);
        let name = named(&request.get_ref().name)?;
        let dataset = self.control.remove_dataset(&name).await.map_err(told)?;
        self.log(&peer, "dataset.remove", &name, dataset.id.to_string())
            .await;
        Ok(Response::new(wire::dataset_message(&dataset)))
    }

    type HeadStream = Answers<v1::Chunk>;

    async fn head(&self, request: Request<v1::HeadRequest>) -> Result<Response<Self::HeadStream>, Status> {
        let who = holder(&request);
        let request = request.get_ref();
        let lines = request.lines.unwrap_or(HEAD_LINES);
        if !(1..=MOST_HEAD_LINES).contains(&lines) {
            let why = format!("it is not within 1 to {MOST_HEAD_LINES}");
            return Err(wire::malformed(&api::Malformed::new("lines", why)));
        }
        let taken = self.room.answer(&who).await?;
        let making = self.room.plan(&who).await?;
        let answer = self.control.head(&named(&request.dataset)?, lines).await;
        drop(making);
        Ok(Response::new(chunks(&self.feeds, answer.map_err(told)?, taken)))
    }

    async fn ask(&self, request: Request<v1::Question>) -> Result<Response<v1::Asked>, Status> {
        let peer = refuse::asker(&request);
        let who = holder(&request);
        let question = question(Some(request.into_inner()))?;
        if question.into.is_some() {
            refuse::may_fill_collections(&peer)?;
        }
        let _taken = self.room.plan(&who).await?;
        let control = self.control.submitting_for(&peer.to_string());
        let asked = control.ask(&question).await.map_err(told)?;
        self.journal.asked(&peer, &asked.answer, &question.sql).await;
        Ok(Response::new(wire::asked_message(&asked)))
    }

    async fn explain(&self, request: Request<v1::Question>) -> Result<Response<v1::Explanation>, Status> {
        let who = holder(&request);
        let question = question(Some(request.into_inner()))?;
        let _taken = self.room.plan(&who).await?;
        let explanation = self.control.explain(&question).await.map_err(told)?;
        Ok(Response::new(v1::Explanation {
            document_json: document(&explanation)?,
        }))
    }

    async fn create_view(
        &self,
        request: Request<v1::CreateViewRequest>,
    ) -> Result<Response<v1::ViewMade>, Status> {
        let peer = refuse::asker(&request);
        let who = holder(&request);
        let request = request.into_inner();
        let name = named(&request.name)?;
        let question = question(request.question)?;
        let _taken = self.room.plan(&who).await?;
        let made = self.control.create_view(&name, &question, request.every_ms).await;
        let database = made.map_err(told)?;
        self.log(&peer, "view.create", &name, question.sql).await;
        Ok(Response::new(v1::ViewMade { database }))
    }

    type ListViewsStream = Answers<v1::View>;

    async fn list_views(
        &self,
        request: Request<v1::ListViewsRequest>,
    ) -> Result<Response<Self::ListViewsStream>, Status> {
        let taken = self.room.list(&holder(&request)).await?;
        let views = self.control.view_reports().await.map_err(told)?;
        let messages = views.iter().map(wire::view_message).collect();
        Ok(self.list(messages, Some(taken)))
    }

    async fn get_view(&self, request: Request<v1::ViewReference>) -> Result<Response<v1::View>, Status> {
        let view = self.control.view_report(&named(&request.get_ref().name)?).await;
        Ok(Response::new(wire::view_message(&view.map_err(told)?)))
    }

    async fn set_view_state(
        &self,
        request: Request<v1::SetViewStateRequest>,
    ) -> Result<Response<v1::View>, Status> {
        let peer = refuse::asker(&request);
        let request = request.get_ref();
        let (name, state) = (
            named(&request.name)?,
            understood(wire::view_state(request.state))?,
        );
        let view = self.control.set_view_state(&name, state).await.map_err(told)?;
        self.log(&peer, "view.set", &name, state.as_str().into()).await;
        Ok(Response::new(wire::view_message(&view)))
    }

    type ViewAnswerStream = Answers<v1::Chunk>;

    async fn view_answer(
        &self,
        request: Request<v1::ViewReference>,
    ) -> Result<Response<Self::ViewAnswerStream>, Status> {
        let who = holder(&request);
        let taken = self.room.answer(&who).await?;
        let making = self.room.plan(&who).await?;
        let answer = self.control.view_answer(&named(&request.get_ref().name)?).await;
        drop(making);
        Ok(Response::new(chunks(&self.feeds, answer.map_err(told)?, taken)))
    }
}

/// A document that travels as JSON.
///
/// # Errors
/// INTERNAL for one that JSON does not take.
pub(crate) fn document(told: &impl serde::Serialize) -> Result<String, Status> {
    serde_json::to_string(told)
        .map_err(|error| api::refusal(Code::Internal, "UNREADABLE", error.to_string(), []))
}
