//! Members that sign acks, or send statuses, that no honest node makes.

use lattice::{
    limits::SEQ_MAX,
    protocol::{
        ack::{Ack, AckedState},
        frontier::Frontier,
    },
    wire::net,
};
use prost::Message as _;

use super::{
    super::roots::{diverges, vouched},
    gossip::{Talk, ack},
    *,
};

/// An ack of `raw` in the root store of the field.
fn signed(raw: &Raw, store: StoreId, counter: u64, frontier: Frontier) -> Bytes {
    let ack = Ack {
        node: raw.author(),
        store,
        incarnation: 1,
        counter,
        is_part: false,
        frontier,
        state: None,
        root_frontier: None,
    };
    ack.sign(&raw.key.0)
}

/// Sends a status to `peer` and returns its answer; empty if it refuses.
async fn send_status(connection: &Connection, acks: Vec<Bytes>) -> Vec<u8> {
    send_with_relayed(connection, acks, Vec::new()).await
}

async fn send_with_relayed(
    connection: &Connection,
    acks: Vec<Bytes>,
    relayed_acks: Vec<Bytes>,
) -> Vec<u8> {
    let status = net::Status {
        now_ms: 1,
        addresses: None,
        acks,
        relayed_acks,
    };
    let mut line = Line::open(connection, STATUS_STREAM).await.unwrap();
    line.raw(&status.encode_to_vec()).await;
    drop(line.send.finish());
    let answer = timeout(SOON, line.receive.read_to_end(1 << 20)).await;
    answer.unwrap().unwrap_or_default()
}

