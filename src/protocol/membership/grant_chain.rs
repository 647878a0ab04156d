//! Grant chain: a proof of membership, shown to a node that has not received the grants yet.
//!
//! A proof is 1 to `PROOF_GRANTS_MAX` signed entries of the root store, in this order. The author
//! of the first is, or was, an admin as far as the verifier knows. Each later entry cites the one
//! before as a parent, and the one before grants admin to its author. The last grants a role to the
//! node. All signatures are valid. No other entries of the logs are needed, because an act counts
//! by the grant that it cites and not by its place in a log.
//!
//! A proof gives nothing that a sync would not: the verifier evaluates its members with these acts
//! added ([`Members::evaluate`]), and the node is a member only if that says so.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, StoreId},
    limits::PROOF_GRANTS_MAX,
    protocol::{
        entry::{Entry, EntryError, Parent, SignedEntry},
        membership::{
            Members,
            acts::Acts,
            role::{Act, Role},
        },
    },
};

/// Why entries are refused as a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// There is no entry, or there are too many.
    #[error("a proof has 1 to {grants_max} grants; this one has {grants}")]
    Length {
        /// Number of entries shown.
        grants: usize,
        /// Greatest number allowed.
        grants_max: usize,
    },
    /// An entry does not decode, or its signature is wrong.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// An entry belongs to another store.
    #[error("the proof is for store {theirs}; the root store here is {ours}")]
    WrongStore {
        /// Store that the entry names.
        theirs: StoreId,
        /// Root store of the verifier.
        ours: StoreId,
    },
    /// The author of the first entry is not, and was not, an admin as far as is known here.
    #[error("the proof begins with a grant by node {author}, which is not known as an admin here")]
    NotAnAdmin {
        /// Author of the first entry.
        author: Author,
    },
    /// An entry has no act or does not follow from the one before, or the last one grants the node
    /// no role.
    #[error("the chain of grants ends at entry {entry}")]
    Broken {
        /// Last entry that is in order; the first entry if it has no act.
        entry: EntryId,
    },
    /// The chain is in order, but a node in it was removed, so the grants do not count.
    #[error("the chain of grants does not make node {node} a member: a node in it was removed")]
    Void {
        /// Node that showed the proof.
        node: Author,
    },
}

/// Returns the entries of the grants that lead to `node`, the one nearest to the creator first.
///
/// Of a longer chain only the last `PROOF_GRANTS_MAX` are returned, because others know the first
/// ones best. Empty for a node that is not a member, and for the creator if it was granted nothing.
/// `acts` has all acts of the root store by entry.
pub fn grants(node: &Author, acts: &BTreeMap<EntryId, Acts>, members: &Members) -> Vec<Parent> {
    let mut chain = Vec::new();
    let member = members.get(node).filter(|_| members.role(node).is_some());
    let mut next = member
        .and_then(|member| member.grant)
        .map(|grant| grant.rank.entry);
    while let Some(acts_of) = next.and_then(|entry| acts.get(&entry)) {
        chain.push(acts_of.place);
        if chain.len() == PROOF_GRANTS_MAX {
            break;
        }
        let author = &acts_of.place.author;
        let mut grants = acts_of.authorities(|entry| acts.get(entry));
        let counting = grants.find(|grant| members.counts(&grant.place.id, author));
        next = counting.map(|grant| grant.place.id);
    }
    chain.reverse();
    chain
}

/// Returns the entries of a removal of `node` by another node, and of the grants that lead to the
/// remover, in the order of a proof. Empty if no other node has removed it.
pub fn removal(node: &Author, acts: &BTreeMap<EntryId, Acts>, members: &Members) -> Vec<Parent> {
    let removals = members.get(node).map(|member| &member.removals);
    let by_others = removals
        .into_iter()
        .flatten()
        .filter(|(_, removal)| removal.by != *node);
    let found = by_others.filter_map(|(entry, removal)| Some((acts.get(entry)?.place, removal.by)));
    let Some((place, by)) = found.min_by_key(|(place, _)| (place.hlc, place.id)) else {
        return Vec::new();
    };
    let mut chain = grants(&by, acts, members);
    if chain.len() == PROOF_GRANTS_MAX {
        chain.remove(0);
    }
    chain.push(place);
    chain
}

