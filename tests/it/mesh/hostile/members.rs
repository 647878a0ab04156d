//! Members that were removed or shut out, that want more than their role, or that relay strangers.

use lattice::{
    limits::{SHUT_OUT_MIN, STRIKES_MAX},
    protocol::membership::role::{Act, Tips, role_key},
};

use super::{gossip::Talk, *};

/// True when `peer` answers `raw` on the sync protocol.
async fn is_served(raw: &Raw, peer: &Peer) -> Option<Connection> {
    let connection = raw.connect(peer, SYNC).await?;
    let mut line = Line::open(&connection, SYNC_STREAM).await?;
    line.say(hello(peer.node.root().id())).await;
    line.next().await.map(|_tips| connection)
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_removed_member_is_cut_off_everywhere() {
    let field = Field::new().await;
    let (a, b) = (&field.a, &field.b);
    let (root, now_ms) = (a.node.root(), a.node.clock().now_ms());
    let raw = field.member(10, Role::Admin).await;
    let relay = field.member(11, Role::Writer).await;
    let chain = raw.key.chain(root.id(), now_ms, 2, "/removed");
    let connection = is_served(&raw, a).await.unwrap();
    offer(&connection, root.id(), &chain[..1]).await;
    has(&b.node.root(), "/removed", "forged 1").await;
    let talk = Talk::new(&field, &raw).await;
    let live = [
        connection,
        talk.join(&raw, a).await,
        until("b serves it, too", async || is_served(&raw, b).await).await,
        talk.join(&raw, b).await,
    ];
    let open = live
        .iter()
        .filter(|connection| connection.close_reason().is_none());
    assert_eq!(open.count(), live.len());

    a.node.remove(&raw.author()).await.unwrap();
    for connection in &live {
        assert!(is(&ending(connection).await, NOT_A_MEMBER));
    }
    let stranger = field.stranger(12).await;
    for peer in [a, b] {
        for alpn in [SYNC, GOSSIP] {
            let answer = raw.refusal(peer, alpn).await;
            assert_eq!(answer, stranger.refusal(peer, alpn).await);
        }
    }
    // Messages that were on their way during the removal.
    let quiet = Duration::from_millis(500);
    while timeout(quiet, talk.hears_anything()).await.is_ok() {}
    let heard = timeout(2 * quiet, talk.hears_anything());
    let (heard, ()) = tokio::join!(heard, field.still_works());
    assert!(heard.is_err(), "it still hears what is written: {heard:?}");

    eprintln!("M4 what it wrote later, from somebody else");
    let connection = is_served(&relay, a).await.unwrap();
    offer(&connection, root.id(), &chain[1..]).await;
    field.still_works().await;
    for store in [root, b.node.root()] {
        let item = store.get(b"/removed").await.unwrap().unwrap();
        assert_eq!(item.value, "forged 1");
        assert_eq!(store.frontier().seq(&raw.author()), 1);
    }
    assert_eq!(
        status_at(a, &relay.author()).strikes,
        0,
        "who relays may not know"
    );
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_member_gets_only_its_role() {
    let field = Field::new().await;
    let (a, b) = (&field.a, &field.b);
    let (root, now_ms) = (a.node.root(), a.node.clock().now_ms());
    let writer = field.member(20, Role::Writer).await;
    let reader = field.member(21, Role::Reader).await;
    let friend = Key::new(22).author();
    let acts = |node: &Author, act: Act| Op::Put {
        key: role_key(node),
        value: act.encode(),
        expires_ms: None,
    };
    let no_tips = || Tips::new([]).unwrap();
    let scripts = [
        (
            "a writer makes itself admin",
            &writer,
            acts(&writer.author(), Act::Grant(Role::Admin)),
        ),
        (
            "a writer lets in a friend",
            &writer,
            acts(&friend, Act::Grant(Role::Writer)),
        ),
        (
            "a writer removes an admin",
            &writer,
            acts(&b.node.id(), Act::Remove(no_tips())),
        ),
        (
            "a writer removes the founder",
            &writer,
            acts(&a.node.id(), Act::Remove(no_tips())),
        ),
        (
            "a reader makes itself writer",
            &reader,
            acts(&reader.author(), Act::Grant(Role::Writer)),
        ),
        (
            "a reader writes",
            &reader,
            crate::support::model::put("/read", "only"),
        ),
    ];
    let roles = |peer: &Peer| {
        let members = peer.node.members();
        [
            a.node.id(),
            b.node.id(),
            writer.author(),
            reader.author(),
            friend,
        ]
        .map(|node| members.role(&node))
    };
    let before = roles(a);
    let (mut seq, mut prev) = (0, None);
    for (name, by, op) in scripts {
        eprintln!("M7 {name}");
        let is_first = by.author() != writer.author();
        let place = if is_first { (1, None) } else { (seq + 1, prev) };
        let entry = by.key.sign(root.id(), place, now_ms + place.0, vec![op]);
        if !is_first {
            (seq, prev) = (entry.header.seq, Some(entry.id));
        }
        let connection = is_served(by, a).await.unwrap();
        offer(&connection, root.id(), &[entry]).await;
        field.still_works().await;
        assert_eq!(roles(a), before);
        assert_eq!(roles(b), before);
    }
    // They came, and count for nothing.
    assert_eq!(root.frontier().seq(&writer.author()), seq);
    assert_eq!(root.frontier().seq(&reader.author()), 0);
    assert_eq!(root.get(b"/read").await.unwrap(), None);
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_relayed_stranger_waits_until_admitted() {
    let field = Field::new().await;
    let (root, now_ms) = (field.a.node.root(), field.a.node.clock().now_ms());
    let relay = field.member(30, Role::Writer).await;
    let stranger = Key::new(31);
    let chain = stranger.chain(root.id(), now_ms, 20, "/strange");
    let connection = is_served(&relay, &field.a).await.unwrap();
    assert_eq!(
        offer(&connection, root.id(), &chain).await,
        Some(Message::Done)
    );
    field.still_works().await;
    for store in [&root, &field.b.node.root()] {
        assert_eq!(store.get(b"/strange").await.unwrap(), None);
        assert!(store.frontier().tips(&stranger.author()).is_empty());
    }
    assert_eq!(status_at(&field.a, &relay.author()).strikes, 0);
    let (secret, _expires_ms) = field.a.node.invite(Role::Writer, 60_000).await.unwrap();
    field
        .a
        .node
        .redeem(&secret, stranger.author())
        .await
        .unwrap();
    for store in [&root, &field.b.node.root()] {
        has(store, "/strange", "forged 20").await;
    }
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_peer_is_shut_out_longer_each_time() {
    let field = Field::new().await;
    let raw = field.member(40, Role::Writer).await;
    let me = raw.author();
    let misbehave = async || {
        let connection = until("it is served", async || is_served(&raw, &field.a).await).await;
        let gossip = raw.connected(&field.a, GOSSIP).await;
        for _ in 0..STRIKES_MAX {
            let mut line = Line::open(&connection, 99).await.unwrap();
            drop(line.send.finish());
        }
        assert!(is(&ending(&connection).await, SHUT_OUT));
        assert!(is(&ending(&gossip).await, SHUT_OUT), "on every protocol");
        let status = status_at(&field.a, &me);
        assert!(!status.online);
        (status.strikes, status.shut_out.unwrap())
    };
    let (strikes, wait) = misbehave().await;
    assert_eq!(strikes, STRIKES_MAX);
    assert!(wait <= SHUT_OUT_MIN && wait > SHUT_OUT_MIN / 2, "{wait:?}");
    for alpn in [SYNC, GOSSIP] {
        assert!(is(&raw.refusal(&field.a, alpn).await, SHUT_OUT));
    }
    // The node does not dial it either. What it dialled before is hung up.
    let dialled = async || {
        let incoming = timeout(Duration::from_secs(1), raw.endpoint.accept()).await;
        incoming.is_ok()
    };
    while dialled().await {}
    let addresses = lattice::net::Addresses {
        direct: raw.endpoint.addr().ip_addrs().copied().collect(),
        relay: None,
    };
    field.a.net.connect(&me, addresses).await.unwrap();
    assert!(!dialled().await, "it was dialled");
    field.still_works().await;
    until("it is let in again", async || {
        status_at(&field.a, &me).shut_out.is_none().then_some(())
    })
    .await;
    let (strikes, wait) = misbehave().await;
    assert_eq!(strikes, 2 * STRIKES_MAX);
    assert!(wait > SHUT_OUT_MIN, "{wait:?}");
    field.stop().await;
}
