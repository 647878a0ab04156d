//! Who writes at one node, whatever becomes of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lattice::{
    api::client::Client,
    id::EntryId,
    wire::api::{BatchRequest, DeleteRequest, Op, PutRequest, Written},
};
use tonic::{Response, Status};

use super::{World, add, wire};
use crate::random::Random;

/// Writes at one node until it is over. Returns the entries that were acknowledged.
pub(super) async fn write(
    at: usize,
    floods: bool,
    world: Arc<World>,
    mut random: Random,
) -> BTreeSet<EntryId> {
    let mut acknowledged = BTreeSet::new();
    let mut client = world.lives[at].client().await;
    let mut note = |written: &Result<Response<Written>, Status>| match written {
        Ok(written) => acknowledged.insert(wire::entry(&written.get_ref().entry)),
        Err(_gone) => false,
    };
    if floods {
        world.set_floods(true);
        for _time in 0..FLOOD {
            let written = put(&mut client, "/flood", vec![b'~'; 40_000], None).await;
            note(&written);
        }
        world.set_floods(false);
    }
    while !world.is_over() {
        let written = some(&mut client, &world, &mut random).await;
        if !note(&written) {
            // It has ended, and comes back.
            client = world.lives[at].client().await;
        }
        tokio::time::sleep(Duration::from_millis(random.below(12) as u64)).await;
    }
    acknowledged
}

async fn some(
    client: &mut Client,
    world: &World,
    random: &mut Random,
) -> Result<Response<Written>, Status> {
    let key = KEYS[random.below(KEYS.len())];
    let value = random.bits().to_string();
    match random.below(7) {
        0 => {
            let mut keys = KEYS.to_vec();
            random.shuffle(&mut keys);
            let op = |key: &&'static str| Op {
                key: (*key).into(),
                delete: *key == "/h/0",
                value: value.clone().into(),
                ..Op::default()
            };
            let ops = keys[..2 + random.below(3)].iter().map(op).collect();
            let store = String::new();
            let written = client.batch(BatchRequest { store, ops }).await;
            add(&world.counts.batches, u64::from(written.is_ok()));
            written
        }
        1 => {
            let key = key.into();
            let request = DeleteRequest {
                key,
                ..DeleteRequest::default()
            };
            client.delete(request).await
        }
        2 => {
            let ttl_ms = 20 + random.bits() % 300;
            put(client, "/h/1", value.into(), Some(ttl_ms)).await
        }
        _put => put(client, key, value.into(), None).await,
    }
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
/// Puts at a time: more than a watch that nobody reads has on the way, and more than the bus keeps.
const FLOOD: usize = 130;
