//! Role: the acts of root-store entries on nodes, as text that people can read.
//!
//! ```text
//! /nodes/{author}/role    admin | writer | reader
//!                         removed, then one line for each tip: {store} {seq} {entry}
//! ```
//!
//! A put without expiry at such a key, with exactly one of these values, is an act on the node: a
//! grant of the role, or its removal. Every other op is not an act: a delete, a value that expires,
//! a value in any other form. Tips are sorted by store, then seq, then entry, and are at most
//! `TIPS_MAX`. Whether an act counts is up to the evaluation of the members.

use std::{collections::BTreeSet, fmt, str::FromStr};

use bytes::Bytes;
use memchr::memmem;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    limits::TIPS_MAX,
    protocol::{
        entry::{Entry, Op},
        frontier::FrontierTip,
    },
};

/// Rights of a member. Each role has the rights of those before it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Receives all stores; its own entries are refused.
    Reader,
    /// Writes to all stores.
    Writer,
    /// Grants roles and removes nodes.
    Admin,
}

/// A text that is not the name of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a role: expected reader, writer or admin")]
pub struct RoleError {
    /// The text, cut to 80 characters.
    pub text: String,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text {
            "reader" => Ok(Self::Reader),
            "writer" => Ok(Self::Writer),
            "admin" => Ok(Self::Admin),
            _other => Err(RoleError {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

/// An act: an entry's change of one node's membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Makes the node a member, or raises its role.
    Grant(Role),
    /// Ends the node's membership for ever. Of its entries only the tips, and those that they lead
    /// back to, count.
    Remove(Tips),
}

/// The last entries of a removed author that count, sorted by store, then seq, then id.
///
/// In a store without a tip none of its entries counts. Several tips in one store name several
/// branches: the author had forked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tips(BTreeSet<(StoreId, FrontierTip)>);

/// A removal would name too many tips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a removal names at most {tips_max} tips; this one names {tips}")]
pub struct TooManyTips {
    /// Number of tips given, without duplicates.
    pub tips: usize,
    /// Greatest number allowed.
    pub tips_max: usize,
}

impl Tips {
    /// Creates a set of tips; their order and duplicates do not matter.
    ///
    /// # Errors
    /// `TooManyTips` above `TIPS_MAX` tips.
    pub fn new(
        tips: impl IntoIterator<Item = (StoreId, FrontierTip)>,
    ) -> Result<Self, TooManyTips> {
        let tips: BTreeSet<_> = tips.into_iter().collect();
        if tips.len() > TIPS_MAX {
            return Err(TooManyTips {
                tips: tips.len(),
                tips_max: TIPS_MAX,
            });
        }
        Ok(Self(tips))
    }

    /// Returns the tips in `store`, sorted by seq, then id.
    pub fn of(&self, store: &StoreId) -> impl Iterator<Item = FrontierTip> + '_ {
        let store = *store;
        self.0
            .iter()
            .filter_map(move |(at, tip)| (*at == store).then_some(*tip))
    }

    /// Replaces all tips in `store` by `tip`.
    #[must_use]
    pub(crate) fn with_only(mut self, store: StoreId, tip: FrontierTip) -> Self {
        self.0.retain(|(at, _tip)| *at != store);
        self.0.insert((store, tip));
        self
    }
}

impl Act {
    /// Returns the value by which a put at the node's role key makes this act.
    pub fn encode(&self) -> Bytes {
        Bytes::from(match self {
            Self::Grant(role) => role.to_string(),
            Self::Remove(Tips(tips)) => {
                let line = |(store, tip): &(StoreId, FrontierTip)| {
                    format!("\n{store} {} {}", tip.seq, tip.id)
                };
                REMOVED.to_owned() + &tips.iter().map(line).collect::<String>()
            }
        })
    }

    /// Decodes a value; `None` unless it is exactly as `encode` writes it.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(value).ok()?.split('\n');
        let act = match lines.next()? {
            REMOVED => {
                let tips: Option<Vec<_>> =
                    lines.take(TIPS_MAX.saturating_add(1)).map(tip).collect();
                Self::Remove(Tips::new(tips?).ok()?)
            }
            role => Self::Grant(role.parse().ok()?),
        };
        (act.encode() == value).then_some(act)
    }
}

fn tip(line: &str) -> Option<(StoreId, FrontierTip)> {
    let (store, rest) = line.split_once(' ')?;
    let (seq, id) = rest.split_once(' ')?;
    let tip = FrontierTip {
        seq: seq.parse::<Seq>().ok()?,
        id: id.parse::<EntryId>().ok()?,
    };
    Some((store.parse().ok()?, tip))
}

/// All acts of one root-store entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acts {
    /// Id of the entry.
    pub entry: EntryId,
    /// Author of the entry.
    pub author: Author,
    /// Place of the entry in the author's log, from 1.
    pub seq: Seq,
    /// Ids of its parents; the grant by which its author acts must be among them.
    pub cites: Vec<EntryId>,
    /// Its acts, at most one on each node.
    pub acts: Vec<(Author, Act)>,
}

