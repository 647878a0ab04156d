//! A watch: a stream of changes of some keys, lossless or with an explicit gap.
//!
//! A watch subscribes to the bus first, then reads history from one view of the state or from the
//! log, and then delivers live batches that this view did not cover. When it lags behind the bus, it
//! goes back to the log from its own position. So nothing is lost between the parts, and nothing is
//! delivered twice.

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
    state::View,
    store::{
        ReadError, Shared, Start, WatchError, WatchEvent, WatchOptions,
        shared::published,
        watch::{
            log_source::{LogSource, is_over},
            phase::{Phase, Waiting},
            piece::{Piece, Read, SourceError},
            position::{Position, moved_back},
            selection::{is_wanted, shown},
            source::Source,
            state_source::StateSource,
        },
    },
};

/// A stream of `Result<WatchEvent, WatchError>`; it ends after the first error.
///
/// `Store::watch` makes it, and only polling it as a `Stream` moves it. The methods report on it
/// between two items: `cursor` to resume later, `lag` and `lags` to see that it is behind, and
/// `lacks` while it waits for missing entries.
///
/// Dropping a watch ends it. It may be left unpolled for any time: nothing is lost, and its memory
/// does not grow.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    options: Arc<WatchOptions>,
    // Receives the batches of one prefix, in the order of publication across all selected keys. When
    // the channel is full its oldest batches are dropped (`Lagged`). The bus closes it when the
    // store closes.
    subscription: Subscription,
    phase: Phase,
    // The piece that is being delivered, and the number of its changes that were delivered or
    // skipped. `None`: the next piece must be read or received first.
    piece: Option<(Piece, usize)>,
    // Covers all that was delivered, and nothing else but entries without a selected change.
    // `next_in_piece` moves it with each change; the end of a source or batch moves it further.
    //
    // P1. Batches arrive in the order of their commits, and a batch that `seen_version` covers is
    //     dropped.
    // P2. A source of the log moves forward only (`LogSource::frontier`).
    // P3. By P1 and P2, a put or delete is delivered only while the position does not cover it: no
    //     change is delivered twice.
    // P4. By P1 and P2, the position moves back only if the members have changed and entries that
    //     it covers no longer count; or after a gap.
    position: Position,
    // True from the start of a state that is missing entries until the end of a complete state.
    lacks_entries: bool,
    // The position after the state that was begun last; `None`: none was, or it is missing entries.
    after_state: Option<Position>,
    // Set once, at the start: this reader cannot use a state, so damage that was repaired is not
    // reported to it.
    changes_only: bool,
    // Times the watch went back to the log because its channel was full.
    lags: u64,
    // Version of the view that was read last: it covers batches of commits through this version.
    seen_version: u64,
    // Version of the newest batch received. It never goes back.
    received_version: u64,
    heartbeat: Pin<Box<Sleep>>,
    // When the last item was delivered; or before, while `has_delivered` is true.
    last_item: Instant,
    // True after an item was delivered, until `note_quiet`.
    has_delivered: bool,
}

impl Watch {
    /// Makes a watch, and subscribes it to the bus.
    pub(in crate::store) fn new(shared: Arc<Shared>, options: WatchOptions) -> Self {
        // One subscription for all prefixes: the order of publication holds within a channel only.
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
        // `Start::Now` means from this call on, not from the first poll on.
        let position = match &options.start {
            Start::Now => Position::of(&now),
            Start::After(cursor) => Position::after(cursor, shared.now_ms()),
            Start::Initial | Start::SinceAuthored { .. } | Start::SinceArrived { .. } => {
                Position::default()
            }
        };
        Self {
            subscription,
            phase: Phase::Start,
            piece: None,
            position,
            lacks_entries: false,
            after_state: None,
            changes_only: false,
            lags: 0,
            seen_version: now.version,
            received_version: 0,
            heartbeat,
            last_item: Instant::now(),
            has_delivered: false,
            options: Arc::new(options),
            shared,
        }
    }

    /// Makes the watch one for a reader of changes only, to which a damaged log that was repaired is
    /// not reported as a gap. It can use a state only while `after_state` is set.
    pub(in crate::store) fn of_changes(self) -> Self {
        Self {
            changes_only: true,
            ..self
        }
    }

    /// Returns the position after the last item. A watch that begins after it, on this replica or
    /// another, delivers exactly the changes that this watch has not.
    ///
    /// While the state that was delivered is missing entries that could not be read, the cursor
    /// covers nothing: it moves when a complete state was delivered. A reader that stops earlier
    /// gets everything again.
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

