//! The handle on one consumer: take changes, answer them, and manage the consumer.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio_stream::Stream;

use crate::{
    limits::CONSUMER_NAME_CHARS_MAX,
    protocol::consumer::{DeadLetter, DeathReason, DeliveryId, OnGap, Waits},
    store::{
        ReadError, Shared, WatchError,
        consumers::{
            Claim, ConsumerChanges, ConsumerError, ConsumerOptions, ConsumerStart, ConsumerStatus,
            Delivery, delivery, feeder, host::Host, live::Live, options::difference, saver::Saver,
        },
        taken::taken,
        watch::{log_source::LogSource, position::Position},
    },
};

/// A handle on a consumer of a store. Cheap to clone; handles with the same name are the same
/// consumer.
///
/// `create` must be called once, first: without it the other methods return `Unknown`. Takers call
/// `next` (or `try_next`, or the stream of `deliveries`) and answer each `Delivery` through its own
/// methods; `ack`, `nack`, `term` and `extend` answer by id, for a taker in another process.
/// `show`, `outstanding`, `pause`, `resume`, `reset`, `set`, `delete` and the methods that begin with
/// `dead` manage the consumer, at any time; they return when the change is durable. An answer is
/// not durable when its call returns; `flush` waits for that.
#[derive(Debug, Clone)]
pub struct Consumer {
    host: Arc<Host>,
    name: Arc<str>,
}

impl Consumer {
    pub(super) fn new(host: Arc<Host>, name: &str) -> Self {
        Self {
            host,
            name: name.into(),
        }
    }

    /// Returns the name of the consumer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the consumer, durably. A consumer that exists with the same options is left as it is,
    /// whatever its start.
    ///
    /// # Errors
    /// `Exists` if it exists with other options; `Name`, `Option`, `TooMany`; `Start` when the
    /// cursor belongs to another store or is ahead of this node, and for `OnGap::Stop` when changes after
    /// the start were removed from the log; `Damaged`, `Io`, `Closed`.
    pub async fn create(&self, options: ConsumerOptions) -> Result<ConsumerStatus, ConsumerError> {
        check_name(&self.name)?;
        let shared = &self.host.shared;
        let row = options.row(shared.now_ms())?;
        let saver = self.host.saver().await?;
        let begins = match saver.find(&self.name) {
            // It does not begin now.
            Ok(_existing) => OnGap::State,
            Err(_new) => row.on_gap,
        };
        let position = start_position(shared, options.from, begins).await?;
        let live = saver.add(&self.name, |shared, bell| {
            Live::new(self.name.to_string(), row.clone(), position, shared, bell)
        })?;
        let differs = difference(live.lock().row(), &row);
        if let Some(differs) = differs {
            return Err(ConsumerError::Exists {
                name: self.name.to_string(),
                differs,
            });
        }
        saver.flush().await?;
        live.status()
    }

    /// Waits for the next change. Any number of takers, in any tasks, share the changes. Cancel-safe:
    /// a change that was given to a dropped call is delivered again.
    ///
    /// # Errors
    /// `Unknown`, also when the consumer is deleted meanwhile; `HistoryGone`, `DamagedConsumer`;
    /// `Damaged`, `Io`, `Closed`.
    pub async fn next(&self) -> Result<Delivery, ConsumerError> {
        let (_saver, live) = self.find().await?;
        delivery::next(&live).await
    }

    /// Returns the next change if there is one now. Directly after the store was opened, no change
    /// has been read ahead yet: use `next` then.
    ///
    /// # Errors
    /// Like `next`.
    pub async fn try_next(&self) -> Result<Option<Delivery>, ConsumerError> {
        let (_saver, live) = self.find().await?;
        delivery::try_next(&live).await
    }

    /// Removes the claims that were answered by id or have timed out from `claims`, all of this
    /// consumer, and waits until fewer than `max` are left. For callers that hand changes to takers
    /// in another process, which answer by id. Cancel-safe.
    ///
    /// # Errors
    /// `Unknown`, also when the consumer is deleted meanwhile; `Damaged`, `Io`, `Closed`.
    pub async fn fewer_claims(
        &self,
        claims: &mut Vec<Claim>,
        max: usize,
    ) -> Result<(), ConsumerError> {
        let (_saver, live) = self.find().await?;
        delivery::fewer_claims(&live, claims, max).await
    }

    /// Returns the deliveries of `next` as a stream that ends after the first error.
    pub fn deliveries(&self) -> Deliveries {
        Deliveries::new(self.clone())
    }

