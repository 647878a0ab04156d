//! Two honest nodes, and a raw client that can send anything.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use iroh::{
    Endpoint, EndpointAddr, RelayMode, SecretKey,
    endpoint::{Connection, ConnectionError, QuicTransportConfig, RecvStream, SendStream, presets},
};
use lattice::{
    id::{Author, EntryId, StoreId},
    net::PeerStatus,
    protocol::{
        entry::{Header, Op, VerifiedEntry, sign},
        frontier::FrontierTip,
        hlc::Hlc,
        membership::role::Role,
        sync::{FrameDecoder, Message},
    },
};
use tokio::time::timeout;

use super::{Peer, SOON, has};
use crate::support::model::header;

pub(super) const HELLO: &[u8] = b"lattice/hello/1";
pub(super) const SYNC: &[u8] = b"lattice/sync/1";
pub(super) const GOSSIP: &[u8] = b"lattice/gossip/1";
/// First bytes of streams of the sync protocol.
pub(super) const STATUS_STREAM: u8 = 1;
pub(super) const SYNC_STREAM: u8 = 2;
/// How connections end.
pub(super) const NOT_A_MEMBER: (u64, &str) = (403, "not a member");
pub(super) const SHUT_OUT: (u64, &str) = (400, "misbehaved");
pub(super) const BUSY: (u64, &str) = (429, "too many connections");

/// Two honest nodes, one of which is attacked.
pub(in crate::mesh) struct Field {
    pub(in crate::mesh) a: Peer,
    pub(in crate::mesh) b: Peer,
    pub(super) puts: std::cell::Cell<u32>,
}

impl Field {
    pub(in crate::mesh) async fn new() -> Self {
        let (a, b) = (Peer::new("a").await, Peer::new("b").await);
        b.join(&a, Role::Admin).await;
        let field = Self {
            a,
            b,
            puts: std::cell::Cell::new(0),
        };
        field.still_works().await;
        field
    }

    /// Each honest node receives the other's writes, and neither blames the other.
    pub(super) async fn still_works(&self) {
        let count = self.puts.get() + 1;
        self.puts.set(count);
        let (a, b) = (self.a.node.root(), self.b.node.root());
        let value = count.to_string();
        a.put("/alive/a", value.clone()).await.unwrap();
        has(&b, "/alive/a", &value).await;
        b.put("/alive/b", value.clone()).await.unwrap();
        has(&a, "/alive/b", &value).await;
        for (peer, other) in [(&self.a, &self.b), (&self.b, &self.a)] {
            let status = status_at(peer, &other.node.id());
            assert_eq!((status.strikes, status.shut_out), (0, None), "{status:?}");
        }
    }

    /// A client whose key is not a member.
    pub(super) async fn stranger(&self, number: u8) -> Raw {
        Raw::new(number).await
    }

    /// A key that is a member, for whoever holds it.
    pub(super) async fn member(&self, number: u8, role: Role) -> Raw {
        let raw = Raw::new(number).await;
        let (secret, _expires_ms) = self.a.node.invite(role, 60_000).await.unwrap();
        self.a.node.redeem(&secret, raw.author()).await.unwrap();
        // The gate follows the members.
        until("the gate knows the member", async || {
            let connection = raw.connect(&self.a, SYNC).await?;
            let mut line = Line::open(&connection, STATUS_STREAM).await?;
            line.send.finish().ok()?;
            let answer = line.receive.read_to_end(4096).await.ok()?;
            (!answer.is_empty()).then_some(())
        })
        .await;
        raw
    }

    pub(super) async fn stop(self) {
        self.still_works().await;
        self.a.stop().await;
        self.b.stop().await;
    }
}

/// How `node` is in the eyes of `peer`.
pub(in crate::mesh) fn status_at(peer: &Peer, node: &Author) -> PeerStatus {
    let mut peers = peer.net.peers().into_iter();
    let found = peers.find(|status| status.node == *node);
    found.expect("it is a member")
}

/// Asks until there is an answer.
pub(in crate::mesh) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(SOON, asking).await {
        Ok(answer) => answer,
        Err(_elapsed) => panic!("not within {SOON:?}: {what}"),
    }
}