/// Checks that `entries` are a chain of grants in `store`, from an admin or former admin of
/// `members` to a node that removes `node`, and that removal. Returns their acts, as `check` does.
///
/// # Errors
/// Any `ProofError` except `Void`.
pub fn check_removal(
    entries: &[Bytes],
    store: &StoreId,
    node: &Author,
    members: &Members,
) -> Result<Vec<Acts>, ProofError> {
    let removes = |(on, act): &(Author, Act)| on == node && matches!(act, Act::Remove(_));
    check_chain(entries, store, members, |last| {
        last.place.author != *node && last.acts.iter().any(removes)
    })
}

/// Checks that `entries` are a chain of grants in `store`, from an admin or former admin of
/// `members` to `node`, and returns their acts. `Members::evaluate` decides whether the acts count.
///
/// Signatures are checked last, and the first wrong one ends the check, so that a stranger costs
/// one signature check.
///
/// # Errors
/// Any `ProofError` except `Void`, which is for the caller to return after the evaluation.
pub fn check(
    entries: &[Bytes],
    store: &StoreId,
    node: &Author,
    members: &Members,
) -> Result<Vec<Acts>, ProofError> {
    check_chain(entries, store, members, |last| {
        grants_to(last, node).is_some()
    })
}

// `ends` returns whether the last entry is what the chain is for.
fn check_chain(
    entries: &[Bytes],
    store: &StoreId,
    members: &Members,
    ends: impl Fn(&Acts) -> bool,
) -> Result<Vec<Acts>, ProofError> {
    if entries.is_empty() || entries.len() > PROOF_GRANTS_MAX {
        return Err(ProofError::Length {
            grants: entries.len(),
            grants_max: PROOF_GRANTS_MAX,
        });
    }
    let mut chain: Vec<(Entry, Acts)> = Vec::new();
    for bytes in entries {
        let entry = SignedEntry::decode(bytes.clone())?.parse()?;
        if entry.header.store != *store {
            return Err(ProofError::WrongStore {
                theirs: entry.header.store,
                ours: *store,
            });
        }
        let author = entry.author();
        let before = chain.last().map(|(_, acts)| acts);
        if before.is_none() {
            let known = members.get(&author);
            if known.is_none_or(|known| known.rank.is_none()) {
                return Err(ProofError::NotAnAdmin { author });
            }
        }
        let follows = |acts: &Acts| {
            before.is_none_or(|before| {
                let mut grants = acts.authorities(|id| (before.place.id == *id).then_some(before));
                grants.next().is_some()
            })
        };
        let acts = Acts::of(&entry).filter(follows);
        let last = before.map_or(entry.id, |before| before.place.id);
        let acts = acts.ok_or(ProofError::Broken { entry: last })?;
        chain.push((entry, acts));
    }
    if let Some((entry, acts)) = chain.last()
        && !ends(acts)
    {
        return Err(ProofError::Broken { entry: entry.id });
    }
    let mut acts = Vec::new();
    for (entry, of_it) in chain {
        entry.verify()?;
        acts.push(of_it);
    }
    Ok(acts)
}

