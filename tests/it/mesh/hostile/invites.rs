//! Worthless invites, and hosts that mislead a joiner.

use lattice::{
    net::{Invitation, InvitationError, JoinError},
    wire::net::HelloReply,
};
use prost::Message as _;

use super::{
    strangers::{greet, refused, request},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn m8_m9_invite_works_once_in_time_at_its_issuer() {
    let field = Field::new().await;
    let (a, store) = (&field.a, field.a.node.root().id());
    let word = async |raw: &Raw, peer: &Peer, secret: &[u8; 32]| {
        let answer = greet(raw, peer, &request(1, store, secret)).await.unwrap();
        refused(&answer)
    };
    let (first, second) = (field.stranger(10).await, field.stranger(11).await);

    eprintln!("M8 used");
    let (secret, _expires_ms) = a.node.invite(Role::Writer, 60_000).await.unwrap();
    let answer = greet(&first, a, &request(1, store, &secret)).await.unwrap();
    assert_eq!(
        HelloReply::decode(answer.as_slice()).unwrap().role,
        "writer"
    );
    let (used, reason) = word(&second, a, &secret).await;
    assert_eq!(used, "invite_used");
    assert!(!reason.contains(&first.author().to_string()), "{reason}");
    assert!(a.node.members().role(&second.author()).is_none());

    eprintln!("M8 shown again by who used it: its answer may have been lost");
    let again = greet(&first, a, &request(1, store, &secret)).await.unwrap();
    assert_eq!(again, answer);

    eprintln!("M8 raced");
    let (secret, _expires_ms) = a.node.invite(Role::Writer, 60_000).await.unwrap();
    let race = async |number| {
        let raw = field.stranger(number).await;
        let answer = greet(&raw, a, &request(1, store, &secret)).await.unwrap();
        let refused = HelloReply::decode(answer.as_slice()).unwrap().refused;
        (refused, a.node.members().role(&raw.author()).is_some())
    };
    let (one, two, three, four) = tokio::join!(race(12), race(13), race(14), race(15));
    let mut words = [one, two, three, four];
    words.sort();
    let used = ("invite_used".to_owned(), false);
    assert_eq!(
        words,
        [(String::new(), true), used.clone(), used.clone(), used]
    );

    eprintln!("M9 expired");
    let (secret, expires_ms) = a.node.invite(Role::Writer, 1).await.unwrap();
    until("it has expired", async || {
        (a.node.clock().now_ms() > expires_ms).then_some(())
    })
    .await;
    assert_eq!(word(&second, a, &secret).await.0, "invite_expired");

    eprintln!("M8 foreign: shown to another node of the mesh");
    let (secret, _expires_ms) = a.node.invite(Role::Writer, 60_000).await.unwrap();
    field.still_works().await;
    assert_eq!(word(&second, &field.b, &secret).await.0, "not_invited");

    eprintln!("M4 a removed key with a new invitation");
    a.node.remove(&first.author()).await.unwrap();
    let (removed, reason) = word(&first, a, &secret).await;
    assert_eq!(removed, "removed", "{reason}");
    assert!(a.node.members().role(&first.author()).is_none());
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_mistyped_token_is_found_locally() {
    let field = Field::new().await;
    let invitation = field.a.net.invite(Role::Writer, 60_000).await.unwrap();
    let token = invitation.to_string();
    assert_eq!(token.parse::<Invitation>(), Ok(invitation));
    for place in 0..token.len() {
        for letter in ['a', '7', '!', '0'] {
            let mut mistyped: Vec<char> = token.chars().collect();
            if std::mem::replace(&mut mistyped[place], letter) == letter {
                continue;
            }
            let mistyped: String = mistyped.into_iter().collect();
            let parsed = mistyped.parse::<Invitation>();
            assert!(
                matches!(parsed, Err(InvitationError::Garbage { .. })),
                "{mistyped}"
            );
        }
        let cut = token[..place].parse::<Invitation>();
        assert!(matches!(cut, Err(InvitationError::Garbage { .. })));
    }
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_host_changes_nothing_on_a_joiner() {
    let honest = Peer::new("c").await;
    let root = honest.node.root().id();
    let genuine = HelloReply {
        creator: Bytes::copy_from_slice(&[5; 32]),
        nonce: Bytes::copy_from_slice(&[6; 32]),
        role: "writer".to_owned(),
        ..HelloReply::default()
    };
    let refusing = HelloReply {
        refused: "invite_used".to_owned(),
        reason: "so".to_owned(),
        ..HelloReply::default()
    };
    let answers = [
        ("a genesis of another store", genuine.encode_to_vec()),
        ("rubbish", vec![0xff; 100]),
        ("nothing", Vec::new()),
        ("an endless answer", vec![0; 1 << 20]),
        ("a refusal", refusing.encode_to_vec()),
    ];
    let host = Raw::new(10).await;
    let address = host.endpoint.addr();
    let invitation = Invitation {
        node: host.author(),
        addresses: lattice::net::Addresses {
            direct: address.ip_addrs().copied().collect(),
            relay: None,
        },
        store: StoreId([8; 16]),
        secret: [3; 32],
        expires_ms: u64::MAX,
    };
    for (name, answer) in answers {
        let (events, _told) = tokio::sync::mpsc::channel(64);
        let joining = honest
            .net
            .join(&invitation, lattice::node::OwnData::Shared, &events);
        let answering = async {
            let incoming = host.endpoint.accept().await.unwrap();
            let connection = incoming.await.unwrap();
            let (mut send, mut receive) = connection.accept_bi().await.unwrap();
            receive.read_to_end(4096).await.unwrap();
            drop(send.write_all(&answer).await);
            drop(send.finish());
            connection.closed().await;
        };
        let meeting = Box::pin(async { tokio::join!(joining, answering) });
        let (joined, ()) = timeout(SOON, meeting).await.unwrap();
        match joined {
            Err(JoinError::Refused { word, .. }) => {
                assert_eq!((name, word.as_str()), ("a refusal", "invite_used"))
            }
            Err(JoinError::Unreachable { node, .. }) => {
                assert_ne!(name, "a refusal");
                assert_eq!(node, host.author());
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(honest.node.root().id(), root);
    }
    honest.node.root().put("/still", "here").await.unwrap();
    honest.stop().await;
}
