//! Invites: a node makes one, and its bearer redeems it once to become a member.

use bytes::Bytes;

use crate::{
    id::Author,
    node::{
        identity,
        info::{NodeInfo, check_node_name},
        members::{MeshError, put},
        node::Node,
    },
    protocol::membership::{
        MembershipError,
        genesis::Genesis,
        invite::{Invite, InviteError},
        role::{Act, Role, role_key},
    },
    store::List,
};

/// The outcome of a redeemed invite.
#[derive(Debug, Clone)]
pub struct Redeemed {
    /// Genesis of the root store, which proves its id.
    pub genesis: Genesis,
    /// Role of the new member.
    pub role: Role,
}

impl Node {
    /// Makes an invite that admits its bearer as `role` within `valid_ms` milliseconds. Returns its
    /// secret and when it expires, ms since 1970. The root store has only a hash of the secret.
    /// Durable on return.
    ///
    /// # Errors
    /// `Membership`: this node is not an admin. `Write`, `Open`.
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

    /// Admits `joiner`, which has shown `secret`. Only the node that made an invite redeems it.
    /// Durable on return. May be repeated by the same joiner: the answer of the first time may have
    /// been lost.
    ///
    /// # Errors
    /// `Invite`: this node made no such invite, or it has expired or was used by another node.
    /// `Membership`, `Write`, `Read`.
    pub async fn redeem(&self, secret: &[u8; 32], joiner: Author) -> Result<Redeemed, MeshError> {
        // One at a time: two joiners must not both find the invite unused.
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
            // It was admitted before, and the answer was lost.
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

    /// Writes the info that `node` gave when it joined, if there is none yet: a reader cannot write
    /// its own. A failure is only logged.
    pub async fn note_info(&self, node: &Author, info: &NodeInfo) {
        if check_node_name(&info.name).is_err() {
            return;
        }
        let noted = async {
            if self.info(node).await?.is_none() {
                let write = put(NodeInfo::key(node), info.encode());
                self.root().write_own(write).await?;
            }
            Ok::<(), MeshError>(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(%node, %error, "the name of a new member was not written");
        }
    }

    /// True while an invite of this node can be redeemed; also, and logged, if the invites cannot be
    /// read.
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
                tracing::warn!(%error, "open invites cannot be read: some may be open");
                true
            }
        }
    }
}
