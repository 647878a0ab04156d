//! Members that break the rules of a sync: each breach is a strike, with its reason.

use lattice::{
    limits::{SYNC_ITEMS_MAX, SYNC_PAGE_ITEMS_MAX, SYNC_WANTS_MAX},
    protocol::{entry::SignedEntry, frontier::MissingRange},
};

use super::*;

struct Script {
    row: &'static str,
    name: &'static str,
    kind: u8,
    steps: Vec<Step>,
    // The reason in `peer list`.
    says: &'static str,
}

enum Step {
    Say(Message),
    Raw(Vec<u8>),
    Hear(&'static str),
    Finish,
}

use Step::{Finish, Hear, Raw as Bytes_, Say};

/// The facts that scripts use.
struct Scene<'a> {
    key: &'a Key,
    store: StoreId,
    host: Author,
    host_tip: FrontierTip,
    now_ms: u64,
}

fn script(
    row: &'static str,
    name: &'static str,
    says: &'static str,
    steps: impl IntoIterator<Item = Step>,
) -> Script {
    Script {
        row,
        name,
        kind: SYNC_STREAM,
        steps: steps.into_iter().collect(),
        says,
    }
}

fn of_kind(kind: u8, script: Script) -> Script {
    Script { kind, ..script }
}

fn framed(body: &[u8]) -> Step {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    Bytes_([&length, body].concat())
}

impl Scene<'_> {
    // Hello, and the host's tips.
    fn opening(&self) -> [Step; 2] {
        [Say(hello(self.store)), Hear("Tips")]
    }

    // The same after both frontiers were sent: this side has `entries`.
    fn offering(&self, own: &[VerifiedEntry]) -> Vec<Step> {
        let mut steps: Vec<_> = self.opening().into();
        steps.push(Say(tips(&[tip(own.last().unwrap())])));
        steps.push(Hear("Want"));
        steps
    }

    // The same, with nothing to offer.
    fn asking(&self) -> Vec<Step> {
        let mut steps: Vec<_> = self.opening().into();
        steps.extend([Say(tips(&[])), Hear("Done")]);
        steps
    }

    fn range(&self, after: u64, through: u64) -> MissingRange {
        MissingRange {
            author: self.host,
            after,
            through,
            tip: self.host_tip.id,
        }
    }

    fn chain(&self, count: u64) -> Vec<VerifiedEntry> {
        self.key.chain(self.store, self.now_ms, count, "/forged")
    }
}

fn want(ranges: &[MissingRange]) -> Step {
    Say(Message::Want {
        ranges: ranges.to_vec(),
        last: true,
    })
}

fn all<const N: usize>(first: Vec<Step>, then: [Step; N]) -> Vec<Step> {
    first.into_iter().chain(then).collect()
}

// Bytes that are no message, messages out of turn.
fn rubbish(scene: &Scene<'_>) -> Vec<Script> {
    let open = || Vec::from(scene.opening());
    let over_max = u32::try_from(lattice::limits::SYNC_MESSAGE_BYTES_MAX).unwrap() + 1;
    let bomb = [vec![0x1a, 0xd0, 0x0f], [0x0a, 0x00].repeat(1000)].concat();
    vec![
        of_kind(99, script("N1", "unknown_stream", "kind", [])),
        of_kind(
            STATUS_STREAM,
            script(
                "N1",
                "status_rubbish",
                "status",
                [Bytes_(vec![0xff; 64]), Finish],
            ),
        ),
        of_kind(
            STATUS_STREAM,
            script(
                "N1",
                "status_too_long",
                "too long",
                [
                    Bytes_(vec![0; lattice::limits::STATUS_BYTES_MAX + 1]),
                    Finish,
                ],
            ),
        ),
        script(
            "N1",
            "no_hello",
            "does not begin with a hello",
            [Say(Message::Done)],
        ),
        script(
            "N1",
            "rubbish_first",
            "malformed message",
            [framed(&[0xff; 40])],
        ),
        script(
            "N1",
            "oversized_first",
            "the limit is",
            [Bytes_(vec![0xff; 4])],
        ),
        script(
            "N1",
            "oversized_frame",
            "the limit is",
            all(open(), [Bytes_(over_max.to_be_bytes().to_vec())]),
        ),
        script(
            "N1",
            "empty_frame",
            "it is empty",
            all(open(), [framed(&[])]),
        ),
        script(
            "N1",
            "unknown_kind",
            "unknown kind",
            all(open(), [framed(&[0x6a, 0])]),
        ),
        script(
            "N1",
            "not_canonical",
            "not canonical",
            all(open(), [framed(&[0x3a, 0x80, 0])]),
        ),
        script(
            "N1",
            "item_bomb",
            "shorter than any",
            all(open(), [framed(&bomb)]),
        ),
        script(
            "N4",
            "hello_twice",
            "sent Hello",
            all(open(), [Say(hello(scene.store))]),
        ),
        script(
            "N4",
            "entries_unasked",
            "sent Entries",
            all(open(), [Say(entries(&scene.chain(1)))]),
        ),
        script(
            "N4",
            "sent_unasked",
            "sent Sent",
            all(scene.asking(), [Say(Message::Sent)]),
        ),
        script(
            "N4",
            "same_late",
            "sent Same",
            all(scene.asking(), [Say(Message::Same)]),
        ),
    ]
}

