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
    id::{Author, EntryId},
    limits::CONSUMER_HEARTBEAT,
    protocol::{
        change::{Change, EntryRef, Origin},
        gap::Gap,
        hlc::Hlc,
    },
    store::{
        Start, Watch, WatchError, WatchEvent, WatchOptions,
        consumers::{live::Live, live_state::LiveState},
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
        let (options, stage) = {
            let state = live.lock();
            if !state.wants(epoch) {
                return;
            }
            (options(&state, &live), Stage::of(&state))
        };
        let watch = Watch::new(Arc::clone(&live.shared), options).of_changes();
        match follow(&live, epoch, watch, stage).await {
            End::Over => return,
            End::State => {}
            End::Again => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}

/// The part of history that a feeder reads from its watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Changes, each of which moves the position.
    Changes,
    /// The state after a gap that this watch has met; changes follow in the same watch.
    State,
    /// The state again, which an earlier watch did not read to its end. The watch began with it, so
    /// another one must read the changes after the position: keys may have been deleted since.
    StateAgain,
}

impl Stage {
    fn of(state: &LiveState) -> Self {
        match state.row().state_of {
            0 => Self::Changes,
            _gap => Self::StateAgain,
        }
    }
}

// Why a feeder no longer follows its watch.
enum End {
    // The consumer accepts no further changes from this feeder, or it has stopped.
    Over,
    // The state was fed whole: the changes after it come from another watch.
    State,
    // The state is being rebuilt, or a file could not be read just now: try again later.
    Again,
}

// The outcome of gathering changes from a watch.
enum Gathered {
    // Changes, perhaps none, and the position that covers them.
    Changes(Vec<Arc<Change>>, Position),
    // The last live keys of a state, perhaps none.
    WholeState(Vec<Arc<Change>>),
    // The changes after these are missing, and the state follows.
    Gap(Vec<Arc<Change>>, Gap),
    // The next changes cannot be read: the reason.
    Gone(String),
    Failed(WatchError),
}

async fn follow(live: &Live, epoch: u64, mut watch: Watch, mut stage: Stage) -> End {
    let mut changes = Vec::new();
    loop {
        let Some(room) = room(live, epoch).await else {
            return End::Over;
        };
        let mut lacks = false;
        let next = poll_fn(|cx| {
            let polled = gather(live, &mut watch, stage, room, &mut changes, cx);
            if lacks || !watch.lacks().is_empty() {
                lacks = !watch.lacks().is_empty();
                live.set_lacks(epoch, watch.lacks());
            }
            polled
        });
        match next.await {
            Gathered::Changes(changes, position) => {
                if !feed(live, epoch, stage, changes, position) {
                    return End::Over;
                }
            }
            Gathered::WholeState(changes) => {
                if !live.feed_state(epoch, changes, true) {
                    return End::Over;
                }
                if stage == Stage::StateAgain {
                    return End::State;
                }
                stage = Stage::Changes;
            }
            Gathered::Gap(changes, gap) => {
                let before = watch.position().clone();
                // A part of a group is not fed: the state has all of it.
                if !before.inside && !feed(live, epoch, stage, changes, before) {
                    return End::Over;
                }
                if !live.feed_gap(epoch, &change_of(live, gap), watch.after_state()) {
                    return End::Over;
                }
                stage = Stage::State;
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

fn feed(
    live: &Live,
    epoch: u64,
    stage: Stage,
    changes: Vec<Arc<Change>>,
    position: Position,
) -> bool {
    match stage {
        Stage::Changes => live.feed(epoch, changes, position),
        Stage::State | Stage::StateAgain => live.feed_state(epoch, changes, false),
    }
}

// Returns the change that delivers a gap.
fn change_of(live: &Live, gap: Gap) -> Change {
    let begins = live.shared.log.begins();
    let begins = begins.iter().filter(|_| gap.reach_ms.is_some());
    let anchors = begins.map(|(author, begin)| EntryRef {
        id: begin.anchor.id,
        author: *author,
        seq: begin.anchor.seq,
        hlc: begin.anchor.hlc,
    });
    let removed = anchors.max_by_key(EntryRef::order).unwrap_or(NO_ENTRY);
    // Its number is given when it is fed.
    Change::of_gap(Arc::new(gap), 0, removed, live.shared.now_ms())
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
    stage: Stage,
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
            Poll::Ready(Some(Ok(WatchEvent::CaughtUp))) if stage != Stage::Changes => {
                return Poll::Ready(Gathered::WholeState(std::mem::take(changes)));
            }
            Poll::Ready(Some(Ok(WatchEvent::CaughtUp | WatchEvent::Progress))) => moved = true,
            Poll::Ready(Some(Ok(WatchEvent::Gap { reason, reach_ms }))) => {
                let gap = Gap { reason, reach_ms };
                return Poll::Ready(Gathered::Gap(std::mem::take(changes), gap));
            }
            // A live key whose value cannot be read must not be missing in the state of a taker.
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
    // The state has live keys whenever they arrived.
    change.origin == Origin::Initial || change.arrived_ms >= live.lock().row().since_arrived_ms
}

fn options(state: &LiveState, live: &Live) -> WatchOptions {
    let row = state.row();
    let start = match state.position() {
        _any if row.state_of > 0 => Start::Initial,
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

// The entry of a gap for which no entry was removed.
const NO_ENTRY: EntryRef = EntryRef {
    id: EntryId([0; 32]),
    author: Author([0; 32]),
    seq: 0,
    hlc: Hlc {
        wall_ms: 0,
        counter: 0,
    },
};
// Largest number of changes in one feed, unless an atomic batch is larger.
const FEED_CHANGES_MAX: usize = 256;
// Pause before a watch is opened again after a failed read.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
