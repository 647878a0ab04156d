//! The queue to the writer: writes and commands, each kind in order of arrival; bounded in number and
//! in bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    limits::{WRITER_QUEUE_BYTES_MAX, WRITER_QUEUE_MAX},
    store::{
        WriteError,
        writer::command::{Command, Writes},
    },
};

/// The callers' end. Cheap to clone. When the last one is dropped, the writer closes the store.
#[derive(Debug, Clone)]
pub(in crate::store) struct Queue {
    writes: mpsc::Sender<Queued<Writes>>,
    commands: mpsc::Sender<Queued<Command>>,
    // One permit for each KiB that may still be queued. Returned when the writer takes the item.
    room: Arc<Semaphore>,
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct Inbox {
    writes: mpsc::Receiver<Queued<Writes>>,
    commands: mpsc::Receiver<Queued<Command>>,
    // True when a write goes first, if both kinds wait. They take turns.
    writes_first: bool,
}

/// The oldest item of the kind whose turn it is.
#[derive(Debug)]
pub(super) enum Next {
    Writes(Writes),
    Command(Command),
}

// The permit is returned when the item leaves the queue, also unread.
type Queued<T> = (T, Option<OwnedSemaphorePermit>);

impl Queue {
    /// Makes a queue, and the writer's end of it.
    pub(super) fn new() -> (Self, Inbox) {
        let (writes, written) = mpsc::channel(WRITER_QUEUE_MAX);
        let (commands, commanded) = mpsc::channel(WRITER_QUEUE_MAX);
        let queue = Self {
            writes,
            commands,
            room: Arc::new(Semaphore::new(WRITER_QUEUE_BYTES_MAX / PERMIT_BYTES)),
        };
        let inbox = Inbox {
            writes: written,
            commands: commanded,
            writes_first: true,
        };
        (queue, inbox)
    }

    /// Adds writes; waits while they do not fit. Writes larger than the queue wait until it is empty.
    /// Cancel-safe: a dropped call has not added them.
    ///
    /// # Errors
    /// `Closed`.
    pub(in crate::store) async fn write(&self, writes: Writes) -> Result<(), WriteError> {
        let room = self.room(writes.bytes()).await?;
        put(&self.writes, writes, Some(room)).await
    }

    /// Adds a command that holds few bytes; waits while the queue is full.
    ///
    /// # Errors
    /// `Closed`.
    pub(in crate::store) async fn send(&self, command: Command) -> Result<(), WriteError> {
        put(&self.commands, command, None).await
    }

    /// Adds a command that holds `bytes`; waits as `write` does.
    ///
    /// # Errors
    /// `Closed`.
    pub(in crate::store) async fn send_bytes(
        &self,
        command: Command,
        bytes: usize,
    ) -> Result<(), WriteError> {
        let room = self.room(bytes).await?;
        put(&self.commands, command, Some(room)).await
    }

    /// Sends the command that `command` makes of a reply channel, and waits for the reply.
    ///
    /// # Errors
    /// `Closed`.
    pub(in crate::store) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_gone| WriteError::Closed)
    }

    /// Like `ask`, for a command that holds `bytes`; waits as `write` does.
    ///
    /// # Errors
    /// `Closed`.
    pub(in crate::store) async fn ask_with_bytes<T>(
        &self,
        bytes: usize,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send_bytes(command(reply), bytes).await?;
        answer.await.map_err(|_gone| WriteError::Closed)
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, WriteError> {
        let permits = bytes.min(WRITER_QUEUE_BYTES_MAX).div_ceil(PERMIT_BYTES);
        let permits = u32::try_from(permits).expect("WRITER_QUEUE_BYTES_MAX fits 32 bits");
        match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(room) => Ok(room),
            Err(_full) => {
                let waited = Arc::clone(&self.room).acquire_many_owned(permits).await;
                waited.map_err(|_closed| WriteError::Closed)
            }
        }
    }
}

async fn put<T>(
    queue: &mpsc::Sender<Queued<T>>,
    item: T,
    room: Option<OwnedSemaphorePermit>,
) -> Result<(), WriteError> {
    let sent = queue.send((item, room)).await;
    sent.map_err(|_gone| WriteError::Closed)
}

impl Inbox {
    /// Returns the next item that waits, writes and commands in turns. `Disconnected` when no caller is
    /// left.
    pub(super) fn try_next(&mut self) -> Result<Next, mpsc::error::TryRecvError> {
        let next = match self.try_one(self.writes_first) {
            Err(first) => {
                let second = self.try_one(!self.writes_first);
                // Disconnected only when both channels are.
                second.map_err(|second| match first {
                    mpsc::error::TryRecvError::Disconnected => second,
                    mpsc::error::TryRecvError::Empty => first,
                })
            }
            found => found,
        };
        self.writes_first = !matches!(next, Ok(Next::Writes(_)));
        next
    }

