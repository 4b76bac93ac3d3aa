//! Each decoder of what comes over the network, from a znode, a document or a file, over bytes that anybody may have sent.
//!
//! Promise: a function of [`DECODERS`] panics only when a decoder does, or when what it read is not written and read again as
//! the same. Called by `tests/hostile.rs` on every build, and by the fuzz targets of `fuzz/`, which have one line each.

mod coordinates;
mod messages;
mod seeds;

/// What decodes bytes, as a fuzz target calls it; whether they mean something.
pub type Decoder = fn(&[u8]) -> bool;

/// All decoders, each under the name of its fuzz target.
pub const DECODERS: [(&str, Decoder); 12] = [
    ("certificate", certificate),
    ("document", document),
    ("frames", frames),
    ("guard", guard),
    ("message", message),
    ("name", name),
    ("origins", origins),
    ("pem", pem),
    ("state", state),
    ("token", token),
    ("uri", uri),
    ("znode", znode),
];

pub use seeds::seeds;

/// Certificates as peers show them.
pub fn certificate(bytes: &[u8]) -> bool {
    pki::hostile::certificate(bytes)
}

/// BSON of every collection, and URLs in it.
pub fn document(bytes: &[u8]) -> bool {
    storage::hostile::document(bytes) || storage::hostile::url(&String::from_utf8_lossy(bytes))
}

/// The object of a block as an agent ships it, after eight bytes of what its header claims.
pub fn frames(bytes: &[u8]) -> bool {
    ingest::hostile::frames(bytes)
}

/// What a guard process says, and is told.
pub fn guard(bytes: &[u8]) -> bool {
    engine::hostile::guard(bytes)
}

/// Messages of `sawmill.v1`, and what is made of them.
pub fn message(bytes: &[u8]) -> bool {
    messages::decode(bytes)
}

/// Names of znodes, datasets and the like.
pub fn name(bytes: &[u8]) -> bool {
    coordinates::name(&String::from_utf8_lossy(bytes))
}

/// The origins at the head of a shipped object.
pub fn origins(bytes: &[u8]) -> bool {
    use model::origin::{MOST_ORIGIN_BYTES, Origins};
    if let Ok(Some(length)) = Origins::frame_bytes(bytes) {
        assert!(length <= 8 + MOST_ORIGIN_BYTES as usize);
    }
    if let Ok(read) = Origins::of_frame(bytes) {
        let again = Origins::of_frame(&read.to_frame());
        assert_eq!(again.ok().as_ref(), Some(&read));
        return true;
    }
    false
}

/// The files of an identity.
pub fn pem(bytes: &[u8]) -> bool {
    pki::hostile::pem(bytes)
}

/// What an agent keeps on disk.
pub fn state(bytes: &[u8]) -> bool {
    agent::hostile::state(bytes)
}

/// Tokens in headers.
pub fn token(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(token) = text.parse::<pki::Token>() {
        assert_eq!(token.expose(), text.to_lowercase());
        return true;
    }
    false
}

/// Role, name and rights in a certificate or a header.
pub fn uri(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(peer) = pki::Peer::from_uri(&text) {
        assert_eq!(pki::Peer::from_uri(&peer.to_uri()), Ok(peer));
        return true;
    }
    false
}

/// Data of znodes, of each kind.
pub fn znode(bytes: &[u8]) -> bool {
    coordinates::data(bytes)
}
