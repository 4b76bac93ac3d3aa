//! `sawmill.v1.Worker`, as a worker serves it for itself.

use std::time::Duration;

use api::{
    behalf,
    v1::{self, worker_server::Worker},
};
use futures::{StreamExt as _, stream::BoxStream};
use tonic::{Code, Request, Response, Status};

use crate::{Error, Tasks, board::Order, follow::follow};

/// Most bytes of standard input that are given along.
const INPUT_BYTES: usize = 1 << 20;

#[tonic::async_trait]
impl Worker for Tasks {
    type TaskOutputStream = BoxStream<'static, Result<v1::TaskOutputReply, Status>>;

    async fn start_task(&self, request: Request<v1::StartTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let owner = behalf::peer(&request)?;
        if !owner.may_exec() {
            let message = format!("{owner} may not run commands: its certificate needs --may-exec");
            return Err(api::refusal(
                Code::PermissionDenied,
                "PERMISSION_DENIED",
                message,
                [],
            ));
        }
        let asked = request.into_inner();
        if asked.input.len() > INPUT_BYTES {
            let message = format!("a task gets at most {INPUT_BYTES} bytes of standard input along");
            return Err(api::refusal(Code::InvalidArgument, "INPUT_TOO_LONG", message, []));
        }
        let order = Order {
            command: asked.command,
            owner,
            time: (asked.timeout_ms > 0).then(|| Duration::from_millis(asked.timeout_ms)),
            output_bytes: (asked.output_limit_bytes > 0).then_some(asked.output_limit_bytes),
            input: asked.input.into(),
        };
        let record = self.start(order).await.map_err(refused)?;
        Ok(Response::new(record.message()))
    }

    async fn stop_task(&self, request: Request<v1::TaskRequest>) -> Result<Response<v1::Task>, Status> {
        let peer = behalf::peer(&request)?;
        let record = self.find(&request.get_ref().task, &peer).map_err(refused)?;
        record.stop.cancel();
        let mut progress = record.progress.subscribe();
        // It ends within seconds: the guard kills all of it.
        let _ = progress.wait_for(|progress| progress.end.is_some()).await;
        Ok(Response::new(record.message()))
    }

    async fn get_task(&self, request: Request<v1::TaskRequest>) -> Result<Response<v1::Task>, Status> {
        let peer = behalf::peer(&request)?;
        let record = self.find(&request.get_ref().task, &peer).map_err(refused)?;
        Ok(Response::new(record.message()))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksReply>, Status> {
        let peer = behalf::peer(&request)?;
        let tasks = self.list(&peer).iter().map(|record| record.message()).collect();
        Ok(Response::new(v1::ListTasksReply {
            tasks,
            silent: Vec::new(),
            nodes: self
                .runs_commands()
                .map(ToString::to_string)
                .into_iter()
                .collect(),
        }))
    }

    async fn task_output(
        &self,
        request: Request<v1::TaskOutputRequest>,
    ) -> Result<Response<Self::TaskOutputStream>, Status> {
        let peer = behalf::peer(&request)?;
        let asked = request.into_inner();
        let record = self.find(&asked.task, &peer).map_err(refused)?;
        let from = [asked.stdout_from, asked.stderr_from];
        Ok(Response::new(follow(record, from, asked.until_now).boxed()))
    }
}

fn refused(error: Error) -> Status {
    let (code, reason) = match &error {
        Error::NoExec { .. } => (Code::FailedPrecondition, "NO_EXEC"),
        Error::Full { .. } => (Code::ResourceExhausted, "TOO_MANY_TASKS"),
        Error::BadCommand { .. } => (Code::InvalidArgument, "BAD_COMMAND"),
        Error::NoSuchTask { .. } => (Code::NotFound, "NO_SUCH_TASK"),
        Error::Ambiguous { .. } => (Code::InvalidArgument, "AMBIGUOUS_TASK"),
        Error::Io { .. } => (Code::Internal, "INTERNAL"),
    };
    api::refusal(code, reason, error.to_string(), [])
}
