//! Strangers: keys of nobody who is a member. They get nothing and learn nothing.

use lattice::limits::{HELLO_BYTES_MAX, HELLOS_MAX, PEER_WINDOW_BYTES};
use lattice::wire::net::{HelloReply, HelloRequest};
use prost::Message as _;

use super::*;

/// Says `bytes` on the hello protocol and returns the answer, or how it was hung up.
pub async fn greet(raw: &Raw, peer: &Peer, bytes: &[u8]) -> Result<Vec<u8>, ConnectionError> {
    let connection = raw.connected(peer, HELLO).await;
    greet_on(&connection, bytes).await
}

async fn greet_on(connection: &Connection, bytes: &[u8]) -> Result<Vec<u8>, ConnectionError> {
    let asked = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        drop(send.write_all(bytes).await);
        drop(send.finish());
        match receive.read_to_end(64 << 10).await {
            Ok(answer) => Ok(answer),
            Err(_cut) => Err(connection.closed().await),
        }
    };
    let answer = timeout(SOON, asked).await.unwrap();
    connection.close(0_u32.into(), b"");
    answer
}

pub fn request(version: u32, store: StoreId, secret: &[u8]) -> Vec<u8> {
    let request = HelloRequest {
        version,
        store_id: Bytes::copy_from_slice(&store.0),
        secret: Bytes::copy_from_slice(secret),
        ..HelloRequest::default()
    };
    request.encode_to_vec()
}

