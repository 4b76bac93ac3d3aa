//! What an agent reads from its state directory, over any bytes: for tests and fuzz targets.

use std::collections::BTreeMap;

use crate::{snapshot::Snapshot, spool};

/// The positions of files, the head of a block in the spool; whether it is one of these.
pub fn state(bytes: &[u8]) -> bool {
    if let Ok(read) = serde_json::from_slice::<Snapshot>(bytes) {
        let written = serde_json::to_vec(&read).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<Snapshot>(&written).ok(), Some(read));
        return true;
    }
    spool::decode_any(bytes)
}

/// Valid files.
pub fn seeds() -> Vec<Vec<u8>> {
    let snapshot = Snapshot::new(BTreeMap::new(), Vec::new());
    vec![
        serde_json::to_vec(&snapshot).unwrap_or_default(),
        spool::written_any(),
    ]
}
