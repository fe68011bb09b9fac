//! The rare calls on the peer port: between a connection, which is h2's, and tonic, which knows how to answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use hyper::body::{Body, Frame};
use hyper::{Request, Response};
use tonic::codegen::Service;

/// What a caller sends.
pub(super) struct Sent(RecvStream);

impl Body for Sent {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let body = &mut self.0;
        if let Some(piece) = std::task::ready!(body.poll_data(cx)) {
            let released = piece.and_then(|piece| {
                body.flow_control().release_capacity(piece.len())?;
                Ok(Frame::data(piece))
            });
            return Poll::Ready(Some(released));
        }
        body.poll_trailers(cx)
            .map(|trailers| trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Has `service` answer a call. If the caller goes away, so does the answer.
pub(super) async fn answer<S, B>(
    mut service: S,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) where
    S: Service<Request<Sent>, Response = Response<B>>,
    B: Body<Data = Bytes> + Unpin,
{
    let answered = tokio::select! {
        answered = service.call(request.map(Sent)) => answered,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let Ok(answer) = answered else { return respond.send_reset(Reason::INTERNAL_ERROR) };
    let (head, body) = answer.into_parts();
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), body.is_end_stream()) else {
        return;
    };
    if let Err(error) = send(body, stream).await {
        tracing::debug!("an answer to a peer was cut short: {error}");
    }
}

/// Sends `body` as fast as it is taken.
async fn send<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    mut stream: SendStream<Bytes>,
) -> Result<(), h2::Error> {
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { break };
        let Ok(frame) = frame else {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        };
        match frame.into_data() {
            Ok(piece) => {
                stream.reserve_capacity(1);
                while stream.capacity() == 0 {
                    poll_fn(|cx| stream.poll_capacity(cx)).await.ok_or(Reason::CANCEL)??;
                }
                stream.send_data(piece, false)?;
            }
            Err(last) => {
                return last.into_trailers().map_or(Ok(()), |trailers| stream.send_trailers(trailers));
            }
        }
    }
    stream.send_data(Bytes::new(), true)
}
