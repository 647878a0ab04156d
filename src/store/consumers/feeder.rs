//! The feeder of a consumer: a task that follows a watch and adds the selected changes to the
//! consumer while there is room.

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
        consumers::live::{Live, LiveState},
        watch::position::Position,
    },
};

/// Starts a feeder of `live`, in place of the one that `reset` or `set` aborted.
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

// Why a feeder no longer follows its watch.
enum End {
    // The consumer accepts no further changes from this feeder, or it has stopped.
    Over,
    // The state is being rebuilt, or a file could not be read just now: try again later.
    Again,
}

// The outcome of gathering changes from a watch.
enum Gathered {
    // Changes, perhaps none, and the position that covers them.
    Changes(Vec<Arc<Change>>, Position),
    // The next changes cannot be read: the reason.
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
            Gathered::Changes(changes, position) => {
                if !live.feed(epoch, changes, position) {
                    return End::Over;
                }
            }
            Gathered::Gone(reason) => {
                live.stop(epoch, reason);
                return End::Over;
            }
            Gathered::Failed(WatchError::Closed) => return End::Over,
            Gathered::Failed(error @ WatchError::ForeignCursor { .. }) => {
                live.stop(epoch, error.to_string());
                return End::Over;
            }
            Gathered::Failed(error @ (WatchError::Behind { .. } | WatchError::Read(_))) => {
                tracing::warn!(consumer = live.name, %error, "a consumer cannot read changes now");
                return End::Again;
            }
        }
    }
}

// Waits until there is room, and returns how much; `None`: the consumer accepts no further changes
// from this feeder.
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

// Gathers the changes that the watch has ready, up to `room` and `FEED_CHANGES_MAX`. It ends only
// where the position of the watch covers the gathered changes: not inside an atomic batch, nor
// between a put and its late expiry. So a large batch may go beyond both bounds.
fn gather(
    live: &Live,
    watch: &mut Watch,
    room: usize,
    changes: &mut Vec<Arc<Change>>,
    cx: &mut Context<'_>,
) -> Poll<Gathered> {
    let mut moved = false;
    loop {
        let is_whole = !watch.position().inside;
        if is_whole && changes.len() >= room.min(FEED_CHANGES_MAX) {
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
                return Poll::Ready(Gathered::Gone(reason));
            }
            // Delivered only when a watch begins with the state, and this watch does not.
            Poll::Ready(Some(Ok(WatchEvent::Damaged { what, .. }))) => {
                return Poll::Ready(Gathered::Gone(what));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Gathered::Failed(error)),
            Poll::Ready(None) => return Poll::Ready(Gathered::Failed(WatchError::Closed)),
            Poll::Pending if watch.position().inside => return Poll::Pending,
            Poll::Pending if watch.lacks().is_empty() && (moved || !changes.is_empty()) => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Gathered::Changes(
        std::mem::take(changes),
        watch.position().clone(),
    ))
}

fn matches(live: &Live, change: &Change) -> bool {
    change.arrived_ms >= live.lock().row().since_arrived_ms
}

fn options(state: &LiveState, live: &Live) -> WatchOptions {
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

// Largest number of changes in one feed, unless an atomic batch is larger.
const FEED_CHANGES_MAX: usize = 256;
// Pause before a watch is opened again after a failed read.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
