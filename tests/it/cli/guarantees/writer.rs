//! Writers at one node, while it is killed, paused and cut off.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lattice::{
    api::client::Client,
    id::EntryId,
    wire::api::{BatchRequest, DeleteRequest, Op, PutRequest, PutStreamRequest, Written},
};
use tonic::{Response, Status};

use super::{
    histories::{World, add},
    wire,
};
use crate::support::random::Random;

/// Writes at one node until the history ends. Returns the acknowledged entries.
pub(super) async fn write(
    at: usize,
    floods: bool,
    world: Arc<World>,
    mut random: Random,
) -> BTreeSet<EntryId> {
    let mut acknowledged = BTreeSet::new();
    let mut client = world.lives[at].client().await;
    let mut note = |written: Written| {
        // A delete of a key without a value writes nothing.
        if !written.entry.is_empty() {
            acknowledged.insert(wire::entry(&written.entry));
        }
    };
    if floods {
        // Long enough for some reads here.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for time in 0..FLOOD {
            let bytes = if time < FLOOD_LARGE { 40_000 } else { 0 };
            let written = put(&mut client, "/flood", vec![b'~'; bytes], None).await;
            note(written.unwrap().into_inner());
        }
        world.floods.store(false, Ordering::Release);
    }
    while !world.is_over() {
        match some(&mut client, &world, &mut random).await {
            Ok(written) => written.into_iter().for_each(&mut note),
            // It has ended, and comes back.
            Err(_gone) => client = world.lives[at].client().await,
        }
        tokio::time::sleep(Duration::from_millis(random.below(12) as u64)).await;
    }
    acknowledged
}

async fn some(
    client: &mut Client,
    world: &World,
    random: &mut Random,
) -> Result<Vec<Written>, Status> {
    let mut keys = KEYS.to_vec();
    random.shuffle(&mut keys);
    let (key, value) = (keys[0], random.bits().to_string());
    let ops = keys[..2 + random.below(3)].iter().map(|key| Op {
        key: (*key).into(),
        delete: *key == "/h/0",
        value: value.clone().into(),
        ..Op::default()
    });
    let store = String::new();
    let written = match random.below(8) {
        0 => {
            let ops = ops.collect();
            let written = client.batch(BatchRequest { store, ops }).await;
            add(&world.counts.batches, u64::from(written.is_ok()));
            written
        }
        // They may share an entry, and are no batch.
        1 => {
            let ops = ops.collect();
            let request = tokio_stream::once(PutStreamRequest { store, ops });
            let mut replies = client.put_stream(request).await?.into_inner();
            let reply = replies.message().await?.unwrap_or_default();
            let results = reply.results.into_iter();
            return Ok(results.filter_map(|result| result.written).collect());
        }
        2 => {
            let key = key.into();
            let request = DeleteRequest {
                key,
                ..DeleteRequest::default()
            };
            client.delete(request).await
        }
        3 => {
            let ttl_ms = 20 + random.bits() % 300;
            put(client, "/h/1", value.into(), Some(ttl_ms)).await
        }
        _put => put(client, key, value.into(), None).await,
    };
    Ok(vec![written?.into_inner()])
}

pub(super) async fn put(
    client: &mut Client,
    key: &'static str,
    value: Vec<u8>,
    ttl_ms: Option<u64>,
) -> Result<Response<Written>, Status> {
    let request = PutRequest {
        key: key.into(),
        value: value.into(),
        ttl_ms,
        ..PutRequest::default()
    };
    client.put(request).await
}

const KEYS: [&str; 12] = [
    "/h/0", "/h/1", "/h/10", "/h/2", "/h/3", "/h/4", "/h/5", "/i", "/in/1", "/in/2", "/in/3", "/j",
];
/// Puts at a time: more than the bus keeps, behind more than a watch that nobody reads has on the
/// way.
const FLOOD: usize = 220;
const FLOOD_LARGE: usize = 60;
