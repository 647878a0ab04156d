//! Translates replies of the API into the records of a history.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    api::client::Client,
    id::{Author, EntryId, Seq},
    protocol::{
        change::Kind,
        cursor::Cursor,
        entry::{SignedEntry, VerifiedEntry},
        frontier::{Frontier, FrontierTip, MissingRange},
    },
    wire::api::{self, HeadsRequest, LogRequest},
};

use super::node::Life;
use crate::guarantees::{checker::named, history::Told};

pub(super) fn entry(id: &[u8]) -> EntryId {
    EntryId::from_slice(id).unwrap()
}

pub(super) fn author(id: &[u8]) -> Author {
    Author::from_slice(id).unwrap()
}

pub(super) fn told(change: &api::Change) -> Told {
    let of = change.entry.as_ref().unwrap();
    let kinds = [Kind::Put, Kind::Delete, Kind::Expire, Kind::Retract];
    let kind = kinds.into_iter().find(|kind| kind.name() == change.kind);
    Told {
        key: change.key.clone(),
        kind: kind.unwrap(),
        value: change.value.clone(),
        expires_ms: change.expires_ms,
        entry: entry(&of.id),
        author: author(&of.author),
        seq: of.seq,
        op: change.op_index,
        atomic: change.atomic,
        late: change.late,
        state: change.origin == "initial",
    }
}

/// Returns who says so, and how its root store is.
pub(super) fn data(status: api::StatusReply) -> (Author, api::StoreStatus) {
    let is_data = |store: &api::StoreStatus| store.info.as_ref().is_some_and(|info| info.data);
    let data = status.stores.into_iter().find(is_data);
    (author(&status.node), data.unwrap())
}

pub(super) fn frontier(tips: &[api::Tip]) -> Frontier {
    let tip = |tip: &api::Tip| {
        let (seq, id) = (tip.seq, entry(&tip.id));
        (author(&tip.author), FrontierTip { seq, id })
    };
    tips.iter().map(tip).collect()
}

/// Reads which entries of `cursor` a node reports as missing.
pub(super) fn missing(message: &str, cursor: &Cursor) -> Vec<MissingRange> {
    let named = named(cursor);
    let ranges = message
        .split("it is missing entries ")
        .skip(1)
        .map(|range| {
            let mut words = range.trim_end_matches("; ").split(' ');
            let mut seq = || -> Seq { words.next().unwrap().parse().unwrap() };
            let first = seq();
            words.next();
            let through: Seq = words.next().unwrap().parse().unwrap();
            let author: Author = words.nth(1).unwrap().parse().unwrap();
            let tips = named.tips(&author).iter();
            let tip = tips.last().map_or(EntryId([0; 32]), |tip| tip.id);
            MissingRange {
                author,
                after: first - 1,
                through,
                tip,
            }
        });
    ranges.collect()
}

/// Returns all entries of a node's root store, out of their signed bytes.
pub(super) async fn log(life: &Life) -> Vec<VerifiedEntry> {
    let (_node, root) = life.data().await;
    let authors: BTreeSet<Author> = root.applied.iter().map(|tip| author(&tip.author)).collect();
    let mut client = life.client().await;
    let mut log = Vec::new();
    for author in authors {
        let request = LogRequest {
            author: Bytes::copy_from_slice(&author.0),
            signed: true,
            ..LogRequest::default()
        };
        let mut entries = client.log(request).await.unwrap().into_inner();
        while let Some(entry) = entries.message().await.unwrap() {
            let signed = SignedEntry::decode(entry.signed).unwrap();
            let verified = signed.parse().unwrap().verify().unwrap();
            assert_eq!(entry.entry.unwrap().id, verified.id.0.as_slice());
            log.push(verified);
        }
    }
    log
}

/// Returns the heads of these keys at a node.
pub(super) async fn states(
    client: &mut Client,
    keys: impl Iterator<Item = Bytes>,
) -> BTreeMap<Bytes, Vec<EntryId>> {
    let mut state = BTreeMap::new();
    for key in keys {
        let heads = heads(client, key.clone()).await;
        let ids = heads
            .iter()
            .map(|head| entry(&head.entry.as_ref().unwrap().id));
        state.insert(key, ids.collect());
    }
    state
}

/// Returns when a key expires, or has expired.
pub(super) async fn expires_ms(client: &mut Client, key: &'static str) -> Option<u64> {
    heads(client, key.into()).await[0].expires_ms
}

async fn heads(client: &mut Client, key: Bytes) -> Vec<api::Head> {
    let request = HeadsRequest {
        key,
        ..HeadsRequest::default()
    };
    let mut parts = client.heads(request).await.unwrap().into_inner();
    parts.message().await.unwrap().unwrap().heads
}
