//! Gossip: entries that are written here reach every member, mostly within milliseconds.
//!
//! A message is only a hint: it may come late, twice, out of order or never. Any sign that entries
//! are missing starts a sync, which brings all of them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use iroh_gossip::api::{Event, GossipReceiver, GossipSender, JoinOptions};
use prost::Message as _;
use tokio::sync::{Notify, broadcast::error::RecvError, mpsc};
use tokio_stream::StreamExt as _;

use crate::{
    id::Author,
    limits::{ANNOUNCE_EVERY, GOSSIP_ENTRY_BYTES_MAX, GOSSIP_INGEST_MAX, GOSSIP_QUEUE_MAX},
    net::{
        address::{Addresses, endpoint_id, node_of},
        mesh::Mesh,
        topic::{Topic, broadcast, topic_id},
    },
    protocol::entry::EntryError,
    store::{Ingested, RefusedEntry, Store},
    wire::net,
};

/// Carries the entries of one store between this node and its neighbours, until the mesh stops.
pub(super) async fn carry(mesh: Arc<Mesh>, store: Store) {
    let options = JoinOptions {
        bootstrap: mesh.peers.online().iter().filter_map(endpoint_id).collect(),
        subscription_capacity: GOSSIP_QUEUE_MAX,
    };
    let id = topic_id(&mesh.secret, &store.id());
    let (sender, receiver) = match mesh.gossip.subscribe_with_opts(id, options).await {
        Ok(topic) => topic.split(),
        Err(error) => {
            tracing::error!(store = %store.id(), %error, "a store has no gossip; syncs go on");
            return;
        }
    };
    let topic = Topic {
        sender: sender.clone(),
        ack: Arc::default(),
    };
    mesh.topics.add(store.id(), topic.clone());
    let (messages, received) = mpsc::channel(GOSSIP_QUEUE_MAX);
    tokio::select! {
        () = mesh.stop.cancelled() => {}
        () = drain(&mesh, &store, receiver, messages) => {}
        () = receive(&mesh, &store, received) => {}
        () = send(&mesh, &store, &sender) => {}
        () = acknowledge(&mesh, &store, &sender, &topic.ack) => {}
    }
    mesh.topics.remove(&store.id());
}

struct Received {
    // The neighbour that delivered it, not necessarily its author.
    from: Author,
    // True when `from` made the message. False when `from` passed it on, which nodes do unread.
    direct: bool,
    content: Bytes,
}

// Only drains: a reader that waits for a disk loses messages. When `messages` is full, a sync with
// the neighbour brings the entries. `messages` is closed only when the carrying task ends.
async fn drain(
    mesh: &Mesh,
    store: &Store,
    mut receiver: GossipReceiver,
    messages: mpsc::Sender<Received>,
) {
    while let Some(event) = receiver.next().await {
        match event {
            Ok(Event::Received(message)) => {
                let from = node_of(&message.delivered_from);
                let received = Received {
                    from,
                    direct: message.scope.is_direct(),
                    content: message.content,
                };
                if messages.try_send(received).is_err() {
                    mesh.want_sync(&from);
                }
            }
            Ok(Event::NeighborUp(id)) => mesh.want_sync(&node_of(&id)),
            Ok(Event::NeighborDown(_)) => {}
            Ok(Event::Lagged) => mesh.want_sync_any(),
            Err(error) => {
                tracing::warn!(store = %store.id(), %error, "gossip of a store has ended");
                break;
            }
        }
    }
    std::future::pending().await
}

