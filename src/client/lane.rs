//! One stream of calls to a node, which many callers share.
//!
//! ```text
//! push -> waiting -> message of the stream -> sent -> result -> caller
//! ```
//! A message takes all calls that wait when the connection asks for it. So under load messages become
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
use tonic::{Status, Streaming};

use crate::{
    client::{error::ApiError, rpc::Rpc},
    limits::{CLIENT_CALLS_MAX, PUT_CHUNK_BYTES, PUT_CHUNK_WRITES_MAX},
};

/// The calls that one kind of stream carries: writes, or reads.
pub(super) trait Traffic: Sized + Send + 'static {
    type Request: Send;
    type Result: Send;
    type Message: Send;
    type Reply: Send;

    /// Returns about how many bytes a request has in a message.
    fn bytes(request: &Self::Request) -> usize;

    /// Returns a message with these requests, at least one.
    fn message(store: String, requests: Vec<Self::Request>) -> Self::Message;

    /// Begins the stream.
    fn open(
        rpc: Rpc,
        messages: Messages<Self>,
    ) -> impl Future<Output = Result<Streaming<Self::Reply>, Status>> + Send;

    /// Returns the results of a reply, in the order of the requests.
    fn results(reply: Self::Reply) -> impl Iterator<Item = Result<Self::Result, ApiError>> + Send;

    /// Returns the error for the caller of a request that was sent and not answered.
    fn unanswered(error: ApiError) -> ApiError;
}

/// A stream of calls. Its task ends when `finish` was called and all calls are answered, or when the
/// connection breaks.
pub(super) struct Lane<T: Traffic>(Mutex<State<T>>);

/// The end of a call.
pub(super) enum Outcome<T: Traffic> {
    /// The answer of the node, or the loss of the connection after the request was sent.
    Done(Result<T::Result, ApiError>),
    /// The stream ended for this reason before the request was sent.
    Unsent(T::Request, ApiError),
}

struct State<T: Traffic> {
    // In the order of the calls. At most `CLIENT_CALLS_MAX`: each has a permit of its pipe, or its caller
    // has gone.
    waiting: VecDeque<(T::Request, Caller<T>)>,
    // The callers of requests that were sent, in the order of the requests. The node reads no further ones
    // while it has `PUT_CHUNKS_MAX` messages.
    sent: VecDeque<Caller<T>>,
    // Wakes the connection when a call waits. Set while the connection has asked for a message.
    waker: Option<Waker>,
    // True once no caller is left.
    finished: bool,
    // Why the stream has ended. Then nothing waits any more.
    ended: Option<ApiError>,
}

type Caller<T> = oneshot::Sender<Outcome<T>>;

impl<T: Traffic> Lane<T> {
    /// Begins a stream of calls to `store`. Must be called inside a tokio runtime.
    pub(super) fn begin(rpc: Rpc, store: String) -> Arc<Self> {
        let lane = Arc::new(Self(Mutex::new(State {
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            waker: None,
            finished: false,
            ended: None,
        })));
        // Ends with the stream: see `Lane`.
        tokio::spawn(Arc::clone(&lane).run(rpc, store));
        lane
    }

    /// Returns whether the stream has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.lock().ended.is_none()
    }

    /// Sends `request` with the next message. The outcome comes through `caller`.
    pub(super) fn push(&self, request: T::Request, caller: Caller<T>) {
        let mut state = self.lock();
        if let Some(error) = state.ended.clone() {
            drop(state);
            return give(caller, Outcome::Unsent(request, error));
        }
        if state.waiting.len() >= CLIENT_CALLS_MAX {
            // Callers that have gone hold no permit any more. Without them, there is room for this one.
            state
                .waiting
                .retain(|(_request, caller)| !caller.is_closed());
        }
        state.waiting.push_back((request, caller));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the stream when all calls are answered. No call is pushed after it.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn run(self: Arc<Self>, rpc: Rpc, store: String) {
        let messages = Messages {
            lane: Arc::clone(&self),
            store: Some(store),
        };
        let error = match T::open(rpc, messages).await {
            Err(status) => status.into(),
            Ok(mut replies) => loop {
                match replies.message().await {
                    Ok(Some(reply)) => self.answer(reply),
                    Ok(None) => break ApiError::lost("the node ended the stream of calls"),
                    Err(status) => break status.into(),
                }
            },
        };
        self.end(&error);
    }

    // Returns the next requests. `None`: there are none, and no caller is left.
    fn next(&self, context: &Context<'_>) -> Poll<Option<Vec<T::Request>>> {
        let mut state = self.lock();
        let (mut requests, mut bytes) = (Vec::new(), 0);
        while requests.len() < PUT_CHUNK_WRITES_MAX
            && bytes < PUT_CHUNK_BYTES
            && let Some((request, caller)) = state.waiting.pop_front()
        {
            // Otherwise its caller has gone.
            if !caller.is_closed() {
                bytes += T::bytes(&request);
                requests.push(request);
                state.sent.push_back(caller);
            }
        }
        if !requests.is_empty() {
            return Poll::Ready(Some(requests));
        }
        if state.finished {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn answer(&self, reply: T::Reply) {
        let results: Vec<_> = T::results(reply).collect();
        let mut state = self.lock();
        let count = results.len().min(state.sent.len());
        let callers: Vec<Caller<T>> = state.sent.drain(..count).collect();
        drop(state);
        for (caller, result) in callers.into_iter().zip(results) {
            give(caller, Outcome::Done(result));
        }
    }

    fn end(&self, error: &ApiError) {
        let mut state = self.lock();
        state.ended = Some(error.clone());
        let waiting = mem::take(&mut state.waiting);
        let sent = mem::take(&mut state.sent);
        drop(state);
        for caller in sent {
            give(caller, Outcome::Done(Err(T::unanswered(error.clone()))));
        }
        for (request, caller) in waiting {
            give(caller, Outcome::Unsent(request, error.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// A caller that has gone needs no outcome.
fn give<T: Traffic>(caller: Caller<T>, outcome: Outcome<T>) {
    drop(caller.send(outcome));
}

/// The messages of a stream, as the connection asks for them.
pub(super) struct Messages<T: Traffic> {
    lane: Arc<Lane<T>>,
    // Taken by the first message.
    store: Option<String>,
}

impl<T: Traffic> Stream for Messages<T> {
    type Item = T::Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.lane.next(context);
        next.map(|requests| {
            let requests = requests?;
            Some(T::message(self.store.take().unwrap_or_default(), requests))
        })
    }
}

impl<T: Traffic> fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}
