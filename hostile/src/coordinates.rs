//! What is in ZooKeeper.

use coordination::{Users, WorkerNumber, layout};
use model::{
    Name,
    entry::EntryName,
    znode::{self, CandidateData, ClientData, DoneData, EntryData, OwnedData, RootData, WorkerData},
};

macro_rules! read_as {
    ($read:ident, $bytes:expr, $($kind:ty),+) => { $(
        if let Ok(read) = znode::decode::<$kind>($bytes) {
            let again = znode::decode::<$kind>(&znode::encode(&read));
            assert_eq!(again.ok().as_ref(), Some(&read));
            $read = true;
        }
    )+ };
}

pub(crate) fn data(bytes: &[u8]) -> bool {
    let mut any = false;
    read_as!(any, bytes, EntryData, OwnedData, DoneData, WorkerData);
    read_as!(any, bytes, CandidateData, ClientData, RootData, Users);
    any
}

pub(crate) fn name(text: &str) -> bool {
    let mut read = Vec::new();
    read.extend(text.parse::<EntryName>().map(|name| name.to_string()));
    read.extend(Name::new(text).map(String::from));
    read.extend(text.parse::<WorkerNumber>().map(|worker| worker.to_string()));
    if let Some(client) = layout::client_name(text) {
        assert!(layout::is_client(text));
        read.push(format!("client-{client}"));
    }
    let candidate = layout::candidate_sequence(text);
    read.extend(candidate.map(|sequence| format!("candidate-{sequence:010}")));
    assert!(read.iter().all(|read| read == text), "{text:?}: {read:?}");
    !read.is_empty()
}
