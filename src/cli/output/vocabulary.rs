//! The vocabulary of JSON lines: beside a time its text, beside the id of a node its name.
//!
//! `wall_ms` gets a `wall_time`, `author` an `author_name`, and the list `signed_by` a list
//! `signed_by_names`. These fields come last in their object.

use std::{collections::BTreeMap, io};

use data_encoding::HEXLOWER as HEX;
use jiff::Timestamp;
use lattice::wire::api;
use serde::Serialize;
use serde_json::{
    Value,
    ser::{CompactFormatter, Formatter, Serializer},
};

/// The names of nodes, by their ids in hex digits.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeNames(BTreeMap<String, String>);

impl NodeNames {
    /// Makes the names of these nodes; those without a name are left out.
    pub(crate) fn new<'a>(nodes: impl IntoIterator<Item = &'a api::Peer>) -> Self {
        let named = nodes.into_iter().filter(|peer| !peer.name.is_empty());
        Self(
            named
                .map(|peer| (HEX.encode(&peer.node), peer.name.clone()))
                .collect(),
        )
    }

    /// True if the node has a name here.
    pub(crate) fn knows(&self, node: &[u8]) -> bool {
        self.0.contains_key(&HEX.encode(node))
    }
}

/// Returns `object` as JSON on one line, without a newline, with times as text and names of nodes.
pub(crate) fn to_line(object: &impl Serialize, names: &NodeNames) -> String {
    let mut json = Vec::with_capacity(LINE_BYTES);
    let formatter = Beside {
        names,
        objects: Vec::new(),
    };
    let mut serializer = Serializer::with_formatter(&mut json, formatter);
    object
        .serialize(&mut serializer)
        .expect("strings, numbers and lists of them have a JSON form");
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// Returns the RFC 3339 time of an instant in ms; `None` for 0, which means never, and for times after
/// the year 9999.
fn time(ms: u64) -> Option<String> {
    let ms = i64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    let time = Timestamp::from_millisecond(ms).ok()?;
    Some(format!("{time:.3}"))
}

/// Writes compact JSON, and at the end of each object the fields beside its times and ids.
struct Beside<'a> {
    names: &'a NodeNames,
    // The objects that are being written, the innermost one last.
    objects: Vec<Object>,
}

/// An object that is being written.
#[derive(Default)]
struct Object {
    // Name of the field that is being written.
    field: String,
    is_name: bool,
    meaning: Meaning,
    // Value of a field with an instant.
    ms: Option<u64>,
    // Values of a field with ids.
    ids: Vec<String>,
    // True once the object had the field `name`: the name of its `node`, unless it has a `store`.
    is_named: bool,
    // True once the object had the field `store`.
    is_of_store: bool,
    beside: Vec<(String, Value)>,
}

/// The meaning of a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Meaning {
    #[default]
    Other,
    Instant,
    Node,
    Nodes,
}

impl Meaning {
    fn of(field: &str) -> Self {
        match field {
            "author" | "node" | "removed_by" => Self::Node,
            "awaited" | "dormant" | "nodes" | "signed_by" | "silent" => Self::Nodes,
            _other if INSTANTS.contains(&field) => Self::Instant,
            _other => Self::Other,
        }
    }
}

/// Fields that are an instant, in ms since 1970. Other fields that end with `_ms` are durations.
const INSTANTS: [&str; 16] = [
    "arrived_ms",
    "at_ms",
    "created_ms",
    "died_ms",
    "due_ms",
    "expires_ms",
    "holds_since_ms",
    "last_seen_ms",
    "next_due_ms",
    "now_ms",
    "reach_ms",
    "seen_ms",
    "since_ms",
    "started_ms",
    "through_ms",
    "wall_ms",
];

impl Object {
    // Adds what belongs beside the field that was written.
    fn end_field(&mut self, names: &NodeNames) {
        let field = &self.field;
        match self.meaning {
            Meaning::Instant => {
                if let (Some(time), Some(stem)) =
                    (self.ms.and_then(time), field.strip_suffix("_ms"))
                {
                    self.beside.push((format!("{stem}_time"), time.into()));
                }
            }
            Meaning::Node => {
                let name = self.ids.first().and_then(|id| names.0.get(id));
                if let Some(name) = name {
                    let name = name.clone().into();
                    self.beside.push((format!("{field}_name"), name));
                }
            }
            Meaning::Nodes if names.0.is_empty() => {}
            Meaning::Nodes => {
                if self.ids.iter().all(|id| !id.is_empty()) && !self.ids.is_empty() {
                    let names = self.ids.iter().map(|id| names.0.get(id).cloned());
                    let names = names.collect::<Vec<_>>().into();
                    self.beside.push((format!("{field}_names"), names));
                }
            }
            Meaning::Other => {}
        }
    }
}

