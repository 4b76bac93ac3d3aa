//! What an earlier release has written is read by this one.

use std::collections::BTreeMap;

use bson::{Document, doc};

use super::*;
use crate::{ChangeFilter, JobFilter};

/// All documents of a mill of format 1, as `{in: COLLECTION, is: DOCUMENT}` one after the other: two datasets, of which one is
/// shipped; a command, a failed one, a query, and a view with its refresh; a token, an agent and their traces in the audit log.
const FORMAT_1: &[u8] = include_bytes!("format_1.bson");

fn documents(mut bytes: &[u8]) -> BTreeMap<String, Vec<Document>> {
    let mut all: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    while !bytes.is_empty() {
        let mut outer = Document::from_reader(&mut bytes).unwrap();
        let name = outer.get_str("in").unwrap().to_string();
        let Some(bson::Bson::Document(document)) = outer.remove("is") else {
            panic!("no document of {name}")
        };
        all.entry(name).or_default().push(document);
    }
    all
}

#[tokio::test]
async fn documents_of_format_1_are_read() {
    let space = Space::new().await;
    let folder = TempDir::new().unwrap();
    space.put_documents(documents(FORMAT_1)).await;
    let store = Store::open(&config(&space, &folder)).await.unwrap();
    store.init().await.unwrap();
    assert_eq!(store.format().await.unwrap(), Some(1));

    let jobs = store.list(&JobFilter::default()).await.unwrap();
    let mut states: Vec<JobState> = jobs.iter().map(|job| job.state).collect();
    states.sort_by_key(|state| state.to_string());
    use JobState::{Failed, Successful};
    assert_eq!(states, [Failed, Successful, Successful, Successful]);
    let (mut partials, mut failures) = (0, 0);
    for job in &jobs {
        let outputs = store.outputs(job.id, 0..u32::MAX).await.unwrap();
        partials += outputs.try_collect::<Vec<_>>().await.unwrap().len();
        failures += store.failures(job.id, 100).await.unwrap().len();
    }
    assert_eq!((partials, failures), (11, 4));

    let datasets = store.list_datasets().await.unwrap();
    let named: Vec<(&str, u32)> = datasets
        .iter()
        .map(|dataset| (dataset.name.as_str(), dataset.blocks))
        .collect();
    assert_eq!(named, [("access", 2), ("shipped", 1)]);
    for dataset in &datasets {
        let blocks = store.blocks(dataset.edition(), 0..dataset.blocks).await.unwrap();
        assert_eq!(blocks.len() as u32, dataset.blocks);
    }
    let views: Vec<_> = store.views().await.unwrap();
    assert!(matches!(views.as_slice(), [Ok(view)] if view.name.as_str() == "by_s"));
    assert_eq!(store.view_rows(&Name::new("by_s").unwrap()).await.unwrap(), 3);
    let agents = store.agents().await.unwrap();
    assert_eq!(agents[0].seen.agent.as_str(), "web7");
    let shipped = store.shipped(None).await.unwrap();
    assert_eq!(shipped[0].total.lines, 2);
    assert_eq!(store.tokens().await.unwrap().len(), 1);
    let changes = ChangeFilter {
        limit: 100,
        ..ChangeFilter::default()
    };
    assert_eq!(store.changes(&changes).await.unwrap().len(), 5);
    assert_eq!(store.list_nodes().await.unwrap().len(), 1);

    // It goes on from there.
    let epoch = store.take_epoch("here").await.unwrap();
    assert!(store.active().await.unwrap().is_empty());
    store.adopt(&[], epoch).await.unwrap();
}

#[tokio::test]
async fn a_role_does_not_raise_the_format() {
    let fresh = Fresh::new().await;
    let older = doc! { "$set": { "v": 0i64 } };
    let meta = fresh.store.documents("meta");
    meta.update_one(doc! { "_id": "format" }, older).await.unwrap();
    fresh.store.init().await.unwrap();
    assert_eq!(fresh.store.format().await.unwrap(), Some(0));
}
