//! Texts: cursors, tokens, acts, invites, names, patterns, configuration, lines of a hook.

use std::{fmt::Display, str::FromStr};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use lattice::{
    clock::parse_duration,
    id::{Author, EntryId, StoreId, looks_like_id},
    limits::{PATTERN_BYTES_MAX, TIPS_MAX},
    node::{FileConfig, Relay},
    protocol::{
        consumer::{ChangeId, DeliveryId},
        cursor::{Cursor, CursorError, Partial},
        entry::Op,
        frontier::FrontierTip,
        membership::{
            genesis::Genesis,
            invite::Invite,
            reserved::{Claim, claim},
            role::{Act, Role, Tips, role_key, role_key_node},
        },
        pattern::{Pattern, common_prefix, cover},
    },
    wire,
};
use prost::Message as _;

use crate::support::{
    model::{AUTHOR_A, AUTHOR_B, STORE, author_of},
    mutator::{Corpus, fuzz},
    random::Random,
};

/// Fuzzes a type that is parsed from a text and printed. `canonical`: it has one text.
fn fuzz_text<T>(inputs: &[&str], canonical: bool)
where
    T: FromStr + Display + PartialEq + std::fmt::Debug,
{
    let corpus = Corpus::new(inputs.iter().map(|text| text.as_bytes()));
    fuzz(&corpus, |input| {
        let Ok(text) = str::from_utf8(input) else {
            return false;
        };
        let Ok(value) = text.parse::<T>() else {
            return false;
        };
        let printed = value.to_string();
        assert_eq!(printed.parse::<T>().ok(), Some(value));
        assert!(!canonical || printed == text, "{text:?} is {printed:?}");
        true
    });
}

#[test]
fn l9_ids() {
    let (author, store) = (author_of(AUTHOR_A).to_string(), STORE.to_string());
    fuzz_text::<Author>(&[&author, &author.to_uppercase()], false);
    fuzz_text::<EntryId>(&[&EntryId([0xab; 32]).to_string()], false);
    fuzz_text::<StoreId>(&[&store, &store.replace('-', "")], false);
    let delivery = DeliveryId {
        change: ChangeId([7; 16]),
        attempt: 12,
    };
    fuzz_text::<DeliveryId>(&[&delivery.to_string()], false);
    fuzz_text::<Role>(&["reader", "writer", "admin"], true);
    let corpus = Corpus::new([&author[..8], &author]);
    fuzz(&corpus, |input| {
        let text = String::from_utf8_lossy(input);
        let looks = looks_like_id(&text);
        assert!(looks || text.parse::<Author>().is_err());
        looks
    });
}

#[test]
fn l9_durations_and_relays() {
    let durations = Corpus::new(["30s", "1h", "1h30m", "2d", "90ms", "1.5h"]);
    let broken = [
        "",
        "5",
        "h",
        "1y",
        "1.h",
        "1.00000000000000000000000h",
        "18446744073709551615w",
    ];
    fuzz(&durations.broken(broken), |input| {
        let text = String::from_utf8_lossy(input);
        parse_duration(&text).is_ok()
    });
    fuzz(
        &Corpus::new(["off", "n0", "https://r.example:443"]),
        |input| {
            let text = String::from_utf8_lossy(input);
            let Ok(relay) = text.parse::<Relay>() else {
                return false;
            };
            match relay {
                Relay::Off | Relay::N0 => {}
                Relay::Url(url) => assert_eq!(url, text),
            }
            true
        },
    );
}

fn cursors() -> Vec<Cursor> {
    let tip = |seq, id| FrontierTip {
        seq,
        id: EntryId([id; 32]),
    };
    let authors = [(Author([1; 32]), tip(9, 2)), (Author([3; 32]), tip(1, 4))];
    let partial = Partial {
        author: Author([3; 32]),
        tip: tip(2, 5),
        ops: 3,
    };
    let full = Cursor {
        store: STORE,
        frontier: authors.into_iter().collect(),
        partial: Some(partial),
        expired_through_ms: 1_700_000_000_000,
    };
    let empty = Cursor {
        frontier: Default::default(),
        partial: None,
        expired_through_ms: 0,
        ..full.clone()
    };
    vec![full, empty]
}

