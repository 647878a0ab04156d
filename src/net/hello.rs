//! The hello: the one protocol that a stranger may speak, one message long.
//!
//! The bearer of an invitation shows its secret and is admitted, durably, before it gets an
//! answer. Everybody else gets the same refusal and learns nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use iroh::{
    EndpointAddr,
    endpoint::{Connection, ReadToEndError, RecvStream, WeakConnectionHandle},
    protocol::{AcceptError, ProtocolHandler},
};
use prost::Message as _;
use tokio::time::timeout;

use crate::{
    id::{Author, StoreId},
    limits::{DIAL_TIMEOUT, HELLO_BYTES_MAX, HELLO_TIMEOUT, HELLOS_MAX},
    net::{
        HELLO_ALPN, JoinError, Mesh, PeerError, endpoint::node_of, gate::BUSY,
        invitation::Invitation,
    },
    node::{MeshError, Redeemed},
    protocol::{genesis::Genesis, invite::InviteError, membership::MembershipError, role::Role},
    wire::net,
};

/// Answers strangers.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    mesh: Arc<Mesh>,
    // Oldest first. Bounded by HELLOS_MAX: the oldest is hung up, so that strangers who say nothing
    // do not keep out those who do.
    served: Arc<Mutex<VecDeque<WeakConnectionHandle>>>,
}

impl Hello {
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
        let request = read(&mut receive).await?;
        let node = node_of(&connection.remote_id());
        let reply = match self.admit(node, &request).await {
            Ok(redeemed) => net::HelloReply {
                creator: Bytes::copy_from_slice(&redeemed.genesis.creator.0),
                nonce: Bytes::copy_from_slice(&redeemed.genesis.nonce),
                role: redeemed.role.to_string(),
                ..net::HelloReply::default()
            },
            Err((refused, reason)) => net::HelloReply {
                refused,
                reason,
                ..net::HelloReply::default()
            },
        };
        send.write_all(&reply.encode_to_vec()).await?;
        send.finish()?;
        // The answer is on its way until the other side has hung up.
        connection.closed().await;
        Ok(())
    }

    // The error: a word, and a text.
    async fn admit(&self, node: Author, request: &[u8]) -> Result<Redeemed, (String, String)> {
        let stranger = || ("not_invited".to_owned(), "no such invitation".to_owned());
        let request = net::HelloRequest::decode(request).map_err(|_reason| stranger())?;
        if request.version != VERSION {
            let reason = format!(
                "it speaks version {} of the hello, this node version {VERSION}",
                request.version
            );
            return Err(("version".to_owned(), reason));
        }
        let secret: [u8; 32] = request
            .secret
            .as_ref()
            .try_into()
            .map_err(|_length| stranger())?;
        let root = self.mesh.node.root().id();
        if StoreId::from_slice(&request.store_id) != Some(root) {
            return Err(stranger());
        }
        let redeemed = self.mesh.node.redeem(&secret, node).await;
        match redeemed {
            Ok(redeemed) => {
                // Before the answer: the next connection comes at once.
                self.mesh.open_gate();
                tracing::info!(%node, role = %redeemed.role, "a node has joined");
                Ok(redeemed)
            }
            Err(MeshError::Invite(InviteError::Unknown)) => Err(stranger()),
            Err(error) => {
                tracing::warn!(%node, %error, "an invitation was refused");
                let (word, reason) = refusal(&error);
                Err((word.to_owned(), reason))
            }
        }
    }
}

impl ProtocolHandler for Hello {
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

/// What the node that redeemed an invitation said.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) genesis: Genesis,
    pub(super) role: Role,
}

/// Shows an invitation to the node that gave it out.
pub(super) async fn redeem(
    endpoint: &iroh::Endpoint,
    address: EndpointAddr,
    invitation: &Invitation,
    contacted: impl AsyncFnOnce(),
) -> Result<Admitted, JoinError> {
    let unreachable = |why: PeerError| JoinError::Unreachable {
        node: invitation.node,
        why,
    };
    let silent = |wait| unreachable(PeerError::Silent { wait });
    let connection = timeout(DIAL_TIMEOUT, endpoint.connect(address, HELLO_ALPN))
        .await
        .map_err(|_elapsed| silent(DIAL_TIMEOUT))?
        .map_err(|error| unreachable(PeerError::connection(error)))?;
    contacted().await;
    let asked = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        let request = net::HelloRequest {
            version: VERSION,
            store_id: Bytes::copy_from_slice(&invitation.store.0),
            secret: Bytes::copy_from_slice(&invitation.secret),
        };
        send.write_all(&request.encode_to_vec()).await?;
        send.finish()?;
        read(&mut receive).await
    };
    let reply = timeout(HELLO_TIMEOUT, asked)
        .await
        .map_err(|_elapsed| silent(HELLO_TIMEOUT))?
        .map_err(unreachable)?;
    connection.close(DONE.into(), b"done");
    let malformed = || {
        unreachable(PeerError::Malformed {
            what: "an answer that is none",
        })
    };
    let reply = net::HelloReply::decode(reply.as_slice()).map_err(|_reason| malformed())?;
    if !reply.refused.is_empty() {
        return Err(JoinError::Refused {
            word: reply.refused,
            reason: reply.reason,
        });
    }
    let nonce = reply.nonce.as_ref().try_into();
    let genesis = Genesis {
        creator: Author::from_slice(&reply.creator).ok_or_else(malformed)?,
        nonce: nonce.map_err(|_length| malformed())?,
    };
    // The id of a store is a hash of its genesis: nobody can lie about that.
    if genesis.store() != invitation.store {
        return Err(malformed());
    }
    Ok(Admitted {
        genesis,
        role: reply.role.parse().map_err(|_word| malformed())?,
    })
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

// A message of the hello, whole.
async fn read(receive: &mut RecvStream) -> Result<Vec<u8>, PeerError> {
    let read = receive.read_to_end(HELLO_BYTES_MAX).await;
    read.map_err(|error| match error {
        ReadToEndError::Read(error) => error.into(),
        ReadToEndError::TooLong => PeerError::Malformed {
            what: "a hello that is too long",
        },
    })
}

const VERSION: u32 = 1;
const DONE: u32 = 0;
const LATE: u32 = 408;
