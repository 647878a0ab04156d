//! Waiting: how long an admin has waited for each member, and which ones it waits for no more.
//!
//! Only time counts in which the admin ran and heard of other members: it is added up from look to look,
//! so no wall clock matters. It is not kept over a restart.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Author, StoreId},
    protocol::{
        finality::{Lagging, StorePolicy},
        frontier::FrontierHash,
    },
};

/// How far members have come, as of the looks so far.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    // Time in which other members were heard of, in ms. It is the clock of the times below.
    heard_ms: u64,
    // For this long, in ms, the next looks count without news of anybody.
    quiet_ms: u64,
    members: BTreeMap<(StoreId, Author), Progress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    used: Option<(u64, u64)>,
    has: FrontierHash,
    bytes_behind: u64,
    advanced_ms: u64,
    // Whether an ack has come in one of the looks: what was read from disk at the start is not news.
    is_fresh: bool,
}

/// A member in one store, as of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The member.
    pub node: Author,
    /// Start and number of its last ack that was used; `None` if there was none.
    pub used: Option<(u64, u64)>,
    /// Hash of the entries that it is known to have.
    pub has: FrontierHash,
    /// Bytes of logs that this node has and the member lacks; 1 if it has never acknowledged anything and
    /// there are any.
    pub bytes_behind: u64,
}

impl Waiting {
    /// Adds a look at all members but the own node, in all stores. `elapsed_ms` have passed since the look
    /// before.
    pub fn look(&mut self, elapsed_ms: u64, seen: &[(StoreId, Seen)]) {
        let has_news = seen.iter().any(|(store, seen)| {
            let known = self.members.get(&(*store, seen.node));
            seen.used.is_some() && known.is_some_and(|known| known.used != seen.used)
        });
        if has_news {
            self.quiet_ms = QUIET_MS;
        }
        let counted_ms = elapsed_ms.min(self.quiet_ms);
        self.quiet_ms = self.quiet_ms.saturating_sub(counted_ms);
        self.heard_ms = self.heard_ms.saturating_add(counted_ms);
        let now_ms = self.heard_ms;
        let all: BTreeSet<_> = seen
            .iter()
            .map(|(store, seen)| (*store, seen.node))
            .collect();
        self.members.retain(|place, _| all.contains(place));
        for (store, seen) in seen {
            let Seen {
                node,
                used,
                has,
                bytes_behind,
            } = *seen;
            let known = self.members.get(&(*store, node)).copied();
            let has_acked = known.is_some_and(|known| known.used != used);
            // Only new entries are progress; another ack alone is not.
            let is_stuck = |known: &Progress| bytes_behind > 0 && known.has == has;
            let advanced_ms = known
                .filter(is_stuck)
                .map_or(now_ms, |known| known.advanced_ms);
            let progress = Progress {
                used,
                has,
                bytes_behind,
                advanced_ms,
                is_fresh: has_acked || known.is_some_and(|known| known.is_fresh),
            };
            self.members.insert((*store, node), progress);
        }
    }

    /// Returns the members that are dormant by the policies of the stores: in one of them at least. A store
    /// without a policy is left out.
    pub fn dormant(&self, policies: &BTreeMap<StoreId, StorePolicy>) -> BTreeSet<Author> {
        let is_dormant = |((store, _node), progress): &(&(StoreId, Author), &Progress)| {
            let lagging = Lagging {
                advanced_ms: progress.advanced_ms,
                listening_since_ms: 0,
                bytes_behind: progress.bytes_behind,
            };
            policies
                .get(store)
                .is_some_and(|policy| policy.is_dormant(self.heard_ms, &lagging))
        };
        let dormant = self.members.iter().filter(is_dormant);
        dormant.map(|((_store, node), _)| *node).collect()
    }

    /// Returns the members that have come back: they have acknowledged something since these looks began,
    /// and lack less than `bytes` in every store.
    pub fn back(&self, bytes: u64) -> BTreeSet<Author> {
        let mut back: BTreeSet<Author> = self.members.keys().map(|(_store, node)| *node).collect();
        let mut fresh = BTreeSet::new();
        for ((_store, node), progress) in &self.members {
            if progress.bytes_behind >= bytes || progress.used.is_none() {
                back.remove(node);
            }
            if progress.is_fresh {
                fresh.insert(*node);
            }
        }
        back.intersection(&fresh).copied().collect()
    }
}

