//! Proofs of membership from the root store's log, and what they are worth here.

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
        writer::{command::Command, membership::Grounds},
    },
};

/// Why a proof opens no door.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// It proves nothing.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// This store cannot look.
    #[error(transparent)]
    Store(#[from] WriteError),
}

impl Store {
    /// Returns the entries that show others why `node` is a member: a chain of grants, encoded, the
    /// nearest to the creator first. Of one too long for a proof, the end. Empty: it is none.
    ///
    /// # Errors
    /// `Closed`; `Read` when the log is not readable there.
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

    /// Returns what `node` may do, if the grants in `proof` are added to what is here. Nothing is
    /// kept of them: a sync brings them in their place.
    ///
    /// # Errors
    /// `ProveError`.
    pub async fn role_by(&self, node: &Author, proof: &[Bytes]) -> Result<Role, ProveError> {
        let members = Arc::clone(&self.members().borrow());
        let void = ProofError::Void { node: *node };
        if members.is_removed(node) {
            return Err(void.into());
        }
        let shown = grant_chain::check(proof, &self.id(), node, &members)?;
        let Grounds { creator, acts } = self.grounds().await?;
        let (store, log) = (self.id(), self.shared.log.clone());
        let evaluating = tokio::task::spawn_blocking(move || {
            let acts = acts.values().map(|(_, acts)| acts).chain(&shown);
            Members::evaluate(creator, store, acts, |author, entry, tip| {
                log.leads(author, entry, tip)
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
