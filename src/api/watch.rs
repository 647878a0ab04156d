//! A watch as a stream of answers.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    api::{convert, error::ApiError},
    limits::HEARTBEAT,
    protocol::cursor::Cursor,
    store::{Delivery, Start, Store, Watch, WatchEvent, WatchOptions},
    wire::api::{self, watch_reply::Event, watch_request},
};

/// A watch of one client. Dropped with the call when the client goes away, and the watch with it.
pub(super) struct WatchAnswers {
    // `None` after an error or the end: the stream is over.
    watch: Option<Watch>,
    store: Store,
    // A cursor on every change; it is always on the other events.
    cursors: bool,
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
        ending: CancellationToken,
    ) -> Result<Self, ApiError> {
        let cursors = request.cursors;
        let watch = Some(store.watch_with(options(request)?));
        let ended = Box::pin(ending.clone().cancelled_owned());
        Ok(Self {
            watch,
            store,
            cursors,
            ending,
            ended,
        })
    }

    fn reply(&self, watch: &Watch, event: WatchEvent) -> api::WatchReply {
        let with_cursor = self.cursors || !matches!(event, WatchEvent::Change(_));
        let cursor = if with_cursor {
            watch.cursor().to_string()
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
        let Some(mut watch) = self.watch.take() else {
            return Poll::Ready(None);
        };
        // The flag first: a watch that always has something to say ends too.
        let ending = self.ending.is_cancelled();
        if ending || self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(ApiError::stopping().into())));
        }
        match Pin::new(&mut watch).poll_next(context) {
            Poll::Pending => {
                self.watch = Some(watch);
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(ApiError::from(error).into()))),
            Poll::Ready(Some(Ok(event))) => {
                let reply = self.reply(&watch, event);
                self.watch = Some(watch);
                Poll::Ready(Some(Ok(reply)))
            }
        }
    }
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
    let kinds: Vec<_> = request
        .kinds
        .iter()
        .map(|name| convert::kind(name))
        .collect::<Result<_, _>>()?;
    Ok(WatchOptions {
        prefix: request.prefix,
        exact: request.exact,
        start,
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
