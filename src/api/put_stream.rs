//! Pipelined writes: requests in, answers out in the order of the requests.
//!
//! ```text
//! requests -> gather those that arrived -> chunk -> writer (several chunks at a time) -> answers
//! ```
//! Everything happens in one task, when the transport asks for the next answer. So there is no task
//! to join, and no further requests are read from a client that does not read its answers.

use std::{
    collections::VecDeque,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    api::{convert, error::ApiError},
    limits::{
        KEY_BYTES_MAX, PAGE_BYTES, PUT_CHUNK_BYTES, PUT_CHUNK_WRITES_MAX, PUT_CHUNKS_MAX,
        REPLY_BYTES_MAX,
    },
    node::Node,
    store::{Store, WriteError, Written},
    wire::api,
};

/// The answers to one stream of writes.
pub(super) struct PutAnswers {
    node: Node,
    // Set by the first request.
    store: Option<Store>,
    // `None` once the client has sent its last request, a request failed, or the server stops.
    requests: Option<Streaming<api::PutStreamRequest>>,
    // In the order of the requests, which is the order in which the writer gets them. At most
    // `PUT_CHUNKS_MAX` chunks.
    chunks: VecDeque<Chunk>,
    // Answers that are ready, to requests older than those in `chunks`.
    replies: VecDeque<api::PutStreamReply>,
    // The error that is sent after all answers, as the end of the stream.
    failed: Option<Status>,
    // Resolves when the server stops.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The writes of several requests that go to the writer together.
struct Chunk {
    // Number of ops of each request.
    requests: Vec<usize>,
    writes: Writes,
}

type Results = Vec<Result<Option<Written>, WriteError>>;

enum Writes {
    // Waits for a place in the writer's queue. Only the last chunk is in this state, because two
    // could overtake each other.
    Sending(Later<Later<Results>>),
    Waiting(Later<Results>),
    Done(Results),
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl PutAnswers {
    /// Returns the answers to `requests`. Reads requests until the client has sent its last request
    /// or `ending` is cancelled.
    pub(super) fn new(
        node: Node,
        requests: Streaming<api::PutStreamRequest>,
        ending: CancellationToken,
    ) -> Self {
        Self {
            node,
            store: None,
            requests: Some(requests),
            chunks: VecDeque::new(),
            replies: VecDeque::new(),
            failed: None,
            ended: Box::pin(ending.cancelled_owned()),
        }
    }

    /// Gathers requests that have already arrived, up to one chunk. Returns `None` if no request
    /// has arrived.
    fn gather(&mut self, context: &mut Context<'_>) -> Option<Chunk> {
        let mut requests = Vec::new();
        let mut writes = Vec::new();
        let mut bytes = 0;
        // Requests count like writes: a request may be empty.
        while requests.len() + writes.len() < PUT_CHUNK_WRITES_MAX && bytes < PUT_CHUNK_BYTES {
            let Some(request) = self.poll_request(context) else {
                break;
            };
            let now_ms = self.node.clock().now_ms();
            requests.push(request.ops.len());
            writes.extend(request.ops.into_iter().map(|op| {
                bytes += op.key.len() + op.value.len();
                // `poll_request` has checked it.
                let condition = convert::condition_of_op(&op).unwrap_or_default();
                convert::write(convert::op(op, now_ms), condition)
            }));
        }
        if requests.is_empty() {
            return None;
        }
        let store = self.store.clone()?;
        #[expect(
            clippy::async_yields_async,
            reason = "the first future waits for the queue, the second for the answer"
        )]
        let sending = async move { Box::pin(store.begin_many(writes).await) as Later<Results> };
        let mut chunk = Chunk {
            requests,
            writes: Writes::Sending(Box::pin(sending)),
        };
        chunk.poll(context);
        Some(chunk)
    }

