//! Mark: remembers a state without keeping its rows.

use std::sync::{Arc, Weak};

use crate::{
    protocol::{finality::Collections, frontier::Frontier, membership::reserved::Counting},
    state::{View, shared_tree::SharedTree},
};

/// Names a state: views with the same mark have the same heads. It keeps no pages of the state file
/// in use, as a view does.
#[derive(Debug, Clone)]
pub struct StateMark {
    frontier: Arc<Frontier>,
    counting: Option<Arc<Counting>>,
    collections: Arc<Collections>,
    is_swept: bool,
    // Names the file. A state that was built again may have other heads for the same entries.
    tree: Weak<SharedTree>,
}

impl View {
    /// Returns the mark of this view.
    pub fn mark(&self) -> StateMark {
        StateMark {
            frontier: Arc::clone(&self.frontier),
            counting: self.counting.clone(),
            collections: Arc::clone(&self.collections),
            is_swept: self.is_swept,
            tree: Arc::downgrade(&self.tree),
        }
    }

    /// Returns whether this view has the mark: `false` also for equal heads in a file that was built
    /// again, and as long as acts take heads from it.
    pub fn has_mark(&self, mark: &StateMark) -> bool {
        self.is_in_file_of(mark)
            && self.has_collections_of(mark)
            && (Arc::ptr_eq(&self.frontier, &mark.frontier) || self.frontier == mark.frontier)
            && match (&self.counting, &mark.counting) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
                (None, None) => true,
                _other => false,
            }
    }

    /// Returns whether acts took the same heads from this view as from the one that has the mark, and from all
    /// rows of both.
    pub fn has_collections_of(&self, mark: &StateMark) -> bool {
        self.is_swept
            && mark.is_swept
            && (Arc::ptr_eq(&self.collections, &mark.collections)
                || self.collections == mark.collections)
    }

    /// Returns whether this view follows, in the same file, the one that has the mark.
    pub fn is_in_file_of(&self, mark: &StateMark) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.tree), mark.tree.as_ptr())
    }
}
