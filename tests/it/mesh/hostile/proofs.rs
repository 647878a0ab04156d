//! Proofs of membership that prove nothing.

use lattice::{
    limits::{HELLO_BYTES_MAX, HELLOS_MAX, PROOF_GRANTS_MAX},
    protocol::{
        entry::Parent,
        membership::role::{Act, role_key},
    },
    wire::net::{HelloReply, HelloRequest},
};
use prost::Message as _;

use super::{
    strangers::{greet, refused, request},
    *,
};

fn showing(store: StoreId, proof: &[Bytes]) -> Vec<u8> {
    let request = HelloRequest {
        version: 1,
        store_id: Bytes::copy_from_slice(&store.0),
        proof: proof.to_vec(),
        ..HelloRequest::default()
    };
    request.encode_to_vec()
}

/// The grant that made `node` what it is at `peer`.
async fn grant_of(peer: &Peer, node: &Author) -> Parent {
    let heads = peer.node.root().heads(&role_key(node)).await.unwrap();
    let entry = &heads.first().unwrap().entry;
    Parent {
        hlc: entry.hlc,
        author: entry.author,
        id: entry.id,
        seq: entry.seq,
    }
}

impl Key {
    /// Signs a grant that no node has seen yet.
    fn grants(
        &self,
        store: StoreId,
        by: Option<Parent>,
        now_ms: u64,
        to: &Author,
    ) -> VerifiedEntry {
        let op = Op::Put {
            key: role_key(to),
            value: Act::Grant(Role::Admin).encode(),
            expires_ms: None,
        };
        let header = Header {
            store,
            parents: by.into_iter().collect(),
            ..header(now_ms)
        };
        sign(&self.0, header, vec![op]).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_worthless_proof_is_refused() {
    let field = Field::new().await;
    let (a, now_ms) = (&field.a, field.a.node.clock().now_ms() + 1000);
    let root = a.node.root();
    let store = root.id();
    let (stranger, other) = (field.stranger(10).await, Key::new(11));
    let me = stranger.author();
    let admin = field.member(12, Role::Admin).await;
    let writer = field.member(13, Role::Writer).await;
    let reader = field.member(14, Role::Reader).await;
    let gone = field.member(15, Role::Admin).await;
    let authority = grant_of(a, &admin.author()).await;
    let of_writer = grant_of(a, &writer.author()).await;
    let of_reader = grant_of(a, &reader.author()).await;
    let of_gone = grant_of(a, &gone.author()).await;
    let shown_by_gone = root.proof(&gone.author()).await.unwrap();
    let of_admin = root.proof(&admin.author()).await.unwrap();
    a.node.remove(&gone.author()).await.unwrap();

    let good = encoded(&admin.key.grants(store, Some(authority), now_ms, &me));
    let forged = {
        let mut signed = admin
            .key
            .grants(store, Some(authority), now_ms, &me)
            .signed
            .clone();
        signed.signature[9] ^= 1;
        Bytes::from(signed.encode())
    };
    let by = |key: &Key, authority, to: &Author| encoded(&key.grants(store, authority, now_ms, to));
    let elsewhere = encoded(
        &admin
            .key
            .grants(StoreId([9; 16]), Some(authority), now_ms, &me),
    );
    let through_other = by(&admin.key, Some(authority), &other.author());
    let scripts = [
        ("rubbish", vec![Bytes::from_static(&[0xff; 300])]),
        ("no bytes", vec![Bytes::new()]),
        ("a forged signature", vec![forged.clone()]),
        ("a grant in another mesh", vec![elsewhere]),
        ("a grant of its own", vec![by(&stranger.key, None, &me)]),
        (
            "a grant by a stranger",
            vec![by(&other, Some(authority), &me)],
        ),
        (
            "a grant by a writer",
            vec![by(&writer.key, Some(of_writer), &me)],
        ),
        (
            "a grant by a reader",
            vec![by(&reader.key, Some(of_reader), &me)],
        ),
        (
            "a grant by an admin who was removed",
            vec![by(&gone.key, Some(of_gone), &me)],
        ),
        (
            "an admin that cites no authority",
            vec![by(&admin.key, None, &me)],
        ),
        (
            "an admin that cites another's",
            vec![by(&admin.key, Some(of_gone), &me)],
        ),
        ("the grant of somebody else", vec![through_other.clone()]),
        (
            "a chain with a hole",
            vec![through_other.clone(), good.clone()],
        ),
        (
            "a chain backwards",
            [vec![good.clone()], of_admin.clone()].concat(),
        ),
        (
            "small order",
            vec![small_order_forgery(&admin.key.grants(
                store,
                Some(authority),
                now_ms,
                &me,
            ))],
        ),
        ("too many grants", vec![good.clone(); PROOF_GRANTS_MAX + 1]),
        ("a good one after a forged one", vec![forged, good.clone()]),
    ];
    let guess = greet(&stranger, a, &request(1, store, &[1; 32]))
        .await
        .unwrap();
    assert_eq!(refused(&guess).0, "not_invited");
    for (name, proof) in scripts {
        eprintln!("M1 {name}");
        let answer = greet(&stranger, a, &showing(store, &proof)).await.unwrap();
        assert_eq!(answer, guess, "{name}");
        assert!(is(&stranger.refusal(a, SYNC).await, NOT_A_MEMBER), "{name}");
    }
    eprintln!("M4 who was removed shows the grant that it had");
    let answer = greet(&gone, a, &showing(store, &shown_by_gone))
        .await
        .unwrap();
    // Nobody else learns that: the connection shows that it has that key.
    assert_eq!(refused(&answer).0, "removed");
    let answer = greet(&stranger, a, &showing(store, &shown_by_gone))
        .await
        .unwrap();
    assert_eq!(answer, guess);
    assert!(is(&gone.refusal(a, SYNC).await, NOT_A_MEMBER));
    eprintln!("M1 a proof for another mesh");
    let lost = showing(StoreId([9; 16]), std::slice::from_ref(&good));
    assert_eq!(greet(&stranger, a, &lost).await.unwrap(), guess);
    eprintln!("N1 a proof that is too long, or does not end");
    let padded = vec![Bytes::from(vec![7; HELLO_BYTES_MAX])];
    assert!(greet(&stranger, a, &showing(store, &padded)).await.is_err());
    assert!(greet(&stranger, a, &vec![0; 4 << 20]).await.is_err());
    eprintln!("N8 many at once");
    let mut many = Vec::new();
    for _ in 0..4 * HELLOS_MAX {
        let connection = stranger.connected(a, HELLO).await;
        if let Ok((mut send, receive)) = connection.open_bi().await {
            drop(
                send.write_all(&showing(store, std::slice::from_ref(&through_other)))
                    .await,
            );
            drop(send.finish());
            many.push((connection, receive));
        }
    }
    for (connection, mut receive) in many {
        // Answered, or hung up for the next one.
        match timeout(SOON, receive.read_to_end(64 << 10)).await.unwrap() {
            Ok(answer) => assert_eq!(answer, guess),
            Err(_cut) => assert!(is(&ending(&connection).await, BUSY)),
        }
        connection.close(0_u32.into(), b"");
    }
    assert!(a.node.members().get(&me).is_none(), "nothing is kept");
    assert_eq!(root.frontier().tips(&admin.author()), [], "nothing is kept");

    eprintln!("M1 a good one");
    let answer = greet(&stranger, a, &showing(store, &[good])).await.unwrap();
    let reply = HelloReply::decode(answer.as_slice()).unwrap();
    assert_eq!((reply.refused.as_str(), reply.role.as_str()), ("", "admin"));
    assert_eq!((reply.creator.len(), reply.nonce.len()), (0, 0), "it knows");
    let connection = stranger.connected(a, SYNC).await;
    Line::sync(&connection, store).await;
    assert!(a.node.members().get(&me).is_none(), "no entry has come yet");
    eprintln!("M4 it holds until who granted it is removed");
    a.node.remove(&admin.author()).await.unwrap();
    assert!(is(&ending(&connection).await, NOT_A_MEMBER));
    assert!(is(&stranger.refusal(a, SYNC).await, NOT_A_MEMBER));
    field.stop().await;
}
