//! A watch: a stream of changes of some keys, lossless or with an explicit gap.
//!
//! It listens to the bus first, then reads what lies before from one view of the state or from the
//! log, then goes on live with what that view did not cover. When it lags, it goes back to the log
//! from its own position. So nothing is lost between the parts, and nothing comes twice.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    task::{JoinHandle, coop},
    time::{Instant, Sleep},
};
use tokio_stream::Stream;

use crate::{
    bus::{Batch, Lagged, StateReset, Subscription},
    protocol::{change::Change, cursor::Cursor, frontier::MissingRange, pattern::common_prefix},
    store::{
        Delivery, ReadError, Shared, Start, WatchError, WatchEvent, WatchOptions,
        watch::{
            log_source::{LogSource, Piece, Read, Source, is_over},
            position::Position,
            state_source::StateSource,
        },
    },
};

/// A stream of `Result<WatchEvent, WatchError>`; it ends after the first error.
///
/// Dropping it ends the watch. Polling may stop for as long as one likes: nothing is lost, and
/// memory does not grow.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    options: Arc<WatchOptions>,
    subscription: Subscription,
    phase: Phase,
    // Changes to hand out, and how many were.
    piece: Option<(Piece, usize)>,
    position: Position,
    // True from where it is told a state that lacks entries until it was told one that does not.
    lacks_entries: bool,
    // Set once: a state is of no use to its reader.
    changes_only: bool,
    // Times it went back to the log because its channel was full.
    lags: u64,
    // Batches of commits through this one are covered by what was read.
    seen_version: u64,
    heartbeat: Pin<Box<Sleep>>,
    spoke: Instant,
}

#[derive(Debug)]
enum Phase {
    // Nothing read yet.
    Start,
    // For entries that the cursor names and that are not here.
    Waiting(Waiting),
    // A blocking thread reads; it has the source meanwhile.
    Reading(JoinHandle<(Source, Result<Read, WatchError>)>),
    Live,
    Ended,
}

#[derive(Debug)]
struct Waiting {
    missing: Vec<MissingRange>,
    // What was missing when this had been published.
    version: u64,
    look_again: Pin<Box<Sleep>>,
}

impl Watch {
    pub(in crate::store) fn new(shared: Arc<Shared>, options: WatchOptions) -> Self {
        // One subscription, so that the order of publication holds across all it is about.
        let subscription = shared.bus.subscribe(common_prefix(&options.scopes()));
        let heartbeat = {
            let _runtime = shared.runtime.enter();
            let first = match options.until_ms {
                Some(_) => options.heartbeat.min(LOOK_AGAIN_EVERY),
                None => options.heartbeat,
            };
            Box::pin(tokio::time::sleep(first))
        };
        let now = shared.bus.published();
        // A watch of what comes is live from here on, not from its first poll on.
        let (phase, position) = match &options.start {
            Start::Now => (Phase::Start, Position::of(&now)),
            Start::After(cursor) => (Phase::Start, Position::after(cursor)),
            Start::Initial | Start::SinceAuthored { .. } | Start::SinceArrived { .. } => {
                (Phase::Start, Position::default())
            }
        };
        Self {
            subscription,
            phase,
            piece: None,
            position,
            lacks_entries: false,
            changes_only: false,
            lags: 0,
            seen_version: now.version,
            heartbeat,
            spoke: Instant::now(),
            options: Arc::new(options),
            shared,
        }
    }

    /// For who is told changes only, and ends with the first state.
    pub(in crate::store) fn of_changes(self) -> Self {
        Self {
            changes_only: true,
            ..self
        }
    }

    /// Returns the position after the last item: what a watch that begins after it need not tell.
    ///
    /// After a state that lacks entries, because they could not be read here when it was built, it
    /// covers nothing: it moves on when the state was told that has them. Who goes away before that
    /// is told everything anew, here or elsewhere.
    pub fn cursor(&self) -> Cursor {
        if self.lacks_entries {
            let nothing = Position {
                expired_through_ms: self.position.expired_through_ms,
                ..Position::default()
            };
            return nothing.cursor(self.shared.id);
        }
        self.position.cursor(self.shared.id)
    }

    /// Returns what this node lacks of the cursor that the watch begins after, as of its last look;
    /// empty once it has begun. See `WatchOptions::wait`.
    pub fn lacks(&self) -> &[MissingRange] {
        match &self.phase {
            Phase::Waiting(waiting) => &waiting.missing,
            Phase::Start | Phase::Reading(_) | Phase::Live | Phase::Ended => &[],
        }
    }

