//! `sawmill.v1.Queue`: jobs.

use api::v1::{self, queue_server::Queue};
use control::Control;
use tonic::{Request, Response, Status};

use crate::refuse;

/// The service.
pub(crate) struct Service {
    control: Control,
}

impl Service {
    pub(crate) fn new(control: Control) -> Self {
        Self { control }
    }
}

#[tonic::async_trait]
impl Queue for Service {
    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        refuse::look(&request)?;
        let job = self.control.job(&request.get_ref().reference).await;
        let job = job.map_err(|error| Status::not_found(error.to_string()))?;
        Ok(Response::new(v1::Job {
            id: job.id.to_string(),
        }))
    }
}
