//! Members that send messages in gossip that no honest node sends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use iroh_gossip::{
    api::{Event, GossipReceiver, GossipSender, JoinOptions},
    net::Gossip,
    proto::TopicId,
};
use lattice::{
    limits::STRIKES_MAX,
    protocol::{announce::Announce, frontier::FrontierHash, membership::genesis::Genesis},
    store::List,
    wire::{
        self,
        net::{self, gossip::Kind},
    },
};
use prost::Message as _;
use tokio::sync::Mutex;
use tokio_stream::StreamExt as _;

use super::*;

/// A client that knows the topic of the root store and sends messages in it.
pub struct Talk {
    gossip: Gossip,
    sender: GossipSender,
    receiver: Mutex<GossipReceiver>,
}

impl Talk {
    pub async fn new(field: &Field, raw: &Raw) -> Self {
        let root = field.a.node.root();
        let mut hasher = blake3::Hasher::new_derive_key("lattice/gossip topic/v1");
        hasher
            .update(&genesis(field).await.nonce)
            .update(&root.id().0);
        let topic = TopicId::from_bytes(*hasher.finalize().as_bytes());
        let gossip = Gossip::builder()
            .max_message_size(lattice::limits::GOSSIP_BYTES_MAX)
            .alpn(GOSSIP)
            .spawn(raw.endpoint.clone());
        let options = JoinOptions {
            bootstrap: [].into(),
            subscription_capacity: 2048,
        };
        let (sender, receiver) = gossip
            .subscribe_with_opts(topic, options)
            .await
            .unwrap()
            .split();
        Self {
            gossip,
            sender,
            receiver: Mutex::new(receiver),
        }
    }

    pub async fn join(&self, raw: &Raw, peer: &Peer) -> Connection {
        let connection = raw.connected(peer, GOSSIP).await;
        let id = iroh::EndpointId::from_bytes(&peer.node.id().0).unwrap();
        self.sender.join_peers(vec![id]).await.unwrap();
        // The connection may be closed already.
        drop(self.gossip.handle_connection(connection.clone()).await);
        connection
    }

    pub async fn hears_anything(&self) -> Event {
        self.receiver.lock().await.next().await.unwrap().unwrap()
    }

    pub async fn is_neighbour(&self) {
        let up = async { while !matches!(self.hears_anything().await, Event::NeighborUp(_)) {} };
        timeout(SOON, up).await.unwrap();
    }

    pub async fn say(&self, bytes: impl Into<Bytes>) {
        self.sender.broadcast(bytes.into()).await.unwrap();
    }
}

async fn genesis(field: &Field) -> Genesis {
    let root = field.a.node.root();
    let listed = root.list(List {
        prefix: "/stores/".into(),
        limit: None,
        keys_only: false,
    });
    let mut genesis = listed
        .await
        .unwrap()
        .into_iter()
        .filter_map(|item| Genesis::decode(&item.key, &item.value));
    genesis
        .find(|genesis| genesis.store() == root.id())
        .unwrap()
}

fn entry(bytes: Bytes) -> Vec<u8> {
    net::Gossip {
        kind: Some(Kind::Entry(bytes)),
    }
    .encode_to_vec()
}

/// A message with an ack.
pub fn ack(bytes: Bytes) -> Vec<u8> {
    net::Gossip {
        kind: Some(Kind::Ack(bytes)),
    }
    .encode_to_vec()
}

/// An announcement that `key` signs, of a frontier that no node has. It names `node`.
fn announce(key: &Key, node: &Author, store: StoreId, counter: u64, address: &str) -> Vec<u8> {
    let announce = Announce {
        node: key.author(),
        store,
        // Later than any that an honest node has made.
        incarnation: 1 << 60,
        counter,
        frontier: FrontierHash([4; 32]),
        direct: vec![address.to_owned()],
        relay: String::new(),
    };
    let mut signed = wire::SignedAnnounce::decode(announce.sign(&key.0)).unwrap();
    signed.node = Bytes::copy_from_slice(&node.0);
    net::Gossip {
        kind: Some(Kind::Announce(signed.encode_to_vec().into())),
    }
    .encode_to_vec()
}

