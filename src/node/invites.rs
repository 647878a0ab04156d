//! The node among others: who is a member, and how one becomes one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    id::Author,
    node::{Node, OpenError, identity},
    protocol::{
        entry::Op,
        membership::{
            Members, MembershipError,
            invite::{Invite, InviteError},
            role::{Act, Role, Tips, TooManyTips, role_key},
        },
    },
    store::{List, ReadError, Write, WriteError},
};

/// Why the members stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The rules of membership say no.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The invite is worth nothing.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// Not a member, or not any more.
    #[error("node {node} is not a member")]
    NotAMember {
        /// Which.
        node: Author,
    },
    /// An author has forked more often than a removal can say.
    #[error(transparent)]
    TooManyTips(#[from] TooManyTips),
    /// It could not be written into the root store.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The root store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no randomness, or the node's own files cannot be written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Who was let in, and into what.
#[derive(Debug, Clone)]
pub struct Redeemed {
    /// What proves the root store's id.
    pub genesis: crate::protocol::membership::genesis::Genesis,
    /// What the new member may do.
    pub role: Role,
}

impl Node {
    /// Returns who is a member now.
    pub fn members(&self) -> Arc<Members> {
        Arc::clone(&self.root().members().borrow())
    }

    /// Returns what tells who is a member. It ends when the node joins another mesh.
    pub fn watch_members(&self) -> watch::Receiver<Arc<Members>> {
        self.root().members()
    }

    /// Makes an invite that lets its bearer in as `role` within `valid_ms`. Returns its secret, of
    /// which the root store has a hash only, and when it expires, ms since 1970. Durable on return.
    ///
    /// # Errors
    /// `Membership`: only admins may. `Write`, `Open`.
    pub async fn invite(&self, role: Role, valid_ms: u64) -> Result<([u8; 32], u64), MeshError> {
        let own = self.id();
        let members = self.members();
        if members.role(&own) != Some(Role::Admin) {
            let role = members.role(&own);
            return Err(MembershipError::NotAdmin { node: own, role }.into());
        }
        let secret = identity::random()?;
        let invite = Invite {
            role,
            expires_ms: self.clock().now_ms().saturating_add(valid_ms),
            used: None,
        };
        let write = put(Invite::key(&secret), invite.encode());
        self.root().write_own(write).await?;
        Ok((secret, invite.expires_ms))
    }

    /// Lets `joiner` in, who has shown `secret`. Durable on return.
    ///
    /// # Errors
    /// `Invite`: no such invite, expired, used; of this node, that is: only who wrote an invite
    /// redeems it. `Membership`, `Write`, `Read`.
    pub async fn redeem(&self, secret: &[u8; 32], joiner: Author) -> Result<Redeemed, MeshError> {
        // One at a time: an invite is good for one.
        let _one = self.0.redeeming.lock().await;
        let root = self.root_and_genesis();
        let key = Invite::key(secret);
        let item = root.store.get(&key).await?;
        let own = item.filter(|item| item.entry.author == self.id());
        let value = own.as_ref().map(|item| item.value.as_ref());
        let now_ms = self.clock().now_ms();
        let role = Invite::check(value, &joiner, now_ms)?;
        let redeemed = Redeemed {
            genesis: root.genesis,
            role,
        };
        let members = self.members();
        match members.may_grant(&self.id(), &joiner, role) {
            Ok(()) => {}
            // The answer of the first time was lost.
            Err(MembershipError::HasRole { .. }) => return Ok(redeemed),
            Err(error) => return Err(error.into()),
        }
        let invite = Invite {
            used: Some(joiner),
            ..value.and_then(Invite::decode).ok_or(InviteError::Unknown)?
        };
        let mut write = put(key, invite.encode());
        write
            .ops
            .extend(put(role_key(&joiner), Act::Grant(role).encode()).ops);
        write.atomic = true;
        root.store.write_own(write).await?;
        Ok(redeemed)
    }

    /// Ends the membership of `node` for ever. Of its entries those count that are here now.
    /// Durable on return.
    ///
    /// # Errors
    /// `Membership`: the rules say no. `TooManyTips`, `Write`.
    pub async fn remove(&self, node: &Author) -> Result<(), MeshError> {
        self.members().may_remove(&self.id(), node)?;
        let mut tips = Vec::new();
        for store in self.open_stores() {
            let frontier = store.frontier();
            tips.extend(frontier.tips(node).iter().map(|tip| (store.id(), *tip)));
        }
        let removal = Act::Remove(Tips::new(tips)?).encode();
        self.root().write_own(put(role_key(node), removal)).await?;
        for store in self.open_stores() {
            store.reconsider().await;
        }
        Ok(())
    }

    /// True when `node` is said to be away for long.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn is_dormant(&self, node: &Author) -> Result<bool, ReadError> {
        let key = format!("/nodes/{node}/status");
        let status = self.root().get(key.as_bytes()).await?;
        Ok(status.is_some_and(|item| item.value.as_ref() == b"dormant"))
    }

    /// Returns what tells this start from those before it: a number greater than theirs, also after
    /// the clock was set back. Durable on return.
    ///
    /// # Errors
    /// `Open`: it cannot be kept.
    #[cfg(feature = "net")]
    pub fn incarnation(&self) -> Result<u64, MeshError> {
        let now_ms = self.clock().now_ms();
        Ok(self.0.meta.incarnation(now_ms)?)
    }

    /// Says of `node` that it is not waited for, or that it is again. Durable on return.
    ///
    /// # Errors
    /// `NotAMember`, `Write`.
    pub async fn set_dormant(&self, node: &Author, dormant: bool) -> Result<(), MeshError> {
        if self.members().role(node).is_none() {
            return Err(MeshError::NotAMember { node: *node });
        }
        let status = if dormant { "dormant" } else { "active" };
        let key = Bytes::from(format!("/nodes/{node}/status"));
        self.root().write_own(put(key, status.into())).await?;
        Ok(())
    }

    /// True while an invite of this node can be redeemed.
    pub async fn has_open_invites(&self) -> bool {
        let root = self.root();
        let listed = root.list(List {
            prefix: Bytes::from_static(b"/invites/"),
            limit: None,
            keys_only: false,
        });
        let now_ms = self.clock().now_ms();
        let open = |value: &[u8]| {
            Invite::decode(value)
                .is_some_and(|invite| invite.used.is_none() && invite.expires_ms > now_ms)
        };
        match listed.await {
            Ok(items) => items
                .iter()
                .any(|item| item.entry.author == self.id() && open(&item.value)),
            Err(error) => {
                tracing::warn!(%error, "open invites cannot be read");
                false
            }
        }
    }
}

