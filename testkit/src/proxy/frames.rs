//! Frames of ZooKeeper's protocol: four bytes of length, then the content.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Far above what a server takes; a greater length is no frame but a command of four letters.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// A notification of a watch answers nothing.
const NOTIFICATION: i32 = -1;

/// One frame, with its length in front, as it is passed on.
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
}

impl Frame {
    /// The next frame; `None` at the end of the stream, or when what comes is no frame.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.ok()?;
        let content = usize::try_from(i32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= MAX_BYTES)?;
        let mut bytes = vec![0; 4 + content];
        bytes[..4].copy_from_slice(&length);
        stream.read_exact(&mut bytes[4..]).await.ok()?;
        Some(Frame { bytes })
    }

    /// The number by which a reply names its request: the first field of both.
    pub(super) fn xid(&self) -> Option<i32> {
        self.field(0)
    }

    /// The kind of a request: its second field.
    pub(super) fn op(&self) -> Option<i32> {
        self.field(1)
    }

    /// What follows the two fields of a request's header.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(12..).unwrap_or_default()
    }

    /// Whether it tells of a watch that fired instead of answering a request.
    pub(super) fn is_notification(&self) -> bool {
        self.xid() == Some(NOTIFICATION)
    }

    fn field(&self, index: usize) -> Option<i32> {
        let from = 4 + 4 * index;
        let bytes = self.bytes.get(from..from + 4)?;
        Some(i32::from_be_bytes(bytes.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_cut_out_of_a_stream() {
        let mut stream: &[u8] = b"\0\0\0\x09\0\0\0\x07\0\0\0\x0eX\0\0\0\x04\xff\xff\xff\xff";
        let first = Frame::read(&mut stream).await.unwrap();
        assert_eq!(
            (first.xid(), first.op(), first.body()),
            (Some(7), Some(14), b"X".as_slice())
        );
        assert!(!first.is_notification());
        let second = Frame::read(&mut stream).await.unwrap();
        assert!(second.is_notification());
        assert_eq!(second.op(), None);
        assert!(Frame::read(&mut stream).await.is_none());
        assert!(Frame::read(&mut b"ruok".as_slice()).await.is_none());
    }
}
