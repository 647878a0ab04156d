//! Answers that come in several messages, put together for callers that need all of one.

use tonic::{Response, Status, Streaming};

use crate::{api::client::Client, wire::api};

/// Returns the status of the node.
///
/// # Errors
/// The error of the call.
pub async fn status(client: &mut Client) -> Result<api::StatusReply, Status> {
    let parts = client.status(api::StatusRequest {}).await?;
    whole(parts, |all, part| all.stores.extend(part.stores)).await
}

/// Returns the members, and this node.
///
/// # Errors
/// The error of the call.
pub async fn peers(client: &mut Client) -> Result<api::ListPeersReply, Status> {
    let parts = client.list_peers(api::ListPeersRequest {}).await?;
    whole(parts, |all, part| all.peers.extend(part.peers)).await
}

/// Returns the stores of the node.
///
/// # Errors
/// The error of the call.
pub async fn stores(client: &mut Client) -> Result<Vec<api::StoreInfo>, Status> {
    let parts = client.list_stores(api::ListStoresRequest {}).await?;
    let all = whole(parts, |all, part| all.stores.extend(part.stores)).await?;
    Ok(all.stores)
}

/// Returns the consumers of `store`, which is a name, a UUID, or empty for the data store.
///
/// # Errors
/// The error of the call.
pub async fn consumers(
    client: &mut Client,
    store: String,
) -> Result<Vec<api::ConsumerStatus>, Status> {
    let request = api::ListConsumersRequest { store };
    let parts = client.list_consumers(request).await?;
    let all = whole(parts, |all, part| all.consumers.extend(part.consumers)).await?;
    Ok(all.consumers)
}

/// Returns the hooks of the node.
///
/// # Errors
/// The error of the call.
pub async fn hooks(client: &mut Client) -> Result<api::ListHooksReply, Status> {
    let parts = client.list_hooks(api::ListHooksRequest {}).await?;
    whole(parts, |all, part| all.hooks.extend(part.hooks)).await
}

/// Checks stores, and returns each with all damage that was found in it.
///
/// # Errors
/// The error of the call.
pub async fn verified(
    client: &mut Client,
    request: api::VerifyRequest,
) -> Result<Vec<api::StoreVerified>, Status> {
    let parts = client.verify(request).await?;
    let add = |all: &mut api::VerifyReply, part: api::VerifyReply| {
        for store in part.stores {
            match all.stores.last_mut().filter(|_| store.continued) {
                Some(last) => last.damage.extend(store.damage),
                None => all.stores.push(store),
            }
        }
    };
    Ok(whole(parts, add).await?.stores)
}

/// Repairs stores, and returns what was done to each.
///
/// # Errors
/// The error of the call.
pub async fn repaired(
    client: &mut Client,
    request: api::RepairRequest,
) -> Result<Vec<api::StoreRepaired>, Status> {
    let parts = client.repair(request).await?;
    let all = whole(parts, |all, part| all.stores.extend(part.stores)).await?;
    Ok(all.stores)
}

// Puts the messages of an answer together: `add` adds a later one to the first.
async fn whole<M>(parts: Response<Streaming<M>>, add: impl Fn(&mut M, M)) -> Result<M, Status> {
    let mut parts = parts.into_inner();
    let first = parts.message().await?;
    let mut all = first.ok_or_else(|| Status::internal("the answer has no message"))?;
    while let Some(part) = parts.message().await? {
        add(&mut all, part);
    }
    Ok(all)
}