// Returns the role that an entry grants to `node`.
fn grants_to(acts: &Acts, node: &Author) -> Option<Role> {
    acts.acts.iter().find_map(|(to, act)| match act {
        Act::Grant(role) if to == node => Some(*role),
        Act::Grant(_) | Act::Remove(_) | Act::Lower(..) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::protocol::{
        entry::{Header, Op, VerifiedEntry, sign},
        hlc::Hlc,
        membership::role::role_key,
    };

    const ROOT: StoreId = StoreId([1; 16]);
    const FOUNDER: u8 = 1;

    fn node(number: u8) -> Author {
        let key = SigningKey::from_bytes(&[number; 32]);
        Author(key.verifying_key().to_bytes())
    }

    // The place in the author's log is arbitrary: a proof does not depend on the entries before.
    fn grant(by: u8, cites: Option<&VerifiedEntry>, to: u8, role: Role) -> VerifiedEntry {
        let header = Header {
            store: ROOT,
            seq: 7,
            prev: Some(EntryId([7; 32])),
            hlc: Hlc {
                wall_ms: 1000 + u64::from(to),
                counter: 0,
            },
            atomic: false,
            cause: None,
            parents: cites.iter().map(|entry| entry.as_parent()).collect(),
        };
        let op = Op::Put {
            key: role_key(&node(to)),
            value: Act::Grant(role).encode(),
            expires_ms: None,
        };
        sign(&SigningKey::from_bytes(&[by; 32]), header, vec![op]).unwrap()
    }

    // A chain of grants from the founder: of admin, and the last one of reader.
    fn chain(length: u8) -> Vec<VerifiedEntry> {
        let mut chain: Vec<VerifiedEntry> = Vec::new();
        for by in FOUNDER..FOUNDER + length {
            let role = if by == length {
                Role::Reader
            } else {
                Role::Admin
            };
            chain.push(grant(by, chain.last(), by + 1, role));
        }
        chain
    }

    fn known(entries: &[VerifiedEntry]) -> (BTreeMap<EntryId, Acts>, Members) {
        let acts = entries.iter().map(|entry| {
            let acts = Acts::of(entry).unwrap();
            (entry.id, acts)
        });
        let acts: BTreeMap<_, _> = acts.collect();
        let Ok(members) = Members::evaluate(node(FOUNDER), ROOT, acts.values(), |_, _, _| {
            Ok::<_, Infallible>(None)
        });
        (acts, members)
    }

    fn encoded(entries: &[VerifiedEntry]) -> Vec<Bytes> {
        let encode = |entry: &VerifiedEntry| Bytes::from(entry.signed.encode());
        entries.iter().map(encode).collect()
    }

    #[test]
    fn chain_convinces_a_node_that_knows_the_founder() {
        let all = chain(3);
        let mut others = all.clone();
        others.push(grant(FOUNDER, None, 90, Role::Admin));
        let (acts, members) = known(&others);
        let places = grants(&node(4), &acts, &members);
        let expected: Vec<_> = all.iter().map(|entry| entry.as_parent()).collect();
        assert_eq!(places, expected);
        assert_eq!(grants(&node(FOUNDER), &acts, &members), []);
        assert_eq!(grants(&node(91), &acts, &members), []);

        let (_, founded) = known(&[]);
        let shown = check(&encoded(&all), &ROOT, &node(4), &founded).unwrap();
        let Ok(by_it) = Members::evaluate(node(FOUNDER), ROOT, &shown, |_, _, _| {
            Ok::<_, Infallible>(None)
        });
        assert_eq!(by_it.role(&node(4)), Some(Role::Reader));
        // A verifier that knows more admins needs fewer grants.
        let (_, members) = known(&all[..2]);
        assert!(check(&encoded(&all[2..]), &ROOT, &node(4), &members).is_ok());
        assert_eq!(
            check(&encoded(&all[2..]), &ROOT, &node(4), &founded),
            Err(ProofError::NotAnAdmin { author: node(3) })
        );
    }

    #[test]
    fn long_chain_loses_grants_next_to_the_creator() {
        let length = u8::try_from(PROOF_GRANTS_MAX).unwrap() + 5;
        let all = chain(length);
        let (acts, members) = known(&all);
        let places = grants(&node(length + 1), &acts, &members);
        let last = all.iter().skip(5).map(|entry| entry.as_parent());
        assert!(places.into_iter().eq(last));
    }

    #[test]
    fn broken_chain_or_other_node_is_refused() {
        let all = chain(3);
        let (_, founded) = known(&[]);
        let broken =
            |entries: &[VerifiedEntry], to| check(&encoded(entries), &ROOT, &node(to), &founded);
        let ends_at = |entry: &VerifiedEntry| Err(ProofError::Broken { entry: entry.id });
        assert_eq!(
            broken(&[all[0].clone(), all[2].clone()], 4),
            ends_at(&all[0])
        );
        assert_eq!(broken(&all, 5), ends_at(&all[2]));
        assert_eq!(broken(&all[..2], 4), ends_at(&all[1]));
        // The author is an admin, but its grant does not cite the one that made it so.
        let careless = grant(2, None, 3, Role::Admin);
        assert_eq!(broken(&[all[0].clone(), careless], 3), ends_at(&all[0]));
        // It cites it, but not as it is.
        let mut header = all[1].header.clone();
        header.parents[0].hlc.wall_ms -= 1;
        let op = all[1].ops[0].clone();
        let careless = sign(&SigningKey::from_bytes(&[2; 32]), header, vec![op]).unwrap();
        assert_eq!(broken(&[all[0].clone(), careless], 3), ends_at(&all[0]));
        let other = check(&encoded(&all), &StoreId([2; 16]), &node(4), &founded);
        assert!(matches!(other, Err(ProofError::WrongStore { .. })));
        let none = Err(ProofError::Length {
            grants: 0,
            grants_max: PROOF_GRANTS_MAX,
        });
        assert_eq!(broken(&[], 4), none);
    }
}
