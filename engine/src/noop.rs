//! The processor that does nothing, for benchmarks and the harness.

use model::{Block, Content};

use crate::Product;

/// Gives an inline block back, and nothing for any other block, which it does not even read. Never waits.
pub fn run(block: &Block) -> Product {
    match &block.content {
        Content::Inline(payload) => Product::Memory(payload.0.clone()),
        Content::Object { .. } => Product::Memory(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inline_block_comes_back() {
        assert_eq!(run(&Block::inline("one\n")).into_bytes().unwrap(), b"one\n");
        let block = Block {
            content: Content::Object {
                url: "file:///nowhere".into(),
                start: 0,
                end: 9,
                codec: model::Codec::None,
                size: 9,
                mtime_ms: 0,
                mark: None,
            },
            checksum: None,
            raw_bytes: None,
            made: None,
            registered_ms: None,
        };
        assert!(run(&block).is_empty());
    }
}
