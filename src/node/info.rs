//! The info of a node, at `/nodes/{author}/info` in the root store: a JSON object for people and
//! programs.
//!
//! The node writes it, or an admin for it: a reader has no entries that count.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    id::{Author, looks_like_id},
    limits::NODE_NAME_CHARS_MAX,
    node::error::NameError,
};

/// The name of a node and the program that it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Name of the node for people.
    pub name: String,
    /// Version of the program.
    #[serde(default)]
    pub version: String,
    /// Operating system that it runs on.
    #[serde(default)]
    pub os: String,
}

impl NodeInfo {
    /// Returns the info of this program under `name`.
    pub fn of_this_program(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: std::env::consts::OS.to_owned(),
        }
    }

    /// Returns the root-store key of the info of `node`.
    pub fn key(node: &Author) -> Bytes {
        format!("/nodes/{node}/info").into()
    }

    /// Encodes it as a JSON object.
    pub fn encode(&self) -> Bytes {
        // Maps with keys that are no text cannot be encoded; this has none.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Decodes a value; `None` if it is not a JSON object with a name. Other members chose the texts,
    /// so each is cut to `NODE_NAME_CHARS_MAX` characters.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let Self { name, version, os } = serde_json::from_slice(value).ok()?;
        let cut = |text: String| text.chars().take(NODE_NAME_CHARS_MAX).collect();
        Some(Self {
            name: cut(name),
            version: cut(version),
            os: cut(os),
        })
    }
}

/// Checks that `name` can be the name of a node.
///
/// # Errors
/// `NameError`: it is empty, too long, or looks like an id, which a command could take for another
/// node.
pub fn check_node_name(name: &str) -> Result<(), NameError> {
    let characters = name.chars().count();
    if name.trim().is_empty() {
        return Err(NameError::Empty);
    }
    if characters > NODE_NAME_CHARS_MAX {
        return Err(NameError::Long { characters });
    }
    if looks_like_id(name) {
        return Err(NameError::LikeId {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// Returns the name of the machine, as a name for a node.
pub(super) fn machine_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    // Containers have such names.
    match looks_like_id(&name) {
        true => format!("host-{name}"),
        false => name.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::mutator::{Corpus, fuzz};

    #[test]
    fn any_bytes_are_an_info_or_none() {
        let info = NodeInfo::of_this_program("Zo\u{eb}'s \"kitchen\"\n");
        let corpus = Corpus::new([info.encode()]);
        fuzz(&corpus, |input| {
            let Some(info) = NodeInfo::decode(input) else {
                return false;
            };
            assert_eq!(NodeInfo::decode(&info.encode()), Some(info.clone()));
            assert!(info.name.chars().count() <= NODE_NAME_CHARS_MAX);
            true
        });
        assert_eq!(NodeInfo::decode(&info.encode()), Some(info));
        let old = NodeInfo::decode(br#"{"name":"attic","more":[1]}"#).unwrap();
        assert_eq!((old.name.as_str(), old.os.as_str()), ("attic", ""));
    }

    #[test]
    fn name_that_misleads_or_is_too_long_is_refused() {
        assert_eq!(check_node_name("kitchen"), Ok(()));
        assert_eq!(check_node_name(" "), Err(NameError::Empty));
        let long = "x".repeat(NODE_NAME_CHARS_MAX + 1);
        let refused = check_node_name(&long).unwrap_err().to_string();
        assert!(refused.contains("65 characters"), "{refused}");
        assert!(check_node_name(&"ab".repeat(32)).is_err());
    }
}