    /// Like `Delivery::ack`, for callers that have only the id.
    ///
    /// # Errors
    /// Like `Delivery::ack`; `Ack` with `NotOutstanding` the second time.
    pub async fn ack(&self, id: DeliveryId) -> Result<(), ConsumerError> {
        self.find().await?.1.ack(id)
    }

    /// Like `Delivery::nack`, for callers that have only the id.
    ///
    /// # Errors
    /// Like `Delivery::nack`.
    pub async fn nack(&self, id: DeliveryId, delay: Option<Duration>) -> Result<(), ConsumerError> {
        self.find().await?.1.nack(id, delay)
    }

    /// Like `Delivery::term`, for callers that have only the id.
    ///
    /// # Errors
    /// Like `Delivery::term`.
    pub async fn term(&self, id: DeliveryId) -> Result<(), ConsumerError> {
        self.find().await?.1.term(id, DeathReason::Terminated)
    }

    /// Like `Delivery::extend`, for callers that have only the id.
    ///
    /// # Errors
    /// Like `Delivery::extend`.
    pub async fn extend(&self, id: DeliveryId) -> Result<(), ConsumerError> {
        self.find().await?.1.extend(id, true)
    }

    /// Waits until all earlier answers are durable.
    ///
    /// # Errors
    /// `Unknown`, `Damaged`, `Io`, `Closed`.
    pub async fn flush(&self) -> Result<(), ConsumerError> {
        self.find().await?.0.flush().await
    }

    /// Returns the status of the consumer.
    ///
    /// # Errors
    /// `Unknown`, `Damaged`, `Io`, `Closed`.
    pub async fn show(&self) -> Result<ConsumerStatus, ConsumerError> {
        self.find().await?.1.status()
    }

    /// Stops delivering changes, even across a restart. Takers may still answer the changes they
    /// have.
    ///
    /// # Errors
    /// Like `show`.
    pub async fn pause(&self) -> Result<(), ConsumerError> {
        self.set_paused(true).await
    }

    /// Delivers changes again after a pause.
    ///
    /// # Errors
    /// Like `show`.
    pub async fn resume(&self) -> Result<(), ConsumerError> {
        self.set_paused(false).await
    }

    /// Moves the consumer to `from`. Outstanding changes are forgotten, dead letters stay.
    ///
    /// # Errors
    /// Like `create`; `DamagedConsumer`.
    pub async fn reset(&self, from: ConsumerStart) -> Result<(), ConsumerError> {
        let (saver, live) = self.find().await?;
        let since = from.since();
        let on_gap = live.lock().row().on_gap;
        let position = start_position(&self.host.shared, from, on_gap).await?;
        live.reset(position, since)?;
        feeder::start(&live);
        saver.flush().await
    }

    /// Changes options in place. Nothing that is outstanding is lost.
    ///
    /// # Errors
    /// `Option`; like `show`; `DamagedConsumer`.
    pub async fn set(&self, changes: ConsumerChanges) -> Result<(), ConsumerError> {
        let (saver, live) = self.find().await?;
        if live.set(changes)? {
            feeder::start(&live);
        }
        saver.flush().await
    }

    /// Returns the first outstanding changes, at most `max`, oldest first, with the reason why each
    /// is not given out now.
    ///
    /// # Errors
    /// Like `show`.
    pub async fn outstanding(&self, max: usize) -> Result<Vec<Waits>, ConsumerError> {
        self.find().await?.1.waits(max)
    }

    /// Removes the consumer with its changes and dead letters. Takers that wait get `Unknown`.
    ///
    /// # Errors
    /// Like `show`.
    pub async fn delete(&self) -> Result<(), ConsumerError> {
        let (saver, _live) = self.find().await?;
        saver.delete(&self.name)?;
        saver.flush().await
    }

    /// Returns the dead letters, oldest first.
    ///
    /// # Errors
    /// Like `show`.
    pub async fn dead(&self) -> Result<Vec<DeadLetter>, ConsumerError> {
        let (_saver, live) = self.find().await?;
        let state = live.lock();
        Ok(state.outstanding.dead().cloned().collect())
    }

    /// Delivers the dead letters with these numbers, or all if `numbers` is empty, again, with a
    /// fresh count of attempts. Returns their number, which is limited by the free room. The state
    /// follows a gap again.
    ///
    /// # Errors
    /// Like `show`.
    pub async fn dead_retry(&self, numbers: &[u64]) -> Result<usize, ConsumerError> {
        let (saver, live) = self.find().await?;
        let which = |letter: &DeadLetter| numbers.is_empty() || numbers.contains(&letter.number);
        let (retried, has_gap) = live.retry(which)?;
        if has_gap {
            feeder::start(&live);
        }
        saver.flush().await?;
        Ok(retried)
    }

