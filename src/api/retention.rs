//! The calls about history: what of it is final, and its removal.

use crate::{
    api::{
        convert,
        error::{ApiError, EXIT_DAMAGED, EXIT_FAILED, EXIT_PRECONDITION, text},
    },
    id::Author,
    node::{HistoryError, HistoryPolicy, Node},
    protocol::{
        finality::{Held, Hold, Watermark},
        membership::role::Role,
    },
    store::{PruneError, Store, consumers::HeldHistory},
    wire::api::{self, held_history::Reason},
};

/// Answers `Retention`.
pub(super) async fn show(
    node: &Node,
    request: &api::RetentionRequest,
) -> Result<api::RetentionReply, ApiError> {
    let store = node.store(&request.store)?;
    let policy = node.history_policy(&store.id()).await?;
    let outlook = node.outlook(&store, &policy, request.now).await?;
    let (watermark, silent) = match outlook.watermark {
        Ok(watermark) => (watermark, Vec::new()),
        Err(missing) => (
            Watermark::default(),
            missing.nodes.iter().map(bytes).collect(),
        ),
    };
    let base = outlook.base.as_ref();
    let branches = outlook
        .branches
        .map(|author| HistoryError::Branches { author }.to_string());
    let kept = outlook
        .not_yet
        .iter()
        .map(ToString::to_string)
        .chain(branches);
    Ok(api::RetentionReply {
        info: info(node, &store),
        act: outlook.act.unwrap_or(0),
        through_ms: outlook.through_ms.unwrap_or(0),
        log_bytes: outlook.log_bytes,
        open_bytes: outlook.open_bytes,
        ready_bytes: outlook.ready_bytes,
        held: watermark.held.iter().map(held).collect(),
        silent,
        dormant: outlook.dormant.iter().map(bytes).collect(),
        base_keys: base.map_or(0, |base| base.base.keys),
        base_bytes: base.map_or(0, |base| base.bytes),
        kept: kept.collect(),
        policy: Some(to_wire(&policy)),
        consumers: outlook.consumers.iter().map(consumer).collect(),
        removable_bytes: outlook.removable_bytes,
    })
}

/// Answers `SetRetention`.
pub(super) async fn set(
    node: &Node,
    request: &api::SetRetentionRequest,
) -> Result<api::HistoryPolicy, ApiError> {
    let store = node.store(&request.store)?;
    let mut policy = node.history_policy(&store.id()).await?;
    let set = request.policy.unwrap_or_default();
    let HistoryPolicy {
        store: of_store,
        retention,
        ..
    } = &mut policy;
    for (value, new) in [
        (&mut retention.age_ms, set.age_ms),
        (&mut retention.bytes, set.bytes),
        (&mut retention.hold_ms, set.hold_ms),
        (&mut of_store.final_after_ms, set.final_after_ms),
        (&mut of_store.final_bytes, set.final_bytes),
        (&mut of_store.dormant_after_ms, set.dormant_after_ms),
        (&mut of_store.dormant_bytes, set.dormant_bytes),
    ] {
        *value = new.unwrap_or(*value);
    }
    let policy = policy.raised();
    node.set_history_policy(&store, &policy).await?;
    Ok(to_wire(&policy))
}

fn to_wire(policy: &HistoryPolicy) -> api::HistoryPolicy {
    let HistoryPolicy {
        store, retention, ..
    } = policy;
    api::HistoryPolicy {
        age_ms: Some(retention.age_ms),
        bytes: Some(retention.bytes),
        hold_ms: Some(retention.hold_ms),
        final_after_ms: Some(store.final_after_ms),
        final_bytes: Some(store.final_bytes),
        dormant_after_ms: Some(store.dormant_after_ms),
        dormant_bytes: Some(store.dormant_bytes),
    }
}

fn consumer(held: &HeldHistory) -> api::ConsumerHold {
    api::ConsumerHold {
        consumer: held.consumer.clone(),
        since_ms: held.since_ms,
        bytes: held.bytes,
    }
}