#[test]
fn l9_cursor() {
    let golden = include_str!("../../data/cursor-v1.txt").to_owned();
    let texts = cursors().into_iter().map(|cursor| cursor.to_string());
    let texts: Vec<String> = texts.chain([golden]).collect();
    let honest = texts.iter().map(|text| text.parse::<Cursor>().unwrap());
    let honest: Vec<Cursor> = honest.collect();
    fuzz(&Corpus::new(texts), |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(cursor) = text.parse::<Cursor>() else {
            return false;
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        assert!(
            honest.contains(&cursor),
            "a check sum finds what was mistyped"
        );
        true
    });
}

// Puts a text around bytes that are signed by nothing but a check sum.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let check = blake3::hash(bytes);
    [bytes, &check.as_bytes()[..4]].concat()
}

#[test]
fn l9_s19_cursor_with_a_right_check_sum() {
    let bodies = cursors().into_iter().map(|cursor| {
        let bytes = BASE64URL_NOPAD.decode(cursor.to_string().as_bytes());
        let bytes = bytes.unwrap();
        bytes[..bytes.len() - 4].to_vec()
    });
    let bodies: Vec<Vec<u8>> = bodies.collect();
    let honest = wire::Cursor::decode(&bodies[0][1..]).unwrap();
    let broken: [fn(&mut wire::Cursor); 6] = [
        |it| it.partial_ops = 0,
        |it| it.partial = None,
        |it| it.tips[0].seq = 0,
        |it| it.tips[0].author.truncate(31),
        |it| it.partial.as_mut().unwrap().seq = 0,
        |it| it.store_id.truncate(15),
    ];
    let broken = broken.map(|change| {
        let mut cursor = honest.clone();
        change(&mut cursor);
        [vec![bodies[0][0]], cursor.encode_to_vec()].concat()
    });
    let later = [&[bodies[0][0] + 1], &bodies[0][1..]].concat();
    let corpus = Corpus::new(bodies).broken(broken).broken([later]);
    fuzz(&corpus, |input| {
        let text = BASE64URL_NOPAD.encode(&checked(input));
        match text.parse::<Cursor>() {
            Ok(cursor) => {
                let tips = cursor.frontier.len();
                assert!(tips * 64 <= input.len(), "{tips} tips of {}", input.len());
                assert_eq!(cursor.to_string().parse(), Ok(cursor));
                true
            }
            Err(CursorError::Version { version }) => {
                assert_eq!(version, input[0]);
                false
            }
            Err(error) => {
                assert!(matches!(error, CursorError::Garbage { .. }), "{error:?}");
                false
            }
        }
    });
}

#[cfg(feature = "net")]
#[test]
fn m9_n1_invitation() {
    use data_encoding::BASE32_NOPAD;
    use lattice::net::{Addresses, Invitation};

    let invitation = Invitation {
        node: author_of(AUTHOR_A),
        addresses: Addresses {
            direct: ["127.0.0.1:4711".parse().unwrap()].into(),
            relay: Some("https://relay.example/".parse().unwrap()),
        },
        store: STORE,
        secret: [7; 32],
        expires_ms: 1_700_000_000_000,
    };
    let text = invitation.to_string();
    let corpus = Corpus::new([text.as_bytes()]);
    fuzz(&corpus, |input| {
        let parsed = String::from_utf8_lossy(input).parse::<Invitation>();
        parsed.is_ok_and(|parsed| {
            assert!(parsed == invitation, "a check sum finds what was mistyped");
            true
        })
    });
    let letters = text.strip_prefix("lattice").unwrap().to_uppercase();
    let bytes = BASE32_NOPAD.decode(letters.as_bytes()).unwrap();
    let corpus = Corpus::new([&bytes[..bytes.len() - 4]]);
    fuzz(&corpus, |input| {
        let letters = BASE32_NOPAD.encode(&checked(input));
        let text = format!("lattice{}", letters.to_lowercase());
        let Ok(parsed) = text.parse::<Invitation>() else {
            return false;
        };
        assert!(parsed.addresses.direct.len() <= lattice::limits::ADDRESSES_MAX);
        assert_eq!(parsed.to_string().parse(), Ok(parsed));
        true
    });
}