// Passes received entries to the store. Those that came while the last ones were written go
// together.
async fn receive(mesh: &Arc<Mesh>, store: &Store, mut received: mpsc::Receiver<Received>) {
    let mut messages = Vec::new();
    while received.recv_many(&mut messages, GOSSIP_INGEST_MAX).await > 0 {
        let (mut entries, mut from) = (Vec::new(), Vec::new());
        for message in messages.drain(..) {
            match net::Gossip::decode(message.content).map(|message| message.kind) {
                Ok(Some(net::gossip::Kind::Entry(entry))) => {
                    entries.push(entry);
                    from.push((message.from, message.direct));
                }
                Ok(Some(net::gossip::Kind::Announce(announce))) => {
                    announced(mesh, store, message.from, &announce);
                }
                Ok(Some(net::gossip::Kind::Ack(ack))) => {
                    if !mesh.take_ack(ack) && message.direct {
                        mesh.strike(&message.from, "a malformed ack");
                    }
                }
                Ok(None) | Err(_) if message.direct => {
                    mesh.strike(&message.from, "a malformed gossip message");
                }
                Ok(None) | Err(_) => {}
            }
        }
        if entries.is_empty() {
            continue;
        }
        match store.ingest(entries).await {
            Ok(outcomes) => {
                if outcomes.iter().any(|it| matches!(it, Ingested::Applied(_))) {
                    mesh.acknowledge(store);
                }
                for (outcome, (node, direct)) in outcomes.iter().zip(&from) {
                    judge(mesh, node, *direct, outcome);
                }
            }
            // Nothing is lost: the peers have the entries, and the next sync brings them.
            Err(error) => {
                tracing::warn!(store = %store.id(), %error, "entries from gossip were not stored");
            }
        }
    }
}

// Acts on the outcome of an entry: a sync if entries before it are missing here, a strike if `node`
// made a message that no honest node makes.
fn judge(mesh: &Mesh, node: &Author, direct: bool, outcome: &Ingested) {
    match outcome {
        // Its prev, a parent or its author's grant is missing here.
        Ingested::Pending { .. } | Ingested::Stranger(_) => mesh.want_sync(node),
        Ingested::Refused(RefusedEntry::Entry(EntryError::NeedsNewer { .. })) => {}
        Ingested::Refused(reason @ (RefusedEntry::Entry(_) | RefusedEntry::WrongStore { .. }))
            if direct =>
        {
            mesh.strike(node, &reason.to_string())
        }
        // The neighbour passed it on unread, or could not know that it is refused here.
        Ingested::Refused(reason) => tracing::debug!(%reason, "an entry from gossip was refused"),
        Ingested::Applied(_) | Ingested::Duplicate(_) | Ingested::Held { .. } => {}
    }
}

// Handles the announcement of a node that has entries or addresses that this node may miss.
fn announced(mesh: &Mesh, store: &Store, from: Author, announce: &net::Announce) {
    let node = Author::from_slice(&announce.node).unwrap_or(from);
    if let Some(addresses) = &announce.addresses
        && mesh.gate.admits(&node)
    {
        mesh.peers.hint(&node, &Addresses::from_wire(addresses));
    }
    if announce.frontier_hash.as_ref() != store.frontier().hash().0.as_slice() {
        mesh.want_sync(if mesh.peers.is_connected(&node) {
            &node
        } else {
            &from
        });
    }
}

// Sends entries that are written here. An entry that is too large for a message is announced.
async fn send(mesh: &Mesh, store: &Store, sender: &GossipSender) {
    let mut fresh = store.fresh();
    loop {
        let kind = match fresh.recv().await {
            Ok(fresh) => fresh.encoded.map(net::gossip::Kind::Entry),
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return std::future::pending().await,
        };
        let announces = kind.is_none();
        let kind = kind.unwrap_or_else(|| mesh.announcement(store));
        broadcast(sender, kind).await;
        if announces {
            // One announcement for all entries of the meantime.
            tokio::time::sleep(ANNOUNCE_EVERY).await;
        }
    }
}

// Sends an ack to all neighbours each time `wanted` is notified: this node has more on disk.
async fn acknowledge(mesh: &Mesh, store: &Store, sender: &GossipSender, wanted: &Notify) {
    loop {
        wanted.notified().await;
        let ack = mesh.node.sign_ack(&mesh.acks.own(mesh.node.id(), store));
        if ack.len() <= GOSSIP_ENTRY_BYTES_MAX {
            broadcast(sender, net::gossip::Kind::Ack(ack)).await;
        }
        // One ack for all entries of the meantime.
        tokio::time::sleep(ANNOUNCE_EVERY).await;
    }
}

const _: () = assert!(ANNOUNCE_EVERY.as_nanos() < Duration::from_secs(1).as_nanos());
