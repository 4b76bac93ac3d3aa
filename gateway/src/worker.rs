//! `sawmill.v1.Worker`: passed on to the workers, each of which keeps its own tasks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{
    behalf,
    transport::{self, Channel, Security},
    v1::{self, worker_client::WorkerClient, worker_server::Worker},
};
use control::Control;
use futures::{StreamExt as _, future::join_all, stream::BoxStream};
use pki::Peer;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use crate::{refuse, room::Room};

/// The service.
pub(crate) struct Service {
    control: Control,
    room: Room,
    security: Security,
    /// Connections by the endpoint of the worker.
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

/// How long a worker may take to answer, or to begin with the output of a task. It answers at once, and ends a task within
/// seconds; one that hangs would hold up its callers for ever.
const ANSWER: Duration = Duration::from_secs(60);

/// Most characters of a command in the audit log.
const COMMAND_CHARS: usize = 500;

/// A live worker that can be asked.
struct Place {
    node: String,
    endpoint: String,
}

impl Service {
    pub(crate) fn new(control: Control, room: Room, security: Security) -> Self {
        Self {
            control,
            room,
            security,
            channels: Arc::default(),
        }
    }

    /// Writes down what was started or stopped.
    async fn log(&self, peer: &Peer, what: &str, task: &str, details: String) {
        let details = details.chars().take(COMMAND_CHARS).collect();
        self.control.log(&peer.to_string(), what, task, details).await;
    }

    /// Live workers that take connections.
    async fn places(&self, who: &str) -> Result<Vec<Place>, Status> {
        let _taken = self.room.look(who).await?;
        let workers = self.control.workers().await;
        let workers =
            workers.map_err(|error| api::refusal(Code::Unavailable, "UNAVAILABLE", error.to_string(), []))?;
        let place = |worker: control::Worker| {
            Some(Place {
                node: worker.node,
                endpoint: worker.endpoint?,
            })
        };
        Ok(workers
            .into_iter()
            .filter(|worker| worker.alive)
            .filter_map(place)
            .collect())
    }

    /// The client of the live worker of this node; `worker` may be the name of its folder too.
    async fn client_of(&self, worker: &str, who: &str) -> Result<WorkerClient<Channel>, Status> {
        let places = self.places(who).await?;
        let known: Vec<&str> = places.iter().map(|place| place.node.as_str()).collect();
        let Some(place) = places.iter().find(|place| place.node == worker) else {
            let message = format!(
                "no live worker {worker} takes connections; there are: {}",
                if known.is_empty() {
                    "none".into()
                } else {
                    known.join(", ")
                }
            );
            let place = [("worker", worker.to_string())];
            return Err(api::refusal(Code::NotFound, "NO_SUCH_WORKER", message, place));
        };
        self.client(place).await
    }

    async fn client(&self, place: &Place) -> Result<WorkerClient<Channel>, Status> {
        let known = {
            let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.get(&place.endpoint).cloned()
        };
        let channel = match known {
            Some(channel) => channel,
            None => {
                let channel = transport::connect(&place.endpoint, &self.security).await;
                let channel = channel.map_err(|why| {
                    let message = format!("worker {}: {why}", place.node);
                    api::refusal(Code::Unavailable, "WORKER_UNREACHABLE", message, [])
                })?;
                let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
                channels.insert(place.endpoint.clone(), channel.clone());
                channel
            }
        };
        Ok(WorkerClient::new(channel))
    }
}

/// What a worker answers, unless that takes too long.
async fn answered<T>(answering: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(ANSWER, answering).await.unwrap_or_else(|_| {
        let message = format!(
            "the worker has not answered within {ANSWER:?}; what was asked of it may be done all the same"
        );
        Err(api::refusal(
            Code::DeadlineExceeded,
            "WORKER_UNREACHABLE",
            message,
            [],
        ))
    })
}

/// The node in NODE/ID.
fn node_of(task: &str) -> Result<&str, Status> {
    task.rsplit_once('/').map(|(node, _)| node).ok_or_else(|| {
        let message = format!("{task:?} is no task: it is named NODE/ID, as when it was started");
        api::refusal(Code::InvalidArgument, "BAD_TASK", message, [])
    })
}

#[tonic::async_trait]
impl Worker for Service {
    type TaskOutputStream = BoxStream<'static, Result<v1::TaskOutputReply, Status>>;

    async fn start_task(&self, request: Request<v1::StartTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let (peer, who) = (refuse::asker(&request), transport::holder(&request));
        let request = request.into_inner();
        let (worker, command) = (request.worker.clone(), request.command.clone());
        let mut client = self.client_of(&worker, &who).await?;
        let started = answered(client.start_task(behalf::pass_on(request, &peer)?)).await?;
        self.log(&peer, "task.start", &started.get_ref().name, command)
            .await;
        Ok(started)
    }

    async fn stop_task(&self, request: Request<v1::TaskRequest>) -> Result<Response<v1::Task>, Status> {
        let (peer, who) = (refuse::asker(&request), transport::holder(&request));
        let mut client = self.client_of(node_of(&request.get_ref().task)?, &who).await?;
        let stopped = client.stop_task(behalf::pass_on(request.into_inner(), &peer)?);
        let stopped = answered(stopped).await?;
        self.log(&peer, "task.stop", &stopped.get_ref().name, String::new())
            .await;
        Ok(stopped)
    }

    async fn get_task(&self, request: Request<v1::TaskRequest>) -> Result<Response<v1::Task>, Status> {
        let (peer, who) = (refuse::asker(&request), transport::holder(&request));
        let mut client = self.client_of(node_of(&request.get_ref().task)?, &who).await?;
        answered(client.get_task(behalf::pass_on(request.into_inner(), &peer)?)).await
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksReply>, Status> {
        let (peer, who) = (refuse::asker(&request), transport::holder(&request));
        let asked = request.into_inner();
        if !asked.worker.is_empty() {
            let mut client = self.client_of(&asked.worker, &who).await?;
            return answered(client.list_tasks(behalf::pass_on(asked, &peer)?)).await;
        }
        let places = self.places(&who).await?;
        let asking = places.iter().map(async |place| {
            let mut client = self.client(place).await?;
            let request = behalf::pass_on(v1::ListTasksRequest::default(), &peer)?;
            Ok::<_, Status>(answered(client.list_tasks(request)).await?.into_inner())
        });
        let mut all = v1::ListTasksReply::default();
        for (place, reply) in places.iter().zip(join_all(asking).await) {
            match reply {
                Ok(reply) => {
                    all.tasks.extend(reply.tasks);
                    all.nodes.extend(reply.nodes);
                }
                Err(why) => all.silent.push(format!("{}: {}", place.node, why.message())),
            }
        }
        all.tasks.sort_by_key(|task| std::cmp::Reverse(task.started_ms));
        Ok(Response::new(all))
    }

    async fn task_output(
        &self,
        request: Request<v1::TaskOutputRequest>,
    ) -> Result<Response<Self::TaskOutputStream>, Status> {
        let (peer, who) = (refuse::asker(&request), transport::holder(&request));
        let taken = self.room.output(&who)?;
        let mut client = self.client_of(node_of(&request.get_ref().task)?, &who).await?;
        let stream = client.task_output(behalf::pass_on(request.into_inner(), &peer)?);
        let stream = answered(stream).await?.into_inner();
        Ok(Response::new(
            stream
                .inspect(move |_| {
                    // Until the stream ends.
                    let _taken = &taken;
                })
                .boxed(),
        ))
    }
}
