//! A watch as a stream of answers.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    api::{
        convert,
        error::{ApiError, EXIT_FAILED, closed, text},
        signed_entry::{self, Found},
        watches::{Opened, Watches},
    },
    limits::{HEARTBEAT, WATCH_SELECTORS_MAX},
    protocol::{
        cursor::{Cursor, CursorError},
        pattern::Pattern,
    },
    store::{Delivery, Start, Store, WatchError, WatchEvent, WatchOptions},
    wire::api::{self, watch_reply::Event, watch_request},
};

type Proving = Pin<Box<dyn Future<Output = (api::WatchReply, Option<Found>)> + Send>>;

/// A watch of one client. Dropped with the call when the client goes away, and the watch with it.
pub(super) struct WatchAnswers {
    // `None` after an error or the end: the stream is over.
    watch: Option<Opened>,
    store: Store,
    // A cursor on every change; it is always on the other events.
    cursors: bool,
    // Whether changes carry their signed entries.
    proofs: bool,
    found: Option<Found>,
    // The reply that comes next, when its proof is found.
    proving: Option<Proving>,
    ending: CancellationToken,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl WatchAnswers {
    /// Begins to watch `store` until the client or the server ends it.
    ///
    /// # Errors
    /// What is malformed in `request`.
    pub(super) fn new(
        store: Store,
        request: api::WatchRequest,
        watches: &Watches,
        ending: CancellationToken,
    ) -> Result<Self, ApiError> {
        let (cursors, proofs) = (request.cursors, request.proofs);
        let on = label(&request);
        let watch = store.watch_with(options(request)?);
        let watch = Some(watches.open(store.id(), on, watch));
        let ended = Box::pin(ending.clone().cancelled_owned());
        Ok(Self {
            watch,
            store,
            cursors,
            proofs,
            found: None,
            proving: None,
            ending,
            ended,
        })
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
            WatchEvent::CaughtUp => Event::CaughtUp(api::CaughtUp {}),
            WatchEvent::Progress => Event::Progress(api::Progress {
                now_ms: self.store.now_ms(),
            }),
            WatchEvent::Gap { reason } => Event::Gap(api::Gap { reason }),
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
        // The flag first: a watch that always has something to say ends too.
        let ending = self.ending.is_cancelled();
        if ending || self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(ApiError::stopping().into())));
        }
        if self.proving.is_none() {
            let polled = Pin::new(&mut *watch.lock()).poll_next(context);
            let event = match polled {
                Poll::Pending => {
                    self.watch = Some(watch);
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(event)) => event.map_err(ApiError::from)?,
            };
            let change = match &event {
                WatchEvent::Change(change) if self.proofs => Some(Arc::clone(change)),
                _no_proof => None,
            };
            let reply = self.reply(&watch, event);
            let Some(change) = change else {
                self.watch = Some(watch);
                return Poll::Ready(Some(Ok(reply)));
            };
            let (store, last) = (self.store.clone(), self.found.take());
            self.proving = Some(Box::pin(signed_entry::add(store, last, change, reply)));
        }
        self.watch = Some(watch);
        let Some(proving) = &mut self.proving else {
            unreachable!("set above");
        };
        let (reply, found) = ready!(proving.as_mut().poll(context));
        (self.proving, self.found) = (None, found);
        Poll::Ready(Some(Ok(reply)))
    }
}

// What a watch is on, in words.
fn label(request: &api::WatchRequest) -> String {
    let prefixes = [&request.prefix].into_iter().chain(&request.prefixes);
    let all = prefixes.chain(&request.patterns);
    let words = all.filter(|on| !on.is_empty());
    let words = words.map(|on| String::from_utf8_lossy(on).into_owned());
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
        let message = format!("the watch would end at {until_ms}, before it begins at {ms}");
        return Err(ApiError::usage("until_before_since", message));
    }
    if request.until_ms.is_some() && start == Start::Initial {
        let message = "a watch that begins with the state as it is has no end in the past";
        return Err(ApiError::usage("until_without_past", message)
            .hint("begin with what was written since a time, or after a cursor"));
    }
    let kinds: Vec<_> = request
        .kinds
        .iter()
        .map(|name| convert::kind(name))
        .collect::<Result<_, _>>()?;
    let selectors = request.prefixes.len() + request.patterns.len();
    if selectors > WATCH_SELECTORS_MAX {
        let message = format!(
            "a watch has at most {WATCH_SELECTORS_MAX} prefixes and patterns; this one has {selectors}"
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
        delivery: if request.latest {
            Delivery::Latest
        } else {
            Delivery::Every
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
                .hint("name the cursor's store, or watch without the cursor"),
            WatchError::Behind { .. } => Self::new("cursor_ahead", EXIT_FAILED, message)
                .hint("wait until this node has caught up, as `lattice watch --wait` does"),
            WatchError::Closed => closed(message),
            WatchError::Read(error) => error.into(),
        }
    }
}

impl From<CursorError> for ApiError {
    fn from(error: CursorError) -> Self {
        Self::usage("bad_cursor", error.to_string())
            .hint("copy the whole cursor as a watch printed it, or leave it out")
    }
}
