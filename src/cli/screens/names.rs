//! Names of nodes, for people.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    api::{client::Client, whole},
    id::looks_like_id,
    wire::api,
};

use crate::cli::{
    exit::Failure,
    output::{
        ink::Ink, object::short, print::harmless, screen::Screen, table::Cell, width::shorten,
    },
};

/// The names of the members, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    named: BTreeMap<Bytes, String>,
    // Names that several nodes have.
    shared: BTreeSet<String>,
}

impl Names {
    /// Asks the node for the names of the members.
    pub(crate) async fn fetch(client: &mut Client) -> Result<Self, Failure> {
        let reply = whole::peers(client).await?;
        Ok(Self::new(reply.own.iter().chain(&reply.peers)))
    }

    /// Makes the names of these nodes.
    pub(crate) fn new<'a>(nodes: impl IntoIterator<Item = &'a api::Peer>) -> Self {
        let mut names = Self::default();
        let mut seen = BTreeSet::new();
        for peer in nodes {
            let name = shorten(&harmless(&peer.name), NAME_COLUMNS_MAX).into_owned();
            if !seen.insert(name.clone()) {
                names.shared.insert(name.clone());
            }
            names.named.insert(peer.node.clone(), name);
        }
        names
    }

    /// Returns the name of a node: for a name that several nodes have, or that could be taken for an id,
    /// with the first digits of the id; for a node without a name, the first digits alone.
    pub(crate) fn of(&self, node: &[u8]) -> String {
        match self.named.get(node).map(String::as_str) {
            None | Some("") => short(node),
            Some(name) if self.shared.contains(name) || looks_like_id(name) => {
                format!("{name}/{}", short(node))
            }
            Some(name) => name.to_owned(),
        }
    }

    /// Returns the name of a node with its id: `attic (6e90e1cb)`; for a node without a name, the id alone.
    pub(crate) fn with_id(&self, node: &[u8], screen: &Screen) -> String {
        let id = screen.id(node);
        match self.named.get(node).map(String::as_str) {
            None | Some("") => id,
            Some(name) => format!("{} ({id})", screen.paint(Self::ink(node), name)),
        }
    }

    /// Returns a cell with the name of a node, in the colour of the node.
    pub(crate) fn cell(&self, node: &[u8]) -> Cell {
        Cell::new(Self::ink(node), self.of(node))
    }

    /// Returns the colour of a node.
    pub(crate) fn ink(node: &[u8]) -> Ink {
        Ink::Author(node.first().copied().unwrap_or(0))
    }

    /// True if the node is known, with or without a name.
    pub(crate) fn knows(&self, node: &[u8]) -> bool {
        self.named.contains_key(node)
    }

    /// Columns of the longest name, from 8 to 16: those of an id to those for which there is room.
    pub(crate) fn columns(&self) -> usize {
        let longest = self.named.keys().map(|node| self.of(node).chars().count());
        longest.max().unwrap_or(0).clamp(8, 16)
    }
}

/// Columns of a name that are shown.
const NAME_COLUMNS_MAX: usize = 24;

/// Nodes for tests of screens.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a member whose id has this byte throughout.
    pub(crate) fn node(digit: u8, name: &str, role: &str) -> api::Peer {
        api::Peer {
            node: vec![digit; 32].into(),
            name: name.to_owned(),
            role: role.to_owned(),
            ..api::Peer::default()
        }
    }

    /// Names of three members: attic (0x6e), kitchen (0x67) and laptop (0x87).
    pub(crate) fn three() -> Names {
        Names::new(&[
            node(0x6e, "attic", "admin"),
            node(0x67, "kitchen", "writer"),
            node(0x87, "laptop", "writer"),
        ])
    }

    /// A member chose the id of another one as its name, and twelve nodes were called vm.
    #[test]
    fn name_never_stands_for_another_node() {
        let names = Names::new(&[
            node(0x11, "vm", "writer"),
            node(0x22, "vm", "writer"),
            node(0x33, "11111111", "writer"),
            node(0x44, "", "reader"),
            node(0x55, "kit\u{1b}[31m", "writer"),
        ]);
        assert_eq!(names.of(&[0x11; 32]), "vm/11111111");
        assert_eq!(names.of(&[0x22; 32]), "vm/22222222");
        assert_eq!(names.of(&[0x33; 32]), "11111111/33333333");
        assert_eq!(names.of(&[0x44; 32]), "44444444");
        assert_eq!(names.of(&[0x55; 32]), "kit\\x1b[31m");
        assert_eq!(names.of(&[0x66; 32]), "66666666");
        assert!(names.knows(&[0x44; 32]) && !names.knows(&[0x66; 32]));
    }
}