    pub(in crate::store) fn position(&self) -> &Position {
        &self.position
    }

    /// Returns how often it fell behind the bus and went back to the log.
    pub fn lags(&self) -> u64 {
        self.lags
    }

    /// Returns how many entries were published that lie behind its position: 0 when it has told all
    /// that there is. Until it has caught up, and while changes wait, entries that hold nothing for
    /// it count too; before the state at the start is told, all that made it do.
    pub fn lag(&self) -> u64 {
        // Read before the channel is found empty: all of it is in the channel by then.
        let published = self.shared.bus.published();
        let is_live = matches!(self.phase, Phase::Live) && self.piece.is_none();
        if is_live && self.subscription.is_empty() {
            return 0;
        }
        published.frontier.entries_beyond(&self.position.frontier)
    }

    // Opens what lies before. Called once, and again after a lag.
    fn begin(&mut self) -> Result<Option<WatchEvent>, WatchError> {
        let view = self.shared.state.view();
        match &self.options.start {
            Start::Now => {
                self.phase = Phase::Live;
                return Ok(Some(WatchEvent::CaughtUp));
            }
            Start::After(cursor) if cursor.store != self.shared.id => {
                return Err(WatchError::ForeignCursor {
                    cursor: cursor.store,
                    store: self.shared.id,
                });
            }
            Start::Initial if view.lacks => {
                self.read_state(view);
                let reason = "of the state, some could not be read when it was built".to_owned();
                return Ok(Some(WatchEvent::Gap { reason }));
            }
            Start::Initial => self.read_state(view),
            Start::After(_) => self.read_log(view),
            Start::SinceAuthored { .. } | Start::SinceArrived { .. } => {
                self.seen_version = view.version;
                let options = Arc::clone(&self.options);
                self.read(move |shared| {
                    LogSource::since(shared, view, &options.start)
                        .map(Box::new)
                        .map(Source::Log)
                });
            }
        }
        Ok(None)
    }

    fn read_state(&mut self, view: Arc<crate::state::View>) {
        self.seen_version = view.version;
        self.lacks_entries |= view.lacks;
        let scopes = self.options.scopes();
        let told_ms = self.position.expired_through_ms;
        self.read(move |_shared| Ok(Source::State(StateSource::new(view, scopes, told_ms))));
    }

    fn begin_again(&mut self, view: Arc<crate::state::View>, reset: &StateReset) -> WatchEvent {
        self.read_state(view);
        let reason = reset.to_string();
        WatchEvent::Gap { reason }
    }

    fn read_log(&mut self, view: Arc<crate::state::View>) {
        self.seen_version = view.version;
        let from = self.position.clone();
        self.read(move |shared| {
            LogSource::after(shared, view, &from)
                .map(Box::new)
                .map(Source::Log)
        });
    }

    // From a position this store was at: entries of it that are not here were given up.
    fn read_log_again(&mut self, view: Arc<crate::state::View>) {
        self.seen_version = view.version;
        let from = self.position.clone();
        self.read(move |shared| match LogSource::after(shared, view, &from) {
            Err(error @ WatchError::Behind { .. }) => {
                let what = error.to_string();
                Err(ReadError::Damaged { what }.into())
            }
            opened => opened.map(Box::new).map(Source::Log),
        });
    }

    // Opens a source and reads its first piece, off the event loop.
    fn read(&mut self, open: impl FnOnce(&Shared) -> Result<Source, WatchError> + Send + 'static) {
        let (shared, options) = (Arc::clone(&self.shared), Arc::clone(&self.options));
        self.phase =
            Phase::Reading(
                self.shared
                    .runtime
                    .spawn_blocking(move || match open(&shared) {
                        Ok(mut source) => {
                            let read = source.next(&shared, &options);
                            (source, read)
                        }
                        Err(error) => {
                            let read = match error {
                                // The position itself cannot be found in the log.
                                WatchError::Read(ReadError::Damaged { what }) => {
                                    Ok(Read::Gap(what))
                                }
                                error => Err(error),
                            };
                            let view = shared.state.view();
                            (Source::State(StateSource::new(view, Vec::new(), 0)), read)
                        }
                    }),
            );
    }

    fn read_on(&mut self, mut source: Source) {
        let (shared, options) = (Arc::clone(&self.shared), Arc::clone(&self.options));
        self.phase = Phase::Reading(self.shared.runtime.spawn_blocking(move || {
            let read = source.next(&shared, &options);
            (source, read)
        }));
    }

