//! The gossip topics of the stores that this node carries.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use iroh::EndpointId;
use iroh_gossip::{api::GossipSender, proto::TopicId};
use prost::Message as _;
use tokio::sync::Notify;

use crate::{id::StoreId, limits::GOSSIP_BYTES_MAX, wire::net};

/// The topic of each store that is carried.
#[derive(Debug, Default)]
pub(super) struct Topics(
    // Bounded by the number of open stores. Never held across an await; no other lock is taken
    // meanwhile.
    Mutex<BTreeMap<StoreId, Topic>>,
);

/// How to reach everybody who carries a store.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) sender: GossipSender,
    /// Notified when this node has more on disk than it has acknowledged.
    pub(super) ack: Arc<Notify>,
}

impl Topics {
    /// Adds the topic of `store`. The task that carries the store removes it when it ends.
    pub(super) fn add(&self, store: StoreId, topic: Topic) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.insert(store, topic);
    }

    pub(super) fn remove(&self, store: &StoreId) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.remove(store);
    }

    /// Returns the topic of `store`; `None` while it is not carried.
    pub(super) fn get(&self, store: &StoreId) -> Option<Topic> {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.get(store).cloned()
    }

    /// Asks a peer into every topic. The connection is handed to gossip next.
    pub(super) async fn join(&self, id: EndpointId) {
        let topics: Vec<_> = {
            let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            topics.values().cloned().collect()
        };
        for topic in topics {
            if let Err(error) = topic.sender.join_peers(vec![id]).await {
                tracing::debug!(%error, "a peer was not asked into a topic");
            }
        }
    }
}

/// Returns the topic of a store. Nodes that do not know the mesh's secret cannot derive it.
pub(super) fn topic_id(secret: &[u8; 32], store: &StoreId) -> TopicId {
    let mut hasher = blake3::Hasher::new_derive_key("lattice/gossip topic/v1");
    hasher.update(secret).update(&store.0);
    TopicId::from_bytes(*hasher.finalize().as_bytes())
}

/// Sends a message to all neighbours, who pass it on.
///
/// # Panics
/// When the message is longer than gossip carries.
pub(super) async fn broadcast(sender: &GossipSender, kind: net::gossip::Kind) {
    let message = net::Gossip { kind: Some(kind) }.encode_to_vec();
    // A longer message would silence a neighbour for good, without an error.
    assert!(
        message.len() <= GOSSIP_BYTES_MAX - 64,
        "a gossip message of {} bytes",
        message.len()
    );
    if let Err(error) = sender.broadcast(message.into()).await {
        tracing::debug!(%error, "a gossip message was not sent");
    }
}
