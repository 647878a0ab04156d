//! A watcher that moves between replicas with its cursor and records each event.

use std::time::Duration;

use lattice::{
    Watch, WatchEvent, WatchOptions,
    protocol::{change::Kind, cursor::Cursor, frontier::Frontier},
    store::{Start, WatchError, WatchMode},
};
use tokio_stream::StreamExt as _;

use super::{
    checker::live,
    histories::{Counts, add, at_end},
    history::{Lineage, Scope, Step, Told, Truth, covers_nothing},
    replica::{PATIENCE, Replica, STORE},
};
use crate::support::random::Random;

#[derive(Debug)]
pub struct Reader {
    pub lineage: Lineage,
    watch: Option<Watch>,
    /// The replica of its current or last watch.
    pub at: usize,
    // True while its last batch is incomplete.
    inside: bool,
}

impl Reader {
    pub fn new(scope: Scope) -> Self {
        let begin = Cursor {
            store: STORE,
            frontier: Frontier::default(),
            partial: None,
            expired_through_ms: 0,
        };
        let lineage = Lineage {
            scope,
            begin,
            steps: Vec::new(),
        };
        Self {
            lineage,
            watch: None,
            at: 0,
            inside: false,
        }
    }

    pub fn is_reading(&self) -> bool {
        self.watch.is_some()
    }

    fn note(&mut self, step: Step) {
        let cursor = match &self.watch {
            Some(watch) => watch.cursor(),
            None => self.lineage.end().clone(),
        };
        self.lineage.steps.push((step, cursor));
    }

    /// Stops, and resumes after its cursor at a replica.
    pub fn begin(&mut self, at: usize, replica: &Replica, wait: bool, counts: &Counts) {
        if let Some(watch) = self.watch.take() {
            add(&counts.overflows, watch.lags());
        }
        let cursor = self.lineage.end().clone();
        add(&counts.inside_entries, u64::from(cursor.partial.is_some()));
        add(&counts.inside_batches, u64::from(self.inside));
        add(&counts.moves, u64::from(at != self.at));
        let is_anew = self.lineage.is_told_anew();
        add(&counts.told_anew, u64::from(is_anew));
        let scope = &self.lineage.scope;
        // The cursor travels as text, as a user would carry it.
        let cursor: Cursor = cursor.to_string().parse().unwrap();
        let options = WatchOptions {
            prefixes: vec![scope.prefix.clone()],
            start: Start::After(cursor),
            keys_only: scope.keys_only,
            mode: if scope.latest {
                WatchMode::Latest
            } else {
                WatchMode::Every
            },
            heartbeat: HEARTBEAT,
            wait,
            ..WatchOptions::default()
        };
        let is_ahead = self.lineage.end().expired_through_ms > at_end(&replica.store);
        add(&counts.clocks_behind, u64::from(is_ahead));
        let had = replica.store.frontier();
        self.watch = Some(replica.store.watch_with(options));
        (self.at, self.inside) = (at, false);
        self.note(Step::Began { at, had });
    }

    /// Reads up to so many changes, or until none comes. Returns false if the watch ended.
    pub async fn read(&mut self, changes: usize, counts: &Counts) -> bool {
        for _change in 0..changes {
            match self.next(counts).await {
                Some(Step::Progress | Step::Behind { .. }) => return true,
                Some(_told) => {}
                None => return false,
            }
        }
        true
    }

    /// Records the next event and returns it; `None` if the watch ended.
    async fn next(&mut self, counts: &Counts) -> Option<Step> {
        let watch = self.watch.as_mut()?;
        let item = tokio::time::timeout(PATIENCE, watch.next()).await;
        let step = match item {
            Ok(Some(Ok(event))) => match event {
                WatchEvent::Change(change) => {
                    add(&counts.changes, 1);
                    add(&counts.conflicts, u64::from(change.is_conflict()));
                    add(&counts.late, u64::from(change.late));
                    add(&counts.expiries, u64::from(change.kind == Kind::Expire));
                    let open = watch.cursor().frontier.seq(&change.entry.author) < change.entry.seq;
                    self.inside = change.atomic && open;
                    let told = Told::from(&*change);
                    let lapses = told.kind == Kind::Expire && told.lapses(self.lineage.end());
                    add(&counts.lapses, u64::from(lapses));
                    Step::Told(told)
                }
                WatchEvent::CaughtUp => {
                    let lacks = self.lineage.is_told_anew() && covers_nothing(&watch.cursor());
                    add(&counts.lacking, u64::from(lacks));
                    Step::CaughtUp
                }
                WatchEvent::Progress if watch.lacks().is_empty() => Step::Progress,
                WatchEvent::Progress => {
                    add(&counts.waits, 1);
                    let missing = watch.lacks().to_vec();
                    Step::Behind { missing }
                }
                WatchEvent::Gap { .. } => {
                    add(&counts.gaps, 1);
                    Step::Gap
                }
                WatchEvent::Damaged { key, entry, .. } => {
                    add(&counts.unreadable, 1);
                    Step::Told(Told::unreadable(key, &entry))
                }
            },
            Ok(Some(Err(error))) => return self.over(error, counts),
            Ok(None) => return self.over(WatchError::Closed, counts),
            Err(_elapsed) => {
                self.note(Step::Silent);
                // Every later event would wait as long.
                live(&Truth::default(), &self.lineage).unwrap_or_else(|how| panic!("live: {how}"));
                return None;
            }
        };
        self.note(step.clone());
        Some(step)
    }

    fn over(&mut self, error: WatchError, counts: &Counts) -> Option<Step> {
        let step = match error {
            WatchError::Behind { missing } => {
                add(&counts.refused, 1);
                Step::Behind { missing }
            }
            WatchError::Closed => Step::Ended,
            error => Step::Broke(error.to_string()),
        };
        self.note(step);
        self.watch = None;
        None
    }

    /// Its replica ended: reads the remaining events until the watch reports the end.
    pub async fn until_over(&mut self, counts: &Counts) {
        let begun = std::time::Instant::now();
        while self.is_reading() {
            let told = self.next(counts).await;
            if begun.elapsed() > PATIENCE || told.is_none() && self.is_reading() {
                self.note(Step::Silent);
                self.watch = None;
            }
        }
    }

    /// Reads until its cursor covers `frontier`.
    pub async fn until_at(&mut self, frontier: &Frontier, expired_ms: u64, counts: &Counts) {
        let begun = std::time::Instant::now();
        let is_there = |cursor: &Cursor| {
            cursor.frontier == *frontier && cursor.expired_through_ms >= expired_ms
        };
        while !is_there(self.lineage.end()) && begun.elapsed() < PATIENCE {
            if self.next(counts).await.is_none() {
                return;
            }
        }
    }
}

/// Chooses the selection of a reader.
pub fn scope(random: &mut Random) -> Scope {
    Scope {
        prefix: ["", "", "/a/", "/in/", "/a/1", "/quiet/"][random.below(6)].into(),
        keys_only: random.once_in(4),
        latest: random.once_in(4),
    }
}

const HEARTBEAT: Duration = Duration::from_millis(2);