    /// Returns a request that has already arrived. `None`: no request has arrived, or requests are
    /// no longer read.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Option<api::PutStreamRequest> {
        match Pin::new(self.requests.as_mut()?).poll_next(context) {
            Poll::Pending => return None,
            Poll::Ready(None) => {}
            Poll::Ready(Some(Err(status))) => self.failed = Some(status),
            Poll::Ready(Some(Ok(request))) => match self.begin(&request) {
                Ok(()) => return Some(request),
                Err(error) => self.failed = Some(error.into()),
            },
        }
        self.requests = None;
        None
    }

    // Opens the store of the first request, and checks the size and the conditions of any.
    fn begin(&mut self, request: &api::PutStreamRequest) -> Result<(), ApiError> {
        let ops = request.ops.len();
        if ops > REQUEST_OPS_MAX {
            let message = format!(
                "a request of a put stream has {ops} writes; the limit is {REQUEST_OPS_MAX}"
            );
            return Err(ApiError::usage("too_many_ops", message)
                .hint("send several requests: any number may be in flight"));
        }
        if self.store.is_none() {
            self.store = Some(self.node.store(&request.store)?);
        }
        for op in &request.ops {
            convert::condition_of_op(op)?;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let is_sending = |chunk: &Chunk| matches!(chunk.writes, Writes::Sending(_));
        self.chunks.len() < PUT_CHUNKS_MAX && !self.chunks.back().is_some_and(is_sending)
    }

    /// Polls all chunks and turns finished ones, oldest first, into answers.
    fn poll_chunks(&mut self, context: &mut Context<'_>) {
        for chunk in &mut self.chunks {
            chunk.poll(context);
        }
        while let Some(Chunk {
            requests,
            writes: Writes::Done(results),
        }) = self.chunks.front_mut()
        {
            let mut results = mem::take(results).into_iter();
            for ops in requests.iter() {
                let mut room = PAGE_BYTES;
                let results = results.by_ref().take(*ops);
                let results = results.map(|it| result(it, &mut room)).collect();
                self.replies.push_back(api::PutStreamReply { results });
            }
            self.chunks.pop_front();
        }
    }
}

impl Chunk {
    fn poll(&mut self, context: &mut Context<'_>) {
        if let Writes::Sending(sending) = &mut self.writes
            && let Poll::Ready(waiting) = sending.as_mut().poll(context)
        {
            self.writes = Writes::Waiting(waiting);
        }
        if let Writes::Waiting(waiting) = &mut self.writes
            && let Poll::Ready(results) = waiting.as_mut().poll(context)
        {
            self.writes = Writes::Done(results);
        }
    }
}

impl Stream for PutAnswers {
    type Item = Result<api::PutStreamReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(reply) = self.replies.pop_front() {
            return Poll::Ready(Some(Ok(reply)));
        }
        if self.requests.is_some() && self.ended.as_mut().poll(context).is_ready() {
            // Writes that the writer already has are answered; later requests are not written.
            self.requests = None;
            self.failed = Some(ApiError::stopping().into());
        }
        // The last chunk may have reached the writer's queue; only then is the next one gathered.
        self.poll_chunks(context);
        // Gathers before the second poll: a chunk that is finished at once wakes no task.
        while self.has_room()
            && let Some(chunk) = self.gather(context)
        {
            self.chunks.push_back(chunk);
        }
        self.poll_chunks(context);
        if let Some(reply) = self.replies.pop_front() {
            return Poll::Ready(Some(Ok(reply)));
        }
        if !self.chunks.is_empty() || self.requests.is_some() {
            return Poll::Pending;
        }
        Poll::Ready(self.failed.take().map(Err))
    }
}

// Texts of errors are left out once they have taken up `room` bytes: a key may be in each.
fn result(result: Result<Option<Written>, WriteError>, room: &mut usize) -> api::WriteResult {
    match result {
        Ok(written) => api::WriteResult {
            written: Some(convert::written(written.as_ref())),
            failed: None,
        },
        Err(error) => {
            let mut error = ApiError::from(error);
            *room = room.saturating_sub(error.message.len() + error.hint.len());
            if *room == 0 {
                (error.message, error.hint) = (String::new(), String::new());
            }
            let failed = api::WriteFailed {
                error: Some(error.to_wire()),
                message: error.message,
            };
            api::WriteResult {
                written: None,
                failed: Some(failed),
            }
        }
    }
}

/// Writes of one request, so that the answer to it fits into a message. A request with more is refused.
const REQUEST_OPS_MAX: usize = 8 * PUT_CHUNK_WRITES_MAX;
/// Bytes of a result besides the text of its error, at most.
const RESULT_BYTES: usize = 128;
const _: () =
    assert!(REQUEST_OPS_MAX * RESULT_BYTES + PAGE_BYTES + 4 * KEY_BYTES_MAX < REPLY_BYTES_MAX);