/// The reason in a refusal without details.
pub fn refused(answer: &[u8]) -> (String, String) {
    let reply = HelloReply::decode(answer).unwrap();
    assert_eq!(
        (reply.creator.len(), reply.nonce.len(), reply.role.as_str()),
        (0, 0, "")
    );
    (reply.refused, reply.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_stranger_gets_one_constant_answer() {
    let field = Field::new().await;
    let stranger = field.stranger(10).await;
    let (a, store) = (&field.a, field.a.node.root().id());
    let (secret, _expires_ms) = field.b.node.invite(Role::Admin, 60_000).await.unwrap();
    has_invite_of_b(&field, &secret).await;

    eprintln!("M1 both protocols of members");
    for alpn in [SYNC, GOSSIP] {
        assert!(is(&stranger.refusal(a, alpn).await, NOT_A_MEMBER));
        assert!(is(&stranger.refusal(&field.b, alpn).await, NOT_A_MEMBER));
    }
    eprintln!("M1 streams on a refused connection");
    let connection = stranger.connected(a, SYNC).await;
    if let Some(mut line) = Line::open(&connection, SYNC_STREAM).await {
        line.say(hello(store)).await;
        assert_eq!(line.over().await, None);
    }
    eprintln!("M1 a protocol that there is not");
    assert!(stranger.connect(a, b"lattice/admin/1").await.is_none());
    assert!(stranger.connect(a, b"lattice/sync/2").await.is_none());

    eprintln!("M9 hellos without an invitation");
    let guess = [1; 32];
    let hellos = [
        ("rubbish", vec![0xff; 200]),
        ("a guess", request(1, store, &guess)),
        ("no secret", request(1, store, &[])),
        ("a short secret", request(1, store, &secret[..31])),
        ("another store", request(1, StoreId([9; 16]), &secret)),
        (
            "another store, a guess",
            request(1, StoreId([9; 16]), &guess),
        ),
        ("an invitation of another node", request(1, store, &secret)),
    ];
    let mut answers = std::collections::BTreeSet::new();
    for (name, hello) in hellos {
        let answer = greet(&stranger, a, &hello).await.unwrap();
        assert_eq!(refused(&answer).0, "not_invited", "{name}");
        answers.insert(answer);
    }
    eprintln!("M9 the same from a member");
    let member = field.member(11, Role::Reader).await;
    answers.insert(greet(&member, a, &request(1, store, &guess)).await.unwrap());
    assert_eq!(answers.len(), 1, "{answers:?}");

    eprintln!("M9 a hello of another version");
    let versions = [0, 2, u32::MAX].map(|version| request(version, store, &secret));
    for hello in versions.into_iter().chain([Vec::new()]) {
        let answer = greet(&stranger, a, &hello).await.unwrap();
        assert_eq!(refused(&answer).0, "version");
    }
    eprintln!("N1 a hello that is too long, or does not stop");
    for bytes in [HELLO_BYTES_MAX + 1, 1 << 20] {
        let ended = greet(&stranger, a, &vec![0; bytes]).await;
        assert!(ended.is_err(), "{ended:?}");
    }
    eprintln!("M1 a second question on one connection");
    let connection = stranger.connected(a, HELLO).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&request(1, store, &guess)).await.unwrap();
    send.finish().unwrap();
    receive.read_to_end(4096).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    drop(send.write_all(&request(1, store, &guess)).await);
    drop(send.finish());
    let second = timeout(Duration::from_secs(1), receive.read_to_end(4096)).await;
    assert!(!matches!(second, Ok(Ok(answer)) if !answer.is_empty()));
    connection.close(0_u32.into(), b"");

    let known = field.a.node.members();
    assert!(known.get(&stranger.author()).is_none());
    field.stop().await;
}

async fn has_invite_of_b(field: &Field, secret: &[u8; 32]) {
    let key = lattice::protocol::membership::invite::Invite::key(secret);
    until("the invite of b is known to a", async || {
        field.a.node.root().get(&key).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m2_stranger_on_the_topic_hears_nothing() {
    let field = Field::new().await;
    let stranger = field.stranger(20).await;
    let spy = gossip::Talk::new(&field, &stranger).await;
    for peer in [&field.a, &field.b] {
        spy.join(&stranger, peer).await;
    }
    field.still_works().await;
    field
        .a
        .node
        .root()
        .put("/secret", "of members")
        .await
        .unwrap();
    has(&field.b.node.root(), "/secret", "of members").await;
    let heard = timeout(Duration::from_secs(2), spy.hears_anything()).await;
    assert!(heard.is_err(), "{heard:?}");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n7_silent_strangers_do_not_block_a_joiner() {
    let field = Field::new().await;
    let stranger = field.stranger(30).await;
    let mut silent = Vec::new();
    for _ in 0..3 * HELLOS_MAX {
        let connection = stranger.connected(&field.a, HELLO).await;
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&[8]).await.unwrap();
        silent.push((connection, send, receive));
    }
    // Those that came first are hung up, so that there are never more than a few.
    for (connection, ..) in &silent[..2 * HELLOS_MAX] {
        assert!(is(&ending(connection).await, BUSY));
    }
    let c = Peer::new("c").await;
    c.join(&field.a, Role::Writer).await;
    c.node.root().put("/from", "c").await.unwrap();
    has(&field.b.node.root(), "/from", "c").await;
    c.stop().await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n7_flood_of_silent_strangers_does_not_keep_joiners_out() {
    let field = Field::new().await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let flood = async |number: u8| {
        let stranger = field.stranger(number).await;
        let mut silent = VecDeque::new();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            silent.push_back(stranger.connect(&field.a, HELLO).await);
            if silent.len() > 64 {
                silent.pop_front();
            }
        }
    };
    let joins = async {
        for name in ["c", "d", "e"] {
            let joiner = Peer::new(name).await;
            let began = std::time::Instant::now();
            joiner.join(&field.a, Role::Writer).await;
            println!("{name} has joined after {:?}", began.elapsed());
            joiner.stop().await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(flood(31), flood(32), flood(33), flood(34), joins);
    field.stop().await;
}

// Hellos that are whole, one after the other on many connections, each with a secret that is wrong:
// all that a stranger can make the node look at. Honest joiners get their turn.
#[tokio::test(flavor = "multi_thread")]
async fn m10_n7_n8_flood_of_hellos_does_not_keep_joiners_out() {
    let field = Field::new().await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let said = std::sync::atomic::AtomicU32::new(0);
    let hello = request(1, field.a.node.root().id(), &[7; 32]);
    let flood = async |number: u8| {
        let stranger = field.stranger(number).await;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let connection = stranger.connect(&field.a, HELLO).await;
            let Some(connection) = connection else {
                continue;
            };
            let answer = timeout(SOON, greet_on(&connection, &hello)).await;
            if matches!(answer, Ok(Ok(_))) {
                said.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    };
    let joined = async |name: &str| {
        let joiner = Peer::new(name).await;
        let began = std::time::Instant::now();
        joiner.join(&field.a, Role::Writer).await;
        let said = said.load(std::sync::atomic::Ordering::Relaxed);
        let took = began.elapsed();
        println!("{name} has joined after {took:?}, {said} hellos of strangers were refused");
        joiner.stop().await;
    };
    joined("calm").await;
    // Twice as many as are answered at a time, and one.
    let floods = async {
        tokio::join!(
            flood(50),
            flood(51),
            flood(52),
            flood(53),
            flood(54),
            flood(55),
            flood(56),
            flood(57),
            flood(58)
        )
    };
    let joins = async {
        for name in ["c", "d", "e"] {
            joined(name).await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(floods, joins);
    assert!(said.into_inner() > 0, "the flood was answered");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n8_stranger_cannot_fill_buffers() {
    let field = Field::new().await;
    let stranger = field.stranger(40).await;
    let connection = stranger.connected(&field.a, HELLO).await;
    let mut sent = 0_u64;
    let flood = async {
        let mut streams = Vec::new();
        loop {
            let mut send = connection.open_uni().await.unwrap();
            // Less than a stream may hold, so that only their number counts.
            for _ in 0..16 {
                send.write_all(&[0; 64 << 10]).await.unwrap();
                sent += 64 << 10;
            }
            streams.push(send);
        }
    };
    assert!(
        timeout(Duration::from_secs(3), flood).await.is_err(),
        "there is no end"
    );
    assert!(sent > 0);
    assert!(
        sent <= u64::from(PEER_WINDOW_BYTES),
        "{sent} bytes were taken"
    );
    field.still_works().await;
    connection.close(0_u32.into(), b"");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n12_unknown_datagrams_are_not_amplified() {
    let field = Field::new().await;
    let node = *field.a.net.addresses().unwrap().direct.first().unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // First packets of QUIC: of its version 1, of one that there is not, and noise.
    let first = |version: [u8; 4]| {
        let mut packet = vec![0xc0];
        packet.extend(version);
        packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x90]);
        packet.resize(1200, 7);
        packet
    };
    let kinds = [first([0, 0, 0, 1]), first([0xfa; 4]), vec![0x40; 1200]];
    let mut sent = 0;
    for packet in kinds.iter().cycle().take(300) {
        sent += socket.send_to(packet, node).await.unwrap();
    }
    let (mut answered, mut packet) = (0, [0; 2048]);
    while let Ok(came) = timeout(Duration::from_secs(1), socket.recv(&mut packet)).await {
        answered += came.unwrap();
    }
    assert!(answered <= sent, "{answered} bytes for {sent}");
    field.stop().await;
}
