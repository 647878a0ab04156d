//! The calls that check and repair stores.

use crate::{
    api::{convert, error::ApiError},
    net::Net,
    node::{Node, StoreInfo},
    store::{Repaired, Store},
    wire::api,
};

/// Answers `Verify`: checks every record of the store, or of all stores.
pub(super) async fn verify(
    node: &Node,
    request: &api::VerifyRequest,
) -> Result<api::VerifyReply, ApiError> {
    let mut verified = Vec::new();
    for (info, store) in asked(node, &request.store, request.all)? {
        let report = store.verify().await?;
        verified.push(api::StoreVerified {
            info: Some(convert::store_info(&info)),
            entries: report.entries,
            signatures: report.signatures,
            rows: report.rows,
            damage: report.damage.into_iter().map(convert::damage).collect(),
        });
    }
    Ok(api::VerifyReply { stores: verified })
}

/// Answers `Repair`: syncs with the connected members first, which may know of a fork. Then takes back
/// own entries that are stamped far ahead, and closes forks of this node's own logs. Lost entries of
/// these logs are given up only with `accept_loss`; without it, a store with lost entries is left as
/// it is and the reply lists them.
pub(super) async fn repair(
    node: &Node,
    net: Option<&Net>,
    request: &api::RepairRequest,
) -> Result<api::RepairReply, ApiError> {
    if let Some(net) = net {
        net.catch_up().await;
    }
    let mut done = Vec::new();
    for (info, store) in asked(node, &request.store, request.all)? {
        let lost = store.status().await.lost;
        // Without lost entries a repair loses nothing.
        let repaired = if request.accept_loss || lost.is_empty() {
            store.repair().await?
        } else {
            Repaired {
                lost,
                ..Repaired::default()
            }
        };
        done.push(api::StoreRepaired {
            info: Some(convert::store_info(&info)),
            lost: repaired.lost.into_iter().map(convert::lost).collect(),
            closed: repaired.closed.as_ref().map(convert::closed_fork),
            taken_back: repaired.taken_back.as_ref().map(convert::taken_back),
        });
    }
    let has_closed = done.iter().any(|store| store.closed.is_some());
    if let Some(net) = net.filter(|_| has_closed) {
        net.acknowledge_again()?;
    }
    Ok(api::RepairReply { stores: done })
}

// Returns the store that the request names, or all stores. `all` with an unknown name is an error.
fn asked(node: &Node, name: &str, all: bool) -> Result<Vec<(StoreInfo, Store)>, ApiError> {
    let asked = node.store(name)?.id();
    let stores = node.stores().into_iter();
    stores
        .filter(|info| all || info.id == asked)
        .map(|info| {
            let store = node.store(&info.id.to_string())?;
            Ok((info, store))
        })
        .collect()
}
