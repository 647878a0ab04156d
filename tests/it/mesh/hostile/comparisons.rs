//! Members that ask for comparisons, honestly and not.

use lattice::protocol::{
    compare::{LENGTH_BYTES, MESSAGE_BYTES_MAX, Message as Compare, VERSION},
    heads_row::decode_heads,
    merkle::{Ask, Diff, Levels, RowHash, Side, Tree},
};

use super::*;
use crate::support::rows::MemRows;

const COMPARE_STREAM: u8 = 3;

async fn say(line: &mut Line, message: Compare) {
    line.raw(&message.encode()).await;
}

/// The next message; `None`: the stream was refused or has ended.
async fn hear(line: &mut Line) -> Option<Compare> {
    let mut length = [0; LENGTH_BYTES];
    timeout(SOON, line.receive.read_exact(&mut length))
        .await
        .unwrap()
        .ok()?;
    let mut message = vec![0; Compare::length(length).unwrap()];
    line.receive.read_exact(&mut message).await.ok()?;
    Some(Compare::decode(message.into()).unwrap())
}

fn begin(store: StoreId, prefix: &[u8]) -> Compare {
    Compare::Begin {
        version: VERSION,
        store,
        prefix: Bytes::copy_from_slice(prefix),
    }
}

/// A member without any key sees all keys of the other side, and their rows.
#[tokio::test(flavor = "multi_thread")]
async fn member_with_an_empty_state_gets_all_keys() {
    let field = Field::new().await;
    let root = field.a.node.root();
    for number in 0..100 {
        root.put(format!("/k/{number:02}"), "v").await.unwrap();
    }
    let raw = field.member(40, Role::Reader).await;
    let connection = raw.connected(&field.a, SYNC).await;
    let mut line = Line::open(&connection, COMPARE_STREAM).await.unwrap();
    say(&mut line, begin(root.id(), b"")).await;
    let Some(Compare::State(state)) = hear(&mut line).await else {
        panic!("no state");
    };
    assert_eq!(state.root, root.root(b"").await.unwrap().root);
    let rows = MemRows(std::collections::BTreeMap::new());
    let mut tree = Tree::new(Levels::new(root.id()));
    let Ok(fresh) = tree.refresh(&rows);
    let mut diff = Diff::new(&fresh, state.root, 1000);
    while let Some(ask) = diff.ask() {
        say(&mut line, Compare::Ask(ask)).await;
        let Some(Compare::Answer(answer)) = hear(&mut line).await else {
            panic!("no answer");
        };
        diff.take(&fresh, answer).unwrap();
    }
    let found = diff.finish();
    assert!(found.keys.iter().all(|it| it.side == Side::There));
    let of_k = found.keys.iter().filter(|it| it.key.starts_with(b"/k/"));
    assert_eq!(of_k.count(), 100);
    let key = found.keys[0].key.clone();
    let none = Bytes::from_static(b"/none");
    say(&mut line, Compare::WantRows(vec![key, none])).await;
    let Some(Compare::Rows(rows)) = hear(&mut line).await else {
        panic!("no rows");
    };
    assert_eq!(Some(RowHash::of(&rows[0])), found.keys[0].there);
    assert!(decode_heads(&rows[0]).is_some() && rows[1].is_empty());

    eprintln!("N8 a second comparison of the same member at a time");
    let mut second = Line::open(&connection, COMPARE_STREAM).await.unwrap();
    say(&mut second, begin(root.id(), b"")).await;
    assert!(hear(&mut second).await.is_none(), "it is refused");
    drop(line.send.finish());
    let again = until("the first one has ended", async || {
        let mut line = Line::open(&connection, COMPARE_STREAM).await?;
        say(&mut line, begin(root.id(), b"/k/")).await;
        hear(&mut line).await
    });
    assert!(matches!(again.await, Compare::State(_)));
    assert_eq!(status_at(&field.a, &raw.author()).strikes, 0);
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n1_n2_malformed_and_misplaced_questions_are_strikes() {
    let field = Field::new().await;
    let root = field.a.node.root();
    let raw = field.member(41, Role::Reader).await;
    let connection = raw.connected(&field.a, SYNC).await;
    let ask = |key: &'static [u8]| {
        Compare::Ask(Ask {
            level: 13,
            keys: vec![Bytes::from_static(key)],
        })
    };
    let over = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_be_bytes();
    let newer = Compare::Begin {
        version: 2,
        store: root.id(),
        prefix: Bytes::new(),
    };
    // Whether the comparison has begun, then the bytes.
    let scripts: [(&str, bool, Vec<u8>); 6] = [
        ("a question first", false, ask(b"").encode().to_vec()),
        ("another version", false, newer.encode().to_vec()),
        ("rubbish", false, vec![0, 0, 0, 4, 9, 9, 9, 9]),
        ("a length above all", true, over.to_vec()),
        (
            "a second beginning",
            true,
            begin(root.id(), b"").encode().to_vec(),
        ),
        ("rubbish later", true, vec![0, 0, 0, 4, 9, 9, 9, 9]),
    ];
    for (strikes, (name, has_begun, bytes)) in (1..).zip(scripts) {
        eprintln!("N1 {name}");
        let mut line = until("its turn", async || {
            let mut line = Line::open(&connection, COMPARE_STREAM).await?;
            if has_begun {
                say(&mut line, begin(root.id(), b"")).await;
                hear(&mut line).await?;
            }
            Some(line)
        })
        .await;
        line.raw(&bytes).await;
        struck(&field.a, &raw.author(), strikes, "compar").await;
    }
    eprintln!("N2 nodes that do not exist are an answer, not a fault");
    let mut line = Line::open(&connection, COMPARE_STREAM).await.unwrap();
    say(&mut line, begin(root.id(), b"")).await;
    assert!(hear(&mut line).await.is_some());
    for level in [0, 1, 13, 255] {
        let keys = (0..64_u8)
            .map(|byte| Bytes::from(vec![byte; 4096]))
            .collect();
        say(&mut line, Compare::Ask(Ask { level, keys })).await;
        assert!(matches!(hear(&mut line).await, Some(Compare::Answer(_))));
    }
    field.stop().await;
}
