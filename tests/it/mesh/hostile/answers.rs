//! Members that wait until a node opens a sync, and give it answers that no honest node gives.

use iroh::endpoint::ReadError;
use lattice::{limits::SYNC_MESSAGE_BYTES_MAX, net::Addresses};

use super::*;

enum Answer {
    Say(Vec<Message>),
    Raw(Vec<u8>),
    Reset,
    HangUp,
}

// Waits until `peer` opens a sync on `connection`.
async fn asked(connection: &Connection) -> Line {
    loop {
        let (send, mut receive) = timeout(SOON, connection.accept_bi())
            .await
            .unwrap()
            .unwrap();
        let mut kind = [0];
        receive.read_exact(&mut kind).await.unwrap();
        if kind == [SYNC_STREAM] {
            return Line {
                send,
                receive,
                decoder: FrameDecoder::default(),
                ready: VecDeque::new(),
            };
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_n4_n5_lying_answers_are_strikes() {
    use Answer::{HangUp, Raw as Bytes_, Reset, Say};
    let field = Field::new().await;
    let (root, now_ms) = (field.a.node.root(), field.a.node.clock().now_ms());
    let key = Key::new(99);
    let chain = key.chain(root.id(), now_ms, 3, "/forged");
    let lie = FrontierTip {
        seq: u64::MAX,
        id: EntryId([1; 32]),
    };
    let over_max = u32::try_from(SYNC_MESSAGE_BYTES_MAX).unwrap() + 1;
    let wants = |after, through| Message::Want {
        ranges: vec![lattice::protocol::frontier::MissingRange {
            author: field.a.node.id(),
            after,
            through,
            tip: EntryId([1; 32]),
        }],
        last: true,
    };
    // The answer, and its number of strikes.
    let scripts = [
        (
            "N1 rubbish",
            Bytes_(vec![0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]),
            1,
        ),
        (
            "N1 a frame too large",
            Bytes_(over_max.to_be_bytes().to_vec()),
            1,
        ),
        ("N4 a hello of its own", Say(vec![hello(root.id())]), 1),
        ("N4 entries at once", Say(vec![entries(&chain)]), 1),
        ("N4 a want at once", Say(vec![wants(0, 1)]), 1),
        ("N4 a want too far", Say(vec![tips(&[]), wants(0, 1000)]), 1),
        (
            "N4 entries that were not wanted",
            Say(vec![tips(&[]), entries(&chain)]),
            1,
        ),
        ("N5 the same, which it is not", Say(vec![Message::Same]), 0),
        (
            "N5 a frontier out of this world",
            Say(vec![
                tips(&[(key.author(), lie)]),
                Message::Sent,
                Message::Done,
            ]),
            0,
        ),
        ("N6 half a frame", Bytes_(vec![0, 0, 1, 0, 0x1a]), 0),
        ("N6 a reset", Reset, 0),
        ("N6 it hangs up", HangUp, 0),
    ];
    for (index, (name, answer, strikes)) in scripts.into_iter().enumerate() {
        eprintln!("{name}");
        let number = 110 + u8::try_from(index).unwrap();
        let raw = field.member(number, Role::Writer).await;
        // Only the client's own connections count: a node that dials the client is refused at
        // once.
        let endpoint = raw.endpoint.clone();
        let refusing = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                incoming.refuse();
            }
        });
        let connection = raw.connected(&field.a, SYNC).await;
        // The dialing side begins; these scripts need the node to begin.
        let (node, known) = (raw.author(), Addresses::default());
        field.a.net.connect(&node, known).await.unwrap();
        let mut line = asked(&connection).await;
        line.hear("Hello").await;
        match answer {
            Say(messages) => {
                for message in messages {
                    line.say(message).await;
                }
                drop(line.send.finish());
            }
            Bytes_(bytes) => {
                line.raw(&bytes).await;
                drop(line.send.finish());
            }
            Reset => line.send.reset(1_u32.into()).unwrap(),
            HangUp => connection.close(7_u32.into(), b"so there"),
        }
        line.over().await;
        if strikes > 0 {
            struck(&field.a, &raw.author(), strikes, "the peer").await;
        }
        field.still_works().await;
        assert_eq!(status_at(&field.a, &raw.author()).strikes, strikes);
        assert_eq!(root.get(b"/forged").await.unwrap(), None);
        assert!(root.frontier().tips(&key.author()).is_empty());
        raw.endpoint.close().await;
        refusing.await.unwrap();
    }
    field.stop().await;
}

/// Both sides open a session in the same moment, and neither has answered yet: that of the lesser
/// id goes on, so that nothing is fetched twice. A peer that answers nothing holds up only itself,
/// and not for long.
#[tokio::test(flavor = "multi_thread")]
async fn n5_one_of_two_crossing_sessions_goes_on() {
    let field = Field::new().await;
    let (root, host) = (field.a.node.root(), field.a.node.id());
    let authors = (1..=250).map(|number| (number, Key::new(number).author()));
    let (lesser, greater): (Vec<_>, Vec<_>) = authors.partition(|(_, author)| *author < host);
    for (number, _) in lesser.first().into_iter().chain(greater.first()) {
        for answers in [true, false] {
            let raw = field.member(*number, Role::Writer).await;
            let connection = raw.connected(&field.a, SYNC).await;
            let (node, known) = (raw.author(), Addresses::default());
            field.a.net.connect(&node, known).await.unwrap();
            let mut its = asked(&connection).await;
            its.hear("Hello").await;
            let mut own = Line::open(&connection, SYNC_STREAM).await.unwrap();
            own.say(hello(root.id())).await;
            let began = std::time::Instant::now();
            if raw.author() > host && answers {
                // It waits for that; then its own session is the one.
                its.say(tips(&[])).await;
                its.hear("Tips").await;
                let heard = timeout(SOON, own.receive.read_chunk(1)).await.unwrap();
                let reset = heard.unwrap_err();
                assert_eq!(reset, ReadError::Reset(BUSY_WITH_OWN.into()), "{number}");
            } else {
                own.hear("Tips").await;
                let waited = began.elapsed() >= Duration::from_millis(900);
                assert_eq!(waited, raw.author() > host, "{:?}", began.elapsed());
            }
            connection.close(0_u32.into(), b"enough");
            raw.endpoint.close().await;
        }
    }
    field.stop().await;
}

/// How a session is refused whose like the node has opened itself.
const BUSY_WITH_OWN: u32 = 409;
