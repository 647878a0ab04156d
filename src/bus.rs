//! The bus: tells watchers what was applied.
//!
//! One small broadcast channel for each distinct prefix that somebody watches, in a radix tree,
//! so that a change costs its matching prefixes and not the number of watchers. A channel that is
//! full drops its oldest batch: the publisher never waits, and a watcher that lagged goes back to
//! the log from its own position.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use async_broadcast::{InactiveReceiver, Receiver, RecvError, Sender};
use bytes::Bytes;
use patricia_tree::PatriciaMap;

use crate::protocol::{
    change::{Change, Changes},
    frontier::Frontier,
};

/// What one commit changed under one prefix.
#[derive(Debug)]
pub struct Batch {
    /// The changes that match, in order of application.
    pub changes: Changes,
    /// Where the store stood after the commit.
    pub published: Arc<Published>,
    /// Set when the state is another, and no changes say how. There are none then.
    pub gap: Option<Gap>,
}

/// Why the state is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// History was given up: why.
    Lost(Arc<str>),
    /// It lacked entries that could not be read, and has them now.
    Mended,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost(reason) => reason,
            Self::Mended => "a damaged log is whole again",
        })
    }
}

/// A position in what was published.
#[derive(Debug, Default)]
pub struct Published {
    /// Every entry told so far.
    pub frontier: Arc<Frontier>,
    /// The view that shows them; counts commits.
    pub version: u64,
    /// Expiries through this time were told, ms since 1970.
    pub expired_through_ms: u64,
}

/// The bus of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Written by `subscribe` and `drop`, read by `publish`.
    routes: RwLock<Routes>,
    // Stored after the batches it covers were sent.
    published: RwLock<Arc<Published>>,
    batches_max: usize,
    next_route: AtomicU64,
}

#[derive(Debug, Default)]
struct Routes {
    // The empty prefix: everything.
    all: Option<Arc<Route>>,
    by_prefix: PatriciaMap<Arc<Route>>,
    closed: bool,
}

// One prefix somebody watches. Removed when its last subscription goes.
#[derive(Debug)]
struct Route {
    number: u64,
    sender: Sender<Arc<Batch>>,
    // Keeps the channel open while nobody listens; receives nothing.
    _inactive: InactiveReceiver<Arc<Batch>>,
}

impl Bus {
    /// Makes a bus whose channels hold `batches_max` batches for their slowest watcher.
    pub fn new(batches_max: usize, published: Published) -> Self {
        Self(Arc::new(Inner {
            routes: RwLock::default(),
            published: RwLock::new(Arc::new(published)),
            batches_max: batches_max.max(1),
            next_route: AtomicU64::new(0),
        }))
    }

    /// Returns where publishing stands. Everything up to there is in the channels already.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(
            &self
                .0
                .published
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Begins to listen to keys that begin with `prefix`: everything published from now on.
    pub fn subscribe(&self, prefix: Bytes) -> Subscription {
        let mut routes = self
            .0
            .routes
            .write()
            .unwrap_or_else(PoisonError::into_inner);
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
        }
    }

    /// Tells `changes` to all who watch a prefix of their keys, then moves `published`.
    pub fn publish(&self, changes: &[Arc<Change>], published: Published) {
        let published = Arc::new(published);
        {
            let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner);
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

    /// Tells everybody that history was given up, and why; then moves `published`.
    pub fn publish_gap(&self, reason: &str, published: Published) {
        self.publish_another(&Gap::Lost(Arc::from(reason)), published);
    }

    /// Tells everybody that what the state lacked is in it; then moves `published`.
    pub fn publish_mended(&self, published: Published) {
        self.publish_another(&Gap::Mended, published);
    }

    fn publish_another(&self, gap: &Gap, published: Published) {
        let published = Arc::new(published);
        {
            let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner);
            for route in routes.by_prefix.values().chain(routes.all.as_ref()) {
                route.send(Changes::default(), &published, Some(gap));
            }
        }
        self.0.publish(published);
    }

    /// Ends all subscriptions, after what was published.
    pub fn close(&self) {
        let mut routes = self
            .0
            .routes
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        routes.closed = true;
        for route in routes.by_prefix.values().chain(routes.all.as_ref()) {
            route.sender.close();
        }
    }

    /// True after `close`.
    pub fn is_closed(&self) -> bool {
        let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.closed
    }

    /// Returns the number of subscriptions.
    pub fn watchers(&self) -> usize {
        let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner);
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
    fn send(&self, changes: Changes, published: &Arc<Published>, gap: Option<&Gap>) {
        let batch = Arc::new(Batch {
            changes,
            published: Arc::clone(published),
            gap: gap.cloned(),
        });
        // Overflow mode: it displaces the oldest, or nobody listens just now.
        drop(self.sender.try_broadcast(batch));
    }
}

/// Listens to one prefix. Dropping it ends that.
#[derive(Debug)]
pub struct Subscription {
    bus: Bus,
    prefix: Bytes,
    // None only inside `drop`.
    receiver: Option<Receiver<Arc<Batch>>>,
}

/// A subscription's channel has dropped batches: what was missed is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

impl Subscription {
    /// Returns the next batch; `None` after the bus was closed.
    ///
    /// # Errors
    /// `Lagged` when batches were dropped since the last call.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<Batch>, Lagged>>> {
        let Some(receiver) = &mut self.receiver else {
            return Poll::Ready(None);
        };
        Pin::new(receiver).poll_recv(cx).map(|received| {
            received.and_then(|received| match received {
                Ok(batch) => Some(Ok(batch)),
                Err(RecvError::Overflowed(_)) => Some(Err(Lagged)),
                Err(RecvError::Closed) => None,
            })
        })
    }

    /// True when nothing waits: what was published before the call was received.
    pub fn is_empty(&self) -> bool {
        self.receiver.as_ref().is_none_or(Receiver::is_empty)
    }

    /// Forgets what waits: from here on as a new subscription.
    pub fn skip_to_now(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            *receiver = receiver.new_receiver();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut routes = self
            .bus
            .0
            .routes
            .write()
            .unwrap_or_else(PoisonError::into_inner);
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
            change::{EntryRef, Kind, Origin},
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
        })
    }

    fn publish(bus: &Bus, version: u64, keys: &[&'static str]) {
        let changes: Vec<_> = keys.iter().map(|key| change(key)).collect();
        let published = Published {
            version,
            ..Published::default()
        };
        bus.publish(&changes, published);
    }

    // What waits: (version, keys) of each batch, "lagged", "closed".
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
        let routes = bus.0.routes.read().unwrap();
        routes.by_prefix.len() + usize::from(routes.all.is_some())
    }

    #[test]
    fn a_change_goes_to_all_prefixes_of_its_key_in_order() {
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
    fn watchers_of_one_prefix_share_a_route_that_goes_with_the_last() {
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
    fn a_full_channel_drops_the_oldest_and_says_so_to_the_slow_one_only() {
        let bus = Bus::new(2, Published::default());
        let mut slow = bus.subscribe("".into());
        let mut fast = bus.subscribe("".into());
        for version in 1..=5 {
            publish(&bus, version, &["/a"]);
            assert_eq!(received(&mut fast), [format!("{version} /a")]);
            let routes = bus.0.routes.read().unwrap();
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
    fn closing_ends_subscriptions_after_what_was_published() {
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
}
