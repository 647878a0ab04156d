//! Proofs of membership: chains of grants from the root store's log, and what one that a peer shows
//! is worth here.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::Author,
    limits::PROOF_BYTES_MAX,
    protocol::entry::Parent,
    protocol::membership::{
        Members,
        acts::Acts,
        grant_chain::{self, ProofError},
        role::Role,
    },
    store::{
        ReadError, Store, WriteError,
        writer::{command::Command, known_acts::Grounds},
    },
};

/// Why a proof of membership does not let its bearer in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// It is not a chain of grants that count.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The root store could not be read.
    #[error(transparent)]
    Store(#[from] WriteError),
}

impl Store {
    /// Returns the chain of grants that makes `node` a member, as encoded entries, the grant nearest to
    /// the creator first. A chain of more than `PROOF_BYTES_MAX` bytes loses its beginning. Empty when
    /// `node` is not a member.
    ///
    /// # Errors
    /// `Closed`; `Read` when one of the entries is unreadable.
    pub async fn proof(&self, node: &Author) -> Result<Vec<Bytes>, WriteError> {
        let members = Arc::clone(&self.members().borrow());
        let places = grant_chain::grants(node, &self.grounds().await?.acts, &members);
        self.encoded(places).await
    }

    /// Returns a removal of `node` by another node, after the chain of grants that makes the remover an
    /// admin, as encoded entries. Empty when no other node has removed it, or they are larger than
    /// `PROOF_BYTES_MAX`.
    ///
    /// # Errors
    /// Like `proof`.
    pub async fn removal(&self, node: &Author) -> Result<Vec<Bytes>, WriteError> {
        let members = Arc::clone(&self.members().borrow());
        let places = grant_chain::removal(node, &self.grounds().await?.acts, &members);
        self.encoded(places).await
    }

    /// Returns the node that has removed `node`, when the acts in `removal` are added to those here;
    /// `None` when they do not remove it. They are not kept.
    ///
    /// # Errors
    /// `ProveError`.
    pub async fn removed_by_acts(
        &self,
        node: &Author,
        removal: &[Bytes],
    ) -> Result<Option<Author>, ProveError> {
        let members = Arc::clone(&self.members().borrow());
        let shown = grant_chain::check_removal(removal, &self.id(), node, &members)?;
        let members = self.members_with(shown).await?;
        let member = members.get(node);
        let removals = member
            .into_iter()
            .flat_map(|member| member.removals.values());
        let by = removals.map(|removal| removal.by);
        Ok(by.filter(|by| by != node).min())
    }

    // Reads the entries at `places`, from the end as far as `PROOF_BYTES_MAX` allows.
    async fn encoded(&self, places: Vec<Parent>) -> Result<Vec<Bytes>, WriteError> {
        let log = self.shared.log.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for place in places.iter().rev() {
                let found = log.entry(&place.author, place.seq, &place.id);
                let Some((entry, _)) = found.map_err(ReadError::from)? else {
                    break;
                };
                let encoded = Bytes::from(entry.signed.encode());
                bytes += encoded.len();
                if bytes > PROOF_BYTES_MAX {
                    break;
                }
                entries.push(encoded);
            }
            entries.reverse();
            Ok(entries)
        });
        reading.await.map_err(|_panic| WriteError::Closed)?
    }

    /// Returns the role of `node` when the grants in `proof` are added to the acts here. They are not
    /// kept: a sync brings them.
    ///
    /// # Errors
    /// `ProveError`.
    pub async fn role_by(&self, node: &Author, proof: &[Bytes]) -> Result<Role, ProveError> {
        let members = Arc::clone(&self.members().borrow());
        let void = ProofError::Void { node: *node };
        if members.is_removed(node) || members.is_spent(node) {
            return Err(void.into());
        }
        let shown = grant_chain::check(proof, &self.id(), node, &members)?;
        let members = self.members_with(shown).await?;
        Ok(members.role(node).ok_or(void)?)
    }

    // Evaluates the members with the acts in `shown` added.
    async fn members_with(&self, shown: Vec<Acts>) -> Result<Members, ProveError> {
        let Grounds { creator, acts } = self.grounds().await?;
        let (store, log) = (self.id(), self.shared.log.clone());
        let evaluating = tokio::task::spawn_blocking(move || {
            let acts = acts.values().chain(&shown);
            Members::evaluate(creator, store, acts, |author, entry, tip| {
                log.keeps(author, entry, tip)
            })
        });
        let evaluated = evaluating.await.map_err(|_panic| WriteError::Closed)?;
        let members = evaluated.map_err(|error| WriteError::Read(error.into()))?;
        Ok(members)
    }

    async fn grounds(&self) -> Result<Grounds, WriteError> {
        self.queue.ask(Command::Grounds).await
    }
}
