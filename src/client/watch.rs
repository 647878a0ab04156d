//! A stream of changes, over as many connections as it takes.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::Streaming;

use crate::{
    calls::{WatchEvent, WatchOptions},
    client::{
        error::{ApiError, ErrorKind},
        messages,
        rpc::Rpc,
    },
    id::EntryId,
    limits::{CLIENT_GROUP_MAX, CLIENT_RETRY_MAX, CLIENT_RETRY_MIN},
    protocol::{
        change::{Change, Kind},
        cursor::Cursor,
    },
    wire::api::{self, watch_request::Start},
};

/// A stream of changes of some keys.
///
/// If the connection breaks, or no node is running, the stream connects again until there is one, and goes
/// on after the last change: none is lost, and none comes twice. If the connection breaks while the state
/// is delivered, and before the first event of a watch from now on, a `Gap` comes first, and then the
/// state. The stream ends after `until_ms`, or after an error: of the options, of the store, or of a
/// cursor that the node has not reached.
///
/// Cancel-safe: an item that was not taken comes next. Dropping it ends the watch.
pub struct Watch {
    rpc: Rpc,
    // `start` is moved to each new cursor: the next connection begins there.
    request: api::WatchRequest,
    phase: Phase,
    // Wait before the next attempt to connect; zero while connected.
    wait: Duration,
    // True during the state, which comes in the order of keys: its cursors stay at the position before it.
    is_filling: bool,
    // True once an event was delivered that a new start would repeat.
    has_delivered: bool,
    // The last cursor. Empty before the first one.
    cursor: String,
    // Changes since the last cursor that was new: they are of a group, inside which cursors do not move.
    // At most `CLIENT_GROUP_MAX`. Empty during the state.
    group: Vec<Seen>,
    // Changes of a group that were delivered on a connection before, and come again.
    repeated: Vec<Seen>,
}

enum Phase {
    Opening(Pin<Box<dyn Future<Output = Result<Streaming<api::WatchReply>, ApiError>> + Send>>),
    Open(Box<Streaming<api::WatchReply>>),
    // Until the next attempt.
    Waiting(Pin<Box<Sleep>>),
    Ended,
}

/// A change inside a group.
#[derive(PartialEq, Eq)]
struct Seen {
    kind: Kind,
    entry: EntryId,
    key: Bytes,
}

impl Watch {
    pub(super) fn new(rpc: Rpc, store: String, options: WatchOptions) -> Self {
        let request = messages::watch(store, options);
        Self {
            is_filling: matches!(request.start, Some(Start::Initial(_))),
            phase: open(&rpc, &request),
            rpc,
            request,
            wait: Duration::ZERO,
            has_delivered: false,
            cursor: String::new(),
            group: Vec::new(),
            repeated: Vec::new(),
        }
    }

    /// Returns the position after the last item, as of the node: a watch that begins after it, on this node
    /// or another, delivers exactly the changes that this watch has not. `None` before the first item.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor.parse().ok()
    }

    /// Returns whether the stream has a connection to its node.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    // Returns the event of a reply; `None` if it was delivered on a connection before.
    fn read(&mut self, reply: api::WatchReply) -> Result<Option<WatchEvent>, ApiError> {
        let event = reply
            .event
            .ok_or_else(|| messages::malformed("an event of a watch is empty"))?;
        let event = messages::event(event)?;
        match &event {
            WatchEvent::Gap { .. } => self.is_filling = true,
            WatchEvent::CaughtUp => self.is_filling = false,
            _other => {}
        }
        let has_moved = !reply.cursor.is_empty() && reply.cursor != self.cursor;
        let is_new = self.note(&event, has_moved);
        if !reply.cursor.is_empty() {
            self.cursor = reply.cursor;
            if !self.is_filling {
                self.request.start = Some(Start::After(self.cursor.clone()));
            }
        }
        self.has_delivered = true;
        Ok(Some(event).filter(|_| is_new))
    }

    // Notes a change inside a group. Returns whether it was not delivered before.
    fn note(&mut self, event: &WatchEvent, has_moved: bool) -> bool {
        let WatchEvent::Change(change) = event else {
            return true;
        };
        let seen = Seen::of(change);
        let before = self.repeated.iter().position(|it| *it == seen);
        if let Some(index) = before {
            self.repeated.swap_remove(index);
        }
        if has_moved {
            self.group.clear();
            self.repeated.clear();
        } else if !self.is_filling && self.group.len() <= CLIENT_GROUP_MAX {
            self.group.push(seen);
        }
        before.is_none()
    }

    // Decides what comes next after a connection was lost. Returns a gap if the changes since the last
    // event cannot be delivered.
    fn lost(&mut self) -> Option<WatchEvent> {
        let is_first = self.wait.is_zero();
        self.wait = (self.wait * 2).clamp(CLIENT_RETRY_MIN, CLIENT_RETRY_MAX);
        self.phase = Phase::Waiting(Box::pin(sleep(self.wait)));
        if !is_first {
            return None;
        }
        let start = self.request.start.as_ref();
        let repeats = matches!(start, Some(Start::Initial(_))) && self.has_delivered;
        let misses = matches!(start, Some(Start::Now(_)));
        let group = mem::take(&mut self.group);
        let is_long = group.len() > CLIENT_GROUP_MAX;
        // On a connection that broke inside a group, a part of it may have been repeated.
        self.repeated.extend(group);
        if !(repeats || misses || is_long) {
            return None;
        }
        self.repeated.clear();
        self.request.start = Some(Start::Initial(true));
        self.is_filling = true;
        let reason = match is_long {
            false => "the connection was lost before the first cursor",
            true => "the connection was lost inside a very large group of changes",
        };
        Some(WatchEvent::Gap {
            reason: reason.to_owned(),
            reach_ms: None,
        })
    }
}

impl Seen {
    fn of(change: &Change) -> Self {
        Self {
            kind: change.kind,
            entry: change.entry.id,
            key: change.key.clone(),
        }
    }
}

fn open(rpc: &Rpc, request: &api::WatchRequest) -> Phase {
    let (mut rpc, request) = (rpc.clone(), request.clone());
    Phase::Opening(Box::pin(async move {
        Ok(rpc.watch(request).await?.into_inner())
    }))
}

impl Stream for Watch {
    type Item = Result<WatchEvent, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let lost = match &mut this.phase {
                Phase::Opening(opening) => match ready!(opening.as_mut().poll(context)) {
                    Ok(replies) => {
                        this.phase = Phase::Open(Box::new(replies));
                        continue;
                    }
                    Err(error) => error,
                },
                Phase::Waiting(waiting) => {
                    ready!(waiting.as_mut().poll(context));
                    this.phase = open(&this.rpc, &this.request);
                    continue;
                }
                Phase::Open(replies) => match ready!(Pin::new(replies).poll_next(context)) {
                    Some(Ok(reply)) => {
                        this.wait = Duration::ZERO;
                        match this.read(reply) {
                            Ok(None) => continue,
                            Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                            Err(error) => error,
                        }
                    }
                    Some(Err(status)) => status.into(),
                    None if this.request.until_ms.is_some() => {
                        this.phase = Phase::Ended;
                        continue;
                    }
                    None => ApiError::lost("the node ended the watch"),
                },
                Phase::Ended => return Poll::Ready(None),
            };
            if lost.kind() != ErrorKind::Unavailable {
                this.phase = Phase::Ended;
                return Poll::Ready(Some(Err(lost)));
            }
            if let Some(gap) = this.lost() {
                return Poll::Ready(Some(Ok(gap)));
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("cursor", &self.cursor)
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}
