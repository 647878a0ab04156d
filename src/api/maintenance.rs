//! The calls that check and repair stores.

use std::{collections::VecDeque, mem};

use prost::Message as _;
use tonic::Status;

use crate::{
    api::{
        convert,
        error::ApiError,
        members,
        paging::{Answers, parts, unfold},
    },
    limits::PAGE_BYTES,
    net::Net,
    node::{Node, StoreInfo},
    store::{Repaired, Store, VerifyReport},
    wire::api,
};

/// Answers `Verify`: checks every record of the store, or of all stores, one after the other.
pub(super) fn verify(
    node: &Node,
    request: &api::VerifyRequest,
) -> Result<Answers<api::VerifyReply>, ApiError> {
    let verifying = Verifying {
        stores: asked(node, &request.store, request.all)?.into(),
        ready: VecDeque::new(),
    };
    Ok(unfold(verifying, |verifying| Box::pin(verifying.next())))
}

/// One `Verify` call.
struct Verifying {
    // Stores that are still to be checked.
    stores: VecDeque<(StoreInfo, Store)>,
    // Results that were not sent yet.
    ready: VecDeque<api::StoreVerified>,
}

impl Verifying {
    async fn next(mut self) -> Option<(Result<api::VerifyReply, Status>, Self)> {
        if self.ready.is_empty() {
            let (info, store) = self.stores.pop_front()?;
            match store.verify().await {
                Ok(report) => self.ready = pieces(convert::store_info(&info), report),
                Err(error) => return Some((Err(ApiError::from(error).into()), self)),
            }
        }
        let stores = self.ready.pop_front().into_iter().collect();
        Some((Ok(api::VerifyReply { stores }), self))
    }
}

// Returns a report in pieces, at least one, each of which fits into a message.
fn pieces(info: api::StoreInfo, report: VerifyReport) -> VecDeque<api::StoreVerified> {
    let mut pieces = VecDeque::new();
    let mut piece = api::StoreVerified {
        info: Some(info.clone()),
        entries: report.entries,
        signatures: report.signatures,
        rows: report.rows,
        damage_count: report.damage.len() as u64,
        ..api::StoreVerified::default()
    };
    let mut bytes = 0;
    for damage in report.damage.into_iter().map(convert::damage) {
        bytes += damage.encoded_len();
        if bytes > PAGE_BYTES && !piece.damage.is_empty() {
            bytes = damage.encoded_len();
            let next = api::StoreVerified {
                info: Some(info.clone()),
                continued: true,
                ..api::StoreVerified::default()
            };
            pieces.push_back(mem::replace(&mut piece, next));
        }
        piece.damage.push(damage);
    }
    pieces.push_back(piece);
    pieces
}

/// Answers `Repair`: syncs with the connected members first, which may know of a fork. Then takes back
/// own entries that are stamped far ahead, and closes forks of this node's own logs. Lost entries of
/// these logs, and what a restored store may lack of them, are given up only with `accept_loss`;
/// without it, such a store is left as it is and the reply says so.
pub(super) async fn repair(
    node: &Node,
    net: Option<&Net>,
    request: &api::RepairRequest,
) -> Result<Answers<api::RepairReply>, ApiError> {
    if let Some(net) = net {
        net.catch_up().await;
    }
    let mut done = Vec::new();
    let asked = asked(node, &request.store, request.all)?;
    let restored = node.is_restored();
    if restored && request.accept_loss && asked.iter().any(|(info, _)| !info.private) {
        node.own_log_is_back()?;
    }
    for (info, store) in asked {
        let lost = store.status().await.lost;
        let restored = restored && !info.private;
        let may_lose = restored || !lost.is_empty();
        let repaired = if request.accept_loss || !may_lose {
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
            restored,
            closed: repaired.closed.as_ref().map(convert::closed_fork),
            taken_back: repaired.taken_back.as_ref().map(convert::taken_back),
        });
    }
    let has_closed = done.iter().any(|store| store.closed.is_some());
    if let Some(net) = net.filter(|_| has_closed) {
        net.acknowledge_again()?;
    }
    Ok(parts(done, |stores, _last| api::RepairReply { stores }))
}

/// Answers `TakeState`.
pub(super) async fn take_state(
    node: &Node,
    net: Option<&Net>,
    request: &api::TakeStateRequest,
) -> Result<api::TakeStateReply, ApiError> {
    let member = members::node(&request.node)?;
    let store = node.store(&request.store)?;
    members::running(net)?.take_state(&store, &member).await?;
    let mut infos = node.stores().into_iter();
    let info = infos.find(|info| info.id == store.id());
    Ok(api::TakeStateReply {
        info: info.as_ref().map(convert::store_info),
        keys: store.status().await.keys,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::{KEY_BYTES_MAX, REPLY_BYTES_MAX},
        store::{Damage, DamagePlace},
    };

    /// A store that is damaged all over was an answer that no client took.
    #[test]
    fn much_damage_comes_in_several_messages() {
        let one = |number: u64| Damage {
            place: DamagePlace::State,
            what: "the row differs from the log".to_owned(),
            author: None,
            seq: None,
            file: "state.db".to_owned(),
            offset: number,
            bytes: 1,
            key: Some(vec![b'k'; KEY_BYTES_MAX].into()),
        };
        let report = VerifyReport {
            rows: 5000,
            damage: (0..5000).map(one).collect(),
            ..VerifyReport::default()
        };
        let pieces = pieces(api::StoreInfo::default(), report);
        assert!(pieces.len() > 1);
        assert!(pieces.iter().all(|it| it.encoded_len() < REPLY_BYTES_MAX));
        assert!(pieces.iter().skip(1).all(|it| it.continued && it.rows == 0));
        assert_eq!((pieces[0].rows, pieces[0].damage_count), (5000, 5000));
        let offsets = pieces.iter().flat_map(|it| &it.damage).map(|it| it.offset);
        assert!(offsets.eq(0..5000));
        // A store without damage has one piece, too.
        let none = super::pieces(api::StoreInfo::default(), VerifyReport::default());
        assert_eq!(none.len(), 1);
    }
}
