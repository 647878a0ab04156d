//! The hello: the one protocol that a stranger may speak, one message long.
//!
//! The bearer of an invitation shows its secret and is admitted, durably, before it gets an
//! answer. A member that was let in by somebody else, who may be gone, shows the grants that made
//! it one, and is let in until a sync has brought them. Everybody else gets the same refusal and
//! learns nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use iroh::{
    endpoint::{Connection, WeakConnectionHandle},
    protocol::{AcceptError, ProtocolHandler},
};
use prost::Message as _;
use tokio::time::timeout;

use crate::{
    id::{Author, StoreId},
    limits::{HELLO_TIMEOUT, HELLOS_MAX},
    net::{
        address::node_of,
        error::PeerError,
        gate::BUSY,
        hello::{VERSION, read},
        mesh::Mesh,
        peer_task,
    },
    node::{MeshError, Redeemed},
    protocol::membership::{MembershipError, invite::InviteError},
    wire::net,
};

/// Answers strangers.
#[derive(Debug, Clone)]
pub(super) struct HelloServer {
    mesh: Arc<Mesh>,
    // Oldest first. Bounded by HELLOS_MAX: the oldest is hung up, so that strangers who say nothing
    // do not keep out those who do.
    served: Arc<Mutex<VecDeque<WeakConnectionHandle>>>,
}

impl HelloServer {
    pub(super) fn new(mesh: Arc<Mesh>) -> Self {
        Self {
            mesh,
            served: Arc::default(),
        }
    }

    fn make_room(&self, connection: &Connection) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |known: &Connection| known.close_reason().is_none();
        served.retain(|known| known.upgrade().as_ref().is_some_and(is_open));
        served.push_back(connection.weak_handle());
        if served.len() > HELLOS_MAX
            && let Some(oldest) = served.pop_front().and_then(|oldest| oldest.upgrade())
        {
            let (code, reason) = BUSY;
            oldest.close(code.into(), reason);
        }
    }

    async fn answer(&self, connection: &Connection) -> Result<(), PeerError> {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let request = read(&mut receive).await.inspect_err(|_error| {
            // Before the stream is dropped, which would end it like an answer.
            connection.close(NO_HELLO.into(), b"no hello");
        })?;
        let node = node_of(&connection.remote_id());
        let reply = self.admit(node, &request).await;
        let reply = reply.unwrap_or_else(|(refused, reason)| net::HelloReply {
            refused,
            reason,
            ..net::HelloReply::default()
        });
        send.write_all(&reply.encode_to_vec()).await?;
        send.finish()?;
        // The answer is on its way until the other side has hung up.
        connection.closed().await;
        Ok(())
    }

    async fn admit(&self, node: Author, request: &[u8]) -> Result<net::HelloReply, Refusal> {
        let request = net::HelloRequest::decode(request).map_err(|_reason| stranger())?;
        if request.version != VERSION {
            let reason = format!(
                "it speaks version {} of the hello, this node version {VERSION}",
                request.version
            );
            return Err(("version".to_owned(), reason));
        }
        let root = self.mesh.node.root().id();
        if StoreId::from_slice(&request.store_id) != Some(root) {
            return Err(stranger());
        }
        if !request.proof.is_empty() {
            return self.believe(&node, request.proof).await;
        }
        let secret: [u8; 32] = request
            .secret
            .as_ref()
            .try_into()
            .map_err(|_length| stranger())?;
        let redeemed = self.mesh.node.redeem(&secret, node).await;
        match redeemed {
            Ok(redeemed) => {
                // Before the answer: the next connection comes at once.
                self.mesh.open_gate();
                tracing::info!(%node, role = %redeemed.role, "a node has joined");
                let Redeemed { genesis, role } = redeemed;
                Ok(net::HelloReply {
                    creator: Bytes::copy_from_slice(&genesis.creator.0),
                    nonce: Bytes::copy_from_slice(&genesis.nonce),
                    role: role.to_string(),
                    ..net::HelloReply::default()
                })
            }
            Err(MeshError::Invite(InviteError::Unknown)) => Err(stranger()),
            Err(error) => {
                tracing::warn!(%node, %error, "an invitation was refused");
                let (word, reason) = refusal(&error);
                Err((word.to_owned(), reason))
            }
        }
    }

    // Who lacks a part of the root store does not hold it against others.
    async fn believe(&self, node: &Author, proof: Vec<Bytes>) -> Result<net::HelloReply, Refusal> {
        let root = self.mesh.node.root();
        let role = match self.mesh.node.members().role(node) {
            Some(role) => role,
            None => {
                let looked = self.mesh.proven.look(&root, node, proof).await;
                let role = looked.map_err(|error| {
                    tracing::debug!(%node, %error, "a proof was refused");
                    stranger()
                })?;
                // The members may have changed while it was looked at.
                self.mesh.proven.look_again(&root).await;
                peer_task::meet_members(&self.mesh);
                tracing::info!(%node, %role, "a node has proven that it is a member");
                role
            }
        };
        Ok(net::HelloReply {
            role: role.to_string(),
            ..net::HelloReply::default()
        })
    }
}

impl ProtocolHandler for HelloServer {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        self.make_room(&connection);
        match timeout(HELLO_TIMEOUT, self.answer(&connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a hello ended badly"),
            Err(_elapsed) => connection.close(LATE.into(), b"too slow"),
        }
        Ok(())
    }
}

// The same for everybody, whatever it has shown.
fn stranger() -> Refusal {
    ("not_invited".to_owned(), "no such invitation".to_owned())
}

// A stable word for programs, and a text. Neither names other nodes, nor what is on this one.
fn refusal(error: &MeshError) -> (&'static str, String) {
    match error {
        MeshError::Invite(InviteError::Expired { .. }) => ("invite_expired", error.to_string()),
        MeshError::Invite(InviteError::Used { .. }) => {
            ("invite_used", "another node has used the invite".to_owned())
        }
        MeshError::Membership(MembershipError::Removed { .. }) => ("removed", error.to_string()),
        _ours => ("failed", "the node cannot let anybody in now".to_owned()),
    }
}

/// A word, and a text.
type Refusal = (String, String);

const LATE: u32 = 408;
const NO_HELLO: u32 = 422;
