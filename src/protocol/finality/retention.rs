//! Retention: how much history a node keeps, and when a member is not waited for any more. Numbers in,
//! decisions out.

use crate::limits::SEGMENT_BYTES;

/// How much of its logs a node keeps. Sizes win over ages: a store never has much more than `bytes` of
/// final entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Final entries are kept for this long after they arrived, in ms.
    pub age_ms: u64,
    /// Bytes of logs of a store; when there are more, the oldest final entries go first.
    pub bytes: u64,
    /// Consumers that have not got final entries keep them for this long after they arrived, in ms, or
    /// up to a quarter of `bytes`.
    pub hold_ms: u64,
}

/// A place through which final entries can be removed: the anchors of one act, of all authors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropPoint {
    /// Arrival of the last of the entries here, in ms since 1970.
    pub arrived_ms: u64,
    /// Bytes of logs that are left without them.
    pub bytes_left: u64,
}

/// A consumer, or its dead letters, that may still need final entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerHold {
    /// Number of drop points, from the oldest one on, of which it needs nothing.
    pub done: usize,
    /// Arrival of the first entry that it needs, in ms since 1970.
    pub since_ms: u64,
    /// Bytes of logs from there on.
    pub bytes: u64,
}

/// The final entries that go, and what keeps others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dropping {
    /// Number of drop points through which entries go, from the oldest one on; 0 for none.
    pub points: usize,
    /// Holds that keep entries which would go, by index.
    pub held_by: Vec<usize>,
    /// Holds that count no more, because they are too old or too large, by index: their consumers
    /// get a gap if entries go.
    pub overdue: Vec<usize>,
}

impl Retention {
    /// Decides through which of `points` entries go, the oldest point first. `bytes` of logs are here.
    ///
    /// A clock that is ahead removes final entries early, and makes consumers that lag get a gap;
    /// nothing else. One that is behind keeps them, up to the sizes.
    pub fn dropping(
        &self,
        now_ms: u64,
        bytes: u64,
        points: &[DropPoint],
        holds: &[ConsumerHold],
    ) -> Dropping {
        let is_old = |point: &DropPoint| point.arrived_ms.saturating_add(self.age_ms) <= now_ms;
        let by_age = points.iter().take_while(|point| is_old(point)).count();
        let is_small = |point: &DropPoint| point.bytes_left <= self.bytes;
        let by_size = if bytes <= self.bytes {
            0
        } else {
            let smallest = points.iter().position(is_small);
            smallest.map_or(points.len(), |index| index.saturating_add(1))
        };
        let wanted = by_age.max(by_size);
        let mut dropping = Dropping {
            points: wanted,
            ..Dropping::default()
        };
        for (index, hold) in holds.iter().enumerate() {
            let is_old = hold.since_ms.saturating_add(self.hold_ms) <= now_ms;
            if hold.done >= wanted {
                continue;
            }
            if is_old || hold.bytes > self.bytes / 4 {
                dropping.overdue.push(index);
            } else {
                dropping.held_by.push(index);
                dropping.points = dropping.points.min(hold.done);
            }
        }
        dropping
    }
}

/// Settings of a store that are the same on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorePolicy {
    /// Entries are not made final before this age, in ms, while `final_bytes` allow it.
    pub final_after_ms: u64,
    /// Bytes of entries that are not final; when there are more, their age does not matter.
    pub final_bytes: u64,
    /// A member is not waited for when it made no progress for this many ms.
    pub dormant_after_ms: u64,
    /// A member is not waited for when it lacks more bytes of logs and made no progress for an hour, or
    /// lacks four times as many.
    pub dormant_bytes: u64,
}

/// An admin's knowledge of a member that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagging {
    /// Time at which an ack of it came to the admin that had more than those before, or everything; in
    /// ms since 1970, 0 for never.
    pub advanced_ms: u64,
    /// Time since which the admin runs and has reached some other member, in ms since 1970.
    pub listening_since_ms: u64,
    /// Bytes of logs that the admin has and the member lacks.
    pub bytes_behind: u64,
}

impl StorePolicy {
    /// Returns the time from which on stamps are too young to become final, in ms since 1970; `None`
    /// when that does not matter. `bytes` of entries are not final.
    pub fn before_ms(&self, now_ms: u64, bytes: u64) -> Option<u64> {
        (bytes <= self.final_bytes).then(|| now_ms.saturating_sub(self.final_after_ms))
    }

