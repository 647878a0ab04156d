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
    limits::{
        ACK_TIPS_MAX, ANNOUNCE_EVERY, GOSSIP_INGEST_MAX, GOSSIP_QUEUE_MAX, GOSSIP_STRANGER_WASTE,
    },
    net::{
        address::{Addresses, endpoint_id, node_of},
        mesh::Mesh,
        topic::{Topic, broadcast, topic_id},
    },
    protocol::{
        ack::Ack,
        announce::Announce,
        entry::{EntryError, SignedEntry},
        frontier::Frontier,
    },
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
    mesh: &Arc<Mesh>,
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
                    mesh.want_sync_in_time(&from);
                }
            }
            Ok(Event::NeighborUp(id)) => mesh.want_sync_in_time(&node_of(&id)),
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
            let Received {
                from: node, direct, ..
            } = message;
            match read(mesh, store, message) {
                Some(Ok((author, entry))) => {
                    entries.push(entry);
                    from.push((author, node, direct));
                }
                Some(Err(what)) if direct => mesh.strike(&node, what),
                Some(Err(_passed_on_unread)) => mesh.peers.wasted(&node, 1),
                None => {}
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
                for (outcome, (author, node, direct)) in outcomes.iter().zip(&from) {
                    if matches!(outcome, Ingested::Applied(_)) {
                        mesh.peers.wake_copies(author);
                        // A node that receives it from elsewhere than its author, who has forked,
                        // may be the only one that can show it to the author.
                        let is_authors = *direct && author == node;
                        if !is_authors && store.frontier().tips(author).len() > 1 {
                            mesh.peers.inform(author);
                        }
                    }
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

// Reads a message. Returns the entry in it and its author if it is to be passed to the store, or the
// fault of the node that made the message.
fn read(
    mesh: &Arc<Mesh>,
    store: &Store,
    message: Received,
) -> Option<Result<(Author, Bytes), &'static str>> {
    let Received { from, content, .. } = message;
    let malformed = Some(Err("a malformed gossip message"));
    let Ok(message) = net::Gossip::decode(content) else {
        return malformed;
    };
    match message.kind {
        Some(net::gossip::Kind::Entry(entry)) => {
            let Ok(signed) = SignedEntry::decode(entry.clone()) else {
                return Some(Err("an entry that is none"));
            };
            is_wanted(mesh, store, &from, &signed).then_some(Ok((signed.author, entry)))
        }
        Some(net::gossip::Kind::Announce(bytes)) => {
            announced(mesh, store, from, bytes).err().map(Err)
        }
        Some(net::gossip::Kind::Ack(bytes)) => {
            let Ok(claimed) = Ack::decode(bytes) else {
                return Some(Err("a malformed ack"));
            };
            let node = claimed.claim().node;
            if !mesh.gate.admits(&node) || !mesh.peers.may_waste(&from) {
                mesh.peers.wasted(&from, 1);
                return None;
            }
            if !mesh.take_ack(claimed) {
                return Some(Err("an ack that is not signed by its node"));
            }
            if !mesh.peers.may_state(&node) {
                mesh.peers.wasted(&from, 1);
            }
            None
        }
        None => malformed,
    }
}

// Decides whether an entry is passed to the store, before its signature is checked. Of a neighbour
// that has delivered too much of no use nothing is: a sync brings what it has.
fn is_wanted(mesh: &Arc<Mesh>, store: &Store, from: &Author, entry: &SignedEntry) -> bool {
    let is_known = mesh.node.members().get(&entry.author).is_some();
    if is_known && store.is_tip(&entry.author, &entry.id()) {
        // It is here. Gossip brings it again after a sync, so this is no waste.
        return false;
    }
    let is_taken = mesh.peers.may_waste(from);
    if !is_known {
        mesh.peers.wasted(from, GOSSIP_STRANGER_WASTE);
    }
    if !is_taken {
        mesh.want_sync_in_time(from);
    }
    is_taken
}

// Acts on the outcome of an entry: a sync if entries before it are missing here, a strike if `node`
// made a message that no honest node makes.
fn judge(mesh: &Arc<Mesh>, node: &Author, direct: bool, outcome: &Ingested) {
    if matches!(outcome, Ingested::Duplicate(_) | Ingested::Refused(_)) {
        mesh.peers.wasted(node, 1);
    }
    match outcome {
        // Its prev, a parent or its author's grant is missing here.
        Ingested::Pending { .. } | Ingested::Stranger(_) => mesh.want_sync_in_time(node),
        Ingested::Refused(RefusedEntry::Entry(EntryError::NeedsNewer { .. })) => {}
        Ingested::Refused(reason @ (RefusedEntry::Entry(_) | RefusedEntry::WrongStore { .. }))
            if direct =>
        {
            mesh.strike(node, &reason.to_string())
        }
        // The neighbour passed it on unread, or could not know that it is refused here.
        Ingested::Refused(reason) => tracing::debug!(%reason, "an entry from gossip was refused"),
        Ingested::Applied(_)
        | Ingested::Stored(_)
        | Ingested::Duplicate(_)
        | Ingested::Held { .. } => {}
    }
}

// Handles an announcement. What it says counts for the node that signed it only, and only if that
// is a member and has not said it before; the signature is checked after that. Returns the fault of
// the node that made the message.
fn announced(
    mesh: &Arc<Mesh>,
    store: &Store,
    from: Author,
    bytes: Bytes,
) -> Result<(), &'static str> {
    let claimed = Announce::decode(bytes).map_err(|_error| "a malformed announcement")?;
    let claim = claimed.claim();
    let node = claim.node;
    if claim.store != store.id() {
        return Err("an announcement of another store");
    }
    let is_news = mesh.gate.admits(&node) && mesh.announced.is_news(claim);
    if !is_news || !mesh.peers.may_waste(&from) {
        mesh.peers.wasted(&from, 1);
        return Ok(());
    }
    let announce = claimed
        .verify()
        .map_err(|_error| "an announcement that is not signed by its node")?;
    if !mesh.announced.take(&announce) || !mesh.peers.may_state(&node) {
        mesh.peers.wasted(&from, 1);
        return Ok(());
    }
    let addresses = Addresses::from_wire(&net::Addresses {
        direct: announce.direct,
        relay: announce.relay,
    });
    mesh.peers.hint(&node, &addresses);
    if announce.frontier != store.frontier().hash() {
        mesh.want_sync_in_time(if mesh.peers.is_connected(&node) {
            &node
        } else {
            &from
        });
    }
    Ok(())
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

// Sends an ack to all neighbours each time `wanted` is notified: this node has more on disk. An ack
// that is too large for a message is sent in parts, with the authors that have changed.
async fn acknowledge(mesh: &Mesh, store: &Store, sender: &GossipSender, wanted: &Notify) {
    let mut sent = Frontier::default();
    let mut last = None;
    loop {
        wanted.notified().await;
        loop {
            let whole = mesh.acks.own(mesh.node.id(), store, &mesh.node.root());
            let is_whole = whole.frontier.len() <= ACK_TIPS_MAX;
            let ack = if is_whole {
                Some(whole)
            } else {
                whole.part(&sent, last, ACK_TIPS_MAX)
            };
            let Some(ack) = ack else { break };
            broadcast(sender, net::gossip::Kind::Ack(mesh.node.sign_ack(&ack))).await;
            for (author, tips) in ack.frontier.by_author() {
                sent.set_tips(author, tips.to_vec());
                last = Some(author);
            }
            // One ack for all entries of the meantime.
            tokio::time::sleep(ANNOUNCE_EVERY).await;
            if is_whole {
                break;
            }
        }
    }
}

const _: () = assert!(ANNOUNCE_EVERY.as_nanos() < Duration::from_secs(1).as_nanos());
