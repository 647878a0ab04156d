//! Spent keys of a store, as readers and the net see them.

use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

use crate::{
    id::Author,
    protocol::{
        frontier::{Frontier, FrontierTip},
        membership::{Standing, spent::SpentKeys},
    },
    store::{ReadError, Shared, Store, writer::chains::NotedChains},
};

impl Shared {
    /// Returns whether the entries of `author` count in this store.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn standing(&self, author: &Author) -> Result<Standing, ReadError> {
        let finality = Arc::clone(&self.finality.borrow());
        let hidden = RefCell::default();
        let chains = NotedChains::new(&self.log, &hidden);
        let is_spent = self.log.has_spent(author, &finality, &chains)?;
        let members = self.members.borrow();
        Ok(members.standing_with(&self.id, author, is_spent))
    }

    // Authors whose keys are spent in this store or in the root store, and no anchor of whom has still to
    // come.
    fn spent(&self) -> Result<BTreeSet<Author>, ReadError> {
        if self.anyone {
            return Ok(BTreeSet::new());
        }
        let members = Arc::clone(&self.members.borrow());
        let finality = Arc::clone(&self.finality.borrow());
        let hidden = RefCell::default();
        let chains = NotedChains::new(&self.log, &hidden);
        let here = self.log.spent(&finality, &chains)?;
        let in_root = members.iter().filter(|(_, member)| member.spent);
        let mut spent: BTreeSet<Author> = in_root.map(|(author, _)| *author).collect();
        for author in here {
            if members.standing_with(&self.id, &author, true) == Standing::Spent {
                spent.insert(author);
            }
        }
        spent.retain(|author| !finality.awaits(author));
        Ok(spent)
    }
}

impl Store {
    /// Returns the tips of the logs of authors whose keys are spent in this store: nothing of them
    /// counts, but for entries that are final. The other tips are those of `frontier`.
    ///
    /// # Errors
    /// `Io`.
    pub fn spent(&self) -> Result<Frontier, ReadError> {
        let log = &self.shared.log;
        let spent = self.shared.spent()?;
        let tips = spent.iter().flat_map(|author| {
            let tips = log.of(author).into_iter().filter_map(|branch| branch.tip());
            tips.map(|tip| (*author, FrontierTip::from(tip)))
        });
        Ok(tips.collect())
    }

    /// Returns the spent keys as a sync session offers them.
    ///
    /// Reads files if there are any: not for an event loop.
    ///
    /// # Errors
    /// `Io`.
    pub fn spent_keys(&self) -> Result<SpentKeys, ReadError> {
        let Shared { log, members, .. } = &*self.shared;
        let mut keys = SpentKeys {
            authors: self.shared.spent()?,
            proof: Frontier::default(),
        };
        let members = Arc::clone(&members.borrow());
        let finality = Arc::clone(&self.shared.finality.borrow());
        let hidden = RefCell::default();
        let chains = NotedChains::new(log, &hidden);
        for author in &keys.authors {
            // The root store comes first in a sync.
            if !self.shared.root && members.is_spent(author) {
                continue;
            }
            for tip in log.fork_proof(author, &finality, &chains)? {
                keys.proof.insert(*author, tip);
            }
        }
        Ok(keys)
    }
}