// Frontiers and wants that cannot be.
fn wants(scene: &Scene<'_>) -> Vec<Script> {
    let open = || Vec::from(scene.opening());
    let known = (scene.host, scene.host_tip);
    let made_up = |number: usize| {
        let mut author = [0xee; 32];
        author[..8].copy_from_slice(&number.to_be_bytes());
        let id = EntryId([1; 32]);
        (Author(author), FrontierTip { seq: 1, id })
    };
    let pages: Vec<_> = (0..=SYNC_ITEMS_MAX).map(made_up).collect();
    let pages = pages.chunks(SYNC_PAGE_ITEMS_MAX);
    let pages = pages.map(|page| Message::Tips {
        tips: page.to_vec(),
        last: false,
    });
    let unknown = MissingRange {
        author: Author([3; 32]),
        ..scene.range(0, 1)
    };
    let asked_again = (0..SYNC_WANTS_MAX).flat_map(|_| {
        let lost = MissingRange {
            tip: EntryId([9; 32]),
            ..scene.range(0, 1)
        };
        [want(&[lost]), Hear("Sent")]
    });
    let asked_again = scene.asking().into_iter().chain(asked_again);
    vec![
        script(
            "N5",
            "tips_twice",
            "not in order",
            all(open(), [Say(tips(&[known, known]))]),
        ),
        script(
            "N5",
            "no_more_tips",
            "an empty",
            all(
                open(),
                [
                    Say(Message::Tips {
                        tips: vec![known],
                        last: false,
                    }),
                    Say(tips(&[])),
                ],
            ),
        ),
        script(
            "N5",
            "endless_tips",
            "a session holds 65536",
            open().into_iter().chain(pages.map(Say)),
        ),
        script(
            "N4",
            "want_nothing",
            "an empty",
            all(scene.asking(), [want(&[])]),
        ),
        script(
            "N4",
            "want_empty_range",
            "after 1 through 1",
            all(scene.asking(), [want(&[scene.range(1, 1)])]),
        ),
        script(
            "N4",
            "want_backwards",
            "after 2 through 1",
            all(scene.asking(), [want(&[scene.range(2, 1)])]),
        ),
        script(
            "N4",
            "want_too_far",
            "this node's last entry is",
            all(scene.asking(), [want(&[scene.range(0, u64::MAX)])]),
        ),
        script(
            "N4",
            "want_of_nobody",
            "this node's last entry is 0",
            all(scene.asking(), [want(&[unknown])]),
        ),
        script(
            "N4",
            "want_twice",
            "not in order",
            all(
                scene.asking(),
                [want(&[scene.range(0, 1), scene.range(0, 1)])],
            ),
        ),
        script(
            "N4",
            "want_endlessly",
            "more than 64 times",
            asked_again.chain([want(&[scene.range(0, 1)])]),
        ),
    ]
}

