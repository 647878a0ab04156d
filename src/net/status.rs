//! Statuses: each side of a connection sends its clock, its addresses and its acks, and again from
//! time to time.
//!
//! A member may send whatever it signs, so the work for one status is bounded: items that cannot be
//! acks are found before there is memory for them, an ack is looked at only if it is the sender's
//! own, for a store that is open here, and the first one for it, and all faults of one status are
//! one strike. A status also has the latest acks of members that the receiver may never meet: each is
//! looked at like one that gossip brings, and they are counted. Statuses of one peer are answered one after the other, at a bounded rate.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::endpoint::{Connection, ReadToEndError, RecvStream, SendStream};
use prost::Message as _;
use tokio::time::{sleep, timeout};

use crate::{
    id::Author,
    limits::{ACKS_RELAYED_MAX, HELLO_TIMEOUT, STATUS_BYTES_MAX},
    net::{address::Addresses, error::PeerError, mesh::Mesh},
    pace::Pace,
    protocol::{ack::Ack, signed::count_items},
    wire::net,
};

/// First byte of a stream that exchanges statuses.
pub(super) const STREAM: u8 = 1;

/// Exchanges statuses with `node` over a stream that this side opens. Returns the number of the start
/// that the connection leads to; `None` if the peer has no store.
///
/// # Errors
/// `PeerError`.
pub(super) async fn exchange(
    mesh: &Arc<Mesh>,
    node: &Author,
    connection: &Connection,
) -> Result<Option<u64>, PeerError> {
    let asked = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&[STREAM]).await?;
        let sent_ms = mesh.node.clock().now_ms();
        send.write_all(&status(mesh, node).encode_to_vec()).await?;
        send.finish()?;
        let reply = receive.read_to_end(STATUS_BYTES_MAX).await;
        let reply = reply.map_err(|error| unread(mesh, node, error))?;
        let now_ms = mesh.node.clock().now_ms();
        // The peer's clock is compared with the middle of the round trip here (Cristian 1989).
        let middle_ms = sent_ms + now_ms.saturating_sub(sent_ms) / 2;
        note(mesh, node, reply.into(), middle_ms).await
    };
    let wait = HELLO_TIMEOUT;
    let asked = timeout(wait, asked).await;
    asked
        .map_err(|_elapsed| PeerError::Silent { wait })?
        // The reason why the connection was closed says more than the error of the stream.
        .map_err(|error| connection.close_reason().map_or(error, PeerError::from))
}

/// Answers the status of a stream that `node` has opened. Returns the number of its start, as
/// [`exchange`].
///
/// # Errors
/// `PeerError`.
pub(super) async fn answer(
    mesh: &Arc<Mesh>,
    node: &Author,
    mut send: SendStream,
    mut receive: RecvStream,
) -> Result<Option<u64>, PeerError> {
    let answered = async {
        // One at a time: a status takes memory and signatures.
        let _turn = mesh.peers.status_turn(node).await;
        let wait_ms = mesh.peers.status_wait_ms(node);
        sleep(Duration::from_millis(wait_ms)).await;
        let request = receive.read_to_end(STATUS_BYTES_MAX).await;
        let request = request.map_err(|error| unread(mesh, node, error))?;
        let now_ms = mesh.node.clock().now_ms();
        let instance = note(mesh, node, request.into(), now_ms).await?;
        send.write_all(&status(mesh, node).encode_to_vec()).await?;
        send.finish()?;
        Ok(instance)
    };
    let wait = HELLO_TIMEOUT;
    let answered = timeout(wait, answered).await;
    answered.map_err(|_elapsed| PeerError::Silent { wait })?
}

fn status(mesh: &Mesh, node: &Author) -> net::Status {
    let room = STATUS_BYTES_MAX - OTHER_BYTES_MAX;
    let acks = mesh.own_acks(room);
    let own_bytes: usize = acks.iter().map(|ack| ack.len() + ACK_FRAME_BYTES).sum();
    net::Status {
        now_ms: mesh.node.clock().now_ms(),
        addresses: Some(Addresses::of(&mesh.endpoint).to_wire()),
        acks,
        relayed_acks: mesh.relayed_acks(node, room.saturating_sub(own_bytes)),
    }
}