    /// Returns the entries that the start cursor names and that this node is missing, as of the
    /// last check; empty once the watch has begun. See `WatchOptions::wait`.
    pub fn lacks(&self) -> &[MissingRange] {
        match &self.phase {
            Phase::Waiting(waiting) => &waiting.missing,
            Phase::Start | Phase::Reading(_) | Phase::Live | Phase::Ended => &[],
        }
    }

    pub(in crate::store) fn position(&self) -> &Position {
        &self.position
    }

    /// Returns the position after the state that was begun last, which follows a gap; `None` if that
    /// state is missing entries that could not be read.
    pub(in crate::store) fn after_state(&self) -> Option<&Position> {
        self.after_state.as_ref()
    }

    /// Returns how often the watch fell behind the bus and went back to the log.
    pub fn lags(&self) -> u64 {
        self.lags
    }

    /// Returns the number of published entries after the watch's position; 0 when everything
    /// published was delivered.
    ///
    /// Until the watch has caught up, and while changes wait, entries without a selected change
    /// count too. Before the state at the start is delivered, all entries of that state count.
    pub fn lag(&self) -> u64 {
        // Read before the channel is checked: all batches up to it are in the channel by then.
        let published = self.shared.bus.published();
        let is_live = matches!(self.phase, Phase::Live) && self.piece.is_none();
        if is_live && self.subscription.is_empty() {
            return 0;
        }
        published.frontier.entries_beyond(&self.position.frontier)
    }

