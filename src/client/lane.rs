//! One stream of writes to a node, which many callers share.
//!
//! ```text
//! push -> waiting -> message of the stream -> sent -> answer -> caller
//! ```
//! A message takes all writes that wait when the connection asks for it. So under load messages become
//! larger, not more.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::sync::oneshot;
use tokio_stream::Stream;

use crate::{
    calls::Written,
    client::{error::ApiError, messages, rpc::Rpc},
    limits::{PUT_CHUNK_BYTES, PUT_CHUNK_WRITES_MAX},
    wire::api,
};

/// A stream of writes. Its task ends when `finish` was called and all writes are answered, or when the
/// connection breaks.
pub(super) struct Lane(Mutex<State>);

/// The end of a write.
pub(super) enum Outcome {
    /// The answer of the node, or the loss of the connection after the write was sent.
    Done(Result<Option<Written>, ApiError>),
    /// The stream ended for this reason before the write was sent.
    Unsent(Box<api::Op>, ApiError),
}

#[derive(Default)]
struct State {
    // In the order of the calls. At most `CLIENT_WRITES_MAX`, with `sent`.
    waiting: VecDeque<(api::Op, Answer)>,
    // The callers of each message that is not answered yet, in the order of the messages.
    sent: VecDeque<Vec<Answer>>,
    // Wakes the connection when a write waits. Set while the connection has asked for a message.
    waker: Option<Waker>,
    // True once no caller is left.
    finished: bool,
    // Why the stream has ended. Then nothing waits any more.
    ended: Option<ApiError>,
}

type Answer = oneshot::Sender<Outcome>;

impl Lane {
    /// Begins a stream of writes to `store`. Must be called inside a tokio runtime.
    pub(super) fn begin(rpc: Rpc, store: String) -> Arc<Self> {
        let lane = Arc::new(Self(Mutex::default()));
        // Ends with the stream: see `Lane`.
        tokio::spawn(Arc::clone(&lane).run(rpc, store));
        lane
    }

    /// Returns whether the stream has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.lock().ended.is_none()
    }

    /// Sends `op` with the next message. The result comes through `answer`.
    pub(super) fn push(&self, op: api::Op, answer: Answer) {
        let mut state = self.lock();
        if let Some(error) = state.ended.clone() {
            drop(state);
            return give(answer, Outcome::Unsent(Box::new(op), error));
        }
        state.waiting.push_back((op, answer));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the stream when all writes are answered. No write is pushed after it.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn run(self: Arc<Self>, mut rpc: Rpc, store: String) {
        let requests = Requests {
            lane: Arc::clone(&self),
            store: Some(store),
        };
        let error = match rpc.put_stream(requests).await {
            Err(status) => status.into(),
            Ok(replies) => {
                let mut replies = replies.into_inner();
                loop {
                    match replies.message().await {
                        Ok(Some(reply)) => self.answer(reply),
                        Ok(None) => break ApiError::lost("the node ended the stream of writes"),
                        Err(status) => break status.into(),
                    }
                }
            }
        };
        self.end(&error);
    }

    // Returns the next message. `None`: no write waits now.
    fn next(&self, context: &Context<'_>) -> Poll<Option<Vec<api::Op>>> {
        let mut state = self.lock();
        let (mut ops, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        while ops.len() < PUT_CHUNK_WRITES_MAX
            && bytes < PUT_CHUNK_BYTES
            && let Some((op, answer)) = state.waiting.pop_front()
        {
            // Otherwise its caller has gone.
            if !answer.is_closed() {
                bytes += op.key.len() + op.value.len();
                ops.push(op);
                answers.push(answer);
            }
        }
        if ops.is_empty() {
            if state.finished {
                return Poll::Ready(None);
            }
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.sent.push_back(answers);
        Poll::Ready(Some(ops))
    }

    fn answer(&self, reply: api::PutStreamReply) {
        let answers = self.lock().sent.pop_front().unwrap_or_default();
        let mut results = reply.results.into_iter();
        for answer in answers {
            let result = match results.next() {
                Some(api::WriteResult {
                    failed: Some(failed),
                    ..
                }) => Err(ApiError::from_wire(failed)),
                Some(api::WriteResult {
                    written: Some(written),
                    ..
                }) => messages::written(&written),
                _nothing => Err(messages::malformed("a write has no result")),
            };
            give(answer, Outcome::Done(result));
        }
    }

    fn end(&self, error: &ApiError) {
        let mut state = self.lock();
        state.ended = Some(error.clone());
        let waiting = mem::take(&mut state.waiting);
        let sent = mem::take(&mut state.sent);
        drop(state);
        for answer in sent.into_iter().flatten() {
            give(answer, Outcome::Done(Err(error.clone().for_sent_write())));
        }
        for (op, answer) in waiting {
            give(answer, Outcome::Unsent(Box::new(op), error.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// A caller that has gone needs no answer.
fn give(answer: Answer, outcome: Outcome) {
    drop(answer.send(outcome));
}

/// The messages of a stream, as the connection asks for them.
struct Requests {
    lane: Arc<Lane>,
    // Taken by the first message.
    store: Option<String>,
}

impl Stream for Requests {
    type Item = api::PutStreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.lane.next(context);
        next.map(|ops| {
            let store = self.store.take_if(|_| ops.is_some()).unwrap_or_default();
            ops.map(|ops| api::PutStreamRequest { store, ops })
        })
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}