/// Answers `Prune`.
pub(super) async fn prune(
    node: &Node,
    request: &api::PruneRequest,
) -> Result<api::PruneReply, ApiError> {
    let store = node.store(&request.store)?;
    let policy = node.history_policy(&store.id()).await?;
    let is_admin = node.members().role(&node.id()) == Some(Role::Admin);
    // Entries that were made final before may go all the same.
    let (made, missing) = match is_admin {
        true => match node.make_final(&store, &policy, true).await {
            Err(
                missing
                @ (HistoryError::AckMissing(_) | HistoryError::Prune(PruneError::NoRoom(_))),
            ) => (None, Some(missing)),
            made => (made?, None),
        },
        false => (None, None),
    };
    let bytes_before = store.log_bytes();
    let pruned = match (node.prune(&store, &policy, true).await, missing) {
        (Err(HistoryError::NothingFinal), Some(missing)) => return Err(missing.into()),
        (pruned, _) => pruned?,
    };
    Ok(api::PruneReply {
        info: info(node, &store),
        made_final: made.map_or(0, |made| made.number),
        act: pruned.map_or(0, |pruned| pruned.act),
        bytes_before,
        bytes_after: store.log_bytes(),
    })
}

fn held(held: &Held) -> api::HeldHistory {
    let (reason, nodes) = match &held.by {
        Hold::Members(nodes) => (Reason::Members, Some(nodes)),
        Hold::Grant(nodes) => (Reason::Grant, Some(nodes)),
        Hold::NotGranted => (Reason::NotGranted, None),
        Hold::Fork => (Reason::Fork, None),
        Hold::Young => (Reason::Young, None),
        Hold::NotSigned => (Reason::NotSigned, None),
    };
    api::HeldHistory {
        author: bytes(&held.author),
        after: held.after,
        through: held.through,
        reason: reason.into(),
        nodes: nodes.into_iter().flatten().map(bytes).collect(),
    }
}

fn info(node: &Node, store: &Store) -> Option<api::StoreInfo> {
    let infos = node.stores();
    let info = infos.iter().find(|info| info.id == store.id());
    info.map(convert::store_info)
}

fn bytes(node: &Author) -> bytes::Bytes {
    convert::bytes(&node.0)
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        let message = text(&error);
        let refused = |code| Self::new(code, EXIT_PRECONDITION, message.clone());
        match error {
            HistoryError::Root => refused("root_store").hint(
                "put what changes often into the data store, which commands use unless --store names \
                 another",
            ),
            HistoryError::Private => refused("private_store")
                .hint("`lattice store share NAME` shares it with the mesh"),
            HistoryError::NotAdmin { .. } => refused("not_admin"),
            HistoryError::AckMissing(_) => refused("acks_missing").hint(
                "wait until they are connected; `lattice peer dormant NODE` ends the wait for one that is \
                 away for long",
            ),
            HistoryError::NothingFinal => refused("nothing_final").hint(
                "an admin makes entries final once all members have them; `lattice retention` shows who \
                 is in the way",
            ),
            HistoryError::NotYet(_) => refused("not_yet")
                .hint("a member that is named must be connected: `lattice peers` shows whether it is"),
            HistoryError::Branches { .. } => refused("final_branches"),
            HistoryError::Act(_) | HistoryError::Panicked => {
                Self::new("failed", EXIT_FAILED, message)
            }
            HistoryError::Read(error) => error.into(),
            HistoryError::Write(error) => error.into(),
            HistoryError::Consumer(error) => error.into(),
            HistoryError::Mesh(error) => error.into(),
            HistoryError::Prune(PruneError::Lacks { .. }) => {
                Self::new("damaged", EXIT_DAMAGED, message)
                    .hint("`lattice verify` lists what is damaged and where")
            }
            HistoryError::Prune(PruneError::NoRoom(_)) => {
                Self::new("disk_full", EXIT_FAILED, message)
            }
            HistoryError::Prune(_) => Self::new("not_pruned", EXIT_FAILED, message),
        }
    }
}