    /// Returns whether a member is dormant: it made no progress for long, or for an hour and is far
    /// behind, or is so far behind that logs would grow without end.
    ///
    /// A member that makes progress is waited for: else one writer could make all others dormant by
    /// writing faster than they take it in. Time in which the admin itself was off or alone does not
    /// count: else the first node that is switched on after a week would wait for nobody.
    pub fn is_dormant(&self, now_ms: u64, member: &Lagging) -> bool {
        let since_ms = member.advanced_ms.max(member.listening_since_ms);
        let is_stuck = |for_ms| since_ms.saturating_add(for_ms) <= now_ms;
        let is_behind = |times| member.bytes_behind > self.dormant_bytes.saturating_mul(times);
        is_stuck(self.dormant_after_ms) || (is_behind(1) && is_stuck(STUCK_MS)) || is_behind(4)
    }
}

/// Returns whether an admin publishes an act: `bytes` of entries can be made final, and the last act is
/// `since_ms` old.
pub fn is_act_due(bytes: u64, since_ms: u64) -> bool {
    bytes >= ACT_BYTES
        || (bytes >= ACT_BYTES / 4 && since_ms >= ACT_AFTER_MS)
        || (bytes >= ACT_BYTES / 64 && since_ms >= SMALL_ACT_AFTER_MS)
}

/// Returns whether an admin publishes an act only because it takes tombstones; the last act is `since_ms`
/// old.
pub fn is_collection_due(since_ms: u64) -> bool {
    since_ms >= SMALL_ACT_AFTER_MS
}

/// The disk has no room for a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{free_bytes} bytes are free on the disk, and the next base needs {needed_bytes} before old entries \
     are removed: free some space, or lower the size that is kept"
)]
pub struct NoRoom {
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes that must be free.
    pub needed_bytes: u64,
}

/// Checks that a base can be computed beside the one before, of `base_bytes`, which is removed last.
/// `new_bytes` of log entries come to it. A row takes up to twice the room of its op in the logs, but for
/// the smallest ones.
///
/// # Errors
/// `NoRoom`.
pub fn has_room(free_bytes: u64, base_bytes: u64, new_bytes: u64) -> Result<(), NoRoom> {
    let needed_bytes = base_bytes
        .saturating_add(new_bytes.saturating_mul(2))
        .saturating_add(SPARE_BYTES);
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(NoRoom {
        free_bytes,
        needed_bytes,
    })
}

