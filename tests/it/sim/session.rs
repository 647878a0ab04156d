//! Single sessions: two nodes with random histories, forks old and young, a cut at every message.

use std::collections::BTreeSet;

use lattice::{
    id::{Author, EntryId},
    protocol::frontier::{Frontier, FrontierTip},
};

use crate::{
    sim::{
        counters::Counters,
        is_one_seed,
        link::{Link, sync},
        node::Node,
    },
    support::{
        model::put,
        random::{Random, for_each_seed},
    },
};

const NOW_MS: u64 = 1_800_000_000_000;

fn nodes(count: u8) -> Vec<Node> {
    (1..=count)
        .map(|secret| Node::new([secret; 32], NOW_MS))
        .collect()
}

fn write(node: &mut Node, random: &mut Random) {
    let key = ["/a", "/b", "/c"][random.below(3)];
    node.write(vec![put(key, &random.bits().to_string())]);
}

fn ids(node: &Node) -> BTreeSet<EntryId> {
    node.replica.entries.keys().copied().collect()
}

/// Four nodes that write, sync, and now and then go back to a backup. No gossip: nothing waits.
fn random_histories(random: &mut Random) -> Vec<Node> {
    let mut nodes = nodes(4);
    let mut counters = Counters::default();
    for _step in 0..40 {
        let at = random.below(4);
        match random.below(16) {
            0..=1 => {
                let other = (at + 1 + random.below(3)) % 4;
                sync([at, other], &mut nodes, random, &mut counters);
            }
            2 => nodes[at].back_up(),
            3 => nodes[at].restore(&mut counters),
            _ => write(&mut nodes[at], random),
        }
    }
    nodes
}

#[test]
fn any_two_histories_are_equal_after_one_session_and_nothing_is_sent_in_vain() {
    let (mut exact, mut asked_again) = (0, 0);
    for_each_seed(1..=300, |random| {
        let mut nodes = random_histories(random);
        let [one, other] = [&nodes[0], &nodes[1]].map(ids);
        let lacked = [
            other.difference(&one).count(),
            one.difference(&other).count(),
        ];
        let (_, summaries) = sync([0, 1], &mut nodes, random, &mut Counters::default());
        let all: BTreeSet<_> = one.union(&other).copied().collect();
        for (node, (lacked, summary)) in nodes.iter().zip(lacked.into_iter().zip(summaries)) {
            assert_eq!(ids(node), all);
            assert_eq!((summary.lacking, summary.refused, summary.newer), (0, 0, 0));
            node.assert_sound();
            if node.replica.frontier.len() == node.replica.frontier.authors() {
                assert_eq!(summary.received, lacked as u64);
                exact += 1;
            }
            asked_again += usize::from(summary.wants > 1);
        }
        assert_eq!(nodes[0].heads(), nodes[1].heads());
        let (bytes, summaries) = sync([1, 0], &mut nodes, random, &mut Counters::default());
        assert!(summaries.iter().all(|summary| summary.same));
        assert!(bytes < 1024, "{bytes} bytes to see that all is equal");
    });
    assert!(
        is_one_seed() || (exact > 50 && asked_again > 20),
        "{exact} exact, {asked_again} asked again"
    );
}

// A node wrote on, told one peer, and went back to an old backup of its disk; then it wrote on.
#[test]
fn b2_a_fork_costs_what_lies_behind_it_however_long_the_log_is() {
    for_each_seed(1..=12, |random| {
        let mut nodes = nodes(3);
        let mut counters = Counters::default();
        for _shared in 0..600 {
            write(&mut nodes[0], random);
        }
        nodes[0].back_up();
        let lost = 1 + random.below(100);
        for _lost in 0..lost {
            write(&mut nodes[0], random);
        }
        sync([0, 1], &mut nodes, random, &mut counters);
        // What was lost is cited elsewhere.
        write(&mut nodes[1], random);
        nodes[0].restore(&mut counters);
        let again = 1 + random.below(100);
        for _again in 0..again {
            write(&mut nodes[0], random);
        }
        // Somebody who lacks the end of the shared part as well.
        sync([0, 2], &mut nodes, random, &mut counters);
        let opener = random.below(2);
        let (_, summaries) = sync([opener, 1 - opener], &mut nodes, random, &mut counters);
        assert_eq!(ids(&nodes[0]), ids(&nodes[1]));
        assert_eq!(nodes[0].heads(), nodes[1].heads());
        assert!(nodes[0].has_forked());
        let sent: u64 = summaries.iter().map(|summary| summary.sent).sum();
        let behind = u64::try_from(lost + again).unwrap();
        assert!(
            sent <= 4 * (behind + 64),
            "{sent} sent for {behind} behind the fork"
        );
        // From now on each knows a tip of each branch: writing on costs what was written, also
        // where the shorter branch grows past the longer.
        let more = lost.saturating_sub(again) + 1;
        for _more in 0..more {
            write(&mut nodes[0], random);
        }
        let (_, summaries) = sync([0, 1], &mut nodes, random, &mut counters);
        assert_eq!(summaries.map(|summary| summary.sent), [more as u64, 0]);
    });
}

