//! Schedules that random ones seldom meet, each with the rule that it needs: without the rule it must
//! fail.

use std::collections::BTreeSet;

use super::{
    cases::author,
    world::{ALL, Rules, World},
};
use crate::{
    id::{Author, EntryId},
    protocol::membership::role::Role,
};

fn nodes<const N: usize>(names: [char; N]) -> [Author; N] {
    names.map(author)
}

/// A mesh in which W has written key `k`, and all have it.
fn fresh(rules: Rules) -> World {
    let mut world = World::new(7, rules);
    world.write(author('W'), b'k', true);
    for name in nodes(['A', 'B', 'C', 'X']) {
        world.sync(author('W'), name, 100);
    }
    world
}

/// Removes final entries everywhere, lets all meet, and compares.
fn finish(world: &mut World) -> Result<(), String> {
    for _ in 0..2 {
        world.prune_all();
        world.settle();
    }
    world.check()
}

/// X writes `k` before it has the delete of `k`, acknowledges the delete, and gives its own entry to
/// nobody until two anchors acts are out.
fn put_before_ack(rules: Rules) -> Result<(), String> {
    let mut world = fresh(rules);
    let [a, x] = nodes(['A', 'X']);
    let others = nodes(['B', 'C', 'W', 'X']);
    world.write(x, b'k', true);
    for _ in 0..12 {
        world.write(a, b'z', true);
    }
    world.write(a, b'k', false);
    for turn in 0..3 {
        for name in others {
            world.tell(a, name, None);
        }
        for name in others {
            world.tell_acks(name, a);
        }
        if turn == 1 {
            world.write(a, b'z', true);
            for name in others {
                world.tell(a, name, None);
                world.tell_acks(name, a);
            }
        }
        world.propose(a);
        world.write(a, b'z', true);
    }
    assert!(world.met[0] > 0, "acts were published");
    finish(&mut world)
}

#[test]
fn put_before_the_ack_of_a_delete_is_not_lost_and_revives_nothing() {
    assert_eq!(put_before_ack(ALL), Ok(()));
    let mutant = Rules {
        asks_own: false,
        ..ALL
    };
    assert!(put_before_ack(mutant).is_err());
}

/// B makes Y a writer; Y has an old state only, and writes `k`. A does not know Y and collects the
/// delete of `k`. `late`: B grants after the ack that A goes by.
fn new_writer(rules: Rules, late: bool) -> Result<(), String> {
    let mut world = fresh(rules);
    let [a, b, x, y] = nodes(['A', 'B', 'X', 'Y']);
    world.join(y);
    let old = world.ids(author('C'));
    let start = world.clock;
    let granted = |world: &mut World| {
        world.grant(b, y, Role::Writer);
        world.ack(y);
        let mut given = world.ids(b);
        given.retain(|id| !old.contains(id) && world.is_root(id));
        world.tell(b, y, Some(&given));
        world.tell(author('C'), y, Some(&old));
        // The clock of Y is late, so its entry is stamped before the delete.
        let now = std::mem::replace(&mut world.clock, start);
        world.write(y, b'k', true);
        world.clock = now;
    };
    if !late {
        granted(&mut world);
    }
    for _ in 0..12 {
        world.write(a, b'z', true);
    }
    world.write(a, b'k', false);
    let first = world.ids(a);
    for _ in 0..3 {
        world.write(a, b'z', true);
    }
    for name in nodes(['B', 'C', 'W']) {
        world.tell(a, name, None);
        world.tell_acks(name, a);
    }
    if late {
        granted(&mut world);
    }
    world.tell(a, x, Some(&first));
    world.tell_acks(x, a);
    world.propose(a);
    world.tell(a, x, None);
    world.tell_acks(x, a);
    world.propose(a);
    finish(&mut world)
}

#[test]
fn new_writer_that_an_admin_does_not_know_revives_nothing() {
    for late in [false, true] {
        assert_eq!(new_writer(ALL, late), Ok(()), "late={late}");
    }
    let mutant = Rules {
        grants_name_tips: false,
        ..ALL
    };
    assert!(new_writer(mutant, true).is_err());
}

/// A makes Y an admin; Y does not know the act of B and removes B, its junior. W removes final entries
/// by A's ack. `late`: A grants after it acknowledged the act.
fn new_admin(seed: u64, rules: Rules, late: bool) -> Result<(), String> {
    let mut world = World::new(seed, rules);
    let [a, b, w, y] = nodes(['A', 'B', 'W', 'Y']);
    world.write(w, b'k', true);
    for name in nodes(['A', 'B', 'C', 'X', 'A', 'B', 'C', 'X']) {
        world.sync(w, name, 100);
    }
    world.join(y);
    let stale = world.ids(a);
    if !late {
        world.grant(a, y, Role::Admin);
    }
    world.propose(b);
    let act: BTreeSet<EntryId> = world.ids(b).difference(&stale).copied().collect();
    for name in nodes(['A', 'C', 'W', 'X']) {
        world.tell(b, name, Some(&act));
    }
    if late {
        for name in nodes(['A', 'B', 'C']) {
            world.tell_acks(name, w);
        }
        world.grant(a, y, Role::Admin);
    }
    let given: BTreeSet<EntryId> = world.ids(a).difference(&act).copied().collect();
    world.tell(a, y, Some(&given));
    world.remove(y, b);
    if !late {
        world.tell_acks(a, w);
    }
    for name in nodes(['B', 'C']) {
        world.tell_acks(name, w);
    }
    world.prune(w);
    world.settle();
    let (removed, named) = (world.anchors(w).0, world.anchors(a).1);
    // The base of W follows from acts that count still.
    if removed
        .iter()
        .all(|(author, tip)| named.tips(&author).contains(&tip))
    {
        Ok(())
    } else {
        Err(format!("removed {removed:?} by a void act"))
    }
}

#[test]
fn no_entry_is_removed_by_an_act_that_a_new_admin_voids() {
    for late in [false, true] {
        for seed in 0..20 {
            assert_eq!(new_admin(seed, ALL, late), Ok(()), "late={late} {seed}");
        }
    }
    let unnamed = Rules {
        grants_name_tips: false,
        ..ALL
    };
    assert!((0..20).any(|seed| new_admin(seed, unnamed, true).is_err()));
    let unseen = Rules {
        waits_for_admins: false,
        ..ALL
    };
    assert!((0..20).any(|seed| new_admin(seed, unseen, false).is_err()));
}
