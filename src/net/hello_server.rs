//! The hello, answering side: the one protocol that a stranger may speak, one message long.
//!
//! The bearer of an invitation shows its secret and is admitted, durably, before it gets an answer.
//! A member that another node let in, which may be offline, shows the grants that made it a member.
//! It is let in until a sync has brought those grants. Every other node gets the same refusal,
//! which shows nothing about the mesh.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use iroh::{
    TransportAddr,
    endpoint::{Connection, WeakConnectionHandle},
    protocol::{AcceptError, ProtocolHandler},
};
use prost::Message as _;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    id::{Author, StoreId},
    limits::{HELLO_TIMEOUT, HELLOS_ANSWERED_MAX, HELLOS_MAX},
    net::{
        address::node_of,
        error::PeerError,
        gate::BUSY,
        hello::{VERSION, read},
        mesh::Mesh,
        peer_task,
    },
    node::{MeshError, NodeInfo, Redeemed},
    protocol::{
        membership::{MembershipError, invite::InviteError, role::Role},
        peer::Lobby,
    },
    wire::net,
};

/// Answers hellos. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct HelloServer {
    mesh: Arc<Mesh>,
    // Strangers that have not said hello, or have had their answer. Never held across an await; no
    // other lock is taken meanwhile.
    waiting: Arc<Mutex<Waiting>>,
    // HELLOS_MAX permits, one for each hello that has come and is not answered. Never closed.
    said: Arc<Semaphore>,
    // HELLOS_ANSWERED_MAX permits, one for each hello that is answered. Never closed.
    answering: Arc<Semaphore>,
}

/// The strangers in the lobby, and their connections by number.
#[derive(Debug, Default)]
struct Waiting {
    lobby: Lobby<Source>,
    connections: BTreeMap<u64, WeakConnectionHandle>,
}

/// The place in the lobby of one stranger. It leaves when this is dropped.
struct Guest<'a> {
    waiting: &'a Mutex<Waiting>,
    number: u64,
}

/// The origin of a stranger. One machine has a whole /64 of IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4(Ipv4Addr),
    V6([u8; 8]),
    // Through a relay, or unknown.
    Elsewhere,
}

impl HelloServer {
    pub(super) fn new(mesh: Arc<Mesh>) -> Self {
        Self {
            mesh,
            waiting: Arc::default(),
            said: Arc::new(Semaphore::new(HELLOS_MAX)),
            answering: Arc::new(Semaphore::new(HELLOS_ANSWERED_MAX)),
        }
    }