#[test]
fn m6_m13_act_and_its_key() {
    let tip = |seq| FrontierTip {
        seq,
        id: EntryId([0xab; 32]),
    };
    let removal = Tips::naming(
        [StoreId([9; 16])],
        [
            (STORE, tip(3)),
            (STORE, tip(u64::MAX)),
            (StoreId([1; 16]), tip(1)),
        ],
    );
    let acts = [
        Act::Grant(Role::Reader),
        Act::Grant(Role::Admin),
        Act::Remove(Tips::default()),
        Act::Remove(removal.clone().unwrap()),
        Act::Lower(Role::Reader, removal.unwrap()),
    ];
    fuzz(&Corpus::new(acts.map(|act| act.encode())), |input| {
        let Some(act) = Act::decode(input) else {
            return false;
        };
        assert_eq!(act.encode(), input, "there is one text");
        if let Act::Remove(tips) | Act::Lower(_, tips) = &act {
            let stores = tips.stores();
            assert!(stores.iter().all(|store| tips.speaks_of(store)));
            let count: usize = stores.iter().map(|store| tips.of(store).count()).sum();
            assert!(count <= TIPS_MAX && count * 64 <= input.len());
        }
        true
    });
    let key = role_key(&author_of(AUTHOR_B));
    fuzz(&Corpus::new([key]), |input| {
        let Some(node) = role_key_node(input) else {
            return false;
        };
        assert_eq!(role_key(&node), input, "there is one key");
        true
    });
}

#[test]
fn m9_invite_and_genesis() {
    let invite = |used| Invite {
        role: Role::Writer,
        expires_ms: 1_700_000_000_000,
        used,
    };
    let invites = [invite(None), invite(Some(author_of(AUTHOR_B)))];
    let corpus = Corpus::new(invites.map(|invite| invite.encode()));
    fuzz(&corpus, |input| {
        let Some(invite) = Invite::decode(input) else {
            return false;
        };
        assert_eq!(invite.encode(), input, "there is one text");
        true
    });
    let genesis = Genesis {
        creator: author_of(AUTHOR_A),
        nonce: [7; 32],
    };
    let joined = [genesis.key(), genesis.encode()].join(&b'\n');
    fuzz(&Corpus::new([joined]), |input| {
        let Some(at) = input.iter().position(|byte| *byte == b'\n') else {
            return false;
        };
        let (key, value) = (&input[..at], &input[at + 1..]);
        let Some(genesis) = Genesis::decode(key, value) else {
            return false;
        };
        assert_eq!(genesis.key(), key, "there is one key");
        assert_eq!(genesis.encode(), value, "there is one value");
        assert!(key.starts_with(format!("/stores/{}/", genesis.store()).as_bytes()));
        true
    });
}

#[test]
fn m13_reserved_key() {
    let keys = [
        role_key(&author_of(AUTHOR_A)),
        Bytes::from(format!("/nodes/{}/info", author_of(AUTHOR_A))),
        Bytes::from(format!("/stores/{STORE}/name")),
        Bytes::from_static(b"/invites/ab"),
    ];
    fuzz(&Corpus::new(keys), |input| {
        let key = Bytes::copy_from_slice(input);
        let put = Op::Put {
            key: key.clone(),
            value: Bytes::from_static(b"admin"),
            expires_ms: None,
        };
        let claimed = claim(&put);
        let prefixes: [&[u8]; 3] = [b"/nodes/", b"/invites/", b"/stores/"];
        let is_reserved = prefixes.iter().any(|prefix| key.starts_with(prefix));
        assert_eq!(claimed.is_some(), is_reserved);
        let delete = claim(&Op::Delete { key });
        assert_eq!(delete.is_some(), is_reserved);
        // No look-alike of an id: upper case, no hyphens, leading zeros.
        let text = String::from_utf8_lossy(input);
        match claimed {
            Some(Claim::Of(node) | Claim::Act(node)) => {
                assert!(text.starts_with(&format!("/nodes/{node}/")));
            }
            Some(Claim::Founder(store) | Claim::Genesis(store, _)) => {
                assert!(text.starts_with(&format!("/stores/{store}/")));
            }
            Some(Claim::Authority | Claim::Void) | None => {}
        }
        claimed.is_some_and(|claim| claim != Claim::Void)
    });
}

