//! Floods: what a hostile log costs the nodes that get it, in figures.
//!
//! Run it alone, in a release build or as tests are built:
//!
//! ```text
//! cargo test --test it what_floods_cost -- --ignored --nocapture
//! ```
//! Each line is a flood that one writer has signed: its entries and bytes, then the p99 of a put before
//! and while it comes, on the node that gets it and on one that gets it from there, with their ratio,
//! and the peak memory of the process, which has all three nodes. `FLOOD=held` runs the floods with
//! that word in their names only. The goals are a ratio below 3, and 200 MiB for each node.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::*;

type Flood = (&'static str, fn(&mut Pen<'_>));

const FLOODS: [Flood; 11] = [
    ("6,000 heads of one key", |pen| {
        for _ in 0..6_000 {
            pen.put(vec![op("/hot", "x", None)]);
        }
    }),
    ("18,000 held entries", |pen| {
        let from_ms = pen.facts.now_ms + 2 * DRIFT_MS_MAX;
        for number in 0..18_000 {
            pen.write(stamped(from_ms + number, 0), vec![op("/held", "", None)]);
        }
    }),
    ("60 forks", |pen| forks(pen, 60)),
    ("150 forks", |pen| forks(pen, 150)),
    ("512 stores", |pen| {
        let me = pen.me();
        let ops = (0..512_u32).flat_map(|number| {
            let mut nonce = [9; 32];
            nonce[..4].copy_from_slice(&number.to_be_bytes());
            listing(&Genesis { creator: me, nonce }, "junk")
        });
        pen.put(ops.collect());
    }),
    ("60 odd tips", |pen| {
        pen.put(vec![op("/odd", "trunk", None)]);
        for number in 0..60 {
            pen.back_to(1);
            pen.put(vec![op(format!("/odd/{number}"), "x", None)]);
            pen.bend();
            let waits = made_up(number, 7, pen.facts.nodes[0]);
            pen.write(
                |header| header.parents = vec![waits],
                vec![op("/waits", "x", None)],
            );
        }
    }),
    ("1,000 names of others", |pen| {
        let kitchen = pen.facts.nodes[2];
        for number in 0..1_000 {
            let key = Bytes::from(format!("/nodes/{kitchen}/info"));
            let name = format!("{{\"name\":\"{number}\"}}");
            pen.seize(&key, op(key.clone(), name, None));
        }
    }),
    ("200 void acts of 1,000 parents", |pen| {
        let grant = pen.facts.heads.get(&role_key(&pen.me())).cloned();
        let fill: Vec<Parent> = (0..1_000)
            .map(|_| pen.put(vec![op("/fill", "", None)]).as_parent())
            .collect();
        for number in 0..200_u32 {
            let node = Author(*blake3::hash(&number.to_le_bytes()).as_bytes());
            let mut parents = grant.clone().unwrap_or_default();
            parents.extend(fill.iter().copied());
            parents.sort_unstable();
            let acts = vec![act(&node, &Act::Grant(Role::Reader))];
            pen.write(|header| header.parents = parents, acts);
        }
    }),
    ("8,000 void acts", |pen| {
        let grant = pen.facts.heads.get(&role_key(&pen.me())).cloned();
        for number in 0..8_000_u32 {
            let node = Author(*blake3::hash(&number.to_le_bytes()).as_bytes());
            let parents = grant.clone().unwrap_or_default();
            let acts = vec![act(&node, &Act::Grant(Role::Reader))];
            pen.write(|header| header.parents = parents, acts);
        }
    }),
    ("71,680 expiries of one ms", |pen| {
        let at_ms = pen.facts.now_ms + 15_000;
        for part in 0..70 {
            let values = (0..OPS_MAX).map(|number| {
                let key = format!("/expires/{part}/{number}");
                op(key, "x", Some(at_ms))
            });
            pen.put(values.collect());
        }
    }),
    ("100 entries of 1,000 absent parents", |pen| {
        for number in 0..100_u8 {
            let absent = (0..1_000_u16).map(|at| Parent {
                seq: u64::from(number) + 2,
                ..made_up(at, 2, Author([number; 32]))
            });
            let mut parents: Vec<Parent> = absent.collect();
            parents.sort_unstable();
            pen.write(
                |header| header.parents = parents,
                vec![op("/absent", "x", None)],
            );
        }
    }),
];

