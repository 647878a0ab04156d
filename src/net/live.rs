//! A connection to a peer: which start of the peer it leads to, and when the peer was last heard.

use std::time::Duration;

use iroh::endpoint::{Connection, ConnectionError};
use tokio::time::Instant;

use crate::net::gate::STOPPED;

/// A connection to a peer.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Number of the start of the peer that it leads to, by the peer's acks; `None` before its
    /// first status.
    pub(super) instance: Option<u64>,
    // Datagrams that had come at the last look, and the time of the first look that found as many.
    datagrams: u64,
    heard: Instant,
}

impl Live {
    /// Notes a connection that was just made.
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            datagrams: connection.stats().udp_rx.datagrams,
            connection,
            instance: None,
            heard: Instant::now(),
        }
    }

    /// Looks whether datagrams have come since the last look.
    pub(super) fn listen(&mut self) -> bool {
        let datagrams = self.connection.stats().udp_rx.datagrams;
        let is_heard = datagrams != self.datagrams;
        if is_heard {
            (self.datagrams, self.heard) = (datagrams, Instant::now());
        }
        is_heard
    }

    /// Returns how long the peer was silent on it, by the last look.
    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Returns whether the peer has closed it because it stops.
    pub(super) fn was_stopped(&self) -> bool {
        let reason = self.connection.close_reason();
        let Some(ConnectionError::ApplicationClosed(closed)) = reason else {
            return false;
        };
        closed.error_code.into_inner() == u64::from(STOPPED.0)
    }
}