/// Waits until `peer` has `strikes` against `node`, the last one for something like `says`.
pub(super) async fn struck(peer: &Peer, node: &Author, strikes: u32, says: &str) {
    let waiting = until("strikes", async || {
        let status = status_at(peer, node);
        let error = status.error.map(|error| error.to_string());
        let said = status.misbehaved.or(error).unwrap_or_default();
        (status.strikes == strikes && said.contains(says)).then_some(())
    });
    if timeout(Duration::from_secs(8), waiting).await.is_err() {
        let status = status_at(peer, node);
        panic!("not {strikes} strikes for {says:?}: {status:?}");
    }
}

/// A client that keeps to no rules.
pub(super) struct Raw {
    pub(super) endpoint: Endpoint,
    pub(super) key: Key,
}

impl Raw {
    pub(super) async fn new(number: u8) -> Self {
        let transport = QuicTransportConfig::builder()
            .send_window(1 << 30)
            .keep_alive_interval(Duration::from_secs(1))
            .build();
        let endpoint = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .secret_key(SecretKey::from_bytes(&[number; 32]))
            .transport_config(transport)
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")
            .unwrap()
            .alpns(vec![HELLO.to_vec(), SYNC.to_vec(), GOSSIP.to_vec()])
            .bind()
            .await
            .unwrap();
        Self {
            endpoint,
            key: Key::new(number),
        }
    }

    pub(super) fn author(&self) -> Author {
        self.key.author()
    }

    /// `None`: refused during the handshake. A client that is refused after the handshake learns
    /// it later.
    pub(super) async fn connect(&self, peer: &Peer, alpn: &[u8]) -> Option<Connection> {
        let dialling = self.endpoint.connect(address(peer), alpn);
        timeout(SOON, dialling).await.unwrap().ok()
    }

    pub(super) async fn connected(&self, peer: &Peer, alpn: &[u8]) -> Connection {
        self.connect(peer, alpn).await.unwrap()
    }

    /// Returns how a connection on `alpn` ends.
    pub(super) async fn refusal(&self, peer: &Peer, alpn: &[u8]) -> (u64, String) {
        let connection = self.connected(peer, alpn).await;
        ending(&connection).await
    }
}

/// A key, and a hostile pen.
pub(super) struct Key(pub(super) SigningKey);

impl Key {
    pub(super) fn new(number: u8) -> Self {
        Self(SigningKey::from_bytes(&[number; 32]))
    }

    pub(super) fn author(&self) -> Author {
        Author(self.0.verifying_key().to_bytes())
    }

    /// Signs entries of a log of its own, one after the other, each putting `key`.
    pub(super) fn chain(
        &self,
        store: StoreId,
        now_ms: u64,
        count: u64,
        key: &str,
    ) -> Vec<VerifiedEntry> {
        let mut entries: Vec<VerifiedEntry> = Vec::new();
        for seq in 1..=count {
            let prev = entries.last().map(|entry| entry.id);
            let op = crate::support::model::put(key, &format!("forged {seq}"));
            entries.push(self.sign(store, (seq, prev), now_ms + seq, vec![op]));
        }
        entries
    }

    pub(super) fn sign(
        &self,
        store: StoreId,
        (seq, prev): (u64, Option<EntryId>),
        wall_ms: u64,
        ops: Vec<Op>,
    ) -> VerifiedEntry {
        let header = Header {
            store,
            seq,
            prev,
            hlc: Hlc {
                wall_ms,
                counter: 0,
            },
            atomic: ops.len() > 1,
            ..header(0)
        };
        sign(&self.0, header, ops).unwrap()
    }
}

pub(super) fn address(peer: &Peer) -> EndpointAddr {
    let addresses = peer.net.addresses().unwrap();
    let id = iroh::EndpointId::from_bytes(&peer.node.id().0).unwrap();
    let places = addresses.direct.into_iter();
    places.fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr)
}

