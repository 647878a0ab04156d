//! Proofs of membership: chains of grants from the root store's log, and what one that a peer shows
//! is worth here.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::Author,
    limits::PROOF_BYTES_MAX,
    protocol::membership::{
        Members,
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
        let Grounds { creator, acts } = self.grounds().await?;
        let (store, log) = (self.id(), self.shared.log.clone());
        let evaluating = tokio::task::spawn_blocking(move || {
            let acts = acts.values().map(|(_, acts)| acts).chain(&shown);
            Members::evaluate(creator, store, acts, |author, entry, tip| {
                log.keeps(author, entry, tip)
            })
        });
        let evaluated = evaluating.await.map_err(|_panic| WriteError::Closed)?;
        let members = evaluated.map_err(|error| WriteError::Read(error.into()))?;
        Ok(members.role(node).ok_or(void)?)
    }

    async fn grounds(&self) -> Result<Grounds, WriteError> {
        self.queue.ask(Command::Grounds).await
    }
}
