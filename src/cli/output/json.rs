//! Encodes JSON objects as lines, and defines the objects that go to stderr.

use serde::Serialize;

/// Returns `object` as JSON on one line, without a newline.
pub(crate) fn to_json(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("strings, numbers and lists of them have a JSON form")
}

/// The JSON Schema of all lines: a definition for each `type`.
pub(crate) const SCHEMA: &str = include_str!("../../../proto/output.schema.json");

/// An object with the `type` of its line.
#[derive(Serialize)]
pub(crate) struct Typed<T> {
    r#type: &'static str,
    #[serde(flatten)]
    object: T,
}

/// Makes the line of an object that does not have its `type` itself.
pub(crate) fn typed<T: Serialize>(r#type: &'static str, object: T) -> Typed<T> {
    Typed { r#type, object }
}

/// A notice on stderr; not an error.
#[derive(Serialize)]
pub(crate) struct Notice<'a> {
    /// Stable name of the notice.
    pub(crate) notice: &'a str,
    /// Text for people.
    pub(crate) message: &'a str,
}

/// An error on stderr with `--json`.
#[derive(Serialize)]
pub(super) struct Error<'a> {
    /// Stable name of the error.
    pub(super) error: &'a str,
    /// The failure in words, for people.
    pub(super) message: &'a str,
    /// A hint for the next step; absent if there is nothing to suggest.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) hint: &'a str,
    pub(super) exit_code: u8,
}
