//! The way to the writer: a queue that is bounded in commands and in bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    limits::{WRITER_QUEUE_BYTES_MAX, WRITER_QUEUE_MAX},
    store::{WriteError, actor::Command},
};

/// The callers' end. Cheap to clone; the writer ends when the last one is gone.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    commands: mpsc::Sender<Queued>,
    // One permit for each KiB that may still wait.
    room: Arc<Semaphore>,
}

/// A command that waits.
#[derive(Debug)]
pub(super) struct Queued {
    command: Command,
    // Given back when the writer takes the command, or never will.
    _room: Option<OwnedSemaphorePermit>,
}

impl Queued {
    /// Returns the command; there is room for another one then.
    pub(super) fn take(self) -> Command {
        self.command
    }
}

impl Queue {
    /// Makes a queue, and the writer's end of it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Queued>) {
        let (commands, received) = mpsc::channel(WRITER_QUEUE_MAX);
        let room = Arc::new(Semaphore::new(WRITER_QUEUE_BYTES_MAX / PERMIT_BYTES));
        (Self { commands, room }, received)
    }

    /// Adds a command that holds no bytes to speak of; waits while the queue is full.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) async fn send(&self, command: Command) -> Result<(), WriteError> {
        self.put(command, None).await
    }

    /// Adds a command that holds `bytes`; waits while they do not fit. More than fit at all wait
    /// for the empty queue.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) async fn send_bytes(
        &self,
        command: Command,
        bytes: usize,
    ) -> Result<(), WriteError> {
        let permits = bytes.min(WRITER_QUEUE_BYTES_MAX).div_ceil(PERMIT_BYTES);
        let permits = u32::try_from(permits).expect("WRITER_QUEUE_BYTES_MAX fits 32 bits");
        let room = match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(room) => room,
            Err(_full) => {
                let waited = Arc::clone(&self.room).acquire_many_owned(permits).await;
                waited.map_err(|_closed| WriteError::Closed)?
            }
        };
        self.put(command, Some(room)).await
    }

    async fn put(
        &self,
        command: Command,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), WriteError> {
        let queued = Queued {
            command,
            _room: room,
        };
        let sent = self.commands.send(queued).await;
        sent.map_err(|_gone| WriteError::Closed)
    }
}

// Small enough that small writes are bounded by their number, not by what is rounded up.
const PERMIT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use tokio::sync::oneshot;

    use super::*;
    use crate::{limits::VALUE_BYTES_MAX, store::Write};

    fn write() -> Command {
        let (reply, _answer) = oneshot::channel();
        Command::Write(Write::put("/k", vec![1; 8]), reply)
    }

    // True when it was taken in at once.
    fn sent(queue: &Queue, bytes: usize) -> bool {
        let sending = pin!(queue.send_bytes(write(), bytes));
        let polled = sending.poll(&mut Context::from_waker(Waker::noop()));
        polled.is_ready()
    }

    #[test]
    fn large_writes_wait_until_the_writer_takes_one() {
        let (queue, mut received) = Queue::new();
        let mut waiting = 0;
        while sent(&queue, VALUE_BYTES_MAX) {
            waiting += 1;
            assert!(waiting <= WRITER_QUEUE_MAX, "the bytes are not bounded");
        }
        assert_eq!(waiting, WRITER_QUEUE_BYTES_MAX / VALUE_BYTES_MAX);
        assert!(!sent(&queue, 1), "not even a small one fits");
        drop(received.try_recv().unwrap().take());
        assert!(sent(&queue, VALUE_BYTES_MAX), "the writer has taken one");
        assert!(!sent(&queue, VALUE_BYTES_MAX));
    }

    #[test]
    fn small_writes_are_bounded_by_their_number() {
        let (queue, _received) = Queue::new();
        let mut waiting = 0;
        while sent(&queue, 200) {
            waiting += 1;
        }
        assert_eq!(waiting, WRITER_QUEUE_MAX);
    }

    #[test]
    fn a_write_larger_than_the_queue_goes_in_alone() {
        let (queue, mut received) = Queue::new();
        assert!(sent(&queue, usize::MAX));
        assert!(!sent(&queue, 1));
        drop(received.try_recv().unwrap().take());
        assert!(sent(&queue, 1));
        assert!(!sent(&queue, usize::MAX), "it waits until it is alone");
    }

    #[test]
    fn callers_that_wait_are_told_when_the_writer_is_gone() {
        let (queue, received) = Queue::new();
        assert!(sent(&queue, usize::MAX));
        let mut sending = pin!(queue.send_bytes(write(), 1));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sending.as_mut().poll(&mut cx).is_pending());
        drop(received);
        let polled = sending.as_mut().poll(&mut cx);
        assert!(
            matches!(polled, Poll::Ready(Err(WriteError::Closed))),
            "{polled:?}"
        );
    }
}
