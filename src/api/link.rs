//! The client's end of a connection: HTTP/2 that is dialled again when it breaks.
//!
//! tonic's own channel hands each call to a task, which hands it on; for calls as small as a put
//! that costs as much as all the rest of the client.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
    rt::{Read, Write},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    body::Body,
    codegen::{BoxFuture, StdError, http},
};

use crate::limits::{CALL_WINDOW_BYTES, CONNECTION_WINDOW_BYTES};

/// What bytes go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

type Dialled = BoxFuture<Box<dyn Stream>, StdError>;

/// A connection to a node. Cheap to clone; all clones share it, and it ends with the last one.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    dial: Box<dyn Fn() -> Dialled + Send + Sync>,
    // The newest connection, which may have broken meanwhile.
    sender: Mutex<Option<SendRequest<Body>>>,
    // Held by whoever dials, so that calls that come meanwhile wait for that connection.
    dialling: tokio::sync::Mutex<()>,
}

impl Link {
    /// Makes a link that dials when it must: at the first call, and after the connection broke.
    pub(super) fn new(dial: impl Fn() -> Dialled + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            dial: Box::new(dial),
            sender: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
        }))
    }

    /// Goes over a stream that is there already. Where that has broken, the first call dials.
    pub(super) async fn begin(&self, stream: impl Stream) {
        *self.0.known() = handshake(TokioIo::new(stream)).await.ok();
    }
}

impl Shared {
    async fn sender(&self) -> Result<SendRequest<Body>, StdError> {
        if let Some(sender) = self.open_sender() {
            return Ok(sender);
        }
        let _turn = self.dialling.lock().await;
        if let Some(sender) = self.open_sender() {
            return Ok(sender);
        }
        let stream = (self.dial)().await?;
        let sender = handshake(TokioIo::new(stream)).await?;
        *self.known() = Some(sender.clone());
        Ok(sender)
    }

    fn open_sender(&self) -> Option<SendRequest<Body>> {
        let known = self.known();
        known.as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    fn known(&self) -> MutexGuard<'_, Option<SendRequest<Body>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn handshake(
    io: impl Read + Write + Send + Unpin + 'static,
) -> Result<SendRequest<Body>, hyper::Error> {
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(io)
        .await?;
    // Ends when the last sender is dropped, or the other side has gone; calls are told why.
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(sender)
}

impl tower::Service<http::Request<Body>> for Link {
    type Response = http::Response<Incoming>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let sent = shared.sender().await?.send_request(request);
            Ok(sent.await?)
        })
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
