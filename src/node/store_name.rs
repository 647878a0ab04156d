//! The rules for names of stores on this node.

use crate::{id::StoreId, limits::STORE_NAME_CHARS_MAX, node::error::StoreError};

/// Name of the data store on every node. No other store has it.
pub(super) const DATA: &str = "data";

/// Checks that a store other than the root store and the data store may have this name, as far as its
/// form goes. A name is never a path, and never looks like an id.
///
/// # Errors
/// `NameInvalid`, `NameReserved`.
pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    if name == DATA {
        return Err(StoreError::NameReserved);
    }
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

/// Returns the name of a former root store or data store: `prefix`, `-`, and as many digits of its id
/// as make the name free.
pub(super) fn former_name(prefix: &str, id: &StoreId, is_free: impl Fn(&str) -> bool) -> String {
    let digits = id.to_string();
    let names = (8..=digits.len()).map(|length| format!("{prefix}-{}", &digits[..length]));
    let name = { names }.find(|name| is_free(name));
    name.unwrap_or_else(|| format!("{prefix}-{digits}"))
}

/// Returns the name of a store that has no usable name here: `store-` and the first eight digits of
/// its id.
pub(super) fn name_of_id(id: &StoreId) -> String {
    format!("store-{}", &id.to_string()[..8])
}