    /// Waits for the next item; `None` when no caller is left. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Next> {
        tokio::select! {
            Some((writes, _room)) = self.writes.recv() => Some(Next::Writes(writes)),
            Some((command, _room)) = self.commands.recv() => Some(Next::Command(command)),
            else => None,
        }
    }

    /// Returns the next writes, if some wait.
    pub(super) fn next_writes(&mut self) -> Option<Writes> {
        self.writes.try_recv().ok().map(|(writes, _room)| writes)
    }

    /// Returns whether writes wait.
    pub(super) fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Accepts no more items. Those that wait can still be taken.
    pub(super) fn close(&mut self) {
        self.writes.close();
        self.commands.close();
    }

    fn try_one(&mut self, writes: bool) -> Result<Next, mpsc::error::TryRecvError> {
        if writes {
            let (writes, _room) = self.writes.try_recv()?;
            return Ok(Next::Writes(writes));
        }
        let (command, _room) = self.commands.try_recv()?;
        Ok(Next::Command(command))
    }
}

// Small enough that small writes are bounded by their number, not by rounding.
const PERMIT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::{limits::VALUE_BYTES_MAX, store::Write};

    fn status() -> Command {
        let (reply, _answer) = oneshot::channel();
        Command::Status(reply)
    }

    // Returns whether the command was accepted at once.
    fn sent(queue: &Queue, bytes: usize) -> bool {
        let sending = pin!(queue.send_bytes(status(), bytes));
        let polled = sending.poll(&mut Context::from_waker(Waker::noop()));
        polled.is_ready()
    }

    #[test]
    fn large_commands_wait_for_room() {
        let (queue, mut inbox) = Queue::new();
        let mut waiting = 0;
        while sent(&queue, VALUE_BYTES_MAX) {
            waiting += 1;
            assert!(waiting <= WRITER_QUEUE_MAX, "the bytes are not bounded");
        }
        assert_eq!(waiting, WRITER_QUEUE_BYTES_MAX / VALUE_BYTES_MAX);
        assert!(!sent(&queue, 1), "not even a small one fits");
        drop(inbox.try_next().unwrap());
        assert!(sent(&queue, VALUE_BYTES_MAX), "the writer has taken one");
        assert!(!sent(&queue, VALUE_BYTES_MAX));
    }

    #[test]
    fn small_commands_are_bounded_by_their_number() {
        let (queue, _inbox) = Queue::new();
        let mut waiting = 0;
        while sent(&queue, 200) {
            waiting += 1;
        }
        assert_eq!(waiting, WRITER_QUEUE_MAX);
    }

    #[test]
    fn a_command_larger_than_the_queue_waits_for_it_to_be_empty() {
        let (queue, mut inbox) = Queue::new();
        assert!(sent(&queue, usize::MAX));
        assert!(!sent(&queue, 1));
        drop(inbox.try_next().unwrap());
        assert!(sent(&queue, 1));
        assert!(!sent(&queue, usize::MAX), "it waits until it is alone");
    }

    #[test]
    fn waiting_callers_get_closed_when_the_writer_ends() {
        let (queue, inbox) = Queue::new();
        assert!(sent(&queue, usize::MAX));
        let mut sending = pin!(queue.send_bytes(status(), 1));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sending.as_mut().poll(&mut cx).is_pending());
        drop(inbox);
        let polled = sending.as_mut().poll(&mut cx);
        assert!(
            matches!(polled, Poll::Ready(Err(WriteError::Closed))),
            "{polled:?}"
        );
    }

    #[test]
    fn writes_and_commands_take_turns() {
        let (queue, mut inbox) = Queue::new();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(sent(&queue, 1));
        }
        for _ in 0..2 {
            let (reply, _answer) = oneshot::channel();
            let sending = pin!(queue.write(Writes::One(Write::put("/k", "v"), reply)));
            assert!(sending.poll(&mut cx).is_ready());
        }
        assert!(inbox.has_writes());
        let next = std::iter::from_fn(|| inbox.try_next().ok());
        let order: String = next
            .map(|next| match next {
                Next::Writes(_) => 'w',
                Next::Command(_) => 'c',
            })
            .collect();
        assert_eq!(order, "wcwcc");
        assert!(!inbox.has_writes());
    }
}
