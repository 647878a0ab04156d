//! Invites: a node makes one, its bearer redeems it and is a member from then on.

use bytes::Bytes;

use crate::{
    id::Author,
    node::{
        identity,
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

/// Who was let in, and into what.
#[derive(Debug, Clone)]
pub struct Redeemed {
    /// What proves the root store's id.
    pub genesis: Genesis,
    /// What the new member may do.
    pub role: Role,
}

impl Node {
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