impl Formatter for Beside<'_> {
    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.objects.push(Object::default());
        CompactFormatter.begin_object(writer)
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        if let Some(object) = self.objects.last_mut() {
            object.field.clear();
            object.ids.clear();
            object.ms = None;
            object.meaning = Meaning::Other;
            object.is_name = true;
        }
        CompactFormatter.begin_object_key(writer, is_first)
    }

    fn end_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        if let Some(object) = self.objects.last_mut() {
            object.is_name = false;
            object.is_of_store |= object.field == "store";
            object.is_named |= object.field == "name";
            object.meaning = Meaning::of(&object.field);
        }
        CompactFormatter.end_object_key(writer)
    }

    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if let Some(object) = self.objects.last_mut() {
            match object.meaning {
                _any if object.is_name => object.field.push_str(fragment),
                Meaning::Node => object.ids.push(fragment.to_owned()),
                Meaning::Nodes => {
                    if let Some(id) = object.ids.last_mut() {
                        id.push_str(fragment);
                    }
                }
                Meaning::Instant | Meaning::Other => {}
            }
        }
        CompactFormatter.write_string_fragment(writer, fragment)
    }

    fn write_u64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        if let Some(object) = self.objects.last_mut() {
            object.ms = Some(value);
        }
        CompactFormatter.write_u64(writer, value)
    }

    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        if let Some(object) = self.objects.last_mut()
            && object.meaning == Meaning::Nodes
        {
            object.ids.push(String::new());
        }
        CompactFormatter.begin_array_value(writer, is_first)
    }

    fn end_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        if let Some(object) = self.objects.last_mut() {
            object.end_field(self.names);
        }
        CompactFormatter.end_object_value(writer)
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        let object = self.objects.pop().unwrap_or_default();
        // The field `name` of an object with a `node` is the name of the node already.
        let is_named = object.is_named && !object.is_of_store;
        for (field, value) in object.beside {
            if !(is_named && field == "node_name") {
                write!(writer, ",{}:{value}", Value::from(field))?;
            }
        }
        CompactFormatter.end_object(writer)
    }
}

/// Bytes that most lines fit in.
const LINE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> NodeNames {
        let names = [("aa", "attic"), ("bb", "the \"den\"")];
        NodeNames(
            names
                .map(|(id, name)| (id.to_owned(), name.to_owned()))
                .into(),
        )
    }

    fn line(json: &str) -> String {
        let object: Value = serde_json::from_str(json).unwrap();
        to_line(&object, &names())
    }

    #[test]
    fn times_and_names_stand_beside() {
        for (object, beside) in [
            (
                r#"{"wall_ms":1700000000123}"#,
                r#","wall_time":"2023-11-14T22:13:20.123Z""#,
            ),
            (
                r#"{"at_ms":1700000000000,"took_ms":5}"#,
                r#","at_time":"2023-11-14T22:13:20.000Z""#,
            ),
            (r#"{"author":"aa"}"#, r#","author_name":"attic""#),
            (r#"{"node":"bb"}"#, r#","node_name":"the \"den\"""#),
            (
                r#"{"nodes":["aa","cc"]}"#,
                r#","nodes_names":["attic",null]"#,
            ),
            // 0 is never; the last year is 9999; a node without a name; a flag; an empty list.
            (r#"{"seen_ms":0}"#, ""),
            (r#"{"wall_ms":281474976710655}"#, ""),
            (r#"{"due_ms":null}"#, ""),
            (r#"{"author":"cc"}"#, ""),
            (r#"{"name":"attic","node":"aa"}"#, ""),
            // The name of a store.
            (
                r#"{"name":"data","node":"aa","store":"s"}"#,
                r#","node_name":"attic""#,
            ),
            (r#"{"dormant":true}"#, ""),
            (r#"{"signed_by":[]}"#, ""),
            (r#"{"value":"{\"wall_ms\":1}"}"#, ""),
            ("{}", ""),
        ] {
            let end = object.len() - 1;
            let expected = format!("{}{beside}}}", &object[..end]);
            assert_eq!(line(object), expected);
        }
    }

    #[test]
    fn objects_in_objects_have_their_own() {
        assert_eq!(
            line(r#"{"a":{"author":"aa"},"b":[{"wall_ms":1}],"signed_by":[{"node":"bb"}]}"#),
            r#"{"a":{"author":"aa","author_name":"attic"},"b":[{"wall_ms":1,"wall_time":"1970-01-01T00:00:00.001Z"}],"signed_by":[{"node":"bb","node_name":"the \"den\""}]}"#
        );
    }

    #[test]
    fn schema_has_each_instant_with_its_text() {
        let schema: Value = serde_json::from_str(crate::cli::output::json::SCHEMA).unwrap();
        let mut instants = std::collections::BTreeSet::new();
        fields(&schema, &mut |object| {
            for field in object.keys() {
                let stem = field.strip_suffix("_ms");
                let time = stem.map(|stem| format!("{stem}_time"));
                let has_text = time.is_some_and(|time| object.contains_key(&time));
                assert_eq!(has_text, INSTANTS.contains(&field.as_str()), "{field}");
                if has_text {
                    instants.insert(field.clone());
                }
            }
        });
        assert_eq!(instants.len(), INSTANTS.len(), "{instants:?}");
    }

    fn fields(schema: &Value, check: &mut impl FnMut(&serde_json::Map<String, Value>)) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            check(properties);
        }
        match schema {
            Value::Object(parts) => parts.values().for_each(|part| fields(part, check)),
            Value::Array(parts) => parts.iter().for_each(|part| fields(part, check)),
            _leaf => {}
        }
    }
}
