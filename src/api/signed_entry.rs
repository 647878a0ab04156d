//! The signed entry behind a change, for clients that verify signatures themselves.

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

/// The entry that was looked up last. The changes of one entry follow each other, so each entry is
/// looked up once.
#[derive(Clone)]
pub(super) struct Found {
    id: EntryId,
    // The error is the reason, for people, why the change has no signed entry.
    signed: Result<Signed, String>,
}

#[derive(Clone)]
struct Signed {
    entry: VerifiedEntry,
    encoded: Bytes,
}

/// Adds the signed entry of `change` to `reply`, or the reason why it has no signed entry.
pub(super) async fn add(
    store: Store,
    last: Option<Found>,
    change: std::sync::Arc<Change>,
    mut reply: api::WatchReply,
) -> (api::WatchReply, Option<Found>) {
    let Some(Event::Change(message)) = &mut reply.event else {
        return (reply, last);
    };
    if matches!(change.kind, Kind::Expire | Kind::Retract | Kind::Gap) {
        message.proof_missing =
            "no author signs this kind of change: this node derived it".to_owned();
        return (reply, last);
    }
    let found = match last.filter(|last| last.id == change.entry.id) {
        Some(found) => found,
        None => Found {
            id: change.entry.id,
            signed: find(&store, &change).await,
        },
    };
    match &found.signed {
        Ok(signed) => fill(message, signed),
        Err(why) => message.proof_missing.clone_from(why),
    }
    (reply, Some(found))
}

async fn find(store: &Store, change: &Change) -> Result<Signed, String> {
    let found = store.entry(change.entry).await;
    let entry = found.map_err(|error: ReadError| error.to_string())?;
    let entry = entry.ok_or("the log no longer has the entry")?;
    // Most entries were accepted because a later entry of their author commits to them.
    let checked = Entry::clone(&entry);
    match tokio::task::spawn_blocking(|| checked.verify()).await {
        Ok(Ok(entry)) => Ok(Signed {
            encoded: entry.signed.encode().into(),
            entry,
        }),
        Ok(Err(_odd)) => Err(
            "its own signature does not verify: a later entry of its author vouches for it"
                .to_owned(),
        ),
        Err(_stopped) => Err("the node is stopping".to_owned()),
    }
}

// Also sets the op's index, which a change of the initial state does not have.
fn fill(message: &mut api::Change, signed: &Signed) {
    let ops = &signed.entry.ops;
    let index = ops.iter().position(|op| *op.key() == message.key);
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    message.op_index = index.map_or(message.op_index, number);
    message.op_count = number(ops.len());
    message.atomic = signed.entry.header.atomic;
    message.proof = signed.encoded.clone();
}