    // Opens the history that the options ask for. Called again after a wait for missing entries.
    fn start(&mut self) -> Result<Option<WatchEvent>, WatchError> {
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
                let reason =
                    "the state is missing entries that could not be read when it was built";
                return Ok(Some(self.restart(view, reason.to_owned(), None)));
            }
            Start::Initial => self.open_state(view),
            Start::After(_) => {
                let from = self.position.clone();
                self.open_log(view, move |shared, view| {
                    LogSource::after(shared, view, &from)
                });
            }
            Start::SinceAuthored { .. } | Start::SinceArrived { .. } => {
                let options = Arc::clone(&self.options);
                self.open_log(view, move |shared, view| {
                    LogSource::since(shared, view, &options.start)
                });
            }
        }
        Ok(None)
    }

    // Reads the state from its first key, after a gap that is reported with `reason`.
    fn restart(&mut self, view: Arc<View>, reason: String, reach_ms: Option<u64>) -> WatchEvent {
        self.open_state(view);
        WatchEvent::Gap { reason, reach_ms }
    }

    // Reads the log from the position, which was reached on this node: an entry that is missing now
    // was given up since, which is damage and not worth a wait.
    fn return_to_log(&mut self, view: Arc<View>) {
        let from = self.position.clone();
        self.open_log(view, move |shared, view| {
            LogSource::after(shared, view, &from).map_err(|error| match error {
                WatchError::Behind { .. } => {
                    let what = error.to_string();
                    ReadError::Damaged { what }.into()
                }
                error => error,
            })
        });
    }

    fn open_state(&mut self, view: Arc<View>) {
        self.seen_version = view.version;
        self.lacks_entries |= view.lacks;
        let scopes = self.options.scopes();
        let expired_through_ms = self.position.expired_through_ms;
        let mut after = self.position.clone();
        after.reach(&published(&view));
        self.after_state = (!view.lacks).then_some(after);
        self.spawn_open(move |_shared| {
            let source = StateSource::new(view, scopes, expired_through_ms);
            Ok(Source::State(source))
        });
    }

    fn open_log(
        &mut self,
        view: Arc<View>,
        open: impl FnOnce(&Shared, Arc<View>) -> Result<LogSource, WatchError> + Send + 'static,
    ) {
        self.seen_version = view.version;
        self.spawn_open(move |shared| open(shared, view).map(Source::from));
    }

    // Opens a source and reads its first piece, off the event loop.
    fn spawn_open(
        &mut self,
        open: impl FnOnce(&Shared) -> Result<Source, WatchError> + Send + 'static,
    ) {
        let (shared, options) = (Arc::clone(&self.shared), Arc::clone(&self.options));
        self.phase = Phase::Reading(self.shared.runtime.spawn_blocking(move || {
            let mut source = open(&shared).map_err(SourceError::of_open)?;
            let read = source.next(&shared, &options)?;
            Ok((source, read))
        }));
    }

    // Reads the next piece of `source`, off the event loop.
    fn spawn_next(&mut self, mut source: Source) {
        let (shared, options) = (Arc::clone(&self.shared), Arc::clone(&self.options));
        self.phase = Phase::Reading(self.shared.runtime.spawn_blocking(move || {
            let read = source.next(&shared, &options)?;
            Ok((source, read))
        }));
    }

    // Handles the result of a blocking read. Returns an event, if one is due at once.
    fn on_read(
        &mut self,
        read: Result<(Source, Read), SourceError>,
    ) -> Result<Option<WatchEvent>, WatchError> {
        let (source, read) = match read {
            Ok(read) => read,
            Err(error) => return self.on_source_error(error),
        };
        match read {
            Read::Piece(piece) => {
                self.set_piece(piece);
                // The next piece is read while this one is delivered.
                self.spawn_next(source);
                Ok(None)
            }
            Read::Damaged { change, what } => {
                self.spawn_next(source);
                let wanted = is_wanted(&self.shared, &self.options, &change);
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
                        self.lacks_entries = source.lacks_entries();
                    }
                    Source::Log(source) if source.ended_at_until() => self.phase = Phase::Ended,
                    Source::Log(_) => {}
                }
                Ok(Some(WatchEvent::CaughtUp))
            }
        }
    }

    fn on_source_error(&mut self, error: SourceError) -> Result<Option<WatchEvent>, WatchError> {
        match error {
            // The state's file was closed under a reader: that is not damage.
            SourceError::Gap { .. } | SourceError::Watch(WatchError::Read(_))
                if self.shared.bus.is_closed() =>
            {
                Err(WatchError::Closed)
            }
            SourceError::Gap { reason, reach_ms } => {
                let view = self.shared.state.view();
                Ok(Some(self.restart(view, reason, reach_ms)))
            }
            SourceError::Watch(WatchError::Behind { missing }) if self.options.wait => {
                self.phase = Phase::Waiting(Waiting {
                    missing,
                    version: self.seen_version,
                    look_again: Box::pin(tokio::time::sleep(LOOK_AGAIN_EVERY)),
                });
                Ok(None)
            }
            SourceError::Watch(error) => Err(error),
        }
    }

    // Makes `piece` the next to deliver; adjusts its expiries to those that were delivered.
    fn set_piece(&mut self, mut piece: Piece) {
        if piece.then.is_some() {
            let reports =
                |put: &Change| self.options.selects(&put.key) && self.options.in_time(put);
            piece.changes = self.position.adjust_expiries(piece.changes, reports);
        }
        self.piece = Some((piece, 0));
    }

    // Returns the next change of the piece that the watch selects, and moves the position past it;
    // `None` after the last one, when the position is past the whole piece.
    fn next_in_piece(&mut self) -> Option<Arc<Change>> {
        let (piece, done) = self.piece.as_mut()?;
        while let Some(change) = piece.changes.get(*done) {
            *done += 1;
            let change = Arc::clone(change);
            let is_wanted = is_wanted(&self.shared, &self.options, &change);
            if let Some(then) = &piece.then {
                // Only in debug builds: the check needs two author look-ups per change and watch.
                debug_assert!(
                    !is_wanted || !self.position.covers(&change, then),
                    "P3: entry {} of {} was delivered before",
                    change.entry.seq,
                    change.entry.author
                );
                let (passed, rest) = piece.changes.split_at(*done);
                self.position.pass(passed, rest.first(), then);
            }
            if is_wanted {
                return Some(shown(&self.options, change));
            }
        }
        if let Some((piece, _)) = self.piece.take()
            && let Some(then) = piece.then
        {
            // Entries stop counting only when the members change; in this store anyone may write.
            debug_assert!(
                !self.shared.anyone
                    || moved_back(&self.position.frontier, &then.frontier).is_none(),
                "P4: the position moves back from {:?} to {:?}",
                self.position.frontier,
                then.frontier
            );
            self.position.reach(&then);
        }
        None
    }

    fn poll_live(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<WatchEvent>, WatchError>> {
        // Read before the channel is checked: all batches up to it are in the channel by then.
        let published = self.shared.bus.published();
        match self.subscription.poll_next(cx) {
            Poll::Ready(Some(Ok(batch))) => Poll::Ready(Ok(self.on_batch(&batch))),
            Poll::Ready(Some(Err(Lagged))) => {
                self.lags += 1;
                self.subscription.skip_to_now();
                let view = self.shared.state.view();
                if self.lacks_entries && !view.lacks {
                    let event = self.restart(view, StateReset::Restored.to_string(), None);
                    return Poll::Ready(Ok(Some(event)));
                }
                self.return_to_log(view);
                Poll::Ready(Ok(None))
            }
            Poll::Ready(None) => Poll::Ready(Err(WatchError::Closed)),
            Poll::Pending => {
                self.note_quiet();
                let is_over = self.is_over()?;
                if !is_over {
                    ready!(self.heartbeat.as_mut().poll(cx));
                }
                let due = self.next_look();
                if !is_over && Instant::now() < due {
                    self.heartbeat.as_mut().reset(due);
                    return Poll::Ready(Ok(None));
                }
                if published.version >= self.seen_version {
                    self.position.catch_up(&published);
                }
                if is_over {
                    self.phase = Phase::Ended;
                }
                Poll::Ready(Ok(Some(WatchEvent::Progress)))
            }
        }
    }

    fn on_batch(&mut self, batch: &Batch) -> Option<WatchEvent> {
        let version = batch.published.version;
        assert!(
            version >= self.received_version,
            "P1: the batch of commit {version} was received after that of {}",
            self.received_version
        );
        self.received_version = version;
        if version <= self.seen_version {
            return None;
        }
        match &batch.reset {
            Some(gap) if *gap != StateReset::Restored || !self.changes_only => {
                let view = self.shared.state.view();
                Some(self.restart(view, gap.to_string(), None))
            }
            Some(_) | None => {
                self.position.forget_wrong_time(self.shared.now_ms());
                self.position.reach_time_of(batch);
                self.set_piece(Piece::of(batch));
                None
            }
        }
    }

    // Notes when the last item was delivered, now that there is none to deliver: reading the clock
    // for each change costs more than delivering it.
    fn note_quiet(&mut self) {
        if std::mem::take(&mut self.has_delivered) {
            self.last_item = Instant::now();
        }
    }

    // True when the time at which the options end the watch has passed.
    fn is_over(&self) -> Result<bool, WatchError> {
        let Some(until_ms) = self.options.until_ms else {
            return Ok(false);
        };
        let view = self.shared.state.view();
        Ok(is_over(&self.shared, &view, until_ms)?)
    }

    // Returns when the heartbeat is due, or earlier if the watch may end before.
    fn next_look(&self) -> Instant {
        let due = self.last_item + self.options.heartbeat;
        let Some(until_ms) = self.options.until_ms else {
            return due;
        };
        let left_ms = until_ms.saturating_sub(self.shared.now_ms());
        let left = Duration::from_millis(left_ms).max(LOOK_AGAIN_EVERY);
        due.min(Instant::now() + left)
    }

    // Starts again when anything was published since `waiting` was made.
    fn poll_waiting(
        &mut self,
        mut waiting: Waiting,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<WatchEvent>, WatchError>> {
        if self.shared.bus.is_closed() {
            return Poll::Ready(Err(WatchError::Closed));
        }
        let is_due = waiting.look_again.as_mut().poll(cx).is_ready();
        if is_due && self.shared.bus.published().version > waiting.version {
            self.subscription.skip_to_now();
            self.phase = Phase::Start;
            return Poll::Ready(Ok(None));
        }
        if is_due {
            let next = Instant::now() + LOOK_AGAIN_EVERY;
            waiting.look_again.as_mut().reset(next);
        }
        self.phase = Phase::Waiting(waiting);
        self.note_quiet();
        if is_due && self.last_item.elapsed() >= self.options.heartbeat {
            return Poll::Ready(Ok(Some(WatchEvent::Progress)));
        }
        if is_due {
            // The next poll registers its waker with the timer.
            return Poll::Ready(Ok(None));
        }
        Poll::Pending
    }

    fn poll_reading(
        &mut self,
        mut reading: JoinHandle<Result<(Source, Read), SourceError>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<WatchEvent>, WatchError>> {
        match Pin::new(&mut reading).poll(cx) {
            Poll::Ready(Ok(read)) => Poll::Ready(self.on_read(read)),
            Poll::Ready(Err(_stopped)) => Poll::Ready(Err(WatchError::Closed)),
            Poll::Pending => {
                self.phase = Phase::Reading(reading);
                Poll::Pending
            }
        }
    }

    // Makes one step. `Ok(None)`: nothing to deliver yet, poll again.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<WatchEvent>, WatchError>> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Start => Poll::Ready(self.start()),
            Phase::Waiting(waiting) => self.poll_waiting(waiting, cx),
            Phase::Reading(reading) => self.poll_reading(reading, cx),
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
            // A watch that is always behind must let other tasks run.
            let budget = ready!(coop::poll_proceed(cx));
            // Apart from the other events, which are larger: they would be moved for each change.
            if let Some(change) = self.next_in_piece() {
                budget.made_progress();
                self.has_delivered = true;
                return Poll::Ready(Some(Ok(WatchEvent::Change(change))));
            }
            let event = ready!(self.poll_step(cx));
            budget.made_progress();
            match event {
                Ok(None) => {}
                Ok(Some(event)) => {
                    self.has_delivered = true;
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

// Time between two checks for missing entries, and for the end of the watch.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(50);