// Entries that were not asked for, and bytes that are not entries.
fn forgeries(scene: &Scene<'_>) -> Vec<Script> {
    let chain = scene.chain(40);
    let honest = || scene.offering(&chain);
    let elsewhere = scene
        .key
        .chain(StoreId([7; 16]), scene.now_ms, 40, "/forged");
    let other = Key::new(201).chain(scene.store, scene.now_ms, 1, "/forged");
    let more: Vec<_> = chain.iter().chain([&chain[39]]).collect();
    let backwards: Vec<_> = chain.iter().rev().collect();
    let bent = |bend: fn(&mut SignedEntry)| {
        let bend = |entry: &VerifiedEntry| {
            let mut signed = entry.signed.clone();
            bend(&mut signed);
            Bytes::from(signed.encode())
        };
        Say(Message::Entries(chain.iter().map(bend).collect()))
    };
    let small_order = {
        let at = (
            SMALL_ORDER,
            FrontierTip {
                seq: 40,
                id: chain[39].id,
            },
        );
        let forged = chain.iter().map(small_order_forgery);
        let mut steps: Vec<_> = scene.opening().into();
        steps.extend([Say(tips(&[at])), Hear("Want")]);
        steps.extend([Say(Message::Entries(forged.collect())), Say(Message::Sent)]);
        steps
    };
    vec![
        script(
            "B4",
            "entries_of_another_store",
            "entry of store",
            all(honest(), [Say(entries(&elsewhere))]),
        ),
        script(
            "N4",
            "entries_of_somebody_else",
            "was not asked for",
            all(honest(), [Say(entries(&other))]),
        ),
        script(
            "N4",
            "endless_entries",
            "more than the 40 entries",
            all(honest(), [Say(entries(more))]),
        ),
        script(
            "N4",
            "entries_backwards",
            "not in order",
            all(honest(), [Say(entries(backwards))]),
        ),
        script(
            "N2",
            "bad_signatures",
            "bad entries",
            all(
                honest(),
                [bent(|entry| entry.signature[3] ^= 1), Say(Message::Sent)],
            ),
        ),
        script(
            "B8",
            "signatures_not_reduced",
            "bad entries",
            all(
                honest(),
                [
                    bent(|entry| entry.signature[63] |= 0xe0),
                    Say(Message::Sent),
                ],
            ),
        ),
        script("B8", "small_order_keys", "bad entries", small_order),
        script(
            "B9",
            "ops_that_are_none",
            "bad entries",
            all(
                honest(),
                [
                    bent(|entry| entry.ops = Bytes::from_static(&[0xff; 9])),
                    Say(Message::Sent),
                ],
            ),
        ),
        script(
            "N1",
            "entries_that_are_none",
            "bad entries",
            all(
                honest(),
                [Say(Message::Entries(vec![
                    Bytes::from_static(&[0xff; 80]);
                    40
                ]))],
            ),
        ),
        script(
            "N4",
            "no_entries",
            "an empty",
            all(honest(), [Say(Message::Entries(Vec::new()))]),
        ),
    ]
}

/// The row and name of each script.
pub fn names() -> Vec<(&'static str, &'static str)> {
    let key = Key::new(1);
    let store = StoreId([1; 16]);
    let host_tip = FrontierTip {
        seq: 1,
        id: EntryId([2; 32]),
    };
    let scene = Scene {
        key: &key,
        store,
        host: Author([3; 32]),
        host_tip,
        now_ms: 1000,
    };
    let tables = [rubbish(&scene), wants(&scene), forgeries(&scene)];
    let scripts = tables.into_iter().flatten();
    scripts.map(|script| (script.row, script.name)).collect()
}

async fn play(field: &Field, raw: &Raw, script: Script) {
    eprintln!("{} {}", script.row, script.name);
    let connection = raw.connected(&field.a, SYNC).await;
    let mut line = Line::open(&connection, script.kind).await.unwrap();
    for step in script.steps {
        match step {
            Say(message) => line.say(message).await,
            Bytes_(bytes) => line.raw(&bytes).await,
            Finish => drop(line.send.finish()),
            Hear("Tips") => {
                while !matches!(line.hear("Tips").await, Message::Tips { last: true, .. }) {}
            }
            Hear(name) => drop(line.hear(name).await),
        }
    }
    struck(&field.a, &raw.author(), 1, script.says).await;
    line.over().await;
    assert!(connection.close_reason().is_none(), "one strike is no end");
    assert_eq!(field.a.node.root().get(b"/forged").await.unwrap(), None);
    connection.close(0_u32.into(), b"");
    field.still_works().await;
}

