//! What is read of documents and URLs, over any bytes: for tests and fuzz targets.

use bson::{RawDocument, RawDocumentBuf, rawdoc};
use model::JobId;
use uuid::Uuid;

use crate::{
    agents, audit_log, datasets, failures, files, jobs, leadership, results, schema, shipped, stats, tokens,
    views,
};

/// Reads any bytes as a document of each collection; whether they are one of some.
pub fn document(bytes: &[u8]) -> bool {
    let Ok(document) = RawDocument::from_bytes(bytes) else {
        return false;
    };
    leadership::counts(document);
    results::decode_failure(document);
    results::is_gone(document);
    let read = [
        agents::decode(document).is_ok(),
        audit_log::decode(document).is_ok(),
        datasets::decode(document).is_ok(),
        failures::decode(JobId(Uuid::nil()), document).is_ok(),
        jobs::decode(document).is_ok(),
        leadership::progress(document).is_ok(),
        results::decode(document).is_ok(),
        results::job_of(document).is_some(),
        schema::index_of(document).is_some(),
        shipped::decode(document, 0).is_ok(),
        stats::decode(document).is_some(),
        tokens::decode(document).is_ok(),
        views::decode(document).is_ok(),
    ];
    read.contains(&true)
}

/// Reads any text as the URL of a local file; whether it is one.
pub fn url(text: &str) -> bool {
    let Some(path) = files::path_of(text) else {
        return false;
    };
    let again = files::url_of(&path).ok();
    assert_eq!(again.and_then(|url| files::path_of(&url)), Some(path));
    true
}

/// A document that some of them read, and a URL.
pub fn seeds() -> Vec<Vec<u8>> {
    let change: RawDocumentBuf = rawdoc! {
        "_id": "access", "v": 1i64, "at": schema::date(7), "who": "user anna", "what": "x", "subject": "y",
        "details": "", "peer": "sawmill://user/anna", "created_at": schema::date(7), "expires_at": schema::date(8),
        "created_by": "z", "state": "RUNNING", "counts": { "ok": 1i64 }, "blocks": 2i32, "bytes": 7i64,
    };
    vec![change.into_bytes(), b"file:///var/log/a%20b.log".to_vec()]
}