#[test]
fn n6_a_session_cut_at_any_message_goes_on_where_it_was_in_the_next() {
    let mut cut_midway = 0;
    for_each_seed(1..=20, |random| {
        let seed = random.bits();
        for ticks in 0.. {
            let mut nodes = random_histories(&mut Random::new(seed));
            let [one, other] = [&nodes[0], &nodes[1]].map(ids);
            let all: BTreeSet<_> = one.union(&other).copied().collect();
            let mut counters = Counters::default();
            let mut link = Link::open([0, 1], &nodes, 0, 0).served(&nodes);
            for now in 0..ticks {
                link.tick(now, &mut nodes, random, &mut counters);
                if link.outcome().is_some() {
                    break;
                }
            }
            let had = nodes[..2].iter().map(|node| ids(node).len()).sum::<usize>();
            cut_midway += usize::from(link.has_begun() && had < 2 * all.len());
            let is_complete = link.outcome().is_some();
            drop(link);
            let (_, summaries) = sync([0, 1], &mut nodes, random, &mut counters);
            assert!(
                nodes[..2].iter().all(|node| ids(node) == all),
                "cut after {ticks} ticks"
            );
            let received = summaries
                .iter()
                .map(|summary| summary.received)
                .sum::<u64>();
            let frontier = &nodes[0].replica.frontier;
            if frontier.len() == frontier.authors() {
                assert_eq!(
                    received,
                    (2 * all.len() - had) as u64,
                    "nothing comes twice"
                );
            }
            if is_complete {
                break;
            }
        }
    });
    assert!(
        is_one_seed() || cut_midway > 20,
        "{cut_midway} cuts in the middle"
    );
}

// Runs one session that is cut after some ticks, or to its end.
fn sync_or_cut(
    between: [usize; 2],
    nodes: &mut [Node],
    random: &mut Random,
    counters: &mut Counters,
) {
    let ticks = if random.once_in(2) {
        random.bits() % 60
    } else {
        2000
    };
    let mut link = Link::open(between, nodes, 0, 0).served(nodes);
    for now in 0..ticks {
        link.tick(now, nodes, random, counters);
        if link.outcome().is_some() {
            return;
        }
    }
}

// The last entries that all of the first `count` nodes have, of authors of which they have any.
fn anchors(nodes: &[Node]) -> Frontier {
    let mut anchors = nodes[0].replica.frontier.clone();
    for node in nodes {
        let frontier = &node.replica.frontier;
        let least = |(author, tip): (Author, FrontierTip)| {
            let other = frontier.tips(&author).first()?;
            Some((author, if other.seq < tip.seq { *other } else { tip }))
        };
        anchors = anchors.iter().filter_map(least).collect();
    }
    anchors
}

/// E5: some nodes are away for a long time and write; the others remove what they all have. Whoever
/// returns takes a base, and nothing is lost on either side, whatever is cut.
#[test]
fn nodes_that_were_away_return_and_nothing_is_lost() {
    let mut total = Counters::default();
    for_each_seed(1..=100, |random| {
        let mut nodes = nodes(5);
        let (active, mut written) = (3, BTreeSet::new());
        let mut counters = Counters::default();
        for _step in 0..80 {
            let at = random.below(5);
            match random.below(12) {
                0..=3 => {
                    let one = random.below(active);
                    let other = (one + 1 + random.below(active - 1)) % active;
                    sync_or_cut([one, other], &mut nodes, random, &mut counters);
                }
                4 => {
                    let anchors = anchors(&nodes[..active]);
                    nodes[random.below(active)].prune(anchors);
                }
                5 if random.once_in(4) => {
                    // One that was away meets an active one, or one that was away, too.
                    let away = active + random.below(2);
                    let other = (away + 1 + random.below(4)) % 5;
                    let between = if random.once_in(2) {
                        [away, other]
                    } else {
                        [other, away]
                    };
                    sync_or_cut(between, &mut nodes, random, &mut counters);
                }
                _ => {
                    write(&mut nodes[at], random);
                    written.extend(ids(&nodes[at]));
                }
            }
        }
        for _round in 0..6 {
            for one in 0..5 {
                for other in (0..5).filter(|other| *other != one) {
                    sync([one, other], &mut nodes, random, &mut counters);
                }
            }
        }
        for node in &nodes {
            assert_eq!(ids(node), written);
            assert_eq!(node.heads(), nodes[0].heads());
            assert_eq!(node.root(), nodes[0].root());
            node.assert_sound();
        }
        let (_, summaries) = sync([0, 1], &mut nodes, random, &mut counters);
        assert!(summaries.iter().all(|summary| summary.same));
        total.parts += counters.parts;
        total.bases += counters.bases;
    });
    assert!(
        is_one_seed() || (total.parts > 250 && total.bases > 50),
        "{} parts of {} bases",
        total.parts,
        total.bases
    );
}
