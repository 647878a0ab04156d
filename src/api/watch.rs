//! The call `Watch`: a watch of a store as a stream of answers.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    api::{
        convert,
        error::{ApiError, EXIT_FAILED, closed, text},
        signed_entry::{self, Found},
        watch_root::WatchRoot,
        watches::{Opened, Watches},
    },
    limits::{HEARTBEAT, WATCH_SELECTORS_MAX},
    node::Node,
    protocol::{
        cursor::{Cursor, CursorError},
        pattern::Pattern,
    },
    store::{Start, Store, WatchError, WatchEvent, WatchMode, WatchOptions},
    wire::api::{self, watch_reply::Event, watch_request},
};

// A reply that something is added to: its signed entry, or a root.
type Adding = Pin<Box<dyn Future<Output = (api::WatchReply, Added)> + Send>>;

enum Added {
    Entry(Option<Found>),
    Root(WatchRoot),
}

/// The answers to one `Watch` call. When the client disconnects, the call drops them, and the watch
/// ends.
pub(super) struct WatchAnswers {
    // `None` after an error and at the end: the stream has ended.
    watch: Option<Opened>,
    store: Store,
    // True: changes carry a cursor. Other events always carry one.
    cursors: bool,
    // True: changes carry their signed entry.
    proofs: bool,
    // The entry that was looked up last.
    found: Option<Found>,
    // Adds roots. `None` if the client wants none, and while a root is computed.
    root: Option<WatchRoot>,
    // The next reply, while something is added to it.
    adding: Option<Adding>,
    ending: CancellationToken,
    // Resolves when `ending` is cancelled.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    // True between `CaughtUp` and a `Gap`.
    is_caught_up: bool,
    // Resolves when this node is known to be removed from its mesh. `None` once that was sent.
    removal: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl WatchAnswers {
    /// Begins to watch `store`, until the client or the server ends the call.
    ///
    /// # Errors
    /// An error about the first field of `request` that is malformed.
    pub(super) fn new(
        store: Store,
        request: api::WatchRequest,
        watches: &Watches,
        ending: CancellationToken,
    ) -> Result<Self, ApiError> {
        let (cursors, proofs) = (request.cursors, request.proofs);
        let root = WatchRoot::of(&request)?;
        let on = label(&request);
        let watch = store.watch_with(options(request)?);
        let watch = Some(watches.open(store.id(), on, watch));
        let ended = Box::pin(ending.clone().cancelled_owned());
        let removal = Some(Box::pin(store.until_removed()) as _);
        Ok(Self {
            watch,
            store,
            cursors,
            proofs,
            found: None,
            root,
            adding: None,
            ending,
            ended,
            is_caught_up: false,
            removal,
        })
    }

    // Returns whether the client is to learn now, and not with the next heartbeat, that this node was
    // removed: the watch has no event.
    fn poll_removal(&mut self, context: &mut Context<'_>) -> bool {
        let removal = self.removal.as_mut().filter(|_| self.is_caught_up);
        let is_removed = removal.is_some_and(|it| it.as_mut().poll(context).is_ready());
        if is_removed {
            self.removal = None;
        }
        is_removed
    }

    fn reply(&self, watch: &Opened, event: WatchEvent) -> api::WatchReply {
        let with_cursor = self.cursors || !matches!(event, WatchEvent::Change(_));
        let cursor = if with_cursor {
            watch.lock().cursor().to_string()
        } else {
            String::new()
        };
        let event = match event {
            WatchEvent::Change(change) => Event::Change(convert::change(&change)),
            WatchEvent::CaughtUp => Event::CaughtUp(api::CaughtUp::default()),
            WatchEvent::Progress => Event::Progress(api::Progress {
                now_ms: self.store.now_ms(),
                removed_by: convert::author_or_empty(self.store.removed_by()),
                root: Bytes::new(),
            }),
            WatchEvent::Gap { reason, reach_ms } => Event::Gap(api::Gap { reason, reach_ms }),
            WatchEvent::Damaged { key, entry, what } => Event::Damaged(api::DamagedValue {
                key,
                entry: Some(convert::entry_ref(&entry)),
                what,
            }),
        };
        api::WatchReply {
            event: Some(event),
            cursor,
        }
    }
}

impl Stream for WatchAnswers {
    type Item = Result<api::WatchReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(watch) = self.watch.take() else {
            return Poll::Ready(None);
        };
        // Checked before the watch, so that the call ends even if the watch always has an event.
        let ending = self.ending.is_cancelled();
        if ending || self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(ApiError::stopping().into())));
        }
        if self.adding.is_none() {
            let polled = Pin::new(&mut *watch.lock()).poll_next(context);
            let event = match polled {
                Poll::Pending if self.poll_removal(context) => WatchEvent::Progress,
                Poll::Pending => {
                    self.watch = Some(watch);
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(event)) => event.map_err(ApiError::from)?,
            };
            match &event {
                WatchEvent::CaughtUp => self.is_caught_up = true,
                WatchEvent::Gap { .. } => self.is_caught_up = false,
                _other => {}
            }
            let change = match &event {
                WatchEvent::Change(change) if self.proofs => Some(Arc::clone(change)),
                _unsigned => None,
            };
            let has_root = matches!(event, WatchEvent::CaughtUp | WatchEvent::Progress);
            let reply = self.reply(&watch, event);
            let store = self.store.clone();
            self.adding = if let Some(change) = change {
                let last = self.found.take();
                Some(Box::pin(async move {
                    let (reply, found) = signed_entry::add(store, last, change, reply).await;
                    (reply, Added::Entry(found))
                }))
            } else if let Some(root) = self.root.take_if(|root| has_root && root.is_due()) {
                let position = watch.lock().cursor().frontier;
                Some(Box::pin(async move {
                    let (reply, root) = root.add(store, position, reply).await;
                    (reply, Added::Root(root))
                }))
            } else {
                self.watch = Some(watch);
                return Poll::Ready(Some(Ok(reply)));
            };
        }
        self.watch = Some(watch);
        let Some(adding) = &mut self.adding else {
            unreachable!("set above");
        };
        let (reply, added) = ready!(adding.as_mut().poll(context));
        self.adding = None;
        match added {
            Added::Entry(found) => self.found = found,
            Added::Root(root) => self.root = Some(root),
        }
        Poll::Ready(Some(Ok(reply)))
    }
}