// Notes the status that `node` sent. `now_ms`: this node's clock when the peer read its own. Returns
// the number of the peer's start.
async fn note(
    mesh: &Arc<Mesh>,
    node: &Author,
    message: Bytes,
    now_ms: u64,
) -> Result<Option<u64>, PeerError> {
    let (with, from) = (Arc::clone(mesh), *node);
    // Signatures are checked: not on an event loop.
    let reading = tokio::task::spawn_blocking(move || read(&with, &from, message));
    let Read {
        status,
        fault,
        instance,
    } = reading.await.map_err(PeerError::own)?;
    if let Some(what) = fault {
        mesh.strike(node, what);
    }
    let Some(status) = status else {
        let what = "a malformed status";
        return Err(PeerError::Malformed { what });
    };
    let skew_ms = i64::try_from(status.now_ms).unwrap_or(i64::MAX)
        - i64::try_from(now_ms).unwrap_or(i64::MAX);
    mesh.peers
        .seen(node, mesh.node.clock().now_ms(), Some(skew_ms));
    let addresses = Addresses::from_wire(&status.addresses.unwrap_or_default());
    if mesh.peers.found(node, addresses) {
        mesh.keep_addresses(node);
    }
    Ok(instance)
}

// A status that was read.
#[derive(Default)]
struct Read {
    // Without its acks. `None`: it is malformed.
    status: Option<net::Status>,
    // The fault that is a strike.
    fault: Option<&'static str>,
    // The number of the peer's start, as its acks name it.
    instance: Option<u64>,
}

// Reads the status that `node` sent, and keeps its acks. The first bad ack ends it: one strike, however
// many there are.
fn read(mesh: &Mesh, node: &Author, message: Bytes) -> Read {
    let malformed = Read {
        fault: Some("a malformed status"),
        ..Read::default()
    };
    let count = |field| count_items(&message, field, ACK_BYTES_MIN);
    if count(ACKS_FIELD).is_none() || count(RELAYED_FIELD).is_none() {
        return malformed;
    }
    let Ok(mut status) = net::Status::decode(message) else {
        return malformed;
    };
    let mut pace = Pace::start();
    let (mut seen, mut instance) = (BTreeSet::new(), None);
    let mut fault = None;
    for bytes in std::mem::take(&mut status.acks) {
        pace.step();
        let Ok(claimed) = Ack::decode(bytes) else {
            fault = Some("a malformed ack");
            break;
        };
        let claim = claimed.claim();
        // An honest node sends its own acks, one for each store.
        if claim.node != *node {
            continue;
        }
        instance = instance.max(Some(claim.incarnation));
        if seen.insert(claim.store) && !mesh.take_direct_ack(claimed) {
            fault = Some("an ack that is not signed by its node");
            break;
        }
    }
    let relayed = std::mem::take(&mut status.relayed_acks);
    let fault = fault.or_else(|| read_relayed(mesh, node, relayed));
    Read {
        status: Some(status),
        fault,
        instance,
    }
}

// Keeps acks of other members that `node` passes on. They must be signed by those; nothing else about them
// is the fault of `node`. Returns its fault.
fn read_relayed(mesh: &Mesh, node: &Author, acks: Vec<Bytes>) -> Option<&'static str> {
    let mut pace = Pace::start();
    let mut seen = BTreeSet::new();
    for bytes in acks.into_iter().take(ACKS_RELAYED_MAX) {
        pace.step();
        let Ok(claimed) = Ack::decode(bytes) else {
            return Some("a malformed ack of another member");
        };
        let claim = claimed.claim();
        let is_of_other = claim.node != *node && claim.node != mesh.node.id();
        if !is_of_other || claim.is_part || !seen.insert((claim.store, claim.node)) {
            continue;
        }
        if !mesh.take_ack(claimed) {
            return Some("an ack of another member that is not signed by it");
        }
    }
    None
}

fn unread(mesh: &Mesh, node: &Author, error: ReadToEndError) -> PeerError {
    match error {
        ReadToEndError::Read(error) => error.into(),
        ReadToEndError::TooLong => {
            let what = "a status that is too long";
            mesh.strike(node, what);
            PeerError::Malformed { what }
        }
    }
}

// The lists of acks in a status, and the bytes of one at least: a signature and a key.
const ACKS_FIELD: u32 = 3;
const RELAYED_FIELD: u32 = 4;
// Bytes that the frame of an ack takes.
const ACK_FRAME_BYTES: usize = 8;
const ACK_BYTES_MIN: usize = 96;
// Bytes of a status besides its acks: clock and addresses.
const OTHER_BYTES_MAX: usize = 16 << 10;
