//! The rules for names of stores on this node.

use crate::{id::StoreId, limits::STORE_NAME_CHARS_MAX, node::error::StoreError};

/// Checks the form of a name. A name is never a path, and never looks like an id.
///
/// # Errors
/// `NameInvalid`.
pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let count = name.chars().count();
    let fits = (1..=STORE_NAME_CHARS_MAX).contains(&count) && name.chars().all(letters);
    if fits && name.parse::<StoreId>().is_err() && name != "." && name != ".." {
        return Ok(());
    }
    Err(StoreError::NameInvalid {
        name: name.chars().take(80).collect(),
    })
}

/// Returns the name of a store that has no usable name here: `store-` and the first eight digits of
/// its id.
pub(super) fn name_of_id(id: &StoreId) -> String {
    format!("store-{}", &id.to_string()[..8])
}
