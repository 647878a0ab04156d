//! The stream of a comparison: messages with their length before them, one at a time each way.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::{
    net::error::PeerError,
    protocol::compare::{LENGTH_BYTES, Message, MessageError},
};

/// First byte of a stream that compares.
pub(super) const STREAM: u8 = 3;

/// One stream, and what went through it.
#[derive(Debug)]
pub(super) struct Line {
    send: SendStream,
    receive: RecvStream,
    /// Messages that were sent.
    pub(super) sent: u32,
    /// Bytes of the messages both ways.
    pub(super) bytes: u64,
}

impl Line {
    /// Opens a stream to the peer at the end of `connection`.
    ///
    /// # Errors
    /// `Connection`.
    pub(super) async fn open(connection: &Connection) -> Result<Self, PeerError> {
        let (mut send, receive) = connection.open_bi().await?;
        send.write_all(&[STREAM]).await?;
        Ok(Self::new(send, receive))
    }

    /// Makes the line of a stream whose first byte was read.
    pub(super) fn new(send: SendStream, receive: RecvStream) -> Self {
        Self {
            send,
            receive,
            sent: 0,
            bytes: 0,
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// `Silent` if the peer does not read it within `wait`; `Connection`.
    pub(super) async fn say(&mut self, message: Message, wait: Duration) -> Result<(), PeerError> {
        let message = message.encode();
        self.sent = self.sent.saturating_add(1);
        self.count(message.len());
        timeout(wait, self.send.write_all(&message))
            .await
            .map_err(|_elapsed| PeerError::Silent { wait })??;
        Ok(())
    }

    /// Returns the next message; `None` at the end of the stream. The inner error is a rule that the
    /// peer broke.
    ///
    /// # Errors
    /// `Silent` if it does not come within `wait`; `Connection`.
    pub(super) async fn hear(
        &mut self,
        wait: Duration,
    ) -> Result<Option<Result<Message, MessageError>>, PeerError> {
        let heard = timeout(wait, self.read()).await;
        heard.map_err(|_elapsed| PeerError::Silent { wait })?
    }

    /// Sends a message and returns the answer to it.
    ///
    /// # Errors
    /// As `say` and `hear`; `HungUp` without an answer.
    pub(super) async fn ask(
        &mut self,
        message: Message,
        wait: Duration,
    ) -> Result<Result<Message, MessageError>, PeerError> {
        self.say(message, wait).await?;
        self.hear(wait).await?.ok_or(PeerError::HungUp)
    }

    /// Ends this side of the stream.
    pub(super) fn finish(mut self) {
        drop(self.send.finish());
    }

    /// Ends the stream, and waits `wait` at most until the peer has ended it, too: it serves one at a
    /// time.
    pub(super) async fn close(mut self, wait: Duration) {
        drop(self.send.finish());
        drop(self.hear(wait).await);
    }

    /// Refuses the stream.
    pub(super) fn refuse(mut self, code: u32) {
        drop(self.send.reset(code.into()));
    }

    async fn read(&mut self) -> Result<Option<Result<Message, MessageError>>, PeerError> {
        let mut length = [0; LENGTH_BYTES];
        let mut filled = 0;
        while let Some(rest) = length.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.receive.read(rest).await? {
                Some(read) => filled += read,
                None if filled == 0 => return Ok(None),
                None => return Err(PeerError::HungUp),
            }
        }
        let length = match Message::length(length) {
            Ok(length) => length,
            Err(error) => return Ok(Some(Err(error))),
        };
        // Memory is taken as bytes come.
        let mut message = BytesMut::new();
        while message.len() < length {
            let chunk = self.receive.read_chunk(length - message.len()).await?;
            message.extend_from_slice(&chunk.ok_or(PeerError::HungUp)?);
        }
        self.count(length + LENGTH_BYTES);
        Ok(Some(Message::decode(Bytes::from(message))))
    }

    fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}