/// Returns the store that a watch is about.
pub(super) fn store(node: &Node, request: &api::WatchRequest) -> Result<Store, ApiError> {
    Ok(node.store_of_keys(&request.store, selectors(request))?)
}

// Returns the prefixes and patterns of a watch. A pattern begins with its prefix.
fn selectors(request: &api::WatchRequest) -> impl Iterator<Item = &Bytes> {
    let prefixes = [&request.prefix].into_iter().chain(&request.prefixes);
    let all = prefixes.chain(&request.patterns);
    all.filter(|on| !on.is_empty())
}

// Returns the prefixes and patterns of a watch as text, for metrics.
fn label(request: &api::WatchRequest) -> String {
    let words = selectors(request).map(|on| String::from_utf8_lossy(on).into_owned());
    words.collect::<Vec<_>>().join(" ")
}

fn options(request: api::WatchRequest) -> Result<WatchOptions, ApiError> {
    use watch_request::Start as Asked;
    let start = match request.start {
        None | Some(Asked::Initial(_)) => Start::Initial,
        Some(Asked::Now(_)) => Start::Now,
        Some(Asked::After(text)) => Start::After(text.parse::<Cursor>()?),
        Some(Asked::SinceAuthoredMs(ms)) => Start::SinceAuthored { ms },
        Some(Asked::SinceArrivedMs(ms)) => Start::SinceArrived { ms },
    };
    if let (Some(until_ms), Start::SinceAuthored { ms }) = (request.until_ms, &start)
        && until_ms < *ms
    {
        let message = "the watch would end before it begins: its end is earlier than its start";
        return Err(ApiError::usage("until_before_since", message));
    }
    if request.until_ms.is_some() && start == Start::Initial {
        let message = "a watch that begins with the current state cannot end at a time";
        return Err(ApiError::usage("until_without_past", message)
            .hint("begin at a time in the past, or after a cursor"));
    }
    let kinds: Vec<_> = request
        .kinds
        .iter()
        .map(|name| convert::kind(name))
        .collect::<Result<_, _>>()?;
    let selectors = request.prefixes.len() + request.patterns.len();
    if selectors > WATCH_SELECTORS_MAX {
        let message = format!(
            "the watch has {selectors} prefixes and patterns; the limit is {WATCH_SELECTORS_MAX}"
        );
        return Err(ApiError::usage("too_many_selectors", message));
    }
    let mut prefixes = request.prefixes;
    if !request.prefix.is_empty() || request.exact && prefixes.is_empty() {
        prefixes.push(request.prefix);
    }
    let patterns = request.patterns.into_iter().map(|text| {
        Pattern::new(text).map_err(|error| ApiError::usage("bad_pattern", error.to_string()))
    });
    Ok(WatchOptions {
        prefixes,
        exact: request.exact,
        patterns: patterns.collect::<Result<_, _>>()?,
        start,
        until_ms: request.until_ms,
        mode: if request.latest {
            WatchMode::Latest
        } else {
            WatchMode::Every
        },
        kinds: (!kinds.is_empty()).then_some(kinds),
        conflicts_only: request.conflicts_only,
        author: convert::author(&request.author)?,
        keys_only: request.keys_only,
        wait: request.wait,
        heartbeat: match request.heartbeat_ms {
            0 => HEARTBEAT,
            ms => Duration::from_millis(ms),
        },
    })
}

impl From<WatchError> for ApiError {
    fn from(error: WatchError) -> Self {
        let message = text(&error);
        match error {
            WatchError::ForeignCursor { .. } => Self::usage("foreign_cursor", message)
                .hint("watch the store that the cursor belongs to, or watch without the cursor"),
            WatchError::Behind { .. } => Self::new("cursor_ahead", EXIT_FAILED, message).hint(
                "wait until this node has caught up, as `lattice watch --wait` does; if nobody has \
                     these entries any more, watch without the cursor: the state comes first",
            ),
            WatchError::Closed => closed(message),
            WatchError::Read(error) => error.into(),
        }
    }
}

impl From<CursorError> for ApiError {
    fn from(error: CursorError) -> Self {
        Self::usage("bad_cursor", error.to_string())
            .hint("copy the whole cursor as the watch printed it, or leave it out")
    }
}
