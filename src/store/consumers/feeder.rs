//! The feeder of a consumer: a task that follows a watch and feeds what matches, as far as there
//! is room.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio_stream::Stream as _;

use crate::{
    limits::CONSUMER_HEARTBEAT,
    protocol::change::Change,
    store::{
        Start, Watch, WatchError, WatchEvent, WatchOptions,
        consumers::live::{Live, State},
        watch::position::Position,
    },
};

/// Starts the feeder of `live`, in the place of any other.
pub(super) fn start(live: &Arc<Live>) {
    let epoch = live.lock().epoch();
    let feeder = live.shared.runtime.spawn(run(Arc::clone(live), epoch));
    live.lock().set_feeder(epoch, feeder.abort_handle());
}

async fn run(live: Arc<Live>, epoch: u64) {
    loop {
        let options = {
            let state = live.lock();
            if !state.wants(epoch) {
                return;
            }
            options(&state, &live)
        };
        let watch = Watch::new(Arc::clone(&live.shared), options).of_changes();
        match follow(&live, epoch, watch).await {
            End::Over => return,
            End::Again => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}

// Why a watch is followed no more.
enum End {
    Over,
    /// The state is being built again, or a file could not be read just now.
    Again,
}

// What a watch had next.
enum Next {
    Fed(Vec<Arc<Change>>, Position),
    Gone(String),
    Failed(WatchError),
}

async fn follow(live: &Live, epoch: u64, mut watch: Watch) -> End {
    let mut changes = Vec::new();
    loop {
        let Some(room) = room(live, epoch).await else {
            return End::Over;
        };
        let mut lacks = false;
        let next = poll_fn(|cx| {
            let polled = gather(live, &mut watch, room, &mut changes, cx);
            if lacks || !watch.lacks().is_empty() {
                lacks = !watch.lacks().is_empty();
                live.set_lacks(epoch, watch.lacks());
            }
            polled
        });
        match next.await {
            Next::Fed(changes, position) => {
                if !live.feed(epoch, changes, position) {
                    return End::Over;
                }
            }
            Next::Gone(reason) => {
                live.stop(epoch, reason);
                return End::Over;
            }
            Next::Failed(WatchError::Closed) => return End::Over,
            Next::Failed(error @ WatchError::ForeignCursor { .. }) => {
                live.stop(epoch, error.to_string());
                return End::Over;
            }
            Next::Failed(error @ (WatchError::Behind { .. } | WatchError::Read(_))) => {
                tracing::warn!(consumer = live.name, %error, "a consumer cannot be fed now");
                return End::Again;
            }
        }
    }
}

// Waits until there is room; `None`: it is fed no more.
async fn room(live: &Live, epoch: u64) -> Option<usize> {
    loop {
        {
            let state = live.lock();
            if !state.wants(epoch) {
                return None;
            }
            if state.room() > 0 {
                return Some(state.room());
            }
        }
        live.room.notified().await;
    }
}

// Gathers what the watch has at hand. Never ends where the watch's position does not cover what
// was gathered: in the middle of an atomic batch, or before the expiry of what was over.
fn gather(
    live: &Live,
    watch: &mut Watch,
    room: usize,
    changes: &mut Vec<Arc<Change>>,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    let mut moved = false;
    loop {
        let whole = !watch.position().inside;
        if whole && changes.len() >= room.min(FEED_CHANGES_MAX) {
            break;
        }
        match Pin::new(&mut *watch).poll_next(cx) {
            Poll::Ready(Some(Ok(WatchEvent::Change(change)))) => {
                if matches(live, &change) {
                    changes.push(change);
                }
            }
            Poll::Ready(Some(Ok(WatchEvent::CaughtUp | WatchEvent::Progress))) => moved = true,
            Poll::Ready(Some(Ok(WatchEvent::Gap { reason }))) => {
                return Poll::Ready(Next::Gone(reason));
            }
            // Only where a watch begins with the state.
            Poll::Ready(Some(Ok(WatchEvent::Damaged { what, .. }))) => {
                return Poll::Ready(Next::Gone(what));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Next::Failed(error)),
            Poll::Ready(None) => return Poll::Ready(Next::Failed(WatchError::Closed)),
            Poll::Pending if watch.position().inside => return Poll::Pending,
            Poll::Pending if watch.lacks().is_empty() && (moved || !changes.is_empty()) => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Next::Fed(std::mem::take(changes), watch.position().clone()))
}

fn matches(live: &Live, change: &Change) -> bool {
    change.arrived_ms >= live.lock().row().since_arrived_ms
}

fn options(state: &State, live: &Live) -> WatchOptions {
    let row = state.row();
    let start = match state.position() {
        Some(position) => Start::After(position.cursor(live.shared.id)),
        None if row.since_arrived_ms > 0 => Start::SinceArrived {
            ms: row.since_arrived_ms,
        },
        None => Start::SinceAuthored {
            ms: row.since_authored_ms,
        },
    };
    WatchOptions {
        prefixes: row.prefixes.clone(),
        start,
        wait: true,
        heartbeat: CONSUMER_HEARTBEAT,
        ..WatchOptions::default()
    }
}

// Changes that are fed at once, unless more belong together.
const FEED_CHANGES_MAX: usize = 256;
const AGAIN_AFTER: Duration = Duration::from_secs(1);