/// A frontier with `tips` made-up tips of `author` at `seq`.
fn far(author: Author, seq: u64, tips: u8) -> Frontier {
    let tip = |id| FrontierTip {
        seq,
        id: EntryId([id; 32]),
    };
    (1..=tips).map(|id| (author, tip(id))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn n5_ack_of_places_that_no_log_has_stops_no_status() {
    let field = Field::new().await;
    let (root, a) = (field.a.node.root(), field.a.node.id());
    let raw = field.member(10, Role::Reader).await;
    let talk = Talk::new(&field, &raw).await;
    talk.join(&raw, &field.a).await;
    talk.is_neighbour().await;
    let connection = raw.connected(&field.a, SYNC).await;

    eprintln!("N5 the last places of all, in gossip and in a status");
    talk.say(ack(signed(&raw, root.id(), 1, far(a, u64::MAX - 1, 2))))
        .await;
    struck(&field.a, &raw.author(), 1, "ack").await;
    let acks = vec![signed(&raw, root.id(), 2, far(a, u64::MAX, 200))];
    send_status(&connection, acks).await;
    struck(&field.a, &raw.author(), 2, "ack").await;
    assert_eq!(status_at(&field.a, &raw.author()).ahead, None);

    eprintln!("N5 the last place that a log may have");
    let data = field.a.node.data().id();
    let acks = vec![
        signed(&raw, root.id(), 3, far(a, SEQ_MAX, 200)),
        signed(&raw, data, 1, Frontier::default()),
    ];
    send_status(&connection, acks).await;
    let ahead = status_at(&field.a, &raw.author()).ahead;
    assert_eq!(ahead, Some(200 * SEQ_MAX));
    let tip = root.frontier().tips(&a)[0];
    let waiting = field.a.net.wait_for(&root, &a, tip, 2);
    timeout(SOON, waiting).await.unwrap();
    let who = field.a.net.who_has(&root, &a, tip);
    assert!(!who.contains(&raw.author()), "made-up tips show nothing");
    assert_eq!(status_at(&field.a, &raw.author()).strikes, 2);

    eprintln!("N5 authors that nobody knows");
    let strange = far(Author([9; 32]), 7, 200);
    send_status(&connection, vec![signed(&raw, root.id(), 4, strange)]).await;
    assert_eq!(status_at(&field.a, &raw.author()).ahead, Some(0));
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_status_full_of_bad_acks_is_one_strike() {
    let field = Field::new().await;
    let root = field.a.node.root();
    let raw = field.member(20, Role::Reader).await;
    let connection = raw.connected(&field.a, SYNC).await;
    let mut forged = signed(&raw, root.id(), 1, Frontier::default()).to_vec();
    // In the signature.
    forged[60] ^= 1;
    let scripts = [
        (
            "empty acks",
            vec![Bytes::new(); 500_000],
            "a malformed status",
        ),
        (
            "rubbish",
            vec![Bytes::from(vec![0xff; 96]); 10_000],
            "a malformed ack",
        ),
        (
            "forgeries",
            vec![forged.into(); 5000],
            "not signed by its node",
        ),
    ];
    for (strikes, (name, acks, says)) in (1..).zip(scripts) {
        eprintln!("N2 {name}");
        send_status(&connection, acks).await;
        struck(&field.a, &raw.author(), strikes, says).await;
        field.still_works().await;
    }
    eprintln!("N2 the same ack a thousand times, and those of others");
    let own = signed(&raw, root.id(), 2, Frontier::default());
    let other = Raw::new(21).await;
    let mut acks = vec![own; 1000];
    acks.extend(vec![
        signed(&other, root.id(), 2, Frontier::default());
        1000
    ]);
    let answer = send_status(&connection, acks).await;
    assert!(net::Status::decode(answer.as_slice()).is_ok_and(|it| it.now_ms > 0));
    assert_eq!(status_at(&field.a, &raw.author()).strikes, 3);

    eprintln!("N8 sixteen at a time, again and again");
    let began = std::time::Instant::now();
    let storm = (0..48).map(|_| send_status(&connection, Vec::new()));
    let answers = futures_join(storm).await;
    assert!(answers.iter().all(|answer| !answer.is_empty()));
    assert!(
        began.elapsed() > Duration::from_secs(4),
        "statuses are paced"
    );
    field.stop().await;
}

/// A member passes on acks of others: what they have not signed is its fault, and what is old, of a stranger
/// or of an unknown store shows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn n2_acks_that_a_member_passes_on_are_checked_as_those_of_their_nodes() {
    let field = Field::new().await;
    let (root, a) = (field.a.node.root(), field.a.node.id());
    let raw = field.member(20, Role::Writer).await;
    let other = field.member(21, Role::Writer).await;
    let stranger = Raw::new(22).await;
    let connection = raw.connected(&field.a, SYNC).await;
    let relay = async |acks: Vec<Bytes>| {
        let answer = send_with_relayed(&connection, Vec::new(), acks).await;
        net::Status::decode(answer.as_slice()).unwrap_or_default()
    };
    let ahead = || status_at(&field.a, &other.author()).ahead;
    let of = |counter, seq| signed(&other, root.id(), counter, far(a, seq, 1));
    let mut forged = of(9, 9000).to_vec();
    // In the signature, which is before the key.
    let at = forged.len() - 60;
    forged[at] ^= 1;
    eprintln!("N2 forgeries, and rubbish");
    relay(vec![forged.into(); 5000]).await;
    struck(&field.a, &raw.author(), 1, "not signed by it").await;
    relay(vec![Bytes::from(vec![0xff; 96]); 1000]).await;
    struck(&field.a, &raw.author(), 2, "a malformed ack").await;
    relay(vec![Bytes::new(); 500_000]).await;
    struck(&field.a, &raw.author(), 3, "a malformed status").await;
    assert_eq!(ahead(), None);

    eprintln!("N2 strangers, unknown stores, own ones");
    let mut acks = vec![
        signed(&stranger, root.id(), 1, far(a, 7000, 1)),
        signed(&other, StoreId([9; 16]), 1, far(a, 7000, 1)),
        signed(&raw, root.id(), 1, far(a, 7000, 1)),
    ];
    relay(acks.clone()).await;
    assert_eq!(ahead(), None);
    assert_eq!(status_at(&field.a, &raw.author()).ahead, None);
    acks.push(of(5, 5000));
    // Nothing is said of a member before it has acknowledged every store.
    let data = field.a.node.data().id();
    acks.push(signed(&other, data, 1, Frontier::default()));
    relay(acks).await;
    let known = ahead().expect("the ack that was passed on");
    assert!(known > 4000, "{known}");
    eprintln!("N2 an older one, and its node is not passed it back");
    relay(vec![of(4, 9000)]).await;
    assert_eq!(ahead(), Some(known));
    assert_eq!(status_at(&field.a, &raw.author()).strikes, 3);

    eprintln!("N2 a member that is removed");
    let connection = other.connected(&field.a, SYNC).await;
    let passed = |answer: Vec<u8>, of: &Raw| {
        let status = net::Status::decode(answer.as_slice()).unwrap();
        let acks = status.relayed_acks.into_iter();
        let acks = acks.map(|ack| Ack::open(ack).unwrap());
        acks.filter(|ack| ack.node == of.author()).count()
    };
    let own = signed(&raw, root.id(), 8, Frontier::default());
    let first = raw.connected(&field.a, SYNC).await;
    send_status(&first, vec![own]).await;
    let answer = send_status(&connection, Vec::new()).await;
    assert_eq!(
        (passed(answer.clone(), &raw), passed(answer, &other)),
        (1, 0)
    );
    field.still_works().await;
    field.stop().await;
}

/// Waits for all of `futures` side by side.
async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        running.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn put_is_acknowledged_at_once_among_three_hundred_authors() {
    let field = Field::new().await;
    let (a, b) = (&field.a.node, &field.b.node);
    let (root, now_ms) = (a.root(), a.clock().now_ms());
    let raw = field.member(30, Role::Writer).await;
    let mut entries_of_all = Vec::new();
    for number in 0..300_u16 {
        let mut seed = [77; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let key = Key(ed25519_dalek::SigningKey::from_bytes(&seed));
        let (secret, _expires_ms) = a.invite(Role::Writer, 60_000).await.unwrap();
        a.redeem(&secret, key.author()).await.unwrap();
        entries_of_all.extend(key.chain(root.id(), now_ms, 1, "/crowd"));
    }
    entries_of_all.sort_by_key(|entry| entry.order());
    let connection = raw.connected(&field.a, SYNC).await;
    let mut line = Line::sync(&connection, root.id()).await;
    let mut all: Vec<_> = entries_of_all.iter().map(tip).collect();
    all.sort();
    line.say(tips(&all)).await;
    line.hear("Want").await;
    line.say(entries(&entries_of_all)).await;
    line.say(Message::Sent).await;
    line.say(Message::Done).await;
    line.over().await;
    until("b has all of them", async || {
        (b.root().frontier().authors() > 300).then_some(())
    })
    .await;
    for round in 0..5 {
        let written = root.put("/waits", round.to_string()).await.unwrap();
        let tip = FrontierTip {
            seq: written.seq,
            id: written.entry,
        };
        let began = std::time::Instant::now();
        let node = a.id();
        let waiting = field.a.net.wait_for(&root, &node, tip, 2);
        timeout(Duration::from_secs(5), waiting).await.unwrap();
        eprintln!("round {round}: {:?}", began.elapsed());
    }
    field.stop().await;
}

/// A member that signs a false root is named, and costs the others nothing else; with its next honest
/// ack the alarm is gone.
#[tokio::test(flavor = "multi_thread")]
async fn r4_false_root_names_its_signer_only() {
    let field = Field::new().await;
    let raw = field.member(30, Role::Writer).await;
    let root = field.a.node.root();
    let nodes = [field.a.node.id(), field.b.node.id()];
    let connection = raw.connected(&field.a, SYNC).await;
    let claim = async |counter: u64, is_false: bool| {
        let settled = until("a root", async || root.settled_root()).await;
        let AckedState { mut root, acts } = settled.acked();
        root.0[0] ^= u8::from(is_false);
        let ack = Ack {
            node: raw.author(),
            store: field.a.node.root().id(),
            incarnation: 1,
            counter,
            is_part: false,
            frontier: (*settled.frontier).clone(),
            state: Some(AckedState { root, acts }),
            root_frontier: None,
        };
        send_status(&connection, vec![ack.sign(&raw.key.0)]).await;
    };
    vouched(&field.a, &root, &nodes).await;
    claim(1, true).await;
    diverges(&field.a, raw.author(), true).await;
    vouched(&field.a, &root, &nodes).await;
    let found = field.a.net.divergences(&root.id());
    let [(node, seen)] = found[..] else {
        panic!("it is the only one: {found:?}");
    };
    assert_eq!(node, raw.author());
    assert_eq!((seen.with_here, seen.with_there), (2, 1), "two against one");
    assert_eq!(status_at(&field.a, &raw.author()).strikes, 0);
    assert_eq!(root.status().await.poisoned, None);
    field.still_works().await;
    vouched(&field.a, &root, &nodes).await;
    diverges(&field.a, raw.author(), true).await;
    claim(2, false).await;
    diverges(&field.a, raw.author(), false).await;
    field.stop().await;
}
