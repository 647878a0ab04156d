//! Standings: all that decides which entries of a store count.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    id::{Author, StoreId},
    protocol::{
        finality::Finality,
        membership::{Members, Standing, spent::is_spent},
    },
};

/// Decides about all authors in one store: the members, the keys that are spent there, and the anchors.
#[derive(Debug, Clone)]
pub struct Standings {
    /// Members of the mesh.
    pub members: Arc<Members>,
    /// Authors with more than `FORKS_MAX` forks in the store, whoever they are.
    pub spent: Arc<BTreeSet<Author>>,
    /// Entries that are final or void, whatever the standing of their authors.
    pub finality: Arc<Finality>,
}

impl Standings {
    /// Returns whether the entries of `author` count in `store`.
    pub fn of(&self, store: &StoreId, author: &Author) -> Standing {
        let is_spent = self.spent.contains(author);
        self.members.standing_with(store, author, is_spent)
    }

    /// Returns whether another branch of `author` may be taken in, beside those that are here and have
    /// this number of forks above its anchors.
    pub fn takes_branch(&self, store: &StoreId, author: &Author, forks: usize) -> bool {
        let standing = self.members.standing_with(store, author, is_spent(forks));
        standing != Standing::Spent
    }
}
