//! The call that compares the state of a store with that of another member.

use bytes::Bytes;

use crate::{
    api::{
        convert,
        error::ApiError,
        members::{self, running},
        paging::{Answers, parts},
    },
    net::{Compared, KeyDifference, Net},
    node::Node,
    protocol::{
        change::{EntryRef, Kind},
        frontier::Frontier,
        heads::{Content, Heads},
    },
    wire::api,
};

/// Answers `Compare`.
pub(super) async fn compare(
    node: &Node,
    net: Option<&Net>,
    request: api::CompareRequest,
) -> Result<Answers<api::CompareReply>, ApiError> {
    let api::CompareRequest {
        store,
        node: member,
        prefix,
        limit,
    } = request;
    let store = node.store_of_keys(&store, [&prefix])?;
    let member = members::node(&member)?;
    let limit = match limit {
        0 => DIFFERENCES_DEFAULT,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let net = running(net)?;
    let compared = net
        .compare(&store, &member, prefix, limit.min(DIFFERENCES_MAX))
        .await?;
    let Compared {
        here,
        there,
        is_equal,
        keys,
        ranges,
        more,
        round_trips,
        bytes,
    } = compared;
    let range = |(from, to): (Bytes, Option<Bytes>)| api::KeyRange { from, to };
    let mut first = Some(api::CompareReply {
        equal: is_equal,
        here: Some(api::ComparedState {
            root: convert::bytes(&here.root.0),
            entries: here.frontier.entries_beyond(&Frontier::default()),
        }),
        there: Some(api::ComparedState {
            root: convert::bytes(&there.root.0),
            entries: there.entries,
        }),
        same_entries: here.frontier.hash() == there.frontier && here.acts == there.acts,
        round_trips,
        bytes,
        more: false,
        ranges: ranges.into_iter().take(RANGES_MAX).map(range).collect(),
        keys: Vec::new(),
    });
    let now_ms = store.now_ms();
    let keys = keys.into_iter().map(|key| difference(key, now_ms));
    Ok(parts(keys.collect(), move |keys, is_last| {
        api::CompareReply {
            keys,
            more: more && is_last,
            ..first.take().unwrap_or_default()
        }
    }))
}

fn difference(difference: KeyDifference, now_ms: u64) -> api::KeyDifference {
    let KeyDifference { key, here, there } = difference;
    api::KeyDifference {
        key,
        here: heads(&here, now_ms),
        there_is_long: there.is_none(),
        there: there.map_or_else(Vec::new, |there| heads(&there, now_ms)),
    }
}

// The heads without their values, the winner first. Of many only the first ones.
fn heads(heads: &Heads, now_ms: u64) -> Vec<api::Head> {
    let winner = heads.winner().map(|winner| winner.id);
    let heads = heads.as_slice().iter().rev().take(HEADS_MAX);
    heads
        .map(|head| {
            let kind = match head.content {
                Content::Value { .. } => Kind::Put,
                Content::Tombstone => Kind::Delete,
            };
            api::Head {
                entry: Some(convert::entry_ref(&EntryRef::from(head))),
                kind: kind.name().to_owned(),
                value: Bytes::new(),
                expires_ms: head.expires_ms(),
                expired: head.expires_ms().is_some_and(|ms| ms <= now_ms),
                wins: Some(head.id) == winner,
            }
        })
        .collect()
}

// Keys that differ which a comparison finds if the client names no number, and at most: each takes a
// key, and a row of each node, in memory.
const DIFFERENCES_DEFAULT: usize = 1000;
const DIFFERENCES_MAX: usize = 10_000;
// Ranges, and heads of a key, in an answer.
const RANGES_MAX: usize = 100;
const HEADS_MAX: usize = 16;
