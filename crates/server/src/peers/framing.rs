//! What gRPC puts around messages, for the streams that carry most of them.
//!
//! Each message is preceded by whether it is compressed (one byte) and by its length (four bytes, the highest first),
//! and lies in HTTP/2's frames however it pleases. How a call ended stands in the trailers, or in the headers if
//! nothing else came. (gRPC over HTTP/2: "Length-Prefixed-Message", "Trailers".)

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::HeaderMap;
use prost::Message;
use tonic::{Code, Status};

use super::queue::MAX_FRAME_BYTES;

/// Where messages between replicas are delivered.
pub(super) const DELIVER: &str = "/synodpb.Paxos/Deliver";

const PREFIX_BYTES: usize = 5;

/// `message` as it travels.
pub(super) fn wrap(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("queues close a frame long before 4 GiB"));
    message.encode(&mut bytes).expect("a buffer grows as needed");
    bytes.freeze()
}

/// Finds the messages in what arrives.
#[derive(Debug, Default)]
pub(super) struct Unwrap {
    /// The newest piece: most hold one message, which then needs no copy.
    piece: Bytes,
    /// The beginning of a message that goes on in other pieces.
    begun: BytesMut,
}

impl Unwrap {
    /// Takes the next piece. Those before must have been looked through, see [`Unwrap::next`].
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.begun.is_empty() && self.piece.is_empty() {
            self.piece = piece;
        } else {
            self.begun.put(std::mem::take(&mut self.piece));
            self.begun.put(piece);
        }
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// If what comes is none that could be read. Nothing after it can be, either.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let bytes = if self.begun.is_empty() { &self.piece[..] } else { &self.begun[..] };
        let Some((&[compressed, a, b, c, d], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        if compressed != 0 {
            return Err(Status::unimplemented("messages between replicas are not compressed"));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_FRAME_BYTES {
            let most = MAX_FRAME_BYTES;
            return Err(Status::out_of_range(format!("a frame of {length} bytes, and {most} is the limit")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        if self.begun.is_empty() {
            self.piece.advance(PREFIX_BYTES);
            return Ok(Some(self.piece.split_to(length)));
        }
        self.begun.advance(PREFIX_BYTES);
        let message = self.begun.split_to(length).freeze();
        if self.begun.is_empty() {
            self.begun = BytesMut::new(); // a long message's memory is its own
        }
        Ok(Some(message))
    }
}

/// The trailers that say `status`.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    if let Err(status) = status.add_header(&mut trailers) {
        tracing::debug!("a status that cannot be said: {status}");
    }
    trailers
}

/// What headers or trailers say about the end of a call.
///
/// # Errors
/// If it did not end well, or if they say nothing about it.
pub(super) fn ended(trailers: Option<&HeaderMap>) -> Result<(), Status> {
    let status = trailers.and_then(Status::from_header_map);
    let status = status.ok_or_else(|| Status::unknown("the stream ended without a status"))?;
    if status.code() == Code::Ok { Ok(()) } else { Err(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(unwrap: &mut Unwrap) -> Vec<Bytes> {
        std::iter::from_fn(|| unwrap.next().unwrap()).collect()
    }

    #[test]
    fn messages_are_found_wherever_the_stream_is_cut() {
        let messages: Vec<Vec<u8>> = vec![vec![1; 3], vec![], vec![2; 300], vec![3]];
        let stream: Vec<u8> = messages.iter().flat_map(wrap).collect();
        for first in 0..=stream.len() {
            for second in [first, (first + 1).min(stream.len()), (first + 7).min(stream.len())] {
                let mut unwrap = Unwrap::default();
                let mut found = Vec::new();
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    unwrap.push(Bytes::copy_from_slice(piece));
                    found.extend(all(&mut unwrap));
                }
                let expected: Vec<Bytes> =
                    messages.iter().map(|message| message.encode_to_vec().into()).collect();
                assert_eq!(found, expected, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_is_compressed_or_too_long_is_an_error_before_it_has_arrived() {
        let error = |prefix: [u8; 5]| {
            let mut unwrap = Unwrap::default();
            unwrap.push(Bytes::copy_from_slice(&prefix));
            unwrap.next().unwrap_err().code()
        };
        assert_eq!(error([1, 0, 0, 0, 1]), Code::Unimplemented);
        assert_eq!(error([0, 0xff, 0xff, 0xff, 0xff]), Code::OutOfRange);
    }

    #[test]
    fn a_status_survives_its_trailers() {
        let refusal = Status::failed_precondition("not \"you\", é");
        let heard = ended(Some(&trailers(&refusal))).unwrap_err();
        assert_eq!((heard.code(), heard.message()), (refusal.code(), refusal.message()));
        assert!(ended(Some(&trailers(&Status::ok("")))).is_ok());
        assert_eq!(ended(None).unwrap_err().code(), Code::Unknown);
    }
}