async fn play_all(scripts: fn(&Scene<'_>) -> Vec<Script>, first: u8) {
    let field = Field::new().await;
    let count = {
        let key = Key::new(first);
        scripts(&scene(&field, &key)).len()
    };
    for index in 0..count {
        let number = first + u8::try_from(index).unwrap();
        let raw = field.member(number, Role::Writer).await;
        let script = scripts(&scene(&field, &raw.key)).swap_remove(index);
        play(&field, &raw, script).await;
        raw.endpoint.close().await;
    }
    field.stop().await;
}

fn scene<'a>(field: &Field, key: &'a Key) -> Scene<'a> {
    let (root, host) = (field.a.node.root(), field.a.node.id());
    Scene {
        key,
        store: root.id(),
        host,
        host_tip: root.frontier().tips(&host)[0],
        now_ms: field.a.node.clock().now_ms(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_n4_garbage_and_out_of_turn_are_strikes() {
    play_all(rubbish, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_n5_impossible_frontiers_and_wants_are_strikes() {
    play_all(wants, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n2_n4_b4_b8_b9_forged_and_unasked_are_strikes() {
    play_all(forgeries, 70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_faults_are_no_strikes() {
    let field = Field::new().await;
    let raw = field.member(100, Role::Writer).await;
    let (root, me) = (field.a.node.root(), raw.author());
    let connection = raw.connected(&field.a, SYNC).await;
    let no_strike = || assert_eq!(status_at(&field.a, &me).strikes, 0);

    eprintln!("another version of sync");
    let mut line = Line::open(&connection, SYNC_STREAM).await.unwrap();
    line.say(Message::Hello {
        version: 3,
        newest: 3,
        store: root.id(),
        frontier: None,
    })
    .await;
    assert_eq!(line.over().await, None);
    struck(&field.a, &me, 0, "speaks version 3 of sync").await;

    eprintln!("B4 a store that is not here");
    let mut line = Line::open(&connection, SYNC_STREAM).await.unwrap();
    line.say(hello(StoreId([9; 16]))).await;
    assert_eq!(line.over().await, None);
    no_strike();

    eprintln!("N5 a frontier that is a lie: seq 1000 of the host");
    let mut line = Line::sync(&connection, root.id()).await;
    let lie = FrontierTip {
        seq: 1000,
        id: EntryId([1; 32]),
    };
    line.say(tips(&[(field.a.node.id(), lie)])).await;
    line.hear("Want").await;
    line.say(Message::Sent).await;
    line.hear("Done").await;
    line.say(Message::Done).await;
    assert_eq!(line.over().await, None);
    no_strike();
    field.still_works().await;

    eprintln!("N6 a stream that is cut in the middle of a message");
    let mut line = Line::sync(&connection, root.id()).await;
    let message = entries(&raw.key.chain(root.id(), 1, 3, "/forged")).encode();
    line.raw(&message[..message.len() / 2]).await;
    line.send.reset(0_u32.into()).unwrap();
    line.over().await;
    no_strike();

    eprintln!("an entry that is in order");
    let now_ms = field.a.node.clock().now_ms();
    let chain = raw.key.chain(root.id(), now_ms, 3, "/honest");
    assert_eq!(
        offer(&connection, root.id(), &chain).await,
        Some(Message::Done)
    );
    has(&root, "/honest", "forged 3").await;
    has(&field.b.node.root(), "/honest", "forged 3").await;

    eprintln!("B5 the same again: nothing happens twice");
    let before = root.frontier();
    let mut line = Line::sync(&connection, root.id()).await;
    line.say(tips(&[tip(&chain[2])])).await;
    line.hear("Done").await;
    line.say(Message::Done).await;
    line.over().await;
    assert_eq!(root.frontier(), before);
    no_strike();
    field.stop().await;
}
