//! Members that open too many connections or streams, or that are too slow.

use lattice::{
    limits::{PEER_CONNECTIONS_ALL_MAX, PEER_CONNECTIONS_MAX, PEER_STREAMS_MAX, PEER_SYNCS_MAX},
    net::Addresses,
    protocol::frontier::MissingRange,
};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn n8_one_peer_has_bounded_connections_and_streams() {
    let field = Field::new().await;
    let raw = field.member(10, Role::Writer).await;
    let (a, store) = (&field.a, field.a.node.root().id());
    until("no connection is left", async || {
        (!status_at(a, &raw.author()).online).then_some(())
    })
    .await;

    eprintln!("N8 connections");
    let mut connections = Vec::new();
    for _ in 0..PEER_CONNECTIONS_MAX {
        let connection = raw.connected(a, SYNC).await;
        Line::sync(&connection, store).await;
        connections.push(connection);
    }
    assert!(is(&raw.refusal(a, SYNC).await, BUSY));
    field.still_works().await;

    eprintln!("N8 syncs");
    let mut lines = Vec::new();
    until("the syncs from before are over", async || {
        let mut line = Line::open(&connections[0], SYNC_STREAM).await?;
        line.say(hello(store)).await;
        let answer = line.next().await;
        line.send.reset(0_u32.into()).ok()?;
        answer.map(|_tips| ())
    })
    .await;
    for connection in &connections {
        for _ in 0..2 {
            let mut line = Line::open(connection, SYNC_STREAM).await.unwrap();
            line.say(hello(store)).await;
            lines.push(line);
        }
    }
    let mut served = 0;
    for line in &mut lines {
        served += usize::from(timeout(SOON, line.next()).await.unwrap().is_some());
    }
    assert!((1..=PEER_SYNCS_MAX).contains(&served), "{served}");
    field.still_works().await;

    eprintln!("N8 streams");
    let mut silent = Vec::new();
    let open = async {
        loop {
            silent.push(Line::open(&connections[1], STATUS_STREAM).await.unwrap());
        }
    };
    assert!(
        timeout(Duration::from_secs(1), open).await.is_err(),
        "there is no end"
    );
    assert!(
        silent.len() <= PEER_STREAMS_MAX as usize,
        "{}",
        silent.len()
    );
    field.still_works().await;

    eprintln!("N8 connections on all protocols");
    let mut others = Vec::new();
    for _ in 0..2 * PEER_CONNECTIONS_ALL_MAX {
        others.push(raw.connected(a, GOSSIP).await);
    }
    let last = others.last().unwrap();
    assert!(is(&ending(last).await, BUSY));
    let open = others
        .iter()
        .filter(|connection| connection.close_reason().is_none());
    assert!(open.count() + connections.len() <= PEER_CONNECTIONS_ALL_MAX);
    assert_eq!(
        status_at(a, &raw.author()).strikes,
        0,
        "an accident looks the same"
    );
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n7_slow_peer_slows_nobody() {
    let field = Field::new().await;
    let raw = field.member(20, Role::Reader).await;
    let root = field.a.node.root();
    for number in 0..12 {
        let value = vec![7_u8; 1 << 20];
        root.put(format!("/large/{number}"), value).await.unwrap();
    }
    let host = field.a.node.id();
    let at = root.frontier().tips(&host)[0];
    let connection = raw.connected(&field.a, SYNC).await;

    eprintln!("N7 asks for everything and reads nothing");
    let mut deaf = Vec::new();
    for _ in 0..2 {
        let mut line = Line::sync(&connection, root.id()).await;
        line.say(tips(&[])).await;
        line.say(Message::Want {
            ranges: vec![MissingRange {
                author: host,
                after: 0,
                through: at.seq,
                tip: at.id,
            }],
            last: true,
        })
        .await;
        deaf.push(line);
    }
    field.still_works().await;

    eprintln!("N7 writes a byte at a time");
    let mut slow = Line::sync(&connection, root.id()).await;
    let frame = tips(&[(host, at)]).encode();
    for byte in &frame[..20] {
        slow.raw(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    field.still_works().await;

    eprintln!("N7 is there, and answers nothing");
    root.put("/news", "for everybody").await.unwrap();
    let mute = field.member(21, Role::Reader).await;
    let unanswered = mute.connected(&field.a, SYNC).await;
    let (node, known) = (mute.author(), Addresses::default());
    field.a.net.connect(&node, known).await.unwrap();
    let (_send, mut receive) = timeout(SOON, unanswered.accept_bi())
        .await
        .unwrap()
        .unwrap();
    let mut kind = [0];
    receive.read_exact(&mut kind).await.unwrap();
    field.still_works().await;

    eprintln!("N7 goes away with everything open");
    drop((deaf, slow));
    connection.close(0_u32.into(), b"");
    until("it is away", async || {
        (!status_at(&field.a, &raw.author()).online).then_some(())
    })
    .await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n8_storm_of_connections_slows_nobody() {
    let field = Field::new().await;
    let raw = field.member(30, Role::Writer).await;
    let storm = async {
        for round in 0..150 {
            let alpn = [SYNC, GOSSIP, HELLO][round % 3];
            if let Some(connection) = raw.connect(&field.a, alpn).await {
                drop(Line::open(&connection, SYNC_STREAM).await);
                connection.close(0_u32.into(), b"");
            }
        }
    };
    let honest = async {
        for _ in 0..5 {
            field.still_works().await;
        }
    };
    tokio::join!(storm, honest);
    field.stop().await;
}
