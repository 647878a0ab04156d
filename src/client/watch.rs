//! A stream of changes, over as many connections as it takes.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio_stream::Stream;

use crate::{
    calls::{WatchEvent, WatchOptions},
    client::{
        error::ApiError,
        messages,
        replies::{Opening, Polled, Replies},
        rpc::Rpc,
    },
    id::EntryId,
    limits::CLIENT_GROUP_MAX,
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
#[derive(Debug)]
pub struct Watch {
    rpc: Rpc,
    // `start` is moved to each new cursor: the next connection begins there.
    request: api::WatchRequest,
    replies: Replies<api::WatchReply>,
    // True after an error, and at the end of a watch that ends at a time.
    has_ended: bool,
    // True during the state, which comes in the order of keys: its cursors stay at the position before it.
    is_filling: bool,
    // True once an event was delivered that a new start would repeat.
    has_delivered: bool,
    // The last cursor. Empty before the first one.
    cursor: String,
    // Changes since the last cursor that was new: they are of a group, inside which cursors do not move.
    // At most `CLIENT_GROUP_MAX`. Empty during the state.
    group: Vec<Seen>,
    // Changes of a group that were delivered on a connection before, and come again, most likely in this
    // order.
    repeated: VecDeque<Seen>,
}

/// A change inside a group.
#[derive(Debug, PartialEq, Eq)]
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
            rpc,
            request,
            replies: Replies::new(),
            has_ended: false,
            has_delivered: false,
            cursor: String::new(),
            group: Vec::new(),
            repeated: VecDeque::new(),
        }
    }

    /// Returns the position after the last item: a watch that begins after it, on this node or another,
    /// delivers exactly the changes that this watch has not. `None` before the first item.
    ///
    /// Inside a batch, and during the state, it stays at the position before them.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor.parse().ok()
    }

    /// Returns whether the stream has a connection to its node.
    pub fn is_connected(&self) -> bool {
        self.replies.is_open()
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
        // The first cursor may be the one before a group that has just begun.
        let is_first = self.cursor.is_empty() || reply.cursor.is_empty();
        let has_moved = !is_first && reply.cursor != self.cursor;
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
            self.repeated.remove(index);
        }
        if has_moved {
            self.group.clear();
            self.repeated.clear();
        } else if !self.is_filling && self.group.len() <= CLIENT_GROUP_MAX {
            self.group.push(seen);
        }
        before.is_none()
    }

    // Decides where the next connection begins, after one was lost. Returns a gap if the changes since the
    // last event cannot be delivered.
    fn begin_again(&mut self) -> Option<WatchEvent> {
        let start = self.request.start.as_ref();
        let repeats = matches!(start, Some(Start::Initial(_))) && self.has_delivered;
        let misses = matches!(start, Some(Start::Now(_)));
        let group = mem::take(&mut self.group);
        let is_long = group.len() > CLIENT_GROUP_MAX;
        // On a connection that broke inside a group, a part of it may have been repeated.
        self.repeated.extend(group);
        if !(repeats || misses || is_long) {
            self.is_filling = matches!(start, Some(Start::Initial(_)));
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

fn open(rpc: &Rpc, request: &api::WatchRequest) -> Opening<api::WatchReply> {
    let (mut rpc, request) = (rpc.clone(), request.clone());
    Box::pin(async move { Ok(rpc.watch(request).await?.into_inner()) })
}

impl Stream for Watch {
    type Item = Result<WatchEvent, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.has_ended {
            let (rpc, request) = (&this.rpc, &this.request);
            let polled = this.replies.poll(context, || open(rpc, request));
            let event = match ready!(polled) {
                Polled::Reply(reply) => this.read(reply).transpose(),
                Polled::Failed(error) => Some(Err(error)),
                Polled::Ended if this.request.until_ms.is_some() => {
                    this.has_ended = true;
                    None
                }
                Polled::Ended if this.replies.lose() => this.begin_again().map(Ok),
                Polled::Lost { first: true } => this.begin_again().map(Ok),
                Polled::Ended | Polled::Lost { first: false } => None,
            };
            if event.is_some() {
                this.has_ended = matches!(event, Some(Err(_)));
                return Poll::Ready(event);
            }
        }
        Poll::Ready(None)
    }
}