    /// Forgets the dead letters with these numbers, or all if `numbers` is empty. Returns their
    /// number.
    ///
    /// # Errors
    /// Like `show`.
    pub async fn dead_skip(&self, numbers: &[u64]) -> Result<usize, ConsumerError> {
        let (saver, live) = self.find().await?;
        let which = |letter: &DeadLetter| numbers.is_empty() || numbers.contains(&letter.number);
        let skipped = live.change(|state| Ok(state.outstanding.skip(which)))?;
        saver.flush().await?;
        Ok(skipped)
    }

    async fn set_paused(&self, paused: bool) -> Result<(), ConsumerError> {
        let (saver, live) = self.find().await?;
        live.change(|state| {
            state.outstanding.set_paused(paused);
            Ok(())
        })?;
        saver.flush().await
    }

    async fn find(&self) -> Result<(Arc<Saver>, Arc<Live>), ConsumerError> {
        let Some(saver) = self.host.existing().await? else {
            let name = self.name.to_string();
            return Err(ConsumerError::Unknown { name });
        };
        let live = saver.find(&self.name)?;
        Ok((saver, live))
    }
}

/// The deliveries of a consumer as a stream; it ends after the first error.
pub struct Deliveries {
    consumer: Consumer,
    // The pending call of `Consumer::next`. `None` after an error.
    next: Option<NextDelivery>,
}

type NextDelivery = Pin<Box<dyn Future<Output = Result<Delivery, ConsumerError>> + Send>>;

impl Deliveries {
    fn new(consumer: Consumer) -> Self {
        Self {
            next: Some(next_of(&consumer)),
            consumer,
        }
    }
}

fn next_of(consumer: &Consumer) -> NextDelivery {
    let consumer = consumer.clone();
    Box::pin(async move { consumer.next().await })
}

// Returns the position after which a consumer begins; `None` if it begins at a time.
async fn start_position(
    shared: &Arc<Shared>,
    from: ConsumerStart,
    on_gap: OnGap,
) -> Result<Option<Position>, ConsumerError> {
    let position = match &from {
        ConsumerStart::Now => return Ok(Some(Position::of(&shared.bus.published()))),
        ConsumerStart::After(cursor) if cursor.store != shared.id => {
            return Err(ConsumerError::Start(WatchError::ForeignCursor {
                cursor: cursor.store,
                store: shared.id,
            }));
        }
        ConsumerStart::After(cursor) => Some(Position::after(cursor, shared.now_ms())),
        ConsumerStart::Beginning => Some(Position::default()),
        ConsumerStart::SinceAuthored { .. } | ConsumerStart::SinceArrived { .. } => None,
    };
    let is_cursor = matches!(from, ConsumerStart::After(_));
    let is_whole = shared.log.pruned().is_none() && taken(&shared.state.view()).is_none();
    if !is_cursor && is_whole {
        return Ok(position);
    }
    let shared = Arc::clone(shared);
    let looking = tokio::task::spawn_blocking(move || {
        let view = shared.state.view();
        let found = match &position {
            Some(position) => LogSource::after(&shared, view, position),
            None => LogSource::since(&shared, view, &from.as_start()),
        };
        match found {
            Err(WatchError::Read(ReadError::Pruned(_))) if on_gap == OnGap::State => Ok(position),
            Err(error @ WatchError::Read(ReadError::Pruned(_))) => Err(error),
            Err(error) if is_cursor => Err(error),
            // The feeder meets any other error, too.
            Ok(_) | Err(_) => Ok(position),
        }
    });
    Ok(looking.await.map_err(|_stopped| ConsumerError::Closed)??)
}

fn check_name(name: &str) -> Result<(), ConsumerError> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = (1..=CONSUMER_NAME_CHARS_MAX).contains(&name.chars().count());
    if fits && name.chars().all(letters) {
        return Ok(());
    }
    Err(ConsumerError::Name {
        name: name.chars().take(80).collect(),
    })
}
impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries")
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery, ConsumerError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let item = ready!(next.as_mut().poll(cx));
        self.next = item.is_ok().then(|| next_of(&self.consumer));
        Poll::Ready(Some(item))
    }
}