fn forks(pen: &mut Pen<'_>, count: usize) {
    pen.put(vec![op("/forked", "trunk", None)]);
    for number in 0..count {
        pen.back_to(1);
        pen.put(vec![op(format!("/forked/{number}"), "x", None)]);
    }
}

/// How long each put took.
async fn puts(peer: &Peer, goes_on: impl Fn(Instant, usize) -> bool) -> Vec<Duration> {
    let root = peer.node.root();
    let mut times = Vec::new();
    let began = Instant::now();
    while goes_on(began, times.len()) {
        let put = Instant::now();
        root.put("/own", times.len().to_string()).await.unwrap();
        times.push(put.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    times
}

fn ninety_nine_ms(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = (times.len() * 99 / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Peak of the process's memory since the last call of `forget_peak`, in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse::<u64>().unwrap() / 1024
}

fn forget_peak() {
    // Without the right to do so, the peak is that of the whole run.
    drop(fs::write("/proc/self/clear_refs", "5"));
}

async fn measure((name, write): Flood) {
    let peers = three().await;
    let mut known = facts(&peers).await;
    let me = Pen::new(&known, 0).me();
    admit(&peers[0], [me].into_iter()).await;
    known.heads = heads(&peers[0], &BTreeSet::new()).await;
    known.now_ms = peers[0].node.clock().now_ms();
    let mut pen = Pen::new(&known, 0);
    write(&mut pen);
    let (entries, bytes) = (
        pen.given.len(),
        pen.given.iter().map(Bytes::len).sum::<usize>(),
    );
    until("the third node knows the writer", async || {
        let all = peers
            .iter()
            .all(|peer| peer.node.members().role(&me).is_some());
        all.then_some(())
    })
    .await;
    let calm = |_, count| count < 500;
    let calm = tokio::join!(puts(&peers[0], calm), puts(&peers[2], calm));

    forget_peak();
    let given = peers[0].node.root();
    let giving = tokio::spawn({
        let parts: Vec<Vec<Bytes>> = pen.given.chunks(64).map(<[Bytes]>::to_vec).collect();
        async move {
            for part in parts {
                drop(given.ingest(part).await.unwrap());
            }
            given.settle().await;
        }
    });
    // The flood is over once nothing changes on both nodes.
    let roots = [peers[0].node.root(), peers[2].node.root()];
    let last_change = std::sync::Mutex::new(Instant::now());
    let look = async {
        let mut before = Vec::new();
        loop {
            let mut now = Vec::new();
            for root in &roots {
                let status = root.status().await;
                let tips = root.frontier().tips(&me).to_vec();
                now.push((tips, status.held_entries, status.pending_entries));
            }
            if now != before {
                before = now;
                *last_change.lock().unwrap() = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let is_expiring = name.contains("expiries");
    let goes_on = |began: Instant, count: usize| {
        let quiet = last_change.lock().unwrap().elapsed();
        let is_over = quiet > Duration::from_millis(500) && giving.is_finished() && count >= 500;
        let expires = is_expiring && began.elapsed() < Duration::from_secs(20);
        (!is_over || expires) && began.elapsed() < Duration::from_secs(120)
    };
    let during = async { tokio::join!(puts(&peers[0], goes_on), puts(&peers[2], goes_on)) };
    let during = tokio::select! {
        during = during => during,
        () = look => unreachable!("it looks for ever"),
    };
    let peak = peak_mib();
    giving.await.unwrap();
    print!(
        "{name:<36} {entries:>6} entries {:>8.1} KiB",
        bytes as f64 / 1024.0
    );
    for (node, calm, during) in [("at it", calm.0, during.0), ("relayed", calm.1, during.1)] {
        let (before, after) = (ninety_nine_ms(&calm), ninety_nine_ms(&during));
        let worst = during.iter().max().copied().unwrap_or_default();
        print!(
            "  {node}: calm {before:>6.2} ms, during {after:>7.2} ms of {:>5} puts (worst {:>7.2}), \
             ratio {:>5.2}",
            during.len(),
            worst.as_secs_f64() * 1e3,
            after / before,
        );
    }
    println!("  peak {peak:>4} MiB");
    drop(roots);
    for peer in peers {
        peer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures time and memory"]
async fn what_floods_cost() {
    let only = std::env::var("FLOOD").unwrap_or_default();
    for flood in FLOODS {
        if flood.0.contains(&only) {
            Box::pin(measure(flood)).await;
        }
    }
}