    // What a blocking thread has read; an event to tell, if there is one.
    fn take(
        &mut self,
        source: Source,
        read: Result<Read, WatchError>,
    ) -> Result<Option<WatchEvent>, WatchError> {
        // The state's file was closed under a reader: that is no damage.
        let failed = matches!(read, Err(WatchError::Read(_)) | Ok(Read::Gap(_)));
        if failed && self.shared.bus.is_closed() {
            return Err(WatchError::Closed);
        }
        let read = match read {
            Err(WatchError::Behind { missing }) if self.options.wait => {
                self.phase = Phase::Waiting(Waiting {
                    missing,
                    version: self.seen_version,
                    look_again: Box::pin(tokio::time::sleep(LOOK_AGAIN_EVERY)),
                });
                return Ok(None);
            }
            read => read?,
        };
        match read {
            Read::Piece(piece) => {
                self.take_up(piece);
                // The next piece is read while this one is handed out.
                self.read_on(source);
                Ok(None)
            }
            Read::Gap(reason) => {
                let view = self.shared.state.view();
                self.read_state(view);
                Ok(Some(WatchEvent::Gap { reason }))
            }
            Read::Damaged { change, what } => {
                self.read_on(source);
                let wanted = wanted(&self.shared, &self.options, &change);
                Ok(wanted.then_some(WatchEvent::Damaged {
                    key: change.key,
                    entry: change.entry,
                    what,
                }))
            }
            Read::End => {
                self.phase = Phase::Live;
                match source {
                    Source::State(source) => {
                        self.position.reach(&source.position());
                        self.lacks_entries = source.lacks();
                    }
                    Source::Log(source) if source.is_cut() => self.phase = Phase::Ended,
                    Source::Log(_) => {}
                }
                Ok(Some(WatchEvent::CaughtUp))
            }
        }
    }

    // Gets ready to hand out a piece, as who stands here is told it.
    fn take_up(&mut self, mut piece: Piece) {
        if piece.then.is_some() {
            let tells = |put: &Change| self.options.selects(&put.key) && self.options.in_time(put);
            piece.changes = self.position.tell(piece.changes, tells);
        }
        self.piece = Some((piece, 0));
    }

    // Hands out the next matching change of the piece at hand.
    fn next_of_piece(&mut self) -> Option<Arc<Change>> {
        let (piece, done) = self.piece.as_mut()?;
        while let Some(change) = piece.changes.get(*done) {
            *done += 1;
            let change = Arc::clone(change);
            if let Some(then) = &piece.then {
                let (passed, rest) = piece.changes.split_at(*done);
                self.position.pass(passed, rest.first(), then);
            }
            if wanted(&self.shared, &self.options, &change) {
                return Some(if self.options.keys_only && change.value.is_some() {
                    Arc::new(Change {
                        value: None,
                        ..Change::clone(&change)
                    })
                } else {
                    change
                });
            }
        }
        if let Some((
            Piece {
                then: Some(then), ..
            },
            _,
        )) = self.piece.take()
        {
            self.position.reach(&then);
        }
        None
    }