impl Acts {
    /// Returns the acts of a root-store entry; `None` if it has none.
    ///
    /// A delete is not an act. Nor is a put of a value that expires, because membership does not
    /// depend on a clock.
    pub fn of(entry: &Entry) -> Option<Self> {
        let act = |op: &Op| match op {
            Op::Put {
                key,
                value,
                expires_ms: None,
            } => Some((role_key_node(key)?, Act::decode(value)?)),
            Op::Put { .. } | Op::Delete { .. } => None,
        };
        let acts: Vec<_> = entry.ops.iter().filter_map(act).collect();
        (!acts.is_empty()).then(|| Self {
            entry: entry.id,
            author: entry.author(),
            seq: entry.header.seq,
            cites: entry
                .header
                .parents
                .iter()
                .map(|parent| parent.id)
                .collect(),
            acts,
        })
    }

    /// Returns whether the author removes itself, which needs no authority.
    pub fn leaves(&self) -> bool {
        let removes =
            |(node, act): &(Author, Act)| *node == self.author && matches!(act, Act::Remove(_));
        self.acts.iter().any(removes)
    }

    /// Returns the seq and id of the entry.
    pub fn tip(&self) -> FrontierTip {
        FrontierTip {
            seq: self.seq,
            id: self.entry,
        }
    }
}

/// Returns whether an entry may have acts, from its encoded bytes alone.
///
/// `false` is certain, because a key is in the encoded bytes as it is. `true` is not.
pub fn may_act(encoded: &[u8]) -> bool {
    memmem::find(encoded, ROLE.as_bytes()).is_some()
}

/// Returns the root-store key of acts on `node`: `/nodes/{node}/role`.
pub fn role_key(node: &Author) -> Bytes {
    Bytes::from(format!("/nodes/{node}{ROLE}"))
}

/// Returns the node that a put at `key` acts on; `None` unless `key` is exactly the `role_key` of a
/// node.
pub fn role_key_node(key: &[u8]) -> Option<Author> {
    let node = key
        .strip_prefix(b"/nodes/")?
        .strip_suffix(ROLE.as_bytes())?;
    let node: Author = str::from_utf8(node).ok()?.parse().ok()?;
    (role_key(&node) == key).then_some(node)
}

