//! The bus: delivers applied changes to watchers.
//!
//! Each distinct prefix that is watched has one small broadcast channel, and a radix tree finds the
//! channels of a key. So the cost of a change is proportional to its matching prefixes, however
//! many watchers there are. A channel that is full drops its oldest batch: the publisher never
//! waits. Only the watchers that had not received that batch get `Lagged`; each of them reads the
//! log from its own position.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use async_broadcast::{InactiveReceiver, Receiver, RecvError, Sender, TrySendError};
use bytes::Bytes;
use patricia_tree::PatriciaMap;

use crate::protocol::{
    change::{Change, Changes, Kind},
    frontier::Frontier,
};

/// The changes of one commit under one prefix, or a reset.
#[derive(Debug)]
pub struct Batch {
    /// The changes whose keys begin with the prefix, in order of application. Empty for a reset.
    pub changes: Changes,
    /// The position of the store after the commit.
    pub published: Arc<Published>,
    /// Set when no changes can describe the step to the new state: a watcher has to read the state
    /// again.
    pub reset: Option<StateReset>,
}

/// Why watchers have to read the state again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateReset {
    /// Entries were given up, for this reason, and their values are lost.
    Lost(Arc<str>),
    /// Entries that could not be read when the state was built are back, and so are their values.
    Restored,
}

impl fmt::Display for StateReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost(reason) => reason,
            Self::Restored => "a damaged log is whole again",
        })
    }
}

/// A position in the stream of published changes.
#[derive(Debug, Default)]
pub struct Published {
    /// The entries whose changes were published.
    pub frontier: Arc<Frontier>,
    /// Version of the view that shows them.
    pub version: u64,
    /// Expiries through this time (inclusive, ms since 1970) were published.
    pub expired_through_ms: u64,
}

/// The bus of one store. A clone is the same bus.
///
/// Only the store's writer publishes, one batch after the other; anybody subscribes.
///
/// Invariants, asserted where they could break. Together they are the watchers' promise: a watcher
/// that got neither `Lagged` nor a reset has received every change up to its last batch.
///
/// 1. The version and the expiry time of `published` never go back, so each channel has its batches
///    in order. (The frontier may go back: entries of a removed member stop counting.)
/// 2. A batch is covered: the frontier published with a put or delete has its entry.
/// 3. `published` moves after the batches that it covers were sent.
/// 4. No batch is refused: a full channel drops its oldest one, which its slow receivers notice.
#[derive(Debug, Clone)]
pub struct Bus(Arc<Inner>);

// Both locks are held for moments and never across an await. `publish` holds `routes` while it
// sends, which never waits, and takes `published` after it has released `routes`.
#[derive(Debug)]
struct Inner {
    // Written by `subscribe`, `close` and the drop of a subscription; read by `publish`.
    routes: RwLock<Routes>,
    // Written by `publish` only (3).
    published: RwLock<Arc<Published>>,
    // Batches that a channel holds; at least 1.
    batches_max: usize,
    // Number of the next route.
    next_route: AtomicU64,
}

#[derive(Debug, Default)]
struct Routes {
    // Route of the empty prefix, which the tree cannot hold.
    all: Option<Arc<Route>>,
    by_prefix: PatriciaMap<Arc<Route>>,
    // Set by `close`, never cleared: later subscriptions end at once.
    closed: bool,
}

// The channel of one watched prefix. Removed when its last subscription is dropped.
#[derive(Debug)]
struct Route {
    // Rises in order of creation; a batch goes to the routes in this order.
    number: u64,
    // Closed by `Bus::close`: receivers get the batches that are left, then the end.
    sender: Sender<Arc<Batch>>,
    // Keeps the channel open between two subscriptions; receives nothing.
    _inactive: InactiveReceiver<Arc<Batch>>,
}

impl Bus {
    /// Returns a bus at position `published` whose channels hold `batches_max` batches for their
    /// slowest watcher.
    pub fn new(batches_max: usize, published: Published) -> Self {
        Self(Arc::new(Inner {
            routes: RwLock::default(),
            published: RwLock::new(Arc::new(published)),
            batches_max: batches_max.max(1),
            next_route: AtomicU64::new(0),
        }))
    }

