//! The members of the node's mesh: reading, removing, and marking one as dormant.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    id::Author,
    limits::CLAIMS_WAIT_MS_MAX,
    node::{
        error::{NameError, OpenError},
        info::{NodeInfo, check_node_name},
        node::Node,
    },
    protocol::{
        entry::Op,
        frontier::FrontierTip,
        membership::{
            Departure, Members, MembershipError,
            invite::InviteError,
            role::{Act, Role, Tips, TooManyTips, role_key},
        },
    },
    store::{ReadError, Store, Write, WriteError},
};

/// Why an operation on the members of the mesh failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// The rules of membership refuse it.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The invite cannot be redeemed.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The node is not a member, or not any more.
    #[error("node {} is not a member", node.short())]
    NotAMember {
        /// Key of the node.
        node: Author,
    },
    /// There are more stores than a removal can name.
    #[error(transparent)]
    TooManyTips(#[from] TooManyTips),
    /// The root store could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The root store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A reader would leave. Nothing that it writes counts, so nobody would know of it.
    #[error(
        "this node is a reader, and nothing that a reader writes counts; an admin can remove it"
    )]
    ReaderLeaves {
        /// Key of this node.
        node: Author,
    },
    /// The name cannot be the name of a node.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The random source failed, or a file of the node cannot be written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Node {
    /// Returns the members as of now.
    pub fn members(&self) -> Arc<Members> {
        Arc::clone(&self.root().members().borrow())
    }

    /// Returns a receiver of the members, now and after each change. It is closed when the node
    /// joins another mesh.
    pub fn watch_members(&self) -> watch::Receiver<Arc<Members>> {
        self.root().members()
    }

    /// Removes `node` for ever. The entries of it that are here now go on counting; later ones
    /// never do. In a store in which its key is spent all that is here counts again. Durable on return.
    ///
    /// # Errors
    /// `Membership`: the rules refuse it. `TooManyTips`, `Write`.
    pub async fn remove(&self, node: &Author) -> Result<(), MeshError> {
        self.members().may_remove(&self.id(), node)?;
        let removal = Act::Remove(tips_here(&self.shared_stores(), node)?).encode();
        self.root().write_own(put(role_key(node), removal)).await?;
        for store in self.shared_stores() {
            store.reconsider().await;
        }
        Ok(())
    }

    /// Ends this node's own membership, for ever: a removal of itself. What it wrote goes on
    /// counting. Its data stays here. Durable on return.
    ///
    /// # Errors
    /// `Membership`: it is not a member, or the last admin. `ReaderLeaves`, `TooManyTips`, `Write`.
    pub async fn leave(&self) -> Result<(), MeshError> {
        let node = self.id();
        if self.members().role(&node) == Some(Role::Reader) {
            return Err(MeshError::ReaderLeaves { node });
        }
        self.remove(&node).await
    }

    /// Refuses own writes to the stores of the mesh because `by` has removed this node, as a peer has
    /// proven; `None` takes that back. The root store may never get the removal: nobody syncs with a
    /// node that was removed.
    pub fn turn_away(&self, by: Option<Author>) {
        for store in self.shared_stores() {
            store.turn_away(by);
        }
    }

    /// Returns a node that has removed this one, or this node itself if it has left; `None` while it
    /// is not known to be removed.
    pub fn removed_by(&self) -> Option<Author> {
        self.root().removed_by()
    }

    /// Gives `node`, which is a member, another role. Durable on return.
    ///
    /// A lower role is for ever: no grant gives the rights back. What the node has done with them so
    /// far, as far as it is here, goes on counting; for a role of reader these are its entries, for
    /// that of writer its grants, removals and invites. Later ones never count.
    ///
    /// # Errors
    /// `NotAMember`; `Membership`: this node is not an admin or `node` outranks it, `node` has the role
    /// already, its role was lowered before, or it is this node. `TooManyTips`, `Write`.
    pub async fn set_role(&self, node: &Author, role: Role) -> Result<(), MeshError> {
        let members = self.members();
        if members.role(node).is_none() && !members.is_removed(node) && !members.is_spent(node) {
            return Err(MeshError::NotAMember { node: *node });
        }
        if members.role(node) > Some(role) {
            return self.lower(node, role).await;
        }
        members.may_grant(&self.id(), node, role)?;
        let grant = Act::Grant(role).encode();
        self.root().write_own(put(role_key(node), grant)).await?;
        Ok(())
    }

    async fn lower(&self, node: &Author, role: Role) -> Result<(), MeshError> {
        self.members().may_lower(&self.id(), node, role)?;
        let root = self.root();
        let stores = match role {
            Role::Reader => self.shared_stores(),
            // It takes the right to act, and acts are in the root store.
            Role::Writer | Role::Admin => vec![root.clone()],
        };
        let lowering = Act::Lower(role, tips_here(&stores, node)?).encode();
        root.write_own(put(role_key(node), lowering)).await?;
        for store in self.shared_stores() {
            store.reconsider().await;
        }
        Ok(())
    }

    /// Gives `node`, which is a member, another name for people. Durable on return. If this node is not
    /// a member, its name is that of the next join in this run.
    ///
    /// # Errors
    /// `Name`; `NotAMember`; `Membership`: only an admin renames another node. `Read`, `Write`.
    pub async fn rename(&self, node: &Author, name: &str) -> Result<(), MeshError> {
        check_node_name(name)?;
        let (own, members) = (self.id(), self.members());
        if members.role(node).is_none() {
            if *node != own {
                return Err(MeshError::NotAMember { node: *node });
            }
            self.choose_name(name);
            return Ok(());
        }
        let role = members.role(&own);
        if *node != own && role != Some(Role::Admin) {
            return Err(MembershipError::NotAdmin { node: own, role }.into());
        }
        let info = NodeInfo {
            name: name.to_owned(),
            ..self.info(node).await?.unwrap_or_default()
        };
        let write = put(NodeInfo::key(node), info.encode());
        self.root().write_own(write).await?;
        if *node == own {
            self.choose_name(&info.name);
        }
        Ok(())
    }

    fn choose_name(&self, name: &str) {
        let mut chosen = self.0.name.lock().unwrap_or_else(PoisonError::into_inner);
        *chosen = Some(name.to_owned());
    }

    /// Removes once more each node that has left, or that was removed before a store was here, and lowers
    /// again each that was lowered to reader before, if this node is an admin that outranks it: see
    /// [`Members::departures`]. Durable on return. Does nothing when there is nothing to add.
    ///
    /// In a store in which a node itself named tips when it left, these are waited for, for
    /// `CLAIMS_WAIT_MS_MAX` at most, because an act without them would void what it does not lead back to.
    /// Returns whether some are still waited for: then call it again later.
    ///
    /// # Errors
    /// `TooManyTips`, `Read`, `Write`: the first that one of the nodes met; the others are done.
    pub async fn confirm_departures(&self) -> Result<bool, MeshError> {
        let stores = self.shared_stores();
        let ids = stores.iter().map(Store::id).collect();
        let (mut waits, mut failed) = (false, Ok(()));
        for departure in self.members().departures(&self.id(), &ids) {
            match self.confirm(departure, &stores).await {
                Ok(is_done) => waits |= !is_done,
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| waits)
    }

    // Returns whether it was done for all stores; in others tips that the node named are waited for.
    async fn confirm(&self, departure: Departure, stores: &[Store]) -> Result<bool, MeshError> {
        let Departure {
            node,
            lowered,
            stores: mut named,
            mut tips,
            left,
            claims,
            is_confirmed,
        } = departure;
        let (root, mut is_done) = (self.root(), true);
        for store in stores {
            let id = store.id();
            let claimed = claims.iter().filter(|(of, _)| *of == id);
            let claimed: Vec<_> = claimed.map(|(_, tip)| (node, *tip)).collect();
            // A store that cannot answer waits, and keeps the rest from nothing.
            if !claimed.is_empty()
                && !store
                    .lacks(claimed)
                    .await
                    .is_ok_and(|absent| absent.is_empty())
                && self.waited_ms(&node, &left).await? < CLAIMS_WAIT_MS_MAX
            {
                named.remove(&id);
                is_done = false;
            } else if id == root.id() || named.contains(&id) {
                let frontier = store.frontier();
                tips.extend(frontier.tips(&node).iter().map(|tip| (id, *tip)));
            }
        }
        if named.is_empty() && is_confirmed {
            return Ok(is_done);
        }
        let tips = Tips::naming_longest(named, tips)?;
        let act = match lowered {
            true => Act::Lower(Role::Reader, tips),
            false => Act::Remove(tips),
        };
        root.write_own(put(role_key(&node), act.encode())).await?;
        Ok(is_done)
    }

    // How long ago the first of the entries `left` of `node` came, by the clock of this node.
    async fn waited_ms(
        &self,
        node: &Author,
        left: &BTreeSet<FrontierTip>,
    ) -> Result<u64, ReadError> {
        let (root, mut waited_ms) = (self.root(), 0);
        for tip in left {
            let entries = root.entries(*node, tip.seq.saturating_sub(1), 1);
            let entries = entries.await?.into_iter();
            let arrived = entries.filter(|at| at.entry.id == tip.id);
            for arrived_ms in arrived.map(|at| at.arrived_ms) {
                let since_ms = self.clock().now_ms().saturating_sub(arrived_ms);
                waited_ms = waited_ms.max(since_ms);
            }
        }
        Ok(waited_ms)
    }

    /// True when `node` is marked as dormant: away for long, and not waited for.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn is_dormant(&self, node: &Author) -> Result<bool, ReadError> {
        let key = format!("/nodes/{node}/status");
        let status = self.root().get(key.as_bytes()).await?;
        Ok(status.is_some_and(|item| item.value.as_ref() == b"dormant"))
    }

    /// Marks `node` as dormant or as active. A dormant node is not waited for. Durable on return.
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
}

// Names `stores`, and in each the tips of `node` that are here.
fn tips_here(stores: &[Store], node: &Author) -> Result<Tips, MeshError> {
    let mut tips = BTreeSet::new();
    for store in stores {
        for frontier in [store.frontier(), store.spent()?] {
            tips.extend(frontier.tips(node).iter().map(|tip| (store.id(), *tip)));
        }
    }
    let stores = stores.iter().map(Store::id).collect();
    Ok(Tips::naming_longest(stores, tips)?)
}

/// Returns a write of one key that does not expire.
pub(super) fn put(key: Bytes, value: Bytes) -> Write {
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
