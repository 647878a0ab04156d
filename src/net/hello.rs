//! The hello, asking side: a node shows an invitation, or proves its membership. `hello_server`
//! answers.

use bytes::Bytes;
use iroh::{
    EndpointAddr,
    endpoint::{Connection, ReadToEndError, RecvStream},
};
use prost::Message as _;
use tokio::time::timeout;

use crate::{
    id::{Author, StoreId},
    limits::{DIAL_TIMEOUT, HELLO_BYTES_MAX, HELLO_TIMEOUT},
    net::{
        alpn::HELLO_ALPN,
        error::{JoinError, PeerError, Tried},
        mesh::Mesh,
        token::Invitation,
    },
    node::NodeInfo,
    protocol::membership::{genesis::Genesis, role::Role},
    wire::net,
};

/// The answer of the node that redeemed an invitation.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    /// Proves the id of the root store.
    pub(super) genesis: Genesis,
    /// Role that this node was granted.
    pub(super) role: Role,
}

/// Shows an invitation to the node that made it, with the info of this node, and returns its answer.
/// `contacted` is awaited once the node is connected.
///
/// # Errors
/// `Unreachable`, also for a malformed answer; `Refused`.
pub(super) async fn redeem(
    endpoint: &iroh::Endpoint,
    address: EndpointAddr,
    invitation: &Invitation,
    info: &NodeInfo,
    contacted: impl AsyncFnOnce(),
) -> Result<Admitted, JoinError> {
    let unreachable = |why: PeerError| JoinError::Unreachable {
        node: invitation.node,
        tried: Tried(invitation.addresses.clone()),
        why,
    };
    let connection = connect(endpoint, address).await.map_err(unreachable)?;
    contacted().await;
    let request = net::HelloRequest {
        secret: Bytes::copy_from_slice(&invitation.secret),
        info: info.encode(),
        ..request(&invitation.store)
    };
    let reply = ask(&connection, request).await.map_err(unreachable)?;
    let malformed = || unreachable(NO_ANSWER);
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
    // The id of a store is a hash of its genesis, so a false genesis is detected.
    if genesis.store() != invitation.store {
        return Err(malformed());
    }
    Ok(Admitted {
        genesis,
        role: reply.role.parse().map_err(|_word| malformed())?,
    })
}

/// Proves this node's membership to a node that does not know it.
///
/// # Errors
/// `NotAMember` when the other node refuses the proof, and when this node has none.
pub(super) async fn prove(mesh: &Mesh, address: EndpointAddr) -> Result<(), PeerError> {
    let root = mesh.node.root();
    let proof = root.proof(&mesh.node.id()).await;
    let proof = proof.map_err(PeerError::own)?;
    if proof.is_empty() {
        return Err(PeerError::NotAMember);
    }
    let request = net::HelloRequest {
        proof,
        ..request(&root.id())
    };
    let connection = connect(&mesh.endpoint, address).await?;
    let reply = ask(&connection, request).await?;
    match (reply.refused.is_empty(), reply.role.is_empty()) {
        (true, false) => Ok(()),
        (true, true) => Err(NO_ANSWER),
        (false, _) => Err(refused(mesh, reply.removal).await),
    }
}

// Believes a removal of this node only if the acts that come with it prove it.
async fn refused(mesh: &Mesh, removal: Vec<Bytes>) -> PeerError {
    if removal.is_empty() {
        return PeerError::NotAMember;
    }
    match mesh.believe_removal(removal).await {
        Some(by) => PeerError::Removed { by },
        None => PeerError::NotAMember,
    }
}

fn request(store: &StoreId) -> net::HelloRequest {
    net::HelloRequest {
        version: VERSION,
        store_id: Bytes::copy_from_slice(&store.0),
        ..net::HelloRequest::default()
    }
}

async fn connect(
    endpoint: &iroh::Endpoint,
    address: EndpointAddr,
) -> Result<Connection, PeerError> {
    let wait = DIAL_TIMEOUT;
    let dialled = timeout(wait, endpoint.connect(address, HELLO_ALPN)).await;
    Ok(dialled.map_err(|_elapsed| PeerError::Silent { wait })??)
}

async fn ask(
    connection: &Connection,
    request: net::HelloRequest,
) -> Result<net::HelloReply, PeerError> {
    let asked = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&request.encode_to_vec()).await?;
        send.finish()?;
        read(&mut receive).await
    };
    let wait = HELLO_TIMEOUT;
    let reply = timeout(wait, asked).await;
    let reply = reply.map_err(|_elapsed| PeerError::Silent { wait })??;
    connection.close(DONE.into(), b"done");
    net::HelloReply::decode(reply.as_slice()).map_err(|_reason| NO_ANSWER)
}

/// Reads a message of the hello to its end, at most `HELLO_BYTES_MAX` bytes.
pub(super) async fn read(receive: &mut RecvStream) -> Result<Vec<u8>, PeerError> {
    let read = receive.read_to_end(HELLO_BYTES_MAX).await;
    read.map_err(|error| match error {
        ReadToEndError::Read(error) => error.into(),
        ReadToEndError::TooLong => PeerError::Malformed {
            what: "a hello that is too long",
        },
    })
}

const NO_ANSWER: PeerError = PeerError::Malformed {
    what: "a malformed answer to a hello",
};
/// Version of the messages.
pub(super) const VERSION: u32 = 1;
const DONE: u32 = 0;