    /// Returns the position of the last batch. All batches up to it are in the channels.
    pub fn published(&self) -> Arc<Published> {
        let published = self.0.published.read();
        Arc::clone(&published.unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns a subscription to everything that is published from now on for keys that begin with
    /// `prefix`.
    pub fn subscribe(&self, prefix: Bytes) -> Subscription {
        let mut routes = self.0.routes_mut();
        let found = if prefix.is_empty() {
            routes.all.clone()
        } else {
            routes.by_prefix.get(&prefix).cloned()
        };
        let route = found.unwrap_or_else(|| {
            let route = Arc::new(self.0.route());
            if routes.closed {
                route.sender.close();
            } else if prefix.is_empty() {
                routes.all = Some(Arc::clone(&route));
            } else {
                routes.by_prefix.insert(prefix.clone(), Arc::clone(&route));
            }
            route
        });
        let receiver = route.sender.new_receiver();
        Subscription {
            bus: self.clone(),
            prefix,
            receiver: Some(receiver),
            version: 0,
        }
    }

    /// Sends `changes` to the watchers of all prefixes of their keys, then moves `published`.
    ///
    /// # Panics
    /// When `published` goes back, or does not cover a put or delete among `changes`.
    pub fn publish(&self, changes: &[Arc<Change>], published: Published) {
        let published = Arc::new(published);
        for changes in changes.chunk_by(|before, next| before.entry.id == next.entry.id) {
            let change = &changes[0];
            assert!(
                !matches!(change.kind, Kind::Put | Kind::Delete)
                    || change.entry.seq <= published.frontier.seq(&change.entry.author),
                "(2) a change is published with the entry that made it"
            );
        }
        self.check_order(&published);
        {
            let routes = self.0.routes();
            let mut matching: BTreeMap<u64, (&Route, Vec<Arc<Change>>)> = BTreeMap::new();
            if !routes.by_prefix.is_empty() {
                for change in changes {
                    for (_, route) in routes.by_prefix.common_prefixes(change.key.as_ref()) {
                        let slot = matching.entry(route.number);
                        slot.or_insert_with(|| (route, Vec::new()))
                            .1
                            .push(Arc::clone(change));
                    }
                }
            }
            for (route, changes) in matching.into_values() {
                route.send(changes.into(), &published, None);
            }
            if let Some(route) = routes.all.as_ref().filter(|_| !changes.is_empty()) {
                route.send(changes.into(), &published, None);
            }
        }
        self.0.publish(published);
    }

    /// Sends a reset to the watchers of all prefixes, then moves `published`.
    ///
    /// # Panics
    /// When `published` goes back.
    pub fn publish_reset(&self, reset: &StateReset, published: Published) {
        let published = Arc::new(published);
        self.check_order(&published);
        {
            let routes = self.0.routes();
            for route in routes.by_prefix.values().chain(routes.all.as_ref()) {
                route.send(Changes::default(), &published, Some(reset));
            }
        }
        self.0.publish(published);
    }

    fn check_order(&self, next: &Published) {
        let before = self.published();
        assert!(
            next.version >= before.version,
            "(1) what is published never goes back"
        );
    }

    /// Ends all subscriptions after the batches that were published.
    pub fn close(&self) {
        let mut routes = self.0.routes_mut();
        routes.closed = true;
        for route in routes.by_prefix.values().chain(routes.all.as_ref()) {
            route.sender.close();
        }
    }

    /// Returns true after `close`.
    pub fn is_closed(&self) -> bool {
        self.0.routes().closed
    }

    /// Returns the number of subscriptions.
    pub fn watchers(&self) -> usize {
        let routes = self.0.routes();
        let routes = routes.by_prefix.values().chain(routes.all.as_ref());
        routes.map(|route| route.sender.receiver_count()).sum()
    }
}

impl Inner {
    fn publish(&self, published: Arc<Published>) {
        *self
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner) = published;
    }

    fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes_mut(&self) -> RwLockWriteGuard<'_, Routes> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self) -> Route {
        let (mut sender, receiver) = async_broadcast::broadcast(self.batches_max);
        sender.set_overflow(true);
        sender.set_await_active(false);
        Route {
            number: self.next_route.fetch_add(1, Ordering::Relaxed),
            sender,
            _inactive: receiver.deactivate(),
        }
    }
}

impl Route {
    fn send(&self, changes: Changes, published: &Arc<Published>, reset: Option<&StateReset>) {
        let batch = Arc::new(Batch {
            changes,
            published: Arc::clone(published),
            reset: reset.cloned(),
        });
        // In overflow mode a full channel drops its oldest batch. An error is `Closed`, or
        // `Inactive` between two subscriptions.
        let sent = self.sender.try_broadcast(batch);
        assert!(
            !matches!(sent, Err(TrySendError::Full(_))),
            "(4) no batch is refused"
        );
    }
}

