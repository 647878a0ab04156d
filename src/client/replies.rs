//! The replies of a call that goes on, over as many connections as it takes.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};
use tokio_stream::Stream as _;
use tonic::{Status, Streaming};

use crate::{
    client::error::{ApiError, ErrorKind},
    limits::{CLIENT_RETRY_MAX, CLIENT_RETRY_MIN},
};

/// A call whose replies are a stream. When the connection breaks, the next poll waits and makes the call
/// again.
pub(super) struct Replies<M> {
    phase: Phase<M>,
    // Wait before the next attempt to connect; zero since the last reply.
    wait: Duration,
}

/// The answer to a poll.
pub(super) enum Polled<M> {
    Reply(M),
    /// The node has ended the stream without an error.
    Ended,
    /// The connection was lost, or there is none. `first`: for the first time since the last reply.
    Lost {
        first: bool,
    },
    /// The call was refused: it would be refused again.
    Failed(ApiError),
}

/// A call that is being made.
pub(super) type Opening<M> = Pin<Box<dyn Future<Output = Result<Streaming<M>, Status>> + Send>>;

enum Phase<M> {
    Closed,
    Opening(Opening<M>),
    Open(Box<Streaming<M>>),
    // Until the next attempt.
    Waiting(Pin<Box<Sleep>>),
}

impl<M> Replies<M> {
    /// Makes no call before the first poll.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Closed,
            wait: Duration::ZERO,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Polls for the next reply. `open` makes the call, once for each connection.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut open: impl FnMut() -> Opening<M>,
    ) -> Poll<Polled<M>> {
        loop {
            match &mut self.phase {
                Phase::Closed => self.phase = Phase::Opening(open()),
                Phase::Opening(opening) => match ready!(opening.as_mut().poll(context)) {
                    Ok(replies) => self.phase = Phase::Open(Box::new(replies)),
                    Err(status) => return Poll::Ready(self.failed(status)),
                },
                Phase::Open(replies) => {
                    return Poll::Ready(match ready!(Pin::new(replies).poll_next(context)) {
                        Some(Ok(reply)) => {
                            self.wait = Duration::ZERO;
                            Polled::Reply(reply)
                        }
                        Some(Err(status)) => self.failed(status),
                        None => {
                            self.phase = Phase::Closed;
                            Polled::Ended
                        }
                    });
                }
                Phase::Waiting(waiting) => {
                    ready!(waiting.as_mut().poll(context));
                    self.phase = Phase::Closed;
                }
            }
        }
    }

    /// Makes the call again after a wait. Returns whether this is the first time since the last reply.
    pub(super) fn lose(&mut self) -> bool {
        let first = self.wait.is_zero();
        self.wait = (self.wait * 2).clamp(CLIENT_RETRY_MIN, CLIENT_RETRY_MAX);
        self.phase = Phase::Waiting(Box::pin(sleep(self.wait)));
        first
    }

    fn failed(&mut self, status: Status) -> Polled<M> {
        let error = ApiError::from(status);
        if error.kind() == ErrorKind::Unavailable {
            let first = self.lose();
            return Polled::Lost { first };
        }
        self.phase = Phase::Closed;
        Polled::Failed(error)
    }
}

impl<M> fmt::Debug for Replies<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}
