//! Durable consumers: named positions on this node, from which changes are given out to takers who
//! acknowledge them.
//!
//! A consumer's feeder follows a watch and hands over what matches, as far as there is room; takers
//! get one change each, in order per key; the keeper saves position and outstanding changes
//! together. So each change is given out at least once, whatever dies in between.
//!
//! What is promised: a change that matches is given out until somebody acknowledges it, or it is a
//! dead letter; changes of one key one at a time, in the order of the log. As long as each change
//! is acknowledged before the next is taken, all of them come causally, per author in sequence;
//! with `max_in_flight` 1 also when some are given back. Nothing more: a taker that dies after its
//! work and before its acknowledgement was durable makes others do it again.

mod delivery;
mod error;
mod feeder;
mod file;
mod live;
mod options;
mod saver;

use std::{
    any::Any,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;

pub use delivery::{Claim, Deliveries, Delivery};
pub use error::ConsumerError;
pub use options::{ConsumerOptions, ConsumerStart, ConsumerState, ConsumerStatus};

use crate::{
    disk::{Disk, Open},
    limits::CONSUMER_NAME_CHARS_MAX,
    protocol::consumer::{DeadLetter, DeathReason, DeliveryId},
    store::{
        Shared, Store, WatchError,
        consumers::{file::File, live::Live, options::difference, saver::Keeper},
        watch::{log_source::LogSource, position::Position},
    },
};

/// A handle on a consumer of a store. Cheap to clone; of the same name, all are the same consumer.
#[derive(Debug, Clone)]
pub struct Consumer {
    host: Arc<Host>,
    name: Arc<str>,
}

impl Store {
    /// Returns a handle on the consumer `name`, which need not exist yet.
    pub fn consumer(&self, name: &str) -> Consumer {
        Consumer {
            host: Arc::clone(&self.consumers.0),
            name: name.into(),
        }
    }

    /// Returns all consumers of this store, by name.
    ///
    /// # Errors
    /// `Damaged`, `Io`, `Closed`.
    pub async fn consumers(&self) -> Result<Vec<ConsumerStatus>, ConsumerError> {
        let Some(keeper) = self.consumers.0.existing().await? else {
            return Ok(Vec::new());
        };
        keeper.all().iter().map(|live| live.status()).collect()
    }
}

impl Consumer {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it, durably. One that is there already, with the same options, is left as it is,
    /// wherever it began.
    ///
    /// # Errors
    /// `Exists` with other options; `Name`, `Option`, `TooMany`; `Start` when the cursor is of
    /// another store or ahead of this node; `Damaged`, `Io`, `Closed`.
    pub async fn create(&self, options: ConsumerOptions) -> Result<ConsumerStatus, ConsumerError> {
        check_name(&self.name)?;
        let shared = &self.host.shared;
        let row = options.row(shared.now_ms())?;
        let keeper = self.host.keeper().await?;
        let position = begin(shared, options.from).await?;
        let live = keeper.add(&self.name, |shared, bell| {
            Live::new(self.name.to_string(), row.clone(), position, shared, bell)
        })?;
        let differs = difference(live.lock().row(), &row);
        if let Some(differs) = differs {
            return Err(ConsumerError::Exists {
                name: self.name.to_string(),
                differs,
            });
        }
        keeper.flush().await?;
        live.status()
    }

    /// Waits for the next change. Any number of takers, here or in tasks of their own, share what
    /// there is. Cancel-safe: what was given to a dropped call is given out again.
    ///
    /// # Errors
    /// `Unknown`, also when it is deleted meanwhile; `HistoryGone`, `DamagedConsumer`; `Damaged`,
    /// `Io`, `Closed`.
    pub async fn next(&self) -> Result<Delivery, ConsumerError> {
        let (_keeper, live) = self.find().await?;
        delivery::next(&live).await
    }

    /// Returns the next change if there is one now. What was never read ahead is not there yet: who
    /// has just opened the store waits with `next`.
    ///
    /// # Errors
    /// As `next`.
    pub async fn try_next(&self) -> Result<Option<Delivery>, ConsumerError> {
        let (_keeper, live) = self.find().await?;
        delivery::try_next(&live).await
    }

    /// Lets go of those of `claims`, all of this consumer, that were answered by their ids or are
    /// out of time, and waits until fewer than `max` are left: for who passes changes on to others
    /// that answer by id. Cancel-safe.
    ///
    /// # Errors
    /// `Unknown`, also when it is deleted meanwhile; `Damaged`, `Io`, `Closed`.
    pub async fn fewer_claims(
        &self,
        claims: &mut Vec<Claim>,
        max: usize,
    ) -> Result<(), ConsumerError> {
        let (_keeper, live) = self.find().await?;
        delivery::fewer_claims(&live, claims, max).await
    }

    /// Returns what `next` gives, as a stream that ends after the first error.
    pub fn deliveries(&self) -> Deliveries {
        Deliveries::new(self.clone())
    }

    /// As `Delivery::ack`, for who has only the id.
    ///
    /// # Errors
    /// As there; `Ack` with `NotOutstanding` the second time.
    pub async fn ack(&self, id: DeliveryId) -> Result<(), ConsumerError> {
        self.find().await?.1.ack(id)
    }

    /// As `Delivery::nack`, for who has only the id.
    ///
    /// # Errors
    /// As there.
    pub async fn nack(&self, id: DeliveryId, delay: Option<Duration>) -> Result<(), ConsumerError> {
        self.find().await?.1.nack(id, delay)
    }

    /// As `Delivery::term`, for who has only the id.
    ///
    /// # Errors
    /// As there.
    pub async fn term(&self, id: DeliveryId) -> Result<(), ConsumerError> {
        self.find().await?.1.term(id, DeathReason::Terminated)
    }

    /// As `Delivery::extend`, for who has only the id.
    ///
    /// # Errors
    /// As there.
    pub async fn extend(&self, id: DeliveryId) -> Result<(), ConsumerError> {
        self.find().await?.1.extend(id, true)
    }

    /// Waits until all that was answered before is durable.
    ///
    /// # Errors
    /// `Unknown`, `Damaged`, `Io`, `Closed`.
    pub async fn flush(&self) -> Result<(), ConsumerError> {
        self.find().await?.0.flush().await
    }

    /// Returns how it is.
    ///
    /// # Errors
    /// `Unknown`, `Damaged`, `Io`, `Closed`.
    pub async fn show(&self) -> Result<ConsumerStatus, ConsumerError> {
        self.find().await?.1.status()
    }

    /// Gives out nothing from now on, also after a restart. What takers have they may answer.
    ///
    /// # Errors
    /// As `show`.
    pub async fn pause(&self) -> Result<(), ConsumerError> {
        self.set_paused(true).await
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// As `show`.
    pub async fn resume(&self) -> Result<(), ConsumerError> {
        self.set_paused(false).await
    }

    /// Begins anew at `from`: what is outstanding is forgotten, dead letters stay.
    ///
    /// # Errors
    /// As `create`; `DamagedConsumer`.
    pub async fn reset(&self, from: ConsumerStart) -> Result<(), ConsumerError> {
        let (keeper, live) = self.find().await?;
        let since = from.since();
        let position = begin(&self.host.shared, from).await?;
        live.reset(position, since)?;
        feeder::start(&live);
        keeper.flush().await
    }

    /// Gives out what matches `prefixes` from where it is; what it read ahead before it gives out
    /// all the same, whether that still matches or not.
    ///
    /// # Errors
    /// `Option`; as `show`; `DamagedConsumer`.
    pub async fn set_prefixes(&self, prefixes: Vec<Bytes>) -> Result<(), ConsumerError> {
        let options = ConsumerOptions {
            prefixes,
            ..ConsumerOptions::default()
        };
        options.check()?;
        let (keeper, live) = self.find().await?;
        if live.set_prefixes(options.prefixes)? {
            feeder::start(&live);
        }
        keeper.flush().await
    }

    /// Removes it with all it has. Takers that wait are told `Unknown`.
    ///
    /// # Errors
    /// As `show`.
    pub async fn delete(&self) -> Result<(), ConsumerError> {
        let (keeper, _live) = self.find().await?;
        keeper.delete(&self.name)?;
        keeper.flush().await
    }

    /// Returns its dead letters, the oldest first.
    ///
    /// # Errors
    /// As `show`.
    pub async fn dead(&self) -> Result<Vec<DeadLetter>, ConsumerError> {
        let (_keeper, live) = self.find().await?;
        let state = live.lock();
        Ok(state.outstanding.dead().cloned().collect())
    }

    /// Gives out dead letters again, with all attempts before them: those with these numbers, or,
    /// where none are named, all. Returns how many; no more than there is room for.
    ///
    /// # Errors
    /// As `show`.
    pub async fn dead_retry(&self, numbers: &[u64]) -> Result<usize, ConsumerError> {
        let (keeper, live) = self.find().await?;
        let which = |letter: &DeadLetter| numbers.is_empty() || numbers.contains(&letter.number);
        let retried = live.change(|state| Ok(state.outstanding.retry(which)))?;
        keeper.flush().await?;
        Ok(retried)
    }

    /// Forgets dead letters: those with these numbers, or, where none are named, all. Returns how
    /// many.
    ///
    /// # Errors
    /// As `show`.
    pub async fn dead_skip(&self, numbers: &[u64]) -> Result<usize, ConsumerError> {
        let (keeper, live) = self.find().await?;
        let which = |letter: &DeadLetter| numbers.is_empty() || numbers.contains(&letter.number);
        let skipped = live.change(|state| Ok(state.outstanding.skip(which)))?;
        keeper.flush().await?;
        Ok(skipped)
    }

    async fn set_paused(&self, paused: bool) -> Result<(), ConsumerError> {
        let (keeper, live) = self.find().await?;
        live.change(|state| {
            state.outstanding.set_paused(paused);
            Ok(())
        })?;
        keeper.flush().await
    }

    async fn find(&self) -> Result<(Arc<Keeper>, Arc<Live>), ConsumerError> {
        let Some(keeper) = self.host.existing().await? else {
            let name = self.name.to_string();
            return Err(ConsumerError::Unknown { name });
        };
        let live = keeper.find(&self.name)?;
        Ok((keeper, live))
    }
}

/// The consumers of a store, as its handles have them. They end with the last handle.
#[derive(Debug)]
pub(super) struct Consumers(Arc<Host>);

/// Opens `consumers.db` when it is needed first, and again after it has failed.
#[derive(Debug)]
struct Host {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    // Kept by the keeper's thread too.
    lease: Option<Arc<dyn Any + Send + Sync>>,
    // Held while the file is opened.
    desk: Mutex<Desk>,
}

#[derive(Debug)]
enum Desk {
    Unopened,
    Open(Arc<Keeper>),
    Closed,
}

impl Consumers {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        lease: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Host {
            path: shared.dir.join("consumers.db"),
            shared,
            disk,
            lease,
            desk: Mutex::new(Desk::Unopened),
        }))
    }

    /// Saves what there is, ends all consumers, and closes the file.
    pub(super) async fn close(&self) {
        let Some(keeper) = self.0.stop() else { return };
        let joined = tokio::task::spawn_blocking(move || keeper.join()).await;
        // Only a runtime that stops does not wait.
        joined.unwrap_or_default();
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        drop(self.0.stop());
    }
}