/// Waits until the other side closes: code and reason.
pub(super) async fn ending(connection: &Connection) -> (u64, String) {
    match timeout(SOON, connection.closed()).await {
        Ok(ConnectionError::ApplicationClosed(closed)) => {
            let reason = String::from_utf8_lossy(&closed.reason).into_owned();
            (closed.error_code.into_inner(), reason)
        }
        other => panic!("closed otherwise: {other:?}"),
    }
}

pub(super) fn is(ending: &(u64, String), expected: (u64, &str)) -> bool {
    (ending.0, ending.1.as_str()) == expected
}

/// One stream of the sync protocol.
pub(super) struct Line {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) decoder: FrameDecoder,
    pub(super) ready: VecDeque<Message>,
}

impl Line {
    pub(super) async fn open(connection: &Connection, kind: u8) -> Option<Self> {
        let (mut send, receive) = connection.open_bi().await.ok()?;
        send.write_all(&[kind]).await.ok()?;
        Some(Self {
            send,
            receive,
            decoder: FrameDecoder::default(),
            ready: VecDeque::new(),
        })
    }

    pub(super) async fn sync(connection: &Connection, store: StoreId) -> Self {
        let mut line = Self::open(connection, SYNC_STREAM).await.unwrap();
        line.say(hello(store)).await;
        line.hear("Tips").await;
        line
    }

    pub(super) async fn say(&mut self, message: Message) {
        self.raw(&message.encode()).await;
    }

    // A client that is cut off while it sends finds out when it reads.
    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        drop(self.send.write_all(bytes).await);
    }

    /// Waits for the message `name`, its last page.
    pub(super) async fn hear(&mut self, name: &str) -> Message {
        let message = timeout(SOON, self.next()).await.unwrap();
        let message = message.unwrap_or_else(|| panic!("no {name}: the stream is over"));
        assert_eq!(message.name(), name, "{message:?}");
        message
    }

    /// `None`: the stream ended.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let chunk = self.receive.read_chunk(64 << 10).await.ok()??;
            self.ready.extend(self.decoder.push(&chunk).unwrap());
        }
    }

    /// Waits until the other side says nothing any more; returns the last thing it said.
    pub(super) async fn over(&mut self) -> Option<Message> {
        let mut last = None;
        let rest = async {
            while let Some(message) = self.next().await {
                last = Some(message);
            }
        };
        timeout(SOON, rest).await.expect("the stream ends");
        last
    }
}

pub(super) fn hello(store: StoreId) -> Message {
    Message::Hello {
        version: 1,
        newest: 1,
        store,
        frontier: None,
    }
}

pub(super) fn tips(tips: &[(Author, FrontierTip)]) -> Message {
    Message::Tips {
        tips: tips.to_vec(),
        last: true,
    }
}

pub(super) fn tip(entry: &VerifiedEntry) -> (Author, FrontierTip) {
    let tip = FrontierTip {
        seq: entry.header.seq,
        id: entry.id,
    };
    (entry.author(), tip)
}

pub(super) fn encoded(entry: &VerifiedEntry) -> Bytes {
    entry.signed.encode().into()
}

pub(super) fn entries<'a>(entries: impl IntoIterator<Item = &'a VerifiedEntry>) -> Message {
    Message::Entries(entries.into_iter().map(encoded).collect())
}

// A key for which the plain check of signatures accepts a forgery.
pub(super) fn small_order_forgery(entry: &VerifiedEntry) -> Bytes {
    let mut signed = entry.signed.clone();
    signed.author = SMALL_ORDER;
    signed.signature = [0; 64];
    signed.signature[0] = 1;
    signed.encode().into()
}

/// The neutral element of the curve.
pub(super) const SMALL_ORDER: Author = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    Author(bytes)
};

/// Offers entries like a peer that has them, and waits until the session ends.
pub(super) async fn offer(
    connection: &Connection,
    store: StoreId,
    all: &[VerifiedEntry],
) -> Option<Message> {
    let mut line = Line::sync(connection, store).await;
    line.say(tips(&[tip(all.last().unwrap())])).await;
    line.hear("Want").await;
    line.say(entries(all)).await;
    line.say(Message::Sent).await;
    line.say(Message::Done).await;
    line.over().await
}
