//! Whether acts that count bear the bases of a store, remembered until the members or the bases change.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    id::StoreId,
    protocol::{
        finality::{CollectionsHash, is_borne},
        membership::Members,
    },
};

/// The last answer, and the members and bases that it is about. The first one is still to be found.
#[derive(Debug, Default)]
pub(super) struct Borne(Option<(Arc<Members>, BTreeSet<CollectionsHash>, bool)>);

impl Borne {
    /// Returns whether acts of `members` about `store` bear bases with the effect of `collected`. Long work
    /// with many acts, the first time.
    pub(super) fn look(
        &mut self,
        members: Arc<Members>,
        store: &StoreId,
        collected: BTreeSet<CollectionsHash>,
    ) -> bool {
        if let Some((known, of, is_borne)) = &self.0
            && Arc::ptr_eq(known, &members)
            && *of == collected
        {
            return *is_borne;
        }
        let acts = members.anchors_acts(store).map(Arc::as_ref);
        let is_borne = is_borne(&collected, acts);
        self.0 = Some((members, collected, is_borne));
        is_borne
    }
}