    fn poll_live(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<WatchEvent>, WatchError>> {
        // Read before the channel is found empty: all of it is in the channel by then.
        let published = self.shared.bus.published();
        match self.subscription.poll_next(cx) {
            Poll::Ready(Some(Ok(batch))) => {
                if batch.published.version <= self.seen_version {
                    return Poll::Ready(Ok(None));
                }
                match &batch.reset {
                    Some(reset) if *reset != StateReset::Restored || !self.changes_only => {
                        let view = self.shared.state.view();
                        Poll::Ready(Ok(Some(self.begin_again(view, reset))))
                    }
                    _nothing_is_gone => {
                        self.position.join(&batch);
                        self.take_up(Piece::of(&batch));
                        Poll::Ready(Ok(None))
                    }
                }
            }
            Poll::Ready(Some(Err(Lagged))) => {
                self.lags += 1;
                self.subscription.skip_to_now();
                let view = self.shared.state.view();
                if self.lacks_entries && !view.lacks {
                    return Poll::Ready(Ok(Some(self.begin_again(view, &StateReset::Restored))));
                }
                self.read_log_again(view);
                Poll::Ready(Ok(None))
            }
            Poll::Ready(None) => Poll::Ready(Err(WatchError::Closed)),
            Poll::Pending => {
                let over = self.is_over()?;
                if !over {
                    ready!(self.heartbeat.as_mut().poll(cx));
                }
                let due = self.look_again_at();
                if !over && Instant::now() < due {
                    self.heartbeat.as_mut().reset(due);
                    return Poll::Ready(Ok(None));
                }
                if published.version >= self.seen_version {
                    self.position.catch_up(&published);
                }
                if over {
                    self.phase = Phase::Ended;
                }
                Poll::Ready(Ok(Some(WatchEvent::Progress)))
            }
        }
    }

    fn is_over(&self) -> Result<bool, WatchError> {
        let Some(until_ms) = self.options.until_ms else {
            return Ok(false);
        };
        let view = self.shared.state.view();
        Ok(is_over(&self.shared, &view, until_ms)?)
    }

    // When it has to say something, or may be over.
    fn look_again_at(&self) -> Instant {
        let due = self.spoke + self.options.heartbeat;
        let Some(until_ms) = self.options.until_ms else {
            return due;
        };
        let left_ms = until_ms.saturating_sub(self.shared.now_ms());
        let left = Duration::from_millis(left_ms).max(LOOK_AGAIN_EVERY);
        due.min(Instant::now() + left)
    }

    // Begins once more when something has come.
    fn poll_waiting(
        &mut self,
        mut waiting: Waiting,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<WatchEvent>, WatchError>> {
        if self.shared.bus.is_closed() {
            return Poll::Ready(Err(WatchError::Closed));
        }
        let looked = waiting.look_again.as_mut().poll(cx).is_ready();
        if looked && self.shared.bus.published().version > waiting.version {
            self.subscription.skip_to_now();
            self.phase = Phase::Start;
            return Poll::Ready(Ok(None));
        }
        if looked {
            let next = Instant::now() + LOOK_AGAIN_EVERY;
            waiting.look_again.as_mut().reset(next);
        }
        self.phase = Phase::Waiting(waiting);
        if looked && self.spoke.elapsed() >= self.options.heartbeat {
            return Poll::Ready(Ok(Some(WatchEvent::Progress)));
        }
        if looked {
            // Polled again, so that the timer has who to wake.
            return Poll::Ready(Ok(None));
        }
        Poll::Pending
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<WatchEvent>, WatchError>> {
        if let Some(change) = self.next_of_piece() {
            return Poll::Ready(Ok(Some(WatchEvent::Change(change))));
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Start => Poll::Ready(self.begin()),
            Phase::Waiting(waiting) => self.poll_waiting(waiting, cx),
            Phase::Reading(mut reading) => match Pin::new(&mut reading).poll(cx) {
                Poll::Ready(Ok((source, read))) => Poll::Ready(self.take(source, read)),
                Poll::Ready(Err(_stopped)) => Poll::Ready(Err(WatchError::Closed)),
                Poll::Pending => {
                    self.phase = Phase::Reading(reading);
                    Poll::Pending
                }
            },
            Phase::Live => {
                self.phase = Phase::Live;
                self.poll_live(cx)
            }
            Phase::Ended => Poll::Ready(Err(WatchError::Closed)),
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, WatchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if matches!(self.phase, Phase::Ended) && self.piece.is_none() {
            return Poll::Ready(None);
        }
        loop {
            // A watcher that is always behind must let other tasks run.
            let budget = ready!(coop::poll_proceed(cx));
            let event = ready!(self.poll_event(cx));
            budget.made_progress();
            match event {
                Ok(None) => {}
                Ok(Some(event)) => {
                    self.spoke = Instant::now();
                    return Poll::Ready(Some(Ok(event)));
                }
                Err(error) => {
                    self.phase = Phase::Ended;
                    self.piece = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Piece {
    fn of(batch: &Batch) -> Self {
        Self {
            changes: Arc::clone(&batch.changes),
            then: Some(Arc::clone(&batch.published)),
        }
    }
}

fn wanted(shared: &Shared, options: &WatchOptions, change: &Change) -> bool {
    options.selects(&change.key)
        && options.in_time(change)
        && options
            .kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&change.kind))
        && (!options.conflicts_only || change.is_conflict())
        && options
            .author
            .is_none_or(|author| author == change.entry.author)
        && (options.delivery == Delivery::Every || is_current(shared, change))
}

// True while the change's entry is a head of its key; also when that cannot be read.
fn is_current(shared: &Shared, change: &Change) -> bool {
    let heads = shared.state.view().heads(&change.key);
    heads.map_or(true, |heads| {
        heads
            .as_slice()
            .iter()
            .any(|head| head.id == change.entry.id)
    })
}

// How soon a watch that waits sees that what it waits for has come.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(50);
