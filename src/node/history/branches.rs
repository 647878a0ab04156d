//! Branches: authors of whom several branches are final, so that no base can be made.

use crate::{id::Author, protocol::frontier::Frontier};

/// Returns an author of which `anchors` has several.
pub(super) fn several(anchors: &Frontier) -> Option<Author> {
    let mut authors = anchors.by_author();
    authors
        .find(|(_, tips)| tips.len() > 1)
        .map(|(author, _)| author)
}