/// Receives the batches of one prefix. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    bus: Bus,
    prefix: Bytes,
    // None only inside `drop`.
    receiver: Option<Receiver<Arc<Batch>>>,
    // Version of the last batch; 0 before the first. Never goes back (1).
    version: u64,
}

/// The channel has dropped batches that this subscription had not received. Their entries are in
/// the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

impl Subscription {
    /// Returns the next batch; `None` when the bus was closed and no batch is left. Cancel-safe.
    ///
    /// # Errors
    /// `Lagged` when batches were dropped since the last call.
    ///
    /// # Panics
    /// When the channel's batches are not in order.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<Batch>, Lagged>>> {
        let Some(receiver) = &mut self.receiver else {
            return Poll::Ready(None);
        };
        let version = &mut self.version;
        Pin::new(receiver).poll_recv(cx).map(|received| {
            received.and_then(|received| match received {
                Ok(batch) => {
                    assert!(
                        batch.published.version >= *version,
                        "(1) a channel has its batches in order"
                    );
                    *version = batch.published.version;
                    Some(Ok(batch))
                }
                Err(RecvError::Overflowed(_)) => Some(Err(Lagged)),
                Err(RecvError::Closed) => None,
            })
        })
    }

    /// Returns true when every batch that was published before the call was received.
    pub fn is_empty(&self) -> bool {
        self.receiver.as_ref().is_none_or(Receiver::is_empty)
    }

    /// Skips the batches that were not received yet, and continues like a new subscription.
    pub fn skip_to_now(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            *receiver = receiver.new_receiver();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut routes = self.bus.0.routes_mut();
        self.receiver = None;
        let unused = |route: &Arc<Route>| route.sender.receiver_count() == 0;
        if self.prefix.is_empty() {
            if routes.all.as_ref().is_some_and(unused) {
                routes.all = None;
            }
        } else if routes.by_prefix.get(&self.prefix).is_some_and(unused) {
            routes.by_prefix.remove(&self.prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::{
        id::{Author, EntryId},
        protocol::{
            change::{EntryRef, Origin},
            frontier::FrontierTip,
            heads::Heads,
            hlc::Hlc,
        },
    };

    fn change(key: &'static str) -> Arc<Change> {
        let entry = EntryRef {
            id: EntryId([1; 32]),
            author: Author([2; 32]),
            seq: 1,
            hlc: Hlc::ZERO,
        };
        Arc::new(Change {
            key: key.into(),
            kind: Kind::Delete,
            value: None,
            expires_ms: None,
            entry,
            prev: None,
            op_index: 0,
            op_count: 1,
            atomic: false,
            depth: 0,
            heads: Heads::default(),
            previous: None,
            origin: Origin::Local,
            arrived_ms: 0,
            late: false,
            gap: None,
            gap_number: 0,
        })
    }

    fn publish(bus: &Bus, version: u64, keys: &[&'static str]) {
        let changes: Vec<_> = keys.iter().map(|key| change(key)).collect();
        bus.publish(&changes, published(version));
    }

    // A position that covers the entry of `change`.
    fn published(version: u64) -> Published {
        let tip = FrontierTip {
            seq: 1,
            id: EntryId([1; 32]),
        };
        Published {
            frontier: Arc::new([(Author([2; 32]), tip)].into_iter().collect()),
            version,
            ..Published::default()
        }
    }

    // Returns the batches that were not received yet, each as version and keys; "lagged"; "closed".
    fn received(subscription: &mut Subscription) -> Vec<String> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(next) = subscription.poll_next(&mut cx) {
            all.push(match next {
                Some(Ok(batch)) => {
                    let keys = batch.changes.iter().map(|change| &change.key[..]);
                    let keys: Vec<_> = keys.map(String::from_utf8_lossy).collect();
                    format!("{} {}", batch.published.version, keys.join(" "))
                }
                Some(Err(Lagged)) => "lagged".to_owned(),
                None => {
                    all.push("closed".to_owned());
                    break;
                }
            });
        }
        all
    }

    fn routes(bus: &Bus) -> usize {
        let routes = bus.0.routes();
        routes.by_prefix.len() + usize::from(routes.all.is_some())
    }

    #[test]
    fn change_goes_to_all_prefixes_of_its_key() {
        let bus = Bus::new(8, Published::default());
        let mut all = bus.subscribe("".into());
        let mut a = bus.subscribe("/a".into());
        let mut nested = bus.subscribe("/a/b".into());
        let mut whole = bus.subscribe("/a/b/c".into());
        let mut other = bus.subscribe("/b".into());
        publish(&bus, 1, &["/a/b/c", "/a", "/a/b", "/b", "/"]);
        publish(&bus, 2, &["/a/b/cd"]);
        assert_eq!(received(&mut all), ["1 /a/b/c /a /a/b /b /", "2 /a/b/cd"]);
        assert_eq!(received(&mut a), ["1 /a/b/c /a /a/b", "2 /a/b/cd"]);
        assert_eq!(received(&mut nested), ["1 /a/b/c /a/b", "2 /a/b/cd"]);
        assert_eq!(received(&mut whole), ["1 /a/b/c", "2 /a/b/cd"]);
        assert_eq!(received(&mut other), ["1 /b"]);
        assert_eq!(bus.published().version, 2);
    }

    #[test]
    fn route_is_shared_and_removed_with_its_last_watcher() {
        let bus = Bus::new(8, Published::default());
        let mut first = bus.subscribe("/a".into());
        let second = bus.subscribe("/a".into());
        let all = bus.subscribe("".into());
        assert_eq!((routes(&bus), bus.watchers()), (2, 3));
        drop(second);
        assert_eq!((routes(&bus), bus.watchers()), (2, 2));
        publish(&bus, 1, &["/a"]);
        assert_eq!(received(&mut first), ["1 /a"]);
        drop((first, all));
        assert_eq!((routes(&bus), bus.watchers()), (0, 0));
        publish(&bus, 2, &["/a"]);
        let mut late = bus.subscribe("/a".into());
        assert_eq!(received(&mut late), Vec::<String>::new());
    }

    #[test]
    fn full_channel_drops_its_oldest_and_only_the_slow_lag() {
        let bus = Bus::new(2, Published::default());
        let mut slow = bus.subscribe("".into());
        let mut fast = bus.subscribe("".into());
        for version in 1..=5 {
            publish(&bus, version, &["/a"]);
            assert_eq!(received(&mut fast), [format!("{version} /a")]);
            let routes = bus.0.routes();
            let waiting = routes.all.as_ref().unwrap().sender.len();
            assert!(waiting <= 2, "{waiting} batches in a channel for 2");
        }
        assert_eq!(received(&mut slow), ["lagged", "4 /a", "5 /a"]);
        publish(&bus, 6, &["/a"]);
        slow.skip_to_now();
        publish(&bus, 7, &["/a"]);
        assert_eq!(received(&mut slow), ["7 /a"]);
    }

    #[test]
    fn closing_ends_subscriptions_behind_their_batches() {
        let bus = Bus::new(2, Published::default());
        let mut before = bus.subscribe("/a".into());
        publish(&bus, 1, &["/a"]);
        bus.close();
        publish(&bus, 2, &["/a"]);
        assert_eq!(received(&mut before), ["1 /a", "closed"]);
        let mut after = bus.subscribe("/b".into());
        assert_eq!(received(&mut after), ["closed"]);
        assert!(bus.is_closed());
    }

    #[test]
    fn reset_goes_to_every_prefix() {
        let bus = Bus::new(2, Published::default());
        let mut a = bus.subscribe("/a".into());
        let mut all = bus.subscribe("".into());
        bus.publish_reset(&StateReset::Restored, published(1));
        let mut cx = Context::from_waker(Waker::noop());
        for subscription in [&mut a, &mut all] {
            let Poll::Ready(Some(Ok(batch))) = subscription.poll_next(&mut cx) else {
                panic!("expected a batch")
            };
            assert_eq!(batch.reset, Some(StateReset::Restored));
            assert!(batch.changes.is_empty());
        }
        assert_eq!(bus.published().version, 1);
    }

    #[test]
    #[should_panic(expected = "never goes back")]
    fn version_that_goes_back_is_a_bug() {
        let bus = Bus::new(2, published(5));
        publish(&bus, 4, &["/a"]);
    }

    #[test]
    #[should_panic(expected = "with the entry that made it")]
    fn change_beyond_the_frontier_is_a_bug() {
        let bus = Bus::new(2, Published::default());
        bus.publish(&[change("/a")], Published::default());
    }
}
