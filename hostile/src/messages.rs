//! What goes over the network.

use api::v1;
use control::wire;
use model::{Block, Job, JobSpec, table::Table};
use pki::Peer;
use prost::Message as _;

/// What is read of a message is written and read again as the same.
macro_rules! read_as {
    ($any:ident, $bytes:expr, $message:ty, $kind:ty) => {
        if let Ok(message) = <$message>::decode($bytes)
            && let Ok(read) = <$kind>::try_from(message)
        {
            let again = <$kind>::try_from(<$message>::from(&read));
            assert_eq!(again.ok().as_ref(), Some(&read));
            $any = true;
        }
    };
}

/// What is made of a message, whatever that is.
macro_rules! made_of {
    ($any:ident, $bytes:expr, $message:ty, $make:expr) => {
        if let Ok(message) = <$message>::decode($bytes) {
            $any |= $make(message).is_ok();
        }
    };
}

pub(crate) fn decode(bytes: &[u8]) -> bool {
    let mut any = false;
    read_as!(any, bytes, v1::Job, Job);
    read_as!(any, bytes, v1::JobSpec, JobSpec);
    read_as!(any, bytes, v1::Block, Block);
    read_as!(any, bytes, v1::Table, Table);
    made_of!(any, bytes, v1::Dataset, wire::dataset);
    made_of!(any, bytes, v1::AddFilesRequest, wire::adding);
    made_of!(any, bytes, v1::AddFilesReply, wire::read_added);
    made_of!(any, bytes, v1::SetDatasetRequest, wire::changes);
    made_of!(any, bytes, v1::ListJobsRequest, |message| wire::filter(&message));
    made_of!(any, bytes, v1::JobProgress, wire::progress);
    made_of!(any, bytes, v1::FailedAttempt, wire::attempt);
    made_of!(any, bytes, v1::Question, wire::question);
    made_of!(any, bytes, v1::Asked, wire::asked);
    made_of!(any, bytes, v1::View, wire::view);
    made_of!(
        any,
        bytes,
        v1::SetViewStateRequest,
        |message: v1::SetViewStateRequest| { wire::view_state(message.state) }
    );
    let admin = Peer::local();
    made_of!(any, bytes, v1::AgentHello, |message| ingest::client_data(
        &message, &admin
    ));
    any
}
