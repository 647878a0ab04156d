//! JSON on one line, and the objects on stderr.

use serde::Serialize;

/// Returns an object as one line.
pub(crate) fn to_json(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("strings, numbers and lists of them have a JSON form")
}

/// Something on stderr that is no error.
#[derive(Serialize)]
pub(crate) struct Notice<'a> {
    /// Stable name.
    pub(crate) notice: &'a str,
    /// For people.
    pub(crate) message: &'a str,
}

/// An error on stderr with `--json`.
#[derive(Serialize)]
pub(super) struct Error<'a> {
    /// Stable name.
    pub(super) error: &'a str,
    /// What happened, for people.
    pub(super) message: &'a str,
    /// What to do next.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) hint: &'a str,
    pub(super) exit_code: u8,
}
