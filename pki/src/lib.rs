//! Who is who: certificates by role from a private authority, and TLS by them.
//!
//! Promise: a [`Peer`] comes only from a certificate that our authority signed, that has begun, has not ended and is not
//! revoked by the list at hand; TLS is 1.3 on both sides, and both show a certificate. Files that change are read again
//! within [`RELOAD_EVERY`]; a broken new file never takes the place of a good old one. No promise about how the list of
//! revoked certificates gets to the machines: whoever revokes copies it.
//!
//! Called by `api` for its connections and by `sawmill pki` for the authority.

mod authority;
mod certificate;
mod error;
mod files;
#[doc(hidden)]
pub mod hostile;
mod identity;
mod index;
mod peer;
mod refusal;
mod tls;
mod token;
mod uri;

pub use authority::{Authority, CA_VALID, Order, Renewal};
pub use certificate::Details;
pub use error::Error;
pub use identity::{Identity, RELOAD_EVERY};
pub use index::Issued;
pub use peer::{BadManaged, Managed, Peer, Rights, Role};
pub use refusal::{is_plain_text, why};
pub use token::{BadToken, NoRandomness, Token};
pub use uri::{BadUri, PATTERNS_MAX, URI_BYTES};
