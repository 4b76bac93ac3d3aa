//! Refusals: a status with a machine-readable reason (google.rpc.ErrorInfo), made by one side and read by the other.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// In which domain the reasons are.
pub const DOMAIN: &str = "sawmill";
/// Most bytes of a message: it travels in a header.
const MESSAGE_BYTES: usize = 4096;

/// A refusal: its code, the reason for programs in UPPER_SNAKE, the message for people, and where it happened.
pub fn refusal<const N: usize>(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    place: [(&str, String); N],
) -> Status {
    let place: HashMap<String, String> = place.map(|(key, value)| (key.to_string(), value)).into();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, place);
    Status::with_error_details(code, fitting(message.into()), details)
}

/// A refusal for want of room (RESOURCE_EXHAUSTED), and after how long another try may end otherwise (google.rpc.RetryInfo).
pub fn busy(reason: &str, message: impl Into<String>, again: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(again));
    Status::with_error_details(Code::ResourceExhausted, fitting(message.into()), details)
}

fn fitting(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
        message.push('…');
    }
    message
}

/// The reason of a refusal; none of a status that another program or the connection itself made.
pub fn reason(status: &Status) -> Option<String> {
    let details = status.get_details_error_info()?;
    (details.domain == DOMAIN).then_some(details.reason)
}

/// A part of the place of a refusal.
pub fn place(status: &Status, key: &str) -> Option<String> {
    let mut details = status.get_details_error_info()?;
    details.metadata.remove(key).filter(|_| details.domain == DOMAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_travel() {
        let status = refusal(
            Code::NotFound,
            "NO_SUCH_JOB",
            "no such job: x",
            [("job", "x".into())],
        );
        assert_eq!(reason(&status).as_deref(), Some("NO_SUCH_JOB"));
        assert_eq!(status.message(), "no such job: x");
        assert_eq!(reason(&Status::unavailable("gone")), None);
        let long = refusal(Code::Internal, "INTERNAL", "ä".repeat(10_000), []);
        assert!(long.message().len() < MESSAGE_BYTES + 4);
    }
}