// After the last ack of anybody, time counts for this long, in ms: longer than quiet members take between
// two acks.
const QUIET_MS: u64 = 1_800_000;

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([1; 16]);
    const GONE: Author = Author([7; 32]);
    const HERE: Author = Author([8; 32]);
    const MIB: u64 = 1 << 20;
    const MINUTE: u64 = 60_000;

    fn seen(node: Author, ack: u64, mib_behind: u64) -> (StoreId, Seen) {
        let seen = Seen {
            node,
            used: (ack > 0).then_some((1, ack)),
            has: FrontierHash([u8::try_from(ack % 250).unwrap(); 32]),
            bytes_behind: mib_behind * MIB,
        };
        (STORE, seen)
    }

    fn dormant(waiting: &Waiting) -> Vec<Author> {
        let policy = StorePolicy {
            final_after_ms: 0,
            final_bytes: 0,
            dormant_after_ms: 7 * 86_400_000,
            dormant_bytes: 1024 * MIB,
        };
        let dormant = waiting.dormant(&BTreeMap::from([(STORE, policy)]));
        dormant.into_iter().collect()
    }

    // Looks once a minute; `here`: whether another member sends acks meanwhile.
    fn pass(waiting: &mut Waiting, minutes: u64, here: bool, mib_behind: u64) {
        for minute in 1..=minutes {
            let ack = if here { minute } else { 1 };
            waiting.look(MINUTE, &[seen(GONE, 1, mib_behind), seen(HERE, ack, 0)]);
        }
    }

    #[test]
    fn member_that_is_gone_is_dormant_after_a_week_in_which_others_were_heard() {
        let mut waiting = Waiting::default();
        pass(&mut waiting, 1, true, 1);
        pass(&mut waiting, 7 * 1440 - 1, true, 1);
        assert_eq!(dormant(&waiting), []);
        pass(&mut waiting, 3, true, 1);
        assert_eq!(dormant(&waiting), [GONE]);
        // It has come back.
        waiting.look(MINUTE, &[seen(GONE, 2, 0), seen(HERE, 5, 0)]);
        assert_eq!(dormant(&waiting), []);
        assert!(waiting.back(MIB).contains(&GONE));
    }

    #[test]
    fn time_alone_or_off_does_not_count() {
        let mut waiting = Waiting::default();
        pass(&mut waiting, 60, true, 1);
        // Half an hour of it counts.
        pass(&mut waiting, 30 * 1440, false, 1);
        assert_eq!(dormant(&waiting), []);
        // A machine that slept for a year looks once.
        waiting.look(31_536_000_000, &[seen(GONE, 1, 1), seen(HERE, 77, 0)]);
        assert_eq!(dormant(&waiting), []);
        // One that lacks very much is not waited for in any case.
        waiting.look(MINUTE, &[seen(GONE, 1, 4097), seen(HERE, 77, 0)]);
        assert_eq!(dormant(&waiting), [GONE]);
    }

    #[test]
    fn member_that_lacks_much_is_dormant_after_an_hour_without_progress() {
        let mut waiting = Waiting::default();
        pass(&mut waiting, 61, true, 1025);
        assert_eq!(dormant(&waiting), [GONE]);
        // Progress, however slow.
        let mut waiting = Waiting::default();
        for minute in 1..=200 {
            let slow = seen(GONE, 1 + minute / 50, 1025 + minute);
            waiting.look(MINUTE, &[slow, seen(HERE, minute, 0)]);
            assert_eq!(dormant(&waiting), [], "{minute}");
        }
        // Acks without new entries are none.
        let mut waiting = Waiting::default();
        for minute in 1..=62 {
            let mut stuck = seen(GONE, minute, 1025);
            stuck.1.has = FrontierHash([0; 32]);
            waiting.look(MINUTE, &[stuck]);
        }
        assert_eq!(dormant(&waiting), [GONE]);
    }

    #[test]
    fn member_that_was_removed_is_forgotten() {
        let mut waiting = Waiting::default();
        pass(&mut waiting, 62, true, 1025);
        assert_eq!(dormant(&waiting), [GONE]);
        waiting.look(MINUTE, &[seen(HERE, 99, 0)]);
        assert_eq!(dormant(&waiting), []);
    }

    #[test]
    fn nobody_is_back_by_an_ack_of_before() {
        let mut waiting = Waiting::default();
        pass(&mut waiting, 3, true, 0);
        assert_eq!(waiting.back(MIB), BTreeSet::from([HERE]));
        waiting.look(MINUTE, &[seen(GONE, 2, 1), seen(HERE, 9, 0)]);
        assert_eq!(waiting.back(MIB), BTreeSet::from([HERE]), "it lacks a MiB");
        // Nor is one of which nothing is known in one of the stores.
        let other = (StoreId([2; 16]), seen(HERE, 0, 0).1);
        waiting.look(MINUTE, &[seen(HERE, 10, 0), other]);
        assert_eq!(waiting.back(MIB), BTreeSet::new());
    }
}