#[test]
fn l9_pattern() {
    let texts = ["/jobs/*/done", "/**", "/a?c\\*", "/exact", "/*/*/**/x*"];
    let mut random = Random::new(3);
    let keys = Corpus::new(["/jobs/1/done", "/", "/abc*", "/exact", "/a/b/c/x"]);
    fuzz(&Corpus::new(texts), |input| {
        let Ok(pattern) = Pattern::new(Bytes::copy_from_slice(input)) else {
            return false;
        };
        assert!(pattern.text().len() <= PATTERN_BYTES_MAX);
        assert!(pattern.head().len() <= input.len());
        let key = keys.mutant(&mut random);
        if pattern.matches(&key) {
            assert!(key.starts_with(pattern.head()));
        }
        true
    });
}

#[test]
fn l9_prefixes() {
    fuzz(&Corpus::new(["/a\n/b\n/a/b", "/jobs/\n/jobs/1"]), |input| {
        let split = input.split(|byte| *byte == b'\n');
        let prefixes: Vec<Bytes> = split.map(Bytes::copy_from_slice).collect();
        let covering = cover(prefixes.clone());
        for prefix in &prefixes {
            let mut by = covering.iter();
            assert_eq!(by.by_ref().filter(|it| prefix.starts_with(it)).count(), 1);
            assert!(prefix.starts_with(&common_prefix(&prefixes)));
        }
        covering.iter().all(|prefix| !prefix.is_empty())
    });
}

#[test]
fn l9_l14_config_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let texts = [
        "name = 'kitchen'\nbind = '[::1]:4711'\nmdns = false # a comment\nrelay = 'n0'\n",
        "metrics = \"127.0.0.1:9464\"\nrelay = \"https://r.example\"\n",
        "socket_mode = \"0660\"\nsocket_group = 'staff'\n",
    ];
    fuzz(&Corpus::new(texts), |input| {
        std::fs::write(&path, input).unwrap();
        match FileConfig::read(dir.path()) {
            Ok(_read) => true,
            Err(error) => {
                assert!(error.to_string().contains("config.toml"), "{error}");
                false
            }
        }
    });
}

#[cfg(feature = "hooks")]
#[test]
fn l5_line_of_a_hook() {
    use lattice::hooks::{LineOp, LogPlace, parse_line};

    let lines = [
        r#"{"key": "/index/a", "value": "1", "ttl_ms": 60000}"#,
        r#"{"key_base64": "/w==", "value_base64": "AA=="}"#,
        r#"{"key": "/index/b", "delete": true, "heads": [1, {"a": null}]}"#,
        r#"{"seq": 1, "ops": [{"kind": "put", "key": "/a", "value": "1", "expires_ms": 5}]}"#,
    ];
    let broken = [
        r#"{"key": "/a"}"#,
        r#"{"value": "1"}"#,
        r#"{"key": "/a", "value": "1", "delete": true}"#,
        r#"{"key": "/a", "key_base64": "/w==", "value": "1"}"#,
        r#"{"kind": "delete", "key": "/a", "value": "1"}"#,
        r#"{"ops": [{"ops": []}]}"#,
    ];
    fuzz(&Corpus::new(lines).broken(broken), |input| {
        let Ok(ops) = parse_line(input) else {
            return false;
        };
        let bytes = |op: &LineOp| op.key.len() + op.value.as_ref().map_or(0, Vec::len);
        assert!(ops.iter().map(bytes).sum::<usize>() <= input.len());
        true
    });
    fuzz(&Corpus::new([[7; 16]]), |input| {
        let place = LogPlace::from_bytes(input);
        place.is_some_and(|place| {
            assert_eq!(place.to_bytes(), input);
            true
        })
    });
}
