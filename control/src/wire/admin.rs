//! Tokens and the audit log.

use api::v1;
use storage::{Change, TokenRecord};

/// Digits of a hash by which a token is told from others.
const ID_DIGITS: usize = 12;

/// A token, without its hash.
pub fn token_message(record: &TokenRecord) -> v1::TokenInfo {
    v1::TokenInfo {
        id: record.hash.get(..ID_DIGITS).unwrap_or_default().to_string(),
        peer: record.peer.clone(),
        created_ms: record.created_ms,
        created_by: record.created_by.clone(),
        expires_ms: record.expires_ms,
    }
}

/// A token as a gateway tells it: of its hash there is the beginning.
pub fn token(info: v1::TokenInfo) -> TokenRecord {
    TokenRecord {
        hash: info.id,
        peer: info.peer,
        created_ms: info.created_ms,
        expires_ms: info.expires_ms,
        created_by: info.created_by,
    }
}

/// A change.
pub fn change_message(change: Change) -> v1::AuditedChange {
    v1::AuditedChange {
        at_ms: change.at_ms,
        who: change.who,
        what: change.what,
        subject: change.subject,
        details: change.details,
    }
}

/// A change as a gateway tells it.
pub fn change(message: v1::AuditedChange) -> Change {
    Change {
        at_ms: message.at_ms,
        who: message.who,
        what: message.what,
        subject: message.subject,
        details: message.details,
    }
}
