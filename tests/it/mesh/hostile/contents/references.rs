//! References: parents that are false, missing or too many.

use super::*;

/// Parents that are not what the entry says, or are not there.
pub(super) fn references() -> Vec<Script> {
    let lie = |name, bend: fn(&mut Parent)| {
        script("B7", name, move |pen| {
            let mut cited = pen.facts.heads[b"/honest".as_slice()][0];
            bend(&mut cited);
            pen.write(
                |header| header.parents = vec![cited],
                vec![put("/lies", name)],
            );
        })
    };
    vec![
        lie("a_parent_with_another_seq", |it| it.seq += 1),
        lie("a_parent_with_another_stamp", |it| it.hlc.counter += 1),
        lie("a_parent_with_another_author", |it| {
            it.author = Author([8; 32])
        }),
        lie("a_parent_with_another_id", |it| it.id = EntryId([8; 32])),
        lie("a_parent_at_the_last_place", |it| it.seq = u64::MAX),
        script("B7", "its_own_entry_with_another_seq", |pen| {
            let mut cited = pen.put(vec![put("/lies", "own")]).as_parent();
            cited.seq = 9;
            pen.write(
                |header| header.parents = vec![cited],
                vec![put("/lies", "own 2")],
            );
        }),
        script("N3", "a_thousand_parents_of_strangers", |pen| {
            let strange = |number: u16| made_up(number, 1, Author([number.to_be_bytes()[1]; 32]));
            let parents = (1..=PARENTS).map(strange).collect();
            pen.write(
                |header| header.parents = parents,
                vec![put("/lies", "many")],
            );
        }),
        script("N3", "a_thousand_parents_of_the_creator", |pen| {
            let creator = pen.facts.nodes[0];
            let parents = (1..=PARENTS).map(|number| made_up(number, 1, creator));
            let parents = parents.collect();
            pen.write(
                |header| header.parents = parents,
                vec![put("/lies", "ghosts")],
            );
        }),
        script("N3", "a_predecessor_that_never_comes", |pen| {
            let ghost = |header: &mut Header| {
                (header.seq, header.prev) = (7, Some(EntryId([6; 32])));
            };
            pen.write(ghost, vec![put("/orphan", "x")]);
            pen.void.insert("/orphan".into());
        }),
        script("B6", "the_last_seq_of_all", |pen| {
            let last = |header: &mut Header| {
                (header.seq, header.prev) = (u64::MAX, Some(EntryId([6; 32])));
            };
            pen.write(last, vec![put("/orphan", "last")]);
        }),
        script("B6", "a_gap_in_its_seqs", |pen| {
            pen.put(vec![put("/gap", "one")]);
            pen.write(|header| header.seq = 5, vec![put("/gapped", "x")]);
            pen.void.insert("/gapped".into());
        }),
        script("B6", "the_log_of_somebody_else", |pen| {
            let other = pen.facts.heads[b"/honest".as_slice()][0];
            let after = |header: &mut Header| {
                (header.seq, header.prev) = (other.seq + 1, Some(other.id));
            };
            pen.write(after, vec![put("/stolen", "x")]);
            pen.void.insert("/stolen".into());
        }),
        script("B4", "an_entry_of_another_store", |pen| {
            pen.write(
                |header| header.store = StoreId([5; 16]),
                vec![put("/foreign", "x")],
            );
            pen.void.insert("/foreign".into());
        }),
    ]
}

// As many parents as an entry may have.
const PARENTS: u16 = 1024;
const _: () = assert!(PARENTS as usize == PARENTS_MAX);
