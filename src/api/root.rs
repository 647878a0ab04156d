//! The calls about the root of a state: the root itself, and proofs that lead to it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    api::{
        convert,
        error::{ApiError, EXIT_FAILED},
        paging::Answers,
    },
    id::Author,
    light::{PROOF_BYTES_MAX, StateProof, StateRow, Subject},
    limits::PAGE_BYTES,
    net::Net,
    node::Node,
    protocol::{
        ack::Ack,
        change::EntryRef,
        entry::Op,
        frontier::Frontier,
        heads::{Content, Value},
        heads_row::decode_heads,
        merkle::ROW_PROOF_BYTES_MAX,
    },
    store::{StateRoot, Store},
    wire::api,
};

/// Answers `Root`.
pub(super) async fn root(
    node: &Node,
    net: Option<&Net>,
    request: &api::RootRequest,
) -> Result<api::RootReply, ApiError> {
    let store = node.store_of_keys(&request.store, [&request.prefix])?;
    let state = store.root(&request.prefix).await?;
    let signed_by = if request.prefix.is_empty() {
        vouchers(net, &store, &state)
    } else {
        BTreeMap::new()
    };
    let members = node.members();
    let all = members.iter().filter(|(it, _)| members.role(it).is_some());
    let infos = node.stores();
    let info = infos.iter().find(|info| info.id == store.id());
    Ok(api::RootReply {
        root: convert::bytes(&state.root.0),
        info: info.map(convert::store_info),
        frontier: convert::bytes(&state.frontier.hash().0),
        entries: state.frontier.entries_beyond(&Frontier::default()),
        acts: convert::bytes(&state.acts.0),
        signed_by: signed_by.keys().map(|it| convert::bytes(&it.0)).collect(),
        members: u32::try_from(all.count()).unwrap_or(u32::MAX),
    })
}

/// Answers `Prove`.
pub(super) async fn prove(
    node: &Node,
    net: Option<&Net>,
    request: api::ProveRequest,
) -> Result<Answers<api::ProveReply>, ApiError> {
    let api::ProveRequest { store, key, prefix } = request;
    let asked = if key.is_empty() { &prefix } else { &key };
    let store = node.store_of_keys(&store, [asked])?;
    let (state, subject, rows, proof) = if key.is_empty() {
        let proven = store.prove_prefix(&prefix, PROVEN_BYTES_MAX).await?;
        let proven = proven.ok_or_else(too_many_keys)?;
        let rows = proven.rows.into_iter().map(|(key, row)| StateRow {
            key,
            row,
            value: Bytes::new(),
        });
        (
            proven.state,
            Subject::Prefix(prefix),
            rows.collect(),
            proven.proof,
        )
    } else {
        let proven = store.prove(&key).await?;
        let mut rows = Vec::new();
        if let Some(row) = proven.row {
            let key = key.clone();
            let value = big_value(&store, &key, &row).await?;
            rows.push(StateRow { key, row, value });
        }
        (proven.state, Subject::Key(key), rows, proven.proof)
    };
    let row_proof: Bytes = proof.encode().into();
    if row_proof.len() > ROW_PROOF_BYTES_MAX {
        return Err(too_many_keys());
    }
    let mut acks = vouchers(net, &store, &state);
    acks.insert(node.id(), node.sign_state(store.id(), &state));
    let file = StateProof {
        store: store.id(),
        subject,
        rows,
        row_proof,
        acks: acks.into_values().collect(),
    }
    .encode();
    if file.len() > PROOF_BYTES_MAX {
        return Err(too_many_keys());
    }
    let starts = (0..file.len()).step_by(PAGE_BYTES);
    let parts: Vec<_> = starts
        .map(|start| file.slice(start..file.len().min(start + PAGE_BYTES)))
        .map(|part| Ok(api::ProveReply { part }))
        .collect();
    Ok(Box::pin(tokio_stream::iter(parts)))
}

// Returns the acks of other members that have signed `state`, by node.
fn vouchers(net: Option<&Net>, store: &Store, state: &StateRoot) -> BTreeMap<Author, Bytes> {
    let acks = net.map_or_else(Vec::new, |net| net.vouchers(store, state));
    let by_node = acks.into_iter().filter_map(|ack| {
        let node = Ack::decode(ack.clone()).ok()?.claim().node;
        Some((node, ack))
    });
    by_node.collect()
}

// Returns the winning value of `row` if the row has only its hash; else nothing.
async fn big_value(store: &Store, key: &Bytes, row: &Bytes) -> Result<Bytes, ApiError> {
    let heads = decode_heads(row).unwrap_or_default();
    let winner = heads.winner().filter(|winner| {
        matches!(
            winner.content,
            Content::Value {
                value: Value::InLog { .. },
                ..
            }
        )
    });
    let Some(winner) = winner else {
        return Ok(Bytes::new());
    };
    let entry = store.entry(EntryRef::from(winner)).await?;
    let ops = entry.iter().flat_map(|entry| &entry.ops);
    let value = ops.filter_map(|op| match op {
        Op::Put { key: of, value, .. } if of == key => Some(value.clone()),
        Op::Put { .. } | Op::Delete { .. } => None,
    });
    Ok(value.last().unwrap_or_default())
}

fn too_many_keys() -> ApiError {
    let mib = PROOF_BYTES_MAX >> 20;
    let message =
        format!("the keys take more than fits one proof ({mib} MiB, about 20,000 short keys)");
    ApiError::new("proof_too_long", EXIT_FAILED, message)
        .hint("prove several longer prefixes, each in a file of its own")
}

// Bytes of keys and rows of a proof. The row proof takes less, and so do the acks of a mesh that is not
// very large.
const PROVEN_BYTES_MAX: usize = PROOF_BYTES_MAX / 4;