// Room for a manifest, and for what is written to the logs and the state meanwhile.
const SPARE_BYTES: u64 = 4 << 20;
// Bytes of entries for which one act is worth it: an act takes some thousand bytes.
const ACT_BYTES: u64 = 2 * SEGMENT_BYTES;
const ACT_AFTER_MS: u64 = 600_000;
const SMALL_ACT_AFTER_MS: u64 = 86_400_000;
// Time without progress after which a member is taken to be off, in ms.
const STUCK_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const MIB: u64 = 1 << 20;
    const NOW_MS: u64 = 100 * DAY_MS;

    fn retention() -> Retention {
        Retention {
            age_ms: 30 * DAY_MS,
            bytes: 1000 * MIB,
            hold_ms: 7 * DAY_MS,
        }
    }

    // A point whose last entry came so many days ago.
    fn point(days: u64, mib_left: u64) -> DropPoint {
        DropPoint {
            arrived_ms: NOW_MS - days * DAY_MS,
            bytes_left: mib_left * MIB,
        }
    }

    fn hold(done: usize, days: u64, mib: u64) -> ConsumerHold {
        ConsumerHold {
            done,
            since_ms: NOW_MS - days * DAY_MS,
            bytes: mib * MIB,
        }
    }

    fn points(mib: u64, points: &[DropPoint]) -> usize {
        let dropping = retention().dropping(NOW_MS, mib * MIB, points, &[]);
        assert!(dropping.held_by.is_empty() && dropping.overdue.is_empty());
        dropping.points
    }

    #[test]
    fn old_entries_go_and_large_logs_shrink() {
        assert_eq!(points(5000, &[]), 0);
        let three = [point(40, 700), point(30, 400), point(29, 100)];
        assert_eq!(points(900, &three), 2);
        assert_eq!(points(900, &three[2..]), 0);
        // Size wins over age: as few points as are enough.
        let young = [point(3, 1500), point(2, 1000), point(1, 100)];
        assert_eq!(points(1000, &young), 0);
        assert_eq!(points(1001, &young), 2);
        // Even all of them may not be enough: the rest is not final.
        assert_eq!(points(9000, &young[..1]), 1);
    }

    #[test]
    fn consumers_hold_up_to_their_cap() {
        let four = [
            point(40, 400),
            point(39, 300),
            point(38, 200),
            point(37, 100),
        ];
        let drop = |holds: &[ConsumerHold]| retention().dropping(NOW_MS, 500 * MIB, &four, holds);
        assert_eq!(drop(&[hold(4, 90, 900)]).points, 4);
        let one = drop(&[hold(3, 6, 250), hold(1, 6, 250), hold(4, 90, 900)]);
        assert_eq!((one.points, one.held_by), (1, vec![0, 1]));
        for overdue in [hold(1, 7, 1), hold(1, 0, 251)] {
            let dropping = drop(&[overdue, hold(2, 0, 1)]);
            assert_eq!(dropping.points, 2);
            assert_eq!((dropping.held_by, dropping.overdue), (vec![1], vec![0]));
        }
        // A hold on entries that stay anyway is not overdue.
        let young = [point(1, 100)];
        let none = retention().dropping(NOW_MS, 500 * MIB, &young, &[hold(0, 50, 900)]);
        assert_eq!(none, Dropping::default());
    }

    #[test]
    fn sizes_bound_a_store_whatever_holds() {
        // All positions of three holds over five points of 300 MiB each, and all ages.
        let five: Vec<_> = (1..=5).map(|n| point(0, 1500 - 300 * n)).collect();
        for done in 0..=5_usize {
            for days in [0, 6, 8] {
                let since = 1500 - 300 * u64::try_from(done).unwrap();
                let holds = [hold(done, days, since), hold(5, 0, 0)];
                let dropping = retention().dropping(NOW_MS, 1500 * MIB, &five, &holds);
                assert_eq!(dropping.points, 2, "{done} {days}: 900 MiB are left");
            }
        }
    }

    #[test]
    fn wrong_clock_only_changes_when_history_goes() {
        let old = [point(40, 400)];
        let at = |now_ms| retention().dropping(now_ms, 500 * MIB, &old, &[]).points;
        assert_eq!((at(0), at(u64::MAX)), (0, 1));
        let far = Retention {
            age_ms: u64::MAX,
            bytes: u64::MAX,
            hold_ms: u64::MAX,
        };
        assert_eq!(far.dropping(NOW_MS, u64::MAX, &old, &[]).points, 0);
    }

    #[test]
    fn policy_decides_what_is_young_and_who_is_dormant() {
        let policy = StorePolicy {
            final_after_ms: DAY_MS,
            final_bytes: 256 * MIB,
            dormant_after_ms: 7 * DAY_MS,
            dormant_bytes: 1024 * MIB,
        };
        assert_eq!(policy.before_ms(NOW_MS, 256 * MIB), Some(99 * DAY_MS));
        assert_eq!(policy.before_ms(NOW_MS, 256 * MIB + 1), None);
        assert_eq!(policy.before_ms(5, 0), Some(0));
        let is_dormant = |advanced: u64, listening: u64, mib: u64| {
            let member = Lagging {
                advanced_ms: advanced * DAY_MS,
                listening_since_ms: listening * DAY_MS,
                bytes_behind: mib * MIB,
            };
            policy.is_dormant(NOW_MS, &member)
        };
        assert!(is_dormant(93, 50, 0));
        assert!(!is_dormant(94, 50, 0));
        assert!(!is_dormant(99, 50, 1024));
        assert!(is_dormant(99, 50, 1025));
        // It is behind because much was written at once.
        assert!(!is_dormant(100, 50, 4096));
        assert!(is_dormant(100, 50, 4097));
        // This node was off for a month and was reached by nobody since.
        assert!(!is_dormant(50, 100, 0));
        assert!(is_dormant(0, 93, 0));
        assert!(!policy.is_dormant(
            0,
            &Lagging {
                advanced_ms: NOW_MS,
                listening_since_ms: 0,
                bytes_behind: 0,
            }
        ));
    }

    #[test]
    fn acts_are_rare_and_bases_have_room() {
        for (mib, minutes, due) in [
            (64, 0, true),
            (63, 9, false),
            (16, 10, true),
            (15, 1000, false),
            (1, 1439, false),
            (1, 1440, true),
            (0, 100_000, false),
        ] {
            assert_eq!(
                is_act_due(mib * MIB, minutes * 60_000),
                due,
                "{mib} {minutes}"
            );
        }
        let needed_bytes = 164 * MIB;
        assert_eq!(has_room(needed_bytes, 100 * MIB, 30 * MIB), Ok(()));
        let free_bytes = needed_bytes - 1;
        let refused = NoRoom {
            free_bytes,
            needed_bytes,
        };
        assert_eq!(has_room(free_bytes, 100 * MIB, 30 * MIB), Err(refused));
        assert!(
            has_room(MIB, 0, 0).is_err(),
            "the first base takes some room, too"
        );
        assert!(has_room(u64::MAX - 1, u64::MAX / 2, u64::MAX).is_err());
    }
}