/// Counts the syncs that the other side opens on `connection`, and refuses them.
fn count_syncs(connection: &Connection) -> Arc<AtomicUsize> {
    let (count, connection) = (Arc::new(AtomicUsize::new(0)), connection.clone());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            let mut kind = [0];
            if receive.read_exact(&mut kind).await.is_ok() && kind == [SYNC_STREAM] {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            drop(send.reset(404_u32.into()));
        }
    });
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_n2_malformed_gossip_is_a_strike_for_its_sender() {
    let field = Field::new().await;
    let (root, now_ms) = (field.a.node.root(), field.a.node.clock().now_ms());
    let raw = field.member(10, Role::Writer).await;
    let talk = Talk::new(&field, &raw).await;
    talk.join(&raw, &field.a).await;
    talk.is_neighbour().await;

    eprintln!("an entry that is in order");
    let chain = raw.key.chain(root.id(), now_ms, 2, "/honest");
    talk.say(entry(encoded(&chain[0]))).await;
    has(&root, "/honest", "forged 1").await;
    has(&field.b.node.root(), "/honest", "forged 1").await;

    let elsewhere = raw.key.chain(StoreId([7; 16]), now_ms, 1, "/forged");
    let mut bent = chain[1].signed.clone();
    bent.signature[5] ^= 1;
    let scripts = [
        ("N1 rubbish", vec![0xff; 100], "a malformed gossip message"),
        ("N1 nothing", vec![], "a malformed gossip message"),
        ("N1 an entry that is none", entry(vec![0xff; 90].into()), ""),
        ("N2 a bad signature", entry(bent.encode().into()), ""),
        (
            "B4 an entry of another store",
            entry(encoded(&elsewhere[0])),
            "belongs to store",
        ),
        (
            "B8 a small-order key",
            entry(small_order_forgery(&chain[1])),
            "",
        ),
    ];
    let mut strikes = 0;
    for (name, message, says) in scripts {
        eprintln!("{name}");
        talk.say(message).await;
        strikes += 1;
        struck(&field.a, &raw.author(), strikes, says).await;
        // It reached the other node through an honest one, which is not blamed for it.
        field.still_works().await;
        assert_eq!(root.get(b"/forged").await.unwrap(), None);
    }
    eprintln!("B5 an old entry again, in another frame");
    let before = root.frontier();
    let mut again = entry(encoded(&chain[0]));
    again.extend([0x78, 0x01]);
    talk.say(again).await;
    field.still_works().await;
    assert_eq!(
        root.frontier().tips(&raw.author()),
        before.tips(&raw.author())
    );
    assert_eq!(status_at(&field.a, &raw.author()).strikes, strikes);
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_flood_of_forgeries_shuts_the_forger_out() {
    let field = Field::new().await;
    let root = field.a.node.root();
    let raw = field.member(20, Role::Writer).await;
    let talk = Talk::new(&field, &raw).await;
    let connection = talk.join(&raw, &field.a).await;
    talk.is_neighbour().await;
    let chain = raw.key.chain(root.id(), 1, 200, "/forged");
    for forged in &chain {
        let mut forged = forged.signed.clone();
        forged.signature[5] ^= 1;
        drop(
            talk.sender
                .broadcast(entry(forged.encode().into()).into())
                .await,
        );
    }
    assert!(is(&ending(&connection).await, SHUT_OUT));
    let status = status_at(&field.a, &raw.author());
    assert!(status.strikes >= STRIKES_MAX, "{status:?}");
    assert!(status.shut_out.is_some(), "{status:?}");
    assert!(status.misbehaved.is_some(), "{status:?}");
    for alpn in [SYNC, GOSSIP] {
        assert!(is(&raw.refusal(&field.a, alpn).await, SHUT_OUT));
    }
    assert_eq!(root.get(b"/forged").await.unwrap(), None);
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_n3_entries_of_strangers_and_orphans_wait() {
    let field = Field::new().await;
    let (root, now_ms) = (field.a.node.root(), field.a.node.clock().now_ms());
    let raw = field.member(30, Role::Writer).await;
    let stranger = Key::new(31);
    let talk = Talk::new(&field, &raw).await;
    talk.join(&raw, &field.a).await;
    talk.is_neighbour().await;

    let strange = stranger.chain(root.id(), now_ms, 1, "/strange");
    talk.say(entry(encoded(&strange[0]))).await;
    let orphans = raw.key.chain(root.id(), now_ms, 100, "/orphan");
    for orphan in &orphans[1..] {
        talk.say(entry(encoded(orphan))).await;
    }
    let waiting = until("they wait", async || {
        let status = root.status().await;
        (status.pending_entries > 0).then_some(status)
    })
    .await;
    assert!(waiting.pending_entries < 100, "{waiting:?}");
    field.still_works().await;
    for store in [&root, &field.b.node.root()] {
        assert_eq!(store.get(b"/strange").await.unwrap(), None);
        assert_eq!(store.get(b"/orphan").await.unwrap(), None);
        assert!(store.frontier().tips(&stranger.author()).is_empty());
        assert!(store.frontier().tips(&raw.author()).is_empty());
    }
    assert_eq!(
        status_at(&field.a, &raw.author()).strikes,
        0,
        "who relays may not know"
    );
    // The missing entry comes, and the waiting one is applied: it was kept.
    talk.say(entry(encoded(&orphans[0]))).await;
    has(&root, "/orphan", "forged 100").await;
    let (secret, _expires_ms) = field.a.node.invite(Role::Writer, 60_000).await.unwrap();
    field
        .a
        .node
        .redeem(&secret, stranger.author())
        .await
        .unwrap();
    has(&root, "/strange", "forged 1").await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n13_false_addresses_do_not_keep_a_node_away() {
    let mut field = Field::new().await;
    let raw = field.member(40, Role::Writer).await;
    let talk = Talk::new(&field, &raw).await;
    talk.join(&raw, &field.a).await;
    talk.is_neighbour().await;
    let b = field.b.node.id();
    let before = status_at(&field.a, &b).addresses;
    assert!(!before.is_empty());
    let dir = field.b.stop().await;
    until("b is away", async || {
        (!status_at(&field.a, &b).online).then_some(())
    })
    .await;
    let liar = raw.endpoint.addr().ip_addrs().next().unwrap().to_string();
    let store = field.a.node.root().id();
    for nonce in 0_u8..50 {
        let nobody = Author([nonce; 32]);
        talk.say(announce(&raw.key, &nobody, store, nonce.into(), &liar))
            .await;
    }
    talk.say(announce(&raw.key, &b, store, 1, &liar)).await;
    struck(&field.a, &raw.author(), 1, "not signed by its node").await;
    // It may speak for itself.
    talk.say(announce(&raw.key, &raw.author(), store, 2, &liar))
        .await;
    // A dial to the liar cannot end well: it has not the key.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = status_at(&field.a, &b);
    assert_eq!((status.online, &status.addresses), (false, &before));
    field.b = Peer::at(dir, "b").await;
    field.still_works().await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_announcement_counts_for_its_signer_only_and_is_paced() {
    let field = Field::new().await;
    let store = field.a.node.root().id();
    let raw = field.member(41, Role::Reader).await;
    let victim = field.member(42, Role::Reader).await;
    let talk = Talk::new(&field, &raw).await;
    talk.join(&raw, &field.a).await;
    talk.is_neighbour().await;
    let connection = victim.connected(&field.a, SYNC).await;
    let syncs = count_syncs(&connection);
    let quiet = async || {
        // Syncs that the connection itself has caused.
        let mut last = usize::MAX;
        while last != syncs.load(Ordering::Relaxed) {
            last = syncs.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        last
    };
    let before = quiet().await;

    eprintln!("N2 in the name of another member, and of another store");
    let me = raw.author();
    for counter in 1..4 {
        talk.say(announce(
            &raw.key,
            &victim.author(),
            store,
            counter,
            "192.0.2.1:1",
        ))
        .await;
    }
    talk.say(announce(&raw.key, &me, StoreId([7; 16]), 9, "192.0.2.1:1"))
        .await;
    struck(&field.a, &me, 4, "another store").await;
    assert_eq!(quiet().await, before, "nobody else makes a node sync");

    eprintln!("N2 its own, which is the first one, and then the same one again");
    let own = announce(&victim.key, &victim.author(), store, 5, "192.0.2.1:1");
    talk.say(own.clone()).await;
    until("a sync", async || {
        (syncs.load(Ordering::Relaxed) > before).then_some(())
    })
    .await;
    let before = quiet().await;
    for frame in 0..20_u8 {
        let mut again = own.clone();
        again.extend([0x78, frame]);
        talk.say(again).await;
    }
    let early = announce(&victim.key, &victim.author(), store, 4, "192.0.2.1:1");
    talk.say(early).await;
    assert_eq!(quiet().await, before, "an old announcement says nothing");
    field.still_works().await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_flood_of_unknown_authors_does_not_keep_a_neighbour_from_syncing() {
    let field = Field::new().await;
    let (root, now_ms) = (field.a.node.root(), field.a.node.clock().now_ms());
    let raw = field.member(43, Role::Writer).await;
    let talk = Talk::new(&field, &raw).await;
    talk.join(&raw, &field.a).await;
    talk.is_neighbour().await;
    for number in 0..2000_u16 {
        let mut seed = [88; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let strange =
            Key(ed25519_dalek::SigningKey::from_bytes(&seed)).chain(root.id(), now_ms, 1, "/x");
        talk.say(entry(encoded(&strange[0]))).await;
        if number % 500 == 0 {
            field.still_works().await;
        }
    }
    field.still_works().await;
    assert_eq!(root.get(b"/x").await.unwrap(), None);
    assert_eq!(status_at(&field.a, &raw.author()).strikes, 0);
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_unreadable_gossip_frames_hurt_nobody() {
    let field = Field::new().await;
    let raw = field.member(50, Role::Writer).await;
    let frames: [(&str, Vec<u8>); 4] = [
        ("a length of 4 GiB", vec![0xff; 4]),
        (
            "a header of another kind",
            [vec![0, 0, 0, 40], vec![0xff; 40]].concat(),
        ),
        (
            "an unknown topic",
            [
                vec![0, 0, 0, 32],
                vec![7; 32],
                vec![0, 0, 0, 9],
                vec![0xff; 9],
            ]
            .concat(),
        ),
        ("nothing", vec![]),
    ];
    for (name, frame) in frames {
        eprintln!("N1 {name}");
        let connection = raw.connected(&field.a, GOSSIP).await;
        let mut send = connection.open_uni().await.unwrap();
        drop(send.write_all(&frame).await);
        drop(send.finish());
        field.still_works().await;
        connection.close(0_u32.into(), b"");
    }
    field.stop().await;
}
