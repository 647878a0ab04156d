//! The client's end of a connection: HTTP/2, and a new dial after the connection broke.
//!
//! tonic's own channel passes each call to a task, which passes it to another task, and two more
//! tasks are spawned for the call. For a call as small as a put, this costs more than all the rest
//! of the client. In this link the calling task sends the request; only a body that is not ready at
//! once gets a task.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream, SendStream,
    client::{Builder, SendRequest},
};
use http_body::{Body as _, Frame};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tonic::{
    body::Body,
    codegen::{BoxFuture, StdError, http},
};

use crate::limits::{CALL_WINDOW_BYTES, CONNECTION_WINDOW_BYTES, PING_EVERY, PINGS_UNANSWERED_MAX};

/// A byte stream to a server: a socket, or a pipe inside this process.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

type Dialled = BoxFuture<Box<dyn Stream>, StdError>;

/// A connection to a node. Cheap to clone; all clones share it, and it closes with the last one.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    dial: Box<dyn Fn() -> Dialled + Send + Sync>,
    // The newest connection, which may be broken. Locked to clone or replace it, never across
    // await.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    // Held across the dial, so calls that start during a dial wait for the same connection. Always
    // taken before `sender`.
    dialling: tokio::sync::Mutex<()>,
}

/// The body of an answer.
#[derive(Debug)]
pub struct Answer(RecvStream);

impl Link {
    /// Returns a link that calls `dial` for its first call, and again after the connection broke.
    pub(crate) fn new(dial: impl Fn() -> Dialled + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            dial: Box::new(dial),
            sender: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
        }))
    }

    /// Uses a stream that is already open. If the handshake on it fails, the first call dials.
    pub(crate) async fn begin(&self, stream: impl Stream) {
        *self.0.known() = handshake(stream).await.ok();
    }
}

impl Shared {
    async fn sender(&self) -> Result<SendRequest<Bytes>, StdError> {
        if let Some(sender) = self.open_sender().await {
            return Ok(sender);
        }
        let _turn = self.dialling.lock().await;
        if let Some(sender) = self.open_sender().await {
            return Ok(sender);
        }
        let sender = handshake((self.dial)().await?).await?;
        *self.known() = Some(sender.clone());
        Ok(sender.ready().await?)
    }

    // Waits while the server has `CALLS_MAX` calls in flight. `None`: the connection is broken.
    async fn open_sender(&self) -> Option<SendRequest<Bytes>> {
        let known = self.known().clone();
        known?.ready().await.ok()
    }

    fn known(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, request: http::Request<Body>) -> Result<http::Response<Answer>, StdError> {
        let (parts, body) = request.into_parts();
        let request = http::Request::from_parts(parts, ());
        let (answer, stream) = self.sender().await?.send_request(request, false)?;
        let mut sending = Box::pin(send(body, stream));
        let sent = poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
        if sent.is_pending() {
            // This task ends with the body, or when the call ends. The answer carries any error.
            tokio::spawn(async move { sending.await.unwrap_or_default() });
        }
        Ok(answer.await?.map(Answer))
    }
}

async fn handshake(stream: impl Stream) -> Result<SendRequest<Bytes>, h2::Error> {
    let (sender, mut connection) = Builder::new()
        .initial_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .enable_push(false)
        .handshake(stream)
        .await?;
    let pings = connection.ping_pong();
    // This task ends when the last sender is dropped or the server closes; calls in flight get the
    // reason.
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => ended.unwrap_or_default(),
            () = silence(pings) => {}
        }
    });
    Ok(sender)
}

// Returns when the server no longer answers pings: it hangs, or its process is stopped. Without the
// pings, a call to such a server would wait forever.
async fn silence(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(PING_EVERY).await;
        let mut unanswered = 0;
        let mut answer = Box::pin(pings.ping(Ping::opaque()));
        // Waits in several steps. If this process itself was stopped, one step times out at once
        // and the next one reads the answer.
        while timeout(PING_EVERY, &mut answer).await.is_err() {
            unanswered += 1;
            if unanswered >= PINGS_UNANSWERED_MAX {
                return;
            }
        }
    }
}

// Sends a body as fast as the server reads it. The end of the stream is sent with the last part if
// the body knows by then that the part is the last, and otherwise in a separate frame.
async fn send(mut body: Body, mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut next = next_frame(&mut body, &mut stream).await;
    while let Some(frame) = next.take() {
        let Ok(frame) = frame else {
            stream.send_reset(Reason::CANCEL);
            return Ok(());
        };
        let mut data = frame.into_data().unwrap_or_default();
        let ahead = poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context))).await;
        let last = matches!(ahead, Poll::Ready(None));
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            while stream.capacity() == 0 {
                match poll_fn(|context| stream.poll_capacity(context)).await {
                    Some(capacity) => _ = capacity?,
                    None => return Ok(()),
                }
            }
            let part = data.split_to(stream.capacity().min(data.len()));
            stream.send_data(part, last && data.is_empty())?;
            if last && data.is_empty() {
                return Ok(());
            }
        }
        next = match ahead {
            Poll::Ready(frame) => frame,
            Poll::Pending => next_frame(&mut body, &mut stream).await,
        };
    }
    stream.send_data(Bytes::new(), true)
}

// Returns the next frame. `None` at the end of the body, and when the server has reset the stream.
async fn next_frame(
    body: &mut Body,
    stream: &mut SendStream<Bytes>,
) -> Option<Result<Frame<Bytes>, tonic::Status>> {
    poll_fn(|context| match stream.poll_reset(context) {
        Poll::Ready(_over) => Poll::Ready(None),
        Poll::Pending => Pin::new(&mut *body).poll_frame(context),
    })
    .await
}

impl tonic::codegen::Service<http::Request<Body>> for Link {
    type Response = http::Response<Answer>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.call(request).await })
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let data = ready!(self.0.poll_data(context));
        Poll::Ready(match data {
            Some(Ok(data)) => {
                // Allows the server to send the same number of bytes again.
                let taken = self.0.flow_control().release_capacity(data.len());
                Some(taken.map(|()| Frame::data(data)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => {
                let trailers = ready!(self.0.poll_trailers(context));
                trailers
                    .map(|trailers| trailers.map(Frame::trailers))
                    .transpose()
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silent_node_fails_the_call() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let node = tokio::spawn(async move {
            let mut node = h2::server::handshake(theirs).await.unwrap();
            let (_request, mut answer) = node.accept().await.unwrap().unwrap();
            let headers = http::Response::new(());
            let stream = answer.send_response(headers, false).unwrap();
            // Answers pings for a while, then falls silent with the connection still open.
            drop(timeout(PING_EVERY * 10, node.accept()).await);
            (node, stream)
        });
        let began = tokio::time::Instant::now();
        let link = Link::new(|| Box::pin(std::future::pending()));
        link.begin(ours).await;
        let request = http::Request::new(Body::empty());
        let mut answer = link.0.call(request).await.unwrap().into_body();
        let frame = poll_fn(|context| Pin::new(&mut answer).poll_frame(context));
        let frame = timeout(PING_EVERY * 100, frame).await.unwrap();
        assert!(matches!(frame, Some(Err(_))), "{frame:?}");
        let took = began.elapsed();
        let least = PING_EVERY * 10;
        let most = PING_EVERY * (12 + PINGS_UNANSWERED_MAX);
        assert!(least < took && took <= most, "{took:?}");
        drop(node.await.unwrap());
    }
}