impl Host {
    async fn keeper(self: &Arc<Self>) -> Result<Arc<Keeper>, ConsumerError> {
        match &*self.desk() {
            Desk::Open(keeper) if !keeper.is_over() => return Ok(Arc::clone(keeper)),
            Desk::Closed => return Err(ConsumerError::Closed),
            Desk::Unopened | Desk::Open(_) => {}
        }
        let host = Arc::clone(self);
        let opening = tokio::task::spawn_blocking(move || host.open());
        opening.await.map_err(|_stopped| ConsumerError::Closed)?
    }

    // As `keeper`; `None` where nobody ever made a consumer: who only asks makes no file.
    async fn existing(self: &Arc<Self>) -> Result<Option<Arc<Keeper>>, ConsumerError> {
        let is_unopened = matches!(&*self.desk(), Desk::Unopened);
        if is_unopened {
            match self.disk.open(&self.path, Open::Existing) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                // What else is wrong with it, opening it says.
                _there => {}
            }
        }
        self.keeper().await.map(Some)
    }

    fn open(&self) -> Result<Arc<Keeper>, ConsumerError> {
        let mut desk = self.desk();
        match &*desk {
            Desk::Open(keeper) if !keeper.is_over() => return Ok(Arc::clone(keeper)),
            // The file is closed when its thread has ended.
            Desk::Open(failed) => failed.join(),
            Desk::Closed => return Err(ConsumerError::Closed),
            Desk::Unopened => {}
        }
        let (file, stored) = File::open(Arc::clone(&self.disk), &self.path)?;
        let lease = self.lease.clone();
        let keeper = Arc::new(Keeper::start(file, stored, Arc::clone(&self.shared), lease));
        *desk = Desk::Open(Arc::clone(&keeper));
        Ok(keeper)
    }

    // Returns the keeper, if it was at work.
    fn stop(&self) -> Option<Arc<Keeper>> {
        match std::mem::replace(&mut *self.desk(), Desk::Closed) {
            Desk::Open(keeper) => {
                keeper.stop();
                Some(keeper)
            }
            Desk::Unopened | Desk::Closed => None,
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Returns the position to begin behind; `None` where a time says where.
async fn begin(
    shared: &Arc<Shared>,
    from: ConsumerStart,
) -> Result<Option<Position>, ConsumerError> {
    let cursor = match from {
        ConsumerStart::Beginning => return Ok(Some(Position::default())),
        ConsumerStart::Now => return Ok(Some(Position::of(&shared.bus.published()))),
        ConsumerStart::SinceAuthored { .. } | ConsumerStart::SinceArrived { .. } => {
            return Ok(None);
        }
        ConsumerStart::After(cursor) => cursor,
    };
    if cursor.store != shared.id {
        return Err(ConsumerError::Start(WatchError::ForeignCursor {
            cursor: cursor.store,
            store: shared.id,
        }));
    }
    let position = Position::after(&cursor);
    let shared = Arc::clone(shared);
    let looking = tokio::task::spawn_blocking(move || {
        let view = shared.state.view();
        LogSource::after(&shared, view, &position).map(|_found| position)
    });
    let position = looking.await.map_err(|_stopped| ConsumerError::Closed)??;
    Ok(Some(position))
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
