//! Looking after stores: what a check finds, and what a repair gives up.

use crate::{
    api::{convert, error::ApiError},
    node::StoreInfo,
    store::{Repaired, Store},
    wire::api,
};

/// Checks every record of `stores`.
pub(super) async fn verify(stores: Vec<(StoreInfo, Store)>) -> Result<api::VerifyReply, ApiError> {
    let mut verified = Vec::new();
    for (info, store) in stores {
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

/// Closes forks of this node's own logs; gives up what is lost of them where `accept_loss` says so.
pub(super) async fn repair(
    stores: Vec<(StoreInfo, Store)>,
    accept_loss: bool,
) -> Result<api::RepairReply, ApiError> {
    let mut done = Vec::new();
    for (info, store) in stores {
        let lost = store.status().await.lost;
        // To close a fork loses nothing.
        let repaired = if accept_loss || lost.is_empty() {
            store.repair().await?
        } else {
            Repaired { lost, closed: None }
        };
        done.push(api::StoreRepaired {
            info: Some(convert::store_info(&info)),
            lost: repaired.lost.into_iter().map(convert::lost).collect(),
            closed: repaired.closed.as_ref().map(convert::closed_fork),
        });
    }
    Ok(api::RepairReply { stores: done })
}
