//! The stores that are listed and not open here.

/// Stores that the root store lists and that are not open here, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unopened {
    /// Their lister has `STORES_OF_LISTER_MAX` open here.
    pub of_lister: usize,
    /// `STORES_SHARED_MAX` of other nodes are open here.
    pub in_all: usize,
    /// They could not be opened.
    pub failed: usize,
    /// The text of the last error. `None` if `failed` is 0.
    pub error: Option<String>,
}
