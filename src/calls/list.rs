//! Options of a list of keys.

use bytes::Bytes;

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Selects keys that begin with this prefix; empty: all keys.
    pub prefix: Bytes,
    /// Largest number of keys; `None`: no limit.
    pub limit: Option<usize>,
    /// Lists keys without values.
    pub keys_only: bool,
}
