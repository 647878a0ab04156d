//! Role: the acts of root-store entries on nodes, as text that people can read.
//!
//! ```text
//! /nodes/{author}/role    admin | writer | reader
//!                         removed, then one line for each tip: {store} {seq} {entry}
//!                         or, where nothing counts any more: {store}
//!                         lowered writer | lowered reader, then tips in the same way
//! ```
//!
//! A put without expiry at such a key, with exactly one of these values, is an act on the node: a
//! grant of the role, its removal, or a lowering of its role. Every other op is not an act: a delete,
//! a value that expires, a value in any other form. Tips are sorted by store, then seq, then entry,
//! and are at most `TIPS_MAX`. Whether an act counts is up to the evaluation of the members.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use bytes::Bytes;

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
    /// Takes the rights above the role from the node for ever. Of its acts only the tips in the root
    /// store, and those that they lead back to, count; if the role is reader, of all its entries. The
    /// role is never admin.
    Lower(Role, Tips),
}

/// The last entries of a removed or lowered author that count, sorted by store, then seq, then id.
///
/// In a store that is named without a tip none of its entries counts. A removal does not speak of a
/// store that it does not name. Several tips in one store name several branches: the author had
/// forked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tips(BTreeSet<(StoreId, Option<FrontierTip>)>);

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
        Self::naming([], tips)
    }

    /// Creates a set of tips that also speaks of `stores`: in one without a tip nothing counts.
    ///
    /// # Errors
    /// `TooManyTips` above `TIPS_MAX` tips and stores without one.
    pub fn naming(
        stores: impl IntoIterator<Item = StoreId>,
        tips: impl IntoIterator<Item = (StoreId, FrontierTip)>,
    ) -> Result<Self, TooManyTips> {
        let tips = tips.into_iter().map(|(store, tip)| (store, Some(tip)));
        let mut tips: BTreeSet<_> = tips.collect();
        for store in stores {
            if !speaks_of(&tips, &store) {
                tips.insert((store, None));
            }
        }
        if tips.len() > TIPS_MAX {
            return Err(TooManyTips {
                tips: tips.len(),
                tips_max: TIPS_MAX,
            });
        }
        Ok(Self(tips))
    }

    /// Creates a set of tips as [`naming`](Self::naming) does. Of more than fit it has those of the
    /// longest branches, at least one in each store that has any: a node that has forked more often than
    /// that can be removed, too.
    ///
    /// # Errors
    /// `TooManyTips` above `TIPS_MAX` stores.
    pub fn naming_longest(
        stores: BTreeSet<StoreId>,
        tips: BTreeSet<(StoreId, FrontierTip)>,
    ) -> Result<Self, TooManyTips> {
        let mut by_store: BTreeMap<StoreId, Vec<FrontierTip>> = BTreeMap::new();
        for (store, tip) in tips {
            by_store.entry(store).or_default().push(tip);
        }
        let mut longest = Vec::new();
        for (store, mut tips) in by_store {
            tips.sort_by_key(|tip| Reverse(tip.seq));
            let places = tips.into_iter().enumerate();
            longest.extend(places.map(|(place, tip)| (place, Reverse(tip.seq), (store, tip))));
        }
        longest.sort_by_key(|(place, seq, _tip)| (*place, *seq));
        longest.truncate(TIPS_MAX.saturating_sub(stores.len()));
        Self::naming(stores, longest.into_iter().map(|(_, _, tip)| tip))
    }

    /// Returns the tips in `store`, sorted by seq, then id.
    pub fn of(&self, store: &StoreId) -> impl Iterator<Item = FrontierTip> + '_ {
        let store = *store;
        let tips = self.0.iter().filter(move |(at, _tip)| *at == store);
        tips.filter_map(|(_store, tip)| *tip)
    }

    /// Returns whether `store` is named, with a tip or without.
    pub fn speaks_of(&self, store: &StoreId) -> bool {
        speaks_of(&self.0, store)
    }

    /// Returns the stores that are named, each once, in order.
    pub fn stores(&self) -> BTreeSet<StoreId> {
        self.0.iter().map(|(store, _tip)| *store).collect()
    }

    /// Replaces all tips in `store` by `tip`.
    #[must_use]
    pub(crate) fn with_only(mut self, store: StoreId, tip: FrontierTip) -> Self {
        self.0.retain(|(at, _tip)| *at != store);
        self.0.insert((store, Some(tip)));
        self
    }

    // One line for each, after a line break.
    fn lines(&self) -> String {
        let line = |(store, tip): &(StoreId, Option<FrontierTip>)| match tip {
            Some(tip) => format!("\n{store} {} {}", tip.seq, tip.id),
            None => format!("\n{store}"),
        };
        self.0.iter().map(line).collect()
    }

    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let lines = lines.take(TIPS_MAX.saturating_add(1)).map(tip);
        let tips: BTreeSet<_> = lines.collect::<Option<_>>()?;
        // `naming` names no store twice. So a lone store beside a tip does not encode to the same.
        let with_tip = tips
            .iter()
            .filter_map(|(store, tip)| Some((*store, (*tip)?)));
        let stores = tips.iter().map(|(store, _tip)| *store);
        Self::naming(stores, with_tip).ok()
    }
}

