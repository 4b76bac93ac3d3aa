//! How a node uses the memory for columns that queries have read.

use serde::{Deserialize, Serialize};

/// What is held, and how often it was of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUse {
    /// Most bytes that may be held.
    pub most_bytes: u64,
    /// Bytes that are held.
    pub bytes: u64,
    /// Columns of blocks that were found, since the node started.
    pub hits: u64,
    /// Columns of blocks that had to be read and parsed.
    pub misses: u64,
}

impl CacheUse {
    /// The part of the columns that was found, 0.0 to 1.0; none when nothing was looked for.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_looked_for_has_no_rate() {
        assert_eq!(CacheUse::default().hit_rate(), None);
        let used = CacheUse {
            hits: 3,
            misses: 1,
            ..CacheUse::default()
        };
        assert_eq!(used.hit_rate(), Some(0.75));
    }
}