const ROLE: &str = "/role";
const REMOVED: &str = "removed";

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::protocol::entry::{sign, tests as entries};

    const STORE_1: StoreId = StoreId([1; 16]);
    const STORE_2: StoreId = StoreId([2; 16]);

    fn tip(seq: Seq, id: u8) -> FrontierTip {
        FrontierTip {
            seq,
            id: EntryId([id; 32]),
        }
    }

    fn removal() -> Act {
        let tips = [
            (STORE_2, tip(7, 7)),
            (STORE_1, tip(30, 4)),
            (STORE_1, tip(9, 3)),
        ];
        Act::Remove(Tips::new(tips).unwrap())
    }

    #[test]
    fn acts_are_readable_text() {
        let (three, four, seven) = ("03".repeat(32), "04".repeat(32), "07".repeat(32));
        let text = format!(
            "removed\n\
             01010101-0101-0101-0101-010101010101 9 {three}\n\
             01010101-0101-0101-0101-010101010101 30 {four}\n\
             02020202-0202-0202-0202-020202020202 7 {seven}"
        );
        assert_eq!(removal().encode(), text);
        assert_eq!(Act::Grant(Role::Writer).encode(), "writer");
        assert_eq!(Act::Remove(Tips::default()).encode(), "removed");
    }

    #[test]
    fn encoded_act_decodes_to_itself() {
        let grants = [Role::Reader, Role::Writer, Role::Admin].map(Act::Grant);
        for act in [&grants[..], &[Act::Remove(Tips::default()), removal()]].concat() {
            assert_eq!(Act::decode(&act.encode()), Some(act));
        }
    }

    #[test]
    fn any_other_form_is_not_an_act() {
        let tip = format!("{STORE_1} 9 {}", EntryId([0xab; 32]));
        let other = format!("{STORE_2} 9 {}", EntryId([0xab; 32]));
        let hostile = [
            String::new(),
            "Admin".to_owned(),
            "admin\n".to_owned(),
            " admin".to_owned(),
            format!("admin\n{tip}"),
            "removed\n".to_owned(),
            format!("removed\n{tip}\n"),
            format!("removed\r\n{tip}"),
            format!("removed\n\n{tip}"),
            format!("removed\n{tip}\n{tip}"),
            format!("removed\n{other}\n{tip}"),
            format!("removed\n{}", tip.replace(" 9 ", " 09 ")),
            format!("removed\n{}", tip.replace(" 9 ", " +9 ")),
            format!("removed\n{}", tip.replace(" 9 ", " -9 ")),
            format!("removed\n{}", tip.replace(" 9 ", "  9 ")),
            format!("removed\n{}", tip.replace(" 9 ", " 18446744073709551616 ")),
            format!("removed\n{}", tip.replace('-', "")),
            format!("removed\n{}", tip.to_uppercase()),
        ];
        for text in hostile {
            assert_eq!(Act::decode(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn changed_value_is_another_act_or_none() {
        for act in [Act::Grant(Role::Admin), removal()] {
            let value = act.encode();
            for length in 0..value.len() {
                // A value that ends with a line is a removal, too, with fewer tips.
                let read = Act::decode(&value[..length]);
                assert!(read.is_none_or(|read| read.encode() == value[..length]));
            }
            for bit in 0..value.len() * 8 {
                let mut flipped = value.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let read = Act::decode(&flipped);
                assert!(read.is_none_or(|read| read != act && read.encode() == flipped));
            }
        }
    }

    #[test]
    fn tips_of_a_removal_are_limited() {
        let tips = |count: usize| (1..=count as u64).map(|seq| (STORE_1, tip(seq, 1)));
        let most = Act::Remove(Tips::new(tips(TIPS_MAX)).unwrap());
        let value = most.encode();
        assert_eq!(Act::decode(&value), Some(most));
        let more = [
            &value[..],
            format!("\n{STORE_2} 1 {}", EntryId([1; 32])).as_bytes(),
        ]
        .concat();
        assert_eq!(Act::decode(&more), None);
        let refused = Tips::new(tips(TIPS_MAX + 1)).unwrap_err();
        assert_eq!((refused.tips, refused.tips_max), (TIPS_MAX + 1, TIPS_MAX));
    }

    #[test]
    fn m13_only_the_role_key_acts_on_a_node() {
        let node = Author([0xab; 32]);
        assert_eq!(role_key_node(&role_key(&node)), Some(node));
        let hostile = [
            format!("/nodes/{node}/role/"),
            format!("/nodes/{node}/roles"),
            format!("/nodes//{node}/role"),
            format!("/nodes/../{node}/role"),
            format!("/nodes/{}/role", node.to_string().to_uppercase()),
            format!("/nodes/{}/role", &node.to_string()[2..]),
            format!("nodes/{node}/role"),
            "/nodes/role".to_owned(),
            String::new(),
        ];
        for key in hostile {
            assert_eq!(role_key_node(key.as_bytes()), None, "{key:?}");
        }
    }

    #[test]
    fn acts_are_puts_without_expiry() {
        let (node, other, third) = (Author([1; 32]), Author([2; 32]), Author([3; 32]));
        let put = |key, value: &'static str, expires_ms| Op::Put {
            key,
            value: value.into(),
            expires_ms,
        };
        let plain = entries::entry(entries::AUTHOR_B, 1, None, 5, "/k");
        assert_eq!(Acts::of(&plain), None);
        assert!(!may_act(&plain.signed.encode()));
        let mut header = entries::entry(entries::AUTHOR_A, 1, None, 9, "/k")
            .header
            .clone();
        header.parents = vec![plain.as_parent()];
        let ops = vec![
            put(role_key(&node), "writer", None),
            put(role_key(&other), "admin", Some(99)),
            put(Bytes::from(format!("/nodes/{other}/info")), "admin", None),
            Op::Delete {
                key: role_key(&third),
            },
        ];
        let entry = sign(&SigningKey::from_bytes(&entries::AUTHOR_A), header, ops).unwrap();
        assert!(may_act(&entry.signed.encode()));
        let acts = Acts::of(&entry).unwrap();
        assert_eq!(acts.acts, [(node, Act::Grant(Role::Writer))]);
        assert_eq!(acts.cites, [plain.id]);
        assert_eq!((acts.author, acts.tip().id), (entry.author(), entry.id));
    }
}
