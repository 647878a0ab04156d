//! The signed entry of a change, for those who check it themselves.

use bytes::Bytes;

use crate::{
    id::EntryId,
    protocol::{
        change::{Change, Kind},
        entry::{Entry, VerifiedEntry},
    },
    store::{ReadError, Store},
    wire::api::{self, watch_reply::Event},
};

/// What was found last: the changes of an entry come one after the other.
#[derive(Clone)]
pub(super) struct Found {
    id: EntryId,
    // Or why there is no proof.
    proof: Result<Proof, String>,
}

#[derive(Clone)]
struct Proof {
    entry: VerifiedEntry,
    encoded: Bytes,
}

/// Adds the proof to the reply about `change`, or why there is none.
pub(super) async fn add(
    store: Store,
    last: Option<Found>,
    change: std::sync::Arc<Change>,
    mut reply: api::WatchReply,
) -> (api::WatchReply, Option<Found>) {
    let Some(Event::Change(told)) = &mut reply.event else {
        return (reply, last);
    };
    if matches!(change.kind, Kind::Expire | Kind::Retract) {
        told.proof_missing = "nobody signs this: it is what this node saw".to_owned();
        return (reply, last);
    }
    let found = match last.filter(|last| last.id == change.entry.id) {
        Some(found) => found,
        None => Found {
            id: change.entry.id,
            proof: find(&store, &change).await,
        },
    };
    match &found.proof {
        Ok(proof) => fill(told, proof),
        Err(why) => told.proof_missing.clone_from(why),
    }
    (reply, Some(found))
}

async fn find(store: &Store, change: &Change) -> Result<Proof, String> {
    let found = store.entry(change.entry).await;
    let entry = found.map_err(|error: ReadError| error.to_string())?;
    let entry = entry.ok_or("the log does not have the entry any more")?;
    // Most were let in by a later signature that speaks for them.
    let checked = Entry::clone(&entry);
    match tokio::task::spawn_blocking(|| checked.verify()).await {
        Ok(Ok(entry)) => Ok(Proof {
            encoded: entry.signed.encode().into(),
            entry,
        }),
        Ok(Err(_odd)) => Err(
            "its own signature does not verify: a later entry of its author \
                              speaks for it"
                .to_owned(),
        ),
        Err(_stopped) => Err("the node is stopping".to_owned()),
    }
}

// Also where the op is: the state at the start of a watch does not know it.
fn fill(told: &mut api::Change, proof: &Proof) {
    let ops = &proof.entry.ops;
    let index = ops.iter().position(|op| *op.key() == told.key);
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    told.op_index = index.map_or(told.op_index, number);
    told.op_count = number(ops.len());
    told.atomic = proof.entry.header.atomic;
    told.proof = proof.encoded.clone();
}
