//! The logs, given to three nodes.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn b1_b6_b7_b8_b9_m7_t3_hostile_logs_leave_three_nodes_equal() {
    let peers = three().await;
    let scripts = scripts();
    let mut known = facts(&peers).await;
    let authors = (0..scripts.len()).map(|number| Pen::new(&known, number).me());
    admit(&peers[0], authors.collect::<Vec<_>>().into_iter()).await;
    // With the grants that scripts cite.
    known.heads = heads(&peers[0], &BTreeSet::new()).await;
    let mut pens = Vec::new();
    for (number, script) in scripts.iter().enumerate() {
        let mut pen = Pen::new(&known, number);
        (script.write)(&mut pen);
        pens.push(pen);
    }
    let entries = pens.iter().flat_map(|pen| &pen.log);
    let ops = entries.flat_map(|entry| entry.ops.iter().take(16).map(|op| op.key().clone()));
    let mut keys: BTreeSet<Bytes> = ops.collect();
    keys.extend(pens.iter().flat_map(|pen| pen.void.iter().cloned()));
    let logs = scripts.iter().zip(&pens);
    let logs = logs.map(|(script, pen)| {
        let name = format!("{} {}", script.row, script.name);
        (name, pen.given.clone())
    });
    let mut peers = give(peers, logs).await;

    let check = async |peers: &[Peer], round: &str| {
        eprintln!("{round}");
        let now = equal(peers, &keys).await;
        for (script, pen) in scripts.iter().zip(&pens) {
            for key in &pen.void {
                // A key of two scripts is void for both.
                let before = known.heads.get(key);
                let by_pens = |head: &Parent| pens.iter().any(|pen| pen.me() == head.author);
                let after = now.get(key).filter(|heads| heads.iter().any(by_pens));
                let of_role = key.starts_with(b"/nodes/") && key.ends_with(b"/role");
                assert_eq!(after, None, "{}: {key:?} was {before:?}", script.name);
                assert!(
                    of_role || now.get(key) == before,
                    "{}: {key:?}",
                    script.name
                );
            }
            for (key, value) in &pen.holds {
                for peer in peers {
                    let item = peer.node.root().get(key).await.unwrap();
                    let read = item.map(|item| item.value);
                    assert!(read.as_ref() == Some(value), "{}: {key:?}", script.name);
                }
            }
        }
        all_write(peers, round).await;
    };
    check(&peers, "the attackers are gone").await;
    let members: Vec<_> = known.nodes.iter().collect();
    for peer in &peers {
        for (node, role) in members.iter().zip([Role::Admin, Role::Admin, Role::Writer]) {
            assert_eq!(peer.node.members().role(node), Some(role));
        }
    }
    // Everybody starts again, one after the other: a node is found where another one saw it last.
    for (at, name) in [(1, "b"), (2, "c"), (0, "a")] {
        let peer = peers.remove(at);
        let dir = peer.stop().await;
        peers.insert(at, Peer::at(dir, name).await);
        all_write(&peers, &format!("after a restart of {name}")).await;
    }
    check(&peers, "after a restart").await;
    for peer in peers {
        peer.stop().await;
    }
}

// A writer renames itself and others, makes them dormant, uses up invites and names stores. An admin
// that went by the names removed the wrong node.
#[tokio::test(flavor = "multi_thread")]
async fn m7_writer_renames_nobody_on_any_of_three_nodes() {
    let peers = three().await;
    let known = facts(&peers).await;
    let mut pen = Pen::new(&known, 0);
    admit(&peers[0], [pen.me()].into_iter()).await;
    let [creator, _, kitchen] = known.nodes;
    let key = |node: &Author, name: &str| Bytes::from(format!("/nodes/{node}/{name}"));
    let (me, other) = (
        pen.me(),
        Genesis {
            creator,
            nonce: [3; 32],
        },
    );
    let seized = [
        (key(&kitchen, "info"), "{\"name\":\"intruder\"}"),
        (key(&kitchen, "status"), "dormant"),
        (key(&creator, "status"), "dormant"),
        (known.invite.clone(), "used"),
        (Bytes::from(format!("/stores/{}/name", known.store)), "prod"),
        (
            Bytes::from(format!("/stores/{}/name", other.store())),
            "prod",
        ),
    ];
    for (key, value) in &seized {
        pen.seize(key, op(key.clone(), *value, None));
    }
    // All at once, and its own name, which it may choose.
    let heads = seized
        .iter()
        .flat_map(|(key, _)| known.heads.get(key))
        .flatten();
    let cited: BTreeSet<Parent> = heads.copied().collect();
    let mut ops: Vec<Op> = seized
        .iter()
        .map(|(key, value)| op(key.clone(), *value, None))
        .collect();
    ops.push(op(key(&me, "info"), "{\"name\":\"kitchen\"}", None));
    pen.write(|header| header.parents = cited.into_iter().collect(), ops);
    let keys: BTreeSet<Bytes> = seized.iter().map(|(key, _)| key.clone()).collect();
    let peers = give(peers, [("names".to_owned(), pen.given.clone())].into_iter()).await;
    let now = equal(&peers, &keys).await;
    for key in &keys {
        assert_eq!(now.get(key), known.heads.get(key), "{key:?}");
    }
    assert!(now.contains_key(&key(&me, "info")), "its own name counts");
    all_write(&peers, "still").await;
    // The invite is open, and whom the name meant is removed by its id only.
    peers[0].node.remove(&me).await.unwrap();
    assert_eq!(peers[0].node.members().role(&kitchen), Some(Role::Writer));
    for peer in peers {
        peer.stop().await;
    }
}

// Twenty forks of odd entries whose vouchers wait for ever: the nodes differed, and the honest ones
// shut each other out for passing them on.
#[tokio::test(flavor = "multi_thread")]
async fn b8_n2_twenty_odd_tips_split_nobody_of_three() {
    let peers = three().await;
    let known = facts(&peers).await;
    let odd = scripts()
        .into_iter()
        .find(|it| it.name == "twenty_odd_tips");
    let mut pen = Pen::new(&known, 0);
    admit(&peers[0], [pen.me()].into_iter()).await;
    (odd.unwrap().write)(&mut pen);
    let peers = give(
        peers,
        [("odd tips".to_owned(), pen.given.clone())].into_iter(),
    )
    .await;
    let keys = pen.void.clone();
    let now = equal(&peers, &keys).await;
    assert!(keys.iter().all(|key| !now.contains_key(key)));
    all_write(&peers, "still").await;
    // To a node that is there all the time, as a member relays them.
    let root = peers[1].node.root();
    drop(root.ingest(pen.given.clone()).await.unwrap());
    root.settle().await;
    all_write(&peers, "and again").await;
    equal(&peers, &keys).await;
    for peer in peers {
        peer.stop().await;
    }
}