fn speaks_of(tips: &BTreeSet<(StoreId, Option<FrontierTip>)>, store: &StoreId) -> bool {
    let from = tips.range((*store, None)..).next();
    from.is_some_and(|(at, _tip)| at == store)
}

impl Act {
    /// Returns the value by which a put at the node's role key makes this act.
    pub fn encode(&self) -> Bytes {
        Bytes::from(match self {
            Self::Grant(role) => role.to_string(),
            Self::Remove(tips) => REMOVED.to_owned() + &tips.lines(),
            Self::Lower(role, tips) => format!("{LOWERED}{role}{}", tips.lines()),
        })
    }

    /// Decodes a value; `None` unless it is exactly as `encode` writes it.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(value).ok()?.split('\n');
        let act = match lines.next()? {
            REMOVED => Self::Remove(Tips::parse(lines)?),
            role => match role.strip_prefix(LOWERED) {
                Some(role) => {
                    let role = role.parse().ok().filter(|role| *role < Role::Admin)?;
                    Self::Lower(role, Tips::parse(lines)?)
                }
                None => Self::Grant(role.parse().ok()?),
            },
        };
        (act.encode() == value).then_some(act)
    }
}

fn tip(line: &str) -> Option<(StoreId, Option<FrontierTip>)> {
    let Some((store, rest)) = line.split_once(' ') else {
        return Some((line.parse().ok()?, None));
    };
    let (seq, id) = rest.split_once(' ')?;
    let tip = FrontierTip {
        seq: seq.parse::<Seq>().ok()?,
        id: id.parse::<EntryId>().ok()?,
    };
    Some((store.parse().ok()?, Some(tip)))
}

/// Returns whether a root-store entry is never held, however far ahead it is stamped: it has ops, and
/// all are acts or under `/invites/`.
///
/// A removal must not wait for the clock of a node that was ahead, and an invite that was redeemed
/// must admit its bearer everywhere.
pub fn is_never_held(entry: &Entry) -> bool {
    let is_exempt = |op: &Op| act(op).is_some() || op.key().starts_with(b"/invites/");
    !entry.ops.is_empty() && entry.ops.iter().all(is_exempt)
}

/// Returns the act that an op makes, and the node that it acts on; `None` if it is no act.
pub(super) fn act(op: &Op) -> Option<(Author, Act)> {
    match op {
        Op::Put {
            key,
            value,
            expires_ms: None,
        } => Some((role_key_node(key)?, Act::decode(value)?)),
        Op::Put { .. } | Op::Delete { .. } => None,
    }
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
const LOWERED: &str = "lowered ";
const REMOVED: &str = "removed";

#[cfg(test)]
mod tests {
    use super::*;

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
        let lowered = Act::Lower(Role::Reader, Tips::naming([STORE_1], []).unwrap());
        assert_eq!(lowered.encode(), format!("lowered reader\n{STORE_1}"));
    }

    // Otherwise a node that had forked that often could be removed by nobody.
    #[test]
    fn removal_of_a_node_with_too_many_branches_names_the_longest() {
        let number = |at: usize| FrontierTip {
            seq: 5 + at as u64,
            id: EntryId(*blake3::hash(&at.to_le_bytes()).as_bytes()),
        };
        let forks = (0..TIPS_MAX + 5).map(|at| (STORE_1, number(at)));
        let tips: BTreeSet<_> = forks.chain([(STORE_2, tip(1, 1))]).collect();
        let stores = BTreeSet::from([STORE_1, STORE_2, StoreId([3; 16])]);
        assert!(Tips::naming(stores.clone(), tips.clone()).is_err());
        let named = Tips::naming_longest(stores.clone(), tips).unwrap();
        assert_eq!(named.stores(), stores);
        assert_eq!(named.of(&STORE_2).collect::<Vec<_>>(), [tip(1, 1)]);
        let kept: BTreeSet<Seq> = named.of(&STORE_1).map(|tip| tip.seq).collect();
        assert_eq!(kept.len(), TIPS_MAX - 4);
        let shortest = number(TIPS_MAX + 5 - kept.len()).seq;
        assert_eq!(kept.first(), Some(&shortest));
        assert!(Act::decode(&Act::Remove(named).encode()).is_some());

        let few = BTreeSet::from([(STORE_1, tip(3, 3)), (STORE_1, tip(2, 2))]);
        let named = Tips::naming_longest(BTreeSet::from([STORE_1]), few.clone());
        assert_eq!(named, Tips::naming([STORE_1], few));
    }

    #[test]
    fn encoded_act_decodes_to_itself() {
        let grants = [Role::Reader, Role::Writer, Role::Admin].map(Act::Grant);
        let Act::Remove(tips) = removal() else {
            panic!("a removal")
        };
        let others = [
            Act::Remove(Tips::default()),
            removal(),
            Act::Lower(Role::Reader, Tips::default()),
            Act::Lower(Role::Writer, tips),
        ];
        for act in [&grants[..], &others].concat() {
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
            format!("lowered admin\n{tip}"),
            format!("lowered\n{tip}"),
            "lowered ".to_owned(),
            "lowered  reader".to_owned(),
            "lowered reader\n".to_owned(),
            format!("lowered writer\n{other}\n{tip}"),
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
}