    // Lets a stranger into the lobby. Another one may have to go for it.
    fn enter(&self, connection: &Connection) -> Guest<'_> {
        let source = Source::of(connection);
        let (number, goes) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let (number, goes) = waiting.lobby.enter(source);
            waiting.connections.insert(number, connection.weak_handle());
            let goes = goes.and_then(|goes| waiting.connections.remove(&goes));
            (number, goes)
        };
        if let Some(goes) = goes.and_then(|goes| goes.upgrade()) {
            let (code, reason) = BUSY;
            goes.close(code.into(), reason);
        }
        let waiting = &self.waiting;
        Guest { waiting, number }
    }

    async fn answer(&self, connection: &Connection) -> Result<(), PeerError> {
        let guest = self.enter(connection);
        let (mut send, mut receive) = connection.accept_bi().await?;
        let request = read(&mut receive).await.inspect_err(|_error| {
            // Closed before the stream is dropped, which would look like the end of an answer.
            connection.close(NO_HELLO.into(), b"no hello");
        })?;
        let Ok(place) = self.said.try_acquire() else {
            let (code, reason) = BUSY;
            connection.close(code.into(), reason);
            return Err(PeerError::TooManyConnections);
        };
        // From here on no other stranger can push it out.
        drop(guest);
        let permit = self.answering.acquire().await;
        let node = node_of(&connection.remote_id());
        let reply = self.admit(node, &request).await;
        let reply = reply.unwrap_or_else(|(refused, reason)| net::HelloReply {
            refused,
            reason,
            ..net::HelloReply::default()
        });
        send.write_all(&reply.encode_to_vec()).await?;
        send.finish()?;
        drop((permit, place));
        // A connection that is dropped here could lose the answer: the other side closes it. Until
        // then it takes a place like one that has said nothing.
        let _guest = self.enter(connection);
        connection.closed().await;
        Ok(())
    }

    async fn admit(&self, node: Author, request: &[u8]) -> Result<net::HelloReply, Refusal> {
        let request = net::HelloRequest::decode(request).map_err(|_reason| stranger())?;
        if request.version != VERSION {
            let reason = format!(
                "the joining node speaks hello version {}, the inviting node version {VERSION}",
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
                let info = NodeInfo::decode(&request.info);
                let name = info.as_ref().map_or("", |info| &info.name).to_owned();
                // Any other member writes its own.
                if let Some(info) = info.filter(|_info| redeemed.role == Role::Reader) {
                    self.mesh.node.note_info(&node, &info).await;
                }
                // Before the answer is sent: the new member connects at once.
                self.mesh.open_gate();
                tracing::info!(%node, name, role = %redeemed.role, "a node has joined");
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

    // Admits a node that this node does not know, if its grants prove its membership: this node may
    // miss a part of the root store.
    async fn believe(&self, node: &Author, proof: Vec<Bytes>) -> Result<net::HelloReply, Refusal> {
        let root = self.mesh.node.root();
        let role = match self.mesh.node.members().role(node) {
            Some(role) => role,
            None if self.mesh.node.members().is_removed(node) => return self.removed(node).await,
            None => {
                let checked = self.mesh.proven.check(&root, node, proof).await;
                let role = checked.map_err(|error| {
                    tracing::debug!(%node, %error, "a proof was refused");
                    stranger()
                })?;
                // The members may have changed during the check.
                self.mesh.proven.check_again(&root).await;
                peer_task::meet_members(&self.mesh);
                tracing::info!(%node, %role, "a node has proven its membership");
                role
            }
        };
        Ok(net::HelloReply {
            role: role.to_string(),
            ..net::HelloReply::default()
        })
    }

    // Answers a node that was removed and may not know it: it gets the proof.
    async fn removed(&self, node: &Author) -> Result<net::HelloReply, Refusal> {
        let removal = self.mesh.node.root().removal(node).await;
        Ok(net::HelloReply {
            refused: "removed".to_owned(),
            reason: "this node was removed from the mesh".to_owned(),
            removal: removal.unwrap_or_else(|error| {
                tracing::warn!(%error, "the removal of a node cannot be shown to it");
                Vec::new()
            }),
            ..net::HelloReply::default()
        })
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.lobby.leave(self.number);
        waiting.connections.remove(&self.number);
    }
}

impl Source {
    fn of(connection: &Connection) -> Self {
        let paths = connection.paths();
        let addresses = paths.iter().filter_map(|path| match path.remote_addr() {
            TransportAddr::Ip(address) => Some(address.ip()),
            _relay => None,
        });
        match addresses.map(|ip| ip.to_canonical()).min() {
            Some(IpAddr::V4(ip)) => Self::V4(ip),
            Some(IpAddr::V6(ip)) => {
                Self::V6(*ip.octets().first_chunk().expect("an address has 16 bytes"))
            }
            None => Self::Elsewhere,
        }
    }
}

impl ProtocolHandler for HelloServer {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        match timeout(HELLO_TIMEOUT, self.answer(&connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a hello failed"),
            Err(_elapsed) => connection.close(LATE.into(), b"too slow"),
        }
        Ok(())
    }
}

// The same refusal for every stranger, whatever it has shown.
fn stranger() -> Refusal {
    ("not_invited".to_owned(), "no such invitation".to_owned())
}

// A stable word for programs and a text for people. Neither names other nodes or data of this node.
fn refusal(error: &MeshError) -> (&'static str, String) {
    match error {
        MeshError::Invite(InviteError::Expired { .. }) => ("invite_expired", error.to_string()),
        MeshError::Invite(InviteError::Used { .. }) => {
            ("invite_used", "another node has used the invite".to_owned())
        }
        MeshError::Membership(MembershipError::Removed { .. }) => ("removed", error.to_string()),
        _ours => ("failed", "the node cannot admit anyone now".to_owned()),
    }
}

/// A stable word for programs, and a text for people.
type Refusal = (String, String);

const LATE: u32 = 408;
const NO_HELLO: u32 = 422;