/// For the net.
#[cfg(feature = "net")]
impl Node {
    /// Signs what this node says it has.
    pub(crate) fn sign_ack(&self, ack: &crate::protocol::ack::Ack) -> Bytes {
        ack.sign(&self.0.key)
    }

    /// Returns the bytes of the node's key, which is also its key among peers.
    pub(crate) fn seed(&self) -> [u8; 32] {
        self.0.key.to_bytes()
    }

    /// Returns what members know and others do not: the nonce of the root store, which is told to
    /// those who are let in, and never to others.
    pub(crate) fn mesh_secret(&self) -> [u8; 32] {
        self.root_and_genesis().genesis.nonce
    }

    /// Returns what was kept of peers.
    pub(crate) fn peer_notes(&self) -> Vec<(Author, Vec<u8>)> {
        self.0.meta.peers().unwrap_or_else(|error| {
            tracing::warn!(%error, "what was known of peers cannot be read");
            Vec::new()
        })
    }

    /// Keeps what is known of a peer for the next start.
    pub(crate) fn keep_peer_note(&self, node: &Author, body: Vec<u8>) -> Result<(), OpenError> {
        self.0.meta.keep_peer(node, body)
    }
}

fn put(key: Bytes, value: Bytes) -> Write {
    let op = Op::Put {
        key,
        value,
        expires_ms: None,
    };
    Write {
        ops: vec![op],
        atomic: false,
        condition: None,
        cause: None,
    }
}
