//! Comparisons: the tree of one state, kept while another node is asked about its own.

use bytes::Bytes;

use crate::{
    protocol::{
        heads::Heads,
        merkle::{Answer, Ask, Diff, DiffError, Tree, TreeRoot},
    },
    state::View,
    store::{ReadError, StateRoot, Store, read::root::state_root},
};

/// The tree of one state, which does not change while it is kept. Its methods read files: they are
/// called on threads that may wait.
///
/// It keeps pages of the state file in use, and at most 16 MiB of memory: the caller bounds its time.
#[derive(Debug)]
pub struct StateTree {
    view: View,
    tree: Tree,
    prefix: Bytes,
    /// The state, with the root over the rows of all keys.
    pub state: StateRoot,
    /// The root over the rows of the keys that begin with the prefix.
    pub prefix_root: TreeRoot,
}

impl Store {
    /// Returns the tree of the state now, for a comparison of the keys that begin with `prefix`.
    ///
    /// # Errors
    /// `ReadError`, as for `root`.
    pub async fn state_tree(&self, prefix: &[u8]) -> Result<StateTree, ReadError> {
        let prefix = Bytes::copy_from_slice(prefix);
        self.look(move |view, members| {
            let mut tree = view.tree()?;
            let fresh = tree.refresh(view)?;
            let root = fresh.root();
            let prefix_root = if prefix.is_empty() {
                root
            } else {
                fresh.prefix_root(&prefix)?
            };
            Ok(StateTree {
                state: state_root(view, members, root)?,
                view: view.clone(),
                tree,
                prefix: prefix.clone(),
                prefix_root,
            })
        })
        .await
    }
}

impl StateTree {
    /// Answers a question of a peer.
    ///
    /// # Errors
    /// `ReadError`.
    pub fn answer(&mut self, ask: &Ask) -> Result<Answer, ReadError> {
        Ok(self.tree.refresh(&self.view)?.answer(ask)?)
    }

    /// Begins to compare this state with that of a peer, whose tree has the root `there`.
    ///
    /// # Errors
    /// `ReadError`.
    pub fn diff(&mut self, there: TreeRoot, differences_max: usize) -> Result<Diff, ReadError> {
        let here = self.tree.refresh(&self.view)?;
        let prefix = self.prefix.clone();
        Ok(Diff::of_prefix(&here, there, prefix, differences_max))
    }

    /// Gives `diff` the peer's answer.
    ///
    /// # Errors
    /// As [`Diff::take`].
    pub fn take(&mut self, diff: &mut Diff, answer: Answer) -> Result<(), DiffError<ReadError>> {
        let here = self.tree.refresh(&self.view);
        let here = here.map_err(|error| DiffError::Rows(error.into()))?;
        diff.take(&here, answer).map_err(|error| match error {
            DiffError::Dishonest { what } => DiffError::Dishonest { what },
            DiffError::Rows(error) => DiffError::Rows(error.into()),
        })
    }

    /// Returns the heads of `key` in this state.
    ///
    /// # Errors
    /// `ReadError`.
    pub fn heads(&self, key: &[u8]) -> Result<Heads, ReadError> {
        Ok(self.view.heads(key)?)
    }
}
